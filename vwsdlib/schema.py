"""Stored JSON, validated whole: one mechanism for every file that the project writes and reads
back.

A shape is a pydantic model (or any type that pydantic knows). What does not fit is refused with one
sentence that names the file, the line and the key; a NaN or an infinity is no number here.
"""

from __future__ import annotations

import json
import re
import reprlib
import stat
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from .errors import VwsdError

Shape = TypeVar("Shape")
AGAIN = "Make it again with the command that wrote it."
MOST_BYTES = 1 << 30  # of one stored JSON; the largest that the project writes is far below
SHOWN = 60  # characters of a value that a message repeats
# may spell no number, where it stands in no text
UNBOUNDED = re.compile(rb"NaN|Infinity|[0-9][eE]\+?[0-9]{3}")


class Stored(BaseModel):
    """Base of the shapes: types are as they stand (no "1" for 1), numbers finite; further keys are
    kept.
    """

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, frozen=True)


def read_bytes(path: str | Path, what: str = "file", remedy: str = AGAIN) -> bytes:
    """The bytes of a stored file; VwsdError where there is none, it is no plain file, cannot be
    read or is absurdly large."""
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = f"the {what} is no file but a folder, a pipe or a device"
            raise VwsdError(what, path, remedy)
        if status.st_size > MOST_BYTES:
            raise VwsdError(f"the {what} has more than {MOST_BYTES >> 30} GB", path, remedy)
        return path.read_bytes()
    except OSError as e:
        reason = e.strerror or type(e).__name__
        raise VwsdError(f"the {what} cannot be read: {reason}", path, remedy) from e


def parse(
    data: bytes, shape: type[Shape], where: object, what: str = "file", remedy: str = AGAIN
) -> Shape:
    """JSON bytes as `shape`; VwsdError names `where` and the key that does not fit."""
    try:
        value = _adapter(shape).validate_json(data)
    except ValidationError as e:
        raise _unfit(what, _first(e), where, remedy) from None
    if UNBOUNDED.search(data):
        try:
            json.loads(data, parse_constant=_refuse, parse_float=_finite)
        except ValueError as e:
            raise _unfit(what, e, where, remedy) from None
    return value


def _unfit(what: str, why: object, where: object, remedy: str) -> VwsdError:
    return VwsdError(f"the {what} does not have its form: {why}", where, remedy)


def validate(
    value: object, shape: type[Shape], where: object, what: str = "file", remedy: str = AGAIN
) -> Shape:
    """A value that was read by other means (YAML, say) as `shape`; VwsdError as of `parse`."""
    try:
        return _adapter(shape).validate_python(value)
    except ValidationError as e:
        raise _unfit(what, _first(e), where, remedy) from None


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{digits} is too large for a number")
    return number


def read_json(
    path: str | Path, shape: type[Shape], what: str = "file", remedy: str = AGAIN
) -> Shape:
    """A stored JSON file as `shape`; VwsdError as of `read_bytes` and `parse`."""
    return parse(read_bytes(path, what, remedy), shape, path, what, remedy)


def read_jsonl(
    path: str | Path, shape: type[Shape], what: str = "file", remedy: str = AGAIN
) -> list[Shape]:
    """A stored file of a JSON value a line as a list of `shape`; VwsdError names file and line.

    Lines end at LF alone: U+2028 and its like may stand inside a text.
    """
    return parse_lines(read_bytes(path, what, remedy), shape, path, what, remedy)


def parse_lines(
    data: bytes, shape: type[Shape], where: object, what: str = "file", remedy: str = AGAIN
) -> list[Shape]:
    """The bytes of a file of a JSON value a line as a list of `shape`; VwsdError as of
    `read_jsonl`."""
    lines = enumerate(lines_of(data), start=1)
    return [parse(line, shape, f"{where}:{number}", what, remedy) for number, line in lines]


def lines_of(data: bytes) -> list[bytes]:
    """Lines of a stored file, without the empty one behind the last line's end."""
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return lines


@cache
def _adapter(shape: Any) -> TypeAdapter:
    return TypeAdapter(shape)


def _first(error: ValidationError) -> str:
    """The first complaint in words: the key, what is wrong with it, and how many more there are."""
    complaint, *others = error.errors(include_url=False, include_context=False)
    key = ".".join(str(part) for part in complaint["loc"])
    reason = complaint["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    if complaint["type"] in ("missing", "json_invalid", "value_error"):
        sentence = reason
    else:
        sentence = f"{reason}, not {_SHORT.repr(complaint['input'])}"
    more = f" (and {len(others)} more)" if others else ""
    return f"{key}: {sentence}{more}" if key else f"{sentence}{more}"


_SHORT = reprlib.Repr()  # never the whole of a large or deep value
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = SHOWN
