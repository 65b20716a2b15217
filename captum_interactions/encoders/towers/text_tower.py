"""Text towers, from token ids to embeddings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from captum_interactions.axes import TextAxis
from captum_interactions.encoders.inputs.texts import special_ids, tokenize, warn_of_unreached
from captum_interactions.encoders.towers.base import TowerInputs, unpacked
from captum_interactions.encoders.towers.block_tower import BlockTower, Run


class TextTower(BlockTower):
    """A text encoder. Inputs are token ids (B, T); the attention mask is optional.

    The baseline keeps the special tokens and replaces all others by padding, so it is as long as
    the text and pooled at the same position. If padding is the token at which the model pools, the
    others are replaced by the id 0, with which CLIP was trained. Special tokens are those of
    :func:`~.inputs.texts.special_ids`. If there is no tokenizer and the config has none of these
    ids, the first and the last attended tokens count as special.

    Args:
        model, run, blocks, skipped, answer, tokens_first: See
            :class:`~.block_tower.BlockTower`; ``run`` takes ids and mask, or only ids if the model
            has no mask: then padding is a part of a text.
        config: Config with the vocabulary size and special ids, if the tokenizer has none.
        tokenizer (optional): A tokenizer of ``transformers``, for raw texts. Default: None
        context_length (int, optional): Maximum number of tokens of the model, unless the limit of
            the tokenizer is lower. Default: None, no limit
        end_of_text (int or str, optional): The token that the model pools, regardless of the mask:
            for causal models the first occurrence of an id, or of the largest id (``"largest"``);
            for any model the ``"first"`` or the ``"last"`` token. Default: None, the model does not
            pool a single token
        fixed_length (bool): The model takes texts padded to its context, without a mask. Padding is
            a part of such a text unless ``end_of_text`` hides it. Default: False
        prompt (str): Put before each raw text. Its tokens stay in the baseline. Default: none
    """

    extra_names: tuple[str, ...] = ("attention_mask",)
    keeps_padding = False
    """Whether padding after a text runs through the model, because it changes earlier tokens."""

    def __init__(
        self,
        model: nn.Module,
        run: Run,
        blocks: Sequence[str],
        skipped: Sequence[str] = (),
        *,
        config: Any,
        tokenizer: Any = None,
        context_length: int | None = None,
        end_of_text: int | Literal["first", "largest", "last"] | None = None,
        fixed_length: bool = False,
        prompt: str = "",
        answer: Callable[[Tensor], Any] | None = None,
        tokens_first: bool = False,
    ) -> None:
        super().__init__(model, run, blocks, skipped, answer, tokens_first)
        self.config = config
        self.tokenizer = tokenizer
        self._context_length = context_length
        self.end_of_text = end_of_text
        self.fixed_length = fixed_length
        self.prompt = prompt
        self._takes_mask = not fixed_length and _n_positional(run) > 2
        if not self._takes_mask:
            self.extra_names = ()

    @property
    def context_length(self) -> int | None:
        """Maximum number of tokens, with the tokenizer's present limit; None for no limit."""
        return shortest(self._context_length, getattr(self.tokenizer, "model_max_length", None))

    def encode(self, inputs: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        extras = (attention_mask,) if self._takes_mask else ()
        return super().encode(self._ids(inputs), *extras)

    def check(self, inputs: Tensor, attention_mask: Tensor | None = None) -> None:
        ids = self._ids(inputs)
        length = self.context_length
        if length is not None and ids.shape[1] > length:
            raise ValueError(
                f"the text has {ids.shape[1]} tokens, but the model's context holds {length}"
            )
        if self.fixed_length and ids.shape[1] != length:
            raise ValueError(
                f"the model takes texts padded to {length} tokens, but got {ids.shape[1]}"
            )
        if attention_mask is not None and attention_mask.shape != ids.shape:
            raise ValueError(
                f"the attention mask must have the shape of the token ids {tuple(ids.shape)}, but "
                f"got {tuple(attention_mask.shape)}"
            )
        if attention_mask is not None and not (attention_mask == attention_mask.bool()).all():
            low, high = (float(bound) for bound in attention_mask.aminmax())
            raise ValueError(
                "the attention mask must hold 1 for tokens and 0 for padding, but its values lie "
                f"from {low:g} to {high:g}"
            )
        if isinstance(self.end_of_text, int):
            missing = (~(ids == self.end_of_text).any(-1)).nonzero()
            if len(missing):
                raise ValueError(
                    f"row {int(missing[0])} of the token ids has no end-of-text token (id "
                    f"{self.end_of_text}), where the model pools"
                )
        seen = self._attended(ids, attention_mask)
        if seen is not None and not seen.any(-1).all():
            place = "" if self.end_of_text in (None, "first") else " up to where the model pools"
            raise ValueError(
                f"row {int(seen.any(-1).int().argmin())} of the attention mask hides all tokens"
                f"{place}: 1 stands for a token, 0 for padding"
            )

    def baseline(self, inputs: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        source = self.tokenizer or self.config
        pad = getattr(source, "pad_token_id", None)
        if pad is None:
            raise ValueError(
                "the text baseline needs a padding token, but the model's tokenizer or config has "
                "none: pass token ids as the text baseline"
            )
        ends = self.end_of_text
        if ends == "largest":
            ends = getattr(source, "eos_token_id", None)
        return self.set_constant(inputs, 0 if pad == ends else pad, attention_mask)

    def set_constant(
        self, inputs: Tensor, value: float, attention_mask: Tensor | None = None
    ) -> Tensor:
        """A baseline (B, T) of one token id, except at special tokens and the prompt."""
        ids, size = self._ids(inputs), self.config.vocab_size
        if value != int(value) or not 0 <= value < size:
            raise ValueError(
                f"a constant text baseline is a token id from 0 to {size - 1}, but got {value}"
            )
        keep = self._is_special(ids, attention_mask)
        if self.prompt:
            present = full_mask(ids, attention_mask)
            keep = keep | (present.cumsum(-1) <= self._prompt_length())
        return torch.where(keep, ids, int(value))

    def prepare(self, raw: Any, *, truncation: bool = False) -> TowerInputs:
        device = self.device
        raw = unpacked(raw, "input_ids", self.extra_names)
        if isinstance(raw, Tensor):
            raw = (raw,)
        if isinstance(raw, tuple) and raw and isinstance(raw[0], Tensor):
            ids, *extras = raw
            self.check(ids, *extras)
            axes = self._axes_of_ids(ids, *extras)
            extras = [extra if extra is None else extra.to(device) for extra in extras]
            missing = [None] * (len(self.extra_names) - len(extras))
            return TowerInputs(ids.to(device), (*extras, *missing), axes)
        if self.tokenizer is None:
            raise ValueError(
                f"raw text ({type(raw).__name__}) needs a tokenizer, which wrap() was not given: "
                "pass it the model's processor, or a tuple of one for each input, or pass "
                "token ids as a tensor"
            )
        ids, mask, axes_ = tokenize(
            self.tokenizer,
            raw,
            self.context_length,
            truncation=truncation,
            padding="max_length" if self.fixed_length else True,
            prompt=self.prompt,
        )
        own = (mask,) if self._takes_mask else ()
        warn_of_unreached(axes_, self.token_mask(ids, *own))
        extras = [extra.to(device) for extra in own]
        return TowerInputs(ids.to(device), tuple(extras), tuple(axes_))

    def sample(self) -> Any:
        if self.tokenizer is not None:
            return ["a dog", "two small birds sit on the roof"]
        generator = torch.Generator().manual_seed(0)
        lengths = torch.tensor([4, 7])
        width = (self.context_length or 7) if self.fixed_length else 7
        ids = torch.randint(1, self.config.vocab_size, (2, width), generator=generator)
        end = self.end_of_text
        if end == "largest":
            end = self.config.vocab_size - 1
        elif not isinstance(end, int):
            end = getattr(self.config, "eos_token_id", None)
        if isinstance(end, int) and end < self.config.vocab_size:
            ids[ids == end] = 1
            ids[torch.arange(2), lengths - 1] = end
        if not self._takes_mask:
            return (ids,)
        return ids, (torch.arange(width) < lengths[:, None]).long()

    def token_mask(self, inputs: Tensor, attention_mask: Tensor | None = None) -> Tensor | None:
        ids = self._ids(inputs)
        seen, position = self._attended(ids, attention_mask), self._pool_position(ids)
        if seen is None or position is None:
            return seen
        # The residual stream reaches the pooled token, even if no token may attend to it.
        return seen.scatter(1, position[:, None], True)

    def context(self, inputs: Tensor, attention_mask: Tensor | None = None) -> tuple[Any, ...]:
        ids = self._ids(inputs)
        reached = self.token_mask(ids, attention_mask)
        length = ids.shape[1]
        if reached is not None and not (self.fixed_length or self.keeps_padding):
            length = int(reached.any(0).nonzero().max()) + 1
        return ids, attention_mask, length

    def recall(
        self, states: Tensor, ids: Tensor, attention_mask: Tensor | None, length: int
    ) -> tuple[Tensor, Tensor, Sequence[Any], tuple[Tensor, Tensor | None] | None]:
        # Nothing depends on tokens after the last relevant one.
        ids = ids[:, :length]
        mask = None if attention_mask is None else attention_mask[:, :length]
        position = self._pool_position(ids)
        pooled = None if position is None else (position, self._attended(ids, mask))
        return states[:, :length], ids, (mask,) if self._takes_mask else (), pooled

    def single(self, count: int, ids: Tensor, *_: Any) -> tuple[Tensor, Sequence[Any]]:
        end = self.end_of_text if isinstance(self.end_of_text, int) else 0
        alone = ids.new_full((count, 1), end)
        return alone, (torch.ones_like(alone),) if self._takes_mask else ()

    def special_tokens(self, inputs: Tensor, *extras: Any) -> Tensor | None:
        return self._is_special(self._ids(inputs), *extras)

    def _ids(self, inputs: Tensor) -> Tensor:
        """Checked token ids; floats with integer values (after noise of zero) are converted."""
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
        size = self.config.vocab_size
        low, high = (int(bound) for bound in inputs.aminmax())
        if low < 0 or high >= size:
            raise ValueError(
                f"token ids must be from 0 to {size - 1}, but lie from {low} to {high}"
            )
        return inputs

    def _pool_position(self, ids: Tensor) -> Tensor | None:
        if self.end_of_text is None:
            return None
        if self.end_of_text == "first":
            return ids.new_zeros(len(ids))
        if self.end_of_text == "largest":
            return ids.argmax(-1)
        if self.end_of_text == "last":
            return ids.new_full((len(ids),), ids.shape[1] - 1)
        return (ids == self.end_of_text).int().argmax(-1)

    def _attended(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor | None:
        """The tokens that others may attend to, (B, T); None for all."""
        seen = None if attention_mask is None else attention_mask.bool()
        position = self._pool_position(ids)
        if position is None or self.end_of_text == "first":
            return seen
        before = torch.arange(ids.shape[1], device=ids.device) <= position[:, None]
        return before if seen is None else before & seen

    def _is_special(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        source = self.tokenizer or self.config
        known, pad = special_ids(source), getattr(source, "pad_token_id", None)
        special = torch.isin(ids, ids.new_tensor(known))
        if pad is not None:
            seen = self._attended(ids, attention_mask)
            special |= (ids == pad) if seen is None else (ids == pad) & ~seen
        if self.tokenizer is None and not known:
            places = torch.arange(1, ids.shape[1] + 1, device=ids.device)
            present = places if attention_mask is None else places * attention_mask
            present = present.expand_as(ids)
            first = present.where(present > 0, ids.shape[1] + 1).argmin(-1, keepdim=True)
            special = special.scatter(1, first, True)
            special = special.scatter(1, present.argmax(-1, keepdim=True), True)
        position = self._pool_position(ids)
        if position is None or self.end_of_text in ("first", "last"):
            return special
        return special.scatter(1, position[:, None], True)

    def _prompt_length(self) -> int:
        """Number of tokens of the prompt before a raw text."""
        axis = tokenize(self.tokenizer, "a", prompt=self.prompt)[2][0]
        length = next((index for index, span in enumerate(axis.spans) if span is not None), None)
        if length is None:
            raise ValueError(
                f"where the prompt {self.prompt!r} ends is not known: its tokenizer tells no "
                "characters"
            )
        return length

    def _axes_of_ids(self, ids: Tensor, mask: Tensor | None = None) -> tuple[TextAxis, ...]:
        """Axes of ready ids: labels are tokens or ids, without character spans."""
        ids = self._ids(ids)
        special = self._is_special(ids, mask)
        reached = self.token_mask(ids, mask)
        reached = torch.ones_like(special) if reached is None else reached
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


def full_mask(ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """The attention mask (B, T) of token ids (B, T): ones if there is none."""
    return torch.ones_like(ids) if attention_mask is None else attention_mask


def shortest(*limits: int | None) -> int | None:
    """The lowest of several length limits; None if there is none."""
    # A tokenizer without a limit has a very large number.
    return min((limit for limit in limits if limit and 0 < limit < 10**9), default=None)


def _n_positional(run: Run) -> int:
    """Number of positional arguments of a function."""
    kinds = [parameter.kind for parameter in inspect.signature(run).parameters.values()]
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    return sum(kind not in named for kind in kinds)
