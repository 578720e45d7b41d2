"""Archives of pictures: tar, also compressed, and zip, on disk or at a URL. Nothing is unpacked to
the disk.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import BinaryIO

from ..errors import VwsdError, first_line
from .kinds import HEAD, kind_of, other_kind
from .places import (
    JUST_NOW,
    FileEntry,
    Member,
    Place,
    read_file,
    read_url,
    refuse_large,
    remote,
    stamp,
    with_fsspec,
)

MOST_READ = 1 << 26  # bytes that a tar's header may ask for at once
# what damaged archives raise; RuntimeError: locked with a password, or packed by an unknown method
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError)
DAMAGE += (OSError, ValueError, LookupError, OverflowError, RuntimeError, MemoryError)
ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
OPENERS = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
AGAIN = "Copy or pack the archive again."
LOST_LINKS = "links to no file here"
Listed = tuple[str, FileEntry | str]  # path in the archive, and the file or why it is not opened


def named_as_archive(url: str) -> bool:
    """Does a URL or a path end as archives do?"""
    return url.partition("?")[0].endswith(ENDINGS)


def _opened(archive: str) -> BinaryIO:
    if not remote(archive):
        return open(archive, "rb")
    import fsspec

    def opened(fs, path: str) -> BinaryIO:
        if fs.exists(path):
            return fs.open(path, "rb", cache_type="readahead")
        return fsspec.open(archive).open()

    return with_fsspec(archive, opened)


def _unpacked(raw: BinaryIO) -> tuple[BinaryIO, str]:
    """The tar inside a file, and the form of the archive (`Member`)."""
    packing = kind_of(raw.read(HEAD)).packing
    raw.seek(0)
    return (OPENERS[packing](raw), "compressed tar") if packing in OPENERS else (raw, "tar")


def members(archive: str) -> Iterator[Listed]:
    """All members of an archive; VwsdError where it is cut short, damaged or none."""
    kind = other_kind("nothing")
    try:
        with _opened(archive) as raw:
            kind = kind_of(raw.read(HEAD))
            raw.seek(0)
            if kind == other_kind("nothing"):
                raise VwsdError("the archive is an empty file", archive, AGAIN)
            if kind.packing == "zstd":
                what = "archives compressed by Zstandard are not read"
                raise VwsdError(what, archive, "Unpack it first: zstd -d.")
            yield from (_zipped if kind.packing == "zip" else _tarred)(archive, raw)
    except VwsdError:
        raise
    except DAMAGE as e:
        if not kind.packing and kind != other_kind("unknown"):
            remedy = "Give a tar or a zip, or the folder of the pictures."
            raise VwsdError(f"no archive: the file is {kind.name}", archive, remedy) from e
        what = f"the archive is cut short or damaged: {first_line(e)}"
        raise VwsdError(what, archive, AGAIN) from e


def _zipped(archive: str, raw: BinaryIO) -> Iterator[Listed]:
    with zipfile.ZipFile(raw) as packed:
        seen: dict[str, tuple[int, int]] = {}
        for info in packed.infolist():
            path = zip_name(info)
            content = (info.CRC, info.file_size)
            # by its name only one of them can be read
            if seen.setdefault(info.filename, content) != content:
                what = f"{path} stands twice in the archive with different pictures"
                raise VwsdError(what, archive, AGAIN)
            if stat.S_ISLNK(info.external_attr >> 16):
                yield path, "links"
            elif not path.endswith("/"):
                member = Member.of("zip", archive, info.filename, 0, info.file_size)
                yield path, FileEntry(path, member)


def zip_name(info: zipfile.ZipInfo) -> str:
    """A member's name, a folder's with a slash at its end.

    macOS writes UTF-8 without saying so, which reads like text of an old IBM computer; Windows
    writes backslashes, which the format forbids.
    """
    name = info.filename
    if not info.flag_bits & 0x800:
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return name.replace("\\", "/")


class _Bounded:
    """A stream that is never asked for very much at once: a damaged header of a few bytes may ask
    for gigabytes.
    """

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, n: int = -1) -> bytes:
        if not 0 <= n <= MOST_READ:
            raise ValueError(f"a header asks for {n:,} bytes")
        return self.stream.read(n)


def _tarred(archive: str, raw: BinaryIO) -> Iterator[Listed]:
    stream, form = _unpacked(raw)
    files, links = {}, []
    with tarfile.open(fileobj=_Bounded(stream), mode="r:") as tar:
        for info in tar:
            path = info.name.removeprefix("./")
            if info.isdir():
                continue
            if info.islnk() or info.issym():
                links.append((path, info))
            elif not info.isreg() or info.issparse():
                yield path, "no file but a pipe, a device or a sparse file of a tar"
            else:
                stream.seek(info.offset_data)
                member = Member.of(form, archive, info.name, info.offset_data, info.size)
                kind = kind_of(stream.read(min(HEAD, info.size)))
                files[path] = FileEntry(path, member, kind)
                yield path, files[path]
        _check_end(stream, tar.offset, archive)
    for path, info in links:
        target = info.linkname
        if info.issym():
            target = os.path.join(os.path.dirname(path), target)
        entry = files.get(os.path.normpath(target))
        yield path, entry._replace(path=path) if entry else LOST_LINKS


def _check_end(stream: BinaryIO, end: int, archive: str) -> None:
    """A tar ends with blocks of zeros; VwsdError where it stops before, or where something else
    follows them.
    """
    stream.seek(end)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise VwsdError("the archive is cut short: its end mark is missing", archive, AGAIN)
    if block.strip(b"\0"):
        raise VwsdError(f"the archive is damaged at byte {end:,}", archive, AGAIN)
    while chunk := stream.read(1 << 20):
        if chunk.strip(b"\0"):
            raise VwsdError(
                "more follows behind the archive's end mark, as where archives were joined",
                archive,
                "Give the archives one by one, or pack the pictures again.",
            )


def read_member(member: Member, most: int | None = None) -> bytes:
    """A member's bytes, or the first `most` of them; VwsdError where the archive is damaged or
    gone, or the member larger than `places.MOST_BYTES`.
    """
    refuse_large(member.size, member)
    wanted = member.size if most is None else min(most, member.size)
    try:
        data = _from_archive(member, wanted)
    except VwsdError:
        raise
    except DAMAGE as e:
        what = f"the archive is damaged or locked: {first_line(e)}"
        raise VwsdError(what, member, AGAIN) from e
    if len(data) != wanted:
        raise VwsdError("the archive is cut short", member, AGAIN)
    return data


def _from_archive(member: Member, wanted: int) -> bytes:
    start, end = member.offset, member.offset + wanted
    if member.form != "tar":
        lock, archive = _kept(os.getpid(), member.archive, _state(member.archive))
        if member.form == "zip":
            with lock, archive.open(member.name) as f:
                return f.read(wanted)
        with lock:
            archive.seek(start)
            return archive.read(wanted)
    if remote(member.archive):
        return with_fsspec(member.archive, lambda fs, path: fs.cat_file(path, start=start, end=end))
    with open(member.archive, "rb") as f:
        f.seek(start)
        return f.read(wanted)


@lru_cache(4)
def _kept(
    process: int, archive: str, state: str
) -> tuple[threading.Lock, zipfile.ZipFile | BinaryIO]:
    """An archive that stays open, as long as it is the same, in this process alone: a fork would
    share its position.
    """
    raw = _opened(archive)
    zipped = raw.read(2) == b"PK"
    raw.seek(0)
    return threading.Lock(), zipfile.ZipFile(raw) if zipped else _unpacked(raw)[0]


def _state(archive: str) -> str:
    return stamp(archive).partition(JUST_NOW)[0]


def read_place(place: Place) -> bytes:
    """The bytes of a file, at a URL or of an archive's member; VwsdError where they cannot be read
    or are more than a picture may have. Raises OSError for a file that cannot be opened.
    """
    if isinstance(place, Member):
        return read_member(place)
    return read_url(place) if remote(place) else read_file(place)
