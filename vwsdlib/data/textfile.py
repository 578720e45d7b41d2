"""Text files that users bring: read with a bound, and named for what they are where they are no
UTF-8 text.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from ..errors import VwsdError

STREAMS = ("/dev/fd/", "/dev/stdin", "/proc/")  # what a shell puts for <(command)
MOST_BYTES = 512 << 20  # of a text file; a corpus of SemCor's sentences has 150 MB
MOST_TABLE = (
    64 << 20
)  # of a set or of predictions; the largest of the task, the training data, has 4 MB
REFETCH = "Take the files again as they were published, data and gold of the same version."
OFFICIAL_NAME = re.compile(
    r"(?:(en|it|fa)\.test|train|trial)\.(?:data|gold)(?:\.v[\d.]+)?\.txt", re.I
)
WIDE = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")  # byte order marks of UTF-16 and UTF-32
BINARY = {  # first bytes -> what the file is, what to do
    b"PK\x03\x04": (
        "a zip archive or an Excel workbook, a text file is needed",
        "Unpack it, or save the sheet as CSV.",
    ),
    b"\x1f\x8b": ("compressed with gzip, a text file is needed", "Unpack it with gunzip."),
    b"PAR1": ("a Parquet file, a text file is needed", "Write the table as TSV, CSV or JSON."),
    b"%PDF": ("a PDF, a text file is needed", "Give the text file."),
    b"\x89PNG": ("a picture, a text file is needed", "Give the text file."),
    b"\xff\xd8\xff": ("a picture, a text file is needed", "Give the text file."),
    b"\xd0\xcf\x11\xe0": (
        "an old Excel or Word file, a text file is needed",
        "Save the sheet as CSV.",
    ),
}


def remedy_for(path: str | Path, otherwise: str) -> str:
    """What to do about a fault in a text file: fetch a published one again, mend a user's own as
    `otherwise` says.
    """
    return REFETCH if OFFICIAL_NAME.fullmatch(Path(path).name) else otherwise


def read_bounded(path: str | Path, most: int = MOST_BYTES) -> bytes:
    """All bytes of a file; VwsdError where there is none, it cannot be read, or it holds more than
    `most` bytes.
    """
    path = Path(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise VwsdError("this is a folder, a text file is needed", path, "Name a file in it.")
        if stat.S_ISFIFO(status.st_mode) and not os.fspath(path).startswith(STREAMS):
            raise VwsdError("this is a named pipe, which is not opened", path, "Name a file.")
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            raise VwsdError("this is a device, a text file is needed", path, "Name a file.")
        if status.st_size > most:
            raise _too_large(path, most)
        with open(path, "rb") as f:
            data = f.read(most + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise VwsdError("no such file", path, _nearby(path)) from None
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or e
        raise VwsdError(
            f"the file cannot be read: {reason}", path, "Check the path and its permissions."
        ) from None
    if len(data) > most:
        raise _too_large(path, most)
    return data


def _too_large(path: Path, most: int) -> VwsdError:
    return VwsdError(
        f"the file holds more than {most >> 20} MB", path, "Give the text file of one set."
    )


def _nearby(path: Path) -> str:
    try:
        others = sorted(p.name for p in path.parent.glob("*.txt"))
    except (OSError, ValueError):
        others = []
    return f"In that folder are: {', '.join(others[:6])}." if others else "Check the path."


def decode(data: bytes, where: str | Path) -> str:
    """Bytes of a text file as text, without a byte order mark; VwsdError says what else it is, and
    names the line where one byte is wrong.
    """
    for first, (what, remedy) in BINARY.items():
        if data.startswith(first):
            raise VwsdError(what, where, remedy)
    if data.startswith(WIDE) or _looks_wide(data):
        raise VwsdError("saved as UTF-16 (or UTF-32), UTF-8 is needed", where, "Save it as UTF-8.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        start = e.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        line = data[:start].count(b"\n") + 1
        raise VwsdError(
            "not UTF-8 text", f"{where}:{line}", remedy_for(where, "Save the file as UTF-8.")
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise VwsdError(
            "a zero byte (U+0000), so this is no text file",
            f"{where}:{line}",
            remedy_for(where, "Write the file again."),
        )
    return text


def _looks_wide(data: bytes) -> bool:
    """UTF-16 without a mark: of plain letters every other byte is zero."""
    start = data[:1000]
    return len(start) > 3 and (
        start[::2].count(0) > 0.4 * len(start) / 2 or start[1::2].count(0) > 0.4 * len(start) / 2
    )


def split_lines(text: str) -> list[str]:
    """Lines without line ends (LF, CRLF, or CR alone where there is no LF) and without blank lines
    at the end.

    U+2028 and its like end no line: they may stand inside a phrase.
    """
    end = "\r" if "\n" not in text else "\n"
    lines = [line.removesuffix("\r") for line in text.split(end)]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def read_text(path: str | Path, most: int = MOST_BYTES) -> str:
    """Text of a UTF-8 file without its byte order mark; VwsdError as of `read_bounded` and
    `decode`.
    """
    return decode(read_bounded(path, most), path)


def read_lines(path: str | Path) -> list[str]:
    """Lines of a UTF-8 file (`split_lines`); VwsdError for no file, a folder, a device, too large
    a file, or no UTF-8 text.
    """
    return split_lines(read_text(path))
