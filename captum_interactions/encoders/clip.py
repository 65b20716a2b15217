"""Towers of ``transformers.CLIPModel`` and of the models that share its layout."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from captum_interactions.encoders.axes import Frame, ImageAxis, TextAxis
from captum_interactions.encoders.images import load_images, process_images
from captum_interactions.encoders.pooled_block import is_poolable, pooled_row
from captum_interactions.encoders.texts import tokenize
from captum_interactions.encoders.tower import Layer, Tower, TowerInputs

_LAYOUT = (
    "vision_model.embeddings.patch_embedding",
    "vision_model.pre_layrnorm",
    "vision_model.encoder.layers",
    "vision_model.post_layernorm",
    "visual_projection",
    "text_model.embeddings",
    "text_model.encoder.layers",
    "text_model.final_layer_norm",
    "text_projection",
    "get_image_features",
    "get_text_features",
)

_LARGEST_ID_POOLING = ("clip_text_model", "clipseg_text_model")
"""Model types that pool at the largest id if their config's end-of-text id is 2."""


def has_clip_layout(model: Any) -> bool:
    """Whether a model is built like ``transformers.CLIPModel``, part by part."""
    for path in _LAYOUT:
        part = model
        for name in path.split("."):
            part = getattr(part, name, None)
        if part is None:
            return False
    return True


def clip_towers(model: nn.Module, processor: Any = None) -> tuple[Tower, Tower]:
    """The image and the text tower of a model for which :func:`has_clip_layout` holds.

    Args:
        model (nn.Module): The model.
        processor (optional): Its processor, for raw images and captions. Without it the towers take
            ready tensors. Default: None
    """
    # A bare image processor or tokenizer serves its own side.
    image_processor = processor if hasattr(processor, "image_mean") else None
    tokenizer = processor if hasattr(processor, "convert_ids_to_tokens") else None
    return (
        ClipImageTower(model, getattr(processor, "image_processor", image_processor)),
        ClipTextTower(model, getattr(processor, "tokenizer", tokenizer)),
    )


class ClipImageTower(Tower):
    """Vision transformer whose class token is pooled. Inputs are pixel values (B, 3, H, W).

    Images of another size than the model was trained on are taken with interpolated position
    embeddings. The reference is zero in normalised pixel space.
    """

    def __init__(self, model: Any, image_processor: Any = None) -> None:
        super().__init__()
        self.model = model
        self.image_processor = image_processor
        self.n_blocks = len(model.vision_model.encoder.layers)

    def encode(self, inputs: Tensor, *extras: Any) -> Tensor:
        output = self.model.get_image_features(
            pixel_values=inputs, interpolate_pos_encoding=self._is_resized(inputs)
        )
        return _pooled(output)

    def check(self, inputs: Tensor, *extras: Any) -> None:
        channels = self.model.vision_model.embeddings.patch_embedding.in_channels
        fits = inputs.dim() == 4 and inputs.shape[1] == channels and inputs.is_floating_point()
        if not fits:
            raise ValueError(
                f"pixel values must be floats of shape (B, {channels}, height, width), but got "
                f"{inputs.dtype} of shape {tuple(inputs.shape)}"
            )
        patch = self._patch_size()
        if inputs.shape[-2] < patch[0] or inputs.shape[-1] < patch[1]:
            raise ValueError(
                f"an image must hold at least one patch of {patch} pixels, but pixel values have "
                f"shape {tuple(inputs.shape)}"
            )

    def reference(self, inputs: Tensor, *extras: Any) -> Tensor:
        return torch.zeros_like(inputs)

    def prepare(self, raw: Any, *, truncation: bool = False) -> TowerInputs:
        if isinstance(raw, Tensor):
            pixels, images = raw, None
            self.check(pixels)
            frames = [Frame.identity((pixels.shape[-2], pixels.shape[-1]))] * len(pixels)
        elif self.image_processor is None:
            raise ValueError(
                f"raw images ({type(raw).__name__}) need a processor: pass it to wrap(), or pass "
                "pixel values as a tensor"
            )
        else:
            images = load_images(raw)
            pixels, frames = process_images(self.image_processor, images)
        patch = self._patch_size()
        axes = tuple(
            ImageAxis.of_grid(
                (pixels.shape[-2] // patch[0], pixels.shape[-1] // patch[1]),
                patch,
                frame,
                special=("[class]",),
                image=None if images is None else images[index],
            )
            for index, frame in enumerate(frames)
        )
        weight = self.model.vision_model.embeddings.patch_embedding.weight
        return TowerInputs(pixels.to(weight.device, weight.dtype), (), axes)

    def prefix(self, layer: int, inputs: Tensor, *extras: Any) -> tuple[Tensor, tuple[Any, ...]]:
        vision = self.model.vision_model
        states = vision.embeddings(inputs, interpolate_pos_encoding=self._is_resized(inputs))
        states = vision.pre_layrnorm(states)
        for block in vision.encoder.layers[:layer]:
            states = block(states, None)
        return states, ()

    def tail(self, layer: int, states: Tensor, *context: Any) -> Tensor:
        vision = self.model.vision_model
        *blocks, last = vision.encoder.layers[layer:]
        for block in blocks:
            states = block(states, None)
        if is_poolable(last):
            position = torch.zeros(len(states), dtype=torch.long, device=states.device)
            row = pooled_row(last, states, position)
        else:
            row = last(states, None)[:, 0]
        return cast(Tensor, self.model.visual_projection(vision.post_layernorm(row)))

    def fold(self, layer: Layer, attribution: Tensor) -> Tensor:
        if layer != "input":
            return super().fold(layer, attribution)
        height, width = self._patch_size()
        rows, columns = attribution.shape[-2] // height, attribution.shape[-1] // width
        cells = attribution[..., : rows * height, : columns * width]
        cells = cells.unflatten(-1, (columns, width)).unflatten(-3, (rows, height))
        return cast(Tensor, cells.sum((-5, -3, -1)).flatten(-2))

    def spread(self, layer: Layer, weights: Tensor, shape: Any) -> Tensor:
        if layer != "input":
            return super().spread(layer, weights, shape)
        height, width = self._patch_size()
        rows, columns = shape[-2] // height, shape[-1] // width
        cells = weights.unflatten(-1, (rows, columns))
        cells = cells.repeat_interleave(height, -2).repeat_interleave(width, -1)
        # Pixels beyond the last whole patch never enter the model.
        padding = (0, shape[-1] - cells.shape[-1], 0, shape[-2] - cells.shape[-2])
        return nn.functional.pad(cells, padding).unsqueeze(-3)

    def _patch_size(self) -> tuple[int, int]:
        height, width = self.model.vision_model.embeddings.patch_embedding.kernel_size
        return height, width

    def _is_resized(self, pixels: Tensor) -> bool:
        trained = self.model.vision_model.embeddings.image_size
        return tuple(pixels.shape[-2:]) != (trained, trained)


class ClipTextTower(Tower):
    """Causal text transformer pooled at its end-of-text token.

    Inputs are token ids (B, T); the attention mask is optional. The reference keeps the special
    tokens where they are and has padding tokens between, so it is as long as the caption and pooled
    at the same place.
    """

    extra_names = ("attention_mask",)

    def __init__(self, model: Any, tokenizer: Any = None) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.n_blocks = len(model.text_model.encoder.layers)

    def check(self, inputs: Tensor, attention_mask: Tensor | None = None) -> None:
        ids = self._ids(inputs)
        length = self.model.text_model.embeddings.position_embedding.num_embeddings
        if ids.shape[1] > length:
            raise ValueError(
                f"the caption has {ids.shape[1]} tokens, but the model's context holds {length}"
            )
        if attention_mask is not None and attention_mask.shape != ids.shape:
            raise ValueError(
                f"the attention mask must have the shape of the token ids {tuple(ids.shape)}, but "
                f"got {tuple(attention_mask.shape)}"
            )
        eos = self.model.text_model.eos_token_id
        missing = (~(ids == eos).any(-1)).nonzero()
        if len(missing) and not self._pools_at_largest_id():
            raise ValueError(
                f"row {int(missing[0])} of the token ids has no end-of-text token (id {eos}), "
                "where the model pools"
            )

    def encode(self, inputs: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        ids = self._ids(inputs)
        return _pooled(self.model.get_text_features(input_ids=ids, attention_mask=attention_mask))

    def reference(self, inputs: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        source = self.tokenizer or self.model.text_model.config
        if source.pad_token_id is None:
            raise ValueError(
                "the text reference needs a padding token, but the model's tokenizer or config has "
                "none: pass token ids as the text baseline"
            )
        return self.set_constant(inputs, source.pad_token_id)

    def set_constant(self, inputs: Tensor, value: float, *extras: Any) -> Tensor:
        """The same token id everywhere but at special tokens."""
        ids = self._ids(inputs)
        size = self.model.text_model.embeddings.token_embedding.num_embeddings
        if value != int(value) or not 0 <= value < size:
            raise ValueError(
                f"a constant text baseline is a token id from 0 to {size - 1}, but got {value}"
            )
        return torch.where(self._is_special(ids), ids, int(value))

    def prepare(self, raw: Any, *, truncation: bool = False) -> TowerInputs:
        device = self.model.text_model.embeddings.token_embedding.weight.device
        if isinstance(raw, Tensor):
            raw = (raw,)
        if isinstance(raw, tuple) and raw and isinstance(raw[0], Tensor):
            ids, mask, *_ = (*raw, None)
            self.check(ids, mask)
            extras = (None if mask is None else mask.to(device),)
            return TowerInputs(ids.to(device), extras, self._axes_of_ids(ids, mask))
        if self.tokenizer is None:
            raise ValueError(
                f"raw text ({type(raw).__name__}) needs a processor: pass it to wrap(), or pass "
                "token ids as a tensor"
            )
        length = self.model.text_model.embeddings.position_embedding.num_embeddings
        ids, mask, axes = tokenize(self.tokenizer, raw, length, truncation=truncation)
        return TowerInputs(ids.to(device), (mask.to(device),), tuple(axes))

    def prefix(
        self, layer: int, inputs: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, tuple[Any, ...]]:
        ids = self._ids(inputs)
        position = self._pool_position(ids)
        states = self.model.text_model.embeddings(input_ids=ids)
        states = self._run(self.model.text_model.encoder.layers[:layer], states, attention_mask)
        return states, (attention_mask, position, int(position.max()) + 1)

    def tail(
        self,
        layer: int,
        states: Tensor,
        attention_mask: Tensor | None,
        position: Tensor,
        length: int,
    ) -> Tensor:
        text = self.model.text_model
        # Attention is causal: no token after the last pooled one can be seen.
        states = states[:, :length]
        attention_mask = None if attention_mask is None else attention_mask[:, :length]
        *blocks, last = text.encoder.layers[layer:]
        states = self._run(blocks, states, attention_mask)
        if is_poolable(last):
            visible = torch.arange(length, device=states.device) <= position[:, None]
            if attention_mask is not None:
                visible = visible & attention_mask.bool()
            row = pooled_row(last, states, position, visible)
        else:
            states = self._run([last], states, attention_mask)
            row = states[torch.arange(len(states), device=states.device), position]
        return cast(Tensor, self.model.text_projection(text.final_layer_norm(row)))

    def token_mask(self, inputs: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        ids = self._ids(inputs)
        reached = torch.arange(ids.shape[1], device=ids.device) <= self._pool_position(ids)[:, None]
        return reached if attention_mask is None else reached & attention_mask.bool()

    def _run(self, blocks: Any, states: Tensor, attention_mask: Tensor | None) -> Tensor:
        from transformers.masking_utils import create_causal_mask

        mask = create_causal_mask(
            config=self.model.text_model.config,
            inputs_embeds=states,
            attention_mask=attention_mask,
            past_key_values=None,
        )
        for block in blocks:
            states = block(states, mask, is_causal=True)
        return states

    def _ids(self, inputs: Tensor) -> Tensor:
        """Token ids, checked; ids that a noise of zero has turned into floats are turned back."""
        if inputs.dim() != 2 or not inputs.numel() or inputs.dtype is torch.bool:
            raise ValueError(
                f"token ids must be whole numbers of shape (B, T), but got {inputs.dtype} of shape "
                f"{tuple(inputs.shape)}"
            )
        if inputs.is_floating_point():
            if not torch.equal(inputs, inputs.round()):
                raise ValueError(
                    f"token ids must be whole numbers, but got {inputs.dtype} with fractions "
                    "(noise on ids? set its standard deviation to 0 for the text)"
                )
            inputs = inputs.long()
        size = self.model.text_model.embeddings.token_embedding.num_embeddings
        low, high = (int(bound) for bound in inputs.aminmax())
        if low < 0 or high >= size:
            raise ValueError(
                f"token ids must be from 0 to {size - 1}, but lie from {low} to {high}"
            )
        return inputs

    def _pool_position(self, ids: Tensor) -> Tensor:
        """Where the model pools: at the first end-of-text token."""
        if self._pools_at_largest_id():
            return ids.argmax(-1)
        is_eos: Tensor = ids == self.model.text_model.eos_token_id
        return is_eos.int().argmax(-1)

    def _pools_at_largest_id(self) -> bool:
        """Whether the config has the outdated end-of-text id, for which CLIP pools elsewhere.

        MetaCLIP 2 shares the layout, and there 2 is the true id.
        """
        model = self.model.text_model
        return model.eos_token_id == 2 and model.config.model_type in _LARGEST_ID_POOLING

    def _is_special(self, ids: Tensor) -> Tensor:
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        source = self.tokenizer or self.model.text_model.config
        known = [getattr(source, name, None) for name in names]
        special = torch.isin(ids, ids.new_tensor([i for i in known if i is not None]))
        return special.scatter(1, self._pool_position(ids)[:, None], True)

    def _axes_of_ids(self, ids: Tensor, mask: Tensor | None) -> tuple[TextAxis, ...]:
        """Axes of ready ids: labels are tokens or ids, and no characters are known."""
        ids = self._ids(ids)
        reached, special = self.token_mask(ids, mask), self._is_special(ids)
        return tuple(
            TextAxis(
                labels=tuple(
                    self.tokenizer.convert_ids_to_tokens(row.tolist())
                    if self.tokenizer
                    else (str(i) for i in row.tolist())
                ),
                special=tuple((special[index] & reached[index]).tolist()),
                padding=tuple((~reached[index]).tolist()),
                text="",
                spans=(None,) * len(row),
            )
            for index, row in enumerate(ids)
        )


def _pooled(output: Any) -> Tensor:
    """The projected embedding; older getters return it bare."""
    return output if isinstance(output, Tensor) else cast(Tensor, output.pooler_output)
