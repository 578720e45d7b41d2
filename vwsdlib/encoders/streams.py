"""The work of encoding spread over cores: pictures are read and shrunk in worker processes, batches go through the network side by side.

A batch has one thread and one shape, so that a row's bits depend neither on how many cores there are nor on what is encoded alongside.
One thread a batch is also the faster way: threads that share a batch wait for each other.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor


def rank() -> tuple[int, int]:
    """(number of this process, how many there are) under torchrun or accelerate; (0, 1) otherwise."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def cores() -> int:
    """Cores for this process: those it may use, shared with the other processes that torchrun or accelerate started on this machine."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def side_by_side(function: Callable, batches: Iterable, streams: int = 0) -> Iterator:
    """`function` of each batch, in order, in `streams` threads (0: one a core) with one torch thread each; few batches wait at a time."""
    import torch

    streams, before, waiting = streams or cores(), torch.get_num_threads(), deque()
    with ThreadPoolExecutor(streams, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for batch in batches:
                waiting.append(pool.submit(function, batch))
                if len(waiting) > streams:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            torch.set_num_threads(before)                                             # the matrix library has one number for all threads
