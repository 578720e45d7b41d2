"""Rows of picture files: each distinct content is read, decoded and looked at once, under whatever
names it comes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..data.pictures import load_picture, read_bytes
from ..data.places import CutShort
from ..data.sources import Place, lasting, reading_order, remote, stamp
from ..paths import sha256_bytes
from .shards import Batch, KeptRows, Rows, row_key

# places -> batches of (SHA-256 of each file, what was read of each)
Reader = Callable[[list[Place]], Iterator[tuple[list[str], Sequence]]]
# batches of (keys, what was read of each) -> batches of (keys, rows)
Looker = Callable[[Iterator[tuple[list[bytes], Sequence]]], Iterator[Batch]]


class FileDigests:
    """SHA-256 of the bytes at a place: read once, then remembered under its path and
    `sources.stamp`.
    """

    def __init__(self, folder: Path):
        self._rows = Rows(folder, 32, np.uint8)

    def of(self, places: Sequence[Place]) -> list[str]:
        """Hex SHA-256 of the bytes at each place."""
        keys = self.look(places)
        known = dict(zip(keys, self.known(list(keys.values()))))
        fresh = {
            place: sha256_bytes(read_bytes(place))
            for place, digest in known.items()
            if digest is None
        }
        self.remember([keys[place] for place in fresh], list(fresh.values()))
        return [known[place] or fresh[place] for place in places]

    def look(self, places: Iterable[Place]) -> dict[Place, bytes]:
        """Each place once with its key, before it is read: a change meanwhile shows later. Files
        that may change again unseen are hashed anew.
        """
        keys = {}
        for place in dict.fromkeys(places):
            state = _state(place)
            name = str(place) if remote(place) else os.path.abspath(place)
            keys[place] = row_key(name, state)
            if not lasting(state):
                self.remember([keys[place]], [sha256_bytes(read_bytes(place))])
        return keys

    def known(self, keys: Sequence[bytes]) -> list[str | None]:
        """The digest under each key of `look`; None where none is remembered."""
        absent = set(self._rows.missing(keys))
        known = [key for key in dict.fromkeys(keys) if key not in absent]
        digests = dict(zip(known, (row.tobytes().hex() for row in self._rows.take(known))))
        return [digests.get(key) for key in keys]

    def remember(self, keys: Sequence[bytes], digests: Sequence[str]) -> None:
        """Keep the digests under these keys."""
        if keys:
            rows = np.frombuffer(bytes.fromhex("".join(digests)), np.uint8)
            self._rows.append(keys, rows.reshape(-1, 32))


def _state(place: Place) -> str:
    try:
        return stamp(place)
    except OSError:
        # raises the sentence that names the file and, where only the case differs, the right name
        load_picture(place)
        raise


class PictureRows:
    """A maker's rows of picture files. `read` brings them, in batches and in order, and `look`
    turns what it brought into rows.

    truncated: "error" or "keep" (a cut-off file's upper part is looked at, as it is of a
    `places.CutShort`); a row that was let through once does not pass later where it must not.
    """

    def __init__(self, rows: KeptRows, read: Reader, look: Looker, truncated: str = "error"):
        self.rows, self.read, self.look, self.truncated = rows, read, look, truncated
        self.digests = FileDigests(rows.folder.parent / "files")

    def of(self, places: Sequence[Place]) -> np.ndarray:
        """[n, dim], one a place; VwsdError names one that cannot be read."""
        keys = self.digests.look(places)
        self._fill(keys)
        digests = self.digests.known([keys[place] for place in places])
        return self.rows.take(list(map(self._key, digests, places)))

    def fill(self, places: Iterable[Place]) -> int:
        """Make the rows that are missing; how many there were to make."""
        return self._fill(self.digests.look(places))

    def _fill(self, keys: dict[Place, bytes]) -> int:
        digests = dict(zip(keys, self.digests.known(list(keys.values()))))
        stored = {p: self._key(digest, p) for p, digest in digests.items() if digest}
        absent = set(self.rows.missing(list(stored.values())))
        wanted = [p for p in digests if p not in stored or stored[p] in absent]
        missing = {place: keys[place] for place in sorted(wanted, key=reading_order)}
        self.rows.fill(self.look(self._new(missing)), len(missing), "pictures")
        return len(missing)

    def _new(self, missing: dict[Place, bytes]) -> Iterator[tuple[list[bytes], Sequence]]:
        """Of what is read, the pictures that no other file brought before, under their keys; the
        hashes of all files are kept.
        """
        files, done = iter(missing), set()
        for digests, things in self.read(list(missing)):
            places = [next(files) for _ in digests]
            self.digests.remember([missing[place] for place in places], digests)
            keys = {key: i for i, key in enumerate(map(self._key, digests, places))}
            new = [key for key in self.rows.missing(keys) if key not in done]
            done.update(new)
            if len(new) < len(digests):
                which = [keys[key] for key in new]
                things = [things[i] for i in which] if isinstance(things, list) else things[which]
            if new:
                yield new, things

    def _key(self, digest: str, place: Place) -> bytes:
        strict = self.truncated == "error" and not isinstance(place, CutShort)
        return row_key("image" if strict else "image, truncated kept", digest)
