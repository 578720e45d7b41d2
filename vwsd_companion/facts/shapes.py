"""Shapes of the stored facts and of what is made from them, as shapes.yml says; `schema.py` reads
by them and words the refusal.

A file of an earlier version is read as it is: what came later (`lines_sha256`, `code_roots`,
`made_in`) may be absent, and then nothing is compared, or the code counts as another.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, StringConstraints, create_model, model_validator

from vwsdlib.errors import VwsdError
from vwsdlib.paths import safe_name
from vwsdlib.schema import Stored

CANDIDATES = 10
RULES = Literal["chance", "rarest", "most_frequent"]
MEASURED = "measured."  # before the name of a measurement's shape
MOST = (1 << 63) - 1  # what other people's formats hold in a whole number


def _safe(name: str) -> str:
    try:
        return safe_name(name)
    except VwsdError as e:
        raise ValueError(e.what) from None


Name = Annotated[str, AfterValidator(_safe)]  # becomes part of a path
# stands in a line of the official layout
Cell = Annotated[str, StringConstraints(pattern=r"^[^\t\n\r\x00]*$")]
Count = Annotated[int, Field(ge=0, le=MOST)]
Some = Annotated[int, Field(ge=1, le=MOST)]
Ten = Field(min_length=CANDIDATES, max_length=CANDIDATES)
AtLeastOne = Field(min_length=1)
TYPES: dict[str, Any] = {
    "text": str,
    "flag": bool,
    "whole": int,
    "number": float,
    "object": dict,
    "name": Name,
    "cell": Cell,
    "count": Count,
    "some": Some,
    "seed": Annotated[int, Field(ge=-MOST, le=MOST)],
    "place": Annotated[int, Field(ge=1, le=CANDIDATES)],
    "percent": Annotated[float, Field(ge=-1e-9, le=100 + 1e-9)],
    "share": Annotated[float, Field(ge=-1e-6, le=1 + 1e-6)],
    "texts": list[str],
    "names": list[Name],
    "counts": list[Count],
    "some texts": Annotated[list[str], AtLeastOne],
    "ten cells": Annotated[list[Cell], Ten],
    "ten numbers": Annotated[list[float], Ten],
    "texts by name": dict[str, str],
    "counts by name": dict[str, Count],
    "objects by name": dict[str, dict],
    "whole lists by name": dict[str, list[int]],
    "number lists by name": dict[str, list[float]],
    "intervals": dict[RULES, Annotated[list[float], Field(min_length=2, max_length=2)]],
    "provenance": dict[str, list[str] | dict[str, str]],
    "paper": Literal["clipseg", "polclip", "task", "context"],
    "test": Literal["mcnemar"],
}


@cache
def _table() -> dict[str, dict[str, Any]]:
    book = yaml.safe_load(Path(__file__).with_name("shapes.yml").read_text(encoding="utf-8"))
    return book["shapes"] | {MEASURED + name: keys for name, keys in book["measured"].items()}


@cache
def shape(name: str) -> Any:
    """The model of a shape of shapes.yml, with the checks of CHECKS."""
    keys = _keys(name)
    checks = {}
    if name in CHECKS:
        checks["agrees"] = model_validator(mode="after")(CHECKS[name])
    fields: dict[str, Any] = {key: _field(kind) for key, kind in keys.items()}
    return create_model(name, __base__=Stored, __validators__=checks, **fields)


def _keys(name: str) -> dict[str, str]:
    """Key -> type of a shape, those of what it is first."""
    told = dict(_table()[name])
    told.pop("meta", None)
    bases = told.pop("is", [])
    keys: dict[str, str] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        keys |= _keys(base)
    return keys | told


def _field(kind: str) -> tuple[Any, Any]:
    """(type, default) as pydantic takes them; the default of an absent key is null or empty."""
    base, *marks = kind.split(" or ")
    if "several" in marks:
        return Some | list[Some] | None, None
    one_of = base.removeprefix("list of ")
    meant = TYPES[base] if base in TYPES else shape(one_of)
    if one_of != base:
        meant = list[meant]
    default = {"text": "", "texts": []}.get(base, {}) if "absent" in marks else ...
    if "null" in marks:
        return meant | None, None if "absent" in marks else ...
    return meant, default


def measured(name: str) -> tuple[Any, Any]:
    """(a record's shape, the meta's) of a measurement; of one that the report does not read,
    numbers must be finite and nothing else.
    """
    keys = _table().get(MEASURED + name)
    if keys is None:
        return dict, shape("measurement_meta")
    return shape(MEASURED + name), shape(keys.get("meta", "measured_meta"))


# ---------------------------------------------------------------- what keys must say together


def _within_limit(fact: Any) -> Any:
    if fact.limit and fact.n > fact.limit:
        limited = f"limit says the first {fact.limit} items only"
        raise ValueError(f"{limited}, and there are {fact.n}")
    return fact


def _one_gold(line: Any) -> Any:
    if len(set(line.candidates)) != CANDIDATES:
        raise ValueError("a candidate stands twice")
    if line.gold not in line.candidates:
        raise ValueError(f"the gold {line.gold!r} is not among the candidates")
    return line


def _adds_up(audit: Any) -> Any:
    _within_limit(audit)
    total = sum(audit.position_counts)
    if total != audit.n:
        raise ValueError(f"position_counts sum to {total}, and there are {audit.n} items")
    for rule in RULES.__args__:
        if rule not in audit.intervals:
            raise ValueError(f"intervals has no {rule}")
    return audit


def _score_each(answer: Any) -> Any:
    wanted = len(answer.candidates)
    for name, values in answer.scores.items():
        if len(values) != wanted:
            raise ValueError(f"{len(values)} scores '{name}' for {wanted} candidates")
    return answer


def _can_be_answered(entry: Any) -> Any:
    if entry.paper == "context":
        _of_context(entry)
    elif isinstance(entry.n, list):
        raise ValueError("n is a list, and only an entry of context has several sets")
    elif entry.run and not entry.test and (entry.count is None or entry.n is None):
        raise ValueError("an entry that a run answers needs count and n")
    elif entry.count is not None and entry.n is not None and abs(entry.count) > entry.n:
        raise ValueError(f"count {entry.count} is more than n {entry.n}")
    elif entry.paper == "task" and not entry.value.isdecimal():
        raise ValueError("the size of a set is a whole number")
    return entry


def _of_context(entry: Any) -> None:
    values = entry.value.split()
    counts = entry.n if isinstance(entry.n, list) else []
    if entry.sets is None or not len(entry.sets) == len(counts) == len(values):
        raise ValueError("an entry of context has as many values and n as sets")
    if not all(math.isfinite(float(value)) for value in values):
        raise ValueError("a value is not finite")


CHECKS = {
    "prediction_meta": _within_limit,
    "line": _one_gold,
    "audit": _adds_up,
    MEASURED + "wsd_answers": _score_each,
    "reported": _can_be_answered,
}
