"""Speed on a GPU: maps in float32, TF32 and bfloat16, against forward passes, Captum and the floor.

    python -m benchmarks.gpu [--device cuda] [--models B/32 B/16 L/14 MiniLM] [--out FILE]

One call measures everything, in one process, with times between synchronisations. ``--tiny`` takes
models of a few units, which shows on a CPU too that the script works. Prints Markdown tables and
writes a JSON file:

- the full map of 1, 8 and 64 pairs and the heat map of a phrase, at the last block, a middle one
  and the embeddings, in every precision; the error is relative to the map in float32,
- all maps of 1,000 images and 1,000 captions from their factors.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from captum.attr import LayerIntegratedGradients
from torch import Tensor

from benchmarks.measure import fastest, matmul_rate, operations
from benchmarks.models import MODELS, clip, inputs_of, wrapped
from captum_interactions import DualEncoderWrapper, SecondOrderIntegratedGradients, wrap
from captum_interactions.functional import Factors

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
COLUMNS = (
    "model",
    "layers",
    "pairs",
    "what",
    "precision",
    "ms",
    "forward passes",
    "time of Captum's",
    "share of the floor",
    "peak, MB",
    "error",
)
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 2}  # fmt: skip


def main() -> None:
    options = _parser().parse_args()
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    print(f"{name or 'CPU'}, PyTorch {torch.__version__}\n")
    rates = {}
    for precision, dtype in PRECISIONS.items():
        with multiplying(precision):
            size = 512 if options.tiny else 8192
            rates[precision] = matmul_rate(device, dtype, size)
    print(", ".join(f"{p}: {rate / 1e12:.1f} TFLOP/s" for p, rate in rates.items()) + "\n")
    rows: list[dict[str, Any]] = []
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|", flush=True)
    for model in ["tiny"] if options.tiny else options.models:
        for row in _measure_model(model, device, rates):
            rows.append(row)
            print(f"| {' | '.join(_shown(row[column]) for column in COLUMNS)} |", flush=True)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps({"device": name, "rates": rates, "rows": rows}))
    n = 20 if options.tiny else 1000
    print("\nall pairs from factors, share of the machine's matmul rate: ", end="")
    for precision, dtype in PRECISIONS.items():
        with multiplying(precision):
            share = _all_pairs(n, device, dtype) / rates[precision]
        print(f"{precision} {share:.0%}", end="  ", flush=True)
    print()


@contextmanager
def multiplying(precision: str) -> Iterator[None]:
    """Matrix products of float32 by TF32, or not."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


LAYERS = {"last block": 1.0, "middle block": 0.5, "embeddings": 0.0}
"""Which share of the blocks comes before."""
WORK = [
    (layers, batch, what)
    for layers in LAYERS
    for batch, what in ((1, "map"), (1, "phrase"), (8, "map"), (64, "map"))
    if batch < 64 or layers == "last block"
]


def _measure_model(
    name: str, device: torch.device, rates: dict[str, float]
) -> Iterator[dict[str, Any]]:
    for layers, batch, what in WORK:
        exact: Tensor | None = None
        for precision, dtype in PRECISIONS.items():
            wrapper = wrap(clip(32, **TINY)) if name == "tiny" else wrapped(name)
            wrapper = wrapper.to(device, dtype)
            inputs = tuple(
                x.to(device, dtype if x.is_floating_point() else None)
                for x in inputs_of("B/32" if name == "tiny" else name, 12, batch)
            )
            chosen = tuple(
                min(int(LAYERS[layers] * tower.n_blocks), tower.n_blocks - 1)
                for tower in (wrapper.tower_a, wrapper.tower_b)
            )
            with multiplying(precision):
                values, row = _measure(
                    wrapper, inputs, chosen, what, rates[precision], 0.0 if name == "tiny" else 20.0
                )
            exact = values if exact is None else exact
            error = float((values - exact).abs().max() / exact.abs().max())
            yield {
                "model": name,
                "layers": layers,
                "pairs": f"{batch}",
                "what": what,
                "precision": precision,
                **row,
                "error": error,
            }


def _measure(
    wrapper: DualEncoderWrapper,
    inputs: tuple[Tensor, ...],
    layers: tuple[int, int],
    what: str,
    rate: float,
    limit: float,
) -> tuple[Tensor, dict[str, Any]]:
    """The map, and what it takes."""
    n_steps = 10 if layers[0] == wrapper.tower_a.n_blocks - 1 else 20
    explainer = SecondOrderIntegratedGradients(wrapper, layers)
    groups = [[3, 4, 5]] if what == "phrase" else None

    def run() -> Tensor:
        return explainer.attribute(inputs, groups_b=groups, n_steps=n_steps)

    def forward() -> Tensor:
        with torch.no_grad():
            return wrapper(*inputs)

    calls: list[Callable[[], object]] = [run, forward]
    if len(inputs[0]) == 1:
        calls.append(_captum(wrapper, inputs, layers[0], n_steps))
    if inputs[0].is_cuda:
        torch.cuda.reset_peak_memory_stats()
    values = run()
    peak = torch.cuda.max_memory_allocated() / 2**20 if inputs[0].is_cuda else None
    times = fastest(*calls, limit=limit)
    return values.float(), {
        "ms": times[0] * 1e3,
        "forward passes": times[0] / times[1],
        "time of Captum's": times[0] / times[2] if len(times) > 2 else None,
        "share of the floor": operations(run) / rate / times[0],
        "peak, MB": peak,
    }


def _captum(
    wrapper: DualEncoderWrapper, inputs: tuple[Tensor, ...], index: int, n_steps: int
) -> Callable[[], Tensor]:
    a = wrapper.tower_a
    names = dict(a.model.named_modules())
    first = names.get("vision_model.pre_layrnorm") or names["embeddings"]
    gradients = LayerIntegratedGradients(wrapper, a.blocks[index - 1] if index else first)
    return lambda: gradients.attribute(
        inputs[0],
        a.baseline(inputs[0]),
        additional_forward_args=inputs[1],
        n_steps=n_steps,
    )


def _all_pairs(n: int, device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of all maps of n images and n captions, in blocks."""
    a, b = (
        Factors(torch.randn(n, tokens, 512, device=device).to(dtype), nothing, nothing)
        for nothing in [torch.zeros(n, 512, device=device)]
        for tokens in (50, 12)
    )
    blocks = [a[slice(first, first + n // 5)] for first in range(0, n, n // 5)]
    (taken,) = fastest(lambda: [block @ b for block in blocks].clear())
    return 2 * n * 50 * n * 12 * 512 / taken


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:.3g}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--tiny", action="store_true", help="models of a few units")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.json"))
    return parser


if __name__ == "__main__":
    main()
