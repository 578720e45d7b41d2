"""Runs the notebooks strictly, and takes up where a killed run left off.

papermill returning does not mean that a notebook worked: here one counts as done when every cell
ran, `run.finish()` was reached and exactly the declared files exist. Below `runs/<profile>/`,
`.stamps/NAME.json` says what a result was made of, `.stamps/NAME.failed.json` why there is none,
`.staging/` holds the work at hand, `.lock` keeps a second run out. Files move into place only after
all checks, and the stamp is written last: a kill at any moment loses work, never truth.
"""

from __future__ import annotations

import copy
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
from pathlib import Path

import nbformat

from vwsdlib.data import sets
from vwsdlib.disk import free_gb, temporary_folder, try_writing
from vwsdlib.errors import VwsdError
from vwsdlib.paths import PACKAGE, cache_dir, data_dir, root, run_dir, sha256_file, write_text

from .forecast import Forecast, plan_of, time_factor
from .notebook import FINISH, LEFT_OUT
from .pipeline import (
    FailureRecord,
    FinishRecord,
    Stamp,
    Step,
    changed,
    components,
    digest,
    plan,
    read_record,
    stamp_path,
    with_fetched,
)
from .progress import said

LOCK_SECONDS = 10
NEEDED_GB = 0.05  # a notebook's files and its executed copy; what the vectors want, the doctor says
PROGRESS = "progress.json"
NOT_DONE = ("failed", "blocked", LEFT_OUT)


# ---------------------------------------------------------------- a run, notebook by notebook


@dataclass
class Outcome:
    """What became of one notebook: done, up to date, failed, left out or blocked."""

    notebook: str
    state: str
    detail: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        words = {
            "done": f"done  {self.seconds:.1f} s",
            "failed": f"FAILED {self.detail}",
            LEFT_OUT: f"{LEFT_OUT}: {self.detail}",
            "blocked": f"blocked {self.detail}",
        }
        return f"{self.notebook}  {words.get(self.state, self.state)}"


@dataclass
class RunReport:
    """The outcomes of one run, in running order."""

    profile: str
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 when every notebook is done or up to date, else 1."""
        return int(any(o.state in NOT_DONE for o in self.outcomes))


def run(
    profile: str,
    only=(),
    start_from: str | None = None,
    force: bool = False,
    keep_going: bool = True,
    limit: int = 0,
    settings: dict | None = None,
    progress: bool | None = None,
    hours: float | None = None,
) -> RunReport:
    """Run the notebooks of `profile` that are not up to date, printing a line for each.

    `only` and `start_from` choose notebooks (what they need runs first where it is not up to date);
    `force` reruns the chosen, `start_from` always does. `settings` and `limit` override parameters.
    What cannot run here, or would take more than `hours`, is left out and said (forecast.py).
    `progress`: say what goes on in one living line (default: on a terminal outside CI), else in a
    line a minute. Raises VwsdError, before anything runs, for whatever `plan` refuses, when another
    run of the profile goes on, and where a folder that the run writes to cannot be written.
    """
    steps = plan(profile, only, start_from, force, limit, settings)
    time_factor()  # refuses an odd one
    _try_folders(profile)
    sets.prepare_profile(profile)
    if progress is None:
        progress = sys.stderr.isatty() and not os.environ.get("CI")
    forecasts = {one.notebook: one for one in plan_of(steps, hours, state=False).forecasts}
    for one in forecasts.values():
        if one.state == LEFT_OUT:
            print(f"note: {one.notebook} cannot run here: {one.why}", file=sys.stderr, flush=True)
    report, folder = RunReport(profile), run_dir(profile)
    with _exclusive(profile):
        # we hold the lock: whoever left these is dead
        shutil.rmtree(folder / ".staging", ignore_errors=True)
        for litter in folder.rglob(".*.tmp"):
            litter.unlink(missing_ok=True)
        for step in steps:
            outcome = _advance(step, report, progress, forecasts[step.name])
            print(outcome, flush=True)
            report.outcomes.append(outcome)
            if outcome.state == "failed" and not keep_going:
                break
    if any(o.state == "done" for o in report.outcomes):
        print("\n".join(slowest(profile)), flush=True)
    return report


def status(profile: str) -> list[tuple[str, str, str]]:
    """(notebook, state, detail) each: done, stale (what changed), failed (where), left out (why),
    blocked (by whom) or never run.
    """
    steps = plan(profile)
    sets.prepare_profile(profile, whole=False)
    states: dict[str, tuple[str, str]] = {}
    for step in steps:
        states[step.name] = _state(step, {name: states[name][0] for name in step.needs})
    return [(name, *state) for name, state in states.items()]


def _state(step: Step, needed: dict[str, str]) -> tuple[str, str]:
    """State and detail of one notebook; needed: states of those that it builds on."""
    reasons = changed(step, components(step))
    upstream = [f"upstream {name}" for name, state in needed.items() if state != "done"]
    reasons += [reason for reason in upstream if reason not in reasons]
    if not reasons:
        seconds = read_record(stamp_path(step.profile, step.name), Stamp)["seconds"]
        return "done", f"{seconds:.1f} s"
    failure = read_record(stamp_path(step.profile, step.name, ".failed.json"), FailureRecord)
    if failure and failure["error"] == LEFT_OUT:
        return LEFT_OUT, failure["message"]
    if failure:
        return "failed", str(Failure(failure["cell"], failure["error"], failure["message"]))
    bad = [name for name, state in needed.items() if state in NOT_DONE]
    if bad:
        return "blocked", f"by {', '.join(bad)}"
    if reasons[0] == "never run":
        return "never run", ""
    return "stale", ", ".join(reasons)


def slowest(profile: str, count: int = 3) -> list[str]:
    """Lines that name the cells which took longest when the notebooks of `profile` last ran; none
    before any did.
    """
    cells = []
    for step in plan(profile):
        stamp = read_record(stamp_path(profile, step.name), Stamp) or {}
        cells += stamp.get("cells", ())
    cells.sort(key=lambda cell: -cell["seconds"])
    lines = [
        f"  {c['notebook']}, cell {c['cell']}  {c['seconds']:.1f} s  {c['line']}"
        for c in cells[:count]
    ]
    return ["slowest cells:", *lines] if lines else []


def _advance(step: Step, report: RunReport, progress: bool, forecast: Forecast) -> Outcome:
    """Run one step unless it is blocked, up to date or left out; on failure drop its stamp and keep
    the reason.
    """
    broken = {o.notebook for o in report.outcomes if o.state in NOT_DONE}
    bad = [name for name in step.needs if name in broken]
    if bad:
        return Outcome(step.name, "blocked", f"by {', '.join(bad)}")
    made_of = components(step)
    if not step.forced and not changed(step, made_of):
        return Outcome(step.name, "up to date")
    if forecast.state == LEFT_OUT:
        failure = Failure(0, LEFT_OUT, forecast.why)
        _write(stamp_path(step.profile, step.name, ".failed.json"), vars(failure))
        return Outcome(step.name, LEFT_OUT, failure.message)
    started = time.monotonic()
    with _staging(step) as work:
        executed, failure = _execute(step, work, progress, forecast.minutes)
        failure = failure or _owed(step, work / "out")
        seconds = time.monotonic() - started
        if not failure:
            failure = _install(step, executed, work, with_fetched(made_of), seconds)
        if not failure:
            return Outcome(step.name, "done", seconds=seconds)
        log = cache_dir() / "logs" / step.profile / f"{step.name}.ipynb"
        write_text(log, nbformat.writes(executed))
    failure.log = str(log)
    stamp_path(step.profile, step.name).unlink(missing_ok=True)
    _write(stamp_path(step.profile, step.name, ".failed.json"), vars(failure))
    return Outcome(step.name, "failed", str(failure), seconds)


def _try_folders(profile: str) -> None:
    """An hour's work is not begun where its results could not be stored: VwsdError."""
    for folder, what, variable in (
        (run_dir(profile), "results", "VWSD_RESULTS"),
        (cache_dir(), "vectors and logs", "VWSD_CACHE"),
        (temporary_folder(), "temporary files", "TMPDIR"),
    ):
        other = f"name another folder: {variable}=FOLDER."
        try_writing(folder, what, f"Make it writable, free some space, or {other}")
        if (free := free_gb(folder)) < NEEDED_GB:
            raise VwsdError(
                f"{free * 1000:.0f} MB are free on the disk of {what}",
                where=folder,
                remedy=f"Free some space, or {other}",
            )


@contextmanager
def _exclusive(profile: str):
    """Hold the profile's lock; VwsdError naming the process that has it after LOCK_SECONDS of
    waiting.
    """
    from filelock import FileLock, Timeout

    folder = run_dir(profile)
    folder.mkdir(parents=True, exist_ok=True)
    holder, lock = folder / ".lock.pid", FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        pid = holder.read_text(errors="replace")[:20] if holder.is_file() else "unknown"
        raise VwsdError(
            f"another run of profile '{profile}' is going on, process {pid}",
            where=folder,
            remedy="Wait for it to end, or stop it.",
        ) from None
    try:
        holder.write_text(str(os.getpid()))
        yield
    finally:
        lock.release()


@contextmanager
def _staging(step: Step):
    """A folder for this one run of this one notebook, removed afterwards; a kernel that outlives
    its run writes to no other.
    """
    folder = run_dir(step.profile) / ".staging"
    folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{step.name}-{os.getpid()}-", dir=folder)).resolve()
    (work / "out").mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write(path: Path, record: dict) -> None:
    write_text(path, json.dumps(record, indent=1, sort_keys=True, default=str) + "\n")


# ---------------------------------------------------------------- one notebook


@dataclass
class Failure:
    """Why a notebook failed: the code cell, counted from 1 as in a run by hand (0: no cell in
    particular), and the error.
    """

    cell: int
    error: str
    message: str
    log: str = ""

    def __str__(self) -> str:
        return (f"cell {self.cell}: " if self.cell else "") + f"{self.error}: {self.message}"


def _execute(step: Step, work: Path, progress: bool, minutes: float):
    """Execute the notebook in `work`; returns the executed copy and the Failure, or None when every
    cell ran.
    """
    import papermill

    executed, crash = work / "executed.ipynb", None
    with (
        _environment(_kernel_environment(step, work)),
        _budget(minutes * 60) as over,
        said(step.name, work / PROGRESS, progress) as cells,
    ):
        try:
            papermill.execute_notebook(
                copy.deepcopy(step.source),
                executed,
                parameters=step.parameters,
                kernel_name="python3",
                language="python",
                cwd=work / "out",
                progress_bar=cells.settings,
            )
        except (
            Exception
        ) as e:  # whatever papermill, nbclient or zmq raise: it becomes this notebook's failure
            crash = e
    try:
        notebook = nbformat.read(executed, as_version=4)
    except (OSError, ValueError):  # papermill did not come to write it, or not to its end
        notebook = step.source
    if over.is_set():
        return notebook, Failure(
            _stopped_at(notebook), "TimeBudgetExceeded", f"ran longer than its {minutes:g} minutes"
        )
    return notebook, _cell_failure(notebook, crash)


def _code_cells(notebook):
    """Code cells of an executed copy as in the source, that is without the one that papermill
    injects.
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [c for c in code if "injected-parameters" not in c.metadata.get("tags", [])]


def _times(name: str, notebook) -> list[dict]:
    """Seconds of each code cell, as papermill noted them, with the cell's first line."""
    return [
        {
            "notebook": name,
            "cell": number,
            "line": cell.source.strip().partition("\n")[0][:100],
            "seconds": round(cell.metadata["papermill"]["duration"] or 0, 3),
        }
        for number, cell in enumerate(_code_cells(notebook), 1)
    ]


def _stopped_at(notebook) -> int:
    """The last cell that was begun: papermill notes the time; a dying kernel need not come to send
    the count.
    """
    last = 0
    for number, cell in enumerate(_code_cells(notebook), 1):
        if cell.metadata.get("papermill", {}).get("start_time"):
            last = number
    return last


def _cell_failure(notebook, crash: Exception | None) -> Failure | None:
    """The error that a cell shows (papermill forgives `sys.exit(0)`; we do not), the kernel's
    death, or a cell that never ran.
    """
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
    """What the notebook still owes after its last cell: the finish record, declared files, no other
    files.
    """
    finish = read_record(out / FINISH, FinishRecord)
    if not finish:
        return Failure(0, "NotFinished", "run.finish() was not called")
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    declared = {*step.outputs, FINISH}
    excused = step.excused(finish.get("without", ()))
    missing = ", ".join(sorted(declared - files - excused))
    if missing:
        words = f"declared in pipeline.yml but not written: {missing}"
        return Failure(0, "OutputMissing", words)
    extra = ", ".join(sorted(files - declared))
    if extra:
        words = f"written but not declared in pipeline.yml: {extra}"
        return Failure(0, "OutputUndeclared", words)
    return None


def _install(step: Step, executed, work: Path, made_of: dict, seconds: float) -> Failure | None:
    """Put the files in place; where the disk does not take them, keep them beside the logs and say
    where.
    """
    try:
        _move(step, executed, work, made_of, seconds)
        return None
    except (OSError, VwsdError) as e:
        kept = cache_dir() / "logs" / step.profile / f"{step.name}.files"
        shutil.rmtree(kept, ignore_errors=True)
        try:
            shutil.copytree(work / "out", kept)
        except (OSError, shutil.Error):
            return Failure(0, "NotStored", str(e))
        return Failure(
            0, "NotStored", f"{e} What the notebook wrote and was not moved yet is in {kept}."
        )


def _move(step: Step, executed, work: Path, made_of: dict, seconds: float) -> None:
    """Move the files into place and write the stamp last; a kill in between leaves a stamp that no
    longer matches.
    """
    results, out = run_dir(step.profile), work / "out"
    finish = read_record(out / FINISH, FinishRecord)
    made = [name for name in step.outputs if (out / name).exists()]
    record = {
        "notebook": step.name,
        "profile": step.profile,
        "fingerprint": digest(made_of),
        "components": made_of,
        "parameters": step.parameters,
        "outputs": {name: sha256_file(out / name) for name in made},
        "checks": finish["checks"],
        **({"without": finish["without"]} if finish.get("without") else {}),
        "seconds": round(seconds, 3),
        "cells": _times(step.name, executed),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    copied = write_text(work / "portable.ipynb", _portable(executed, step, out))
    moves = {out / name: results / name for name in made}
    moves[copied] = results / "notebooks" / f"{step.name}.ipynb"
    for target in moves.values():
        target.parent.mkdir(parents=True, exist_ok=True)
    for source, target in moves.items():
        os.replace(source, target)
    stamp_path(step.profile, step.name, ".failed.json").unlink(missing_ok=True)
    _write(stamp_path(step.profile, step.name), record)


def _portable(notebook, step: Step, out: Path) -> str:
    """The executed copy as text, without clocks, process numbers, addresses or this machine's
    paths.
    """
    notebook = copy.deepcopy(notebook)
    for part in (notebook, *notebook.cells):
        for key in ("papermill", "execution"):
            part.metadata.pop(key, None)
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected-parameters"
    return nbformat.writes(_cleaned(notebook, *_places(step, out))) + "\n"


def _places(step: Step, out: Path) -> tuple[dict[str, str], re.Pattern]:
    """Folders of this machine with what an executed copy calls them, and where a text names one."""
    places = {
        out: f"results/{step.profile}",
        run_dir(step.profile).parent.resolve(): "results",
        cache_dir().resolve(): ".cache",
        data_dir().resolve(): "data",
        PACKAGE.parent: ".",
        root(): ".",
        Path(sys.prefix): "<python>",
        Path(sys.base_prefix): "<python>",
    }
    home = _home()
    if home:
        places[Path(home)] = "~"
    names = {str(path): name for path, name in places.items() if len(path.parts) > 1}
    longest_first = map(re.escape, sorted(names, key=len, reverse=True))
    # a path starts after something that is no letter: embedded base64, where "/" is a digit, is
    # left alone
    begins = r"(?:(?<![A-Za-z0-9+/])|(?<=file://))"
    return names, re.compile(rf"{begins}({'|'.join(longest_first)})(?![\w-])")


def _cleaned(value, names: dict[str, str], paths: re.Pattern):
    """A notebook, or a part of one, with every text cleaned of paths and addresses."""
    if isinstance(value, str):
        value = paths.sub(lambda match: names[match[1]], value)
        cell = re.escape(tempfile.gettempdir()) + r"/ipykernel_\d+/\d+\.py"
        return re.sub(r" at 0x[0-9a-f]{6,}", " at 0x...", re.sub(cell, "<cell>", value))
    if isinstance(value, list):
        return [_cleaned(part, names, paths) for part in value]
    if isinstance(value, dict):
        parts = {}
        for key, part in value.items():
            # pictures are one long word without a path in it: it would take minutes
            parts[key] = part if key.startswith("image/") else _cleaned(part, names, paths)
        return nbformat.from_dict(parts)
    return value


def _home() -> str:
    """The user's home folder; "" for a user who has none."""
    try:
        return str(Path.home())
    except RuntimeError:
        return ""


def _kernel_environment(step: Step, work: Path) -> dict[str, str]:
    """Environment of the kernel: this interpreter, this library, these folders; nothing of the
    user's Jupyter set-up.
    """
    from ipykernel.kernelspec import get_kernel_dict

    # found first; starts sys.executable
    kernel = get_kernel_dict(["--log-level=CRITICAL"])
    _write(work / "kernels" / "python3" / "kernel.json", kernel)
    search = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "VWSD_STAGING": str(work / "out"),
        "VWSD_NOTEBOOK": step.name,
        "VWSD_HOME": str(root()),
        "VWSD_DATA": str(data_dir().resolve()),
        "VWSD_CACHE": str(cache_dir().resolve()),
        "VWSD_RESULTS": str(run_dir(step.profile).parent.resolve()),
        "JUPYTER_PATH": str(work),
        "JUPYTER_RUNTIME_DIR": str(work / "runtime"),
        "IPYTHONDIR": str(work / "ipython"),
        "PYTHONPATH": os.pathsep.join(search),
        "PYTHONHASHSEED": "0",
        "MPLBACKEND": "Agg",
        "HOME": _home() or str(work / "home"),  # Jupyter and matplotlib look for one
        "TQDM_DISABLE": "1",
        "VWSD_PROGRESS": str(work / PROGRESS),  # where the bars write instead
        "SOURCE_DATE_EPOCH": "0",  # no clocks in executed copies, none in PDF figures
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
    """Yield an event; after `seconds` set it and kill every process that was started meanwhile,
    kernels and their children.
    """
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
