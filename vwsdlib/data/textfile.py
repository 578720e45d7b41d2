"""Text files that users bring: bytes with a bound, then text, named for what it is where it is no
UTF-8 text, then lines or JSON.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import VwsdError
from .kinds import no_text

STREAMS = ("/dev/fd/", "/dev/stdin", "/proc/")  # what a shell puts for <(command)
MOST_BYTES = 512 << 20  # of a text file; a corpus of SemCor's sentences has 150 MB
# of a set or of predictions; the largest of the task, the training data, has 4 MB
MOST_TABLE = 64 << 20
MOST_JSON = 16 << 20  # characters; brackets alone take 20 times as much memory
REFETCH = "Take the files again as they were published, data and gold of the same version."
OFFICIAL_NAME = re.compile(
    r"(?:(en|it|fa)\.test|train|trial)\.(?:data|gold)(?:\.v[\d.]+)?\.txt", re.I
)
WIDE = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")  # byte order marks of UTF-16 and UTF-32


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
        _refuse_odd(path, path.stat().st_mode)
        with open(path, "rb") as f:
            too_large = os.fstat(f.fileno()).st_size > most
            data = b"" if too_large else f.read(most + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise VwsdError("no such file", path, _nearby(path)) from None
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or e
        raise VwsdError(
            f"the file cannot be read: {reason}", path, "Check the path and its permissions."
        ) from None
    if too_large or len(data) > most:
        raise VwsdError(
            f"the file holds more than {most >> 20} MB", path, "Give the text file of one set."
        )
    return data


def _refuse_odd(path: Path, mode: int) -> None:
    """VwsdError for a folder, a device and a pipe that is none of a shell's."""
    if stat.S_ISDIR(mode):
        raise VwsdError("this is a folder, a text file is needed", path, "Name a file in it.")
    if stat.S_ISFIFO(mode) and not os.fspath(path).startswith(STREAMS):
        raise VwsdError("this is a named pipe, which is not opened", path, "Name a file.")
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise VwsdError("this is a device, a text file is needed", path, "Name a file.")


def _nearby(path: Path) -> str:
    try:
        others = sorted(p.name for p in path.parent.glob("*.txt"))
    except (OSError, ValueError):
        others = []
    return f"In that folder are: {', '.join(others[:6])}." if others else "Check the path."


def decode_text(data: bytes, where: str | Path) -> str:
    """Bytes of a text file as text, without a byte order mark; VwsdError says what else it is, and
    names the line where one byte is wrong.
    """
    kind = no_text(data)
    if kind:
        raise VwsdError(kind.name, where, kind.remedy)
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
        what = "a zero byte (U+0000), so this is no text file"
        raise VwsdError(what, f"{where}:{line}", remedy_for(where, "Write the file again."))
    return text


def _looks_wide(data: bytes) -> bool:
    """UTF-16 without a mark: of plain letters every other byte is zero."""
    start = data[:1000]
    zeros = max(start[::2].count(0), start[1::2].count(0))
    return len(start) > 3 and zeros > 0.4 * len(start) / 2


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


def blank_lines(lines: Sequence[str]) -> list[int]:
    """The numbers, from 1, of the lines that are empty or hold white space alone."""
    return [number for number, line in enumerate(lines, start=1) if not line.strip()]


def read_text(path: str | Path, most: int = MOST_BYTES) -> str:
    """Text of a UTF-8 file without its byte order mark; VwsdError as of `read_bounded` and
    `decode_text`.
    """
    return decode_text(read_bounded(path, most), path)


def read_lines(path: str | Path) -> list[str]:
    """Lines of a UTF-8 file (`split_lines`); VwsdError for no file, a folder, a device, too large
    a file, or no UTF-8 text.
    """
    return split_lines(read_text(path))


def parse_json(text: str, where: object, number: Callable[[str], Any] | None = None) -> Any:
    """The value of a JSON text that a user brought; VwsdError where it is not whole, names a key
    twice, or is nested without end.

    number: what makes a value of a number's spelling, NaN and Infinity included; else Python's own
    way.
    """
    refuse_large_json(text, where)
    again = "Write the file again."
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, **number_hooks(number))
    except json.JSONDecodeError as e:
        raise VwsdError(f"not whole JSON: {e.msg}", f"{where}:{e.lineno}", again) from None
    except RecursionError:
        raise VwsdError("not JSON that can be read: nested too deeply", where, again) from None
    except ValueError as e:
        raise VwsdError(f"not JSON that can be read: {e}", where, again) from None


def number_hooks(number: Callable[[str], Any] | None) -> dict[str, Callable[[str], Any] | None]:
    """What `json.loads` is told so that `number` makes the value of every number's spelling."""
    return dict.fromkeys(("parse_float", "parse_int", "parse_constant"), number)


def refuse_large_json(text: str, where: object) -> None:
    """VwsdError for a JSON text of more than MOST_JSON characters."""
    if len(text) > MOST_JSON:
        what = f"the JSON has more than {MOST_JSON >> 20} MB"
        raise VwsdError(what, where, "Give the file of one set, or write it as TSV.")


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    keys = [key for key, _ in pairs]
    twice = next(key for key in keys if keys.count(key) > 1)
    raise ValueError(f"the key {twice!r} stands twice in one object")
