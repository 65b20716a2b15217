"""Number of rows that fit into memory when a function is differentiated."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

_CPU_LIMIT = 2**30
"""Budget on a CPU; more is not faster."""
_UNKNOWN = 2**30
"""Budget if the free memory is unknown."""
_OWN_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
_GRAPHS = 3
"""A backward pass with ``create_graph`` needs about twice the memory of the forward pass more."""


def memory_budget(device: torch.device) -> int:
    """Memory budget of activations, in bytes.

    It is half of the free memory of a GPU, or a quarter of the memory available to a CPU but at
    most 1 GiB. Limits of control groups, which containers and batch systems set, are respected.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # Memory that the allocator has reserved but does not use is free, too.
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (free + idle) // 2
    if device.type != "cpu":
        return _UNKNOWN
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return _UNKNOWN
    return min(available * 1024 // 4, _left_in_containers() // 4, _CPU_LIMIT)


def _left_in_containers() -> int:
    """Bytes left under the lowest limit of the control groups of this process."""
    try:
        lines = _OWN_GROUP.read_text().splitlines()
    except OSError:
        return sys.maxsize
    left = sys.maxsize
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            root, limit, usage = _GROUPS, "memory.max", "memory.current"
            cache = "inactive_file "
        elif "memory" in controllers.split(","):
            root = _GROUPS / "memory"
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file "
        else:
            continue
        # In a container, the path may be that of the host; then only the root exists.
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            with suppress(OSError, ValueError):
                rest = int((folder / limit).read_text()) - int((folder / usage).read_text())
                stated = (folder / "memory.stat").read_text().splitlines()
                # Cached files can be evicted.
                rest += sum(int(s.split()[1]) for s in stated if s.startswith(cache))
                left = min(left, max(rest, 0))
            if folder == root:
                break
    return left


def rows_that_fit(run: Callable[[], Tensor], budget: int) -> int:
    """Number of rows per call of a function, from the tensors that autograd saves for one row.

    Args:
        run (Callable): Runs the function on one row, with gradients.
        budget (int): Memory budget in bytes.

    Returns:
        int: at least 1.
    """
    sizes: dict[int, int] = {}
    saved: dict[int, set[tuple[int, int, torch.Size]]] = defaultdict(set)

    def count(tensor: Tensor) -> Tensor:
        # Weights, and the tensors that they are views of, exist anyway.
        if not isinstance(tensor if tensor._base is None else tensor._base, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            view = (tensor.numel() * tensor.element_size(), tensor.data_ptr(), tensor.shape)
            saved[storage.data_ptr()].add(view)
        # An operation that saves its own output would be in a reference cycle that is never freed.
        return tensor.detach()

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        run()
    # Tensors that share a storage count once; of a storage of all rows, only this row counts.
    n_bytes = sum(min(sizes[key], sum(view[0] for view in views)) for key, views in saved.items())
    return max(1, budget // max(1, _GRAPHS * n_bytes))
