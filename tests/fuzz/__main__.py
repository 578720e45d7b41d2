"""Call every subcommand with mutated and hostile input, and say what became of each call.

    python -m tests.fuzz --n 2000 --seed 7
    python -m tests.fuzz --case 123 --seed 7 --keep FOLDER       # one case again, its sandbox left
    in FOLDER

The same seed makes the same cases. Exit code 0: no crash, no changed number, nothing refused that
is sound, nothing left; else 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from pathlib import Path

# before anything is imported: a forked process must not find a pool of threads that it has not, and
# no hub is asked
os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", CI="1")
# what torch makes as it is imported
os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(__file__).parents[2] / ".cache" / "inductor")

from tests.fuzz import base, cases
from tests.fuzz.plans import PLANS

PRELOADED = (
    "vwsd_companion.cli",
    "vwsdlib.analysis.scoring",
    "vwsdlib.encoders.store",
    "vwsdlib.encoders.streams",
    "polclip.train",
    "polclip.study",
    "polclip.sources",
    "polclip.checkpoints",
    "polclip.evaluate",
    "vwsd_companion.report",
    "vwsd_companion.site",
    "vwsd_companion.facts.export",
    "vwsd_companion.runner",
    "vwsd_companion.doctor",
    "vwsdlib.language.definitions",
    "vwsdlib.language.wsd_baselines",
    "vwsdlib.data.fetch",
    "polclip.published",
    "polclip.streaming",
    "transformers",
    "transformers.models.clip.modeling_clip",
    "datasets",
    "papermill",
)


def made_inputs(folder: Path) -> Path:
    """The sound inputs, made by a process of its own, so that this one never starts a thread of
    torch's.
    """
    inputs = folder / "inputs"
    child = os.fork()
    if not child:
        code = 1
        try:
            inputs.mkdir(parents=True)
            os.chdir(inputs)
            os.environ.clear()
            os.environ.update(base.environment(inputs))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            base.make(inputs)
            shutil.rmtree(inputs / "cache")
            (inputs / "cache").mkdir()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        raise SystemExit("the sound inputs could not be made")
    return inputs


def share(
    numbers: range,
    seed: int,
    inputs: Path,
    folder: Path,
    ceiling: float,
    results: multiprocessing.SimpleQueue,
) -> None:
    """Carry out the sound cases, for their numbers, and then those of `numbers`; each outcome goes
    into the queue.
    """
    sound: dict[int, object] = {}
    folder.mkdir()
    first = min(numbers, default=0)
    for number in (*range(len(PLANS)), *(n for n in numbers if n >= len(PLANS))):
        case = cases.draw(number, seed)
        if number < len(PLANS) and number not in numbers and not case.plan.numbers:
            continue
        outcome = cases.carry_out(case, inputs, folder, sound, ceiling)
        if number in numbers or number == first:
            results.put(
                (
                    number,
                    case.plan.command,
                    outcome.code,
                    sorted(outcome.verdicts),
                    outcome.said,
                    outcome.seconds,
                    outcome.megabytes,
                    str(case),
                )
            )
    results.put(None)


def fuzz(n: int, seed: int, jobs: int = 2, ceiling: float = 1.0, say=print) -> list[tuple]:
    """Carry out cases 0 to n-1, at least the sound ones; rows (number, command, exit code,
    verdicts, said, seconds, megabytes, call).
    """
    for name in PRELOADED:
        __import__(name)
    n = max(n, len(PLANS))
    home = Path(tempfile.mkdtemp(prefix="vwsd-fuzz-"))
    context = multiprocessing.get_context("fork")
    results, rows, running = context.SimpleQueue(), [], jobs
    try:
        inputs = made_inputs(home)
        workers = [
            context.Process(
                target=share,
                args=(range(job, n, jobs), seed, inputs, home / f"job-{job}", ceiling, results),
            )
            for job in range(jobs)
        ]
        for worker in workers:
            worker.start()
        while running:
            row = results.get()
            running -= row is None
            if row is not None:
                rows.append(row)
                if len(rows) % 100 == 0:
                    say(f"{len(rows)} of {n} calls", file=sys.stderr, flush=True)
        for worker in workers:
            worker.join()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return sorted(rows)


def table(rows: list[tuple]) -> list[str]:
    """Lines of a table by subcommand, and of all."""
    by_command = defaultdict(list)
    for row in rows:
        by_command[row[1]].append(row)
    by_command["all"] = rows
    lines = [
        f"{'command':<10} {'calls':>6} "
        + " ".join(f"{verdict:>8}" for verdict in cases.VERDICTS)
        + f" {'most s':>8} {'most MB':>8}"
    ]
    for command, of_command in by_command.items():
        counts = [sum(verdict in row[3] for row in of_command) for verdict in cases.VERDICTS]
        lines.append(
            f"{command:<10} {len(of_command):>6} "
            + " ".join(f"{count:>8}" for count in counts)
            + f" {max(row[5] for row in of_command):>8.1f}"
            f" {max(row[6] for row in of_command):>8.0f}"
        )
    return lines


def failures(rows: list[tuple]) -> list[str]:
    """Each kind of failure once: how often, what was said, and the shortest case that shows it."""
    groups = defaultdict(list)
    for row in rows:
        if wrong := [verdict for verdict in row[3] if verdict in cases.FAILURES]:
            raised = re.search(r"\((\w+(?:\.\w+)*(?:Error|Exception|Warning|Fault)?): ", row[4])
            groups[
                row[1],
                tuple(wrong),
                raised[1] if raised else re.sub(r"[\d'\"/].*", "", row[4])[:50],
            ].append(row)
    lines = []
    for (command, wrong, _), of_kind in sorted(
        groups.items(), key=lambda pair: (-len(pair[1]), pair[0])
    ):
        shown = min(of_kind, key=lambda row: len(row[7]))
        lines.append(
            f"{len(of_kind)} x {command}: {', '.join(wrong)} (exit {shown[2]}, case {shown[0]})\n  "
            f"  {shown[7]}\n    {shown[4]}"
        )
    return lines


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=300, help="calls (default: 300)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=2, help="calls at a time (default: 2)")
    parser.add_argument(
        "--patience",
        type=float,
        default=1.0,
        help="multiplies the time limit of each call, for slow machines",
    )
    parser.add_argument("--case", type=int, help="this case alone, and what it says")
    parser.add_argument("--keep", type=Path, help="--case: leave the sandbox in this folder")
    options = parser.parse_args()
    if options.case is not None:
        return one_case(options.case, options.seed, options.keep, options.patience)
    began = time.monotonic()
    rows = fuzz(options.n, options.seed, options.jobs, options.patience)
    print("\n".join([*table(rows), "", *failures(rows)]))
    print(f"{len(rows)} calls in {time.monotonic() - began:.0f} s, seed {options.seed}")
    return int(any(verdict in row[3] for row in rows for verdict in cases.FAILURES))


def one_case(number: int, seed: int, keep: Path | None, ceiling: float) -> int:
    """Carry out one case, after the sound one of its plan."""
    folder = (keep or Path(tempfile.mkdtemp(prefix="vwsd-fuzz-"))).absolute()
    sound: dict[int, object] = {}
    case = cases.draw(number, seed)
    inputs = made_inputs(folder)
    cases.carry_out(
        cases.draw(PLANS.index(case.plan), seed), inputs, folder / "sound", sound, ceiling
    )
    outcome = cases.carry_out(case, inputs, folder, sound, ceiling, keep=bool(keep))
    print(
        f"{case}\nexit {outcome.code}: {', '.join(sorted(outcome.verdicts))}; {outcome.seconds:.1f}"
        f" s\n{outcome.said}"
    )
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return int(bool(outcome.verdicts & set(cases.FAILURES)))


if __name__ == "__main__":
    sys.exit(main())
