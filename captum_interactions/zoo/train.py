"""Train the bundled model: a small CLIP that knows coloured shapes.

``python -m captum_interactions.zoo.train --output DIR`` trains it on two CPU cores in half an hour.
Stopped and started again with the same command, it goes on from its last checkpoint and ends with
the
same weights.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from tqdm import tqdm
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
)
from transformers.masking_utils import eager_mask

from captum_interactions.datasets.scenes import IMAGE_SIZE
from captum_interactions.zoo.training_set import (
    ABSENT,
    CAPTIONS,
    MAX_TOKENS,
    SIBLINGS,
    UNSTATED,
    TrainingSet,
    is_true,
    load_or_draw,
    training_captions,
)

PIXEL_MEAN, PIXEL_STD = 0.5, 0.25
"""Zero after normalisation is a mid grey, a background like any other: a neutral baseline."""

DEFAULT_LAYERS = (0, 0)
"""Image and text layer that ground best on held-out scenes, by ``zoo.report``."""

DEFAULT_N_STEPS = 40
"""Quadrature nodes for maps at these layers."""

SPECIAL_TOKENS = ("<|pad|>", "<|endoftext|>", "<|startoftext|>")
"""The end of text must not have id 2: for that id ``CLIPTextModel`` pools at the largest id
instead."""


@dataclass(frozen=True)
class Recipe:
    """Everything the weights depend on."""

    groups: int = 20_000
    """Groups of four sibling scenes in the training set."""
    steps: int = 4_500
    batch_groups: int = 64
    batch_siblings: int = 2
    """Images of a group that are in a batch together."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    warmup: int = 100
    ema: float = 0.998
    """Decay of the running mean of the weights, which is what is saved."""
    width: int = 128
    heads: int = 2
    vision_layers: int = 3
    text_layers: int = 2
    mlp_ratio: int = 4
    patch: int = 8
    position_std: float = 0.1
    exchange: float = 0.6
    """Share of the images parts of which are exchanged for another image's: one side at first."""
    tight_from: float = 0.6
    """Share of the steps after which all but the objects that the caption names is exchanged."""
    erase: float = 0.3
    """Share of the images of which patches, up to a half, are erased."""
    drop_words: float = 0.4
    """Share of the captions of which tokens, up to a half, become padding."""
    seed: int = 0


def train_tokenizer(captions: Iterable[str]) -> CLIPTokenizer:
    """Learn byte-level BPE merges; every byte has a token, so that any text can be encoded."""
    draft = CLIPTokenizer(pad_token=SPECIAL_TOKENS[0]).backend_tokenizer
    trainer = BpeTrainer(
        vocab_size=1_000,
        min_frequency=1,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    draft.train_from_iterator(captions, trainer)
    merges: list[Any] = [tuple(m) for m in json.loads(draft.to_str())["model"]["merges"]]
    letters = sorted(ByteLevel.alphabet())
    tokens = [*SPECIAL_TOKENS, *letters, *(letter + "</w>" for letter in letters)]
    tokens += dict.fromkeys(left + right for left, right in merges)
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        pad_token=SPECIAL_TOKENS[0],
        model_max_length=MAX_TOKENS,
    )


def build_processor(tokenizer: CLIPTokenizer) -> CLIPProcessor:
    """Tokenizer and image preparation in one, as ``AutoProcessor`` loads them."""
    images = CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=[PIXEL_MEAN] * 3,
        image_std=[PIXEL_STD] * 3,
    )
    return CLIPProcessor(image_processor=images, tokenizer=tokenizer)


def build_model(recipe: Recipe, tokenizer: CLIPTokenizer) -> CLIPModel:
    """A CLIP with random weights."""
    tower = {
        "hidden_size": recipe.width,
        "intermediate_size": recipe.width * recipe.mlp_ratio,
        "num_attention_heads": recipe.heads,
        "hidden_act": "gelu",
        "projection_dim": recipe.width,
    }
    model = CLIPModel(
        CLIPConfig(
            text_config={
                **tower,
                "num_hidden_layers": recipe.text_layers,
                "vocab_size": len(tokenizer),
                "max_position_embeddings": MAX_TOKENS,
                "pad_token_id": tokenizer.pad_token_id,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
            },
            vision_config={
                **tower,
                "num_hidden_layers": recipe.vision_layers,
                "image_size": IMAGE_SIZE,
                "patch_size": recipe.patch,
            },
            projection_dim=recipe.width,
        )
    )
    # Positions as large as contents: then the layer norm over their sum bends less along a path
    # from a
    # baseline to an input, and integrals along that path need fewer nodes.
    for embeddings in (model.vision_model.embeddings, model.text_model.embeddings):
        nn.init.normal_(embeddings.position_embedding.weight, std=recipe.position_std)
    nn.init.normal_(model.text_model.embeddings.token_embedding.weight, std=recipe.position_std)
    # Weights as large as their inputs ask for, and a class token that does not drown what blocks
    # add to
    # it: in a model this small, embeddings of different images would be nearly the same otherwise.
    nn.init.constant_(model.vision_model.pre_layrnorm.weight, 0.2)
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear) and ".layers." in name:
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
    return model


class Batch(NamedTuple):
    """B augmented images with a caption each."""

    pixels: Tensor
    """(B, 3, H, W), normalised."""
    tokens: Tensor
    """(B, T) token ids."""
    unknown: Tensor
    """(B, B), image by caption: no match of the batch though the caption is, or may be, true."""
    foreign: Tensor
    """(B, patches), where a state is to be taken from the image of the row PARTNER above."""


PARTNER = 2
"""Rows between an image and the one it exchanges states with; siblings lie closer together."""


def draw_batch(data: TrainingSet, recipe: Recipe, step: int) -> Batch:
    """The batch of a step, augmented; it depends on the seed and the step alone."""
    rng = np.random.default_rng([recipe.seed, step])
    strength = min(1.0, 2 * step / recipe.steps)
    groups = len(data.images) // SIBLINGS
    first = SIBLINGS * rng.choice(groups, min(recipe.batch_groups, groups), replace=False)
    drawn = rng.permuted(np.tile(np.arange(SIBLINGS), (len(first), 1)), axis=1)
    rows = (first[:, None] + drawn[:, : recipe.batch_siblings]).ravel()
    own, grid = np.arange(len(rows)), IMAGE_SIZE // recipe.patch

    # Parts of some images come from another image; captions then name what is whole of the own one.
    objects, boxes = data.objects[rows], _patches(data.boxes[rows], grid)
    share = recipe.exchange * strength
    if step < recipe.tight_from * recipe.steps:
        foreign: Any = _sides(rng, len(rows), grid)
        foreign &= (rng.random(len(rows)) < share)[:, None, None]
        whole = ~(boxes & foreign[:, None]).any((2, 3))
        left = np.where(whole[..., None], objects, ABSENT)
        fitting: Any = is_true(data.mentions[rows], left[:, None])
        foreign &= fitting.any(1)[:, None, None]
        fitting |= ~fitting.any(1, keepdims=True)
        captions = (rng.random(fitting.shape) * fitting).argmax(1)
    else:
        exchanged = (rng.random(len(rows)) < share)[:, None, None]
        captions = rng.integers(CAPTIONS, size=len(rows))
        named = _names(data.mentions[rows, captions], objects)
        foreign = ~(boxes & named[..., None, None]).any(1) & exchanged
    partner = np.where(foreign.any((1, 2))[:, None, None], np.roll(objects, PARTNER, 0), ABSENT)
    objects = np.concatenate([objects, partner], 1)

    tokens = data.tokens[rows, captions].astype(np.int64)
    length = (tokens != 0).sum(1)
    rate = rng.uniform(0, 0.5, len(rows)) * (rng.random(len(rows)) < recipe.drop_words * strength)
    dropped = (rng.random(tokens.shape) < rate[:, None]) & (tokens >= len(SPECIAL_TOKENS))
    tokens[dropped] = 0
    mentions, places = data.mentions[rows, captions].copy(), data.places[rows, captions]
    mentions[dropped[own[:, None, None], places]] = UNSTATED
    unknown = is_true(mentions, objects[:, None]) & (own[:, None] != own)

    pixels = torch.from_numpy(data.images[rows]).permute(0, 3, 1, 2).float()
    pixels = pixels.div_(255).sub_(PIXEL_MEAN).div_(PIXEL_STD)
    rate = rng.uniform(0, 0.5, len(rows)) * (rng.random(len(rows)) < recipe.erase * strength)
    kept = torch.from_numpy(rng.random((len(rows), grid, grid)) >= rate[:, None, None]).float()
    kept = kept.repeat_interleave(recipe.patch, 1).repeat_interleave(recipe.patch, 2)
    pixels *= kept[:, None]
    return Batch(
        pixels=pixels,
        tokens=torch.from_numpy(tokens[:, : length.max()]),
        unknown=torch.from_numpy(unknown),
        foreign=torch.from_numpy(foreign.reshape(len(rows), -1)),
    )


def _names(mentions: npt.NDArray[np.int8], objects: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
    """Which objects (B, any, 4) some phrase of the own caption (B, MAX_MENTIONS, 4) names."""
    said, seen = mentions[:, :, None, :], objects[:, None, :, :]
    fits: npt.NDArray[np.bool_] = ((said == UNSTATED) | (said == seen)).all(-1)
    named: npt.NDArray[np.bool_] = (fits & (said != UNSTATED).any(-1)).any(1)
    return named


def _sides(rng: np.random.Generator, count: int, grid: int) -> npt.NDArray[np.bool_]:
    """Masks (count, grid, grid) of the patches on one side of a random upright or level line."""
    before = np.arange(grid) < rng.integers(grid // 4, grid - grid // 4 + 1, (count, 1))
    before ^= rng.random((count, 1)) < 0.5
    upright = rng.random((count, 1, 1)) < 0.5
    sides: npt.NDArray[np.bool_] = np.where(upright, before[:, None, :], before[:, :, None])
    return sides & np.ones((grid, grid), bool)


def _patches(boxes: npt.NDArray[np.int16], grid: int) -> npt.NDArray[np.bool_]:
    """Masks (..., grid, grid) of the patches that boxes (..., 4) reach into."""
    low, high = boxes[..., :2, None] * grid, boxes[..., 2:, None] * grid
    edges = np.arange(grid) * IMAGE_SIZE
    covers: Any = (edges + IMAGE_SIZE > low) & (edges < high)
    patches: npt.NDArray[np.bool_] = covers[..., 1, :, None] & covers[..., 0, None, :]
    return patches


class HalfTowers:
    """A bfloat16 working copy of a model, several times faster on CPUs with AMX.

    The optimiser steps on the model itself: :meth:`pull` brings its weights here, :meth:`push` the
    gradients back.
    """

    def __init__(self, model: CLIPModel) -> None:
        self.towers = copy.deepcopy(model).bfloat16()
        self.towers.set_attn_implementation("whole_matrix")
        for block in self.towers.vision_model.encoder.layers:
            block.register_forward_pre_hook(self._exchange)
        self.pairs = list(zip(model.parameters(), self.towers.parameters(), strict=True))

    @torch.no_grad()
    def pull(self) -> None:
        torch._foreach_copy_([half for _, half in self.pairs], [full for full, _ in self.pairs])

    @torch.no_grad()
    def push(self) -> None:
        for full, half in self.pairs:
            if half.grad is not None:
                full.grad, half.grad = half.grad.float(), None

    def _exchange(self, block: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if block is not self.exchange_at:
            return inputs
        states, *rest = inputs
        classes, patches = states[:, :1], states[:, 1:]
        foreign = self.foreign[..., None]
        patches = torch.where(foreign, patches.roll(PARTNER, 0), patches)
        classes = torch.where(foreign.any(1, keepdim=True), classes.roll(2 * PARTNER, 0), classes)
        return torch.cat([classes, patches], 1), *rest

    def __call__(self, batch: Batch, exchange_at: int) -> tuple[Tensor, Tensor]:
        """Unit embeddings (B, K) of images and texts, in single precision.

        What an image shows must be found in the patches that show it, before every block: where
        ``batch.foreign`` says so, the states that enter block ``exchange_at`` are another image's,
        and the class token is a third one's.
        """
        self.exchange_at = self.towers.vision_model.encoder.layers[exchange_at]
        self.foreign = batch.foreign
        pixels = batch.pixels.bfloat16()
        images = self.towers.get_image_features(pixel_values=pixels).pooler_output
        texts = self.towers.get_text_features(input_ids=batch.tokens).pooler_output
        return normalize(images.float(), dim=-1), normalize(texts.float(), dim=-1)


def _whole_matrix_attention(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    **_: object,
) -> tuple[Tensor, None]:
    # The backward pass of the fused CPU kernel took two thirds of a step.
    weights = (query * scaling) @ key.transpose(-1, -2)
    if mask is not None:
        weights = weights + mask
    return (weights.softmax(-1) @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register("whole_matrix", _whole_matrix_attention)
AttentionMaskInterface.register("whole_matrix", eager_mask)


def contrastive_loss(images: Tensor, texts: Tensor, log_scale: Tensor, unknown: Tensor) -> Tensor:
    """Symmetric cross-entropy over the batch; ``unknown`` pairs count on neither side."""
    logits = (images @ texts.T * log_scale.clamp(max=math.log(100)).exp()).masked_fill(
        unknown, -1e4
    )
    target = torch.arange(len(logits))
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def train(
    output: Path,
    recipe: Recipe,
    *,
    stop_at: int | None = None,
    checkpoint_seconds: float = 60.0,
) -> None:
    """Train a model, or go on training it, and save it with its processor.

    Args:
        output: Folder for the model; scenes and checkpoints are kept in ``output/work``.
        recipe: What to train.
        stop_at: Stop after this many steps, as if interrupted. Default: do not stop.
        checkpoint_seconds: Time between two checkpoints.

    Raises:
        ValueError: If the checkpoint in ``output`` belongs to another recipe.
    """
    work = output / "work"
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = work / "checkpoint.pt"
    state = torch.load(checkpoint, weights_only=True) if checkpoint.exists() else None
    if state is not None and state["recipe"] != dataclasses.asdict(recipe):
        raise ValueError(f"{checkpoint} was made with {state['recipe']}, expected {recipe}")
    tokenizer = train_tokenizer(training_captions(min(recipe.groups, 5_000)))
    data = load_or_draw(work, recipe.groups, tokenizer)

    torch.manual_seed(recipe.seed)
    model = build_model(recipe, tokenizer)
    weights = dict(model.named_parameters())
    mean = {name: weight.detach().clone() for name, weight in weights.items()}
    optimizers = _optimizers(model, recipe)

    start = 0
    if state is not None:
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        mean, start = state["mean"], state["step"]

    def save_checkpoint(step: int) -> None:
        state = {
            "recipe": dataclasses.asdict(recipe),
            "model": model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "mean": mean,
            "step": step,
        }
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)  # never half a checkpoint

    last = recipe.steps if stop_at is None else min(stop_at, recipe.steps)
    half = HalfTowers(model)
    saved_at = time.monotonic()
    progress = tqdm(range(start, last), "training", recipe.steps, initial=start, mininterval=5)
    for step in progress:
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * _schedule(step, recipe)
        batch = draw_batch(data, recipe, step)
        model.zero_grad()
        half.pull()
        images, texts = half(batch, exchange_at=step % recipe.vision_layers)
        loss = contrastive_loss(images, texts, model.logit_scale, batch.unknown)
        loss.backward()
        half.push()
        nn.utils.clip_grad_norm_(weights.values(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            decay = min(recipe.ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(mean.values()), list(weights.values()), 1 - decay)
        if step % 10 == 0:
            progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if time.monotonic() - saved_at > checkpoint_seconds:
            save_checkpoint(step + 1)
            saved_at = time.monotonic()
    save_checkpoint(last)
    model.load_state_dict(mean, strict=False)
    if last == recipe.steps:
        save(model, tokenizer, output)


def _optimizers(model: CLIPModel, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for all else, at one learning rate."""
    blocks = {n: w for n, w in model.named_parameters() if ".layers." in n and w.ndim == 2}
    decayed = [w for n, w in model.named_parameters() if n not in blocks and w.ndim >= 2]
    free = [w for w in model.parameters() if w.ndim < 2]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    return [
        torch.optim.Muon(
            blocks.values(), lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": decay},
                {"params": free, "weight_decay": 0.0},
            ],
            lr=rate,
            betas=(0.9, 0.98),
            fused=True,
        ),
    ]


def _schedule(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine down to zero; as a share of the learning rate."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.5 * (1 + math.cos(math.pi * done))


def save(model: CLIPModel, tokenizer: CLIPTokenizer, output: Path) -> None:
    """Save model and processor to a folder, as ``transformers`` loads them."""
    model.config.captum_interactions = {
        "default_layers": list(DEFAULT_LAYERS),
        "default_n_steps": DEFAULT_N_STEPS,
    }
    model.save_pretrained(output)
    build_processor(tokenizer).save_pretrained(output)


def main() -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description="Train the bundled model.")
    parser.add_argument("--output", type=Path, required=True, help="folder for the model")
    for entry in dataclasses.fields(Recipe):
        flag = "--" + entry.name.replace("_", "-")
        parser.add_argument(
            flag,
            type=type(entry.default),
            default=entry.default,
            help="default: %(default)s",
        )
    options = vars(parser.parse_args())
    train(options.pop("output"), Recipe(**options))


if __name__ == "__main__":
    main()
