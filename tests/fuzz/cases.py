"""One case: what is done to which file, run in a forked process of its own, and what became of
it."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz import base, mutations
from tests.fuzz.plans import ENVIRONMENTS, PLANS, Plan

MOST_MB = 3000  # a call that takes more is ended
VERDICTS = ("ok", "named", "exit 1", "crash", "changed", "refused", "left")
FAILURES = ("crash", "changed", "refused", "left")


@dataclass
class Case:
    """One call: its plan, what is done to its surroundings, and why."""

    number: int
    plan: Plan
    dice: random.Random
    harmless: bool = False
    mutated: list[tuple[str, mutations.Mutation]] = field(default_factory=list)
    odd: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        done = [f"{name}: {mutation.__name__}" for name, mutation in self.mutated]
        settings = [f"{name}={value}" for name, value in self.environment.items()]
        call = " ".join(
            [
                *settings,
                "vwsd",
                self.plan.command,
                *self.plan.arguments,
                *(repr(part) for part in self.odd),
            ]
        )
        return f"{call}   [{'; '.join(done) or 'sound files'}]"


@dataclass
class Outcome:
    """What became of a case."""

    case: Case
    code: int
    verdicts: set[str]
    said: str
    seconds: float
    megabytes: float


def draw(number: int, seed: int) -> Case:
    """Case `number` of a seed. The first ones are the plans with sound input, one each; a case
    depends on nothing but both numbers.
    """
    dice = random.Random(f"{seed}/{number}")
    if number < len(PLANS):
        return Case(number, PLANS[number], dice, harmless=True)
    case = Case(number, dice.choices(PLANS, [plan.weight for plan in PLANS])[0], dice)
    what = dice.random()
    if case.plan.odd and what < 0.15:
        case.odd = dice.choice(case.plan.odd)
    elif what < 0.22:
        case.environment = dict(dice.choice(ENVIRONMENTS))
    elif case.plan.files:
        case.harmless = bool(case.plan.numbers) and dice.random() < 0.25
        _draw_mutations(case)
    return case


def _draw_mutations(case: Case) -> None:
    wanted = 1 if dice_says(case.dice, 0.8) else 2
    for name in case.dice.sample(sorted(case.plan.files), min(wanted, len(case.plan.files))):
        if choice := mutations.available(case.plan.files[name], case.harmless):
            case.mutated.append((name, case.dice.choice(choice)))


def dice_says(dice: random.Random, share: float) -> bool:
    """True in this share of the throws."""
    return dice.random() < share


# ---------------------------------------------------------------- the call


def prepare(case: Case, inputs: Path, sandbox: Path) -> None:
    """The sandbox of a case: all inputs, those of the case mutated."""
    base.copy(inputs, sandbox)
    for name, mutation in case.mutated:
        path = sandbox / name
        if name.endswith("*"):
            path = case.dice.choice(sorted(p for p in path.parent.iterdir() if p.is_file()))
        try:
            mutation(path, case.dice)
        except (IndexError, ValueError, OSError) as e:  # a second mutation found nothing to work on
            if len(case.mutated) == 1:
                raise RuntimeError(f"the mutation {mutation.__name__} of {path.name} failed") from e


def start(case: Case, sandbox: Path) -> int:
    """Fork; the child carries the call out in the sandbox and ends with its exit code. Returns its
    process number.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 70  # what no command ends with: the fault got past the last resort
    try:
        os.setsid()
        os.chdir(sandbox)
        os.environ.clear()
        os.environ.update({**base.environment(sandbox), **case.environment})
        for number, name in ((0, os.devnull), (1, "tmp/.stdout"), (2, "tmp/.stderr")):
            handle = os.open(name, os.O_RDWR | os.O_CREAT)
            os.dup2(handle, number)
            os.close(handle)
        sys.stdin, sys.stdout, sys.stderr = (
            open(0),
            open(1, "w", encoding="utf-8", closefd=False),
            open(2, "w", encoding="utf-8", closefd=False),
        )
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 30, 2 << 30))
        code = _call([case.plan.command, *case.plan.arguments, *case.odd])
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _call(arguments: list[str]) -> int:
    import tempfile
    import traceback

    from vwsd_companion import cli

    tempfile.tempdir = None
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    try:
        return cli.main(arguments)
    except SystemExit as e:  # a usage that argparse has explained
        return e.code if isinstance(e.code, int) else 70
    except BaseException:
        traceback.print_exc()
        return 70


def megabytes(process: int) -> float:
    """Resident memory of a process, 0 where it is gone."""
    try:
        with open(f"/proc/{process}/statm") as f:
            return int(f.read().split()[1]) * resource.getpagesize() / 1e6
    except (OSError, IndexError, ValueError):
        return 0.0


def listing(folder: Path) -> dict[str, tuple]:
    """Everything below a folder with what would change if it were touched; links are not
    followed."""
    found = {}
    for here, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(here, name)
            facts = os.lstat(path)
            found[os.path.relpath(path, folder)] = (
                (facts.st_ino, facts.st_mtime_ns, facts.st_size) if name in files else ()
            )
    return found


def left_behind(case: Case, before: dict[str, tuple], after: dict[str, tuple]) -> list[str]:
    """Paths that the call should not have left: temporary files, and anything that is not its
    output, its cache or its results.
    """
    allowed = (
        "cache",
        "results",
        "home",
        "hub",
        "tmp/torchinductor_",
        "tmp/.stdout",
        "tmp/.stderr",
        "tmp/vwsd-logs",
        *case.plan.leaves,
    )
    if "--out" in case.odd and case.odd[-1] != "full":  # a device that is replaced is a fault
        allowed = (*allowed, case.odd[-1] or "out")
    if case.plan.command == "run":
        allowed = (*allowed, "notebooks/.ipynb_checkpoints")
    changed = [
        path for path, facts in after.items() if before.get(path) != facts and facts != ()
    ] + [path for path in before if path not in after]
    new_folders = [path for path in after if path not in before and after[path] == ()]
    found = [path for path in (*changed, *new_folders) if not path.startswith(allowed)]
    litter = [path for path in after if path not in before and _temporary(path)]
    return sorted({*found, *litter})


def _temporary(path: str) -> bool:
    name = os.path.basename(path)
    return (
        name.endswith((".tmp", ".part")) or ".staging" in path.split(os.sep) and name != ".staging"
    )


def judge(
    case: Case, code: int, sandbox: Path, before: dict[str, tuple], sound: dict[int, object]
) -> tuple[set[str], str]:
    """Verdicts and what was said (the first line of stderr, or what is wrong)."""
    out = (
        (sandbox / "tmp" / ".stdout").read_text(encoding="utf-8", errors="replace")
        if (sandbox / "tmp" / ".stdout").exists()
        else ""
    )
    err = (
        (sandbox / "tmp" / ".stderr").read_text(encoding="utf-8", errors="replace")
        if (sandbox / "tmp" / ".stderr").exists()
        else ""
    )
    said = err.strip().splitlines()[-1][:300] if err.strip() else ""
    verdicts = {{0: "ok", 1: "exit 1", 2: "named"}.get(code, "crash")}
    if (
        "Traceback (most recent call last)" in err
        or "Exception ignored" in err
        or "fuzz-secret-key" in err + out
    ):
        verdicts.add("crash")
    if code == 2 and not said:
        verdicts.add("crash")
        said = "exit code 2 without a word"
    if (litter := left_behind(case, before, listing(sandbox))) and code >= 0:
        verdicts.add("left")
        said = f"left: {', '.join(litter[:4])}; {said}"
    if case.number < len(PLANS) and code not in case.plan.codes:
        verdicts.add("refused")
    if case.plan.numbers and code == 0 and not case.odd:
        said = _compare(case, out, err, sandbox, sound, verdicts) or said
    elif case.harmless and case.mutated and code not in case.plan.codes:
        verdicts.add("refused")
    return verdicts, said


def _compare(
    case: Case, out: str, err: str, sandbox: Path, sound: dict[int, object], verdicts: set[str]
) -> str:
    """Hold the numbers against those of the sound input and of the twin; returns what differs."""
    try:
        numbers = case.plan.numbers(out)
    except (ValueError, KeyError, TypeError) as e:
        verdicts.add("crash")
        return f"the output is not the JSON of its contract: {e!r}"
    place = PLANS.index(case.plan)
    if case.number < len(PLANS):
        sound[place] = numbers
    expected = sound.get(place)
    if numbers == expected or (not case.harmless and "note:" in err):
        return ""
    computed = None
    if case.plan.twin and not case.environment:
        try:
            computed = case.plan.twin(sandbox)
        except (ValueError, IndexError, KeyError, OSError, ZeroDivisionError):
            computed = None
    if case.harmless or (case.plan.twin and computed != numbers):
        verdicts.add("changed")
        return f"{expected} became {numbers}, the twin says {computed}"
    return ""


def finish(case: Case, process: int, sandbox: Path, ceiling: float) -> tuple[int, float, float]:
    """Wait for the child; (exit code, seconds, megabytes above the parent). -1: it ran too long,
    -2: it took too much memory.
    """
    began, before, most, ended = time.monotonic(), megabytes(os.getpid()), 0.0, 0
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            break
        most = max(most, megabytes(process) - before)
        if not ended and time.monotonic() - began > case.plan.seconds * ceiling:
            ended = -1
        if not ended and most > MOST_MB:
            ended = -2
        if ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.005)
    seconds = time.monotonic() - began
    code = ended or os.waitstatus_to_exitcode(status)
    with contextlib.suppress(ProcessLookupError, PermissionError):  # whoever it started and left
        os.killpg(process, signal.SIGKILL)
    return code, seconds, most


def carry_out(
    case: Case,
    inputs: Path,
    folder: Path,
    sound: dict[int, object],
    ceiling: float = 1.0,
    keep: bool = False,
) -> Outcome:
    """Prepare, call, judge, tidy up."""
    sandbox = folder / f"case-{case.number}"
    prepare(case, inputs, sandbox)
    before = listing(sandbox)
    code, seconds, most = finish(case, start(case, sandbox), sandbox, ceiling)
    verdicts, said = judge(case, code, sandbox, before, sound)
    if code in (-1, -2):
        said = (
            f"ran longer than {case.plan.seconds * ceiling:g} s"
            if code == -1
            else f"took more than {MOST_MB} MB"
        )
    if not keep:
        for path in sandbox.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(sandbox, ignore_errors=True)
    return Outcome(case, code, verdicts, said, seconds, most)
