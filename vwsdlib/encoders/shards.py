"""Rows of numbers on disk by key: appended, never changed, memory-mapped, shared by processes and
machines.

A folder holds shards, a pair of files each: `<shard>.keys` (32 bytes of key and a checksum of the
row) and `<shard>.rows` (the numbers). A row is written before its key, so that a process may be
killed at any moment: what has no key is not there, and the next append writes over it. Under
torchrun each process writes a shard of its own; everybody reads all of them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from ..errors import VwsdError
from ..paths import cache_dir, quiet, sha256_bytes, write_text
from ..progress import tqdm
from .streams import rank

Batch = tuple[Sequence[bytes], np.ndarray]  # keys, rows
SHARD = 1 << 40
KEY = np.dtype([("key", "V32"), ("check", "<u4")])
REMEDY = "Free some space, or delete this folder: what it holds will be computed again."


def row_key(kind: str, digest: str) -> bytes:
    """Under what a row is kept: 32 bytes of what it was made from."""
    return bytes.fromhex(sha256_bytes(f"{kind}:{digest}".encode()))


class Rows:
    """Rows [dim] of one type by 32-byte keys in `folder`."""

    def __init__(self, folder: Path, dim: int, dtype: np.dtype | type = np.float32):
        self.folder, self.dim, self.dtype = Path(folder), dim, np.dtype(dtype)
        self._row_bytes = dim * self.dtype.itemsize
        self._index: dict[bytes, int] = {}  # key -> its place: shard * SHARD + row
        self._read: dict[Path, int] = {}  # rows of each shard that are in the index

    def __len__(self) -> int:
        """How many rows there were when one was last asked for."""
        return len(self._index)

    def missing(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those of the keys that no shard has, each once, in order."""
        self.refresh()
        return [key for key in dict.fromkeys(keys) if key not in self._index]

    def take(self, keys: Sequence[bytes]) -> np.ndarray:
        """[n, dim]: the rows of these keys, which are all there (`missing`); VwsdError where a row
        is not as it was written.
        """
        rows = np.empty((len(keys), self.dim), self.dtype)
        places = np.fromiter((self._index[key] for key in keys), np.int64, len(keys))
        shards, places = np.divmod(places, SHARD)
        paths = list(self._read)
        for shard in np.unique(shards).tolist():
            where = np.flatnonzero(shards == shard)
            rows[where] = self._taken(paths[shard], places[where])
        return rows

    def _taken(self, path: Path, places: np.ndarray) -> np.ndarray:
        """[n, dim]: the rows at these places of one shard."""
        shape, numbers = (self._read[path], self.dim), path.with_suffix(".rows")
        try:
            checks = np.memmap(path, KEY, "r")["check"][places].tolist()
            rows = np.memmap(numbers, self.dtype, "r", shape=shape)[places]
        except (OSError, ValueError, IndexError) as e:
            raise VwsdError(f"stored rows cannot be read: {e}", where=path, remedy=REMEDY) from e
        if any(zlib.crc32(row) != check for row, check in zip(rows, checks)):
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
                sizes = self._row_bytes, KEY.itemsize
                for file, size, content in zip((written, noted), sizes, (rows, notes)):
                    file.truncate(whole * size)  # what a killed process left half
                    file.write(content.tobytes())
                    file.flush()
        except OSError as e:
            raise VwsdError(
                f"the store cannot be written: {e.strerror or e}", where=self.folder, remedy=REMEDY
            ) from e

    def refresh(self) -> None:
        """Take in what was appended since, by whomever."""
        for path in sorted(self.folder.glob("*.keys")):
            start, rows = self._read.setdefault(path, 0), path.with_suffix(".rows")
            written = rows.stat().st_size // self._row_bytes if rows.exists() else 0
            whole = min(path.stat().st_size // KEY.itemsize, written)
            if whole > start:
                notes = np.fromfile(path, KEY, whole - start, offset=start * KEY.itemsize)
                first = list(self._read).index(path) * SHARD + start
                for place, key in enumerate(notes["key"].tolist(), first):
                    self._index.setdefault(key, place)
                self._read[path] = whole


class KeptRows(Rows):
    """Rows of one maker (an encoder, a segmenter, a frozen part), computed where they are missing.

    Their folder, below `folder` (default `<cache>/vectors`), has its name from the maker's and the
    hash of its `identity`: all that decides a row. batch: how many rows are made at once.
    """

    def __init__(
        self,
        name: str,
        identity: dict,
        dim: int,
        batch: int,
        dtype: np.dtype | type = np.float32,
        folder: Path | None = None,
    ):
        self.name, self.batch = name, batch
        self._about = json.dumps(identity, sort_keys=True, indent=1)
        place = f"{name}-{sha256_bytes(self._about.encode())[:16]}"
        super().__init__(Path(folder or cache_dir() / "vectors") / place, dim, dtype)

    def of(
        self,
        keys: Sequence[bytes],
        sources: Mapping[bytes, Any],
        made: Callable[[dict[bytes, Any]], Iterator[Batch]],
        unit: str,
    ) -> np.ndarray:
        """[n, dim] by keys; `made` gives batches for the missing ones of `sources` (key -> what its
        row is of). unit: what the bar counts.
        """
        missing = {key: sources[key] for key in self.missing(keys)}
        self.fill(made(missing), len(missing), unit)
        return self.take(keys)

    def fill(self, batches: Iterator[Batch], total: int, unit: str) -> None:
        """Keep `total` rows that come in batches, with a bar on stderr where they are many;
        VwsdError where they are no numbers or of another size.
        """
        if not total:
            return
        about = self.folder / "identity.json"
        if not about.exists():
            write_text(about, self._about + "\n")
        number, processes = rank()
        share = f", process {number + 1} of {processes}" if processes > 1 else ""
        with tqdm(
            total=total,
            desc=f"{self.name}: {unit}{share}",
            unit=f" {unit}",
            leave=False,
            disable=True if total <= 2 * self.batch else quiet(),
            position=number,
        ) as bar:
            for keys, rows in batches:
                self._check(rows, len(keys))
                self.append(keys, rows)
                bar.update(len(keys))
        self.refresh()

    def _check(self, rows: np.ndarray, n: int) -> None:
        if rows.shape != (n, self.dim) or not np.isfinite(rows).all():
            raise VwsdError(
                f"the encoder gave {rows.shape} values or values that are no numbers, ({n},"
                f" {self.dim}) expected",
                where=self.name,
                remedy="This is a fault of the encoder; nothing of this batch was stored.",
            )
