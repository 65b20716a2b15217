"""Image encoders of ``timm``, alone or in other models. The package is not imported."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from captum_interactions.encoders.families.trial import without_blocks_if_wrong
from captum_interactions.encoders.model.pooling import Pool
from captum_interactions.encoders.towers.image_tower import ImageTower

_TESTED = (
    *("ByobNet", "ConvNeXt", "Eva", "FastVit", "ResNet", "SwinTransformer", "VisionTransformer"),
    "VisionTransformerRelPos",
)
"""Tested models. Others are checked when they are wrapped."""

_LAYERS = ("layer1", "layer2", "layer3", "layer4")
"""Stages of a ResNet."""


def is_timm(model: Any) -> bool:
    """Whether a model is an image encoder of ``timm``, or one in a ``TimmWrapperModel``."""
    names = ("forward_features", "forward_head", "feature_info")
    model = getattr(model, "timm_model", model)
    return isinstance(model, nn.Module) and all(hasattr(model, name) for name in names)


def timm_tower(
    model: nn.Module,
    transform: Any = None,
    run: Callable[..., Tensor] | None = None,
    within: str = "",
    kind: Callable[..., ImageTower] = ImageTower,
    image_size: tuple[int, int] | None = None,
) -> ImageTower:
    """The tower of an image encoder of ``timm``.

    The layers of transformers are their blocks, and the pooling if it is by attention or a mean;
    those of convolutional encoders are their stages. All others are explained only at their input.

    Args:
        model (nn.Module): The encoder, or a model that has it as a part.
        transform (optional): From an image to pixel values. Default: None
        run (Callable, optional): From the model and pixel values (B, C, H, W) to embeddings (B, K).
            Default: the pooled features before the classifier
        within (str): Name of the encoder in the model. Default: the model itself
        kind (Callable): The class of tower. Default: ImageTower
        image_size (tuple, optional): (height, width) of its images. Default: from the encoder
    """
    if hasattr(model, "timm_model"):
        run, within = _wrapped, "timm_model"
    trunk: Any = model.get_submodule(within)
    at = f"{within}.".lstrip(".")
    first = next((m for m in trunk.modules() if isinstance(m, nn.Conv2d)), None)
    options: dict[str, Any] = {
        "image_processor": getattr(transform, "val_transforms", transform),
        "channels": 3 if first is None else first.in_channels,
        "image_size": image_size or _size(trunk),
    }
    make = partial(kind, model, run or _features)
    patches: Any = getattr(trunk, "patch_embed", None)
    stages = [name for name in ("stages", *_LAYERS) if hasattr(trunk, name)]
    if hasattr(trunk, "blocks") and hasattr(patches, "num_patches"):
        size, grid = _size(trunk), patches.grid_size
        # For images of any size, the embedding returns patches in rows and columns.
        is_fixed = getattr(patches, "flatten", False)
        tower = make(
            [f"{at}blocks.{name}" for name, _ in trunk.blocks.named_children()],
            [f"{at}patch_embed"] if is_fixed else [],
            patch=(size[0] // grid[0], size[1] // grid[1]) if grid else patches.patch_size,
            answer=partial(_no_patches, patches.num_patches),
            **options,
        )
        if trunk.global_pool != "token":
            tower.pool = Pool(f"{at}norm", is_default=getattr(trunk, "attn_pool", None) is not None)
    else:
        blocks = [f"{at}{name}" for name in stages]
        if "stages" in stages:
            blocks = [f"{at}stages.{name}" for name, _ in trunk.stages.named_children()]
        parts = [name for name, _ in trunk.named_children()]
        skipped = [f"{at}{name}" for name in parts[: parts.index(stages[0])]] if stages else []
        cell = trunk.feature_info[-1]["reduction"]
        tower = make(blocks, skipped, patch=(cell, cell), convolutional=True, **options)
    return tower if type(trunk).__name__ in _TESTED else without_blocks_if_wrong(tower)


def _size(trunk: Any) -> tuple[int, int]:
    """(height, width) of the training images of an encoder."""
    size = getattr(getattr(trunk, "patch_embed", None), "img_size", None)
    return tuple(size or getattr(trunk, "pretrained_cfg", {}).get("input_size", (224, 224))[-2:])


def _features(model: Any, pixels: Tensor) -> Tensor:
    return cast(Tensor, model.forward_head(model.forward_features(pixels), pre_logits=True))


def _wrapped(model: Any, pixels: Tensor) -> Tensor:
    return cast(Tensor, model(pixel_values=pixels, do_pooling=True).pooler_output)


def _no_patches(count: int, states: Tensor) -> Tensor:
    """Placeholder patches, whose values are not used."""
    return torch.zeros((), dtype=states.dtype, device=states.device).expand(
        len(states), count, states.shape[-1]
    )
