"""Models with an embedding for each token, whose score is a sum of best matches."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_interactions.encoders.model.modes import explaining
from captum_interactions.encoders.towers.base import Layer
from captum_interactions.encoders.towers.token_tower import TokenTower, indices_of
from captum_interactions.encoders.wrapper import Batch, DualEncoderWrapper, widen
from captum_interactions.functional import Factors


class Matches(NamedTuple):
    """How the tokens of B queries match those of their documents.

    M is the largest number of tokens of a query that count in its score.
    """

    tokens: Tensor
    """Indices of the query's tokens, (B, M); -1 for none."""
    similarities: Tensor
    """Dot products with the document's tokens, (B, M, Tb); -inf for tokens that do not count, and
    0 where there is no token of the query."""
    winners: Tensor
    """Index of the most similar token of the document, (B, M); -1 for none."""
    runners_up: Tensor
    """Index of the second most similar one, (B, M); -1 if there is none."""
    margins: Tensor
    """The similarity of the winner minus that of the runner-up, (B, M); inf if there is none."""


class LateInteractionWrapper(DualEncoderWrapper):
    r"""A late interaction ``s(a, b) = sum_i max_j <q_i, d_j>`` of a query a and a document b.

    The score of a pair is :math:`\sum_i \langle q_i, d_{w(i)} \rangle`, where the winner
    :math:`w(i)` is the token of the document that is most similar to token i of the query. With the
    winners held fixed, this is the dot product of two vectors: the embeddings of the query's tokens
    one after the other, and those of their winners. So it is explained as any other dot product,
    with ``normalization="none"``.

    :meth:`prepare` finds the winners of each pair, which are the last argument of tower b,
    ``token_indices``. All parts of a map are **under these winners**: the constant too, the score
    of both baselines, is the sum of their similarities at the winners of the pair, which need not
    be the winners of the baselines. :meth:`match` says how clearly each winner has won.

    Source: Khattab and Zaharia, "ColBERT", SIGIR 2020 (arXiv 2004.12832), Eq. 3.

    Args:
        tower_a (TokenTower): Encoder of queries.
        tower_b (TokenTower): Encoder of documents, which may be images of pages.
        default_layers, default_n_steps: See :class:`~captum_interactions.DualEncoderWrapper`.
        query_part (optional): The part of each query whose tokens are scored, as its axis selects
            it: a phrase that occurs once, or a list of token indices. The whole query is encoded
            all the same. The maps of several parts add up to the map of all of them. Default: None,
            all tokens

    Raises:
        TypeError: If a tower is no TokenTower.
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
        query_part: Any = None,
    ) -> None:
        for name, tower in (("a", tower_a), ("b", tower_b)):
            if not isinstance(tower, TokenTower):
                raise TypeError(
                    f"tower {name} of a late interaction must be a TokenTower, but got "
                    f"{type(tower).__name__}: TokenTower(tower) makes one of a tower that gives an "
                    "embedding for each token"
                )
        super().__init__(tower_a, tower_b, default_layers, default_n_steps)
        self.query_part = query_part

    def forward(self, a: Tensor, b: Tensor, *additional: Any) -> Tensor:
        """Scores of aligned pairs, under the winners that are given.

        Args:
            a (Tensor): Queries, shape (B, ...).
            b (Tensor): Documents, shape (B, ...).
            additional: The extras of tower a, then those of tower b, as :meth:`prepare` gives them.

        Returns:
            Tensor: shape (B,), in float32 or wider.
        """
        extras_a, extras_b = self.split_additional(additional)
        return (widen(self.encode_a(a, *extras_a)) * widen(self.encode_b(b, *extras_b))).sum(-1)

    def match(self, a: Tensor, b: Tensor, *additional: Any) -> Matches:
        """Similarities of single tokens of aligned pairs, and the winners among them.

        The score is the sum of each row's largest similarity, or their mean if tower a takes means.
        No gradient is taken.

        Args:
            a, b, additional: As in :meth:`forward`; the winners, the last argument, are not used.

        Returns:
            Matches: indices, similarities and margins of B queries of at most M tokens.
        """
        extras_a, extras_b = self.split_additional(additional)
        with explaining(self), torch.no_grad():
            self.tower_a.check(a, *extras_a)
            tokens = extras_a[-1]
            queries = widen(self.tower_a.take(self.tower_a.tokens(a, *extras_a), tokens))
            documents = widen(self.tower_b.tokens(b, *extras_b))
            counted = self.tower_b.counted(documents.shape[1], b, *extras_b)
        similarities = queries @ documents.transpose(1, 2)
        similarities = similarities.masked_fill(~counted.unsqueeze(1), -torch.inf)
        is_none = tokens < 0
        similarities = similarities.masked_fill(is_none.unsqueeze(-1), 0.0)
        best = similarities.topk(min(2, documents.shape[1]), dim=-1)
        winners, runners_up = best.indices[..., 0], best.indices[..., -1]
        is_alone = is_none | (counted.sum(1, keepdim=True) < 2)
        return Matches(
            tokens,
            similarities,
            winners.masked_fill(is_none, -1),
            runners_up.masked_fill(is_alone, -1),
            (best.values[..., 0] - best.values[..., -1]).masked_fill(is_alone, torch.inf),
        )

    def prepare(self, a: Any, b: Any, *, truncation: bool = False) -> Batch:
        """Turn raw inputs into tensors, see :meth:`DualEncoderWrapper.prepare`, and match them.

        Raises:
            ValueError: Likewise, and if no token of ``query_part`` counts in the score.
        """
        batch = super().prepare(a, b, truncation=truncation)
        extras_a, extras_b = self.split_additional(batch.additional_forward_args)
        if self.query_part is not None:
            extras_a = (*extras_a[:-1], self._part_of(batch, extras_a[-1]))
        matches = self.match(*batch.inputs, *extras_a, *extras_b)
        return batch._replace(
            additional_forward_args=(*extras_a, *extras_b[:-1], matches.winners),
            notes=_notes(matches),
        )

    def under_winners(self, query: Factors, documents: Factors, token_indices: Tensor) -> Factors:
        """Factors of documents under their winners for one query: ``query @`` these are its maps.

        Factors of documents with ``token_indices`` of all tokens that count, as ``tower_b.prepare``
        gives them, serve any query: the winners are found in the embeddings that come with them.
        These factors are large: T · C numbers of D for T tokens, C of which count.

        Args:
            query (Factors): Factors of one query.
            documents (Factors): Factors of N documents, for all of their tokens.
            token_indices (Tensor): Which tokens these are, (N, C).

        Returns:
            Factors: values (N, Tb, K), for the K of the query.
        """
        n_counted = token_indices.shape[1]
        tokens = documents.embedding.unflatten(1, (n_counted, -1))
        if len(query) != 1 or query.embedding.shape[1] % tokens.shape[2]:
            raise ValueError(
                f"factors of one query with embeddings of {tokens.shape[2]} dimensions a token are "
                f"needed, but got {len(query)} with {query.embedding.shape[1]} in all"
            )
        own = query.embedding[0].unflatten(0, (-1, tokens.shape[2]))
        similarities = own @ tokens.transpose(1, 2)
        similarities = similarities.masked_fill(token_indices.unsqueeze(1) < 0, -torch.inf)
        winners = similarities.argmax(-1)

        def of_winners(vectors: Tensor) -> Tensor:
            """The part (N, ..., M · D) of the winners in (N, ..., C · D)."""
            each = vectors.unflatten(-1, (n_counted, -1)).movedim(-2, 1)
            rows = torch.arange(len(each), device=each.device).unsqueeze(1)
            gathered: Tensor = each[rows, winners].movedim(1, -2).flatten(-2)
            return gathered

        return replace(
            documents,
            values=of_winners(documents.values),
            embedding=of_winners(documents.embedding),
            baseline=of_winners(documents.baseline),
        )

    def _part_of(self, batch: Batch, tokens: Tensor) -> Tensor:
        """Indices of those of a query's tokens that lie in the selected part, (B, M)."""
        mask = torch.zeros((len(tokens), len(batch.axes_a[0])), dtype=torch.bool)
        for row, axis in enumerate(batch.axes_a):
            counted = [token for token in tokens[row].tolist() if token >= 0]
            mask[row, counted] = torch.from_numpy(axis.select(self.query_part) > 0)[counted]
            if not mask[row].any():
                raise ValueError(
                    f"no token of {self.query_part!r} in query {row} counts in the score"
                )
        return indices_of(mask.to(tokens.device))


def _notes(matches: Matches) -> tuple[dict[str, Any], ...]:
    """What the maps of each pair say of its matches."""
    fields = (matches.tokens, matches.winners, matches.runners_up, matches.margins)
    return tuple(
        {
            "normalization": "none",
            "constant": "the score of the baselines under the winners of this pair",
            "matches": [
                {
                    "token": token,
                    "winner": winner,
                    "runner_up": None if math.isinf(margin) else runner_up,
                    "margin": None if math.isinf(margin) else margin,
                }
                for token, winner, runner_up, margin in zip(*row, strict=True)
                if token >= 0
            ],
        }
        for row in zip(*(field.tolist() for field in fields), strict=True)
    )
