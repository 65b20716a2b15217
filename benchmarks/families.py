"""What a full map costs for each family of dual encoders, in forward passes of its pair.

    python -m benchmarks.families [--families NAME ...] [--results FILE] [--threads 2]

Models have the default sizes of their configuration in ``transformers`` and random weights. A map
is taken at the default layers with ten steps, for one image (or sound) and a text of seven tokens,
with padding where the model reads it. *Passes* are its operations, of matrix products and
convolutions, over those of the pair's forward pass: they depend on no machine. Each family runs in
a fresh process and is kept in a JSON file. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from benchmarks.measure import (
    Results,
    counted,
    in_fresh_process,
    memory_mb,
    operations,
    reset_peak_mb,
)
from captum_interactions import DualEncoderWrapper, SecondOrderIntegratedGradients, wrap
from captum_interactions.encoders.towers.naflex_tower import NaflexTower

RESULTS = Path("benchmarks/results/families.json")
N_STEPS = 10
CLASSES = {
    "CLIP": "CLIP",
    "MetaCLIP 2": "MetaClip2",
    "Chinese-CLIP": "ChineseCLIP",
    "AltCLIP": "AltCLIP",
    "SigLIP, SigLIP 2 (fixed resolution)": "Siglip",
    "SigLIP 2 (NaFlex)": "Siglip2",
    "ALIGN": "Align",
    "BLIP": "Blip",
    "CLIPSeg": "CLIPSeg",
    "GroupViT": "GroupViT",
    "AIMv2": "Aimv2",
    "OWL-ViT": "OwlViT",
    "OWLv2": "Owlv2",
    "TIPSv2": "Tipsv2",
    "FLAVA": "Flava",
    "CLAP": "Clap",
}
"""The prefix of each family's classes, by its name in ``tests.families``."""
PAIRS = {
    "VisionTextDualEncoder (ViT, BERT)": ("ViT", "Bert"),
    "VisionTextDualEncoder (DINOv2, RoBERTa)": ("Dinov2", "Roberta"),
}


def main() -> None:
    names = [*CLASSES, "BLIP image–text retrieval", *PAIRS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure", choices=names, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        torch.set_num_threads(options.threads)
        print(json.dumps(measure(_with_biases(default_model(options.measure)))))
        return
    results = Results(options.results)
    for name in options.families:
        arguments = ["--measure", name, "--threads", options.threads]
        results.get(
            name,
            lambda arguments=arguments: in_fresh_process(
                "benchmarks.families", arguments, options.threads
            ),
        )
        print(name, file=sys.stderr, flush=True)
    print(table({name: results.values[name] for name in names if name in results.values}))


def default_model(name: str) -> nn.Module:
    """A family's model at the default sizes of its configuration."""
    torch.manual_seed(0)
    if name in PAIRS:
        vision, text = (getattr(transformers, f"{prefix}Config")() for prefix in PAIRS[name])
        config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(vision, text)
        return transformers.VisionTextDualEncoderModel(config=config).eval()
    if name == "BLIP image–text retrieval":
        return transformers.BlipForImageTextRetrieval(transformers.BlipConfig()).eval()
    prefix = CLASSES[name]
    model = getattr(transformers, f"{prefix}Model")(getattr(transformers, f"{prefix}Config")())
    if name == "AIMv2":
        model.set_attn_implementation("eager")
        model.config.text_config.pad_token_id = 0  # the default configuration names none
    return model.eval()


def _with_biases(model: nn.Module) -> nn.Module:
    """Biases other than zero, without which some models embed the baseline as zeros."""
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.02 * torch.randn_like(parameter)
    return model


def measure(model: nn.Module) -> dict[str, Any]:
    """Operations of a map in those of a forward pass, and its peak memory beyond the model."""
    wrapper = wrap(model)
    batch = wrapper.prepare(_image(wrapper), wrapper.tower_b.sample())
    inputs = tuple(x[1:] for x in batch.inputs)
    extras = tuple(None if x is None else x[1:] for x in batch.additional_forward_args)
    explainer = SecondOrderIntegratedGradients(wrapper)

    def map_pair() -> Tensor:
        return explainer.attribute(inputs, additional_forward_args=extras, n_steps=N_STEPS)

    def forward() -> Tensor:
        with torch.no_grad():
            return wrapper(*inputs, *extras)

    before = reset_peak_mb()
    attributions, work = counted(map_pair)
    extra = memory_mb("VmHWM") - before
    return {
        "passes": work / operations(forward),
        "extra_mb": extra,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "n_tokens": list(attributions.shape[1:]),
    }


def _image(wrapper: DualEncoderWrapper) -> Any:
    """Two samples of a; those of NaFlex, which are tiny, become grids of 16 × 16 patches."""
    sample = wrapper.tower_a.sample()
    if not isinstance(wrapper.tower_a, NaflexTower):
        return sample
    pixels = torch.randn(2, 256, sample[0].shape[-1], generator=torch.Generator().manual_seed(0))
    return pixels, torch.ones(2, 256, dtype=torch.long), torch.full((2, 2), 16)


def table(values: dict[str, dict[str, Any]]) -> str:
    """All families as a Markdown table."""
    lines = [
        "| model | parameters, millions | tokens of a map | passes | extra peak, MB |",
        "|---|---|---|---|---|",
    ]
    for name, row in values.items():
        lines.append(
            f"| {name} | {row['parameters'] / 1e6:.0f} | {row['n_tokens'][0]} × "
            f"{row['n_tokens'][1]} | {row['passes']:.1f} | "
            f"{row['extra_mb']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
