"""Rows of numbers on disk by key: appended, never changed, memory-mapped, shared by processes and
machines.

A folder holds shards, a pair of files each: `<shard>.keys` (32 bytes of key and a checksum of the
row) and `<shard>.rows` (the numbers). A row is written before its key, so that a process may be
killed at any moment: what has no key is not there, and the next append writes over it. Under
torchrun each process writes a shard of its own; everybody reads all of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock

from ..errors import VwsdError
from .streams import rank

SHARD = 1 << 40
KEY = np.dtype([("key", "V32"), ("check", "<u4")])
REMEDY = "Free some space, or delete this folder: what it holds will be computed again."


class Rows:
    """Rows [dim] of one type by 32-byte keys in `folder`."""

    def __init__(self, folder: Path, dim: int, dtype: np.dtype | type = np.float32):
        self.folder, self.dim, self.dtype = Path(folder), dim, np.dtype(dtype)
        self._index: dict[bytes, int] = {}  # key -> its place: shard * SHARD + row
        self._shards: list[Path] = []
        self._read: list[int] = []  # rows of each shard that are in the index

    def missing(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those of the keys that no shard has, each once, in order."""
        self._refresh()
        return [key for key in dict.fromkeys(keys) if key not in self._index]

    def take(self, keys: Sequence[bytes]) -> np.ndarray:
        """[n, dim]: the rows of these keys, which are all there (`missing`); VwsdError where a row
        is not as it was written.
        """
        rows = np.empty((len(keys), self.dim), self.dtype)
        shards, places = np.divmod(
            np.fromiter((self._index[key] for key in keys), np.int64, len(keys)), SHARD
        )
        for shard in np.unique(shards).tolist():
            where, path = np.flatnonzero(shards == shard), self._shards[shard]
            try:
                checks = np.memmap(path, KEY, "r")["check"][places[where]].tolist()
                rows[where] = np.memmap(
                    path.with_suffix(".rows"), self.dtype, "r", shape=(self._read[shard], self.dim)
                )[places[where]]
            except (OSError, ValueError, IndexError) as e:
                raise VwsdError(
                    f"stored rows cannot be read: {e}", where=path, remedy=REMEDY
                ) from e
            if any(zlib.crc32(rows[i]) != check for i, check in zip(where, checks)):
                raise VwsdError("stored rows are damaged", where=path, remedy=REMEDY)
        return rows

    def append(self, keys: Sequence[bytes], rows: np.ndarray) -> None:
        """Write rows [n, dim] under these keys, all or the first few of them if killed; VwsdError
        where the disk is full.
        """
        rows = np.ascontiguousarray(rows, self.dtype)
        notes = np.array([(key, zlib.crc32(row)) for key, row in zip(keys, rows)], KEY)
        path = self.folder / f"{rank()[0]:05d}.keys"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (
                FileLock(path.with_suffix(".lock")),
                open(path, "ab") as noted,
                open(path.with_suffix(".rows"), "ab") as written,
            ):
                whole = min(noted.tell() // KEY.itemsize, written.tell() // self._row_bytes)
                for file, size, content in (
                    (written, self._row_bytes, rows),
                    (noted, KEY.itemsize, notes),
                ):
                    file.truncate(whole * size)  # what a killed process left half
                    file.write(content.tobytes())
                    file.flush()
        except OSError as e:
            raise VwsdError(
                f"the store cannot be written: {e.strerror or e}", where=self.folder, remedy=REMEDY
            ) from e

    @property
    def _row_bytes(self) -> int:
        return self.dim * self.dtype.itemsize

    def _refresh(self) -> None:
        """Take in what was appended since, by whomever."""
        for path in sorted(self.folder.glob("*.keys")):
            if path not in self._shards:
                self._shards.append(path)
                self._read.append(0)
            shard = self._shards.index(path)
            rows = path.with_suffix(".rows")
            whole = min(
                path.stat().st_size // KEY.itemsize,
                rows.stat().st_size // self._row_bytes if rows.exists() else 0,
            )
            if whole > (start := self._read[shard]):
                keys = np.fromfile(path, KEY, whole - start, offset=start * KEY.itemsize)[
                    "key"
                ].tolist()
                self._index |= {
                    key: shard * SHARD + place
                    for place, key in enumerate(keys, start)
                    if key not in self._index
                }
                self._read[shard] = whole
