"""Made once, kept under a hash of all it was made of: what many parts of the project do with what
is dear to compute.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from .paths import atomic, sha256_bytes

Kept = TypeVar("Kept")


def digest(made_of: Any) -> str:
    """Hex SHA-256 of a value as JSON with sorted keys; what JSON does not know goes by its
    `str`."""
    text = json.dumps(made_of, sort_keys=True, ensure_ascii=False, default=str)
    return sha256_bytes(text.encode())


def kept(
    path: Path,
    read: Callable[[Path], Kept],
    make: Callable[[], Kept],
    write: Callable[[Kept, Path], Any],
    damaged: tuple[type[Exception], ...] = (OSError, ValueError),
) -> Kept:
    """What `read` finds at `path`; where nothing sound lies there, `make` makes it, once.

    A second process waits for the first and then reads what that one wrote. A killed one leaves
    nothing half written (`paths.atomic`). damaged: the errors by which `read` tells that a file is
    not there or not whole. `path` names a hash of all that the value depends on (`digest`).
    """
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        try:
            return read(path)
        except damaged:
            value = make()
        with atomic(path) as temporary:
            write(value, temporary)
    return read(path)


def made_once(whole: Callable[[], bool], make: Callable[[], Any], lock: Path) -> None:
    """Have `make` make what is more than one file, unless it is there already: `whole` tells.

    A second process waits at the file `lock` for the first, and then finds all of it. What a killed
    one leaves, `whole` must tell from what is whole: by a record that `make` writes last.
    """
    from filelock import FileLock

    if whole():
        return
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if not whole():
            make()
