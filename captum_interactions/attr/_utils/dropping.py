"""Can patches be left out of an encoder's sequence, as if no token attended to them?

Without a mask of its own, an encoder is not told which tokens to ignore. But if its blocks treat
the patches as a set, a sequence without some of them has the same embedding as the whole one in
which no token attends to these; a mean is that of the tokens that are left. The embeddings have
added the positions by then. This does not hold for blocks that know positions themselves (rotary or
relative positions, windows, convolutions), or if the pooling takes certain cells: those are
refused.
"""

from __future__ import annotations

import torch

from captum_interactions.attr._utils.path import Path
from captum_interactions.encoders import Tower
from captum_interactions.encoders.towers.base import take_rows


def is_dropping(tower: Tower, masking: str) -> bool:
    """Whether masked tokens are left out, since the tower has no attention mask that hides them."""
    return masking == "attention" and "attention_mask" not in tower.extra_names


def check_dropping(path: Path) -> None:
    """Raise a ValueError unless patches may be left out of the states at the path's layer.

    It is tried on the first input, which takes three forward passes: the embedding must not depend
    on the order of the patches, and the tower must run without half of them.
    """
    reason = _why_not(path)
    if reason is not None:
        raise ValueError(
            f"masking='attention' leaves absent patches out of the sequence of encoder {path.name} "
            f"({type(path.tower).__name__}), which takes no attention_mask, but {reason}: take "
            "'baseline' there; a pair gives one masking for each input"
        )


def _why_not(path: Path) -> str | None:
    """The reason why patches may not be left out; None if they may."""
    tower = path.tower
    if path.layer != 0:
        return f"that is possible behind its embeddings only, layer 0, not at layer {path.layer!r}"
    special = path.special_tokens
    n_special = 0 if special is None else int(special[0].sum())
    cells = tower.fold("input", torch.empty_like(path.inputs, device="meta")).shape[1]
    if not path.inputs.is_floating_point() or path.features.shape[1] - n_special != cells:
        return "its tokens are not patches of the input"
    own, context = path.features[:1], take_rows(path.tower_context, slice(0, 1))
    patches = path.content_mask[0].nonzero().flatten().cpu()
    # A random cycle, so that no patch stays in its place.
    cycle = patches[torch.randperm(len(patches), generator=torch.Generator().manual_seed(0))]
    order = torch.arange(own.shape[1])
    order[cycle] = cycle.roll(1)
    fewer = (path.token_mask[0] > 0).cpu()
    fewer[patches[::2]] = False
    with torch.no_grad():
        try:
            whole, moved = (
                tower.embed(0, own[:, rows], *context).float() for rows in (slice(None), order)
            )
            tower.embed(0, own[:, fewer], *context)
        except Exception as error:  # any error of the model is the reason, but for lack of memory
            if isinstance(error, torch.OutOfMemoryError):
                raise
            return f"it does not run without them ({type(error).__name__}: {error})"
    gap = float((whole - moved).abs().max() / whole.abs().max())
    if not gap < (0.05 if own.element_size() < 4 else 1e-3):
        return f"its embedding depends on the order of its tokens (it changes by {gap:.1e})"
    return None
