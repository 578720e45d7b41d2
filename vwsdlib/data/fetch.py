"""Obtains the official files of SemEval-2023 Task 1 and says what is missing.

Text is taken by its SHA-256, whatever its file is called, with the line ends of any system;
pictures by the names that the items need (all of them, where the text is still to come), out of
folders called as published, as `image.N` is another picture in train, trial and test. Sources are
loose files and archives: the organisers' release, or what a user has, here or at a URL. A set may
come in pieces, over several calls and in any order.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path, PurePath, PurePosixPath
from shutil import copyfile

from ..errors import VwsdError
from ..paths import atomic, data_dir, quiet, sha256_bytes, write_bytes, write_text
from ..progress import tqdm
from .archives import DAMAGE, zip_name
from .items import image_names, read_items
from .kinds import HEAD, kind_of
from .official import (
    GOLD_APART,
    GOLD_PACKAGE,
    OFFICIAL,
    OFFICIAL_FILES,
    PAGE,
    RENAMED,
    RENAMED_PICTURES,
    VARIANT_RECORD,
    image_variant,
    is_official,
    published_bytes,
)
from .places import remote
from .sources import MACOS_FOLDER, picture_names, whole_names

RELEASE = "https://github.com/asahi417/visual-wsd-baseline/releases/download"
TRIAL = f"{RELEASE}/dataset-v2/semeval-2023-task-1-V-WSD-trial-v1.tar.gz"
# (split, text or variant) -> archive; the rest is linked from the page, to drives that want a
# browser
RELEASED = {
    ("test", "text"): f"{RELEASE}/dataset-test/test.data.v1.1.zip",
    ("test", "resized"): f"{RELEASE}/dataset-test/test_images_resized.zip",
    ("trial", "text"): TRIAL,
    ("trial", "original"): TRIAL,
}
# (split, what) -> what the page calls the download; "": whatever of the split
BY_HAND = {
    ("test", "gold"): GOLD_PACKAGE,
    ("test", "text"): "the test data",
    ("test", "resized"): "the resized test images (572 MB)",
    ("test", ""): "the test images (10.4 GB)",
    ("train", ""): "the train+trial data (17 GB, text and pictures)",
    ("trial", ""): "the trial data",
}
# name of a folder of pictures as published -> variant; the default first
FOLDERS = {
    "test": {"test_images_resized": "resized", "test_images": "original"},
    "trial": {"all_images": "original", "trial_images_v1": "original"},
    "train": {"train_images_v1": "original"},
}
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
A_PICTURE = re.compile(r"image\.\d+\.\w+")  # as all pictures of the task are called
# what browsers and file managers put behind the name of a second copy: "images (1)", "images 2"
COPY = re.compile(r"( \(\d+\)| \d+)$")
# names under which the release lies in a user's folder; what lies beside is not opened
RELEASE_LIKE = re.compile(r"gold|v-?wsd|test\.data|semeval|(train|trial)[._]", re.IGNORECASE)
# bytes of one text or picture in an archive; the largest that was published has 24 MB
MOST_OF_A_FILE = 200 << 20
MOST_OF_A_DOWNLOAD = 20 << 30  # bytes; the largest archive that was published has 17 GB
AGAIN = "Remove it and fetch it again."
NETWORK = (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
TRIES, PAUSE, TIMEOUT, CHUNK = 4, 2.0, 60, 1 << 20  # pause and timeout in seconds
Wanted = Callable[[PurePosixPath], bool]


def fetch_vwsd(
    split: str = "test", source: str | Path | None = None, images: str | None = None
) -> list[dict]:
    """Bring a split's text and pictures to `data/vwsd/<split>/`, from the release or from `source`
    (a folder, an archive, or the URL of an archive).

    `images`: original or resized; by default as recorded, else what `source` has, else resized.
    Text that `source` lacks is looked for beside it. Returns what `check_official` says afterwards.
    Raises VwsdError when a host refuses, an archive is damaged or two variants would be mixed.
    """
    variants = list(FOLDERS[split].values())
    given = _given(source)
    if images and images not in variants:
        raise VwsdError(
            f"the {split} pictures were never published as {images}",
            remedy=f"Leave --images away: {variants[0]} is all there is.",
        )
    different = _take_texts(split, lambda: given or _released(split, "text"))
    for beside in _beside(given):
        _take_texts(split, lambda beside=beside: beside, lenient=True)
    variant = _agree(split, images) or (None if given else variants[0])
    _take_pictures(split, variant, lambda: given or _released(split, variant), different)
    if remote(source):
        given.unlink()
        given.parent.rmdir()
    states = check_official(split, different, variant, "here" if given else "release")
    if all(row["state"] == "OK" for row in states):
        for kind in ("text", variant):
            _download_path(split, kind).unlink(missing_ok=True)
    return states


def _given(source: str | Path | None) -> Path | None:
    """Where the files lie that were given; an archive at a URL is downloaded first."""
    if source is None:
        return None
    if remote(source):
        name = str(source).partition("?")[0].rstrip("/").rpartition("/")[2]
        path = _downloads() / sha256_bytes(str(source).encode())[:12] / name
        return path if path.exists() else download(str(source), path)
    if not Path(source).exists():
        remedy = "Give the folder that holds the official files, unpacked or not."
        raise VwsdError("no such folder or archive", source, remedy)
    return Path(source)


def _beside(given: Path | None) -> list[Path]:
    """What lies beside the given folder or archive under a name of the release; no large archive,
    as text is small.
    """
    if given is None:
        return []
    given = given.resolve()
    try:
        there = sorted(given.parent.iterdir())
    except OSError:  # a folder that may be entered, and not listed
        return []
    alike = [path for path in there if path != given and RELEASE_LIKE.search(path.name)]
    return [path for path in alike if path.is_dir() or path.stat().st_size < MOST_OF_A_FILE]


# ---------------------------------------------------------------------------- what is there


def check_official(
    split: str,
    different: set[str] = frozenset(),
    variant: str | None = None,
    tried: str = "",
) -> list[dict]:
    """One dict (`check`, `state`: OK, DIFFERENT or MISSING, `what`, `remedy`) a text file and a
    language's pictures; no network.

    `different`: names of text files that were met with other bytes than published, and left where
    they are. `tried`: where the files were just looked for, the "release" or "here" in files that
    were given, so that no remedy is to try that again.
    """
    folder = _folder(split)
    variant = image_variant(folder) or variant or next(iter(FOLDERS[split].values()))
    rows = []
    for name in _texts(split):
        apart = name in GOLD_APART
        remedy = _remedy(split, "gold" if apart else "text", variant, tried)
        rows.append(_text_state(folder / name, name in different, remedy))
    for part in _parts(split):
        known = (folder / OFFICIAL_FILES[part][0]).exists()
        remedy = _remedy(split, variant if known else "text", variant, tried)
        rows.append(_pictures_state(folder, part, remedy))
    return rows


def _parts(split: str) -> list[tuple[str, str]]:
    """The (language, split) of which the official set has files."""
    return [part for part in OFFICIAL_FILES if part[1] == split]


def _text_state(path: Path, different: bool, remedy: str) -> dict:
    row = {"check": path.name, "state": "MISSING", "what": path.name, "remedy": remedy}
    if path.exists() and is_official(path):
        return row | {"state": "OK", "what": f"{path.name} as published", "remedy": ""}
    if path.exists() or different:
        what = f"{path.name} is not byte for byte the published file"
        return row | {"state": "DIFFERENT", "what": what}
    return row


def _pictures_state(folder: Path, part: tuple[str, str], remedy: str) -> dict:
    language, split = part
    data, _, images = OFFICIAL_FILES[part]
    row = {"check": f"pictures {split} {language}", "state": "MISSING", "remedy": remedy}
    if not (folder / data).exists():
        return row | {"what": f"pictures of {language} {split}: unknown without {data}"}
    needed, present = image_names(read_items(folder / data)), whole_names(folder / images)
    missing = [name for name in needed if name not in present]
    kind = f" ({image_variant(folder) or 'as stored'})" if present else ""
    have = len(needed) - len(missing)
    what = f"pictures of {language} {split}{kind}: {have:,} of {len(needed):,}"
    if not missing:
        return row | {"what": what, "state": "OK", "remedy": ""}
    first = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
    return row | {"what": f"{what}, without {first}"}


def _remedy(split: str, what: str, variant: str, tried: str) -> str:
    """Where a missing text, gold or variant of the pictures is to be had; never where it was just
    looked for.
    """
    command = f"vwsd fetch vwsd --split {split}"
    if len(set(FOLDERS[split].values())) > 1:
        command += f" --images {variant}"
    if (split, what) in RELEASED and tried != "release":
        return (
            f"{command}{', which downloads it' if tried else ' (with --from DIR if you have it)'}"
        )
    package = BY_HAND.get((split, what)) or BY_HAND[split, ""]
    return f"download {package} from {PAGE}, then {command} --from DIR"


def _folder(split: str) -> Path:
    return data_dir() / "vwsd" / split


def _images(split: str) -> Path:
    return _folder(split) / OFFICIAL_FILES["en", split][2]  # one folder for all languages


def _texts(split: str) -> list[str]:
    names = []
    for part in _parts(split):
        names += OFFICIAL_FILES[part][:2]
    return names


def _missing(split: str) -> set[str] | None:
    """Names of the pictures that are not there, of all items; None where a text is not there, and
    nobody can tell.
    """
    needed: set[str] = set()
    for part in _parts(split):
        path = _folder(split) / OFFICIAL_FILES[part][0]
        if not path.exists():
            return None
        needed.update(image_names(read_items(path)))
    return needed - whole_names(_images(split))


# ---------------------------------------------------------------------------- taking files


def _take_texts(split: str, source: Callable[[], Path | None], lenient: bool = False) -> set[str]:
    """Put official text files in place; returns the names of those met with other bytes only.
    lenient: an archive that cannot be read is passed over.
    """
    folder, met = _folder(split), set()
    wanted = {}
    for name in _texts(split):
        if not (folder / name).exists() or not is_official(folder / name):
            wanted[OFFICIAL[name]] = name
    if not wanted:
        return met
    for path, content in _files(source(), _is_text, lenient):
        data = content.read_bytes() if isinstance(content, Path) else content
        met.add(RENAMED.get(path.name, path.name))
        published = published_bytes(data, wanted)
        if published is not None:
            write_bytes(folder / wanted.pop(sha256_bytes(published)), published)
        if not wanted:
            break
    return met & set(wanted.values())


def _is_text(path: PurePosixPath) -> bool:
    return path.suffix.lower() == ".txt"


def _agree(split: str, asked: str | None) -> str | None:
    """The variant to take: as asked or as recorded, None where neither; VwsdError where that would
    mix two.
    """
    recorded = image_variant(_folder(split))
    if not picture_names(_images(split)):
        return asked
    if recorded and asked not in (None, recorded):
        raise VwsdError(
            f"the folder holds the {recorded} pictures; {asked} ones are never mixed with them",
            _images(split),
            f"Remove that folder first, or go on with --images {recorded}.",
        )
    if not (recorded or asked) and _missing(split) != set():
        raise VwsdError(
            "the folder holds pictures, but no record says of which size",
            _images(split),
            (
                f"Say it with --images {' or '.join(dict.fromkeys(FOLDERS[split].values()))}, or"
                " remove that folder."
            ),
        )
    if asked and not recorded:
        _record(split, asked)
    return asked or recorded


def _record(split: str, variant: str) -> None:
    write_text(_folder(split) / VARIANT_RECORD, json.dumps({"variant": variant}) + "\n")


def _take_pictures(
    split: str, variant: str | None, source: Callable[[], Path | None], different: set[str]
) -> None:
    """Put the pictures that items need in place, all where that is not known yet; the variant
    (where None: of the first one met) is recorded before the first of them.

    `different`: text that was met with other bytes; pictures of a package whose text is another one
    are left alone, as its `image.N` may be another picture.
    """
    missing = _missing(split)
    if missing == set():
        return
    there = whole_names(_images(split)) if missing is None else set()
    others = {RENAMED_PICTURES} if set(RENAMED.values()) & different else set()

    def wanted(path: PurePosixPath) -> bool:
        name, home = path.name, path.parent.name
        if home in others or name in there or not A_PICTURE.fullmatch(name):
            return False
        if missing is not None and name not in missing:
            return False
        return _variant_of(path, split) in ([variant] if variant else FOLDERS[split].values())

    total = None if missing is None else len(missing)
    bar = tqdm(total=total, desc=f"{split} pictures", unit=" pictures", disable=quiet())
    with bar:
        for path, content in _files(source(), wanted):
            variant = _variant_of(path, split)
            if image_variant(_folder(split)) != variant:
                _record(split, variant)
            _place(content, _images(split) / path.name)
            there.add(path.name)
            bar.update()
            if missing is not None and missing <= there:
                break


def _variant_of(path: PurePosixPath, split: str) -> str | None:
    """original or resized by the name of the published folder, unless a record of ours stands
    beside it; None: not of this split.
    """
    home = path.parent
    variant = FOLDERS[split].get(COPY.sub("", home.name))
    recorded = image_variant(home.parent) if variant and isinstance(home, Path) else None
    return recorded or variant


def _place(content: Path | bytes, target: Path) -> None:
    """Write a file, or link it where the disk allows: 10 GB need not lie there twice."""
    if isinstance(content, bytes):
        write_bytes(target, content)
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(content.resolve(), target)
    except OSError:  # another disk, or one without links
        with atomic(target) as temporary:
            copyfile(content, temporary)


def _files(
    source: Path | None, wanted: Wanted, lenient: bool = False
) -> Iterator[tuple[PurePath, Path | bytes]]:
    """Every wanted file below a folder or in an archive: loose ones as paths, then bytes out of
    archives. Nothing is unpacked by its own path, nor what macOS keeps beside files.

    An archive that cannot be read is a VwsdError; with `lenient` it is passed over.
    """
    if source is None:
        return
    source = source.resolve()
    paths, archives = [source], []
    if not source.is_file():
        paths = sorted(p for p in source.rglob("*") if p.is_file())
    for path in paths:
        if path.name.lower().endswith(ARCHIVES) or path == source and _packed(path):
            archives.append(path)
        elif not _macos(path) and wanted(path):
            yield path, path
    for path in archives:
        try:
            yield from _members(path, lambda inner: not _macos(inner) and wanted(inner))
        except DAMAGE as e:
            if not lenient:
                what = f"the archive is damaged or locked: {e}"
                raise VwsdError(what, path, AGAIN) from e
        except VwsdError:
            if not lenient:
                raise


def _packed(path: Path) -> bool:
    """Is a file an archive by its first bytes?"""
    with open(path, "rb") as f:
        return bool(kind_of(f.read(HEAD)).packing)


def _macos(path: PurePosixPath) -> bool:
    return path.name.startswith("._") or MACOS_FOLDER in path.parts


def _members(path: Path, wanted: Wanted) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Wanted members of an archive, which its content and not its name says how to read; VwsdError
    for what is none.
    """
    with open(path, "rb") as f:
        head = f.read(512)
    if not head:
        raise VwsdError("the archive is an empty file", path, AGAIN)
    if head.lstrip().startswith(b"<"):
        raise VwsdError(
            "a web page lies in the archive's place",
            path,
            "The host sent it instead, its quota may be used up: remove it, and download the"
            f" archive by hand from {PAGE}.",
        )
    yield from (_zipped if head.startswith(b"PK") else _tarred)(path, wanted)


def _zipped(path: Path, wanted: Wanted) -> Iterator[tuple[PurePosixPath, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = zip_name(member)
            inner = _inside(path, name)
            if not name.endswith("/") and wanted(inner):
                _bounded(path, member.filename, member.file_size)
                yield inner, archive.read(member)  # no more than it announces; checks the CRC


def _tarred(path: Path, wanted: Wanted) -> Iterator[tuple[PurePosixPath, bytes]]:
    with tarfile.open(path, "r|*") as archive:  # as a stream: read once, front to back
        for member in archive:
            inner = _inside(path, member.name)
            if member.isfile() and wanted(inner):
                _bounded(path, member.name, member.size)
                yield inner, archive.extractfile(member).read()


def _bounded(path: Path, member: str, size: int) -> None:
    """VwsdError for a member that would fill the memory, before any of it is read."""
    if size > MOST_OF_A_FILE:
        what = f"'{member}' in the archive unpacks to {size / 1e6:,.0f} MB, no text and no picture"
        raise VwsdError(what, path, AGAIN)


def _inside(archive: Path, member: str) -> PurePosixPath:
    """A member's path below its archive's name, which stands for the folder where files lie
    flat."""
    return PurePosixPath(archive.name.split(".")[0]) / member.removeprefix("./")


# ---------------------------------------------------------------------------- downloading


def _downloads() -> Path:
    return data_dir() / "vwsd" / ".downloads"


def _download_path(split: str, kind: str | None) -> Path:
    return _downloads() / RELEASED.get((split, kind), "none").rpartition("/")[2]


def _released(split: str, kind: str) -> Path | None:
    """An archive of the release, downloaded where it is not here yet; None for what can only be had
    with a browser.
    """
    if (split, kind) not in RELEASED:
        return None
    path = _download_path(split, kind)
    return path if path.exists() else download(RELEASED[split, kind], path)


def download(url: str, target: Path) -> Path:
    """An archive from `url` to `target` by way of `<target>.part`, going on where a broken download
    stopped.

    Raises VwsdError when the host refuses, cannot be reached in `TRIES` tries, or sends a page in
    place of an archive.
    """
    part = target.with_name(f"{target.name}.part")
    by_hand = f"Download it by hand ({PAGE} has the links), then run `vwsd fetch vwsd --from DIR`."
    for attempt in range(TRIES):
        last = attempt == TRIES - 1
        try:
            _stream(url, part)
            break
        except NETWORK as e:  # HTTPError is one of them
            code = getattr(e, "code", 0)
            if 400 <= code < 500:
                what = f"the host refuses: HTTP {code} {e.reason}"
                raise VwsdError(what, url, by_hand) from e
            if last:
                what = f"the download failed {TRIES} times: {getattr(e, 'reason', e)}"
                raise VwsdError(what, url, f"Run it again to go on. {by_hand}") from e
        except OSError as e:
            what = f"cannot write the download: {e.strerror or e}"
            raise VwsdError(what, part, "Free some space; what came so far is kept.") from e
        time.sleep(PAUSE * 2**attempt)
    with open(part, "rb") as f:
        start = f.read(2)
    if start not in (b"PK", b"\x1f\x8b"):  # zip, gzip
        part.unlink()
        raise VwsdError(
            "the host sent a page instead of an archive (its quota may be used up)", url, by_hand
        )
    os.replace(part, target)
    return target


def _stream(url: str, part: Path) -> None:
    """Append to `part` what is missing of `url`; raises ConnectionError when less than announced
    came.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "vwsd"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as e:
        if e.code != 416 or not have:
            raise
        part.unlink()  # what we have is no part of what the host has
        raise ConnectionError("the file on the host is another one now") from e
    sent_range = response.headers["Content-Range"] or ""
    if response.status != 206 or not sent_range.startswith(f"bytes {have}-"):
        have = 0
    announced = response.headers["Content-Length"] or ""
    if announced and not announced.isdecimal():
        raise ConnectionError(f"the host announces {announced!r} bytes")
    total = have + int(announced) if announced else None
    sizes = {"unit": "B", "unit_scale": True, "total": total, "initial": have}
    bar = tqdm(desc=part.stem, disable=quiet(), **sizes)
    with response, bar, open(part, "ab" if have else "wb") as f:
        while chunk := response.read(CHUNK):
            bar.update(f.write(chunk))
            if f.tell() > MOST_OF_A_DOWNLOAD:
                most = f"{MOST_OF_A_DOWNLOAD >> 30} GB"
                raise VwsdError(
                    f"the host sends more than {most}, which no published archive has",
                    url,
                    f"Remove {part}, and download the archive by hand ({PAGE} has the links).",
                )
        if total is not None and f.tell() != total:
            raise ConnectionError(f"{f.tell():,} of {total:,} bytes came")
