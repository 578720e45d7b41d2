"""Tables that people write: TSV, CSV with commas or semicolons, JSON in pandas' forms, JSON lines;
and rankings, a line an item.

All of them become one `AnswerRows`. Numbers stay as they are spelled; what a column means is
`scoring`'s business.
"""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ..data.textfile import blank_lines, number_hooks, parse_json, refuse_large_json, split_lines
from ..errors import VwsdError

AGAIN = "Write the table again, with a name for each column and as many fields in each row."
LONGEST_LINE = 100_000  # characters of a line or of a list inside one cell


class Number(str):
    """A number of a JSON file, as it is spelled there."""


@dataclass(frozen=True)
class AnswerRows:
    """Rows of cells under columns (names folded: stripped, lower case); `places` says for a
    message where each row stands.
    """

    columns: tuple[str, ...]
    rows: list[list[Any]]
    places: list[str]
    header: bool = True  # False for rankings, a line an item

    def column(self, name: str) -> list[Any]:
        """The cells of a column, by its folded name."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


def parse_table(
    text: str, where: str, is_column: Callable[[str], bool], most_lines: int
) -> AnswerRows:
    """The table in a text; `is_column` knows the (folded) names of columns, by which a header is
    told from a ranking.

    Raises VwsdError, naming the line, for an empty text, more than `most_lines`, an endless or an
    empty line, two columns of one name and rows of another width.
    """
    if text.lstrip()[:1] in ("[", "{"):
        table = _json_table(text, where, is_column)
        if table is not None:
            return table
    lines = split_lines(text)
    if not lines:
        raise VwsdError("the prediction file is empty", where, "Run the system again.")
    if len(lines) > most_lines:
        raise VwsdError(
            f"{len(lines)} lines, {most_lines} at most make sense for this set",
            where,
            "Give predictions of exactly this set, a line an item.",
        )
    places = [f"{where}:{number}" for number in range(1, len(lines) + 1)]
    for line, place in zip(lines, places):
        if len(line) > LONGEST_LINE:
            what = f"a line of more than {LONGEST_LINE} characters"
            raise VwsdError(what, place, "Write a line an item.")
    blank = blank_lines(lines)
    if blank:
        remedy = "Remove it, or put back what belongs there."
        raise VwsdError("an empty line", places[blank[0] - 1], remedy)
    for separator in ("\t", ",", ";"):
        header = _fields_of(lines[0], separator)
        if any(is_column(fold(name)) for name in header):
            return _text_table(lines, separator, where)
    return AnswerRows(("ranking",), [[names_of(line)] for line in lines], places, header=False)


def fold(name: Any) -> str:
    """A column's name for comparing: without spaces around it, in lower case; pandas' name of a
    nameless column is no name.
    """
    folded = str(name).strip().casefold()
    return "" if folded.startswith("unnamed:") else folded


def _fields_of(line: str, separator: str) -> list[str]:
    if separator == "\t":
        return [unquoted(cell) for cell in line.split("\t")]
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return []


def unquoted(cell: str) -> str:
    """A field as pandas, R and spreadsheets mean it: quotes around it are none of its own, doubled
    ones inside are one.
    """
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', ""):
        return cell[1:-1].replace('""', '"')
    return cell


def _text_table(lines: Sequence[str], separator: str, where: str) -> AnswerRows:
    rows, places = [], []
    if separator == "\t":
        for number, line in enumerate(lines, start=1):
            rows.append(_fields_of(line, separator))
            places.append(f"{where}:{number}")
        return _checked(rows[0], rows[1:], places[1:], places[0])
    ended = (f"{line}\n" for line in lines)
    reader = csv.reader(ended, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            rows.append(row)
            places.append(f"{where}:{reader.line_num}")
    except csv.Error as e:
        raise VwsdError(f"not CSV: {e}", f"{where}:{reader.line_num}", AGAIN) from None
    return _checked(rows[0], rows[1:], places[1:], f"{where}:1")


def _checked(
    header: Sequence[Any], rows: list[list[Any]], places: list[str], where: str
) -> AnswerRows:
    columns = tuple(fold(name) for name in header)
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        what = f"two columns are named {twice[0]!r}"
        raise VwsdError(what, where, "Give each column a name of its own.")
    width, checked = len(columns), []
    for row, place in zip(rows, places):
        if len(row) == width + 1 and row[-1] in ("", None):  # a separator at the end of the line
            row = row[:-1]
        if len(row) != width:
            raise VwsdError(f"{len(row)} fields, the header has {width}", place, AGAIN)
        checked.append(row)
    return AnswerRows(columns, checked, places)


def names_of(line: str) -> list[str]:
    """Names of a ranking's line: a list as JSON or Python write it, or fields between tabs, else
    commas or semicolons.
    """
    if line.strip().startswith("["):
        listed = list_in(line)
        if listed is not None:
            return [str(name).strip() for name in listed]
    for separator in ("\t", ",", ";"):
        names = [name.strip() for name in _fields_of(line, separator)]
        while len(names) > 1 and not names[-1]:
            names.pop()
        if len(names) > 1:
            return names
    return [line.strip()]


def list_in(cell: Any) -> list | None:
    """The list that a cell holds, itself or as JSON or Python write one; None where it holds
    none."""
    if isinstance(cell, list):
        return cell
    if not isinstance(cell, str) or len(cell) > LONGEST_LINE or not cell.strip().startswith("["):
        return None
    try:
        value = json.loads(cell, **number_hooks(Number))
    except (ValueError, RecursionError):
        return _python_list(cell)
    return value if isinstance(value, list) else None


def _python_list(cell: str) -> list[str] | None:
    """Names in single quotes; numbers in such a list would lose their spelling and are not read."""
    try:
        value = ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return None
    return value


# ---------------------------------------------------------------- JSON

LAYOUT = (
    "A JSON table is a list of objects with score_1 to score_10 or scores, or one of pandas' forms."
)


def _json_table(text: str, where: str, is_column: Callable[[str], bool]) -> AnswerRows | None:
    """The table of a JSON text; None where it is no JSON at all (a ranking may begin with a
    bracket).
    """
    lines = split_lines(text)
    file = PurePath(where)
    refuse_large_json(text, where)
    by_line = file.suffix.lower() in (".jsonl", ".ndjson")
    if by_line or len(lines) > 1 and _whole(lines[0]) and not _whole(text):
        places = [f"{where}:{number}" for number in range(1, len(lines) + 1)]
        rows = [parse_json(line, place, Number) for line, place in zip(lines, places)]
        return _from_rows(rows, places, where)
    if not _whole(text):
        if file.suffix.lower() == ".json":
            parse_json(text, where, Number)
        return None
    return _from_json(parse_json(text, where, Number), where, is_column)


def _whole(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _from_json(value: Any, where: str, is_column: Callable[[str], bool]) -> AnswerRows:
    if isinstance(value, dict):
        value = _rows_of(value, where, is_column)
        if isinstance(value, AnswerRows):
            return value
    return _from_rows(value, _places(value, where), where)


def _places(rows: Sequence[Any], where: str) -> list[str]:
    return [f"{where}: row {number}" for number in range(1, len(rows) + 1)]


def _all(values: Sequence[Any], kind: type | tuple[type, ...]) -> bool:
    """Are there values, and all of them of a kind?"""
    return bool(values) and all(isinstance(value, kind) for value in values)


def _rows_of(value: dict, where: str, is_column: Callable[[str], bool]) -> list | AnswerRows:
    """Rows of a JSON object: pandas' orients split, table, columns and index; id -> row; one row;
    or one key around them all.
    """
    inner = list(value.values())
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        return _from_split(value, where)
    if isinstance(value.get("data"), list) and "schema" in value:
        return value["data"]
    named = any(is_column(fold(name)) for name in value)
    if len(value) == 1 and isinstance(inner[0], list):
        nested = any(isinstance(cell, (list, dict)) for cell in inner[0])
        if nested or not named:
            return inner[0]
    if named and _all(inner, list):
        columns = {name: dict(enumerate(column)) for name, column in value.items()}
        return _from_columns(columns, where, with_index=False)
    if named and _all(inner, dict):
        return _from_columns(value, where, with_index=True)
    if _all(inner, dict):
        return [{"id": key, **row} if "id" not in row else row for key, row in value.items()]
    if _all(inner, list):
        return [{"id": key, _kind(row): row} for key, row in value.items()]
    return [value]


def _from_split(value: dict, where: str) -> AnswerRows:
    rows, columns = value["data"], value["columns"]
    index = value.get("index", [None] * len(rows))
    listed = all(isinstance(row, list) for row in rows)
    if not listed or not isinstance(index, list) or len(index) != len(rows):
        what = "the rows are no lists, or their index has another length"
        raise VwsdError(what, where, LAYOUT)
    if "index" in value:
        columns, rows = ["", *columns], [[key, *row] for key, row in zip(index, rows)]
    return _checked(columns, rows, _places(rows, where), where)


def _from_columns(columns: dict[str, dict], where: str, with_index: bool) -> AnswerRows:
    keys = list(next(iter(columns.values())))
    if any(list(column) != keys for column in columns.values()):
        raise VwsdError("the columns have not the same rows", where, LAYOUT)
    header, rows = list(columns), []
    for key in keys:
        rows.append([column[key] for column in columns.values()])
    if with_index:
        header, rows = ["", *header], [[key, *row] for key, row in zip(keys, rows)]
    return _checked(header, rows, _places(rows, where), where)


def _kind(row: list) -> str:
    """What a nameless list of a row is: ten scores, or ten names."""
    return "scores" if all(isinstance(cell, Number) or cell is None for cell in row) else "ranking"


def _from_rows(rows: list, places: list[str], where: str) -> AnswerRows:
    if not rows:
        raise VwsdError("the prediction file is empty", where, "Run the system again.")
    if all(isinstance(row, list) for row in rows):
        return AnswerRows((_kind(rows[0]),), [[row] for row in rows], places, header=False)
    if not all(isinstance(row, dict) for row in rows):
        raise VwsdError("the JSON is no table", where, LAYOUT)
    header = list(rows[0])
    for row, place in zip(rows, places):
        if set(row) != set(header):
            other = min(set(row) ^ set(header))
            raise VwsdError(f"the key {other!r} stands in some rows only", place, AGAIN)
    cells = []
    for row in rows:
        cells.append([row[name] for name in header])
    return _checked(header, cells, places, where)
