"""Time of a search for the best regions of a phrase, against the size of the collection.

    python -m benchmarks.search [--images 25600 51200 102400] [--folder FOLDER] [--threads 2]
        [--photographs FOLDER]

Images have factors of the shapes of CLIP ViT-B/32 (50 tokens of 512 numbers, in float16) with
random values, in memory-mapped files that grow from size to size; the largest default takes 5.7 GB.
Times are medians of five searches with the files in the cache of the system, where they have room.
The last row is the straight line through the others at a million images. Prints a Markdown table,
and what the factors of an image cost at least: operations, and with ``--photographs FOLDER`` the
time to read, decode and resize one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import CLIPImageProcessorPil

from benchmarks.corpus import IMAGE_TOKENS, SHARD, random_factors, store
from benchmarks.measure import operations
from benchmarks.models import inputs_of, wrapped
from captum_interactions import SecondOrderIntegratedGradients
from captum_interactions.corpus import FactorIndex, top_regions
from captum_interactions.encoders.inputs.images import process_images
from captum_interactions.encoders.inputs.loading import load_images

N_PHRASES = (1, 16)
MANY = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[25_600, 51_200, 102_400])
    parser.add_argument("--folder", type=Path, help="where the files are. Default: a temporary one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--photographs", type=Path, help="a folder of JPEG files")
    options = parser.parse_args()
    if len({*options.images}) < 2 or any(size % SHARD for size in options.images):
        parser.error(f"--images takes two or more different multiples of {SHARD}")
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print(table(measure(Path(folder), options.images)))
    factors, forward = operations_of_an_image()
    ratio = factors / forward
    print(f"\nFactors of an image: {factors / 1e9:.1f} GFLOP, {ratio:.1f} times its encoder's.")
    if options.photographs is not None:
        seconds, size = loading(sorted(options.photographs.glob("*.jpg")))
        print(f"Loading a photograph of {size / 1e6:.2f} MB: {1e3 * seconds:.1f} ms of one core.")


def measure(folder: Path, sizes: list[int]) -> list[tuple[int, float, list[float]]]:
    """Images, size on disk in GB, and seconds of a search for 1 and for 16 phrases."""
    rows = []
    n_shards = 0
    for size in sorted(sizes):
        shards = range(n_shards, size // SHARD)
        blocks = (random_factors(SHARD, IMAGE_TOKENS, seed) for seed in tqdm(shards, unit="file"))
        store(folder, blocks, "float16", "a", n_shards)
        n_shards = size // SHARD
        index = FactorIndex(folder, verify=False)
        times = [_seconds(index, random_factors(n, 1, -1).values[:, 0]) for n in N_PHRASES]
        gigabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e9
        rows.append((len(index), gigabytes, times))
    return rows


def _seconds(index: FactorIndex, phrases: torch.Tensor, repeats: int = 5) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        top_regions(index, phrases, 10)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def operations_of_an_image(n_images: int = 16) -> tuple[float, float]:
    """Operations of an image's factors (last block, ten steps, in a batch) and of its encoding."""
    wrapper = wrapped("B/32")
    pixels, _ = inputs_of("B/32", 12, n_images)
    explainer = SecondOrderIntegratedGradients(wrapper)
    factors = operations(lambda: explainer.factors_a(pixels, n_steps=10))
    return factors / n_images, operations(lambda: wrapper.encode_a(pixels)) / n_images


def loading(paths: list[Path]) -> tuple[float, float]:
    """Median CPU seconds to read, decode and resize a photograph for CLIP; mean size in bytes."""
    processor = CLIPImageProcessorPil()
    times = []
    for path in paths:
        start = time.process_time()
        process_images(processor, load_images([path]))
        times.append(time.process_time() - start)
    return statistics.median(times), statistics.mean(path.stat().st_size for path in paths)


def table(rows: list[tuple[int, float, list[float]]]) -> str:
    """The measurements, and the line through them."""
    lines = ["| images | files, GB | 1 phrase, s | 16 phrases, s |", "|---|---|---|---|"]
    for count, gigabytes, times in rows:
        lines.append(f"| {count:,} | {gigabytes:.1f} | {times[0]:.2f} | {times[1]:.2f} |")
    counts = np.array([row[0] for row in rows])
    lines.append(f"| {MANY:,} (extrapolated) | {rows[-1][1] / counts[-1] * MANY:.0f} ")
    for place in range(len(N_PHRASES)):
        slope, offset = np.polyfit(counts, [row[2][place] for row in rows], 1)
        lines[-1] += f"| {slope * MANY + offset:.1f} "
    lines[-1] += "|"
    return "\n".join(lines)


if __name__ == "__main__":
    main()
