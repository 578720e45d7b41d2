"""The one form of a stored fact: `NAME.jsonl` with a line an item, `NAME.meta.json` with what made
them. Audits are a meta alone.

What made a fact is in its meta: the hash of the code and the code's roots (code.py), the hash of
the data, the model, the settings, the versions, and where it was made (notebook, line). Files of an
earlier version lack `lines_sha256`, `code_roots` and `made_in`; they are read like any other.
"""

from __future__ import annotations

import json
import linecache
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from vwsdlib import paths, schema
from vwsdlib.errors import VwsdError

from .code import code_cells, code_sha256, roots_of

Fact = TypeVar("Fact")
VERSIONED = ("torch", "transformers", "numpy", "pillow")  # packages that can move a score


@dataclass(frozen=True)
class FactKind:
    """How the messages of one kind of fact speak of it, and where its meta counts the lines."""

    what: str
    meta: str  # what its meta is called; {} is the file's name
    again: str
    counter: str = "n"
    counted: str = ""  # {} and {}: lines there are, lines that were written
    hashed: str = ""


@dataclass
class Maker:
    """What makes the facts that this process writes: a notebook with its parameters, from `begin`
    on; else the caller of a writer, of which nothing is known.
    """

    notebook: str = ""
    parameters: Mapping = field(default_factory=dict)

    @cached_property
    def roots(self) -> list[str]:
        """Roots of its code."""
        return roots_of(code_cells(self.notebook), self.parameters)

    @cached_property
    def sha256(self) -> str:
        """Hash of its code, as it is when it first writes."""
        return code_sha256(self.roots)


_now: dict[str, Maker] = {}


def begin(notebook: str, parameters: Mapping) -> None:
    """From now on `notebook` makes the facts, with these parameters."""
    _now["maker"] = Maker(notebook, parameters)


def versions() -> dict[str, str]:
    """Python (major.minor) and the packages that can move a score; those not installed are left
    out.
    """
    there = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in VERSIONED:
        try:
            there[name] = version(name)
        except PackageNotFoundError:
            continue
    return there


def provenance() -> dict[str, Any]:
    """What every fact's meta says of the code: `code_sha256`, `code_roots`, `versions`, and in a
    notebook `made_in`, its name and the line of the cell that wrote the fact.
    """
    maker = _now.get("maker", Maker())
    made: dict[str, Any] = {
        "code_sha256": maker.sha256,
        "code_roots": maker.roots,
        "versions": versions(),
    }
    if maker.notebook:
        made["made_in"] = {"notebook": maker.notebook, "line": _cell_line(sys._getframe(1))}
    return made


def _cell_line(frame: FrameType | None) -> str:
    """The line of the notebook's cell that called us; "" where no cell did."""
    while frame is not None:
        name = frame.f_code.co_filename
        if "ipykernel" in name or name.startswith("<ipython-input"):
            return linecache.getline(name, frame.f_lineno).strip()
        frame = frame.f_back
    return ""


def write_fact(stem: str | Path, lines: Iterable[dict], meta: dict) -> dict:
    """Write `<stem>.jsonl` and `<stem>.meta.json`; returns the meta, with the hash of the lines.
    VwsdError for a NaN or an infinity.
    """
    path = Path(f"{stem}.jsonl")
    try:
        texts = [json.dumps(line, ensure_ascii=False, allow_nan=False) for line in lines]
    except ValueError as e:
        raise VwsdError(
            "a number is not finite, and stored facts hold no other",
            where=path,
            remedy="Look for what divides by zero or overflows.",
        ) from e
    text = "".join(f"{line}\n" for line in texts)
    paths.write_text(path, text)
    meta = {**meta, "lines_sha256": paths.sha256_bytes(text.encode("utf-8"))}
    write_meta(f"{stem}.meta.json", meta)
    return meta


def sign(path: Path, **about: object) -> Path:
    """Add what made them, and `about`, to the meta beside lines that another writer wrote; what it
    says already stays. Returns `path`.
    """
    meta = schema.read_json(meta_path(path), dict[str, Any], "meta")
    lines = paths.sha256_bytes(path.read_bytes())
    write_meta(meta_path(path), {**about, **provenance(), **meta, "lines_sha256": lines})
    return path


def write_meta(path: str | Path, meta: dict) -> None:
    """Write a meta; VwsdError where the file cannot be written."""
    paths.write_text(path, json.dumps(meta, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def meta_path(path: str | Path) -> Path:
    """The meta beside a file of lines."""
    path = Path(path)
    return path.with_name(path.name.removesuffix(".jsonl") + ".meta.json")


def read_fact(
    path: str | Path,
    kind: FactKind,
    shapes: tuple[Any, Any],
    make: Callable[[list, Any, dict, bytes], Fact],
) -> Fact:
    """What `make` makes of a fact's lines, its meta (as its shape, and as it stands) and the lines'
    bytes; VwsdError with file, line and key where anything is not as it was written.

    shapes: of a line and of the meta. Checked in this order: the form of both, the number of lines,
    what `make` checks, the hash of the lines where the meta has one.
    """
    path = Path(path)
    line_shape, meta_shape = shapes
    what = kind.meta.format(path.name)
    raw = schema.read_bytes(meta_path(path), what, kind.again)
    known = schema.parse(raw, meta_shape, meta_path(path), what, kind.again)
    data = schema.read_bytes(path, kind.what, kind.again)
    lines = schema.parse_lines(data, line_shape, path, kind.what, kind.again)
    written = getattr(known, kind.counter)
    if len(lines) != written:
        raise VwsdError(kind.counted.format(len(lines), written), where=path, remedy=kind.again)
    made = make(lines, known, json.loads(raw), data)
    if known.lines_sha256 not in (None, paths.sha256_bytes(data)):
        raise VwsdError(kind.hashed, where=path, remedy=kind.again)
    return made
