"""Tables: rows that a function of the stored facts gives, under the caption and the columns of
tables.yml; written as CSV (full precision), Markdown and LaTeX (booktabs, rounded).

A new table is one function `<name>_table` under `@table` in the module of its notebook
(baseline.py, clipseg.py, ...) and an entry `<name>` in tables.yml. Rounding happens here and
nowhere else.
"""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path

import yaml

from vwsdlib import paths
from vwsdlib.data.damage import damage_told
from vwsdlib.data.sets import SETS
from vwsdlib.errors import VwsdError

from ..facts.collect import Collection
from .base import view_of

TOLD = yaml.safe_load(Path(__file__).with_suffix(".yml").read_text(encoding="utf-8"))
TEX = str.maketrans(TOLD["latex"])
# rows, or rows and the words that their caption asks for besides {set}
Rows = list[dict] | tuple[list[dict], dict] | None


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


def columns_of(told: dict) -> tuple[Column, ...]:
    """Columns as tables.yml tells them: key -> heading or [heading, format]; a key without either
    is the name of a group of columns."""
    columns = []
    for key, heading in told.items():
        if heading is None:
            columns += columns_of(TOLD["groups"][key])
        elif isinstance(heading, str):
            columns.append(Column(key, heading))
        else:
            columns.append(Column(key, *heading))
    return tuple(columns)


@dataclass(frozen=True, repr=False)
class Table:
    """Rows with a caption; keys of rows that are no column are for figures and the report."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: list[dict]

    def cells(self) -> list[list[str]]:
        """Rounded cells, row by row."""
        return [[column.show(row) for column in self.columns] for row in self.rows]

    def _lines(self) -> list[list[str]]:
        """The headings, then the cells."""
        return [[column.heading for column in self.columns], *self.cells()]

    def csv(self) -> str:
        """Full precision; an interval's ends are two columns, KEY_low and KEY_high; an absent value
        is empty."""
        intervals = {column.key for column in self.columns if self._has_ends(column.key)}
        heads: list[str] = []
        for column in self.columns:
            key = column.key
            heads += [f"{key}_low", f"{key}_high"] if key in intervals else [key]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(heads)
        for row in self.rows:
            cells: list[object] = []
            for column in self.columns:
                cell = row.get(column.key)
                if column.key in intervals:
                    cells += [cell.low, cell.high] if cell else [None, None]
                else:
                    cells.append(cell)
            writer.writerow(cells)
        return out.getvalue()

    def _has_ends(self, key: str) -> bool:
        return any(isinstance(row.get(key), Interval) for row in self.rows)

    def markdown(self) -> str:
        """A pipe table under its caption; numbers to the right."""
        heads, *lines = self._lines()
        sides = ["---:" if column.format else "---" for column in self.columns]
        text = f"**{self.caption}**\n\n"
        for line in (heads, sides, *lines):
            text += "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n"
        return text

    def latex(self) -> str:
        """A booktabs tabular inside a table environment."""
        sides = "".join("r" if column.format else "l" for column in self.columns)
        head, *lines = [
            " & ".join(cell.translate(TEX) for cell in line) + r" \\" for line in self._lines()
        ]
        body = "\n".join([head, r"\midrule", *lines, r"\bottomrule"])
        return (
            "\\begin{table}\n\\centering\n"
            f"\\caption{{{self.caption.translate(TEX)}}}\n\\label{{tab:{self.name}}}\n"
            f"\\begin{{tabular}}{{{sides}}}\n\\toprule\n{body}\n"
            "\\end{tabular}\n\\end{table}\n"
        )

    def _repr_html_(self) -> str:
        """The table as notebooks show it; columns with a number format stand to the right."""
        sides = ["right" if column.format else "left" for column in self.columns]
        parts = []
        for line in self._lines():
            kind = "td dir='auto'" if parts else "th"
            cells = [
                f"<{kind} style='text-align:{side}'>{html.escape(cell)}</{kind[:2]}>"
                for cell, side in zip(line, sides)
            ]
            parts.append(f"<tr>{''.join(cells)}</tr>")
        return (
            f"<table><caption style='text-align:left'><b>{html.escape(self.caption)}</b></caption>"
            f"<thead>{parts[0]}</thead><tbody>{''.join(parts[1:])}</tbody></table>"
        )

    def __repr__(self) -> str:
        lines = self._lines()
        widths = [max(map(len, column)) for column in zip(*lines)]
        text = self.caption
        for line in lines:
            cells = [
                cell.rjust(width) if column.format else cell.ljust(width)
                for column, cell, width in zip(self.columns, line, widths)
            ]
            text += "\n" + "  ".join(cells).rstrip()
        return text


def table(rows_of: Callable[[Collection], Rows]) -> Callable[[Collection], Table | None]:
    """Register the function `<name>_table`, which gives rows, as the table of the view `<name>`;
    there is none where it gives no row."""
    view = view_of(rows_of, "table")

    @wraps(rows_of)
    def made(c: Collection) -> Table | None:
        rows = rows_of(c)
        rows, words = rows if isinstance(rows, tuple) else (rows, {})
        if not rows:
            return None
        told = TOLD[view.name]
        caption = told["caption"].format(set=set_title(c), **words)
        return Table(view.name, caption, columns_of(told["columns"]), rows)

    view.table = made
    return made


def write_table(made: Table, folder: Path) -> list[Path]:
    """The three files of a table below `folder`/tables; VwsdError for a NaN or an infinity."""
    for column in made.columns:
        for row in made.rows:
            value = row.get(column.key)
            if isinstance(value, float) and not math.isfinite(value):
                raise VwsdError(
                    f"a number of the table '{made.name}' is not finite ({column.key})",
                    where=folder,
                    remedy="Look at the stored facts behind it.",
                )
    stem = Path(folder) / "tables" / paths.safe_name(made.name, "table")
    forms = {"csv": made.csv, "md": made.markdown, "tex": made.latex}
    return [paths.write_text(f"{stem}.{suffix}", form()) for suffix, form in forms.items()]


def set_title(c: Collection) -> str:
    """How captions name the data: a demo's numbers never look like a paper's."""
    facts = [*c.audits.values(), *(p.meta for p in c.predictions.values())]
    if not facts:
        return c.profile
    name = facts[0]["dataset"]
    name = SETS[name].about if name in SETS else name
    return f"{name}{_part(facts)}; profile {c.profile}{_damaged(facts)}"


def _damaged(facts: list[dict]) -> str:
    """How a caption counts damaged pictures, where a language's split has some."""
    parts = {}
    for fact in facts:
        damaged = fact.get("damaged")
        if damaged:
            parts[f"{fact['language']} {fact['split']}"] = damage_told(damaged)
    return "".join(f"; {part}: {text}" for part, text in sorted(parts.items()))


def _part(facts: list[dict]) -> str:
    """How a caption says that not all items were taken; where some facts are of all items and some
    are not, n says which."""
    limits = {fact["limit"] for fact in facts}
    shown = " or ".join(str(limit) for limit in sorted(limits) if limit)
    if not shown:
        return ""
    if len(limits) > 1:
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


def claims_table(claims: list[dict]) -> Table:
    """The papers' claims beside ours."""
    rows = []
    for claim in claims:
        low, high = claim["ci_low"], claim["ci_high"]
        rows.append({**claim, "ci": None if low is None else spelled(low, high)})
    told = TOLD["claims"]
    return Table("claims", told["caption"], columns_of(told["columns"]), rows)
