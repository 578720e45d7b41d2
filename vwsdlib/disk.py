"""Can a folder be written? Tried, not asked: permissions, read-only and full disks and quotas all
answer alike.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from .errors import VwsdError

PROBE = 64 * 1024  # bytes that are written and removed again


def nearest(folder: Path) -> Path:
    """`folder`, or the nearest folder above it that exists."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def free_gb(folder: Path) -> float:
    """Free space of the disk that holds `folder`, in gigabytes (10^9 bytes)."""
    return shutil.disk_usage(nearest(folder)).free / 1e9


def temporary_folder() -> Path:
    """Where Python puts temporary files; /tmp where it finds no folder that it can write to."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return Path("/tmp")


def try_writing(folder: Path, what: str, remedy: str) -> None:
    """Create and remove a file in `folder`, or in the nearest folder above it where it is not there
    yet.

    Raises VwsdError, which says why not and names `what` the folder is for, where that fails.
    """
    there = nearest(folder)
    try:
        handle, name = tempfile.mkstemp(dir=there, prefix=".vwsd-probe-", suffix=".tmp")
        try:
            os.write(handle, b"\0" * PROBE)
            os.fsync(handle)
        finally:
            os.close(handle)
            os.unlink(name)
    except OSError as e:
        raise VwsdError(
            f"the folder of {what} cannot be written: {e.strerror or e}", folder, remedy
        ) from e
