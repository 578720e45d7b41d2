"""Where pictures lie: files, folders, archives (tar, also compressed, and zip), on disk or at a URL
(fsspec). One rule finds them everywhere.

- A file is a picture by its first bytes (`kinds`); the ending of a name never decides.
- A name is looked for as it stands, from the place on ("0/p0.png"); else anywhere below, where it
  must be the only one of its name, or
  all of its name the same bytes. Composed and decomposed letters (NFC, NFD) are the same name;
  capitals are not small letters.
- Files whose name or folder begins with a dot are found where they are asked for, and left out
  where everything is listed.
- What macOS keeps beside files (`._a.jpg`, `__MACOSX/`), links that lead nowhere, pipes, sockets
  and devices are never opened.

A picture's place is a path or a string: `/sets/images/a.jpg`, `s3://bucket/images/a.jpg`,
`tar://a.jpg::/sets/train-000.tar`.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import hashlib
import lzma
import os
import stat
import tarfile
import threading
import time
import unicodedata
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..errors import VwsdError, first_line
from .kinds import HEAD, NOTHING, UNKNOWN, Kind, kind_of

Place = str | Path
MOST_BYTES = (
    1 << 30
)  # of one picture's file; the largest picture that is decoded, uncompressed, needs less
# nanoseconds after which a time of change is trusted: the coarsest clock of a file system
SETTLED = 2_000_000_000
JUST_NOW = ":changed just now, seen at "
BLOCK = tarfile.BLOCKSIZE
MOST_READ = 1 << 26  # bytes that a tar's header may ask for at once
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    UnicodeError,
)  # RuntimeError: locked with a password
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
AGAIN = "Copy or pack the archive again."
LOST_LINKS = "links to no file here"
MACOS = "what macOS keeps beside files"


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
        made.form, made.archive, made.name, made.offset, made.size = (
            form,
            archive,
            name,
            offset,
            size,
        )
        return made


class Entry(NamedTuple):
    """A file below a place: its path from there, how to open it, and its kind where that is known
    already.
    """

    path: str
    place: Place
    kind: Kind | None = None


# ---------------------------------------------------------------------------- one place


def remote(place: object) -> bool:
    """Is it a URL (or a member of an archive) that is no path on this machine?"""
    return "://" in str(place)


def on_disk(place: Place) -> Place:
    """`file:///a/b` as the path that it is; every other place as it stands."""
    text = str(place)
    return Path(text.partition("://")[2]) if text.startswith(("file://", "local://")) else place


def _fsspec(place: object, action):
    """`action(file system, path there)`; VwsdError names the place where it fails or a package is
    missing.
    """
    import fsspec

    try:
        return action(*fsspec.core.url_to_fs(str(place)))
    except ImportError as e:
        raise VwsdError(
            f"this kind of place needs another package: {e}",
            place,
            "Install it (s3fs for s3://, gcsfs for gs://, aiohttp for https://).",
        ) from e
    except VwsdError:
        raise
    except (
        Exception
    ) as e:  # each kind of place brings errors of its own (aiohttp's, botocore's, tarfile's)
        raise VwsdError(
            f"cannot be read: {first_line(e)}",
            place,
            "Check the address, the connection and your credentials.",
        ) from e


def read_remote(place: Place) -> bytes:
    """The bytes at a URL or of an archive's member; VwsdError where it cannot be read or is larger
    than MOST_BYTES.
    """
    if isinstance(place, Member):
        return _read_member(place)
    return _fsspec(place, _read_whole)


def _read_whole(fs, path: str) -> bytes:
    size = fs.info(path).get("size")
    if size is not None and size > MOST_BYTES:
        raise VwsdError(
            f"the file has {size:,} bytes, more than a picture may have ({MOST_BYTES:,})",
            path,
            "Save it smaller.",
        )
    return fs.cat_file(path)


def read_file(path: str | Path) -> bytes:
    """The bytes of a regular file; VwsdError for a pipe, a device and what is larger than
    MOST_BYTES, else OSError.
    """
    status = os.stat(path)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise VwsdError(
            f"no picture but {_odd_file(status.st_mode)}, which is not opened", path, "Name a file."
        )
    if status.st_size > MOST_BYTES and stat.S_ISREG(status.st_mode):
        raise VwsdError(
            f"the file has {status.st_size:,} bytes, more than a picture may have ({MOST_BYTES:,})",
            path,
            "Save it smaller.",
        )
    return Path(path).read_bytes()


def _odd_file(mode: int) -> str:
    kinds = (
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for of_kind, name in kinds if of_kind(mode)), "a special file")


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
        return _fsspec(place, lambda fs, path: str(fs.ukey(path)))
    status = os.stat(place)
    now, changed = time.time_ns(), max(status.st_mtime_ns, status.st_ctime_ns)
    look = f"{JUST_NOW}{now}" if now - changed < SETTLED else ""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}{look}"


def lasting(stamp: str) -> bool:
    """Whether a stamp comes again as long as the bytes stay (`stamp`)."""
    return JUST_NOW not in stamp


# ---------------------------------------------------------------------------- many pictures


@dataclass(frozen=True)
class Pictures:
    """What lies at a place: a folder, archives or single files, here or at a URL; `at / name` is a
    picture's place.

    name: the place as it was given. sources: what it stands for, one or (of a pattern) several
    paths or URLs.
    """

    name: str
    sources: tuple[str, ...]

    @property
    def folder(self) -> Path | None:
        """The folder on this machine, where it is one."""
        return (
            Path(self.sources[0])
            if len(self.sources) == 1 and os.path.isdir(self.sources[0])
            else None
        )

    @cached_property
    def _read(self) -> tuple[list[Entry], dict[str, list[str]]]:
        entries, odd = [], defaultdict(list)
        for source in self.sources:
            for path, found in _below(source):
                parts = path.split("/")
                if "__MACOSX" in parts or parts[-1].startswith("._"):
                    odd[MACOS].append(path)
                elif isinstance(found, Entry):
                    entries.append(found)
                else:
                    odd[found].append(path)
        return entries, dict(odd)

    @property
    def entries(self) -> list[Entry]:
        """The files, archive by archive in their order, folders in the order of names; without what
        is never opened.
        """
        return self._read[0]

    @cached_property
    def _by_name(self) -> dict[str, list[Entry]]:
        by_name = defaultdict(list)
        for entry in self.entries:
            by_name[_one_spelling(entry.path).rpartition("/")[2]].append(entry)
        return by_name

    @cached_property
    def _found(self) -> dict[str, Place | None]:
        return {}

    @cached_property
    def shadowed(self) -> dict[str, str]:
        """Of the names found so far: those that stand elsewhere below as well, with other bytes ->
        where.
        """
        return {}

    def find(self, name: str) -> Place | None:
        """Where the picture of a name lies, None where nowhere; VwsdError where files of that name
        differ and none stands right there.
        """
        if name not in self._found:
            self._found[name] = self._search(name)
        return self._found[name]

    def _search(self, name: str) -> Place | None:
        wanted = _one_spelling(name).removeprefix("./")
        alike = self._by_name.get(wanted.rpartition("/")[2], [])
        there = [e for e in alike if _one_spelling(e.path) == wanted]
        below = [
            e
            for e in alike
            if _one_spelling(e.path).endswith(f"/{wanted}") and not _hidden(e.path[: -len(wanted)])
        ]
        chosen = there or below
        if not chosen:
            return self._through_a_link(wanted)
        if len(chosen) > 1 and _differ(chosen):
            places = ", ".join(str(e.place) for e in chosen[:3])
            raise VwsdError(
                f"{name} stands in {len(chosen)} places with different pictures: {places}",
                self.name,
                "Keep one of them, or write the names with their folders.",
            )
        if there and below and _differ([there[0], *below]):
            self.shadowed[name] = below[0].path
        return chosen[0].place

    def _through_a_link(self, wanted: str) -> Path | None:
        """A file whose folder was walked under another name: links are followed once."""
        if (
            not self.folder
            or wanted.startswith("/")
            or ".." in wanted.split("/")
            or "__MACOSX" in wanted
            or "/" not in wanted
        ):
            return None
        path = self.folder / wanted
        return path if path.is_file() else None

    def __truediv__(self, name: str) -> Place:
        place = self.find(name)
        if place is None:
            twins = [
                e.path
                for e in self.entries
                if e.path.casefold().endswith(_one_spelling(name).casefold())
            ]
            remedy = (
                f"Names keep their case: {', '.join(twins[:3])} is there."
                if twins
                else "Name all of the set's pictures."
            )
            raise VwsdError(f"{name} is not there", self.name, remedy)
        return place

    def names(self) -> set[str]:
        """Paths, from the place on, of all files that are pictures and not hidden."""
        return {entry.path for entry in self.pictures}

    @cached_property
    def _sorted_out(self) -> tuple[list[Entry], dict[str, list[str]]]:
        shown = [entry for entry in self.entries if not _hidden(entry.path)]
        pictures, left_out = (
            [],
            defaultdict(list, {why: list(paths) for why, paths in self._read[1].items()}),
        )
        left_out["hidden (the name begins with a dot)"] += [
            entry.path for entry in self.entries if _hidden(entry.path)
        ]
        for entry, kind in zip(shown, _kinds(shown)):
            if kind.readable:
                pictures.append(entry)
            else:
                left_out[kind.name].append(entry.path)
        return pictures, {why: paths for why, paths in left_out.items() if paths}

    @property
    def pictures(self) -> list[Entry]:
        """All pictures that are not hidden, in order; the first bytes of each file are read."""
        return self._sorted_out[0]

    @property
    def left_out(self) -> dict[str, list[str]]:
        """Why -> paths of what `pictures` leaves out."""
        return self._sorted_out[1]

    def note(self) -> str:
        """What is left out, in a sentence; empty where nothing is."""
        return left_out_note(self.left_out, self.name)

    def none_here(self) -> VwsdError:
        """The error for a place without a picture."""
        remedy = (
            f"What is there is left out: {_listed(self.left_out)}."
            if self.left_out
            else "The place is empty."
        )
        return VwsdError("there are no pictures", self.name, remedy)


def left_out_note(left_out: dict[str, list[str]], place: object) -> str:
    """What of a place is left out, counted, by kind and with the first names; empty where nothing
    is.
    """
    count = sum(map(len, left_out.values()))
    if not count:
        return ""
    files = "1 file" if count == 1 else f"{count} files"
    verb = "is" if count == 1 else "are"
    return f"{files} of {place} {verb} left out: {_listed(left_out)}"


def _listed(left_out: dict[str, list[str]]) -> str:
    parts = []
    for why, paths in left_out.items():
        some = ", ".join(sorted(paths)[:3]) + (", ..." if len(paths) > 3 else "")
        parts.append(f"{len(paths)} {why} ({some})")
    return "; ".join(parts)


def pictures_at(place: Place | Pictures) -> Pictures:
    """A folder, archives (a tar, plain or compressed, or a zip; several by a pattern), or either at
    a URL.

    What exists is never taken for a pattern. VwsdError where there is no such thing; what it holds
    is read when it is asked for.
    """
    if isinstance(place, Pictures):
        return place
    text = os.fspath(on_disk(place))
    if "::" in text and remote(text):  # zip://::pics.zip names the archive behind it
        text = os.fspath(on_disk(text.partition("::")[2]))
    if remote(text):
        return Pictures(str(place), tuple(_remote_sources(text)))
    text = os.path.abspath(os.path.expanduser(text))
    if os.path.exists(text):
        return Pictures(str(place), (text,))
    if not glob.has_magic(text):
        _refuse_missing(place, text)
    matches = sorted(glob.glob(_pattern(text)))
    if not matches:
        raise VwsdError(
            "no shard fits the pattern", place, "Quote the pattern, as in --images 'train-*.tar'."
        )
    return Pictures(str(place), tuple(matches))


def _refuse_missing(place: Place, text: str) -> None:
    if os.path.islink(text):
        raise VwsdError(
            "a link that leads nowhere, or in a circle",
            place,
            "Give the folder or archive that it should lead to.",
        )
    if _archive_name(text):
        raise VwsdError("no such archive of pictures", place, "Check the path.")
    raise VwsdError(
        "no such folder of pictures",
        place,
        "Give the folder or the archive that holds the image files of this set.",
    )


def _pattern(text: str) -> str:
    """A pattern whose leading folders exist as they are written: their brackets are none of the
    pattern's.
    """
    head, tail = text, ""
    while head and not os.path.isdir(head):
        head, last = os.path.split(head)
        tail = f"{last}/{tail}" if tail else last
        if not last:
            break
    return os.path.join(glob.escape(head), tail)


def _remote_sources(url: str) -> list[str]:
    if not glob.has_magic(url):
        return [url]
    found = _fsspec(
        url,
        lambda fs, path: (
            [url] if fs.exists(path) else [fs.unstrip_protocol(p) for p in fs.glob(path)]
        ),
    )
    if not found:
        raise VwsdError(
            "no shard fits the pattern",
            url,
            "Quote the pattern, as in --images 's3://bucket/train-*.tar'.",
        )
    return sorted(found)


def pictures_named(given: Iterable[Place]) -> tuple[list[tuple[str, Place]], list[str]]:
    """Single pictures out of files, folders, archives, patterns and URLs: (name, place) each in
    order, and notes on what is left out.

    A file is taken as it is named, whatever it holds. VwsdError for a folder or an archive without
    a picture.
    """
    found, notes = [], []
    for each in given:
        if _one_picture(each):
            found.append((str(each), on_disk(each)))
            continue
        at = pictures_at(each)
        if not at.pictures:
            raise at.none_here()
        found += [
            (os.path.join(each, entry.path) if at.folder else str(entry.place), entry.place)
            for entry in at.pictures
        ]
        notes.append(at.note())
    return found, [note for note in notes if note]


def _one_picture(given: Place) -> bool:
    """Whether it names one file and no folder, archive or pattern."""
    place = on_disk(given)
    if not remote(place):
        path = os.path.expanduser(place)
        if os.path.isdir(path):
            return False
        if os.path.exists(path):
            return not _packed(_head(path))
        return not glob.has_magic(os.fspath(place))
    text = str(place)
    if text.partition("::")[1]:
        return not text.partition("::")[0].endswith("://")
    if text.endswith("/") or glob.has_magic(text.partition("?")[0]):
        return False
    if _archive_name(text):
        return False
    return text.startswith(("http://", "https://")) or not _fsspec(
        text, lambda fs, path: fs.isdir(path)
    )


def picture_names(place: str | Path | Pictures) -> set[str]:
    """Names of the files in a folder, whatever they hold, without hidden ones; empty where there is
    no folder. Of `Pictures`: their names.
    """
    if isinstance(place, Pictures):
        return place.names()
    return (
        {entry.name for entry in os.scandir(place) if not entry.name.startswith(".")}
        if os.path.isdir(place)
        else set()
    )


def count_pictures(place: str | Path) -> int:
    """How many files of a folder or archive are pictures by their first bytes; 0 where there is no
    such place.
    """
    return len(whole_names(place))


def whole_names(folder: str | Path) -> set[str]:
    """Paths, from a folder on, of the files that are pictures by their first bytes; empty where
    there is no folder.
    """
    return pictures_at(folder).names() if os.path.exists(folder) else set()


def _one_spelling(path: str) -> str:
    return path if path.isascii() else unicodedata.normalize("NFC", path)


def _hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _differ(entries: Iterable[Entry]) -> bool:
    return len({hashlib.sha256(_bytes(entry.place)).digest() for entry in entries}) > 1


def _bytes(place: Place) -> bytes:
    if remote(place):
        return read_remote(place)
    try:
        return read_file(place)
    except OSError as e:
        raise VwsdError(
            f"cannot read the picture: {e.strerror or e}", place, "Check the path and the disk."
        ) from e


def _kinds(entries: Iterable[Entry]) -> Iterator[Kind]:
    for entry in entries:
        yield entry.kind or _kind(entry.place)


def _kind(place: Place) -> Kind:
    try:
        if isinstance(place, Member):
            return kind_of(_read_member(place, HEAD))
        if remote(place):
            return kind_of(_fsspec(place, lambda fs, path: fs.cat_file(path, start=0, end=HEAD)))
        return kind_of(_head(place))
    except OSError as e:
        return Kind(f"unreadable ({e.strerror or e})")


def _head(path: Place) -> bytes:
    """The first bytes of a regular file, none of anything else."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        return b""
    with open(path, "rb") as f:
        return f.read(HEAD)


# ---------------------------------------------------------------------------- folders


def _below(source: str) -> Iterator[tuple[str, Entry | str]]:
    """(path from the source on, the file, or why it is not opened) of all that lies there."""
    if remote(source):
        yield from _archive(source) if _archive_name(source) else _remote_folder(source)
        return
    if os.path.isdir(source):
        yield from sorted(_folder(source), key=lambda found: found[0])
        return
    head = _local_head(source)
    kind = kind_of(head)
    if _packed(head) or source.endswith(".tar"):
        yield from _archive(source)
    elif kind.readable:
        yield os.path.basename(source), Entry(os.path.basename(source), Path(source), kind)
    else:
        raise VwsdError(
            f"neither a folder nor an archive of pictures: the file is {kind.name}",
            source,
            "Give a folder of image files, a tar or a zip.",
        )


def _local_head(source: str) -> bytes:
    try:
        mode = os.stat(source).st_mode
        if not stat.S_ISREG(mode):
            raise VwsdError(
                f"neither a folder nor an archive of pictures but {_odd_file(mode)}, which is not"
                " opened",
                source,
                "Give a folder, a tar or a zip.",
            )
        return _head(source)
    except OSError as e:
        raise VwsdError(
            f"cannot be read: {e.strerror or e}", source, "Check the path and your rights."
        ) from e


def _folder(root: str) -> Iterator[tuple[str, Entry | str]]:
    """A folder with all below it; folders behind links come last and each folder once, so that no
    circle is walked.
    """
    seen, straight, linked = set(), [("", root)], []
    while straight or linked:
        prefix, here = straight.pop() if straight else linked.pop()
        try:
            status = os.stat(here)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            inside = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as e:
            if not prefix:
                raise VwsdError(
                    f"the folder cannot be read: {e.strerror or e}",
                    here,
                    "Check your rights to it.",
                ) from e
            yield prefix.rstrip("/"), f"in folders that cannot be opened ({e.strerror or e})"
            continue
        folders = []
        for entry in inside:
            path = prefix + entry.name
            try:
                mode = entry.stat().st_mode
            except OSError:
                yield path, LOST_LINKS
                continue
            if stat.S_ISDIR(mode):
                (linked if entry.is_symlink() else folders).append((path + "/", entry.path))
            elif stat.S_ISREG(mode):
                yield path, Entry(path, Path(entry.path))
            else:
                yield path, f"no file but {_odd_file(mode)}"
        straight += reversed(folders)


def _remote_folder(url: str) -> Iterator[tuple[str, Entry]]:
    def find(fs, path: str) -> list[tuple[str, str]]:
        files = fs.find(path) or [
            name for name in fs.ls(path, detail=False) if fs.isfile(name)
        ]  # ls says what is wrong where there is nothing
        start = len(fs._strip_protocol(path).rstrip("/"))
        return [
            (name[start:].lstrip("/") or name.rpartition("/")[2], fs.unstrip_protocol(name))
            for name in sorted(files)
        ]

    for path, place in _fsspec(url, find):
        yield path, Entry(path, place)


# ---------------------------------------------------------------------------- archives


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


def _packed(head: bytes) -> bool:
    kind = kind_of(head)
    return (
        "archive" in kind.name
        and ("zip" in kind.name or "tar" in kind.name)
        or "compressed by" in kind.name
    )


def _archive_name(url: str) -> bool:
    return url.partition("?")[0].endswith(ARCHIVES)


def _open(archive: str) -> BinaryIO:
    if not remote(archive):
        return open(archive, "rb")
    import fsspec

    return _fsspec(
        archive,
        lambda fs, path: (
            fs.open(path, "rb", cache_type="readahead")
            if fs.exists(path)
            else fsspec.open(archive).open()
        ),
    )


def _unpacked(raw: BinaryIO) -> tuple[BinaryIO, str]:
    """The tar inside a file, and the form of the archive (`Member`)."""
    head = raw.read(HEAD)
    raw.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw), "compressed tar"
    if head.startswith(b"BZh"):
        return bz2.BZ2File(raw), "compressed tar"
    if head.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(raw), "compressed tar"
    return raw, "tar"


def _archive(archive: str) -> Iterator[tuple[str, Entry | str]]:
    """A tar's or a zip's members; VwsdError where it is cut short, damaged or none."""
    head = b""
    try:
        with _open(archive) as raw:
            head = raw.read(HEAD)
            raw.seek(0)
            if not head:
                raise VwsdError("the archive is an empty file", archive, AGAIN)
            if head.startswith((b"PK\3\4", b"PK\5\6")):
                yield from _zip_members(archive, raw)
            elif kind_of(head).name.endswith("Zstandard"):
                raise VwsdError(
                    "archives compressed by Zstandard are not read",
                    archive,
                    "Unpack it first: zstd -d.",
                )
            else:
                yield from _tar_members(archive, raw)
    except VwsdError:
        raise
    except DAMAGE as e:
        kind = kind_of(head) if head else NOTHING
        if not _packed(head) and kind.name != UNKNOWN.name:
            raise VwsdError(
                f"no archive: the file is {kind.name}",
                archive,
                "Give a tar or a zip, or the folder of the pictures.",
            ) from e
        raise VwsdError(
            f"the archive is cut short or damaged: {first_line(e)}", archive, AGAIN
        ) from e


def _zip_members(archive: str, raw: BinaryIO) -> Iterator[tuple[str, Entry | str]]:
    with zipfile.ZipFile(raw) as packed:
        seen: dict[str, tuple[int, int]] = {}
        for info in packed.infolist():
            path = _zip_name(info)
            content = (info.CRC, info.file_size)
            if (
                seen.setdefault(info.filename, content) != content
            ):  # by its name only one of them can be read
                raise VwsdError(
                    f"{path} stands twice in the archive with different pictures", archive, AGAIN
                )
            if stat.S_ISLNK(info.external_attr >> 16):
                yield path, "links"
            elif not info.is_dir():
                yield path, Entry(path, Member.of("zip", archive, info.filename, 0, info.file_size))


def _zip_name(info: zipfile.ZipInfo) -> str:
    """A member's name; macOS writes UTF-8 without saying so, which reads like text of an old IBM
    computer.
    """
    if not info.flag_bits & 0x800:
        try:
            return info.filename.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return info.filename


def _tar_members(archive: str, raw: BinaryIO) -> Iterator[tuple[str, Entry | str]]:
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
                files[path] = Entry(path, member, kind_of(stream.read(min(HEAD, info.size))))
                yield path, files[path]
        _check_end(stream, tar.offset, archive)
    for path, info in links:
        target = (
            info.linkname if info.islnk() else os.path.join(os.path.dirname(path), info.linkname)
        )
        entry = files.get(os.path.normpath(target))
        yield path, entry._replace(path=path) if entry else LOST_LINKS


def _check_end(stream: BinaryIO, end: int, archive: str) -> None:
    """A tar ends with blocks of zeros; VwsdError where it stops before, or where something else
    follows them.
    """
    stream.seek(end)
    block = stream.read(BLOCK)
    if len(block) < BLOCK:
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


def _read_member(member: Member, most: int | None = None) -> bytes:
    """A member's bytes, or the first `most` of them; VwsdError where the archive is damaged or
    gone.
    """
    if member.size > MOST_BYTES:
        raise VwsdError(
            f"the file has {member.size:,} bytes, more than a picture may have ({MOST_BYTES:,})",
            member,
            "Save it smaller.",
        )
    wanted = member.size if most is None else min(most, member.size)
    try:
        data = _from_archive(member, wanted)
    except VwsdError:
        raise
    except DAMAGE as e:
        raise VwsdError(f"the archive is damaged or locked: {first_line(e)}", member, AGAIN) from e
    if len(data) != wanted:
        raise VwsdError("the archive is cut short", member, AGAIN)
    return data


def _from_archive(member: Member, wanted: int) -> bytes:
    if member.form == "zip":
        lock, packed = _kept(os.getpid(), member.archive, _state(member.archive))
        with lock, packed.open(member.name) as f:
            return f.read(wanted)
    if member.form == "compressed tar":
        lock, stream = _kept(os.getpid(), member.archive, _state(member.archive))
        with lock:
            stream.seek(member.offset)
            return stream.read(wanted)
    if remote(member.archive):
        return _fsspec(
            member.archive,
            lambda fs, path: fs.cat_file(path, start=member.offset, end=member.offset + wanted),
        )
    with open(member.archive, "rb") as f:
        f.seek(member.offset)
        return f.read(wanted)


@lru_cache(4)
def _kept(
    process: int, archive: str, state: str
) -> tuple[threading.Lock, zipfile.ZipFile | BinaryIO]:
    """An archive that stays open, as long as it is the same, in this process alone: a fork would
    share its position.
    """
    raw = _open(archive)
    zipped = raw.read(2) == b"PK"
    raw.seek(0)
    return threading.Lock(), zipfile.ZipFile(raw) if zipped else _unpacked(raw)[0]


def _state(archive: str) -> str:
    return stamp(archive).partition(JUST_NOW)[0]


def reading_order(place: Place) -> tuple[str, int]:
    """Sorts members of archives by where they lie, so that a compressed one is unpacked once; other
    places stay in order.
    """
    return (place.archive, place.offset) if isinstance(place, Member) else ("", 0)
