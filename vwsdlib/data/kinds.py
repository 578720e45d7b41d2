"""What a file is by its first bytes; a name's ending never decides."""

from __future__ import annotations

import re
from typing import NamedTuple

HEAD = 1024  # bytes of a file that are enough to tell


class Kind(NamedTuple):
    """What a file is: its `name` for people, whether `data.pictures` reads it, and what helps where
    it does not.
    """

    name: str
    readable: bool = False
    remedy: str = ""


CONVERT = "Convert it to JPEG or PNG."
UNPACK = "Unpack it, or name it as the place of the pictures."
PAGE = (
    "A host sent a page in the picture's place: open it in an editor, then fetch the picture again."
)
STILL = "Save one of its frames as JPEG or PNG."
NOTHING = Kind("an empty file", remedy="Fetch it again.")
TEXT = Kind("text", remedy="Look into it; perhaps it says why the picture did not come.")
UNKNOWN = Kind("of no known kind", remedy="Fetch it again or convert it to JPEG or PNG.")

# (offset, bytes there, kind): the first that fits
MAGIC: tuple[tuple[int, bytes, Kind], ...] = (
    (0, b"\xff\xd8\xff", Kind("JPEG", True)),
    (0, b"\x89PNG\r\n\x1a\n", Kind("PNG", True)),
    (0, b"GIF87a", Kind("GIF", True)),
    (0, b"GIF89a", Kind("GIF", True)),
    (8, b"WEBP", Kind("WebP", True)),
    (0, b"II*\0", Kind("TIFF", True)),
    (0, b"MM\0*", Kind("TIFF", True)),
    (0, b"II+\0", Kind("TIFF", True)),
    (0, b"MM\0+", Kind("TIFF", True)),
    (0, b"\xff\x0a", Kind("JPEG XL", remedy=CONVERT)),
    (0, b"\0\0\0\x0cJXL ", Kind("JPEG XL", remedy=CONVERT)),
    (0, b"\0\0\0\x0cjP  ", Kind("JPEG 2000", remedy=CONVERT)),
    (0, b"\xff\x4f\xff\x51", Kind("JPEG 2000", remedy=CONVERT)),
    (0, b"\0\0\1\0", Kind("an icon (ICO)", remedy=CONVERT)),
    (0, b"\0\0\2\0", Kind("a cursor (CUR)", remedy=CONVERT)),
    (0, b"icns", Kind("an icon (ICNS)", remedy=CONVERT)),
    (0, b"8BPS", Kind("Photoshop (PSD)", remedy=CONVERT)),
    (0, b"gimp xcf", Kind("GIMP (XCF)", remedy=CONVERT)),
    (0, b"qoif", Kind("QOI", remedy=CONVERT)),
    (0, b"DDS ", Kind("DDS", remedy=CONVERT)),
    (0, b"\x76\x2f\x31\x01", Kind("OpenEXR", remedy=CONVERT)),
    (0, b"#?RADIANCE", Kind("Radiance HDR", remedy=CONVERT)),
    (0, b"%PDF", Kind("PDF", remedy="Save its page as JPEG or PNG.")),
    (0, b"%!PS", Kind("PostScript", remedy="Save its page as JPEG or PNG.")),
    (0, b"\xc5\xd0\xd3\xc6", Kind("PostScript", remedy="Save its page as JPEG or PNG.")),
    (0, b"\x1f\x8b", Kind("compressed by gzip", remedy=UNPACK)),
    (0, b"BZh", Kind("compressed by bzip2", remedy=UNPACK)),
    (0, b"\xfd7zXZ\0", Kind("compressed by xz", remedy=UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", Kind("compressed by Zstandard", remedy=UNPACK)),
    (0, b"PK\3\4", Kind("a zip archive", remedy=UNPACK)),
    (0, b"PK\5\6", Kind("an empty zip archive", remedy=UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", remedy="Unpack it.")),
    (0, b"Rar!", Kind("a RAR archive", remedy="Unpack it.")),
    (257, b"ustar", Kind("a tar archive", remedy=UNPACK)),
    (0, b"\x1a\x45\xdf\xa3", Kind("a video (WebM, Matroska)", remedy=STILL)),
    (8, b"AVI ", Kind("a video (AVI)", remedy=STILL)),
    (0, b"OggS", Kind("Ogg", remedy=STILL)),
    (0, b"FLV\1", Kind("a video (FLV)", remedy=STILL)),
    (
        0,
        b"\0\5\x16\7",
        Kind(
            "AppleDouble, what macOS keeps beside a file",
            remedy="The picture itself lies beside it.",
        ),
    ),
    (
        0,
        b"version https://git-lfs",
        Kind("a pointer of Git LFS", remedy="Get the file itself: git lfs pull."),
    ),
)
AVIF = Kind("AVIF", True)
HEIF = Kind(
    "HEIF, as phones take photographs",
    remedy="Convert it to JPEG or PNG, or set the phone to take the most compatible format.",
)
VIDEO = Kind("a video (MP4, QuickTime)", remedy=STILL)
BRANDS = {
    b"avif": AVIF,
    b"avis": AVIF,
    b"crx ": Kind("a raw photograph (CR3)", remedy=CONVERT),
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), HEIF),
}
BMP_HEADERS = (
    12,
    16,
    40,
    52,
    56,
    64,
    108,
    124,
)  # bytes of the header that follows, by version of the format
PPM = re.compile(rb"P[1-6]\s+[#\d]|Pf\s+\d")


def kind_of(head: bytes) -> Kind:
    """What a file is that begins with `head` (HEAD bytes of it, or all)."""
    if not head:
        return NOTHING
    for offset, magic, kind in MAGIC:
        if head.startswith(magic, offset):
            return kind
    if head[4:8] == b"ftyp":
        return _of_brand(head)
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in BMP_HEADERS:
        return Kind("BMP", True)
    if PPM.match(head):
        return Kind("PPM", True)
    return _of_text(head)


def _of_brand(head: bytes) -> Kind:
    """An ISO media file by its brands; what a general one is, is said by those that it is
    compatible with.
    """
    length = int.from_bytes(head[:4], "big")
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, min(length, len(head)), 4))]
    if brands[0] in (b"mif1", b"msf1") and (b"avif" in brands or b"avis" in brands):
        return AVIF
    return BRANDS.get(brands[0], VIDEO)


def _of_text(head: bytes) -> Kind:
    if not head.strip(b"\0"):
        return Kind("zeros alone", remedy="Fetch it again.")
    low = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if low.startswith((b"<!doctype html", b"<html")):
        return Kind("a web page", remedy=PAGE)
    if b"<svg" in low:
        return Kind("a drawing in SVG", remedy="Save it as PNG.")
    if low.startswith(b"<?xml"):
        return Kind("XML", remedy=PAGE)
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as e:
        if e.start < len(head) - 3:  # not merely a letter that the end of the head cuts
            return UNKNOWN
    control = sum(byte < 32 and byte not in b"\t\n\r\f" for byte in head)
    return UNKNOWN if control else TEXT
