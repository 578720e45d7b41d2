"""The work of encoding spread over cores: pictures are read and shrunk in worker processes, batches go through the network side by side.

A batch has one thread and one shape, so that a row's bits depend neither on how many cores there are nor on what is encoded alongside.
One thread a batch is also the faster way: threads that share a batch wait for each other.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..data.pictures import Square, from_bytes, read_bytes
from ..data.sources import Place
from ..errors import VwsdError


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


class _Pictures:
    """What worker processes do, batch by batch: (hashes of the files, squares [n, side, side, 3]), or the VwsdError of one that is no picture."""

    def __init__(self, places: Sequence[Place], square: Square, truncated: str, size: int):
        self.places, self.square, self.truncated, self.size = places, square, truncated, size

    def __len__(self) -> int:
        return -(-len(self.places) // self.size)

    def __getitem__(self, number: int) -> tuple[list[str], np.ndarray] | VwsdError:
        try:
            made = [from_bytes(read_bytes(p), p, self.truncated, self.square.enough) for p in self.places[number * self.size:(number + 1) * self.size]]
            return [p.sha256 for p in made], np.stack([self.square(p.image) for p in made])
        except VwsdError as e:
            return e


def squares(places: Sequence[Place], square: Square, size: int, truncated: str = "error") -> Iterator[tuple[list[str], np.ndarray]]:
    """Batches of `size` pictures, in order: (SHA-256 of each file, uint8 [n, side, side, 3]).

    Each file is read and decoded once, in worker processes where there are more than a few; they end with this one, even if it is
    killed. Raises VwsdError for a picture that cannot be read, after all batches before it.
    """
    from torch.utils.data import DataLoader

    batches = _Pictures(places, square, truncated, size)
    workers = min(cores(), len(batches)) if len(batches) > 2 else 0
    stream = iter(DataLoader(batches, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None, collate_fn=_as_they_are))
    while True:
        try:
            made = next(stream, None)
        except RuntimeError as e:                                                     # how torch says that a worker died
            raise VwsdError(f"a process that reads pictures ended early: {str(e).splitlines()[0]}", where=places[0],
                            remedy="Perhaps memory ran out; what was encoded is kept, run it again to go on.") from e
        if made is None:
            return
        if isinstance(made, VwsdError):
            raise made
        yield made


def _as_they_are(made):
    return made
