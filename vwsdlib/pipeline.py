"""Runs the notebooks strictly, and takes up where a killed run left off.

papermill returning does not mean that a notebook worked: here one counts as done when every cell ran, `run.finish()` was
reached and exactly the declared files exist. Below `results/<profile>/`, `.stamps/NAME.json` says what a result was made
of, `.stamps/NAME.failed.json` why there is none, `.staging/` holds the work at hand, `.lock` keeps a second run out.
Files move into place only after all checks, and the stamp is written last: a kill at any moment loses work, never truth.
"""

from __future__ import annotations

import ast
import copy
import difflib
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath

import nbformat
import yaml

from . import rehearsal
from .data.sets import fingerprint, rehearsal_record
from .errors import VwsdError
from .notebook import FINISH
from .paths import PACKAGE, cache_dir, data_dir, results_dir, root, sha256_bytes, sha256_file, write_text
from .results.predictions import code_sha256

KEYS = ("about", "needs", "profiles", "minutes", "produces")                 # of one notebook in pipeline.yml
SHORTHAND = {"tables": (".csv", ".md", ".tex"), "figures": (".png", ".pdf", ".json"),
             **dict.fromkeys(("predictions", "measured", "translations"), (".jsonl", ".meta.json"))}
DEFAULT_MINUTES = 60
LOCK_SECONDS = 10


# ---------------------------------------------------------------- the plan: which notebooks, with what, in what order

@dataclass(frozen=True)
class Step:
    """One notebook under one profile: what it is given, whom it needs and what it must produce."""

    name: str
    profile: str
    source: nbformat.NotebookNode
    parameters: dict            # every name of its parameters cell, with the value of this run
    needs: tuple[str, ...]
    outputs: tuple[str, ...]    # paths below results/<profile>/
    minutes: float
    forced: bool = False


def notebooks_dir() -> Path:
    """Folder of the notebooks and `pipeline.yml` (`VWSD_NOTEBOOKS`, default `<root>/notebooks`)."""
    return Path(os.environ.get("VWSD_NOTEBOOKS") or root() / "notebooks")


def read_pipeline() -> dict:
    """`pipeline.yml` as {"profiles": {...}, "notebooks": {...}}, refusing keys and names that mean nothing."""
    path = notebooks_dir() / "pipeline.yml"
    try:
        book = yaml.safe_load(path.read_text(encoding="utf-8"))
        profiles, notebooks = ({name: entry or {} for name, entry in book[part].items()} for part in ("profiles", "notebooks"))
    except FileNotFoundError:
        raise VwsdError("there is no pipeline.yml", where=path, remedy="Run inside the checkout or set VWSD_NOTEBOOKS.") from None
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as e:
        raise VwsdError("the file is not a mapping with `profiles` and `notebooks`", where=path, remedy=" ".join(str(e).split())) from e
    for name, entry in notebooks.items():
        for key in entry:
            _known("key", key, KEYS, f"{path}, {name}")
        for need in entry.get("needs") or ():
            _known("notebook", need, notebooks, f"{path}, {name}")
        for profile in entry.get("profiles") or ():
            _known("profile", profile, profiles, f"{path}, {name}")
    return {"profiles": profiles, "notebooks": notebooks}


def plan(profile: str, only=(), start_from: str | None = None, force: bool = False, limit: int = 0, settings: dict | None = None) -> list[Step]:
    """The steps of a run in running order: the chosen notebooks (default: all) and everything they need.

    Raises VwsdError for an unknown profile, notebook or parameter and for a value of the wrong type.
    """
    book = read_pipeline()
    _known("profile", profile, book["profiles"])
    graph = _graph(book, profile)
    chosen = {_known("notebook", name, graph) for name in only}
    if start_from:
        chosen |= _reach(_known("notebook", start_from, graph), _reversed(graph))
    chosen = chosen or set(graph)
    wanted = set().union(*(_reach(name, graph) for name in chosen))
    asked = {**({"limit": limit} if limit else {}), **(settings or {})}
    given = {**book["profiles"][profile], **asked, "profile": profile}
    forced = chosen if force else _reach(start_from, _reversed(graph)) if start_from else ()
    steps = [_step(book, profile, name, graph[name], given, name in forced) for name in graph if name in wanted]
    available = {parameter for step in steps if step.name in chosen for parameter in step.parameters} - {"profile"}
    for parameter in asked:
        _known("parameter", parameter, available)
    paths = [path for step in steps for path in step.outputs]
    if twice := sorted({path for path in paths if paths.count(path) > 1}):
        raise VwsdError(f"produced twice: {', '.join(twice)}", where="pipeline.yml", remedy="Give every output one owner.")
    return steps


def parse_settings(pairs) -> dict:
    """`["seed=3", "dtype=float16"]` as {"seed": 3, "dtype": "float16"}: values are YAML literals."""
    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (equals and name.isidentifier()):
            raise VwsdError(f"cannot read the setting '{pair}'", remedy="Write it as name=value.")
        try:
            settings[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise VwsdError(f"the value of '{pair}' is no YAML literal", remedy="Quote it.") from None
    return settings


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """The notebook at `path`; VwsdError when it is missing or not a notebook."""
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, AttributeError, nbformat.ValidationError) as e:
        raise VwsdError("the notebook is missing or broken", where=path, remedy="Restore it with git, or correct its name in pipeline.yml.") from e


def read_parameters(notebook: nbformat.NotebookNode, where: object = "") -> dict:
    """Names and defaults of the one cell tagged "parameters", which holds plain assignments of literals, one a line."""
    remedy = 'Tag exactly one code cell "parameters" and write one `name = literal` a line in it.'
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1 or cells[0].cell_type != "code":
        raise VwsdError(f"{len(cells)} cells are tagged 'parameters', not exactly one code cell", where=where, remedy=remedy)
    try:
        body = ast.parse(cells[0].source).body
    except SyntaxError as e:
        raise VwsdError(f"the parameters cell is not Python: {e.msg}", where=where, remedy=remedy) from e
    found, lines = {}, set()
    for statement in body:
        try:
            [target] = statement.targets
            name, found[target.id] = target.id, ast.literal_eval(statement.value)
        except (AttributeError, ValueError):
            name = None
        if name is None or statement.lineno in lines or statement.end_lineno != statement.lineno:
            raise VwsdError(f"line {statement.lineno} of the parameters cell is not one plain assignment", where=where, remedy=remedy)
        lines.add(statement.lineno)
    return found


def _step(book, profile, name, needs, given, forced) -> Step:
    entry, path = book["notebooks"][name], notebooks_dir() / f"{name}.ipynb"
    source = read_notebook(path)
    defaults = read_parameters(source, path)
    _known("parameter", "profile", defaults, path)
    parameters = {key: _typed(key, given[key], default, path) if key in given else default for key, default in defaults.items()}
    return Step(name, profile, source, parameters, tuple(needs),
                outputs(entry, profile, parameters, f"pipeline.yml, {name}"), float(entry.get("minutes") or DEFAULT_MINUTES), forced)


def _known(kind: str, name, valid, where: object = ""):
    """Return `name` if it is among `valid`; else a VwsdError that names the nearest one."""
    if name in valid:
        return name
    near = difflib.get_close_matches(str(name), [str(v) for v in valid], n=1, cutoff=0.5)
    raise VwsdError(f"unknown {kind} '{name}'", where=where,
                    remedy=f"Did you mean '{near[0]}'?" if near else f"Choose one of: {', '.join(sorted(map(str, valid))) or 'none exist'}.")


def _typed(name, value, default, where):
    """`value` as the type of `default`: an int may stand for a float, a bool for nothing else, anything for None."""
    if default is None or type(value) is type(default):
        return value
    if type(default) is float and type(value) is int:
        return float(value)
    raise VwsdError(f"parameter '{name}' takes {type(default).__name__}, not {type(value).__name__} {value!r}", where=where,
                    remedy=f"Give a value like its default, {default!r}.")


def outputs(entry: dict, profile: str, parameters: dict, where: object = "") -> tuple[str, ...]:
    """What a notebook's entry in pipeline.yml says it produces, as paths below results/<profile>/.

    A {name} in braces stands for that parameter, for each of its values where it is a list; tables/x for x.csv, x.md and x.tex, and
    so on by SHORTHAND, unless the name ends with one of those suffixes (or .safetensors) already.
    """
    declared = entry.get("produces") or []
    if isinstance(declared, dict):
        declared = declared[_known("profile", profile, declared, where)] or []
    paths = []
    for item, path in ((item, PurePosixPath(name)) for item in declared for name in _spelled(str(item), parameters, where)):
        short = SHORTHAND.get(path.parts[0], ())
        if path.is_absolute() or ".." in path.parts or not (short or path.suffix):
            raise VwsdError(f"cannot read the output '{item}'", where=where, remedy="Write tables/NAME, figures/NAME, predictions/NAME or a path with a suffix.")
        paths += [str(path)] if not short or path.name.endswith((*short, ".safetensors")) else [f"{path}{suffix}" for suffix in short]
    return tuple(paths)


def _spelled(text: str, parameters: dict, where: object) -> list[str]:
    """`text` with every {parameter} filled in, once for each value of a list (an empty one gives none)."""
    brace = re.search(r"\{(\w*)\}", text)
    if not brace:
        return [text]
    value = parameters[_known("parameter", brace[1], parameters, where)]
    return [name for each in (value if isinstance(value, list) else [value]) for name in _spelled(text.replace(brace[0], str(each)), parameters, where)]


def _graph(book: dict, profile: str) -> dict[str, list[str]]:
    """{notebook: what it needs} for the notebooks that run under `profile`, in running order."""
    graph = {name: list(entry.get("needs") or ()) for name, entry in book["notebooks"].items()
             if profile in (entry.get("profiles") or book["profiles"])}
    for name, needs in graph.items():
        for need in needs:
            _known(f"notebook in profile {profile}", need, graph, f"pipeline.yml, {name}")
    try:
        return {name: graph[name] for name in TopologicalSorter(graph).static_order()}
    except CycleError as e:
        raise VwsdError(f"notebooks need each other in a circle: {' -> '.join(e.args[1])}", where="pipeline.yml", remedy="Break it.") from None


def _reversed(graph):
    return {name: [other for other, needs in graph.items() if name in needs] for name in graph}


def _reach(name, graph) -> set[str]:
    """`name` and everything that can be reached from it."""
    return {name}.union(*(_reach(other, graph) for other in graph[name]))


# ---------------------------------------------------------------- what a result is made of, and whether it still holds

def _data_hash(parameters: dict) -> str:
    """The data set's own fingerprint; a set that is not there yet lets the notebook say so."""
    if not parameters.get("dataset"):
        return ""
    try:
        return fingerprint(parameters["dataset"])
    except VwsdError as e:
        return f"unavailable: {e.what}"


def checkpoints_of(parameters: dict) -> list[str]:
    """Checkpoints that the encoders, segmenters and translators named by parameters read, in the table's order."""
    from .encoders.checkpoints import CHECKPOINTS
    from .encoders.registry import ENCODERS, SEGMENTERS
    from .language.translate import TRANSLATORS
    names = [str(v).partition("@")[0] for value in parameters.values() for v in (value if isinstance(value, list) else [value])]
    entries = [table[name] for name in names for table in (ENCODERS, SEGMENTERS, TRANSLATORS) if name in table]
    read = {key for entry in entries for key in getattr(entry, "checkpoints", None) or [getattr(entry, "model", "")]}
    return [key for key in CHECKPOINTS if key in read]


def _model_hashes(parameters: dict) -> dict[str, str]:
    """Hash of the weights of every checkpoint that a parameter names through a registry; "missing" where it is not on this machine."""
    from .encoders import checkpoints
    return {key: checkpoints.find(key).weights_sha256 if checkpoints.present(key)[0] else "missing" for key in checkpoints_of(parameters)}


def components(step: Step) -> dict:
    """Everything that `step`'s result depends on, a hash each; markdown and outputs of the notebook do not count."""
    lock = root() / "requirements.lock"
    return {
        "code": _digest([cell.source for cell in step.source.cells if cell.cell_type == "code"]),
        "parameters": _digest(step.parameters),
        "library": code_sha256(),
        "upstream": {name: _identity(step.profile, name) for name in step.needs},
        "data": _data_hash(step.parameters),
        "models": _model_hashes(step.parameters),
        "lock": sha256_file(lock) if lock.exists() else "",
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }


def changed(step: Step, new: dict) -> list[str]:
    """What keeps `step`'s stamp from holding: components that differ from `new`, "outputs" for missing or altered files."""
    stamp = _read(_stamp(step.profile, step.name))
    if not stamp:
        return ["never run"]
    old = stamp["components"]
    reasons = [key for key in new if key != "upstream" and new[key] != old.get(key)]
    reasons += [f"upstream {name}" for name, identity in new["upstream"].items() if identity != old["upstream"].get(name)]
    if set(stamp["outputs"]) != set(step.outputs) or not _intact(step.profile, stamp):
        reasons.append("outputs")
    return reasons


def _intact(profile, stamp) -> bool:
    files = {results_dir(profile) / name: sha for name, sha in stamp["outputs"].items()}
    return all(path.is_file() and sha256_file(path) == sha for path, sha in files.items())


def _identity(profile: str, name: str) -> str:
    """What a notebook's result is to those who build on it: its fingerprint and the bytes that it wrote."""
    stamp = _read(_stamp(profile, name))
    return _digest([stamp["fingerprint"], stamp["outputs"]]) if stamp else ""


def _digest(value) -> str:
    return sha256_bytes(json.dumps(value, sort_keys=True, default=str).encode())


def _stamp(profile: str, name: str, suffix: str = ".json") -> Path:
    return results_dir(profile) / ".stamps" / f"{name}{suffix}"


def _read(path: Path) -> dict | None:
    """A JSON record, or None when there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write(path: Path, record: dict) -> None:
    write_text(path, json.dumps(record, indent=1, sort_keys=True, default=str) + "\n")


# ---------------------------------------------------------------- running and reporting

@dataclass
class Outcome:
    """What became of one notebook: done, up to date, failed or blocked."""

    notebook: str
    state: str
    detail: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.notebook}  " + {"done": f"done  {self.seconds:.1f} s", "failed": f"FAILED {self.detail}",
                                       "blocked": f"blocked {self.detail}"}.get(self.state, self.state)


@dataclass
class RunReport:
    """The outcomes of one run, in running order."""

    profile: str
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 when every notebook is done or up to date, else 1."""
        return int(any(o.state in ("failed", "blocked") for o in self.outcomes))


def run(profile: str, only=(), start_from: str | None = None, force: bool = False, keep_going: bool = True, limit: int = 0,
        settings: dict | None = None, progress: bool | None = None) -> RunReport:
    """Run the notebooks of `profile` that are not up to date, printing a line for each.

    `only` and `start_from` choose notebooks (what they need runs first where it is not up to date); `force` reruns the
    chosen, `start_from` always does. `settings` and `limit` override parameters. `progress` shows a bar over the cells
    (default: on a terminal outside CI). Raises VwsdError, before anything runs, for whatever `plan` refuses and when
    another run of the profile goes on.
    """
    steps = plan(profile, only, start_from, force, limit, settings)
    if profile == "rehearsal":
        rehearsal.prepare()
    if progress is None:
        progress = sys.stderr.isatty() and not os.environ.get("CI")
    report = RunReport(profile)
    with _exclusive(profile):
        shutil.rmtree(results_dir(profile) / ".staging", ignore_errors=True)   # we hold the lock: whoever left it is dead
        for litter in results_dir(profile).rglob(".*.tmp"):                    # half-written files of a killed run
            litter.unlink(missing_ok=True)
        for step in steps:
            outcome = _advance(step, report, progress)
            print(outcome, flush=True)
            report.outcomes.append(outcome)
            if outcome.state == "failed" and not keep_going:
                break
    return report


def status(profile: str) -> list[tuple[str, str, str]]:
    """(notebook, state, detail) each: done, stale (what changed), failed (where), blocked (by whom) or never run."""
    found: dict[str, tuple[str, str]] = {}
    steps = plan(profile)
    if profile == "rehearsal" and rehearsal_record():
        rehearsal.prepare()
    for step in steps:
        reasons = changed(step, components(step))
        reasons += [f"upstream {n}" for n in step.needs if found[n][0] != "done" and f"upstream {n}" not in reasons]
        failure = _read(_stamp(profile, step.name, ".failed.json"))
        bad = [name for name in step.needs if found[name][0] in ("failed", "blocked")]
        if not reasons:
            found[step.name] = ("done", f"{_read(_stamp(profile, step.name))['seconds']:.1f} s")
        elif failure:
            found[step.name] = ("failed", str(Failure(**failure)))
        elif bad:
            found[step.name] = ("blocked", f"by {', '.join(bad)}")
        elif reasons[0] == "never run":
            found[step.name] = ("never run", "")
        else:
            found[step.name] = ("stale", ", ".join(reasons))
    return [(name, *state) for name, state in found.items()]


def _advance(step: Step, report: RunReport, progress: bool) -> Outcome:
    """Run one step unless it is blocked or up to date; on failure drop its stamp and keep the reason."""
    bad = [o.notebook for o in report.outcomes if o.notebook in step.needs and o.state in ("failed", "blocked")]
    if bad:
        return Outcome(step.name, "blocked", f"by {', '.join(bad)}")
    made_of = components(step)
    if not step.forced and not changed(step, made_of):
        return Outcome(step.name, "up to date")
    started = time.monotonic()
    with _staging(step) as work:
        executed, failure = _execute(step, work, progress)
        failure = failure or _owed(step, work / "out")
        seconds = time.monotonic() - started
        if not failure:
            _install(step, executed, work, made_of, seconds)
            return Outcome(step.name, "done", seconds=seconds)
        log = cache_dir() / "logs" / step.profile / f"{step.name}.ipynb"
        write_text(log, nbformat.writes(executed))
    failure.log = str(log)
    _stamp(step.profile, step.name).unlink(missing_ok=True)
    _write(_stamp(step.profile, step.name, ".failed.json"), vars(failure))
    return Outcome(step.name, "failed", str(failure), seconds)


@contextmanager
def _exclusive(profile: str):
    """Hold the profile's lock; VwsdError naming the process that has it after LOCK_SECONDS of waiting."""
    from filelock import FileLock, Timeout
    folder = results_dir(profile)
    folder.mkdir(parents=True, exist_ok=True)
    holder, lock = folder / ".lock.pid", FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        pid = holder.read_text() if holder.exists() else "unknown"
        raise VwsdError(f"another run of profile '{profile}' is going on, process {pid}", where=folder,
                        remedy="Wait for it to end, or stop it.") from None
    try:
        holder.write_text(str(os.getpid()))
        yield
    finally:
        lock.release()


@contextmanager
def _staging(step: Step):
    """A folder for this one run of this one notebook, removed afterwards; a kernel that outlives its run writes to no other."""
    folder = results_dir(step.profile) / ".staging"
    folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{step.name}-{os.getpid()}-", dir=folder)).resolve()
    (work / "out").mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


# ---------------------------------------------------------------- one notebook: execute, check, put in place

@dataclass
class Failure:
    """Why a notebook failed: the code cell, counted from 1 as in a run by hand (0: no cell in particular), and the error."""

    cell: int
    error: str
    message: str
    log: str = ""

    def __str__(self) -> str:
        return (f"cell {self.cell}: " if self.cell else "") + f"{self.error}: {self.message}"


def _execute(step: Step, work: Path, progress: bool):
    """Execute the notebook in `work`; returns the executed copy and the Failure, or None when every cell ran."""
    import papermill
    executed, crash = work / "executed.ipynb", None
    minutes = step.minutes * float(os.environ.get("VWSD_TIME_FACTOR") or 1)
    with _environment(_kernel_environment(step, work)), _budget(minutes * 60) as over:
        try:
            papermill.execute_notebook(
                copy.deepcopy(step.source), executed, parameters=step.parameters, kernel_name="python3", language="python",
                cwd=work / "out", progress_bar={"desc": step.name, "leave": False} if progress else False)
        except Exception as e:      # whatever papermill, nbclient or zmq raise: it becomes this notebook's failure
            crash = e
    try:
        notebook = nbformat.read(executed, as_version=4)
    except (OSError, ValueError):   # papermill did not come to write it, or not to its end
        notebook = step.source
    if over.is_set():
        return notebook, Failure(_stopped_at(notebook), "TimeBudgetExceeded", f"ran longer than its {minutes:g} minutes")
    return notebook, _cell_failure(notebook, crash)


def _code_cells(notebook):
    """Code cells of an executed copy as in the source, that is without the one that papermill injects."""
    return [c for c in notebook.cells if c.cell_type == "code" and "injected-parameters" not in c.metadata.get("tags", [])]


def _stopped_at(notebook) -> int:
    """The last cell that was begun: papermill notes the time; a dying kernel need not come to send the count."""
    return max((n for n, cell in enumerate(_code_cells(notebook), 1) if cell.metadata.get("papermill", {}).get("start_time")), default=0)


def _cell_failure(notebook, crash: Exception | None) -> Failure | None:
    """The error that a cell shows (papermill forgives `sys.exit(0)`; we do not), the kernel's death, or a cell that never ran."""
    for number, cell in enumerate(_code_cells(notebook), 1):
        for output in cell.outputs:
            if output.output_type == "error":
                return Failure(number, output.ename, _one_line(output.evalue))
    if crash is not None:
        return Failure(_stopped_at(notebook), type(crash).__name__, _one_line(str(crash)))
    for number, cell in enumerate(_code_cells(notebook), 1):
        if cell.source.strip() and not cell.execution_count:
            return Failure(number, "NotRun", "the cell was never executed")
    return None


def _one_line(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text).strip().partition("\n")[0][:300]


def _owed(step: Step, out: Path) -> Failure | None:
    """What the notebook still owes after its last cell: the finish record, declared files, no other files."""
    if not _read(out / FINISH):
        return Failure(0, "NotFinished", "run.finish() was not called")
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()} - {FINISH}
    if missing := sorted(set(step.outputs) - found):
        return Failure(0, "OutputMissing", f"declared in pipeline.yml but not written: {', '.join(missing)}")
    if extra := sorted(found - set(step.outputs)):
        return Failure(0, "OutputUndeclared", f"written but not declared in pipeline.yml: {', '.join(extra)}")
    return None


def _install(step: Step, executed, work: Path, made_of: dict, seconds: float) -> None:
    """Move the files into place and write the stamp last; a kill in between leaves a stamp that no longer matches."""
    results, out = results_dir(step.profile), work / "out"
    record = {"notebook": step.name, "profile": step.profile, "fingerprint": _digest(made_of), "components": made_of,
              "parameters": step.parameters, "outputs": {name: sha256_file(out / name) for name in step.outputs},
              "checks": _read(out / FINISH)["checks"], "seconds": round(seconds, 3), "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    copied = write_text(work / "portable.ipynb", _portable(executed, step, out))
    moves = {out / name: results / name for name in step.outputs} | {copied: results / "notebooks" / f"{step.name}.ipynb"}
    for target in moves.values():
        target.parent.mkdir(parents=True, exist_ok=True)
    for source, target in moves.items():
        os.replace(source, target)
    _stamp(step.profile, step.name, ".failed.json").unlink(missing_ok=True)
    _write(_stamp(step.profile, step.name), record)


def _portable(notebook, step: Step, out: Path) -> str:
    """The executed copy as text, without clocks, process numbers, addresses or this machine's paths."""
    notebook = copy.deepcopy(notebook)
    for part in (notebook, *notebook.cells):
        for key in ("papermill", "execution"):
            part.metadata.pop(key, None)
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected-parameters"
    places = {out: f"results/{step.profile}", results_dir(step.profile).parent.resolve(): "results", cache_dir().resolve(): ".cache",
              data_dir().resolve(): "data", PACKAGE.parent: ".", root(): ".", Path(sys.prefix): "<python>",
              Path(sys.base_prefix): "<python>", Path.home(): "~"}
    names = {str(path): name for path, name in places.items() if len(path.parts) > 1}
    # a path starts after something that is no letter: embedded base64, where "/" is a digit, is left alone
    paths = re.compile(r"(?:(?<![A-Za-z0-9+/])|(?<=file://))(" + "|".join(map(re.escape, sorted(names, key=len, reverse=True))) + r")(?![\w-])")

    def clean(value):
        if isinstance(value, str):
            value = paths.sub(lambda match: names[match[1]], value)
            value = re.sub(re.escape(tempfile.gettempdir()) + r"/ipykernel_\d+/\d+\.py", "<cell>", value)
            return re.sub(r" at 0x[0-9a-f]{6,}", " at 0x...", value)
        if isinstance(value, list):
            return [clean(v) for v in value]
        if isinstance(value, dict):  # pictures are one long word without a path in it: a regular expression would take minutes
            return nbformat.from_dict({k: v if k.startswith("image/") else clean(v) for k, v in value.items()})
        return value

    return nbformat.writes(clean(notebook)) + "\n"


def _kernel_environment(step: Step, work: Path) -> dict[str, str]:
    """Environment of the kernel: this interpreter, this library, these folders; nothing of the user's Jupyter set-up."""
    from ipykernel.kernelspec import get_kernel_dict
    _write(work / "kernels" / "python3" / "kernel.json", get_kernel_dict(["--log-level=CRITICAL"]))    # found first; starts sys.executable
    search = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "VWSD_STAGING": str(work / "out"), "VWSD_NOTEBOOK": step.name, "VWSD_HOME": str(root()), "VWSD_DATA": str(data_dir().resolve()),
        "VWSD_CACHE": str(cache_dir().resolve()), "VWSD_RESULTS": str(results_dir(step.profile).parent.resolve()),
        "JUPYTER_PATH": str(work), "JUPYTER_RUNTIME_DIR": str(work / "runtime"), "IPYTHONDIR": str(work / "ipython"),
        "PYTHONPATH": os.pathsep.join(search), "PYTHONHASHSEED": "0", "MPLBACKEND": "Agg",
        "TQDM_DISABLE": "1", "SOURCE_DATE_EPOCH": "0",      # no clocks in executed copies, none in PDF figures
    }


@contextmanager
def _environment(values: dict[str, str]):
    saved = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


@contextmanager
def _budget(seconds: float):
    """Yield an event; after `seconds` set it and kill every process that was started meanwhile, kernels and their children."""
    import psutil
    me, over, done = psutil.Process(), threading.Event(), threading.Event()
    before = set(me.children(recursive=True))

    def watch():
        done.wait(seconds)
        while not done.is_set():
            over.set()
            for process in set(me.children(recursive=True)) - before:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    pass
            done.wait(0.5)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield over
    finally:
        done.set()
        watcher.join()
