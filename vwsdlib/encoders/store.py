"""The vector store: every distinct picture and text is encoded once, whoever asks and however
often.

A vector's key is the SHA-256 of the picture's bytes (or of the text), in a folder named by the
encoder's whole identity (checkpoint, revision, weights, preprocessing, dtype), so names never
decide and two encoders cannot be confused. All notebooks, languages, prompts and techniques share
it. `rows` keeps the numbers, `streams` spreads the work.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from ..data.pictures import load_picture, read_bytes
from ..data.sources import Place, lasting, reading_order, remote, stamp
from ..errors import VwsdError
from ..paths import cache_dir, quiet, sha256_bytes, write_text
from . import readable
from .registry import Encoder
from .shards import Rows
from .streams import OnDemand, rank, side_by_side, squares

Batch = tuple[list[bytes], np.ndarray]  # keys, rows


class VectorStore:
    """Vectors of one encoder on disk, computed where they are missing.

    >>> store = VectorStore(load_encoder("lite"))      # doctest: +SKIP
    >>> store.texts(["fruit bat"]).shape               # doctest: +SKIP
    (1, 384)
    """

    def __init__(self, encoder: Encoder, folder: Path | None = None, truncated: str = "error"):
        self.encoder, self.truncated = encoder, truncated
        identity = json.dumps(encoder.identity(), sort_keys=True, indent=1)
        folder = Path(folder or cache_dir() / "vectors")
        self.path = folder / f"{encoder.name}-{sha256_bytes(identity.encode())[:16]}"
        self._about = identity
        self._rows = Rows(
            self.path, encoder.dim, getattr(encoder, "kept", np.float32)
        )  # an encoder may say that half precision will do
        self._files = Rows(folder / "files", 32, np.uint8)  # (place, stamp) -> SHA-256 of its bytes
        self._told: set[str] = set()  # texts that notes have counted

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """[n, d] unit rows, one a text. What does not reach the encoder (`readable`) is counted on
        stderr, once a text.
        """
        self.tell(texts)
        texts = [readable.visible(text) for text in texts]
        keys = [row_key("text", sha256_bytes(t.encode())) for t in texts]
        return self._filled(
            keys,
            dict(zip(keys, texts)),
            lambda wanted: self._encoded(wanted, self.encoder.encode_texts, len),
            "texts",
        )

    def tell(self, texts: Sequence[str]) -> None:
        """Notes on stderr, counted over `texts`, of what the encoder does not get to see of them;
        each text is counted once.
        """
        new = [text for text in texts if text not in self._told]
        self._told.update(new)
        for note in readable.notes(self.encoder, new):
            print(f"note: {note}", file=sys.stderr)

    def images(self, places: Sequence[Place]) -> np.ndarray:
        """[n, d] unit rows, one a picture file (URL, member of an archive); VwsdError names one
        that cannot be read.
        """
        keys = self._look(places)
        self._fill_images(keys)
        return self._rows.take(
            [
                self._picture_key(digest)
                for digest in self._known_digests([keys[place].key for place in places])
            ]
        )

    def fill_images(self, places: Iterable[Place]) -> int:
        """Encode those of the pictures that are missing, so that `images` finds them; how many
        there were to encode.
        """
        return self._fill_images(self._look(places))

    def _look(self, places: Iterable[Place]) -> dict[Place, FileKey]:
        """Each place once with its key, before it is read: a change meanwhile shows later. Files
        that may change again unseen are hashed anew.
        """
        keys = {place: _file_key(place) for place in dict.fromkeys(places)}
        for place, file in keys.items():
            if not file.lasting:
                self._remember([file.key], [sha256_bytes(read_bytes(place))])
        return keys

    def _fill_images(self, keys: dict[Place, FileKey]) -> int:
        digests = dict(zip(keys, self._known_digests([file.key for file in keys.values()])))
        absent = set(
            self._rows.missing([self._picture_key(digest) for digest in digests.values() if digest])
        )
        wanted = [
            place
            for place, digest in digests.items()
            if digest is None or self._picture_key(digest) in absent
        ]
        missing = {place: keys[place].key for place in sorted(wanted, key=reading_order)}
        self._fill(self._seen(missing), len(missing), "pictures")
        return len(missing)

    def pictures(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """[n, d] unit rows of pictures in memory (crops, scenes, uploads), keyed by their
        pixels."""
        keys = [
            row_key("pixels", sha256_bytes(f"{p.mode}{p.size}".encode() + p.tobytes()))
            for p in pictures
        ]
        encode = lambda which: self.encoder.encode_images(
            OnDemand(lambda i: pictures[which[i]], len(which))
        )
        return self._filled(
            keys,
            {key: i for i, key in enumerate(keys)},
            lambda wanted: self._encoded(wanted, encode),
            "pictures",
        )

    def _filled(
        self,
        keys: Sequence[bytes],
        wanted: dict[bytes, object],
        encoded: Callable[[dict], Iterator[Batch]],
        unit: str,
    ) -> np.ndarray:
        missing = {key: wanted[key] for key in self._rows.missing(keys)}
        self._fill(encoded(missing), len(missing), unit)
        return self._rows.take(keys)

    def _fill(self, batches: Iterator[Batch], total: int, unit: str) -> None:
        if not total:
            return
        self._describe()
        hidden = True if total <= 2 * self.encoder.batch_size else quiet()
        number, processes = rank()
        share = f", process {number + 1} of {processes}" if processes > 1 else ""
        with tqdm(
            total=total,
            desc=f"{self.encoder.name}: {unit}{share}",
            unit=f" {unit}",
            leave=False,
            disable=hidden,
            position=number,
        ) as bar:
            for keys, rows in batches:
                self._check(rows, len(keys))
                self._rows.append(keys, rows)
                bar.update(len(keys))
        self._rows.missing([])

    def _encoded(
        self,
        wanted: dict[bytes, object],
        encode: Callable[[list], np.ndarray],
        order: Callable | None = None,
    ) -> Iterator[Batch]:
        """Batches of things at hand; in the order of their length, so that neighbours need the same
        room.
        """
        keys, size = (
            (sorted(wanted, key=lambda k: order(wanted[k])) if order else list(wanted)),
            self.encoder.batch_size,
        )
        for some in (keys[start : start + size] for start in range(0, len(keys), size)):
            yield some, np.asarray(encode([wanted[k] for k in some]))

    def _seen(self, missing: dict[Place, bytes]) -> Iterator[Batch]:
        """Batches of picture files (place -> file key), each read and decoded once."""
        its = self.encoder
        if not hasattr(its, "preparation"):  # the encoder prepares pictures itself
            yield from (
                (keys, np.asarray(its.encode_images(images)))
                for keys, images in self._new(missing, self._loaded(list(missing)))
            )
            return
        prepared = self._new(
            missing, squares(list(missing), its.preparation, its.image_batch, self.truncated)
        )
        yield from side_by_side(
            lambda batch: (batch[0], its.encode_prepared(batch[1])),
            prepared,
            getattr(its, "streams", 0),
        )

    def _loaded(self, places: list[Place]) -> Iterator[tuple[list[str], list[Image.Image]]]:
        for start in range(0, len(places), self.encoder.batch_size):
            loaded = [
                load_picture(p, self.truncated)
                for p in places[start : start + self.encoder.batch_size]
            ]
            yield [p.sha256 for p in loaded], [p.image for p in loaded]

    def _new(
        self, missing: dict[Place, bytes], read: Iterator[tuple[list[str], Sequence]]
    ) -> Iterator[tuple[list[bytes], Sequence]]:
        """Of what was read, the pictures that no other file brought before, under their keys; the
        hashes of all files are kept.
        """
        files, done = iter(missing.values()), set()
        for digests, things in read:
            self._remember([next(files) for _ in digests], digests)
            keys = {self._picture_key(digest): i for i, digest in enumerate(digests)}
            new = [key for key in self._rows.missing(keys) if key not in done]
            done.update(new)
            if len(new) == len(digests):
                yield new, things
            elif new:
                yield (
                    new,
                    (
                        [things[keys[key]] for key in new]
                        if isinstance(things, list)
                        else things[[keys[key] for key in new]]
                    ),
                )

    def _check(self, rows: np.ndarray, n: int) -> None:
        if rows.shape != (n, self.encoder.dim) or not np.isfinite(rows).all():
            raise VwsdError(
                f"the encoder gave {rows.shape} values or values that are no numbers, ({n},"
                f" {self.encoder.dim}) expected",
                where=self.encoder.name,
                remedy="This is a fault of the encoder; nothing of this batch was stored.",
            )

    def _picture_key(self, digest: str) -> bytes:
        return row_key(
            "image" if self.truncated == "error" else "image, truncated kept", digest
        )  # what was let through once must not pass later

    def digests(self, places: Sequence[Place]) -> list[str]:
        """SHA-256 of the bytes at each place; read once, then remembered under its path and
        `sources.stamp`.
        """
        keys = {place: file.key for place, file in self._look(places).items()}
        known = dict(zip(keys, self._known_digests(list(keys.values()))))
        fresh = {
            place: sha256_bytes(read_bytes(place))
            for place, digest in known.items()
            if digest is None
        }
        self._remember([keys[place] for place in fresh], list(fresh.values()))
        return [known[place] or fresh[place] for place in places]

    def _known_digests(self, keys: Sequence[bytes]) -> list[str | None]:
        absent = set(self._files.missing(keys))
        known = [key for key in dict.fromkeys(keys) if key not in absent]
        digests = dict(zip(known, (row.tobytes().hex() for row in self._files.take(known))))
        return [digests.get(key) for key in keys]

    def _remember(self, keys: Sequence[bytes], digests: Sequence[str]) -> None:
        if keys:
            self._files.append(
                keys, np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(-1, 32)
            )

    def _describe(self) -> None:
        """Leave a note in the folder of what its vectors depend on."""
        if not (about := self.path / "identity.json").exists():
            write_text(about, self._about + "\n")


def drift(store: VectorStore, reference: VectorStore, places: Sequence[Place]) -> dict[str, float]:
    """How far the vectors of a variant lie from the reference's: `n`, lowest and mean cosine of the
    two, largest difference of a number.
    """
    a, b = store.images(places).astype(np.float64), reference.images(places).astype(np.float64)
    cosines = (a * b).sum(1)
    return {
        "n": len(places),
        "lowest_cosine": float(cosines.min()),
        "mean_cosine": float(cosines.mean()),
        "largest_difference": float(np.abs(a - b).max()),
    }


def row_key(kind: str, digest: str) -> bytes:
    """Under what a row is kept: 32 bytes of what it was made from."""
    return bytes.fromhex(sha256_bytes(f"{kind}:{digest}".encode()))


class FileKey(NamedTuple):
    """Under what the hash of a place's bytes is kept, and whether that comes again as long as the
    bytes stay.
    """

    key: bytes
    lasting: bool


def _file_key(place: Place) -> FileKey:
    try:
        state = stamp(place)
    except OSError:
        # raises the sentence that names the file and, where only the case differs, the right name
        load_picture(place)
        raise
    return FileKey(
        row_key(str(place) if remote(place) else os.path.abspath(place), state), lasting(state)
    )
