"""Models with an embedding for each token, whose score is a sum of best matches."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_interactions.encoders.model.modes import explaining
from captum_interactions.encoders.towers.base import Layer
from captum_interactions.encoders.towers.token_tower import TokenTower
from captum_interactions.encoders.wrapper import Batch, DualEncoderWrapper, widen


class Matches(NamedTuple):
    """How the tokens of B queries match those of their documents.

    M is the largest number of tokens of a query that count in its score; ``rows`` says which they
    are.
    """

    rows: Tensor
    """The query's tokens, (B, M); -1 for none."""
    similarities: Tensor
    """Dot products with the document's tokens, (B, M, Tb); -inf for tokens that do not count."""
    winners: Tensor
    """The most similar token of the document, (B, M); -1 for none."""
    runners_up: Tensor
    """The second, likewise; -1 if no other token counts."""
    margins: Tensor
    """How much less similar it is, (B, M); inf if there is none."""


class LateInteractionWrapper(DualEncoderWrapper):
    r"""A late interaction ``s(a, b) = sum_i max_j <q_i, d_j>`` of a query a and a document b.

    The score of a pair is :math:`\sum_i \langle q_i, d_{w(i)} \rangle`, where the winner
    :math:`w(i)` is the token of the document that is most similar to the query's token i. With the
    winners held fixed it is the dot product of the query's embeddings, one after the other, and
    those of the winners, one after the other. So all that holds for dot products holds for it.

    :meth:`prepare` finds the winners of each pair and gives them to tower b as its last argument,
    ``rows``. Attributions explain the score **under these winners**: also the constant of a map, the
    score of the two baselines, is the sum of their similarities at the winners of the pair, which
    need not be the winners of the baselines. :meth:`match` says how clearly each winner has won.

    Source: Khattab and Zaharia, "ColBERT", SIGIR 2020 (arXiv 2004.12832), Eq. 3.

    Args:
        tower_a (TokenTower): Encoder of queries.
        tower_b (TokenTower): Encoder of documents, which may be images of pages.
        default_layers, default_n_steps: See :class:`~captum_interactions.DualEncoderWrapper`.
    """

    normalizations = ("none",)

    tower_a: TokenTower
    tower_b: TokenTower

    def __init__(
        self,
        tower_a: TokenTower,
        tower_b: TokenTower,
        default_layers: tuple[Layer, Layer] | None = None,
        default_n_steps: int = 20,
    ) -> None:
        for name, tower in (("a", tower_a), ("b", tower_b)):
            if not isinstance(tower, TokenTower):
                raise TypeError(
                    f"tower {name} of a late interaction must be a TokenTower, but got "
                    f"{type(tower).__name__}: TokenTower(tower) makes one of a tower that gives an "
                    "embedding for each token"
                )
        super().__init__(tower_a, tower_b, default_layers, default_n_steps)

    def forward(self, a: Tensor, b: Tensor, *additional: Any) -> Tensor:
        """Scores of aligned pairs: under the winners that are given, or else the model's own.

        Args:
            a (Tensor): Queries, shape (B, ...).
            b (Tensor): Documents, shape (B, ...).
            additional: The extras of tower a, then those of tower b, as :meth:`prepare` gives them.
                Without the last one, ``rows`` of b, each token is matched with its winner.

        Returns:
            Tensor: shape (B,), in float32 or wider.
        """
        extras_a, extras_b = self.split_additional(additional)
        if len(extras_b) == len(self.tower_b.extra_names) and extras_b[-1] is not None:
            return (widen(self.encode_a(a, *extras_a)) * widen(self.encode_b(b, *extras_b))).sum(-1)
        matches = self.match(a, b, *additional)
        score = matches.similarities.amax(-1).sum(-1)
        return score / (matches.rows >= 0).sum(-1) if self.tower_a.mean else score

    def match(self, a: Tensor, b: Tensor, *additional: Any) -> Matches:
        """Similarities of single tokens of aligned pairs, and the winners among them.

        The arguments are those of :meth:`forward`; the last one is not needed.
        """
        extras_a, extras_b = self.split_additional(additional)
        *own_a, rows = self.tower_a.with_rows(a, extras_a)
        own_b = extras_b[: len(self.tower_b.extra_names) - 1]
        queries = widen(self.tower_a.take(self.tower_a.tokens(a, *own_a), rows))
        documents = widen(self.tower_b.tokens(b, *own_b))
        counted = self.tower_b.counted(documents.shape[1], b, *own_b)
        similarities = queries @ documents.transpose(1, 2)
        similarities = similarities.masked_fill(~counted.unsqueeze(1), -torch.inf)
        similarities = similarities.masked_fill(rows.unsqueeze(-1) < 0, 0.0)
        best = similarities.detach().topk(min(2, documents.shape[1]), dim=-1)
        winners, runners_up = best.indices[..., 0], best.indices[..., -1]
        margins = best.values[..., 0] - best.values[..., -1]
        is_alone = (counted.sum(1, keepdim=True) < 2) | (rows < 0)
        return Matches(
            rows,
            similarities,
            winners.masked_fill(rows < 0, -1),
            runners_up.masked_fill(is_alone, -1),
            margins.masked_fill(is_alone, torch.inf),
        )

    def prepare(self, a: Any, b: Any, *, truncation: bool = False) -> Batch:
        batch = super().prepare(a, b, truncation=truncation)
        with explaining(self), torch.no_grad():
            winners = self.match(*batch.inputs, *batch.additional_forward_args).winners
        return batch._replace(
            additional_forward_args=(*batch.additional_forward_args[:-1], winners)
        )

    def notes(self, batch: Batch, row: int) -> dict[str, Any]:
        extras_a, extras_b = self.split_additional(batch.additional_forward_args)
        pairs = zip(extras_a[-1][row].tolist(), extras_b[-1][row].tolist(), strict=True)
        return {
            "constant": "the score of the baselines under the winners of this pair",
            "winners": [list(pair) for pair in pairs if pair[0] >= 0],
        }
