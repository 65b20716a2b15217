"""One side of a batch of pairs, run with its attention recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from captum_interactions.attr._utils.layer_inputs import LayerInputs
from captum_interactions.attr._utils.products import along_vector
from captum_interactions.encoders.attention import (
    BlockRecord,
    Recording,
    UndefinedError,
    Weigh,
    record,
    states_with_attention,
)
from captum_interactions.encoders.wrapper import unit

PathWeigh = Callable[..., Tensor]
"""``(run, states, query, key, value, mask)`` to attention weights (B, H, T, T): from the normalised
states (B, T, D) of a block, its projections of them (B, H, T, d), and its additive mask."""


@dataclass(frozen=True)
class AttentionRun:
    """One side, run from its layer on with its attention recorded, and the side that is fixed."""

    side: LayerInputs
    other: LayerInputs
    recording: Recording
    """The blocks of the side. Their T may be shorter than that of its features."""

    @property
    def blocks(self) -> tuple[BlockRecord, ...]:
        """What each block did, from the layer on."""
        return self.recording.blocks

    @cached_property
    def score(self) -> Tensor:
        """The sum of all scores, which gradients flow through."""
        return (unit(self.recording.embedding) * self.other.embedding).sum()

    @property
    def token_mask(self) -> Tensor:
        """1 for the tokens of the blocks that can influence the embedding, else 0, (B, T)."""
        return self.side.token_mask[:, : self.blocks[-1].output.shape[1]]

    @property
    def shown(self) -> Tensor:
        """1 for tokens that stand for a part of the input and not for all of it, (B, T)."""
        shown = self.side.content_mask[:, : self.blocks[-1].output.shape[1]]
        if self.recording.pooled is None:
            return shown
        return shown.scatter(1, self.recording.pooled.unsqueeze(1), 0.0)

    def check_pooled(self) -> None:
        """Refuse towers that pool several tokens.

        Raises:
            UndefinedError: If the embedding is not that of one token.
        """
        if self.recording.pooled is None:
            raise UndefinedError(
                "the embedding is pooled from several tokens, so there is no class token whose "
                "attention could be followed"
            )

    def pooled_row(self, matrix: Tensor) -> Tensor:
        """The row (B, ...) of the pooled token in a matrix (B, T, ...): class or end-of-text token.

        Raises:
            UndefinedError: If several tokens are pooled.
        """
        self.check_pooled()
        return matrix[torch.arange(len(matrix), device=matrix.device), self.recording.pooled]

    def check_not_causal(self) -> None:
        """Refuse towers whose tokens attend to earlier tokens only.

        Raises:
            UndefinedError: If the attention is causal.
        """
        if self.recording.is_causal:
            raise UndefinedError(
                "its attention is causal, so each token also stands for all tokens before it, and "
                "only the last one is trained as an embedding"
            )

    def token_embeddings(self, states: Tensor) -> Tensor:
        """Unit embeddings (B, T, K) of final states (B, T, D), each of them pooled alone."""
        project = getattr(self.side.tower, "project")  # noqa: B009 - towers with blocks have it
        embeddings = project(states.flatten(0, 1), *self.side.context)
        tokens: Tensor = unit(embeddings).unflatten(0, states.shape[:2])
        return tokens

    def token_scores(self, states: Tensor) -> Tensor:
        """Cosines (B, T) of final states, each of them pooled alone, with the other input."""
        return along_vector(self.token_embeddings(states), self.other.embedding)

    def second_path(self, weigh: PathWeigh) -> Tensor:
        """Final states (B, T, D) of a second residual path with other attention and without MLPs.

        The states of the model enter the path at the first recorded block. Each block adds to it
        what its attention adds to the model's own states with other weights.

        Raises:
            UndefinedError: If the tower is causal, or its blocks do not normalise before their
                parts.
        """
        self.check_not_causal()
        path = self.blocks[0].states.detach()
        with torch.no_grad():
            for index, block in enumerate(self.blocks, self.recording.first):
                if block.norm is None or block.residual is None:
                    raise UndefinedError(
                        "its blocks do not normalise before their parts, so there is no residual "
                        "stream for a second path"
                    )
                states = block.states.detach()
                summed = states_with_attention(
                    self.side.tower,
                    index,
                    states,
                    *self.side.context,
                    residual=block.residual,
                    weigh=partial(weigh, self, block.norm(states)),
                )
                path = path + summed - states
        return path


def run_with_attention(
    side: LayerInputs, other: LayerInputs, replaced: Mapping[int, Weigh] | None = None
) -> AttentionRun:
    """Run a side from its layer on, and record its attention.

    Args:
        side, other (LayerInputs): The side to run, and the one that is held fixed.
        replaced (mapping, optional): Other attention weights for some blocks. Default: none

    Raises:
        UndefinedError: If the attention cannot be recorded, or is more than what was recorded.
    """
    first = side.layer if isinstance(side.layer, int) else 0  # a tower without blocks is refused
    recording = record(side.tower, first, side.features, *side.context, replaced=replaced)
    if not replaced:
        wide = side.features.dtype in (torch.float32, torch.float64)
        difference = (unit(recording.embedding.detach()) - side.embedding).norm(dim=-1).max()
        if difference > (1e-4 if wide else 5e-2):
            raise UndefinedError(
                "the blocks give another embedding with recorded attention than with their own "
                f"(relative difference {difference:.1e}), so it is more than a softmax of products"
            )
    return AttentionRun(side, other, recording)
