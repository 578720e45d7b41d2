"""One place where bytes lie: a file, a URL (fsspec) or a member of an archive.

A place is a path or a string: `/sets/images/a.jpg`, `s3://bucket/images/a.jpg`,
`tar://a.jpg::/sets/train-000.tar`.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import VwsdError, first_line
from ..paths import what_stands
from .kinds import HEAD, Kind

Place = str | Path
# of one picture's file; the largest picture that is decoded, uncompressed, needs less
MOST_BYTES = 1 << 30
# nanoseconds after which a time of change is trusted: the coarsest clock of a file system
SETTLED = 2_000_000_000
JUST_NOW = ":changed just now, seen at "


class Member(str):
    """A member of an archive as a place, `tar://a.jpg::/sets/train-0.tar`, which knows where its
    bytes are.
    """

    form: str  # of the archive: tar, compressed tar or zip
    archive: str
    name: str
    offset: int  # of its bytes in the archive's own, unpacked ones; of a zip's members 0
    size: int

    @classmethod
    def of(cls, form: str, archive: str, name: str, offset: int, size: int) -> Member:
        """The member `name` of an archive (path or URL); form: as the attribute."""
        made = cls(f"{form.rpartition(' ')[2]}://{name}::{archive}")
        made.form, made.archive, made.name = form, archive, name
        made.offset, made.size = offset, size
        return made


class CutShort(str):
    """The place of a picture that is known to be cut short, and is to be taken as far as it
    decodes.
    """


class FileEntry(NamedTuple):
    """A file of a folder or an archive: its path from there, how to open it, and its kind where
    that is known already.
    """

    path: str
    place: Place
    kind: Kind | None = None


def reading_order(place: Place) -> tuple[str, int]:
    """Sorts members of archives by where they lie, so that a compressed one is unpacked once; other
    places stay in order.
    """
    return (place.archive, place.offset) if isinstance(place, Member) else ("", 0)


def remote(place: object) -> bool:
    """Is it a URL (or a member of an archive) that is no path on this machine?"""
    return "://" in str(place)


def on_disk(place: Place) -> Place:
    """`file:///a/b` as the path that it is; every other place as it stands."""
    text = str(place)
    return Path(text.partition("://")[2]) if text.startswith(("file://", "local://")) else place


def with_fsspec(place: object, action: Callable[[Any, str], Any]) -> Any:
    """`action(file system, path there)` of fsspec's; VwsdError names the place where it fails or a
    package is missing.
    """
    import fsspec

    try:
        return action(*fsspec.core.url_to_fs(str(place)))
    except ImportError as e:
        remedy = "Install it (s3fs for s3://, gcsfs for gs://, aiohttp for https://)."
        raise VwsdError(f"this kind of place needs another package: {e}", place, remedy) from e
    except VwsdError:
        raise
    except Exception as e:  # each kind of place brings its own (aiohttp's, botocore's, tarfile's)
        remedy = "Check the address, the connection and your credentials."
        raise VwsdError(f"cannot be read: {first_line(e)}", place, remedy) from e


def refuse_large(size: int, where: object) -> None:
    """VwsdError for more bytes than a picture may have."""
    if size > MOST_BYTES:
        what = f"the file has {size:,} bytes, more than a picture may have ({MOST_BYTES:,})"
        raise VwsdError(what, where, "Save it smaller.")


def read_url(place: Place) -> bytes:
    """The bytes at a URL; VwsdError where it cannot be read or is larger than MOST_BYTES."""

    def whole(fs, path: str) -> bytes:
        refuse_large(fs.info(path).get("size") or 0, path)
        return fs.cat_file(path)

    return with_fsspec(place, whole)


def read_file(path: str | Path) -> bytes:
    """The bytes of a regular file; VwsdError for a pipe, a device and what is larger than
    MOST_BYTES, else OSError.
    """
    status = os.stat(path)
    if stat.S_ISREG(status.st_mode):
        refuse_large(status.st_size, path)
    elif not stat.S_ISDIR(status.st_mode):
        what = f"no picture but {odd_file(status.st_mode)}, which is not opened"
        raise VwsdError(what, path, "Name a file.")
    return Path(path).read_bytes()


def odd_file(mode: int) -> str:
    """What is neither a file nor a folder, by its `st_mode`."""
    return "a named pipe" if stat.S_ISFIFO(mode) else what_stands(mode)


def head_of(path: Place) -> bytes:
    """The first bytes (HEAD) of a regular file, none of anything else. Raises OSError."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        return b""
    with open(path, "rb") as f:
        return f.read(HEAD)


def stamp(place: Place) -> str:
    """What changes when the bytes at a place change. Raises OSError, VwsdError.

    Of a file: size, time of change of its bytes and of its entry, and its number on the disk. Who
    replaces a picture by another of the same size and sets its time back (`touch -r`, `cp -p`,
    `rsync -t`) changes the entry's time or the number, which no program can set. A file that
    changed a moment ago may change again within one tick of the clock; its stamp is of this very
    look and never comes again. Of a member of an archive: the archive's. At a URL: what the server
    says (ETag, time).
    """
    if isinstance(place, Member):
        return stamp(place.archive)
    _, archive, url = str(place).partition("::")
    if archive:
        return stamp(url)
    place = on_disk(place)
    if remote(place):
        return with_fsspec(place, lambda fs, path: str(fs.ukey(path)))
    status = os.stat(place)
    now, changed = time.time_ns(), max(status.st_mtime_ns, status.st_ctime_ns)
    look = f"{JUST_NOW}{now}" if now - changed < SETTLED else ""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}{look}"


def lasting(stamp: str) -> bool:
    """Whether a stamp comes again as long as the bytes stay (`stamp`)."""
    return JUST_NOW not in stamp
