"""Runs the notebooks strictly, and takes up where a killed run left off.

papermill returning does not mean that a notebook worked: here one counts as done when every cell
ran, `run.finish()` was reached and exactly the declared files exist. Below `results/<profile>/`,
`.stamps/NAME.json` says what a result was made of, `.stamps/NAME.failed.json` why there is none,
`.staging/` holds the work at hand, `.lock` keeps a second run out. Files move into place only after
all checks, and the stamp is written last: a kill at any moment loses work, never truth.
"""

from __future__ import annotations

import copy
import json
import math
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

from vwsd_standins import rehearsal
from vwsdlib.data.sets import rehearsal_record
from vwsdlib.disk import free_gb, temporary_folder, try_writing
from vwsdlib.errors import VwsdError
from vwsdlib.paths import PACKAGE, cache_dir, data_dir, root, run_dir, sha256_file, write_text

from .notebook import FINISH
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
)

LOCK_SECONDS = 10
NEEDED_GB = 0.05  # a notebook's files and its executed copy; what the vectors want, the doctor says


# ---------------------------------------------------------------- a run, and what became of each
# notebook


@dataclass
class Outcome:
    """What became of one notebook: done, up to date, failed or blocked."""

    notebook: str
    state: str
    detail: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.notebook}  " + {
            "done": f"done  {self.seconds:.1f} s",
            "failed": f"FAILED {self.detail}",
            "blocked": f"blocked {self.detail}",
        }.get(self.state, self.state)


@dataclass
class RunReport:
    """The outcomes of one run, in running order."""

    profile: str
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 when every notebook is done or up to date, else 1."""
        return int(any(o.state in ("failed", "blocked") for o in self.outcomes))


def run(
    profile: str,
    only=(),
    start_from: str | None = None,
    force: bool = False,
    keep_going: bool = True,
    limit: int = 0,
    settings: dict | None = None,
    progress: bool | None = None,
) -> RunReport:
    """Run the notebooks of `profile` that are not up to date, printing a line for each.

    `only` and `start_from` choose notebooks (what they need runs first where it is not up to date);
    `force` reruns the chosen, `start_from` always does. `settings` and `limit` override parameters.
    `progress` shows a bar over the cells (default: on a terminal outside CI). Raises VwsdError,
    before anything runs, for whatever `plan` refuses, when another run of the profile goes on, and
    where a folder that the run writes to cannot be written.
    """
    steps = plan(profile, only, start_from, force, limit, settings)
    _time_factor()
    _try_folders(profile)
    if profile == "rehearsal":
        rehearsal.prepare()
    if progress is None:
        progress = sys.stderr.isatty() and not os.environ.get("CI")
    report = RunReport(profile)
    with _exclusive(profile):
        shutil.rmtree(
            run_dir(profile) / ".staging", ignore_errors=True
        )  # we hold the lock: whoever left it is dead
        for litter in run_dir(profile).rglob(".*.tmp"):  # half-written files of a killed run
            litter.unlink(missing_ok=True)
        for step in steps:
            outcome = _advance(step, report, progress)
            print(outcome, flush=True)
            report.outcomes.append(outcome)
            if outcome.state == "failed" and not keep_going:
                break
    if any(o.state == "done" for o in report.outcomes):
        print("\n".join(slowest(profile)), flush=True)
    return report


def status(profile: str) -> list[tuple[str, str, str]]:
    """(notebook, state, detail) each: done, stale (what changed), failed (where), blocked (by whom)
    or never run.
    """
    found: dict[str, tuple[str, str]] = {}
    steps = plan(profile)
    if profile == "rehearsal" and rehearsal_record():
        rehearsal.prepare()
    for step in steps:
        reasons = changed(step, components(step))
        reasons += [
            f"upstream {n}"
            for n in step.needs
            if found[n][0] != "done" and f"upstream {n}" not in reasons
        ]
        failure = read_record(stamp_path(profile, step.name, ".failed.json"), FailureRecord)
        bad = [name for name in step.needs if found[name][0] in ("failed", "blocked")]
        if not reasons:
            found[step.name] = (
                "done",
                f"{read_record(stamp_path(profile, step.name), Stamp)['seconds']:.1f} s",
            )
        elif failure:
            found[step.name] = (
                "failed",
                str(Failure(failure["cell"], failure["error"], failure["message"])),
            )
        elif bad:
            found[step.name] = ("blocked", f"by {', '.join(bad)}")
        elif reasons[0] == "never run":
            found[step.name] = ("never run", "")
        else:
            found[step.name] = ("stale", ", ".join(reasons))
    return [(name, *state) for name, state in found.items()]


def slowest(profile: str, count: int = 3) -> list[str]:
    """Lines that name the cells which took longest when the notebooks of `profile` last ran; none
    before any did.
    """
    stamps = [read_record(stamp_path(profile, step.name), Stamp) or {} for step in plan(profile)]
    cells = sorted(
        (cell for stamp in stamps for cell in stamp.get("cells", ())),
        key=lambda cell: -cell["seconds"],
    )[:count]
    return ["slowest cells:"][: len(cells)] + [
        f"  {c['notebook']}, cell {c['cell']}  {c['seconds']:.1f} s  {c['line']}" for c in cells
    ]


def _advance(step: Step, report: RunReport, progress: bool) -> Outcome:
    """Run one step unless it is blocked or up to date; on failure drop its stamp and keep the
    reason.
    """
    bad = [
        o.notebook
        for o in report.outcomes
        if o.notebook in step.needs and o.state in ("failed", "blocked")
    ]
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
            failure = _install(step, executed, work, made_of, seconds)
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
        try_writing(
            folder,
            what,
            f"Make it writable, free some space, or name another folder: {variable}=FOLDER.",
        )
        if free_gb(folder) < NEEDED_GB:
            raise VwsdError(
                f"{free_gb(folder) * 1000:.0f} MB are free on the disk of {what}",
                where=folder,
                remedy=f"Free some space, or name another folder: {variable}=FOLDER.",
            )


def _time_factor() -> float:
    """VWSD_TIME_FACTOR, above 0; VwsdError where it is no such number."""
    text = os.environ.get("VWSD_TIME_FACTOR") or "1"
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not (math.isfinite(factor) and factor > 0):
        raise VwsdError(
            f"VWSD_TIME_FACTOR is {text!r}, no number above 0",
            remedy="Set it to 4, say, for a slow machine, or unset it.",
        )
    return factor


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


# ---------------------------------------------------------------- one notebook: execute, check, put
# in place


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


def _execute(step: Step, work: Path, progress: bool):
    """Execute the notebook in `work`; returns the executed copy and the Failure, or None when every
    cell ran.
    """
    import papermill

    executed, crash = work / "executed.ipynb", None
    minutes = step.minutes * _time_factor()
    with _environment(_kernel_environment(step, work)), _budget(minutes * 60) as over:
        try:
            papermill.execute_notebook(
                copy.deepcopy(step.source),
                executed,
                parameters=step.parameters,
                kernel_name="python3",
                language="python",
                cwd=work / "out",
                progress_bar={"desc": step.name, "leave": False} if progress else False,
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
    return [
        c
        for c in notebook.cells
        if c.cell_type == "code" and "injected-parameters" not in c.metadata.get("tags", [])
    ]


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
    return max(
        (
            n
            for n, cell in enumerate(_code_cells(notebook), 1)
            if cell.metadata.get("papermill", {}).get("start_time")
        ),
        default=0,
    )


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
    if not read_record(out / FINISH, FinishRecord):
        return Failure(0, "NotFinished", "run.finish() was not called")
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()} - {
        FINISH
    }
    if missing := sorted(set(step.outputs) - found):
        return Failure(
            0, "OutputMissing", f"declared in pipeline.yml but not written: {', '.join(missing)}"
        )
    if extra := sorted(found - set(step.outputs)):
        return Failure(
            0, "OutputUndeclared", f"written but not declared in pipeline.yml: {', '.join(extra)}"
        )
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
    record = {
        "notebook": step.name,
        "profile": step.profile,
        "fingerprint": digest(made_of),
        "components": made_of,
        "parameters": step.parameters,
        "outputs": {name: sha256_file(out / name) for name in step.outputs},
        "checks": read_record(out / FINISH, FinishRecord)["checks"],
        "seconds": round(seconds, 3),
        "cells": _times(step.name, executed),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    copied = write_text(work / "portable.ipynb", _portable(executed, step, out))
    moves = {out / name: results / name for name in step.outputs} | {
        copied: results / "notebooks" / f"{step.name}.ipynb"
    }
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
    places = {
        out: f"results/{step.profile}",
        run_dir(step.profile).parent.resolve(): "results",
        cache_dir().resolve(): ".cache",
        data_dir().resolve(): "data",
        PACKAGE.parent: ".",
        root(): ".",
        Path(sys.prefix): "<python>",
        Path(sys.base_prefix): "<python>",
        **({Path(home): "~"} if (home := _home()) else {}),
    }
    names = {str(path): name for path, name in places.items() if len(path.parts) > 1}
    # a path starts after something that is no letter: embedded base64, where "/" is a digit, is
    # left alone
    paths = re.compile(
        r"(?:(?<![A-Za-z0-9+/])|(?<=file://))("
        + "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
        + r")(?![\w-])"
    )

    def clean(value):
        if isinstance(value, str):
            value = paths.sub(lambda match: names[match[1]], value)
            value = re.sub(
                re.escape(tempfile.gettempdir()) + r"/ipykernel_\d+/\d+\.py", "<cell>", value
            )
            return re.sub(r" at 0x[0-9a-f]{6,}", " at 0x...", value)
        if isinstance(value, list):
            return [clean(v) for v in value]
        # pictures are one long word without a path in it: a regular expression would take minutes
        if isinstance(value, dict):
            return nbformat.from_dict(
                {k: v if k.startswith("image/") else clean(v) for k, v in value.items()}
            )
        return value

    return nbformat.writes(clean(notebook)) + "\n"


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

    _write(
        work / "kernels" / "python3" / "kernel.json", get_kernel_dict(["--log-level=CRITICAL"])
    )  # found first; starts sys.executable
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
