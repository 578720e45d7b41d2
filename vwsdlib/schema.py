"""Stored JSON, validated whole: one mechanism for every file that the project writes and reads back.

A shape is a pydantic model (or any type that pydantic knows). What does not fit is refused with one
sentence that names the file, the line and the key; a NaN or an infinity is no number here.
"""

from __future__ import annotations

import stat
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from .errors import VwsdError

Shape = TypeVar("Shape")
AGAIN = "Make it again with the command that wrote it."
MOST_BYTES = 1 << 30            # of one stored JSON; the largest that the project writes is far below
SHOWN = 60                      # characters of a value that a message repeats


class Stored(BaseModel):
    """Base of the shapes: types are as they stand (no "1" for 1), numbers finite; further keys are kept."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, frozen=True)


def read_bytes(path: str | Path, what: str = "file", remedy: str = AGAIN) -> bytes:
    """The bytes of a stored file; VwsdError where there is none, it cannot be read or is absurdly large."""
    path = Path(path)
    try:
        facts = path.stat()
        if not (stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode)):
            raise VwsdError(f"the {what} is no ordinary file", where=path, remedy=remedy)
        if facts.st_size > MOST_BYTES:
            raise VwsdError(f"the {what} has more than {MOST_BYTES >> 30} GB", where=path, remedy=remedy)
        return path.read_bytes()
    except OSError as e:
        reason = e.strerror or type(e).__name__
        raise VwsdError(f"the {what} cannot be read: {reason}", where=path, remedy=remedy) from e


def parse(data: bytes, shape: type[Shape], where: object, what: str = "file", remedy: str = AGAIN) -> Shape:
    """JSON bytes as `shape`; VwsdError names `where` and the key that does not fit."""
    try:
        return _adapter(shape).validate_json(data)
    except ValidationError as e:
        raise VwsdError(f"the {what} does not have its form: {_first(e)}", where=where, remedy=remedy) from None


def check(value: object, shape: type[Shape], where: object, what: str = "file", remedy: str = AGAIN) -> Shape:
    """A value, such as YAML gives, as `shape`; VwsdError as of `parse`."""
    try:
        return _adapter(shape).validate_python(value)
    except ValidationError as e:
        raise VwsdError(f"the {what} does not have its form: {_first(e)}", where=where, remedy=remedy) from None


def read_json(path: str | Path, shape: type[Shape], what: str = "file", remedy: str = AGAIN) -> Shape:
    """A stored JSON file as `shape`; VwsdError as of `read_bytes` and `parse`."""
    return parse(read_bytes(path, what, remedy), shape, path, what, remedy)


def read_jsonl(path: str | Path, shape: type[Shape], what: str = "file", remedy: str = AGAIN) -> list[Shape]:
    """A stored file of a JSON value a line as a list of `shape`; VwsdError names file and line.

    Lines end at LF alone: U+2028 and its like may stand inside a text.
    """
    lines = read_bytes(path, what, remedy).split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return [parse(line, shape, f"{path}:{number}", what, remedy) for number, line in enumerate(lines, start=1)]


@cache
def _adapter(shape: Any) -> TypeAdapter:
    return TypeAdapter(shape)


def _first(error: ValidationError) -> str:
    """The first complaint in words: the key, what is wrong with it, and how many more there are."""
    complaints = error.errors(include_url=False, include_context=False)
    key = ".".join(str(part) for part in complaints[0]["loc"])
    value = repr(complaints[0]["input"])
    shown = value if len(value) <= SHOWN else value[:SHOWN] + "..."
    reason = complaints[0]["msg"][:1].lower() + complaints[0]["msg"][1:]
    if complaints[0]["type"] in ("missing", "json_invalid"):
        sentence = reason
    else:
        sentence = f"{reason}, not {shown}"
    more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
    return f"{key}: {sentence}{more}" if key else f"{sentence}{more}"
