"""From a cell of a table to its origin: rows of numbers, stored facts, model, data, code, notebook.

Tables are functions of the stored facts, so a table itself is asked: a fact's numbers are changed
in memory, the table is made again, and what moves the cell is its origin. Nothing is kept by hand.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from vwsdlib.analysis.metrics import gold_ranks
from vwsdlib.errors import VwsdError, known
from vwsdlib.paths import results_dir

from .facts.code import code_cells, is_current
from .facts.collect import Collection
from .facts.numbers import audit_rows, lines_behind, prediction_rows
from .facts.reported import claims
from .pipeline import owners
from .report import deviations
from .views.catalogue import TABLES
from .views.tables import Table, claims_table

Unit = tuple[str, Any]  # (kind, which one): a part of the stored facts that can be changed alone
Alter = Callable[[Any, int], Any]
FEW = 24  # values of a key by which records are taken apart
IDENTITY = ("model", "revision", "weights_sha256")
# how a notebook's cell writes a fact, where its meta does not say the line
WRITES = {
    "predictions": "run.predictions(",
    "measured": 'run.measure("{}"',
    "audit": "write_audit(",
    "translations": "write_translations(",
}


@dataclass
class Origin:
    """A stored fact behind a cell; `lines` are counted from 1 and empty where the file has none."""

    file: str
    lines: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)  # of a file without lines
    of: int = 0  # lines that the file has
    models: list[dict] = field(default_factory=list)  # name, revision, hash of weights
    data: dict = field(default_factory=dict)  # set, language, split, hash
    code_sha256: str = ""
    code_is_here: bool | None = None  # None: the meta does not say which code it was
    notebook: str = ""
    cells: list[int] = field(default_factory=list)  # code cells from 1; several where none is sure
    line: str = ""  # of the cell


@dataclass
class Cell:
    """What `why` says of a cell."""

    table: str
    row: list[str]
    column: str
    cell: str
    value: Any
    whole_row: bool  # nothing moves the cell itself, which is a name or a count: origin of its row
    rows: list[dict]
    facts: list[Origin]

    def as_json(self) -> dict:
        """Plain values."""
        return asdict(self)


def origin_of(profile: str, table: str, row: str, column: str) -> Cell:
    """Origin of a cell; row and column by number from 1 or by their text. VwsdError where there is
    no such table, row or column, naming the nearest.
    """
    make = _maker(known("table", table, [*TABLES, "claims"]))
    c = Collection(profile, results_dir(profile))
    made = make(c)
    if made is None:
        raise VwsdError(
            f"the profile {profile} has no facts for the table '{table}'",
            where=c.folder,
            remedy=f"Run `vwsd run --profile {profile}`; it names the tables that there are.",
        )
    y, x = find_row(made, row), find_column(made, column)
    units = _moving(c, make, made, y, [x])
    whole_row = not units
    units = units or _moving(c, make, made, y, range(len(made.columns)))
    shown, value = made.cells()[y], made.rows[y].get(made.columns[x].key)
    return Cell(
        table,
        row=[shown[place] for place in _names(made)],
        column=made.columns[x].heading,
        cell=shown[x],
        value=value,
        whole_row=whole_row,
        rows=_rows_shown(c, units, value),
        facts=[_origin(c, file, parts) for file, parts in sorted(_files(c, units).items())],
    )


def _maker(name: str) -> Callable[[Collection], Table | None]:
    if name == "claims":
        return lambda c: claims_table(claims(c, deviations()))
    return TABLES[name]


# ---------------------------------------------------------------- which cell


def find_row(table: Table, asked: str) -> int:
    """Index of a row: its number, from 1, or the text of its first cells, as far as it is the only
    one."""
    starts: dict[str, list[int]] = defaultdict(list)
    for number, cells in enumerate(table.cells()):
        for length in range(1, len(cells) + 1):
            starts[" ".join(cells[:length])].append(number)
    return _place(asked, "row", len(table.rows), starts, table)


def find_column(table: Table, asked: str) -> int:
    """Index of a column: its number, from 1, its heading, or its key in the CSV."""
    headings: dict[str, list[int]] = defaultdict(list)
    for number, column in enumerate(table.columns):
        if column.key == asked:
            return number
        headings[column.heading].append(number)
    return _place(asked, "column", len(table.columns), headings, table)


def _place(asked: str, what: str, most: int, texts: dict[str, list[int]], table: Table) -> int:
    """The one index that is asked for by number or by text, letter case aside; VwsdError where
    there is none, or several."""
    if asked.isdecimal():
        if not 1 <= int(asked) <= most:
            raise VwsdError(f"the table '{table.name}' has {what}s 1 to {most}, and no {asked}")
        return int(asked) - 1
    numbers: list[int] = []
    for text, there in texts.items():
        if _plain(text) == _plain(asked):
            numbers += there
    if not numbers:
        known(what, asked, texts, f"table '{table.name}'")
    if len(numbers) > 1:
        spelled = ", ".join(str(number + 1) for number in numbers)
        raise VwsdError(
            f"{len(numbers)} {what}s are called '{asked}'",
            where=f"table '{table.name}'",
            remedy=f"Say more of it, or give its number: {spelled}.",
        )
    return numbers[0]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


# ---------------------------------------------------------------- what moves it


def _moving(
    c: Collection, make: Callable, made: Table, y: int, columns: Sequence[int]
) -> list[Unit]:
    """Parts of the stored facts whose change moves a cell of row `y` in one of `columns`; texts of
    records only where no number does.
    """
    wanted = _values(made, y, columns)

    def moves(units: Sequence[Unit]) -> bool | None:
        """None where the table cannot be made, or no longer has the row."""
        answers = set()
        for turn in range(KINDS[units[0][0]].turns):
            try:
                other = make(_altered(c, units, turn))
            except Exception:  # facts that do not fit together: whatever the table makes of them
                answers.add(None)
                continue
            place = None if other is None else _same_row(made, y, other)
            answers.add(None if place is None else _values(other, place, columns) != wanted)
        return True if True in answers else None if None in answers else False

    units: list[Unit] = []
    for kind, part in KINDS.items():
        # a cached property that stands in the collection is one that the table has read
        if part.attribute in vars(c) and (kind != "texts" or not units):
            units += _search([(kind, name) for name in part.names(c)], moves)
    lines: list[Unit] = []
    for kind, name in units:
        if kind == "records":
            singles = [("records", (name[0], (line,))) for line in name[1]]
            lines += _search(singles, moves, FEW) or [("records", name)]
    return [unit for unit in units if unit[0] != "records"] + lines


def _search(units: list[Unit], moves: Callable, most: int | None = None) -> list[Unit]:
    """Those of `units` that move the cell, by halving; all, where both halves of more than `most`
    do."""
    if not units:
        return []
    answer = moves(units)
    if answer is False or len(units) == 1:
        return units if answer else []
    half = len(units) // 2
    parts = units[:half], units[half:]
    if most and len(units) > most and all(moves(part) for part in parts):
        return units
    return _search(parts[0], moves, most) + _search(parts[1], moves, most)


def _values(table: Table, y: int, columns: Sequence[int]) -> list:
    row = table.rows[y]
    return [_exact(row.get(table.columns[x].key)) for x in columns]


def _exact(value: Any) -> Any:
    """A cell's value; an interval's ends in full precision."""
    return (value.low, value.high) if hasattr(value, "low") else value


def _names(table: Table) -> list[int]:
    """Columns that name a row: the first that hold no number, as far as they stand together."""
    places = itertools.dropwhile(
        lambda place: table.columns[place].format, range(len(table.columns))
    )
    together = itertools.takewhile(lambda place: not table.columns[place].format, places)
    return list(together)[:3]


def _same_row(made: Table, y: int, other: Table) -> int | None:
    """Where row `y` stands in the table made again: the row of the same names, else the same
    number."""
    names = [made.columns[place].key for place in _names(made)]
    head = [made.rows[y].get(name) for name in names]
    places = range(len(other.rows))
    same = [i for i in places if [other.rows[i].get(name) for name in names] == head]
    if y in same or not same:
        return y if len(other.rows) == len(made.rows) else None
    return same[0]


# ---------------------------------------------------------------- facts, changed


def _altered(c: Collection, units: Sequence[Unit], turn: int) -> Collection:
    """The collection with the numbers of some of its parts changed, in memory."""
    other = replace(c)
    other.__dict__.update(c.__dict__)
    for kind, grouped in itertools.groupby(units, key=lambda unit: unit[0]):
        attribute = KINDS[kind].attribute
        parts = dict(getattr(other, attribute))
        for _, name in grouped:
            key = name if name in parts else name[0]
            parts[key] = KINDS[kind].alter(parts[key], name, turn)
        other.__dict__[attribute] = parts
    return other


@dataclass(frozen=True)
class Part:
    """One kind of part: the collection's attribute, the names of its parts, how one is changed, in
    how many ways (one of them may happen to move nothing).
    """

    attribute: str
    names: Callable[[Collection], Sequence]
    alter: Callable[[Any, Any, int], Any]
    turns: int = 1


def _row(row: dict, _name: str, _turn: int) -> dict:
    keys = ("value", "k", "ci_low", "ci_high")  # n stays: rows of one system agree in it
    return row | {key: _number(row[key]) for key in keys}


def _number(value: float | None) -> float | None:
    if value is None:
        return None
    return value + 7 if isinstance(value, int) else value * 1.37 + 0.11


def _prediction(p: Any, name: str, turn: int) -> Any:
    """Other scores: half of the items right, then most of them, then few, by narrow margins."""
    dice = np.random.default_rng([turn, *name.encode()])
    scores = dice.random(p.scores.shape).astype(np.float32)
    gold = np.array([item.gold_index for item in p.items])
    right = dice.random(len(gold)) < (0.5, 0.9, 0.1)[turn]
    narrow = np.where(right, scores.max(1) + 0.01, scores.min(1) - 0.01)
    scores[np.arange(len(gold)), gold] = narrow
    return replace(p, scores=scores, ranks=gold_ranks(scores, gold))


def _plain_numbers(value: Any, _name: Any, _turn: int) -> Any:
    """Every number below, changed."""
    if isinstance(value, dict):
        return {key: _plain_numbers(each, _name, _turn) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_numbers(each, _name, _turn) for each in value]
    if isinstance(value, bool):
        return not value
    return _number(value) if isinstance(value, (int, float)) else value


def _answers(answered: tuple, name: Any, turn: int) -> tuple:
    """Other answers: most right in one turn, none in the other."""
    items, _ = answered
    dice = random.Random(f"{turn} {name}")
    right = {item.id: item.golds[:1] for item in items if turn and dice.random() < 0.9}
    return items, {item.id: right.get(item.id, ("",)) for item in items}


def _records(m: Any, name: tuple[str, Sequence[int]], turn: int) -> Any:
    """Numbers of some records: turned over within what the file holds, then changed outright."""
    records = list(m.records)
    ends: dict[str, tuple[float, float]] = {}
    for key in records[0]:
        values = [r.get(key) for r in records]
        if all(isinstance(value, float) for value in values):
            ends[key] = min(values), max(values)
    for line in name[1]:
        changed = _plain_numbers(records[line], None, 0)
        if turn == 0:
            for key, (low, high) in ends.items():
                changed[key] = low + high - records[line][key]
        records[line] = changed
    return replace(m, records=records)


def _record_groups(c: Collection) -> list[tuple[str, tuple[int, ...]]]:
    """(measurement, its lines from 0) for the records that agree in all keys of few values."""
    groups = []
    for name, m in c.measured.items():
        texts = defaultdict(set)
        for record in m.records:
            for key, value in record.items():
                if isinstance(value, str):
                    texts[key].add(value)
        few = [key for key, values in texts.items() if len(values) <= FEW]
        alike: dict[tuple, list[int]] = defaultdict(list)
        for line, record in enumerate(m.records):
            alike[tuple(record.get(key) for key in few)].append(line)
        groups += [(name, tuple(lines)) for lines in alike.values()]
    return groups


def _translation_lines(c: Collection) -> list[tuple[str, int]]:
    """(file, line from 0) of each translation."""
    names = []
    for name, (records, _) in c.translations.items():
        names += [(name, line) for line in range(len(records))]
    return names


def _translation(stored: tuple, name: tuple[str, int], turn: int) -> tuple:
    """Other texts in a line, and other marks."""
    records, meta = list(stored[0]), stored[1]
    record = records[name[1]]
    texts = {key: f"{value}′" for key, value in record.items() if isinstance(value, str)}
    kept = {"language": record["language"], "id": record["id"]}
    records[name[1]] = record | texts | kept | {"flags": [] if record["flags"] else ["copied"]}
    return records, meta


def _record_texts(c: Collection) -> list[tuple[str, tuple[int, ...], str]]:
    """Each group of records with each of its keys that hold text."""
    names = []
    for name, lines in _record_groups(c):
        record = c.measured[name].records[lines[0]]
        names += [(name, lines, key) for key, value in record.items() if isinstance(value, str)]
    return names


def _texts(m: Any, name: tuple[str, Sequence[int], str], _turn: int) -> Any:
    """The text under one key of some records, changed."""
    records = list(m.records)
    for line in name[1]:
        records[line] = records[line] | {name[2]: f"{records[line][name[2]]}′"}
    return replace(m, records=records)


def _audit_keys(c: Collection) -> list[tuple[str, str]]:
    return [(name, key) for name, audit in c.audits.items() for key in audit]


def _audit(audit: dict, name: tuple[str, str], turn: int) -> dict:
    """Numbers under one key, changed."""
    return audit | {name[1]: _plain_numbers(audit[name[1]], name, turn)}


def _meta_keys(c: Collection) -> list[tuple[str, str]]:
    return [(name, key) for name, (_, meta) in c.translations.items() for key in meta]


def _meta(stored: tuple, name: tuple[str, str], _turn: int) -> tuple:
    """What a meta says under one key, changed."""
    records, meta = stored
    value = meta[name[1]]
    other = f"{value}′" if isinstance(value, str) else _plain_numbers(value, name, 0)
    return records, meta | {name[1]: other}


KINDS = {
    "rows": Part("rows", lambda c: list(c.rows), _row),
    "predictions": Part("predictions", lambda c: list(c.predictions), _prediction, turns=3),
    "audits": Part("audits", _audit_keys, _audit),
    "answers": Part("answered", lambda c: list(c.answered), _answers, turns=2),
    "records": Part("measured", _record_groups, _records, turns=2),
    "translations": Part("translations", _translation_lines, _translation),
    "metas": Part("translations", _meta_keys, _meta),
    "texts": Part("measured", _record_texts, _texts),
}


# ---------------------------------------------------------------- what it is


def _rows_shown(c: Collection, units: Sequence[Unit], value: Any) -> list[dict]:
    """Rows of numbers behind the parts: those that hold the cell's value, else all."""
    rows: list[dict] = []
    for kind, name in units:
        if kind == "rows":
            rows.append(c.rows[name])
        elif kind == "predictions":
            rows += prediction_rows(c.predictions[name])
        elif kind == "audits":
            made = audit_rows(c.audits[name[0]])
            rows += [row for row in made if name[1] in (row["variant"], "intervals")]
    exact = _exact(value)
    equal = [r for r in rows if exact in (r["value"], r["k"], (r["ci_low"], r["ci_high"]))]
    keys = ("id", "metric", "value", "k", "n", "ci_low", "ci_high")
    return [{key: row[key] for key in keys} for row in equal or rows]


def _files(c: Collection, units: Sequence[Unit]) -> dict[str, set]:
    """File -> its lines, from 1, that the parts are made of; of one without lines its keys."""
    files: dict[str, set] = defaultdict(set)
    for kind, name in units:
        if kind == "predictions":
            files[f"predictions/{name}.jsonl"] |= _all_lines(c.predictions[name].items)
        elif kind == "audits":
            files[f"audit/{name[0]}.json"].add(name[1])
        elif kind == "metas":
            files[f"translations/{name[0]}.meta.json"].add(name[1])
        elif kind == "answers":
            files["measured/wsd_answers.jsonl"] |= _lines_where(c, "wsd_answers", "system", name[0])
        elif kind == "translations":
            files[f"translations/{name[0]}.jsonl"].add(name[1] + 1)
        elif kind == "rows":
            file, lines = _file_of_row(c, c.rows[name])
            files[file] |= lines
        else:
            files[f"measured/{name[0]}.jsonl"] |= {line + 1 for line in name[1]}
    return files


def _all_lines(items: Sequence) -> set[int]:
    return set(range(1, len(items) + 1))


def _lines_where(c: Collection, name: str, key: str, value: object) -> set[int]:
    records = enumerate(c.measured[name].records, start=1)
    return {number for number, record in records if record[key] == value}


def _file_of_row(c: Collection, row: dict) -> tuple[str, set[int]]:
    """The file that a row was made from, and the lines."""
    run = row["id"].rpartition("/")[0]
    if run in c.predictions:
        return f"predictions/{run}.jsonl", _all_lines(c.predictions[run].items)
    for name, m in c.measured.items():
        lines = lines_behind(row["id"], m)
        if lines:
            return f"measured/{name}.jsonl", set(lines)
    return f"audit/{row['language']}.{row['split']}.json", {row["variant"]}


def _origin(c: Collection, file: str, parts: set) -> Origin:
    folder, _, name = file.partition("/")
    name = name.removesuffix(".jsonl").removesuffix(".json").removesuffix(".meta")
    lines = {part for part in parts if isinstance(part, int)}
    if folder == "predictions":
        meta, of = c.predictions[name].meta, len(c.predictions[name].items)
        models = [_identity(c.predictions[name].encoder, meta)]
    elif folder == "audit":
        meta, of, models = c.audits[name], 0, []
    elif folder == "translations":
        meta, of = c.translations[name][1], len(c.translations[name][0])
        models = [_identity(meta["translator"], meta)]
    else:
        meta, of = c.measured[name].meta, len(c.measured[name].records)
        models = list(_models(c, name, lines))
    keys = ("dataset", "language", "split", "data_sha256")
    origin = Origin(file, sorted(lines), sorted(parts - lines), of, models)
    origin.data = {key: meta.get(key, "") for key in keys}
    origin.code_sha256 = meta.get("code_sha256", "")
    origin.code_is_here = is_current(meta) if origin.code_sha256 else None
    return _made_in(origin, folder, name, meta, c.profile)


def _identity(name: str, meta: dict) -> dict:
    return {"name": name} | {key: meta.get(key, "") for key in IDENTITY}


def _models(c: Collection, name: str, lines: set[int]) -> Iterator[dict]:
    """Identity of each model that lines of a measurement name, or its meta does."""
    m = c.measured[name]
    names = [m.meta[key] for key in ("segmenter", "dual") if key in m.meta]
    for line in sorted(lines):
        record = m.records[line - 1]
        keys = [key for key in ("model", "system", "encoder", "run") if key in record]
        names += [record[key] for key in keys]
    for model in dict.fromkeys(names):
        runs = c.select(encoder=model) or c.select(encoder=f"polclip-{model}")
        identity = m.meta.get("identities", {}).get(model) or (runs[0].meta if runs else {})
        yield _identity(model, identity)


def _made_in(origin: Origin, folder: str, name: str, meta: dict, profile: str) -> Origin:
    """Notebook, cell and line that made a fact: as its meta says; of an earlier version's, the
    notebook that owns the file, and the cells that write such facts.
    """
    told = meta.get("made_in", {})
    origin.notebook = told.get("notebook", "")
    if not origin.notebook:
        steps = owners(profile)
        mine = [step["name"] for step in steps if origin.file in step["outputs"]]
        origin.notebook = mine[0] if mine else ""
    origin.line = told.get("line", "")
    written = origin.line or WRITES[folder].format(name)
    for number, cell in enumerate(code_cells(origin.notebook), start=1):
        here = [line.strip() for line in cell.splitlines() if written in line]
        if here:
            origin.cells.append(number)
            origin.line = origin.line or here[0]
    return origin


def origin_text(answer: Cell) -> str:
    """For people: a line a fact, what made it below."""
    named = " | ".join(answer.row)
    lines = [f"{answer.table}: {named}; {answer.column}: {answer.cell}"]
    if answer.whole_row:
        lines.append("no number of a fact moves this cell; what its row is made of:")
    for row in answer.rows:
        value = f"{row['value']:.6g}" + (f" ({row['k']:g} of {row['n']})" if row["k"] else "")
        lines.append(f"row    {row['id']}: {value}, {row['ci_low']:.6g} to {row['ci_high']:.6g}")
    for fact in answer.facts:
        lines += _fact_text(fact)
    if not answer.facts:
        lines.append("no stored fact stands behind it")
    return "\n".join(lines)


def _fact_text(fact: Origin) -> Iterator[str]:
    where = f", key {', '.join(fact.keys)}" if fact.keys else ""
    if len(fact.lines) == 1:
        where = f", line {fact.lines[0]} of {fact.of}"
    elif fact.lines:
        where = f", {len(fact.lines)} of {fact.of} lines"
    yield f"fact   {fact.file}{where}"
    for model in fact.models:
        said = [model["model"], model["revision"], model["weights_sha256"][:12]]
        yield f"  model    {model['name']}: {' '.join(filter(None, said)) or '–'}"
    data = fact.data
    said = [data["dataset"], data["language"], data["split"], data["data_sha256"][:12]]
    yield f"  data     {' '.join(filter(None, said)) or '–'}"
    yield f"  code     {fact.code_sha256[:12] or '–'}, {STATES[fact.code_is_here]}"
    cells = " or ".join(map(str, fact.cells)) or "?"
    yield f"  made by  {fact.notebook or '?'}, code cell {cells}: {fact.line}"


STATES = {
    True: "the code that is here",
    False: "other code than is here",
    None: "not said by its meta",
}
