"""Tables: pure functions of the stored facts, written as CSV (full precision), Markdown and LaTeX
(booktabs, rounded).

A new table is one function under `@table` in the room of its notebook (baseline.py, clipseg.py,
...). Rounding happens here and nowhere else.
"""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vwsdlib import paths
from vwsdlib.data.sets import SETS
from vwsdlib.errors import VwsdError

from ...facts.collect import Collection

VARIANTS = {"word": "bare word", "phrase": "phrase", "this_is": "“This is …”"}


@dataclass(frozen=True)
class Column:
    """A column: key in the rows, heading, and a format for people (`.1f`, `d`, ... or empty)."""

    key: str
    heading: str
    format: str = ""

    def show(self, row: dict) -> str:
        """The cell as a reader sees it; an absent value is a dash."""
        value = row.get(self.key)
        return "–" if value is None else format(value, self.format)


@dataclass(frozen=True, repr=False)
class Table:
    """Rows with a caption; shows itself in a notebook."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: list[dict]

    def cells(self) -> list[list[str]]:
        """Rounded cells, row by row."""
        return [[c.show(row) for c in self.columns] for row in self.rows]

    def csv(self) -> str:
        """Full precision; an interval's ends are two columns, KEY_low and KEY_high."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        intervals = {c.key for c in self.columns if self._has_ends(c.key)}
        heads: list[str] = []
        for column in self.columns:
            key = column.key
            heads += [f"{key}_low", f"{key}_high"] if key in intervals else [key]
        writer.writerow(heads)
        for row in self.rows:
            cells: list[object] = []
            for column in self.columns:
                cell = row.get(column.key)
                if column.key in intervals:
                    cells += [cell.low, cell.high] if cell else ["", ""]
                else:
                    cells.append("" if cell is None else cell)
            writer.writerow(cells)
        return out.getvalue()

    def _has_ends(self, key: str) -> bool:
        return any(isinstance(row.get(key), Interval) for row in self.rows)

    def markdown(self) -> str:
        """A pipe table under its caption; numbers to the right."""
        lines = [
            [c.heading for c in self.columns],
            ["---:" if c.format else "---" for c in self.columns],
            *self.cells(),
        ]
        return f"**{self.caption}**\n\n" + "".join(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
        )

    def latex(self) -> str:
        """A booktabs tabular inside a table environment."""
        spec = "".join("r" if c.format else "l" for c in self.columns)
        body = [
            " & ".join(map(_tex, line)) + r" \\"
            for line in ([c.heading for c in self.columns], *self.cells())
        ]
        return "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{_tex(self.caption)}}}",
                rf"\label{{tab:{self.name}}}",
                rf"\begin{{tabular}}{{{spec}}}",
                r"\toprule",
                body[0],
                r"\midrule",
                *body[1:],
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )

    def _repr_html_(self) -> str:
        """The table as notebooks show it; columns with a number format stand to the right."""
        sides = ["right" if column.format else "left" for column in self.columns]
        head = "".join(
            f"<th style='text-align:{side}'>{html.escape(column.heading)}</th>"
            for column, side in zip(self.columns, sides)
        )
        body = []
        for line in self.cells():
            body.append("<tr>")
            for cell, side in zip(line, sides):
                body.append(f"<td dir='auto' style='text-align:{side}'>{html.escape(cell)}</td>")
            body.append("</tr>")
        return (
            f"<table><caption style='text-align:left'><b>{html.escape(self.caption)}</b></caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
        )

    def __repr__(self) -> str:
        lines = [[c.heading for c in self.columns], *self.cells()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        pad = [str.rjust if c.format else str.ljust for c in self.columns]
        return (
            self.caption
            + "\n"
            + "\n".join(
                "  ".join(p(cell, w) for p, cell, w in zip(pad, line, widths)).rstrip()
                for line in lines
            )
        )


TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "“": "``",
    "”": "''",
    "…": r"\dots{}",
    "−": "$-$",
    "≤": r"$\leq$",
    "×": r"$\times$",
}


def _tex(text: str) -> str:
    return "".join(TEX.get(c, c) for c in text)


TABLES: dict[str, Callable[[Collection], Table | None]] = {}


def table(function: Callable[[Collection], Table | None]) -> Callable[[Collection], Table | None]:
    """Register a table under its function's name; it returns None where the profile has no facts
    for it.
    """
    TABLES[function.__name__] = function
    return function


def write_table(made: Table, folder: Path) -> list[Path]:
    """The three files of a table below `folder`/tables; VwsdError where a cell holds a NaN or an
    infinity."""
    for column in made.columns:
        for row in made.rows:
            if isinstance(value := row.get(column.key), float) and not math.isfinite(value):
                raise VwsdError(
                    f"a number of the table '{made.name}' is not finite ({column.key})",
                    where=folder,
                    remedy="Look at the stored facts behind it.",
                )
    stem = Path(folder) / "tables" / paths.safe_name(made.name, "table")
    return [
        paths.write_text(f"{stem}.csv", made.csv()),
        paths.write_text(f"{stem}.md", made.markdown()),
        paths.write_text(f"{stem}.tex", made.latex()),
    ]


def set_title(c: Collection) -> str:
    """How captions name the data: a demo's numbers never look like a paper's."""
    facts = [*c.audits.values(), *(p.meta for p in c.predictions.values())]
    if not facts:
        return c.profile
    name = facts[0]["dataset"]
    name = SETS[name].about if name in SETS else name
    return f"{name}{_part(facts)}; profile {c.profile}"


def _part(facts: list[dict]) -> str:
    """How a caption says that not all items were taken; where some facts are of all items and some
    are not, n says which."""
    limits = sorted({fact["limit"] for fact in facts if fact["limit"]})
    if not limits:
        return ""
    shown = " or ".join(map(str, limits))
    if len({fact["limit"] for fact in facts}) > 1:
        return f", some rows of the first {shown} items only (see n)"
    return f", first {shown} items only"


class Interval(str):
    """An interval as a cell, its ends rounded; `low` and `high` are the numbers."""

    low: float
    high: float


def interval(low: float, high: float, digits: int = 1) -> Interval:
    """An interval as a cell: "to" stands between the ends where one is negative."""
    return spelled(low, high, " to " if low < 0 else "–", digits)


def spelled(low: float, high: float, between: str = " to ", digits: int = 1) -> Interval:
    """The same with a word of one's own between the ends."""
    cell = Interval(f"{low:.{digits}f}{between}{high:.{digits}f}")
    cell.low, cell.high = float(low), float(high)
    return cell


def claims_table(made: list[dict]) -> Table:
    """The papers' claims beside ours."""
    columns = (
        Column("about", "Claim"),
        Column("reported", "Reported"),
        Column("unit", "Unit"),
        Column("count", "k", "d"),
        Column("n", "n", "d"),
        Column("ours_k", "Our k", "d"),
        Column("ours", "Ours", ".2f"),
        Column("ci", "95 % interval"),
        Column("p", "McNemar p", ".2g"),
        Column("off_by", "Off by (items)", "+d"),
        Column("verdict", "Verdict"),
        Column("notebook", "Notebook"),
    )
    return Table(
        "claims",
        "What the papers report, and what this profile can say to it",
        columns,
        [
            {
                **claim,
                "ci": (
                    None if claim["ci_low"] is None else spelled(claim["ci_low"], claim["ci_high"])
                ),
            }
            for claim in made
        ],
    )


from . import baseline, clipseg, multilingual, polclip, saliency  # noqa: E402, F401  (they register their tables)
