"""Contrastive fine-tuning of a dual encoder on the pairs of a dataset."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from captum_interactions.datasets.record import Record
from captum_interactions.encoders import DualEncoderWrapper, TowerInputs
from captum_interactions.encoders.wrapper import unit

DEFAULT_SCALE = 1 / 0.07
"""What cosines are multiplied by where a model has no ``logit_scale``; CLIP starts from it."""


@dataclass(frozen=True)
class FineTuning:
    """How a model is fine-tuned. Weight decay and batch size are those of Möller et al. (2025)."""

    steps: int = 200
    batch_size: int = 64
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    warmup: int = 20
    """Steps over which the learning rate rises from zero; after them it falls exponentially."""
    final_rate: float = 0.1
    """Learning rate of the last step, as a share of the highest one."""
    l2_penalty: float = 0.0
    """Weight of the squared distance from the initial weights."""
    hard_negatives: bool = False
    """Whether the false captions of a batch's images are among those that its images choose from,
    as in NegCLIP (Yuksekgonul et al., ICLR 2023)."""
    seed: int = 0


def fine_tune(
    wrapper: DualEncoderWrapper,
    records: Sequence[Record],
    setting: FineTuning = FineTuning(),
    *,
    checkpoint: Path | None = None,
    checkpoint_every: int = 50,
    show_progress: bool = False,
) -> DualEncoderWrapper:
    """Fine-tune a copy of a dual encoder with CLIP's loss; the given one stays as it is.

    The loss is the symmetric cross-entropy over the scores of a batch, with its own captions as
    targets. A caption of the batch that is true of another image counts as false, as in the
    training of CLIP. The batch of a step depends on the seed and the step alone. With hard
    negatives, records with a false caption are not drawn, but go along with that of the true one.

    Args:
        wrapper (DualEncoderWrapper): What to start from.
        records (sequence of Record): Pairs; at least ``batch_size`` of them with true captions.
            False captions are hard negatives if the setting has them, and an error if not.
        setting (FineTuning): How to train.
        checkpoint (Path, optional): File that the state is kept in; training goes on from it.
            Default: None, nothing is kept
        checkpoint_every (int): Steps between two checkpoints. Default: 50
        show_progress (bool): Show a progress bar. Default: False

    Returns:
        DualEncoderWrapper: the trained copy, in eval mode.

    Raises:
        ValueError: If there are too few records, a caption is false (or none is, with hard
            negatives), or the checkpoint belongs to another setting.

    Source: Möller et al., TMLR 2025, Section 4.3, and the authors' published training loop.
    """
    true, false = _pairs(records, setting)
    if len(true) < setting.batch_size:
        raise ValueError(
            f"a batch takes {setting.batch_size} records, but there are only {len(true)}"
        )
    trained = copy.deepcopy(wrapper).train()
    weights = {n: p for n, p in trained.named_parameters() if p.requires_grad}
    initial = {name: weight.detach().clone() for name, weight in weights.items()}
    optimizer = torch.optim.AdamW(
        weights.values(), lr=setting.learning_rate, weight_decay=setting.weight_decay
    )
    start = 0
    if checkpoint is not None and checkpoint.exists():
        start = _restore(checkpoint, setting, weights, optimizer)
    steps = tqdm(
        range(start, setting.steps),
        "Fine-tuning",
        setting.steps,
        initial=start,
        disable=not show_progress,
    )
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = setting.learning_rate * _schedule(step, setting)
        batch = _batch(records, true, setting, step)
        loss = _loss(trained, batch, [c for r in batch for c in false.get(r.key, ())])
        if setting.l2_penalty:
            drift = [(weights[n] - initial[n]).square().sum() for n in weights]
            loss = loss + setting.l2_penalty * torch.stack(drift).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        optimizer.step()
        steps.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        is_last = step + 1 == setting.steps
        if checkpoint is not None and (is_last or (step + 1) % checkpoint_every == 0):
            _save(checkpoint, setting, weights, optimizer, step + 1)
    return trained.eval()


def _pairs(
    records: Sequence[Record], setting: FineTuning
) -> tuple[Sequence[int], dict[str, list[str]]]:
    """Which records are to be drawn, and the false captions of each by its key."""
    if not setting.hard_negatives:
        return range(len(records)), {}
    true: list[int] = []
    false: dict[str, list[str]] = {}
    for index, record in enumerate(records):
        if record.hard_negative is None:
            true.append(index)
        else:
            false.setdefault(record.hard_negative.positive_key, []).append(record.caption)
    if not false:
        raise ValueError("there are no hard negatives: no record of these has a false caption")
    return true, false


def _batch(
    records: Sequence[Record], true: Sequence[int], setting: FineTuning, step: int
) -> list[Record]:
    rng = np.random.default_rng([setting.seed, step])
    chosen = rng.choice(len(true), setting.batch_size, replace=False)
    batch = [records[true[int(place)]] for place in chosen]
    false = [record.key for record in batch if record.hard_negative is not None]
    if false:
        raise ValueError(
            f"captions to train on must be true, but that of {false[0]!r} is false: leave such "
            "records out, or take hard_negatives"
        )
    return batch


def _loss(wrapper: DualEncoderWrapper, batch: Sequence[Record], false: Sequence[str]) -> Tensor:
    """CLIP's loss, in which images have false captions to choose from too."""
    captions = [record.caption for record in batch] + list(false)
    images = wrapper.tower_a.prepare([record.image for record in batch], truncation=True)
    a = _unit_embeddings(wrapper, wrapper.encode_a, images)
    b = _unit_embeddings(
        wrapper, wrapper.encode_b, wrapper.tower_b.prepare(captions, truncation=True)
    )
    logits = _scale(wrapper) * (a @ b.T)
    target = torch.arange(len(batch), device=logits.device)
    of_texts = logits[:, : len(batch)].T
    return (cross_entropy(logits, target) + cross_entropy(of_texts, target)) / 2


def _unit_embeddings(
    wrapper: DualEncoderWrapper, encode: Callable[..., Tensor], prepared: TowerInputs
) -> Tensor:
    device = next(wrapper.parameters()).device
    extras = (None if x is None else x.to(device) for x in prepared.extras)
    return unit(encode(prepared.inputs.to(device), *extras))


def _scale(wrapper: DualEncoderWrapper) -> Tensor | float:
    """What the model itself multiplies cosines by."""
    for name, parameter in wrapper.named_parameters():
        if name.endswith("logit_scale") and parameter.numel() == 1:
            return parameter.clamp(max=math.log(100)).exp()
    return DEFAULT_SCALE


def _schedule(step: int, setting: FineTuning) -> float:
    """Linear warm-up, then an exponential decay; as a share of the learning rate."""
    if step < setting.warmup:
        return (step + 1) / setting.warmup
    done = (step - setting.warmup) / max(1, setting.steps - setting.warmup - 1)
    return float(setting.final_rate**done)


def _save(
    path: Path,
    setting: FineTuning,
    weights: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    state = {
        "setting": asdict(setting),
        "weights": {name: weight.detach() for name, weight in weights.items()},
        "optimizer": optimizer.state_dict(),
        "step": step,
    }
    partial = path.with_suffix(f".{os.getpid()}")  # other processes train the same
    torch.save(state, partial)
    partial.replace(path)  # never half a checkpoint


def _restore(
    path: Path,
    setting: FineTuning,
    weights: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> int:
    """Put a saved state in place; returns the step to go on with."""
    state: dict[str, Any] = torch.load(path, weights_only=True)
    if state["setting"] != asdict(setting):
        raise ValueError(f"{str(path)!r} was made with {state['setting']}, but asked for {setting}")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(state["weights"][name])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
