"""Where things live on disk, and how a file is written so that a kill never leaves half of it.

One root holds everything: the checkout (or `VWSD_HOME`). Below it `data/` (sets), `.cache/` (vectors, trained heads, logs)
and `results/<profile>/`. `VWSD_CACHE` and `VWSD_RESULTS` move the last two, for shared disks and for tests.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

from .errors import VwsdError

PACKAGE = Path(__file__).resolve().parent


def root() -> Path:
    """The project's folder: `VWSD_HOME`, else the checkout this package sits in, else the working folder."""
    if home := os.environ.get("VWSD_HOME"):
        return Path(home).expanduser().resolve()
    checkout = PACKAGE.parent
    return checkout if (checkout / "notebooks" / "pipeline.yml").exists() else Path.cwd()


def data_dir() -> Path:
    """Folder of the data sets (`VWSD_DATA`, default `<root>/data`)."""
    return Path(os.environ.get("VWSD_DATA") or root() / "data")


def cache_dir() -> Path:
    """Folder of everything that can be recomputed (`VWSD_CACHE`, default `<root>/.cache`)."""
    return Path(os.environ.get("VWSD_CACHE") or root() / ".cache")


def results_dir(profile: str) -> Path:
    """Folder of one profile's results (`VWSD_RESULTS`, default `<root>/results`, then the profile's name)."""
    return Path(os.environ.get("VWSD_RESULTS") or root() / "results") / profile


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


@contextmanager
def atomic(path: str | Path):
    """Yield a temporary path beside `path`; on success flush it to disk and move it into place, on failure remove it.

    Raises VwsdError when the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        yield Path(temporary)
        with open(temporary, "rb+") as f:
            os.fsync(f.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as e:
        raise VwsdError(f"cannot write the file: {e.strerror or e}", where=path,
                        remedy="Free some space or choose another folder; nothing that was there before is lost.") from e
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write `data` atomically; returns the path."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 `text` with LF line ends atomically; returns the path."""
    return write_bytes(path, text.encode("utf-8"))


def quiet() -> bool | None:
    """For tqdm's `disable`: True in CI and under the runner, whose executed notebooks must not depend on what was cached."""
    return True if os.environ.get("CI") or os.environ.get("TQDM_DISABLE") else None
