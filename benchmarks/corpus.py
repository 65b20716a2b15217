"""All maps of a collection from its factors, as a share of the machine's own matrix product rate.

    python -m benchmarks.corpus [--images 1000] [--texts 1000] [--threads 2] [--json FILE]

Factors have the shapes of CLIP ViT-B/32: 50 image tokens, 12 text tokens, 512 dimensions. Their
values are random, and tokens are of very different lengths. The rate is that of a product of two
square matrices, measured in turn with every case; a share is the median of these pairs. Maps are
made in blocks in one buffer, so that a million of them need no more memory than a few. Then the
same from indexes on disk, for each type of storage: their size, what the type changes, and the time
of a search for the best regions of 16 phrases, files in the cache of the system.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import memory_mb, reset_peak_mb
from captum_interactions.corpus import FactorIndex, Item, Settings, top_regions
from captum_interactions.corpus.folder import Part, write_settings
from captum_interactions.corpus.header import STORAGE
from captum_interactions.corpus.shards import SUFFIX, write_shard
from captum_interactions.encoders import TokenAxis
from captum_interactions.functional import Factors

IMAGE_TOKENS, TEXT_TOKENS, K = 50, 12, 512
SQUARE = 2048
PHRASES = 16
SHARD = 256


def main() -> None:
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    images, texts = (
        random_factors(options.images, IMAGE_TOKENS, 1),
        random_factors(options.texts, TEXT_TOKENS, 2),
    )
    work = 2 * options.images * IMAGE_TOKENS * options.texts * TEXT_TOKENS * K

    before = reset_peak_mb()
    rows: list[dict[str, Any]] = [_case("in memory", lambda: _run(images, texts), work, options)]
    rows[0]["extra_peak_mb"] = memory_mb("VmHWM") - before
    expected = (images[:8] @ texts).clone()
    with tempfile.TemporaryDirectory() as folder:
        for storage in STORAGE:
            index_a = store(Path(folder, f"{storage}-a"), _blocks(images), storage, "a")
            index_b = store(Path(folder, f"{storage}-b"), _blocks(texts), storage, "b")

            def stream(a: FactorIndex = index_a, b: FactorIndex = index_b) -> None:
                columns = b.factors()
                for _, block in a.blocks():
                    _run(block, columns)

            row = _case(f"index, {storage}", stream, work, options)
            row["bytes"] = sum(p.stat().st_size for p in index_a.folder.iterdir())
            row["storage_error"] = index_a.storage_error.relative
            maps = index_a.factors(range(8)) @ index_b.factors()
            row["map_error"] = float((maps - expected).abs().max() / expected.abs().max())
            phrases = texts.values[:PHRASES].sum(1)
            row["search_seconds"] = statistics.median(
                _seconds(lambda a=index_a, p=phrases: top_regions(a, p, 10))  # type: ignore[misc]
                for _ in range(options.repeats)
            )
            rows.append(row)

    _print(rows, options)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2))


def _blocks(factors: Factors) -> list[Factors]:
    return [factors[first : first + SHARD] for first in range(0, len(factors), SHARD)]


def _run(images: Factors, texts: Factors) -> None:
    for _ in images.map_blocks(texts):
        pass


def _case(
    name: str, run: Callable[[], object], work: int, options: argparse.Namespace
) -> dict[str, Any]:
    """A case and the machine's rate in turn, so that both see the same load."""
    square = torch.randn(SQUARE, SQUARE)
    out = torch.empty_like(square)

    def rate() -> float:
        fastest = min(_seconds(lambda: torch.mm(square, square, out=out)) for _ in range(9))
        return 2 * SQUARE**3 / fastest

    shares, times, rates = [], [], [rate()]
    for _ in range(options.repeats):
        times.append(_seconds(run))
        rates.append(rate())
        shares.append(work / times[-1] / statistics.mean(rates[-2:]))
    return {
        "case": name,
        "seconds": statistics.median(times),
        "rate_gflops": statistics.median(rates) / 1e9,
        "share": statistics.median(shares),
    }


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def random_factors(count: int, n_tokens: int, seed: int) -> Factors:
    """Factors of random values, whose tokens are of very different lengths."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randn(count, n_tokens, 1, generator=generator).exp() / n_tokens
    values = torch.randn(count, n_tokens, K, generator=generator) / K**0.5 * lengths
    embedding = torch.nn.functional.normalize(values.sum(1), dim=-1)
    return Factors(values, embedding, torch.zeros_like(embedding))


def store(
    folder: Path, blocks: Iterable[Factors], storage: str, side: Any, n_before: int = 0
) -> FactorIndex:
    """An index of blocks of factors, of one shard each; ``n_before`` blocks are there already."""
    model = dict.fromkeys(("name", "weights", "configuration"), "random")
    settings = Settings(side, (11, 11), "cosine", 10, "gausslegendre", None, False, model)
    folder.mkdir(parents=True, exist_ok=True)
    if not n_before:
        write_settings(folder, settings, storage)
    part = f"{n_before:04d}-{'0' * 12}"
    names = []
    for number, block in enumerate(blocks):
        names.append(f"{part}-{number:05d}")
        axis = TokenAxis.numbered(block.values.shape[1])
        items = [
            Item(
                f"{n_before + number}:{row}",
                block.values[row],
                block.embedding[row],
                block.baseline[row],
                axis,
                settings,
            )
            for row in range(len(block))
        ]
        write_shard(folder / f"{names[-1]}{SUFFIX}", items, [None] * len(items), storage)
    Part(part, tuple(names)).write(folder)
    return FactorIndex(folder)


def _print(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    print(
        f"{options.images} × {options.texts} maps, {options.threads} threads; extra peak memory of "
        f"the maps in memory {rows[0]['extra_peak_mb']:.0f} MB\n"
    )
    print(
        "| factors | time, s | machine, GFLOP/s | share of its rate | images on disk, MB | largest "
        f"error of a factor | largest error of a map | {PHRASES} phrases, s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        cells = [
            row["case"], f"{row['seconds']:.2f}", f"{row['rate_gflops']:.0f}", f"{row['share']:.0%}"
        ]  # fmt: skip
        if "bytes" in row:
            errors = (row["storage_error"], row["map_error"])
            cells += [f"{row['bytes'] / 1e6:.1f}", *(f"{error:.1e}" for error in errors)]
            cells.append(f"{row['search_seconds']:.2f}")
        print("|", " | ".join(cells + [""] * (8 - len(cells))), "|")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    return parser


if __name__ == "__main__":
    main()
