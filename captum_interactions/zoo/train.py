"""Train the bundled model: a small CLIP that knows coloured shapes, from images and captions alone.

``python -m captum_interactions.zoo.train --output DIR`` trains it on two CPU cores. Stopped and
started again with the same command, it goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
)

from captum_interactions.datasets.scenes import (
    DOMAINS,
    IMAGE_SIZE,
    arrange,
    describe,
    render,
    scene_rng,
)
from captum_interactions.zoo.batches import TRAINING_SEED, Batches

PIXEL_MEAN, PIXEL_STD = 0.5, 0.25
"""Zero after normalization is a mid grey, a background like any other: a neutral baseline."""

DEFAULT_LAYERS = (0, 0)
"""Image and text layer that are attributed at by default; chosen on validation scenes by
``zoo.report``."""

DEFAULT_N_STEPS = 40
"""Number of steps at these layers, likewise."""

MAX_TOKENS = 40
SPECIAL_TOKENS = ("<|pad|>", "<|endoftext|>", "<|startoftext|>")
"""The end of text must not have id 2: for that id ``CLIPTextModel`` pools at the largest id
instead."""


@dataclass(frozen=True)
class Recipe:
    """Everything the weights depend on."""

    steps: int = 7_000
    batch: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    warmup: int = 200
    decay_from: float = 0.6
    """Share of the steps after which the learning rate goes down to zero, on a line."""
    ema: float = 0.998
    """Decay of the running mean of the weights, which is what is saved."""
    width: int = 128
    heads: int = 4
    vision_layers: int = 4
    text_layers: int = 3
    mlp_ratio: int = 4
    patch: int = 12
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


EMBEDDING_STD = 0.3
"""Standard deviation that contents and positions start with. They are equally large, so that the
layer norm over their sum bends less along a path from a baseline to an input, and integrals along
that path need fewer steps."""


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
    vision, text = model.vision_model.embeddings, model.text_model.embeddings
    for table in (vision.position_embedding, text.position_embedding, text.token_embedding):
        nn.init.normal_(table.weight, std=EMBEDDING_STD)
    whiten(vision.patch_embedding)
    # Weights as large as their inputs ask for, and a class token that does not drown what blocks
    # add to it: in a model this small, embeddings of different images would be nearly the same
    # otherwise.
    nn.init.constant_(model.vision_model.pre_layrnorm.weight, 0.2)
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear) and ".layers." in name:
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
    return model


@torch.no_grad()
def whiten(patches: nn.Conv2d, n_images: int = 500) -> None:
    """Let a projection of patches start as a random rotation of their whitened components.

    Neighbouring pixels are much alike, so a random projection shows little but the mean colour of a
    patch; edges, which shapes are made of, have a small part in it. A plain classifier of shapes
    learned several times faster from whitened patches.
    """
    width, *rest = patches.weight.shape
    side = patches.kernel_size[0]
    rng, domain = np.random.default_rng(TRAINING_SEED), DOMAINS["plain"]
    drawn = np.stack([render(rng, arrange(rng, domain), domain)[0] for _ in range(n_images)])
    pixels = normalized(torch.from_numpy(drawn).permute(0, 3, 1, 2))
    cut = pixels.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 1, 4, 5)
    rows = cut.reshape(-1, math.prod(rest)).double()
    variances, directions = torch.linalg.eigh(rows.T @ rows / len(rows))
    components = (directions / (variances + 1e-2).sqrt()).T.flip(0)[:width]
    rotation = torch.linalg.qr(torch.randn(width, len(components), dtype=torch.double)).Q
    patches.weight.copy_(EMBEDDING_STD * (rotation @ components).view_as(patches.weight))


def normalized(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) of bytes, as the model's processor normalizes them."""
    return images.float().div_(255).sub_(PIXEL_MEAN).div_(PIXEL_STD)


def contrastive_loss(images: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy over the pairs of a batch, of unit embeddings (B, K)."""
    logits = images @ texts.T * log_scale.clamp(max=math.log(100)).exp()
    target = torch.arange(len(logits))
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def train(
    output: Path,
    recipe: Recipe,
    *,
    stop_at: int | None = None,
    checkpoint_seconds: float = 120.0,
) -> None:
    """Train a model, or go on training it, and save it with its processor.

    Args:
        output: Folder for the model; the checkpoint is kept in ``output/work``.
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
    tokenizer = train_tokenizer(training_captions(5_000))

    torch.manual_seed(recipe.seed)
    model = build_model(recipe, tokenizer)
    weights = dict(model.named_parameters())
    mean = {name: weight.detach().clone() for name, weight in weights.items()}
    optimizers = _optimizers(model, recipe)

    start, seconds = 0, 0.0
    if state is not None:
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        mean, start, seconds = state["mean"], state["step"], state["seconds"]
    began = time.monotonic() - seconds

    def save_checkpoint(step: int) -> None:
        state = {
            "recipe": dataclasses.asdict(recipe),
            "model": model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "mean": mean,
            "step": step,
            "seconds": time.monotonic() - began,
        }
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)  # never half a checkpoint

    last = recipe.steps if stop_at is None else min(stop_at, recipe.steps)
    batches = Batches(recipe.steps, recipe.batch, recipe.seed, tokenizer)
    steps = range(start, last)
    loader = DataLoader(batches, batch_size=None, sampler=steps, num_workers=1, prefetch_factor=8)
    saved_at = time.monotonic()
    progress = tqdm(loader, "training", recipe.steps, initial=start, mininterval=5)
    for step, batch in zip(steps, progress, strict=True):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * _schedule(step, recipe)
        model.zero_grad()
        pixels = normalized(batch.images)
        images = model.get_image_features(pixel_values=pixels).pooler_output
        texts = model.get_text_features(input_ids=batch.tokens).pooler_output
        units = normalize(images, dim=-1), normalize(texts, dim=-1)
        loss = contrastive_loss(*units, model.logit_scale)
        loss.backward()
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
        save(model, tokenizer, output, recipe, time.monotonic() - began)


def training_captions(count: int) -> Iterator[str]:
    """Captions to train a tokenizer on."""
    for index in range(count):
        rng = scene_rng(TRAINING_SEED, "plain", index)
        yield describe(rng, arrange(rng, DOMAINS["plain"])).caption


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
    """The learning rate as a share of its largest value."""
    left = (recipe.steps - step) / recipe.steps / (1 - recipe.decay_from)
    return min((step + 1) / recipe.warmup, 1.0, left)


def save(
    model: CLIPModel, tokenizer: CLIPTokenizer, output: Path, recipe: Recipe, seconds: float
) -> None:
    """Save model and processor as ``transformers`` loads them, and what they were made with."""
    model.config.captum_interactions = {
        "default_layers": list(DEFAULT_LAYERS),
        "default_n_steps": DEFAULT_N_STEPS,
    }
    model.save_pretrained(output)
    build_processor(tokenizer).save_pretrained(output)
    made_with: dict[str, Any] = {
        "recipe": dataclasses.asdict(recipe),
        "training_seed": TRAINING_SEED,
        "hours": round(seconds / 3600, 2),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "numpy": np.__version__,
    }
    (output / "training.json").write_text(json.dumps(made_with, indent=2) + "\n")


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
