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

import glob
import hashlib
import os
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import VwsdError
from .archives import LOST_LINKS, Listed, members, named_as_archive, read_member, read_place
from .kinds import HEAD, Kind, kind_of
from .places import (  # noqa: F401  (the vector store knows those of one place from here)
    FileEntry,
    Member,
    Place,
    head_of,
    lasting,
    odd_file,
    on_disk,
    reading_order,
    remote,
    stamp,
    with_fsspec,
)

MACOS, MACOS_FOLDER = "what macOS keeps beside files", "__MACOSX"
HIDDEN = "hidden (the name begins with a dot)"
REMEDIES = {
    IsADirectoryError: "Name a picture inside the folder.",
    PermissionError: "Give yourself the right to read it (chmod u+r).",
}
QUOTE = "Quote the pattern, as in --images"


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
        only = len(self.sources) == 1 and os.path.isdir(self.sources[0])
        return Path(self.sources[0]) if only else None

    @cached_property
    def _read(self) -> tuple[list[FileEntry], dict[str, list[str]]]:
        entries, odd = [], defaultdict(list)
        for source in self.sources:
            for path, what in _below(source):
                parts = path.split("/")
                if MACOS_FOLDER in parts or parts[-1].startswith("._"):
                    odd[MACOS].append(path)
                elif isinstance(what, FileEntry):
                    entries.append(what)
                else:
                    odd[what].append(path)
        return entries, dict(odd)

    @property
    def entries(self) -> list[FileEntry]:
        """The files, archive by archive in their order, folders in the order of names; without what
        is never opened.
        """
        return self._read[0]

    @cached_property
    def _by_name(self) -> dict[str, list[FileEntry]]:
        by_name = defaultdict(list)
        for entry in self.entries:
            by_name[_one_spelling(entry.path).rpartition("/")[2]].append(entry)
        return by_name

    @cached_property
    def _looked_up(self) -> dict[str, Place | None]:
        return {}

    @cached_property
    def shadowed(self) -> dict[str, str]:
        """Of the names looked for so far: those that stand elsewhere below as well, with other
        bytes -> where.
        """
        return {}

    def find(self, name: str) -> Place | None:
        """Where the picture of a name lies, None where nowhere; VwsdError where files of that name
        differ and none stands right there.
        """
        if name not in self._looked_up:
            self._looked_up[name] = self._search(name)
        return self._looked_up[name]

    def _search(self, name: str) -> Place | None:
        wanted = _one_spelling(name).removeprefix("./")
        alike = self._by_name.get(wanted.rpartition("/")[2], [])
        there = [e for e in alike if _one_spelling(e.path) == wanted]
        below = [e for e in alike if _ends_with(e.path, wanted)]
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
        if not self.folder or "/" not in wanted or wanted.startswith("/"):
            return None
        if ".." in wanted.split("/") or MACOS_FOLDER in wanted:
            return None
        path = self.folder / wanted
        return path if path.is_file() else None

    def __truediv__(self, name: str) -> Place:
        place = self.find(name)
        if place is None:
            low, remedy = _one_spelling(name).casefold(), "Name all of the set's pictures."
            twins = [e.path for e in self.entries if e.path.casefold().endswith(low)]
            if twins:
                remedy = f"Names keep their case: {', '.join(twins[:3])} is there."
            raise VwsdError(f"{name} is not there", self.name, remedy)
        return place

    def names(self) -> set[str]:
        """Paths, from the place on, of all files that are pictures and not hidden."""
        return {entry.path for entry in self.pictures}

    @cached_property
    def _sorted_out(self) -> tuple[list[FileEntry], dict[str, list[str]]]:
        pictures, left_out = [], defaultdict(list)
        for why, paths in self._read[1].items():
            left_out[why] = list(paths)
        left_out[HIDDEN] += [entry.path for entry in self.entries if _hidden(entry.path)]
        for entry in self.entries:
            if _hidden(entry.path):
                continue
            kind = entry.kind or _kind(entry.place)
            if kind.readable:
                pictures.append(entry)
            else:
                left_out[kind.name].append(entry.path)
        return pictures, {why: paths for why, paths in left_out.items() if paths}

    @property
    def pictures(self) -> list[FileEntry]:
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
        remedy = "The place is empty."
        if self.left_out:
            remedy = f"What is there is left out: {_listed(self.left_out)}."
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
        raise VwsdError("no shard fits the pattern", place, f"{QUOTE} 'train-*.tar'.")
    return Pictures(str(place), tuple(matches))


def _refuse_missing(place: Place, text: str) -> None:
    if os.path.islink(text):
        what = "a link that leads nowhere, or in a circle"
        raise VwsdError(what, place, "Give the folder or archive that it should lead to.")
    if named_as_archive(text):
        raise VwsdError("no such archive of pictures", place, "Check the path.")
    remedy = "Give the folder or the archive that holds the image files of this set."
    raise VwsdError("no such folder of pictures", place, remedy)


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

    def matching(fs, path: str) -> list[str]:
        return [url] if fs.exists(path) else [fs.unstrip_protocol(p) for p in fs.glob(path)]

    urls = with_fsspec(url, matching)
    if not urls:
        raise VwsdError("no shard fits the pattern", url, f"{QUOTE} 's3://bucket/train-*.tar'.")
    return sorted(urls)


def pictures_named(given: Iterable[Place]) -> tuple[list[tuple[str, Place]], list[str]]:
    """Single pictures out of files, folders, archives, patterns and URLs: (name, place) each in
    order, and notes on what is left out.

    A file is taken as it is named, whatever it holds. VwsdError for a folder or an archive without
    a picture.
    """
    pictures, notes = [], []
    for each in given:
        if _one_picture(each):
            pictures.append((str(each), on_disk(each)))
            continue
        at = pictures_at(each)
        if not at.pictures:
            raise at.none_here()
        for entry in at.pictures:
            name = os.path.join(each, entry.path) if at.folder else str(entry.place)
            pictures.append((name, entry.place))
        notes.append(at.note())
    return pictures, [note for note in notes if note]


def _one_picture(given: Place) -> bool:
    """Whether it names one file and no folder, archive or pattern."""
    place = on_disk(given)
    if not remote(place):
        path = os.path.expanduser(place)
        if os.path.isdir(path):
            return False
        if os.path.exists(path):
            return not kind_of(head_of(path)).packing
        return not glob.has_magic(os.fspath(place))
    text = str(place)
    if text.partition("::")[1]:
        return not text.partition("::")[0].endswith("://")
    if text.endswith("/") or glob.has_magic(text.partition("?")[0]) or named_as_archive(text):
        return False
    if text.startswith(("http://", "https://")):
        return True
    return not with_fsspec(text, lambda fs, path: fs.isdir(path))


def picture_names(place: str | Path | Pictures) -> set[str]:
    """Names of the files in a folder, whatever they hold, without hidden ones; empty where there is
    no folder. Of `Pictures`: their names.
    """
    if isinstance(place, Pictures):
        return place.names()
    if not os.path.isdir(place):
        return set()
    return {entry.name for entry in os.scandir(place) if not entry.name.startswith(".")}


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


def _ends_with(path: str, wanted: str) -> bool:
    """Is it the file `wanted` of a folder that is not hidden?"""
    return _one_spelling(path).endswith(f"/{wanted}") and not _hidden(path[: -len(wanted)])


def _differ(entries: Iterable[FileEntry]) -> bool:
    return len({hashlib.sha256(picture_bytes(entry.place)).digest() for entry in entries}) > 1


def picture_bytes(place: Place) -> bytes:
    """A picture's bytes (`archives.read_place`), or a VwsdError that says what to do."""
    place = place if remote(place) else Path(place)
    try:
        return read_place(place)
    except FileNotFoundError as e:
        raise VwsdError("no such picture", place, _beside(place)) from e
    except OSError as e:
        what = f"cannot read the picture: {e.strerror or e}"
        raise VwsdError(what, place, REMEDIES.get(type(e), "Check the path and the disk.")) from e


def _beside(path: Path) -> str:
    """The remedy for a missing picture: its twin in other case when there is one."""
    # glob, unlike iterdir, gives nothing for a folder that is missing or closed
    same = path.name.casefold()
    twins = sorted(p.name for p in path.parent.glob("*") if p.name.casefold() == same)
    if twins:
        return f"Names keep their case: {', '.join(twins)} is there."
    return "Check the folder; fetch the set again."


def _kind(place: Place) -> Kind:
    try:
        if isinstance(place, Member):
            return kind_of(read_member(place, HEAD))
        if remote(place):
            return kind_of(
                with_fsspec(place, lambda fs, path: fs.cat_file(path, start=0, end=HEAD))
            )
        return kind_of(head_of(place))
    except OSError as e:
        return Kind(f"unreadable ({e.strerror or e})")


def _below(source: str) -> Iterator[Listed]:
    """(path from the source on, the file, or why it is not opened) of all that lies there."""
    if remote(source):
        yield from members(source) if named_as_archive(source) else _remote_folder(source)
        return
    if os.path.isdir(source):
        yield from sorted(_folder(source), key=lambda listed: listed[0])
        return
    kind = _kind_of_source(source)
    if kind.packing or source.endswith(".tar"):
        yield from members(source)
    elif kind.readable:
        yield os.path.basename(source), FileEntry(os.path.basename(source), Path(source), kind)
    else:
        what = f"neither a folder nor an archive of pictures: the file is {kind.name}"
        raise VwsdError(what, source, "Give a folder of image files, a tar or a zip.")


def _kind_of_source(source: str) -> Kind:
    try:
        mode = os.stat(source).st_mode
        if not stat.S_ISREG(mode):
            what = "neither a folder nor an archive of pictures but"
            remedy = "Give a folder, a tar or a zip."
            raise VwsdError(f"{what} {odd_file(mode)}, which is not opened", source, remedy)
        return kind_of(head_of(source))
    except OSError as e:
        what = f"cannot be read: {e.strerror or e}"
        raise VwsdError(what, source, "Check the path and your rights.") from e


def _folder(root: str) -> Iterator[Listed]:
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
                what = f"the folder cannot be read: {e.strerror or e}"
                raise VwsdError(what, here, "Check your rights to it.") from e
            yield prefix.rstrip("/"), f"in folders that cannot be opened ({e.strerror or e})"
            continue
        folders = []
        for entry in inside:
            path = prefix + entry.name
            mode = _mode(entry)
            if stat.S_ISDIR(mode):
                (linked if entry.is_symlink() else folders).append((path + "/", entry.path))
            elif stat.S_ISREG(mode):
                yield path, FileEntry(path, Path(entry.path))
            else:
                yield path, f"no file but {odd_file(mode)}" if mode else LOST_LINKS
        straight += reversed(folders)


def _mode(entry: os.DirEntry) -> int:
    """The mode of what an entry of a folder leads to, 0 for nowhere."""
    try:
        return entry.stat().st_mode
    except OSError:
        return 0


def _remote_folder(url: str) -> Iterator[tuple[str, FileEntry]]:
    def below(fs, path: str) -> list[FileEntry]:
        names = fs.find(path)
        if not names:  # ls says what is wrong where there is nothing
            names = [name for name in fs.ls(path, detail=False) if fs.isfile(name)]
        start, entries = len(fs._strip_protocol(path).rstrip("/")), []
        for name in sorted(names):
            inner = name[start:].lstrip("/") or name.rpartition("/")[2]
            entries.append(FileEntry(inner, fs.unstrip_protocol(name)))
        return entries

    for entry in with_fsspec(url, below):
        yield entry.path, entry
