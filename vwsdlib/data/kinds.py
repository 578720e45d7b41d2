"""What a file is by its first bytes (`kinds.yml`); a name's ending never decides."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from ..paths import packaged

HEAD = 1024  # bytes of a file that are enough to tell
# bytes of the header that follows in a BMP, by version of the format
BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
PPM = re.compile(rb"P[1-6]\s+[#\d]|Pf\s+\d")


class Kind(NamedTuple):
    """What a file is: its `name` for people, whether `data.pictures` reads it, what helps where it
    does not, and how it is packed: gzip, bzip2, xz, zstd, zip, tar or, where it is no archive, "".
    """

    name: str
    readable: bool = False
    remedy: str = ""
    packing: str = ""


Start = tuple[int, bytes, Kind]  # bytes at a place of the file, and what they tell


@cache
def _tables() -> dict:
    return packaged("data/kinds.yml")


def _kind(entry: dict) -> Kind:
    remedy = entry.get("remedy", "")
    remedy = _tables()["remedies"].get(remedy, remedy)
    return Kind(entry["name"], entry.get("readable", False), remedy, entry.get("packing", ""))


@cache
def _starts(table: str) -> list[Start]:
    starts = []
    for entry in _tables()[table]:
        for start in entry["starts"]:
            starts.append((entry.get("at", 0), start.encode("latin-1"), _kind(entry)))
    return starts


def _first(table: str, head: bytes) -> Kind | None:
    fitting = (kind for at, start, kind in _starts(table) if head.startswith(start, at))
    return next(fitting, None)


@cache
def other_kind(name: str) -> Kind:
    """What has no first bytes of its own: "nothing" (an empty file), "unknown", "text" ..."""
    return _kind(_tables()["others"][name])


def kind_of(head: bytes) -> Kind:
    """What a file is that begins with `head` (HEAD bytes of it, or all)."""
    if not head:
        return other_kind("nothing")
    kind = _first("kinds", head)
    if kind:
        return kind
    if head[4:8] == b"ftyp":
        return _of_brand(head)
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in BMP_HEADERS:
        return other_kind("bmp")
    return other_kind("ppm" if PPM.match(head) else _of_text(head))


def no_text(data: bytes) -> Kind | None:
    """What lies where a text file is needed, with what to do; None for what may be text."""
    return _first("no_text", data)


def _of_brand(head: bytes) -> Kind:
    """An ISO media file by its brands; what a general one is, is said by those that it is
    compatible with.
    """
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brand, compatible = head[8:12], [head[at : at + 4] for at in range(16, length, 4)]
    if brand in (b"mif1", b"msf1") and (b"avif" in compatible or b"avis" in compatible):
        brand = b"avif"
    kind = _first("brands", brand)
    if kind is None:
        raise AssertionError("the last of the table's brands is every beginning")
    return kind


def _of_text(head: bytes) -> str:
    """A name of `other_kind` for what no first bytes tell."""
    if not head.strip(b"\0"):
        return "zeros"
    low = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if low.startswith((b"<!doctype html", b"<html")):
        return "page"
    if b"<svg" in low:
        return "svg"
    if low.startswith(b"<?xml"):
        return "xml"
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as e:
        if e.start < len(head) - 3:  # not merely a letter that the end of the head cuts
            return "unknown"
    control = sum(byte < 32 and byte not in b"\t\n\r\f" for byte in head)
    return "unknown" if control else "text"
