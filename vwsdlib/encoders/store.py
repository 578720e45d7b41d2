"""The vector store: every distinct picture and text is encoded once, whoever asks and however often.

A vector's key is the SHA-256 of the picture's bytes (or of the text) inside a file named by the encoder's whole identity (checkpoint,
revision, weights, preprocessing, dtype), so names never decide and two encoders cannot be confused. SQLite does the hard part:
a batch is there whole or not at all after a kill, and two processes may write at once.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from ..data.pictures import load_picture
from ..errors import VwsdError
from ..paths import cache_dir, quiet, sha256_bytes, sha256_file
from .registry import Encoder

SCHEMA = """
create table if not exists vectors (key text primary key, vector blob not null) without rowid;
create table if not exists files (path text primary key, stamp text not null, sha256 text not null) without rowid;
"""


class VectorStore:
    """Vectors of one encoder on disk, computed where they are missing.

    >>> store = VectorStore(load_encoder("lite"))      # doctest: +SKIP
    >>> store.texts(["fruit bat"]).shape               # doctest: +SKIP
    (1, 384)
    """

    def __init__(self, encoder: Encoder, folder: Path | None = None, truncated: str = "error"):
        self.encoder, self.truncated = encoder, truncated
        self.kept = np.dtype(getattr(encoder, "kept", np.float32))                    # an encoder may say that half precision will do
        identity = json.dumps(encoder.identity(), sort_keys=True)
        folder = Path(folder or cache_dir() / "vectors")
        self.path = folder / f"{encoder.name}-{sha256_bytes(identity.encode())[:16]}.sqlite"

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """[n, d] float32 unit rows, one a text."""
        wanted = {f"text:{sha256_bytes(t.encode())}": t for t in texts}
        return self._rows([f"text:{sha256_bytes(t.encode())}" for t in texts], wanted, self.encoder.encode_texts, "texts")

    def images(self, paths: Sequence[str | Path]) -> np.ndarray:
        """[n, d] float32 unit rows, one a picture file; VwsdError names a file that cannot be read."""
        kind = "image" if self.truncated == "error" else "image, truncated kept"  # what was let through once must not pass later
        keys = [f"{kind}:{digest}" for digest in self._file_hashes([Path(p) for p in paths])]
        return self._rows(keys, dict(zip(keys, paths)), self._encode_files, "pictures")

    def _encode_files(self, batch: Sequence[str | Path]) -> np.ndarray:
        return self.encoder.encode_images([load_picture(p, self.truncated).image for p in batch])

    def pictures(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """[n, d] float32 unit rows of pictures in memory (crops, scenes, uploads), keyed by their pixels."""
        keys = [f"pixels:{sha256_bytes(f'{p.mode}{p.size}'.encode() + p.tobytes())}" for p in pictures]
        return self._rows(keys, dict(zip(keys, pictures)), self.encoder.encode_images, "pictures")

    def _rows(self, keys: Sequence[str], wanted: dict[str, object], encode: Callable[[list], np.ndarray], unit: str) -> np.ndarray:
        if not keys:
            return np.zeros((0, self.encoder.dim), self.kept)
        found = self._read(wanted)
        missing = [k for k in wanted if k not in found]
        size = self.encoder.batch_size
        with tqdm(total=len(missing), desc=f"{self.encoder.name}: {unit}", unit=f" {unit}", leave=False, disable=True if len(missing) <= 2 * size else quiet()) as bar:
            for start in range(0, len(missing), size):
                batch = missing[start: start + size]
                vectors = np.asarray(encode([wanted[k] for k in batch]), self.kept)  # [b, d]
                self._check(vectors, len(batch))
                self._write(dict(zip(batch, vectors)))
                found.update(zip(batch, vectors))
                bar.update(len(batch))
        return np.stack([found[k] for k in keys])  # [n, d]

    def _check(self, vectors: np.ndarray, n: int) -> None:
        if vectors.shape != (n, self.encoder.dim) or not np.isfinite(vectors).all():
            raise VwsdError(f"the encoder gave {vectors.shape} values or values that are no numbers, ({n}, {self.encoder.dim}) expected",
                            where=self.encoder.name, remedy="This is a fault of the encoder; nothing of this batch was stored.")

    @contextmanager
    def _open(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            connection = sqlite3.connect(self.path, timeout=120)
            try:
                connection.executescript(SCHEMA)
                with connection:
                    yield connection
            finally:
                connection.close()
        except sqlite3.Error as e:
            raise VwsdError(f"the vector store cannot be used: {e}", where=self.path,
                            remedy="Free some space, or delete this file: its vectors will be computed again.") from e

    def _read(self, keys: Iterable[str]) -> dict[str, np.ndarray]:
        keys, found = list(keys), {}
        with self._open() as db:
            for start in range(0, len(keys), 500):
                part = keys[start: start + 500]
                marks = ",".join("?" * len(part))
                for key, blob in db.execute(f"select key, vector from vectors where key in ({marks})", part):
                    found[key] = np.frombuffer(blob, self.kept)
        return found

    def _write(self, vectors: dict[str, np.ndarray]) -> None:
        with self._open() as db:
            db.executemany("insert or ignore into vectors values (?, ?)", [(k, v.tobytes()) for k, v in vectors.items()])

    def _file_hashes(self, paths: Sequence[Path]) -> list[str]:
        """SHA-256 of each file's bytes; read once, then remembered under path, size and time of change."""
        stamps = {str(p.resolve()): _stamp(p) for p in dict.fromkeys(paths)}
        with self._open() as db:
            known = {path: (stamp, digest) for path, stamp, digest in db.execute("select path, stamp, sha256 from files")}
            fresh = {path: sha256_file(path) for path, stamp in stamps.items() if known.get(path, ("",))[0] != stamp}
            db.executemany("insert or replace into files values (?, ?, ?)", [(p, stamps[p], digest) for p, digest in fresh.items()])
        return [fresh.get(str(p.resolve())) or known[str(p.resolve())][1] for p in paths]


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        load_picture(path)  # raises the sentence that names the file and, where only the case differs, the right name
        raise
    return f"{status.st_size}:{status.st_mtime_ns}"
