"""The plan of a run, and whether a result still holds: notebooks, what each is given, needs and
produces, and what it was made of.

Below `results/<profile>/`, `.stamps/NAME.json` says what a result was made of; a result holds while
its components and its files are as the stamp says. The runner (runner.py) writes the stamps.
"""

from __future__ import annotations

import ast
import itertools
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import nbformat
import yaml
from pydantic import Field

from vwsdlib.data.sets import fingerprint
from vwsdlib.errors import VwsdError, known
from vwsdlib.kept import digest
from vwsdlib.paths import root, run_dir, sha256_file
from vwsdlib.schema import Stored, read_bytes, read_json, validate

from .facts.code import code_sha256, notebooks_dir, registered, roots_of

KEYS = (
    "about",
    "needs",
    "profiles",
    "minutes",
    "produces",
    "without",
)  # of one notebook in pipeline.yml
SHORTHAND = {
    "tables": (".csv", ".md", ".tex"),
    "figures": (".png", ".pdf", ".json"),
    **dict.fromkeys(
        ("predictions", "measured", "translations", "definitions"), (".jsonl", ".meta.json")
    ),
}
DEFAULT_MINUTES = 60
MISSING = "missing"  # in place of the hash of a checkpoint that is not on this machine
TRAINING_DATA = "training data"
MOST_VALUES = 10_000  # of pipeline.yml or a setting, every alias counted each time
AS_IN_GIT = "Restore it with git, or correct it."


class Notebook(Stored):
    """One notebook in pipeline.yml."""

    about: str | None = None
    needs: list[str] | None = None
    profiles: list[str] | None = None
    minutes: Annotated[float, Field(gt=0)] | None = None
    produces: list[str] | dict[str, list[str] | None] | None = None
    without: dict[str, list[str]] | None = None  # what may be missing -> outputs it excuses


class CellTime(Stored):
    """How long a cell took; in stamps."""

    notebook: str
    cell: int
    line: str
    seconds: float


class Components(Stored):
    """What a result was made of; in stamps. Further hashes stand beside."""

    upstream: dict[str, str]


class Stamp(Stored):
    """`.stamps/NAME.json`."""

    fingerprint: str
    components: Components
    outputs: dict[str, str]
    seconds: float
    cells: list[CellTime] = []
    without: dict[str, str] = {}  # what was missing -> the sentence


class FailureRecord(Stored):
    """`.stamps/NAME.failed.json`."""

    cell: int
    error: str
    message: str
    log: str = ""


class FinishRecord(Stored):
    """What run.finish() leaves."""

    notebook: str
    outputs: list[str]
    checks: list[str]
    without: dict[str, str] = {}


# ---------------------------------------------------------------- the plan: which notebooks, with
# what, in what order


@dataclass(frozen=True)
class Step:
    """One notebook under one profile: what it is given, whom it needs and what it must produce."""

    name: str
    profile: str
    source: nbformat.NotebookNode
    parameters: dict  # every name of its parameters cell, with the value of this run
    needs: tuple[str, ...]
    outputs: tuple[str, ...]  # paths below results/<profile>/
    minutes: float
    forced: bool = False
    without: dict[str, tuple[str, ...]] = field(default_factory=dict)  # outputs that each excuses

    def excused(self, missing: Iterable[str]) -> set[str]:
        """Outputs that need not be there where these things are missing."""
        return set().union(*(self.without.get(name, ()) for name in missing))


def read_pipeline() -> dict:
    """`pipeline.yml` as {"profiles": {...}, "notebooks": {...}}, refusing keys and names that mean
    nothing (VwsdError).
    """
    path = notebooks_dir() / "pipeline.yml"
    if not path.exists():
        raise VwsdError(
            "there is no pipeline.yml",
            where=path,
            remedy="Run inside the checkout or set VWSD_NOTEBOOKS.",
        )
    book = _yaml(read_bytes(path, "pipeline.yml", AS_IN_GIT), path)
    parts = [book.get(part) for part in ("profiles", "notebooks")] if isinstance(book, dict) else []
    if not (parts and all(isinstance(part, dict) for part in parts)):
        raise VwsdError(
            "the file is not a mapping with `profiles` and `notebooks`",
            where=path,
            remedy=AS_IN_GIT,
        )
    profiles, notebooks = map(dict, parts)
    for entries_of in (profiles, notebooks):
        for name, entry in entries_of.items():
            if not (isinstance(name, str) and re.fullmatch(r"[\w-]+", name)):
                raise VwsdError(
                    f"{name!r} is no name of a profile or a notebook",
                    where=path,
                    remedy="Names consist of letters, digits, _ and -.",
                )
            entries_of[name] = {} if entry is None else entry
    validate(profiles, dict[str, dict[str, Any]], path, "list of profiles", AS_IN_GIT)
    validate(notebooks, dict[str, dict[str, Any]], path, "list of notebooks", AS_IN_GIT)
    for name, entry in notebooks.items():
        for key in entry:
            known("key", key, KEYS, f"{path}, {name}")
        validate(entry, Notebook, f"{path}, {name}", "entry", AS_IN_GIT)
        for need in entry.get("needs") or ():
            known("notebook", need, notebooks, f"{path}, {name}")
        for profile in entry.get("profiles") or ():
            known("profile", profile, profiles, f"{path}, {name}")
    return {"profiles": profiles, "notebooks": notebooks}


def plan(
    profile: str,
    only=(),
    start_from: str | None = None,
    force: bool = False,
    limit: int = 0,
    settings: dict | None = None,
) -> list[Step]:
    """The steps of a run in running order: the chosen notebooks (default: all) and everything they
    need.

    Raises VwsdError for an unknown profile, notebook or parameter and for a value of the wrong
    type.
    """
    book = read_pipeline()
    known("profile", profile, book["profiles"])
    asked = {**({"limit": limit} if limit else {}), **(settings or {})}
    if isinstance(asked.get("limit"), int) and asked["limit"] < 0:
        raise VwsdError(
            f"--limit {asked['limit']} is below 0",
            remedy="Give the number of items; 0 or nothing for all.",
        )
    graph = _graph(book, profile)
    chosen = {known("notebook", name, graph) for name in only}
    if start_from:
        chosen |= _reach(known("notebook", start_from, graph), _reversed(graph))
    chosen = chosen or set(graph)
    wanted = set().union(*(_reach(name, graph) for name in chosen))
    given = {**book["profiles"][profile], **asked, "profile": profile}
    forced = chosen if force else _reach(start_from, _reversed(graph)) if start_from else ()
    steps = []
    for name, needs in graph.items():
        if name in wanted:
            steps.append(_step(book, profile, name, needs, given, name in forced))
    available: set[str] = set()
    for step in steps:
        if step.name in chosen:
            available |= step.parameters.keys() - {"profile"}
    for parameter in asked:
        known("parameter", parameter, available)
    paths = Counter(itertools.chain.from_iterable(step.outputs for step in steps))
    twice = sorted(path for path, count in paths.items() if count > 1)
    if twice:
        raise VwsdError(
            f"produced twice: {', '.join(twice)}",
            where="pipeline.yml",
            remedy="Give every output one owner.",
        )
    return steps


def owners(profile: str) -> list[dict]:
    """Of each notebook of `profile`, in running order: name, what it is about, and the outputs
    (paths below results/<profile>/) that it owns.
    """
    about = {name: entry.get("about") or "" for name, entry in read_pipeline()["notebooks"].items()}
    return [
        {"name": step.name, "about": about[step.name], "outputs": step.outputs}
        for step in plan(profile)
    ]


def parse_settings(pairs) -> dict:
    """`["seed=3", "dtype=float16"]` as {"seed": 3, "dtype": "float16"}: values are YAML literals.
    VwsdError where one is not.
    """
    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (equals and name.isidentifier()):
            raise VwsdError(f"cannot read the setting '{pair}'", remedy="Write it as name=value.")
        try:
            settings[name] = yaml.safe_load(value)
        except (
            yaml.YAMLError,
            ValueError,
            RecursionError,
        ):  # ValueError: 2024-13-45 looks like a date
            raise VwsdError(
                f"the value of '{pair}' is no YAML literal", remedy="Quote it."
            ) from None
        odd = _odd(settings[name])
        if odd:
            raise VwsdError(
                f"the value of '{pair}' holds {odd}",
                remedy=(
                    "Give numbers, texts and lists of them; quote what is meant as text:"
                    f" {name}='\"...\"'."
                ),
            )
    return settings


def _yaml(data: bytes, path: Path) -> object:
    """What YAML says, plain values alone; VwsdError where it is damaged or holds anything else."""
    try:
        book = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        reason = (
            "it is nested too deeply" if isinstance(e, RecursionError) else " ".join(str(e).split())
        )
        raise VwsdError("the file is no YAML", where=path, remedy=reason) from e
    odd = _odd(book)
    if odd:
        raise VwsdError(f"the file holds {odd}", where=path, remedy="Quote what is meant as text.")
    return book


def _odd(value: object) -> str:
    """What a value of YAML holds besides finite numbers, texts, booleans, lists and mappings of
    names; "" where nothing.
    """
    waiting, seen = [value], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > MOST_VALUES:  # or an alias that leads back to itself
            return f"more than {MOST_VALUES:,} values"
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, float) and not math.isfinite(value):
            return f"the number {value}"
        elif value is not None and not isinstance(value, (bool, int, float, str)):
            return f"a {type(value).__name__} ({value})"
    return ""


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """The notebook at `path`; VwsdError when it is missing or not a notebook."""
    remedy = "Restore it with git, or correct its name in pipeline.yml."
    try:
        notebook = nbformat.reads(
            read_bytes(path, "notebook", remedy).decode("utf-8"), as_version=4
        )
        nbformat.validate(notebook)
        return notebook
    except (
        Exception
    ) as e:  # of JSON in another shape nbformat raises nearly anything, AssertionError too
        raise VwsdError("the notebook is missing or broken", where=path, remedy=remedy) from e


def read_parameters(notebook: nbformat.NotebookNode, where: object = "") -> dict:
    """Names and defaults of the one cell tagged "parameters", which holds plain assignments of
    literals, one a line; VwsdError where it holds anything else.
    """
    remedy = 'Tag exactly one code cell "parameters" and write one `name = literal` a line in it.'
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1 or cells[0].cell_type != "code":
        raise VwsdError(
            f"{len(cells)} cells are tagged 'parameters', not exactly one code cell",
            where=where,
            remedy=remedy,
        )
    try:
        body = ast.parse(cells[0].source).body
    except (
        SyntaxError,
        ValueError,
        RecursionError,
        MemoryError,
    ) as e:  # the last two: nested too deeply
        raise VwsdError(
            f"the parameters cell is not Python: {getattr(e, 'msg', e)}", where=where, remedy=remedy
        ) from e
    defaults: dict[str, Any] = {}
    lines: set[int] = set()
    for statement in body:
        try:
            [target] = statement.targets
            name, defaults[target.id] = target.id, ast.literal_eval(statement.value)
        except (AttributeError, ValueError, TypeError, RecursionError):
            name = None
        if name is None or statement.lineno in lines or statement.end_lineno != statement.lineno:
            raise VwsdError(
                f"line {statement.lineno} of the parameters cell is not one plain assignment",
                where=where,
                remedy=remedy,
            )
        lines.add(statement.lineno)
    return defaults


def _step(book, profile, name, needs, given, forced) -> Step:
    entry, path = book["notebooks"][name], notebooks_dir() / f"{name}.ipynb"
    source = read_notebook(path)
    defaults = read_parameters(source, path)
    known("parameter", "profile", defaults, path)
    where = f"pipeline.yml, {name}"
    parameters = {
        key: _typed(key, given[key], default, path) if key in given else default
        for key, default in defaults.items()
    }
    return Step(
        name,
        profile,
        source,
        parameters,
        tuple(needs),
        outputs(entry, profile, parameters, where),
        float(entry.get("minutes") or DEFAULT_MINUTES),
        forced,
        {
            missing: outputs({"produces": excused}, profile, parameters, where)
            for missing, excused in (entry.get("without") or {}).items()
        },
    )


def _typed(name, value, default, where):
    """`value` as the type of `default`: an int may stand for a float, a bool for nothing else,
    anything for None.
    """
    if default is None or type(value) is type(default):
        return value
    if type(default) is float and type(value) is int:
        return float(value)
    raise VwsdError(
        f"parameter '{name}' takes {type(default).__name__}, not {type(value).__name__} {value!r}",
        where=where,
        remedy=f"Give a value like its default, {default!r}.",
    )


def outputs(entry: dict, profile: str, parameters: dict, where: object = "") -> tuple[str, ...]:
    """What a notebook's entry in pipeline.yml says it produces, as paths below results/<profile>/.

    A {name} in braces stands for that parameter, for each of its values where it is a list;
    tables/x for x.csv, x.md and x.tex, and so on by SHORTHAND, unless the name ends with one of
    those suffixes (or .safetensors) already. VwsdError names an entry of any other form.
    """
    declared = entry.get("produces") or []
    if isinstance(declared, dict):
        declared = declared[known("profile", profile, declared, where)] or []
    paths = []
    for item in declared:
        for path in map(PurePosixPath, _spelled(str(item), parameters, where)):
            short = SHORTHAND.get(path.parts[0], ())
            if path.is_absolute() or ".." in path.parts or not (short or path.suffix):
                raise VwsdError(
                    f"cannot read the output '{item}'",
                    where=where,
                    remedy=(
                        "Write tables/NAME, figures/NAME, predictions/NAME or a path with a suffix."
                    ),
                )
            whole = not short or path.name.endswith((*short, ".safetensors"))
            paths += [str(path)] if whole else [f"{path}{suffix}" for suffix in short]
    return tuple(paths)


def _spelled(text: str, parameters: dict, where: object) -> list[str]:
    """`text` with every {parameter} filled in, once for each value of a list (an empty one gives
    none).
    """
    brace = re.search(r"\{(\w*)\}", text)
    if not brace:
        return [text]
    value = parameters[known("parameter", brace[1], parameters, where)]
    names = []
    for each in value if isinstance(value, list) else [value]:
        names += _spelled(text.replace(brace[0], str(each)), parameters, where)
    return names


def _graph(book: dict, profile: str) -> dict[str, list[str]]:
    """{notebook: what it needs} for the notebooks that run under `profile`, in running order."""
    graph: dict[str, list[str]] = {
        name: list(entry.get("needs") or ())
        for name, entry in book["notebooks"].items()
        if profile in (entry.get("profiles") or book["profiles"])
    }
    for name, needs in graph.items():
        for need in needs:
            known(f"notebook in profile {profile}", need, graph, f"pipeline.yml, {name}")
    try:
        return {name: graph[name] for name in TopologicalSorter(graph).static_order()}
    except CycleError as e:
        raise VwsdError(
            f"notebooks need each other in a circle: {' -> '.join(e.args[1])}",
            where="pipeline.yml",
            remedy="Break it.",
        ) from None


def _reversed(graph):
    return {name: [other for other, needs in graph.items() if name in needs] for name in graph}


def _reach(name, graph) -> set[str]:
    """`name` and everything that can be reached from it."""
    return {name}.union(*(_reach(other, graph) for other in graph[name]))


# ---------------------------------------------------------------- what a result is made of, and
# whether it still holds


def _data_hash(parameters: dict) -> str:
    """The data set's own fingerprint; a set that is not there yet lets the notebook say so."""
    if not parameters.get("dataset"):
        return ""
    try:
        return fingerprint(parameters["dataset"])
    except VwsdError as e:
        return f"unavailable: {e.what}"


def checkpoints_of(parameters: dict) -> list[str]:
    """Checkpoints that the encoders, segmenters and translators named by parameters read, in the
    table's order.
    """
    from vwsdlib.encoders.checkpoints import CHECKPOINTS

    read: set[str] = set()
    for value in parameters.values():
        for name in value if isinstance(value, list) else [value]:
            for entry in registered(str(name).partition("@")[0]):
                read.update(getattr(entry, "checkpoints", None) or [getattr(entry, "model", "")])
    return [key for key in CHECKPOINTS if key in read]


def _model_hashes(parameters: dict) -> dict[str, str]:
    """Hash of the weights of every checkpoint that a parameter names through a registry; MISSING
    where it is not on this machine.
    """
    return {key: _model_hash(key) for key in checkpoints_of(parameters)}


def _model_hash(key: str) -> str:
    from vwsdlib.encoders import checkpoints

    return checkpoints.find(key).weights_sha256 if checkpoints.present(key)[0] else MISSING


def with_fetched(made_of: dict) -> dict:
    """Components with the checkpoints that were missing before and are there now, because the
    notebook fetched them.
    """
    models = {}
    for key, before in made_of["models"].items():
        models[key] = _model_hash(key) if before == MISSING else before
    return made_of | {"models": models}


def components(step: Step) -> dict:
    """Everything that `step`'s result depends on, a hash each; markdown and outputs of the notebook
    do not count.
    """
    lock = root() / "requirements.lock"
    cells = [cell.source for cell in step.source.cells if cell.cell_type == "code"]
    return {
        "code": digest(cells),
        "parameters": digest(step.parameters),
        "library": code_sha256(roots_of(cells, step.parameters)),
        "upstream": {name: _identity(step.profile, name) for name in step.needs},
        "data": _data_hash(step.parameters),
        "models": _model_hashes(step.parameters),
        "lock": sha256_file(lock) if lock.exists() else "",
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        **training_data(step.parameters),
    }


def training_data(parameters: dict) -> dict[str, str]:
    """What is missing of the published data that notebook 06 trains on: when they come, it runs
    again. Nothing of notebooks that need none.
    """
    if parameters.get("study") != "published":
        return {}
    from polclip.paper import required

    try:
        required(train=parameters["settings"].get("train", "all"))
    except VwsdError as e:
        return {TRAINING_DATA: e.what}
    return {TRAINING_DATA: ""}


def changed(step: Step, new: dict) -> list[str]:
    """What keeps `step`'s stamp from holding: components that differ from `new`, "outputs" for
    missing or altered files.
    """
    path = stamp_path(step.profile, step.name)
    stamp = read_record(path, Stamp)
    if not stamp:
        return ["damaged stamp"] if path.exists() else ["never run"]
    old = stamp["components"]
    reasons = [key for key in new if key != "upstream" and new[key] != old.get(key)]
    reasons += [
        f"upstream {name}"
        for name, identity in new["upstream"].items()
        if identity != old.get("upstream", {}).get(name)
    ]
    owed = set(step.outputs) - step.excused(stamp.get("without", ()))
    whole = owed <= set(stamp["outputs"]) <= set(step.outputs)
    if not (whole and _intact(step.profile, stamp)):
        reasons.append("outputs")
    return reasons


def _intact(profile, stamp) -> bool:
    files = {run_dir(profile) / name: sha for name, sha in stamp["outputs"].items()}
    return all(path.is_file() and sha256_file(path) == sha for path, sha in files.items())


def _identity(profile: str, name: str) -> str:
    """What a notebook's result is to those who build on it: its fingerprint and the bytes that it
    wrote.
    """
    stamp = read_record(stamp_path(profile, name), Stamp)
    return digest([stamp["fingerprint"], stamp["outputs"]]) if stamp else ""


def stamp_path(profile: str, name: str, suffix: str = ".json") -> Path:
    """Where a notebook's stamp is; with the suffix ".failed.json", why there is none."""
    return run_dir(profile) / ".stamps" / f"{name}{suffix}"


def read_record(path: Path, shape: type) -> dict | None:
    """A JSON record that has the shape, or None: what is damaged counts as what is not there."""
    if not path.exists():
        return None
    try:
        read_json(path, shape)
        return json.loads(path.read_text(encoding="utf-8"))
    except (VwsdError, OSError, ValueError, RecursionError):
        return None
