"""Image towers for any aspect ratio: SigLIP 2 with NaFlex inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from captum_interactions.axes import Frame, ImageAxis
from captum_interactions.encoders.inputs.images import check_pixels
from captum_interactions.encoders.inputs.loading import load_images
from captum_interactions.encoders.towers.base import Layer, Tower, TowerInputs, unpacked
from captum_interactions.encoders.towers.image_tower import ImageTower


class NaflexTower(ImageTower):
    """An image encoder of patches. Inputs are patches of pixels (B, N, pixels · channels).

    Every image keeps its aspect ratio: ``spatial_shapes`` (B, 2) holds its numbers of rows and
    columns of patches, and ``pixel_attention_mask`` (B, N) hides the padding after them. The
    baseline is zero in normalised pixel space.
    """

    extra_names: tuple[str, ...] = ("pixel_attention_mask", "spatial_shapes")

    def check(self, inputs: Tensor, *extras: Any) -> None:
        width = self.patch[0] * self.patch[1] * self.channels
        if inputs.dim() != 3 or inputs.shape[2] != width or not inputs.is_floating_point():
            raise ValueError(
                f"patches must be floats of shape (B, N, {width}), but got {inputs.dtype} of shape "
                f"{tuple(inputs.shape)}"
            )
        check_pixels(inputs, self.image_processor)
        if len(extras) != 2 or any(extra is None for extra in extras):
            raise ValueError(
                "patches need their pixel_attention_mask (B, N) and spatial_shapes (B, 2) as "
                f"additional arguments, but got {len(extras)}"
            )
        mask, shapes = extras
        if mask.shape != inputs.shape[:2] or shapes.shape != (len(inputs), 2):
            raise ValueError(
                f"patches of shape {tuple(inputs.shape)} need a pixel_attention_mask of shape "
                f"{tuple(inputs.shape[:2])} and spatial_shapes of shape ({len(inputs)}, 2), but "
                f"got {tuple(mask.shape)} and {tuple(shapes.shape)}"
            )

    def prepare(self, raw: Any, *, truncation: bool = False) -> TowerInputs:
        images = None
        raw = unpacked(raw, "pixel_values", self.extra_names)
        if isinstance(raw, tuple) and raw and isinstance(raw[0], Tensor):
            patches, *extras = raw
            self.check(patches, *extras)
            mask, shapes = extras
        elif isinstance(raw, Tensor):
            self.check(raw)
        elif self.image_processor is None:
            raise ValueError(
                f"raw images ({type(raw).__name__}) need an image processor, which wrap() was not "
                "given: pass it the model's processor, or a tuple of one for each input, or pass "
                "patches, their mask and their spatial shapes as a tuple of tensors"
            )
        else:
            images = load_images(raw)
            encoding = self.image_processor(images=images, return_tensors="pt")
            patches, shapes = encoding["pixel_values"], encoding["spatial_shapes"]
            mask = encoding["pixel_attention_mask"]
            self.check(patches, mask, shapes)
        axes = []
        for index, (rows, columns) in enumerate(shapes.tolist()):
            size = (rows * self.patch[0], columns * self.patch[1])
            image = None if images is None else images[index]
            original = size if image is None else (image.height, image.width)
            axes.append(
                ImageAxis.of_grid(
                    (rows, columns),
                    self.patch,
                    Frame.resized(original, size),
                    image,
                    padding=patches.shape[1] - rows * columns,
                )
            )
        own = (mask.to(self.device), shapes.to(self.device))
        return TowerInputs(patches.to(self.device, self.dtype), own, tuple(axes))

    def recall(self, states: Tensor, shape: tuple[int, ...], *extras: Any) -> Any:
        mask, shapes = extras
        if states.shape[1] != mask.shape[1]:
            # Tokens were left out, and with them all padding.
            mask = mask.new_ones(states.shape[:2])
        return super().recall(states, shape, mask, shapes)

    def single(
        self, count: int, shape: tuple[int, ...], *extras: Any
    ) -> tuple[Tensor, Sequence[Any]]:
        patches, _ = super().single(count, (1, *shape[1:]))
        sizes = torch.ones((count, 2), dtype=torch.long, device=self.device)
        return patches, (sizes[:, :1], sizes)

    def special_tokens(self, inputs: Tensor, *extras: Any) -> Tensor | None:
        return None

    def sample(self) -> Any:
        if self.image_processor is not None:
            return super().sample()
        width = self.patch[0] * self.patch[1] * self.channels
        patches = torch.randn((2, 6, width), generator=torch.Generator().manual_seed(0))
        mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
        return patches.to(self.dtype), mask, torch.tensor([[2, 3], [2, 2]])

    def token_mask(self, inputs: Tensor, *extras: Any) -> Tensor | None:
        return cast(Tensor, extras[0].bool())

    # Patches are tokens already: there are no pixels to fold.

    def fold(self, layer: Layer, attribution: Tensor) -> Tensor:
        return Tower.fold(self, layer, attribution)

    def spread(self, layer: Layer, weights: Tensor, shape: Sequence[int]) -> Tensor:
        return Tower.spread(self, layer, weights, shape)
