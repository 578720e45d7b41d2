"""The machine: what it is, what its matrix products reach at most, and how much memory a tree of processes holds."""

from __future__ import annotations

import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from vwsdlib.results.predictions import versions

FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "asimd", "bf16")
SIDES, REPEATS = (2048, 4096), 3
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict:
    """Processor, cores, memory (GB), instructions that matter here, versions."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.M)
    flags = set(re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.M).group(1).split()) if cpuinfo else set()
    return {"processor": model.group(1).strip() if model else platform.processor() or platform.machine(), "cores": cores(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1), "system": platform.system(),
            "instructions": [flag for flag in FLAGS if flag in flags], "torch_threads": torch.get_num_threads(),
            "versions": versions() | {"python": platform.python_version()}}


def slug(machine: dict) -> str:
    """The machine's name as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", f"{machine['processor']} {machine['cores']} cores".lower()).strip("-")


def peak(dtype: str) -> float:
    """GFLOP/s of the fastest square product seen: all threads on one, or every core on one of its own."""
    return max(ways(side, DTYPES[dtype]) for side in SIDES for ways in (_together, _side_by_side))


def _operands(side: int, dtype: torch.dtype) -> list[torch.Tensor]:
    return [torch.randn(side, side).to(dtype) for _ in range(2)]


def _together(side: int, dtype: torch.dtype) -> float:
    a, b = _operands(side, dtype)
    return 2e-9 * side**3 / min(_timed(lambda: a @ b) for _ in range(REPEATS + 1))


def _side_by_side(side: int, dtype: torch.dtype) -> float:
    """Best of several rounds in which every core does one product of its own."""
    n, barrier = cores(), threading.Barrier(cores())

    def work(_) -> list[tuple[float, float]]:
        torch.set_num_threads(1)                            # of this thread
        a, b = _operands(side, dtype)
        spans = []
        for _ in range(REPEATS + 1):
            barrier.wait()
            start = time.perf_counter()
            a @ b
            spans.append((start, time.perf_counter()))
        return spans

    with ThreadPoolExecutor(n) as pool:
        rounds = list(zip(*pool.map(work, range(n))))
    return 2e-9 * side**3 * n / min(max(end for _, end in spans) - min(start for start, _ in spans) for spans in rounds)


def _timed(function: Callable) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def descendants(pid: int) -> Iterator[int]:
    """A process and all below it (Linux)."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:                                     # it ended meanwhile
            continue
        for child in children:
            yield from descendants(int(child))


def memory(pid: int) -> float:
    """MB that a process and its descendants hold, shared pages by share (PSS); 0 where the system does not tell."""
    total = 0
    for each in descendants(pid):
        try:
            found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{each}/smaps_rollup").read_text(), re.M)
        except OSError:                                     # it ended meanwhile, or this is no Linux
            continue
        total += int(found.group(1)) if found else 0
    return total * 1024 / 1e6
