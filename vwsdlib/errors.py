"""The one error that speaks to people, and the check of a name that raises it."""

import difflib
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

Entry = TypeVar("Entry")

LONGEST = 1000  # characters of one part of a message; a field of megabytes is not repeated whole


class VwsdError(Exception):
    """What went wrong, where, and what to do about it: one clear sentence each.

    >>> print(VwsdError("gold file has 3 lines, data file 4", where="x.gold.txt", remedy="Fetch the
    files again."))
    gold file has 3 lines, data file 4 [x.gold.txt]. Fetch the files again.
    """

    def __init__(self, what: str, where: object = "", remedy: str = ""):
        self.what = one_line(str(what).rstrip("."))
        self.where, self.remedy = one_line(str(where)), one_line(str(remedy))
        super().__init__(self.what)

    def __str__(self) -> str:
        place = f" [{self.where}]" if self.where else ""
        return f"{self.what}{place}." + (f" {self.remedy}" if self.remedy else "")

    def __reduce__(self):
        return type(self), (self.what, self.where, self.remedy)


def one_line(text: str) -> str:
    """`text` fit for a terminal: no longer than LONGEST (the middle goes), line breaks and control
    characters spelled out.

    >>> one_line("a\\tb")
    'a\\\\tb'
    """
    if len(text) > LONGEST:
        half = LONGEST // 2
        left_out = len(text) - LONGEST
        text = f"{text[:half]} ... [{left_out:,} characters left out] ... {text[-half:]}"
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return character.encode("unicode_escape").decode("ascii")
    return character


def first_line(error: BaseException) -> str:
    """What another library's error says in its first line, or its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def did_you_mean(name: object, valid: Iterable) -> str:
    """ "Did you mean 'NAME'?" of the nearest valid name; empty where none is near."""
    near = difflib.get_close_matches(str(name), [str(v) for v in valid], n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else ""


def known(kind: str, name, valid: Collection, where: object = ""):
    """Return `name` if it is among `valid`; else a VwsdError that names the nearest one."""
    if name in valid:
        return name
    names = ", ".join(sorted(map(str, valid))) or "none exist"
    raise VwsdError(
        f"unknown {kind} '{name}'",
        where=where,
        remedy=did_you_mean(name, valid) or f"Choose one of: {names}.",
    )


def entry_of(kind: str, name: str, table: Mapping[str, Entry]) -> Entry:
    """What a table has under `name`; else a VwsdError that names the nearest one and lists all."""
    if name in table:
        return table[name]
    hint = did_you_mean(name, table)
    names = f"{kind.capitalize()}s: {', '.join(table)}."
    raise VwsdError(f"no {kind} named {name!r}", remedy=f"{hint} {names}" if hint else names)
