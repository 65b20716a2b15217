"""Time, peak memory and operations of a call, and what the machine can do at best."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Call = Callable[[], object]
Result = TypeVar("Result")


def seconds(run: Call, repeats: int) -> float:
    """Median time of a call; a first, unmeasured one warms up unless there is only one."""
    if repeats > 1:
        run()
    return statistics.median(_once(run) for _ in range(repeats))


def fastest(*runs: Call, repeats: int = 5, limit: float = 60.0) -> list[float]:
    """Shortest times of several calls that take turns, so that they share what disturbs them.

    Each is called once before, unless it takes too long for that.

    Args:
        runs: The calls.
        repeats (int): Number of turns. Default: 5
        limit (float): No further turn once these many seconds are over. Default: 60
    """
    began = time.perf_counter()
    best = [_once(run) for run in runs]
    for turn in range(repeats):
        if time.perf_counter() - began > limit:
            break
        times = [_once(run) for run in runs]
        best = times if turn == 0 else [min(pair) for pair in zip(best, times, strict=True)]
    return best


def _once(run: Call) -> float:
    synchronise()
    start = time.perf_counter()
    run()
    synchronise()
    return time.perf_counter() - start


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def operations(run: Call) -> int:
    """Floating-point operations of the matrix products of a call, by PyTorch's formulas."""
    return counted(run)[1]


def counted(run: Callable[[], Result]) -> tuple[Result, int]:
    """What a call returns, and its :func:`operations`."""
    with _Counter() as counter:
        result = run()
    return result, counter.total


class _Counter(TorchDispatchMode):
    """As ``FlopCounterMode``, whose hooks on modules do not bear a backward pass inside."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def large_product(
    device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, size: int = 2048
) -> tuple[Call, float]:
    """A large matrix product, whose rate is the machine's, and its number of operations."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return lambda: a @ b, 2.0 * size**3


def matmul_rate(
    device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, size: int = 2048
) -> float:
    """Floating-point operations a second of a large matrix product, the best of several."""
    product, work = large_product(device, dtype, size)
    (best,) = fastest(product, repeats=7)
    return work / best


def reset_peak_mb() -> float:
    """Let the process's peak memory begin at what it holds now (Linux), and return that."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory_mb("VmRSS")


def memory_mb(field: str) -> float:
    """A field of the process's memory, such as its peak ``VmHWM``."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {field}")


def in_fresh_process(module: str, arguments: Sequence[object], n_threads: int) -> dict[str, Any]:
    """What ``python -m module ...`` prints as its last line, a JSON object."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(n_threads)}
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


class Results:
    """Measurements by name, in a JSON file that grows as they are taken."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, dict[str, Any]] = {}
        if path.exists():
            self.values = json.loads(path.read_text())

    def get(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A measurement; it is taken if the file does not hold it yet."""
        if name not in self.values:
            self.values[name] = measure()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.values, indent=1) + "\n")
        return self.values[name]
