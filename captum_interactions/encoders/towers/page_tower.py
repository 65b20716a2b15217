"""Towers of images that a language model reads among words, in their own aspect ratio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from captum_interactions.axes import Frame, ImageAxis
from captum_interactions.encoders.inputs.images import check_pixels
from captum_interactions.encoders.inputs.loading import load_images
from captum_interactions.encoders.towers.base import Layer, Tower, TowerInputs, unpacked
from captum_interactions.encoders.towers.image_tower import ImageTower


class PageTower(ImageTower):
    """Pages as ColQwen2 takes them. Inputs are patches of pixels (B, N, pixels · channels).

    ``image_grid_thw`` (B, 3) says how many rows and columns of patches a page has, and padding
    follows them. The model merges squares of patches; each is a token among those of a prompt,
    which are ``input_ids`` and ``attention_mask``, (B, T). The baseline is zero in normalised pixel
    space, with the same prompt.

    Args:
        model, run, blocks, skipped, answer: See :class:`~.block_tower.BlockTower`.
        processor: The model's processor, whose ``process_images`` makes all inputs.
    """

    extra_names: tuple[str, ...] = ("input_ids", "attention_mask", "image_grid_thw")

    def __init__(self, *args: Any, processor: Any, **options: Any) -> None:
        images = processor.image_processor
        side = images.patch_size * images.merge_size
        super().__init__(
            *args, patch=(side, side), image_processor=processor.image_processor, **options
        )
        self.processor = processor
        self.merged = int(images.merge_size) ** 2
        """Number of patches that make a token."""

    def check(self, inputs: Tensor, *extras: Any) -> None:
        if inputs.dim() != 3 or not inputs.is_floating_point():
            raise ValueError(
                "patches of pages must be floats of shape (B, N, pixels), but got "
                f"{inputs.dtype} of shape {tuple(inputs.shape)}"
            )
        check_pixels(inputs, self.image_processor)
        if len(extras) != 3 or any(extra is None for extra in extras):
            raise ValueError(
                f"patches of pages need {', '.join(self.extra_names)} beside them, but got "
                f"{len(extras)} additional arguments"
            )
        ids, mask, grid = extras
        if ids.dim() != 2 or ids.shape != mask.shape or grid.shape != (len(inputs), 3):
            raise ValueError(
                f"patches of {len(inputs)} pages need input_ids and attention_mask of one shape "
                f"({len(inputs)}, T) and image_grid_thw of shape ({len(inputs)}, 3), but got "
                f"{tuple(ids.shape)}, {tuple(mask.shape)} and {tuple(grid.shape)}"
            )

    def prepare(self, raw: Any, *, truncation: bool = False) -> TowerInputs:
        images = None
        raw = unpacked(raw, "pixel_values", self.extra_names)
        if isinstance(raw, tuple) and raw and isinstance(raw[0], Tensor):
            patches, *extras = raw
        elif isinstance(raw, Tensor):
            patches, extras = raw, []
        else:
            images = load_images(raw)
            # Each by itself: padding then always comes last.
            pages = [self.processor.process_images([image]) for image in images]
            patches = pad_sequence([page["pixel_values"][0] for page in pages], True)
            extras = [
                pad_sequence([page[name][0] for page in pages], True) for name in self.extra_names
            ]
        self.check(patches, *extras)
        ids, mask, grid = (extra.to(self.device) for extra in extras)
        axes = tuple(
            self._axis(ids[row], mask[row], grid[row], None if images is None else images[row])
            for row in range(len(patches))
        )
        return TowerInputs(patches.to(self.device, self.dtype), (ids, mask, grid), axes)

    def _axis(self, ids: Tensor, mask: Tensor, grid: Tensor, image: Any) -> ImageAxis:
        merge = self.image_processor.merge_size
        rows, columns = (int(side) // merge for side in grid[1:])
        size = (rows * self.patch[0], columns * self.patch[1])
        original = size if image is None else (image.height, image.width)
        own = ids[mask.bool()]
        places = (own == self.processor.image_token_id).nonzero().flatten()
        labels = self.processor.tokenizer.convert_ids_to_tokens(own.tolist())
        return ImageAxis.of_grid(
            (rows, columns),
            self.patch,
            Frame.resized(original, size),
            image,
            before=labels[: int(places[0])],
            after=labels[int(places[-1]) + 1 :],
            padding=len(ids) - len(own),
        )

    def token_mask(self, inputs: Tensor, *extras: Any) -> Tensor | None:
        mask: Tensor = extras[1].bool()
        return mask

    def special_tokens(self, inputs: Tensor, *extras: Any) -> Tensor | None:
        ids, mask, _ = extras
        special: Tensor = (ids != self.processor.image_token_id) & mask.bool()
        return special

    # Patches of a token follow each other.

    def fold(self, layer: Layer, attribution: Tensor) -> Tensor:
        if layer != "input":
            return Tower.fold(self, layer, attribution)
        cells: Tensor = attribution.sum(-1).unflatten(1, (-1, self.merged)).sum(-1)
        return cells

    def spread(self, layer: Layer, weights: Tensor, shape: Sequence[int]) -> Tensor:
        if layer == "input":
            weights = weights.repeat_interleave(self.merged, -1)
        return weights.unsqueeze(-1)
