"""Predictions of others, read into scores: what stands beside the numbers is held against the
data, row by row.

A file is the official submission (a line an item: the ten names, best first), a table with the
columns `score_1` to `score_10` in candidate order, or a table of lists (`scores`, with
`candidates` where they stand in another order); as text, JSON, or in a zip.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ..data.items import (
    CANDIDATE_WORDS,
    CANDIDATES,
    GOLD_WORDS,
    NUMBERED_COLUMN,
    Item,
    find_candidate,
    language_code,
    slots,
)
from ..data.letters import first_difference, normalise
from ..errors import VwsdError
from ..paths import packaged
from .answer_files import read_answers
from .tables import AnswerRows, list_in, parse_table, unquoted

WORDS = packaged("analysis/columns.yml")
SCORE_COLUMNS = [f"score_{i + 1}" for i in range(CANDIDATES)]
SPARE_LINES = 1000  # beyond a row a candidate; a longer file is refused before it is taken apart
SCORE_COLUMN = re.compile(r"score_\d+")
INDEX_WORDS = ("", *WORDS["index"])
TEXT_COLUMNS: dict[str, str] = WORDS["texts"]  # name -> field of an item
# names by which a table's header is known
KNOWN = {*TEXT_COLUMNS, *WORDS["index"], *WORDS["language"], *WORDS["scores"], *WORDS["ranking"]}
KNOWN |= CANDIDATE_WORDS | GOLD_WORDS
DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
THIS_SET = "Give predictions of exactly this set, in the data file's order."
RANKING = (
    "A submission holds each item's ten image names, best first, tab-separated, "
    "in the data file's order."
)


def read_submission(
    path: str | Path,
    items: Sequence[Item],
    *,
    language: str | None = None,
    allow_ties: bool = False,
    several: bool = False,
) -> np.ndarray:
    """Scores [n, 10] of a prediction file, zip or folder; -inf where a picture is missing.

    language: of which a zip's or folder's file is taken (default: the items'); allow_ties: read a
    file whose scores say nothing; several: the zip or folder holds other languages too. Warns,
    with counts, of what was read otherwise than it stands, and of columns that it does not know.
    Raises VwsdError, naming file and line, for all that does not fit the items.
    """
    if not items:
        raise VwsdError("there are no items to score", path, "Give a set with at least one item.")
    language = language or items[0].language
    text, where = read_answers(path, language, several)
    if where != str(path):
        _note(str(path), f"{PurePath(where).name} is read; the language of the set is {language!r}")
    names = {name.casefold() for name in slots(items)}
    most_lines = CANDIDATES * len(items) + SPARE_LINES
    table = parse_table(text, where, lambda name: _is_known(name) and name not in names, most_lines)
    _check_length(table, items, where)
    table = _checked_order(table, items, where)
    unknown = _checked_beside(table, items)
    scores = np.array(_scores(table, items, where), dtype=np.float64)  # [n, 10]
    if unknown:
        few = f"{len(unknown)} of {len(table.columns)} columns"
        _note(where, f"{few} are not known and not checked: {_some(unknown)}")
    if table.header:
        _note_copies(table, scores, where)
    if not allow_ties:
        refuse_constant(scores, where)
    return scores


def _note(where: str, text: str) -> None:
    warnings.warn(f"{PurePath(where).name}: {text}", stacklevel=4)


def _some(names: Sequence[str]) -> str:
    shown = [name[:40] or "(no name)" for name in names[:6]]
    return ", ".join(shown) + (" ..." if len(names) > len(shown) else "")


def _is_known(name: str) -> bool:
    """Is this (folded) name one by which a table's header is known?"""
    return name in KNOWN or bool(SCORE_COLUMN.fullmatch(name) or NUMBERED_COLUMN.fullmatch(name))


def _check_length(table: AnswerRows, items: Sequence[Item], where: str) -> None:
    rows, n = len(table.rows), len(items)
    if rows == n:
        return
    remedy = "Give predictions of exactly this set, a line an item."
    if rows == n * CANDIDATES:
        remedy = (
            "This looks like a row a candidate; one row an item is needed, "
            "with the columns score_1 to score_10."
        )
    elif not table.header and rows == n + 1 and _begins_late(table, items[0]):
        remedy = "The first line is a header or a stray line; a submission has none: remove it."
    elif not table.header and "ranking" not in table.columns:
        remedy += " The file has no line with the names of its columns."
    raise VwsdError(f"{rows} predictions for {n} items", where, remedy)


def _begins_late(table: AnswerRows, first: Item) -> bool:
    """Is the first item's ranking that of the second line?"""
    return _ranks(table.rows[1][0], first) and not _ranks(table.rows[0][0], first)


def _ranks(names: Any, item: Item) -> bool:
    """Are these the names of all ten candidates of the item, in any order?"""
    if not isinstance(names, list) or len(names) != CANDIDATES:
        return False
    meant = {find_candidate(str(name), item.candidates) for name in names}
    return meant == set(item.candidates)


# ---------------------------------------------------------------- which row is which item


def _checked_order(table: AnswerRows, items: Sequence[Item], where: str) -> AnswerRows:
    """The table in the data's order: by the items' own ids where it has them; every other number
    of rows must run in order.
    """
    columns = [name for name in INDEX_WORDS if name in table.columns]
    own = [item.id for item in items]
    ordered = table
    for name in columns:
        ids = _words(table.column(name))
        if set(ids) & set(own):
            _check_ids(ids, own, table, name)
            places = [ids.index(item_id) for item_id in own] if ids != own else range(len(own))
            moved = sum(place != i for i, place in enumerate(places))
            if moved:
                _note(
                    where,
                    f"{moved} of {len(own)} rows stand in another order than the data "
                    f"and were put in order by {name or 'their ids'!r}",
                )
            rows = [table.rows[i] for i in places]
            ordered = replace(table, rows=rows, places=[table.places[i] for i in places])
    for name in columns:
        before, after = _words(table.column(name)), _words(ordered.column(name))
        if after != own and not _in_order(before) and not _in_order(after):
            _refuse_order(before, table, name)
    return ordered


def _words(cells: Sequence[Any]) -> list[str]:
    return [re.sub(r"(?<=\d)\.0+$", "", str(cell).strip()) for cell in cells]


def _check_ids(ids: Sequence[str], own: Sequence[str], table: AnswerRows, name: str) -> None:
    known, seen = set(own), set()
    for item_id, place in zip(ids, table.places):
        if item_id not in known:
            raise VwsdError(f"{name} {item_id!r} is no item of the data", place, THIS_SET)
        if item_id in seen:
            raise VwsdError(f"{name} {item_id!r} stands twice", place, "Give each item one row.")
        seen.add(item_id)


def _numbers(ids: Sequence[str]) -> list[int] | None:
    """The numbers that ids end in, where they have one beginning in common; else None."""
    parts = [re.fullmatch(r"(.*?)(\d{1,15})", word, re.S | re.ASCII) for word in ids]
    if not all(parts) or len({part[1] for part in parts}) > 1:
        return None
    return [int(part[2]) for part in parts]


def _in_order(ids: Sequence[str]) -> bool:
    return _counts_rows(_numbers(ids))


def _counts_rows(numbers: Sequence[int] | None) -> bool:
    """Do the numbers run from 0 or from 1?"""
    if numbers is None:
        return False
    n = len(numbers)
    return list(numbers) in (list(range(n)), list(range(1, n + 1)))


def _refuse_order(ids: Sequence[str], table: AnswerRows, name: str) -> None:
    """VwsdError for numbers out of order and ids that stand twice; ids of another kind say nothing
    of the order and pass.
    """
    called = f"the column {name!r}" if name else "the column without a name"
    numbers = _numbers(ids)
    if numbers is not None:
        start = 1 if numbers[0] == 1 else 0
        wrong = next(i for i, number in enumerate(numbers) if number != start + i)
        raise VwsdError(
            f"{called} does not run in order: {ids[wrong]} where {start + wrong} is expected",
            table.places[wrong],
            (
                "Sort the rows by it as numbers, into the data file's order; "
                "leave the column out if the order is right."
            ),
        )
    seen: set[str] = set()
    for word, place in zip(ids, table.places):
        if word in seen and word not in ("", "None"):
            raise VwsdError(f"{called} has {word!r} twice", place, "Give each item one row.")
        seen.add(word)


# ---------------------------------------------------------------- what stands beside the scores


def _checked_beside(table: AnswerRows, items: Sequence[Item]) -> list[str]:
    """Hold the columns that are known against the items; returns the names of those that are not
    known or say nothing.
    """
    unknown, used = [], _columns_used(table)
    own = {item.id for item in items}
    for name in table.columns:
        if name in TEXT_COLUMNS:
            _check_texts(table, name, TEXT_COLUMNS[name], items)
        elif name in GOLD_WORDS:
            _check_gold(table, name, items)
        elif name in WORDS["language"]:
            _check_language(table, name, items)
        elif name in INDEX_WORDS:
            ids = _words(table.column(name))
            if not own & set(ids) and not _in_order(ids):
                unknown.append(name)
        elif name not in used:
            _check_unknown(table, name, items)
            unknown.append(name)
    return unknown


def _check_unknown(table: AnswerRows, name: str, items: Sequence[Item]) -> None:
    """A column of any name that numbers the rows, or repeats the items' own texts, out of order is
    refused: nobody has such a column but for the order.
    """
    words = _words(table.column(name))
    for field in ("id", "target", "phrase", "gold"):
        own = [normalise(getattr(item, field) or "") for item in items]
        here = [normalise(word) for word in words]
        if len(set(own)) > 1 and sorted(here) == sorted(own) and here != own:
            wrong = next(i for i, word in enumerate(here) if word != own[i])
            what = f"the column {name!r} has the data's {field}s in another order"
            raise VwsdError(what, table.places[wrong], THIS_SET)
    numbers = _numbers(words)
    if len(items) > 2 and numbers and _counts_rows(sorted(numbers)) and not _in_order(words):
        _refuse_order(words, table, name)


def _given(cell: Any) -> bool:
    return cell is not None and cell != ""


def _check_texts(table: AnswerRows, name: str, field: str, items: Sequence[Item]) -> None:
    for cell, item, place in zip(table.column(name), items, table.places):
        expected = getattr(item, field)
        # a raw table has the quotes, a quoted one has not
        same = (normalise(expected), normalise(unquoted(expected)))
        if _given(cell) and normalise(str(cell)) not in same:
            points = first_difference(str(cell), expected)
            what = f"{field} is {cell!r} here and {expected!r} in the data"
            raise VwsdError(f"{what} ({points})" if points else what, place, THIS_SET)


def _check_gold(table: AnswerRows, name: str, items: Sequence[Item]) -> None:
    """Golds by name, or by the place of the candidate, counted from 0 or from 1 throughout."""
    bases = {0, 1}
    for cell, item, place in zip(table.column(name), items, table.places):
        if not _given(cell) or item.gold is None:
            continue
        word = str(cell).strip()
        if find_candidate(word, item.candidates) == item.gold:
            continue
        if re.fullmatch(r"\d\d?(\.0)?", word, re.ASCII):
            bases &= {int(float(word)) - item.gold_index}
            if bases:
                continue
        what = f"gold is {cell!r} here and {item.gold!r} in the data"
        raise VwsdError(what, place, THIS_SET)


def _check_language(table: AnswerRows, name: str, items: Sequence[Item]) -> None:
    for cell, item, place in zip(table.column(name), items, table.places):
        if _given(cell) and language_code(str(cell)) != item.language:
            raise VwsdError(
                f"language is {cell!r} here and {item.language!r} is the data's",
                place,
                "Give predictions of exactly this set; if the data are in it, "
                f"say --language {language_code(str(cell))}.",
            )


def _name_columns(table: AnswerRows) -> list[str]:
    """The ten numbered columns of names (candidate_1, image_0 ...) in the order of their numbers;
    empty where there are not ten.
    """
    numbered = [name for name in table.columns if NUMBERED_COLUMN.fullmatch(name)]
    ordered = sorted(numbered, key=lambda name: int(re.search(r"\d+$", name)[0]))
    return ordered if len(ordered) == CANDIDATES else []


def _list_column(table: AnswerRows, words: Sequence[str] | frozenset[str]) -> str:
    """The first column of lists among these names; "" where there is none."""
    for name in table.columns:
        if name in words and table.rows and list_in(table.column(name)[0]) is not None:
            return name
    return ""


def _score_source(table: AnswerRows) -> str:
    """Where the scores stand: "columns", the name of a column of lists, or "" where there are
    none."""
    if any(SCORE_COLUMN.fullmatch(name) for name in table.columns):
        return "columns"
    return _list_column(table, WORDS["scores"])


def _columns_used(table: AnswerRows) -> set[str]:
    source = _score_source(table)
    used = {source or _list_column(table, WORDS["ranking"])}
    if source == "columns":
        used = set(SCORE_COLUMNS)
    return {*used, *_name_columns(table), _list_column(table, CANDIDATE_WORDS)}


# ---------------------------------------------------------------- the scores


def _scores(table: AnswerRows, items: Sequence[Item], where: str) -> list[list[float]]:
    source = _score_source(table)
    ranking = "" if source else _list_column(table, WORDS["ranking"])
    if ranking:
        return _ranked(table.column(ranking), items, table)
    if not source:
        raise _no_scores(table, where)
    if source == "columns":
        rows = _of_columns(table, where)
    else:
        rows = _of_lists(table.column(source), table)
    listed = _listed_names(table)
    return rows if listed is None else _by_name(rows, listed, items, table, where)


def _no_scores(table: AnswerRows, where: str) -> VwsdError:
    if _name_columns(table):
        what = "the first line is a header, a submission has none"
        return VwsdError(what, f"{where}:1", "Remove that line.")
    return VwsdError(
        "column score_1 is missing",
        f"{where}:1",
        "Columns score_1 to score_10 are needed, in candidate order, "
        "or one column of lists named scores.",
    )


def _of_columns(table: AnswerRows, where: str) -> list[list[float]]:
    numbers = sorted(int(name[6:]) for name in table.columns if SCORE_COLUMN.fullmatch(name))
    if numbers[-1] > CANDIDATES:
        what = f"{len(numbers)} scores an item"
        raise VwsdError(what, f"{where}:1", "Sets of exactly ten candidates are supported.")
    absent = [c for c in SCORE_COLUMNS if c not in table.columns]
    if absent:
        remedy = "Columns score_1 to score_10 are needed, in candidate order."
        if numbers == list(range(CANDIDATES)):
            remedy = "The columns are score_0 to score_9: number them from 1."
        raise VwsdError(f"column {absent[0]} is missing", f"{where}:1", remedy)
    columns, rows = [table.columns.index(c) for c in SCORE_COLUMNS], []
    for row, place in zip(table.rows, table.places):
        rows.append([number(row[i], place) for i in columns])
    return rows


def _of_lists(cells: Sequence[Any], table: AnswerRows) -> list[list[float]]:
    rows = []
    for cell, place in zip(cells, table.places):
        listed = list_in(cell)
        if listed is None or len(listed) != CANDIDATES:
            has = "no list" if listed is None else f"a list of {len(listed)}"
            what = f"{has} where ten scores are expected"
            raise VwsdError(what, place, "Give a score for each of the ten candidates.")
        rows.append([number(entry, place) for entry in listed])
    return rows


def number(cell: Any, where: str) -> float:
    """A score (a cosine, or whatever a system gives) as it is spelled: a decimal number with a
    point, or -inf for a missing picture.

    Raises VwsdError for anything else: nan, inf, an empty cell, `1_000`, other than ASCII digits,
    a decimal comma.
    """
    word = cell.strip() if isinstance(cell, str) else cell
    missing, again = "a missing picture is written -inf.", "Run the system again;"
    if word is None or word == "":
        remedy = f"Give each candidate a score; {missing}"
        raise VwsdError("a score is empty", where, remedy)
    spelled = word.lower() if isinstance(word, str) else ""
    if spelled in ("-inf", "-infinity"):
        return -math.inf
    if spelled.lstrip("+-") == "nan":
        raise VwsdError("a score is not a number (nan)", where, f"{again} {missing}")
    value = float(word) if spelled and DECIMAL.fullmatch(word) else None
    if spelled.lstrip("+") in ("inf", "infinity") or (value is not None and math.isinf(value)):
        raise VwsdError(f"a score is infinite ({word})", where, f"{again} {missing}")
    if value is None:
        what = f"could not convert {word!r} to a score"
        raise VwsdError(what, where, "Scores are decimal numbers with a point.")
    return value


def _listed_names(table: AnswerRows) -> list[list[str]] | None:
    """The names that a row's scores belong to, as the row itself lists them; None where it lists
    none.
    """
    places = [table.columns.index(name) for name in _name_columns(table)]
    name = _list_column(table, CANDIDATE_WORDS)
    if not places and not name:
        return None
    listed = []
    for row in table.rows:
        names = [row[i] for i in places] if places else list_in(row[table.columns.index(name)])
        listed.append([str(entry) for entry in names or ()])
    return listed


def _by_name(
    rows: Sequence[Sequence[float]],
    listed: Sequence[Sequence[str]],
    items: Sequence[Item],
    table: AnswerRows,
    where: str,
) -> list[list[float]]:
    """Each row's scores in the data's order of candidates, by the names beside them."""
    ordered, moved = [], 0
    for row, names, item, place in zip(rows, listed, items, table.places):
        meant = [find_candidate(name, item.candidates) for name in names]
        if sorted(map(str, meant)) != sorted(item.candidates):
            strangers = [name for name, candidate in zip(names, meant) if candidate is None]
            raise VwsdError(
                f"the candidates of {item.phrase!r} are others in the data: "
                f"{strangers[0] if strangers else 'one of them twice'} here",
                place,
                THIS_SET,
            )
        moved += tuple(meant) != item.candidates
        ordered.append([row[meant.index(candidate)] for candidate in item.candidates])
    if moved:
        _note(
            where,
            f"{moved} of {len(items)} rows list the candidates in another order than the data; "
            "their scores went by name",
        )
    return ordered


def _ranked(cells: Sequence[Any], items: Sequence[Item], table: AnswerRows) -> list[list[float]]:
    """Scores from rankings: 0 for the first name, -1 for the second ..."""
    scores, other = [], 0
    for cell, item, place in zip(cells, items, table.places):
        names = [str(name).strip() for name in list_in(cell) or ()]
        if not _ranks(names, item):
            raise _no_ranking(names, item, items, place)
        meant = [find_candidate(name, item.candidates) for name in names]
        other += meant != names
        scores.append([-float(meant.index(candidate)) for candidate in item.candidates])
    if other:
        _note(
            table.places[0].rpartition(":")[0],
            f"{other} of {len(items)} lines spell names otherwise than the data "
            "and were read as the candidates",
        )
    return scores


def _no_ranking(names: Sequence[str], item: Item, items: Sequence[Item], place: str) -> VwsdError:
    meant = [find_candidate(name, item.candidates) for name in names]
    folded = {name.casefold() for name in item.candidates}
    twice = [name for name in names if names.count(name) > 1]
    owners = [i for i, other in enumerate(items) if set(names) == set(other.candidates)]
    strangers = [name for name, candidate in zip(names, meant) if candidate is None]
    says, remedy = f": {len(names)} names", RANKING
    if len(names) == 1 and meant[0]:
        says, remedy = (
            ": one name a line",
            "All ten names are needed, best first, with tabs between.",
        )
    elif len(names) == 1 and _ranks(names[0].split(), item):
        says = ": the names are separated by spaces"
        remedy = "Write tabs between the ten names."
    elif len(names) == CANDIDATES and all(DECIMAL.fullmatch(name) for name in names):
        says = ", but ten numbers"
        remedy = (
            "Put a first line above them that names the columns: "
            "score_1 to score_10, tab-separated."
        )
    elif {name.casefold() for name in names} == folded:
        says, remedy = ": names keep their case", "Spell them as the data file does."
    elif twice:
        says = f": {twice[0]} stands twice"
    elif owners:
        says = f", but of those of item {owners[0]}"
        remedy = "The lines are in another order than the data file's."
    elif strangers:
        says = f": {strangers[0]!r} is none of them"
    what = f"not a ranking of the ten candidates of {item.phrase!r}{says}"
    return VwsdError(what, place, remedy)


def _note_copies(table: AnswerRows, scores: np.ndarray, where: str) -> None:
    """Equal rows in a table that says of no row which item it is."""
    beside = {*INDEX_WORDS, *TEXT_COLUMNS, *GOLD_WORDS} & set(table.columns)
    varied = scores[(scores != scores[:, :1]).any(1)]
    copies = len(varied) - len(np.unique(varied, axis=0))
    if copies and not beside and _listed_names(table) is None:
        _note(
            where,
            f"{copies} of {len(scores)} rows repeat the ten scores of another, "
            "and nothing says which item a row belongs to",
        )


def refuse_constant(scores: np.ndarray, where: str) -> None:
    """VwsdError where all scores of each item are the same, so that the rule for ties alone would
    answer. scores: [n, c]; where: the file or the encoder they come from.
    """
    if (scores != scores[:, :1]).any():
        return
    what = "all ten scores are equal, in every item"
    if np.isneginf(scores).all():
        what = "no candidate of any item has a score (all are -inf)"
    remedy = "Run the system again, or give --allow-ties to score it nevertheless."
    raise VwsdError(f"{what}: ties alone would decide", where, remedy)
