"""What a run reproduced: two folders of results, row by row.

A row is *trained* where the weights that made it were trained in the very run that stored it
(`measured/polclip_runs`). Training turns last bits into items, so a trained row may move as much as
such rows were measured to move (`movement.json` of the reference); every other row must be the
same.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vwsdlib import schema
from vwsdlib.errors import VwsdError
from vwsdlib.kept import digest
from vwsdlib.paths import (
    FACTS,
    reference_dir,
    run_dir,
    shown,
    staging_folder,
    write_text,
)

from . import runner
from .facts.collect import Collection
from .facts.shapes import measured, shape
from .report import check_report

STATES = ("identical", "within", "outside", "missing", "extra")
MOVEMENT = "movement.json"
# percentage points by which rows that say the same may differ: last bits of a sum; and, where it is
# a mean of what a network gave (energy, IoU), last bits of that, measured up to 0.0003
LAST_BITS = 1e-9
OF_REAL_NUMBERS = 0.005
MEASURED = "Measure whole runs of the same notebooks on the same items."
REMEDY = "Name a folder that holds rows.jsonl, or the word reference or run."
RULE = (
    "A trained row lies within when value differs by at most `movement`, in its own unit: the"
    " largest of what the row moved between the measured runs (`runs`), of what rows of its kind"
    " (same metric, set, language, text and n) differ by between seeds of one configuration"
    " (`seeds`), and of what any trained row of its metric, language and n moved between the"
    " measured runs (`alike`)."
)


# keys that say which items a row is of
ITEMS = ("n", "limit", "data_sha256")
WORDS = {"reference": reference_dir, "run": run_dir}


class Row(schema.Stored):
    """One line of rows.jsonl, as far as it is compared."""

    id: str
    metric: str
    value: float
    k: float | int | None
    n: int
    ci_low: float
    ci_high: float
    dataset: str
    language: str
    split: str
    variant: str
    revision: str
    weights_sha256: str
    limit: int
    data_sha256: str
    profile: str
    versions: dict[str, str]


class Moved(schema.Stored):
    """How much one trained row moves, in its own unit, and the three measures that say so."""

    movement: float
    runs: float
    seeds: float
    alike: float


class Movement(schema.Stored):
    """movement.json: the rule, the runs that were measured, and each trained row."""

    rule: str
    runs: list[dict]
    rows: dict[str, Moved]


@dataclass(frozen=True)
class Results:
    """The rows of one folder of results, and which of them are trained."""

    folder: Path
    rows: dict[str, Row]

    @cached_property
    def trained(self) -> dict[str, str]:
        """Id of each row whose weights were trained in the run that stored it -> under which
        configuration, the seed left out."""
        runs = self.folder / "measured" / "polclip_runs.jsonl"
        if not runs.is_file():
            return {}
        meta = self.folder / "measured" / "wsd_answers.meta.json"
        models = schema.read_json(meta, shape("identified"), "meta of wsd_answers.jsonl").identities
        configurations = {}
        for run in schema.read_jsonl(runs, measured("polclip_runs")[0], "measurement"):
            weights = models.get(run.run, {}).get("weights_sha256") or None
            configurations[weights] = digest({**run.config, "seed": None})
        return {
            id: configurations[row.weights_sha256]
            for id, row in self.rows.items()
            if row.weights_sha256 in configurations
        }

    def altered(self) -> set[str]:
        """Ids of the rows that are not what the stored facts beside them give; VwsdError where a
        fact is damaged."""
        if not any(any((self.folder / part).glob("*")) for part in FACTS):
            return set()
        profile = next(iter(self.rows.values())).profile
        made = Collection(profile, self.folder).rows
        return {
            id
            for id in self.rows.keys() | made.keys()
            if id not in made or id not in self.rows or not _same(Row(**made[id]), self.rows[id])
        }


@dataclass(frozen=True)
class Pair:
    """One row of two results: identical, within, outside, missing (in the second) or extra."""

    id: str
    state: str
    first: float | None
    second: float | None
    n: int
    movement: float | None = None
    why: str = ""

    def __str__(self) -> str:
        values = ["-" if v is None else f"{v:.3f}" for v in (self.first, self.second)]
        return f"{self.state:<10} {self.id:<52} {values[0]:>8} {values[1]:>8}  {self.why}".rstrip()


def results_folder(name: str | Path, profile: str) -> Path:
    """The folder that a word (`reference`, `run`) or a path names; VwsdError where it holds no
    rows.jsonl."""
    folder = Path(name)
    if str(name) in WORDS:
        folder = WORDS[str(name)](profile)
    if not (folder / "rows.jsonl").is_file():
        raise VwsdError("there are no results to compare", where=folder, remedy=REMEDY)
    return folder


def read_results(folder: Path) -> Results:
    """The rows of a folder; VwsdError with file and line where they are not in their form, and
    where an id stands twice."""
    path = folder / "rows.jsonl"
    rows: dict[str, Row] = {}
    for number, row in enumerate(schema.read_jsonl(path, Row, "list of rows", REMEDY), start=1):
        if rows.setdefault(row.id, row) is not row:
            raise VwsdError(
                f"the row {row.id} stands twice", where=f"{path}:{number}", remedy=REMEDY
            )
    if not rows:
        raise VwsdError("there is no row to compare", where=path, remedy=REMEDY)
    return Results(folder, rows)


def read_movement(folders: Iterable[Path]) -> dict[str, float]:
    """Id of a row -> how much it moves, from the first of the folders that has measured it; empty
    where none has."""
    for folder in folders:
        if (folder / MOVEMENT).is_file():
            stored = schema.read_json(folder / MOVEMENT, Movement, "measured movement")
            return {id: moved.movement for id, moved in stored.rows.items()}
    return {}


def paired_rows(
    a: Results, b: Results, movement: dict[str, float] | None = None, check: bool = True
) -> list[Pair]:
    """What became of each row of `a` in `b`, and rows that `b` alone has, in order of ids.

    movement: how much trained rows may move, by default what the folder of `a`, `b` or the
    reference says (`read_movement`). check: a row that is not what the facts beside it give lies
    outside; making them again takes seconds.
    """
    if movement is None:
        profile = next(iter(a.rows.values())).profile
        movement = read_movement([a.folder, b.folder, reference_dir(profile)])
    trained = a.trained.keys() | b.trained.keys()
    altered = a.altered() | b.altered() if check else set()
    pairs = []
    for id in sorted(a.rows.keys() | b.rows.keys() | altered):
        first, second = a.rows.get(id), b.rows.get(id)
        limit = movement.get(id) if id in trained else None
        state, why = _state(first, second, id in trained, limit)
        if id in altered:
            state, why = "outside", "rows.jsonl is not what the facts beside it give"
        values = [row.value if row else None for row in (first, second)]
        n = max(row.n if row else 0 for row in (first, second))
        pairs.append(Pair(id, state, *values, n, limit, why))
    return pairs


def _state(
    first: Row | None, second: Row | None, trained: bool, limit: float | None
) -> tuple[str, str]:
    """State of a row and why it is so."""
    if first is None or second is None:
        return ("extra", "") if first is None else ("missing", "")
    for key in ITEMS:
        here, there = getattr(first, key), getattr(second, key)
        if here != there:
            values = "" if key == "data_sha256" else f": {here} and {there}"
            return "outside", f"other items ({key}{values})"
    counted = first.k is not None or first.metric == "mrr"
    if _same(first, second, LAST_BITS if counted else OF_REAL_NUMBERS):
        return "identical", ""
    moved = f"moved by {abs(first.value - second.value):.3f}"
    if not trained:
        return "outside", f"{moved}, and nothing was trained for it"
    if limit is None:
        return "outside", f"{moved}, and how much it moves was never measured"
    inside = abs(first.value - second.value) <= limit + LAST_BITS
    return ("within" if inside else "outside"), f"{moved}; measured: up to {limit:.3f}"


def _same(first: Row, second: Row, tolerance: float = LAST_BITS) -> bool:
    """Whether two rows say the same of the same items: the same count, the same value and interval
    within a tolerance."""
    counted = (first.k is None) == (second.k is None)
    pairs = zip(_numbers(first), _numbers(second), strict=True)
    items = _items(first) == _items(second)
    return items and counted and all(abs(x - y) <= tolerance for x, y in pairs)


def _numbers(row: Row) -> list[float]:
    return [row.k or 0, row.value, row.ci_low, row.ci_high]


def counts(pairs: Sequence[Pair]) -> dict[str, int]:
    """State -> number of rows, all five states."""
    counted = Counter(pair.state for pair in pairs)
    return {state: counted[state] for state in STATES}


def reproduced(pairs: Sequence[Pair]) -> bool:
    """Whether every row of the first is in the second, no other, and none lies outside."""
    counted = counts(pairs)
    return not (counted["outside"] or counted["missing"] or counted["extra"])


def in_words(pairs: Sequence[Pair]) -> str:
    """One line: how many rows are identical, within what trained rows move, outside, missing."""
    counted = counts(pairs)
    line = (
        f"{counted['identical']} rows identical, {counted['within']} trained rows within what seeds"
        f" and processors move them, {counted['outside']} outside"
    )
    for state in ("missing", "extra"):
        if counted[state]:
            line += f", {counted[state]} {state}"
    return line


def after_run(profile: str) -> list[str]:
    """Lines that end a run: what it reproduced of the reference, rows outside named; none where
    there is no reference, or the run is it."""
    reference, run = reference_dir(profile), run_dir(profile)
    if not (reference / "rows.jsonl").is_file() or reference.resolve() == run.resolve():
        return []
    pairs = paired_rows(read_results(reference), read_results(run), check=False)
    lines = [f"of {shown(reference)}: {in_words(pairs)}"]
    if not reproduced(pairs):
        lines.append(f"row by row: vwsd compare --profile {profile} --rows")
    return lines


# ---------------------------------------------------------------- how much trained rows move


def measure(runs: Sequence[Results]) -> dict:
    """movement.json of two or more runs that differ in processor or Python alone: RULE says how it
    is made. A run may lack some trained rows of the first, but not all.

    VwsdError where it lacks all, or tested other items, and where a row was measured once alone.
    """
    values: dict[str, list[float]] = {id: [] for id in sorted(runs[0].trained)}
    for run in runs:
        shared = values.keys() & run.trained.keys()
        other = [id for id in shared if _items(run.rows[id]) != _items(runs[0].rows[id])]
        if not shared or other:
            what = f"tested other items ({other[0]})" if other else "trained nothing of the first"
            raise VwsdError(f"this run {what}", where=run.folder, remedy=MEASURED)
        for id in shared:
            values[id].append(run.rows[id].value)
    once = [id for id, measured in values.items() if len(measured) < 2]
    if once:
        raise VwsdError(f"the row {once[0]} is in one run alone", remedy=MEASURED)
    between = {id: _spread(measured) for id, measured in values.items()}
    seeds = _between_seeds(runs)
    alike: dict[tuple, float] = defaultdict(float)
    for id, spread in between.items():
        family = _family(runs[0].rows[id])
        alike[family] = max(alike[family], spread)
    rows = {}
    for id, spread in between.items():
        row = runs[0].rows[id]
        of_seeds, of_family = seeds.get(_kind(row), 0.0), alike[_family(row)]
        largest = max(spread, of_seeds, of_family)
        rows[id] = {"movement": largest, "runs": spread, "seeds": of_seeds, "alike": of_family}
    return {"rule": RULE, "runs": [_made_by(run) for run in runs], "rows": rows}


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _items(row: Row) -> list:
    return [getattr(row, key) for key in ITEMS]


def _family(row: Row) -> tuple:
    return row.metric, row.dataset, row.language, row.n


def _kind(row: Row) -> tuple:
    return *_family(row), row.variant


def _between_seeds(runs: Sequence[Results]) -> dict[tuple, float]:
    """Kind of row -> what its rows differ by, at most, between seeds of one configuration in one
    run."""
    spreads: dict[tuple, float] = {}
    for run in runs:
        groups: dict[tuple, list[float]] = defaultdict(list)
        for id, configuration in run.trained.items():
            row = run.rows[id]
            groups[configuration, _kind(row)].append(row.value)
        for (_, kind), values in groups.items():
            spreads[kind] = max(spreads.get(kind, 0.0), _spread(values))
    return spreads


def _made_by(run: Results) -> dict:
    """What tells one measured run from another: versions as its rows have them, and the first
    digits of the weights that were trained."""
    weights = sorted({run.rows[id].weights_sha256[:12] for id in run.trained})
    versions = next(iter(run.rows.values())).versions
    return {"versions": versions, "weights": weights}


def write_movement(path: Path, runs: Sequence[Results]) -> Path:
    """Write movement.json of the runs; returns its path."""
    text = json.dumps(measure(runs), indent=1, ensure_ascii=False, allow_nan=False)
    return write_text(path, f"{text}\n")


# ---------------------------------------------------------------- a run becomes the reference


def refresh(profile: str, force: bool = False) -> Path:
    """Put a whole, checked run in the place of the reference, whose movement.json stays; returns
    the reference's folder.

    VwsdError where a notebook of the run is not done, the report is not what its facts give, the
    run is limited, or a row is missing, new or outside; `force` passes over these.
    """
    run, reference = run_dir(profile), reference_dir(profile)
    new = read_results(results_folder("run", profile))
    if run.resolve() == reference.resolve():
        raise VwsdError(
            "the run stands where the reference is", where=run, remedy="Unset VWSD_RESULTS."
        )
    if not force and (objection := _objection(profile, new, reference)):
        raise VwsdError(
            f"the reference is not replaced: {objection}",
            where=run,
            remedy="Mend the run, or say --force where the reference is what is wrong.",
        )
    with staging_folder(reference, "rows.jsonl", "reference") as folder:
        shutil.copytree(run, folder, dirs_exist_ok=True, ignore=_not_kept)
        if (reference / MOVEMENT).is_file():
            shutil.copyfile(reference / MOVEMENT, folder / MOVEMENT)
    return reference


def _not_kept(folder: str, names: list[str]) -> list[str]:
    """Of a run's files: the runner's own and the pages, which are no part of a reference."""
    return [name for name in names if name.startswith(".") or name == "site"]


def _objection(profile: str, new: Results, reference: Path) -> str:
    """Why a run may not become the reference; "" where it may."""
    undone = [
        f"{name} is not done ({state})"
        for name, state, _ in runner.status(profile)
        if state != "done"
    ]
    if undone:
        return undone[0]
    limited = [id for id, row in new.rows.items() if row.limit]
    if limited:
        return f"{limited[0]} is of the first items only"
    differences = check_report(profile)
    if differences:
        return differences[0]
    if not (reference / "rows.jsonl").is_file():
        return ""
    pairs = paired_rows(read_results(reference), new)
    return "" if reproduced(pairs) else in_words(pairs)
