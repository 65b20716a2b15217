"""Image towers, from pixel values to embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from captum_interactions.axes import Frame, ImageAxis, TokenAxis
from captum_interactions.encoders.inputs.images import check_pixels, process_images
from captum_interactions.encoders.inputs.loading import load_images
from captum_interactions.encoders.model.modes import explaining
from captum_interactions.encoders.towers.base import Layer, TowerInputs, unpacked
from captum_interactions.encoders.towers.block_tower import BlockTower, Run


class ImageTower(BlockTower):
    """An image encoder. Inputs are pixel values (B, C, H, W).

    The baseline is zero in normalised pixel space.

    Args:
        model, run, blocks, skipped, answer, tokens_first: See :class:`~.block_tower.BlockTower`.
        patch (tuple): (height, width) of a token's cell, in pixels.
        channels (int): Number of channels of an image. Default: 3
        image_size (tuple, optional): (height, width) of the training images. Default: None, unknown
        image_processor (optional): An image processor of ``transformers``, for raw images. Default:
            None
        pools_first (bool): The embedding uses only the first token. Default: False
        convolutional (bool): Tokens are the cells of feature maps: there are no special tokens, the
            last cells may extend beyond the image, and cells of earlier blocks are smaller than
            ``patch`` by powers of two. Default: False, incomplete cells are left out
        special (sequence of str): Names of the first special tokens. Their number and positions are
            measured on the model. Default: a class token, then registers
    """

    def __init__(
        self,
        model: nn.Module,
        run: Run,
        blocks: Sequence[str],
        skipped: Sequence[str] = (),
        *,
        patch: tuple[int, int],
        channels: int = 3,
        image_size: tuple[int, int] | None = None,
        image_processor: Any = None,
        pools_first: bool = False,
        convolutional: bool = False,
        special: Sequence[str] = (),
        answer: Callable[[Tensor], Any] | None = None,
        tokens_first: bool = False,
    ) -> None:
        super().__init__(model, run, blocks, skipped, answer, tokens_first)
        self.patch = patch
        self.channels = channels
        self.image_size = image_size
        self.image_processor = image_processor
        self.pools_first = pools_first
        self.convolutional = convolutional
        self._known = tuple(special)
        self._special: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        if convolutional:
            self._special = (), ()

    def without_blocks(self) -> ImageTower:
        """This encoder without blocks: it is explained at its input, in cells of 32 pixels."""
        return type(self)(
            self.model,
            self._run,
            [],
            patch=(32, 32),
            channels=self.channels,
            image_size=self.image_size,
            image_processor=self.image_processor,
            convolutional=True,
        )

    def check(self, inputs: Tensor, *extras: Any) -> None:
        fits = inputs.dim() == 4 and inputs.shape[1] == self.channels and inputs.is_floating_point()
        if not fits:
            raise ValueError(
                f"pixel values must be floats of shape (B, {self.channels}, height, width), but "
                f"got {inputs.dtype} of shape {tuple(inputs.shape)}"
            )
        check_pixels(inputs, self.image_processor)
        if not min(self._grid(inputs.shape)):
            raise ValueError(
                f"an image must hold at least one patch of {self.patch} pixels, but pixel values "
                f"have shape {tuple(inputs.shape)}"
            )

    def baseline(self, inputs: Tensor, *extras: Any) -> Tensor:
        return torch.zeros_like(inputs)

    def prepare(self, raw: Any, *, truncation: bool = False) -> TowerInputs:
        raw = unpacked(raw, "pixel_values", ())
        if isinstance(raw, tuple) and len(raw) == 1:
            (raw,) = raw
        if isinstance(raw, Tensor):
            pixels, images = raw, None
            self.check(pixels)
            frames = [Frame.identity((pixels.shape[-2], pixels.shape[-1]))] * len(pixels)
        elif self.image_processor is None:
            raise ValueError(
                f"raw images ({type(raw).__name__}) need an image processor, which wrap() was not "
                "given: pass it the model's processor, or a tuple of one for each input, or pass "
                "pixel values as a tensor"
            )
        else:
            images = load_images(raw)
            pixels, frames = process_images(self.image_processor, images)
        pixels = pixels.to(self.device, self.dtype)
        before, after = self._special_tokens(pixels)
        axes = tuple(
            ImageAxis.of_grid(
                self._grid(pixels.shape),
                self.patch,
                frame,
                None if images is None else images[index],
                before=before,
                after=after,
            )
            for index, frame in enumerate(frames)
        )
        return TowerInputs(pixels, (), axes)

    def sample(self) -> Any:
        rng = np.random.default_rng(0)
        if self.image_processor is not None:
            sizes = ((40, 60), (60, 40))
            return [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]
        if self.image_size is None:
            return super().sample()
        pixels = rng.standard_normal((2, self.channels, *self.image_size))
        return torch.from_numpy(pixels).to(self.dtype)

    def axis_at(self, layer: Layer, axis: TokenAxis, n_tokens: int) -> TokenAxis:
        if layer == "input":
            axis = axis.at_input()
        if len(axis) == n_tokens or not isinstance(axis, ImageAxis):
            return super().axis_at(layer, axis, n_tokens)
        # Feature maps of other sizes: cells are larger or smaller by powers of two.
        for scale in (2.0**exponent for exponent in range(-8, 9)):
            cell = int(axis.cell[0] * scale), int(axis.cell[1] * scale)
            if min(cell) and axis.cell == (cell[0] / scale, cell[1] / scale):
                grid = (-(-axis.frame.size[0] // cell[0]), -(-axis.frame.size[1] // cell[1]))
                if grid[0] * grid[1] == n_tokens:
                    return ImageAxis.of_grid(grid, cell, axis.frame, axis.image)
        return TokenAxis.numbered(n_tokens)

    def context(self, inputs: Tensor, *extras: Any) -> tuple[Any, ...]:
        return (tuple(inputs.shape[1:]), *extras)

    def recall(
        self, states: Tensor, shape: tuple[int, ...], *extras: Any
    ) -> tuple[Tensor, Tensor, Sequence[Any], tuple[Tensor, Tensor | None] | None]:
        # The model uses only the shape of the pixels: they need no memory.
        pixels = states.new_zeros(()).expand(len(states), *shape)
        first = torch.zeros(len(states), dtype=torch.long, device=states.device)
        return states, pixels, extras, (first, None) if self.pools_first else None

    def single(
        self, count: int, shape: tuple[int, ...], *extras: Any
    ) -> tuple[Tensor, Sequence[Any]]:
        pixels = torch.zeros((), dtype=self.dtype, device=self.device)
        return pixels.expand(count, *shape), ()

    def special_tokens(self, inputs: Tensor, *extras: Any) -> Tensor | None:
        before, after = self._special_tokens(inputs)
        if not before and not after:
            return None
        rows, columns = self._grid(inputs.shape)
        special = [True] * len(before) + [False] * (rows * columns) + [True] * len(after)
        return torch.tensor(special, device=inputs.device).expand(len(inputs), -1)

    def fold(self, layer: Layer, attribution: Tensor) -> Tensor:
        if layer != "input":
            return super().fold(layer, attribution)
        (rows, columns), (height, width) = self._grid(attribution.shape), self.patch
        # Negative amounts remove pixels that are in no cell.
        missing = (
            columns * width - attribution.shape[-1],
            rows * height - attribution.shape[-2],
        )
        cells = nn.functional.pad(attribution, (0, missing[0], 0, missing[1]))
        cells = cells.unflatten(-1, (columns, width)).unflatten(-3, (rows, height))
        return cast(Tensor, cells.sum((-5, -3, -1)).flatten(-2))

    def spread(self, layer: Layer, weights: Tensor, shape: Any) -> Tensor:
        if layer != "input":
            return super().spread(layer, weights, shape)
        rows, columns = self._grid(shape)
        cells = weights.unflatten(-1, (rows, columns))
        cells = cells.repeat_interleave(self.patch[0], -2).repeat_interleave(self.patch[1], -1)
        missing = (shape[-1] - cells.shape[-1], shape[-2] - cells.shape[-2])
        return nn.functional.pad(cells, (0, missing[0], 0, missing[1])).unsqueeze(-3)

    def _grid(self, shape: Sequence[int]) -> tuple[int, int]:
        """(rows, columns) of cells of images of this shape."""
        (height, width), (cell_height, cell_width) = shape[-2:], self.patch
        if self.convolutional:
            return -(-height // cell_height), -(-width // cell_width)
        return height // cell_height, width // cell_width

    def _special_tokens(self, pixels: Tensor) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the tokens before and after the patches, measured on the hidden states."""
        if self._special is None:
            rows, columns = self._grid(pixels.shape)
            blank = torch.zeros_like(pixels[:1])
            marked = blank.clone()
            marked[..., : self.patch[0], : self.patch[1]] = 1.0
            with explaining(self.model), torch.no_grad():
                states = self.prefix(0, torch.cat([blank, marked]))[0]
            n_special = max(states.shape[1] - rows * columns, 0)
            # The first token that depends on the first patch is that patch.
            changed = (states[0] != states[1]).any(-1)
            n_before = min(int(changed.int().argmax()), n_special)
            names = ["[class]", *(f"[register {index}]" for index in range(1, n_special))]
            names[: len(self._known)] = self._known
            names = names[:n_special]
            self._special = tuple(names[:n_before]), tuple(names[n_before:])
        return self._special
