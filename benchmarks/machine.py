"""The machine: what it is, what its matrix products reach at most, and how much memory a tree of
processes holds.
"""

from __future__ import annotations

import os
import platform
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import torch

from vwsd_companion.facts.fact import versions
from vwsdlib.encoders.streams import cores

FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "asimd", "bf16")
SIDES, REPEATS = (2048, 4096), 3
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def describe() -> dict:
    """Processor, cores, memory (GB), instructions that matter here, versions."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.M)
    flags = (
        set(re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.M).group(1).split())
        if cpuinfo
        else set()
    )
    return {
        "processor": (
            model.group(1).strip() if model else platform.processor() or platform.machine()
        ),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.system(),
        "instructions": [flag for flag in FLAGS if flag in flags],
        "torch_threads": torch.get_num_threads(),
        "versions": versions() | {"python": platform.python_version()},
    }


def slug(machine: dict) -> str:
    """The machine's name as part of a file name."""
    return re.sub(
        r"[^a-z0-9]+", "-", f"{machine['processor']} {machine['cores']} cores".lower()
    ).strip("-")


def peak(dtype: str) -> float:
    """GFLOP/s of the fastest square product seen: all threads on one, or every core on one of its
    own.
    """
    return max(ways(side, DTYPES[dtype]) for side in SIDES for ways in (_together, _side_by_side))


def _rounds(
    side: int, dtype: torch.dtype, before: Callable = lambda: None
) -> list[tuple[float, float]]:
    """(start, end) of several products, the first of which warms up."""
    (a, b), spans = (torch.randn(side, side).to(dtype) for _ in range(2)), []
    for _ in range(REPEATS + 1):
        before()
        start = time.perf_counter()
        a @ b
        spans.append((start, time.perf_counter()))
    return spans


def _together(side: int, dtype: torch.dtype) -> float:
    return 2e-9 * side**3 / min(end - start for start, end in _rounds(side, dtype))


def _side_by_side(side: int, dtype: torch.dtype) -> float:
    """The round in which every core does one product of its own and the last is done first."""
    n, barrier = cores(), threading.Barrier(cores())
    with ThreadPoolExecutor(
        n, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:  # one thread each
        spans = zip(*pool.map(lambda _: _rounds(side, dtype, barrier.wait), range(n)))
        return (
            2e-9
            * side**3
            * n
            / min(max(end for _, end in each) - min(start for start, _ in each) for each in spans)
        )


def memory(pid: int) -> float:
    """MB that a process and all below it hold; shared pages by share (PSS) where the system
    tells."""
    total = 0
    try:
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            held = each.memory_full_info()
            total += getattr(held, "pss", held.uss)
    except psutil.NoSuchProcess:  # one ended meanwhile: the next sample will do
        return 0.0
    return total / 1e6
