"""The work of encoding spread over cores: pictures are read and shrunk in worker processes, batches
go through the network side by side.

A batch has one thread and one shape, so that a row's bits depend neither on how many cores there
are nor on what is encoded alongside. One thread a batch is also the faster way: threads that share
a batch wait for each other.
"""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.pictures import Square, decode, from_bytes, read_bytes
from ..data.sources import Place
from ..errors import VwsdError, first_line
from ..paths import sha256_bytes
from ..processes import end_with

MALLOC = {-3: 1 << 25, -1: 1 << 29}  # glibc's M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, in bytes
# of 16 MB, that Pillow keeps in a worker for the next picture instead of asking the system again
KEPT_BLOCKS = 4
AHEAD = 4  # batches that each worker may be ahead of the network
SHARED = Path("/dev/shm")  # what Linux processes share goes by here; a container may have 64 MB


def rank() -> tuple[int, int]:
    """(number of this process, how many there are) under torchrun or accelerate; (0, 1) otherwise.

    VwsdError where RANK or WORLD_SIZE is set to what can be neither.
    """
    number, processes = _whole_number("RANK", 0, 0), _whole_number("WORLD_SIZE", 1, 1)
    if number >= processes:
        raise VwsdError(
            f"RANK is {number} and WORLD_SIZE {processes}: processes are counted from 0",
            where="environment",
            remedy="Start them with torchrun or accelerate launch, or unset both.",
        )
    return number, processes


def _whole_number(variable: str, default: int, least: int) -> int:
    """A variable of the environment that torchrun sets."""
    text = os.environ.get(variable)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise VwsdError(
            f"{variable} is {text!r}, a whole number of at least {least} is expected",
            where="environment",
            remedy="Start processes with torchrun or accelerate launch, or unset it.",
        )
    return int(text)


def cores() -> int:
    """Cores for this process: those it may use, shared with the other processes that torchrun or
    accelerate started on this machine.
    """
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    else:
        usable = os.cpu_count() or 1
    return max(1, usable // _whole_number("LOCAL_WORLD_SIZE", 1, 1))


@cache
def keep_memory() -> None:
    """Have glibc keep freed memory for the next batch, as long as this process lives; nothing
    happens elsewhere.

    By default each large tensor is asked from the system and given back, page by page: up to a
    quarter of an encoder's time (benchmarks/).
    """
    if os.name != "posix":
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return
    for option, value in MALLOC.items():
        set_option(option, value)


def side_by_side(function: Callable, batches: Iterable, streams: int = 0) -> Iterator:
    """`function` of each batch, in order, in `streams` threads (0: one a core) with one torch
    thread each; few batches wait at a time.
    """
    import torch

    keep_memory()
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
            torch.set_num_threads(before)  # the matrix library has one number for all threads


@dataclass(frozen=True)
class OnDemand(Sequence):
    """`n` things, each made by `make(number)` when it is asked for and not kept: of pieces of large
    pictures, few fit in memory.
    """

    make: Callable[[int], object]
    n: int

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, which: int | slice):
        if isinstance(which, slice):
            return [self.make(i) for i in range(self.n)[which]]
        return self.make(range(self.n)[which])


@dataclass(frozen=True)
class _Pictures:
    """What worker processes do with a batch of places: (hashes of the files, squares [n, side,
    side, 3]), or the VwsdError of one that is no picture. shared: squares as a tensor, which torch
    hands over through shared memory; an array goes through a pipe.
    """

    square: Square
    truncated: str
    shared: bool = False

    def __getitem__(self, places: Sequence[Place]) -> tuple[list[str], Any] | VwsdError:
        side, hashes = self.square.side, []
        squares = np.empty((len(places), side, side, 3), np.uint8)
        try:
            for at, place in zip(squares, places):  # one large picture in memory at a time
                made = from_bytes(read_bytes(place), place, self.truncated, self.square.enough)
                hashes.append(made.sha256)
                at[:] = self.square(made.image)
        except VwsdError as e:
            return e
        if not self.shared:
            return hashes, squares
        import torch

        return hashes, torch.from_numpy(squares)


@dataclass(frozen=True)
class _Decisions:
    """What worker processes do with a batch of places for `decisions`."""

    truncated: str

    def __getitem__(self, places: Sequence[Place]) -> list[tuple[str, ...]] | VwsdError:
        try:
            read = (from_bytes(read_bytes(place), place, self.truncated) for place in places)
            return [picture.decisions for picture in read]  # one picture in memory at a time
        except VwsdError as e:
            return e


class _Conditions:
    """What worker processes do with a batch of places for `conditions`."""

    def __getitem__(self, places: Sequence[Place]) -> tuple[list[str], np.ndarray] | VwsdError:
        hashes, codes = [], np.empty((len(places), 1), np.uint8)
        try:
            for at, place in zip(codes, places):
                data = read_bytes(place)
                hashes.append(sha256_bytes(data))
                at[:] = _condition(data)
            return hashes, codes
        except VwsdError as e:
            return e


def _condition(data: bytes) -> int:
    try:
        return int("truncated" in decode(data)[1])
    except VwsdError:
        return 2


def conditions(places: Sequence[Place], size: int = 16) -> Iterator[tuple[list[str], np.ndarray]]:
    """Batches of pictures, in order: (SHA-256 of each file, uint8 [n, 1]): 0 where it decodes
    whole, 1 where it is cut short, 2 where it is no picture. VwsdError for one that cannot be
    opened.
    """
    yield from _by_workers(_Conditions(), places, size)


def decisions(
    places: Sequence[Place], truncated: str = "error", size: int = 16
) -> list[tuple[str, ...]]:
    """The DECISIONS that the loader takes for each picture, all read and decoded once more;
    VwsdError as of `squares`.
    """
    return list(chain.from_iterable(_by_workers(_Decisions(truncated), places, size)))


def _worker_starts(parent: int, number: int) -> None:
    end_with(parent)
    gc.freeze()  # what came with the fork stays shared: a collection would write to all of it
    Image.core.set_blocks_max(KEPT_BLOCKS)


def squares(
    places: Sequence[Place],
    square: Square,
    size: int,
    truncated: str = "error",
    device: str = "cpu",
) -> Iterator[tuple[list[str], Sequence]]:
    """Batches of `size` pictures, in order: (SHA-256 of each file, uint8 [n, side, side, 3]).

    Each file is read and decoded once, in worker processes where there are more than a few; they
    end with this one, even if it is killed. They are at most AHEAD batches each ahead of who takes
    them. For a network on CUDA the squares are tensors in pinned memory, from where a copy to the
    card keeps nobody waiting. Raises VwsdError for a picture that cannot be read, after all batches
    before it.
    """
    pinned = device.startswith("cuda")
    waiting = size * square.side**2 * 3 * AHEAD * cores()  # bytes
    work = _Pictures(square, truncated, shared=pinned and _shared_memory() > 2 * waiting)
    yield from _by_workers(work, places, size, pin_memory=pinned)


def _shared_memory() -> int:
    """Bytes that processes may share here; a worker that wants more is killed."""
    return shutil.disk_usage(SHARED).free if SHARED.is_dir() else 0


def _by_workers(work, places: Sequence[Place], size: int, **options) -> Iterator:
    """`work[places]` of batches of `size` places, in order, in worker processes where there are
    more than a few; a VwsdError that it gives is raised. options: of torch's DataLoader.
    """
    from torch.utils.data import DataLoader

    # sent to the workers one by one: they hold no list
    batches = [places[start : start + size] for start in range(0, len(places), size)]
    workers = min(cores(), len(batches)) if len(batches) > 2 else 0
    options |= {"batch_size": None, "sampler": batches, "collate_fn": _as_they_are}
    if workers:
        begin = partial(_worker_starts, os.getpid())
        options |= {"num_workers": workers, "prefetch_factor": AHEAD, "worker_init_fn": begin}
    stream = iter(DataLoader(work, **options))
    while True:
        try:
            made = next(stream, None)
        except RuntimeError as e:  # how torch says that a worker died
            raise VwsdError(
                f"a process that reads pictures ended early: {first_line(e)}",
                where=places[0],
                remedy="Perhaps memory ran out; what was encoded is kept, run it again to go on.",
            ) from e
        if made is None:
            return
        if isinstance(made, VwsdError):
            raise made
        yield made


def _as_they_are(made):
    return made
