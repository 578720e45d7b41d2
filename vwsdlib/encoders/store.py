"""The vector store: every distinct picture and text is encoded once, whoever asks and however
often.

A vector's key is the SHA-256 of the picture's bytes (or of the text), in a folder named by the
encoder's whole identity (checkpoint, revision, weights, preprocessing, dtype), so names never
decide and two encoders cannot be confused. All notebooks, languages, prompts and techniques share
it. `shards` keeps the numbers, `digests` knows files again, `streams` spreads the work.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.pictures import load_picture
from ..data.sources import Place
from ..paths import sha256_bytes
from . import readable
from .crops import Crops
from .digests import PictureRows
from .registry import Encoder
from .shards import Batch, KeptRows, row_key
from .streams import OnDemand, side_by_side, squares


class VectorStore:
    """Vectors of one encoder on disk, computed where they are missing.

    >>> store = VectorStore(load_encoder("lite"))      # doctest: +SKIP
    >>> store.texts(["fruit bat"]).shape               # doctest: +SKIP
    (1, 384)
    """

    def __init__(self, encoder: Encoder, folder: Path | None = None, truncated: str = "error"):
        self.encoder, self.truncated = encoder, truncated
        self.rows = KeptRows(
            encoder.name, encoder.identity(), encoder.dim, encoder.batch_size, folder=folder
        )
        self.path = self.rows.folder
        self.files = PictureRows(self.rows, self._read, self._look, truncated)
        self._told: set[str] = set()  # texts that notes have counted

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """[n, d] unit rows, one a text. What does not reach the encoder (`readable`) is counted on
        stderr, once a text.
        """
        self.tell(texts)
        texts = [readable.visible(text) for text in texts]
        keys = [row_key("text", sha256_bytes(text.encode())) for text in texts]
        return self.rows.of(keys, dict(zip(keys, texts)), self._of_texts, "texts")

    def tell(self, texts: Sequence[str]) -> None:
        """Notes on stderr, counted over `texts`, of what the encoder does not get to see of them;
        each text is counted once.
        """
        new = [text for text in texts if text not in self._told]
        self._told.update(new)
        for note in readable.unseen_notes(self.encoder, new):
            print(f"note: {note}", file=sys.stderr)

    def images(self, places: Sequence[Place]) -> np.ndarray:
        """[n, d] unit rows, one a picture file (URL, member of an archive); VwsdError names one
        that cannot be read.
        """
        return self.files.of(places)

    def fill_images(self, places: Iterable[Place]) -> int:
        """Encode those of the pictures that are missing, so that `images` finds them; how many
        there were to encode.
        """
        return self.files.fill(places)

    def pictures(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """[n, d] unit rows of pictures in memory (crops, scenes, uploads), keyed by their
        pixels."""
        contents = (f"{p.mode}{p.size}".encode() + p.tobytes() for p in pictures)
        keys = [row_key("pixels", sha256_bytes(content)) for content in contents]
        numbers = {key: i for i, key in enumerate(keys)}

        def encode(which: list[int]) -> np.ndarray:
            if isinstance(pictures, Crops):
                return self.encoder.encode_images(pictures[which])
            some = OnDemand(lambda i: pictures[which[i]], len(which))
            return self.encoder.encode_images(some)

        def made(missing: dict[bytes, int]) -> Iterator[Batch]:
            return self._batches(list(missing), missing, encode)

        return self.rows.of(keys, numbers, made, "pictures")

    def _of_texts(self, missing: dict[bytes, str]) -> Iterator[Batch]:
        """In the order of their length, so that neighbours need the same room."""
        keys = sorted(missing, key=lambda key: len(missing[key]))
        return self._batches(keys, missing, self.encoder.encode_texts)

    def _batches(
        self, keys: list[bytes], sources: dict, encode: Callable[[list], np.ndarray]
    ) -> Iterator[Batch]:
        size = self.encoder.batch_size
        for start in range(0, len(keys), size):
            some = keys[start : start + size]
            yield some, np.asarray(encode([sources[key] for key in some]))

    def _read(self, places: list[Place]) -> Iterator[tuple[list[str], Sequence]]:
        """Pictures as the encoder takes them: prepared squares, or whole."""
        encoder = self.encoder
        if hasattr(encoder, "preparation"):
            how = (encoder.preparation, encoder.image_batch, self.truncated)
            yield from squares(places, *how, getattr(encoder, "device", "cpu"))
            return
        for start in range(0, len(places), encoder.batch_size):
            some = places[start : start + encoder.batch_size]
            loaded = [load_picture(place, self.truncated) for place in some]
            yield [picture.sha256 for picture in loaded], [picture.image for picture in loaded]

    def _look(self, read: Iterator[tuple[list[bytes], Sequence]]) -> Iterator[Batch]:
        encoder = self.encoder
        if hasattr(encoder, "preparation"):

            def encode(batch: tuple[list[bytes], np.ndarray]) -> Batch:
                return batch[0], encoder.encode_prepared(batch[1])

            return side_by_side(encode, read, getattr(encoder, "streams", 0))
        return ((keys, np.asarray(encoder.encode_images(images))) for keys, images in read)


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
