"""`python -m benchmarks`: measure, print, keep. Heavy imports wait until the arguments are read;
worker processes import this module too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

from vwsdlib.processes import end_with


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description="Ours beside the plain loop, and beside the machine's own limit.",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="scenarios to run (default: all)")
    parser.add_argument(
        "--turns",
        type=int,
        help="times each scenario is run, all sides in each turn (default 3; with --quick 1)",
    )
    parser.add_argument(
        "--items", type=int, help="items of `cold` (its pictures follow) and of `rows` a language"
    )
    parser.add_argument(
        "--plain-every",
        type=int,
        metavar="K",
        help="`rows`: time the plain loops on every K-th item only, scaled up (default 1: all)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small sizes: does everything work? Its numbers mean nothing",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of the results (default benchmarks/results; with --quick the cache)",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="measure again what is there from an interrupted run of the same code",
    )
    return parser.parse_args(arguments)


def sizes(name: str, its, options: argparse.Namespace) -> dict:
    """A scenario's sizes under the options."""
    chosen = dict(its.quick if options.quick else its.full)
    if options.items and name in ("cold", "rows"):
        chosen["items"] = options.items
        chosen |= {"pictures": round(8.5 * options.items)} if name == "cold" else {}
    if options.plain_every and name == "rows":
        chosen["plain_every"] = options.plain_every
    return chosen


def collect(plan: dict[str, tuple], turns: int, fresh: bool = False) -> dict[str, list[dict]]:
    """Run `turns` turns of each scenario, turn by turn; a finished turn is kept at once and never
    run twice unless `fresh`.

    plan: name -> (function that does one turn, rough minutes of it, folder for what is kept).
    Returns name -> its turns.
    """
    from vwsdlib.paths import write_text

    done: dict[str, list[dict]] = {name: [] for name in plan}
    minutes = {name: rough for name, (_, rough, _) in plan.items()}
    rounds = [
        (name, plan[name][2] / f"{name}.{turn}.json") for turn in range(turns) for name in plan
    ]
    to_do = [name for name, file in rounds if fresh or not file.exists()]
    for name, file in rounds:
        if fresh or not file.exists():
            left = max(1, round(sum(minutes[other] for other in to_do)))
            print(
                f"{name}, turn {len(done[name]) + 1} of {turns}; about {left} min left in all",
                flush=True,
            )
            start = time.perf_counter()
            write_text(file, json.dumps(asdict(plan[name][0]()), indent=1) + "\n")
            minutes[name] = (time.perf_counter() - start) / 60
            to_do.pop(0)
        done[name].append(json.loads(file.read_text()))
    return done


def apart(run: Callable, sizes: dict):
    """`run(**sizes)` in a fresh process: what one side leaves behind (memory kept, threads, warm
    caches) must not help or hurt the next turn.
    """
    with ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), end_with, (os.getpid(),)
    ) as pool:
        return pool.submit(run, **sizes).result()


def main() -> int:
    """Measure what is asked for, print the table, write JSON and plot."""
    options = parse()
    from benchmarks import machine, report
    from benchmarks.scenarios import SCENARIOS
    from vwsd_companion.facts.code import project_sha256
    from vwsdlib.errors import VwsdError, known
    from vwsdlib.paths import cache_dir, sha256_bytes, write_text

    try:
        names = [known("scenario", name, SCENARIOS) for name in options.only or SCENARIOS]
        its, here = (
            {name: sizes(name, SCENARIOS[name], options) for name in names},
            machine.describe(),
        )
        sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
        made_by = [here, project_sha256(), sha256_bytes(sources)]
        key = {
            name: sha256_bytes(json.dumps([made_by, its[name]], sort_keys=True).encode())[:12]
            for name in names
        }
        folder = cache_dir() / "benchmarks" / "turns"
        plan = {
            name: (
                partial(apart, SCENARIOS[name].run, its[name]),
                SCENARIOS[name].minutes,
                folder / key[name],
            )
            for name in names
        }
        turns = collect(plan, options.turns or (1 if options.quick else 3), options.fresh)
    except VwsdError as e:
        print(f"Error: {e}")
        return 2
    found = {name: report.summarise(turns[name], SCENARIOS[name].base) for name in names}
    print("\n" + (text := report.table(here, found)))
    out = options.out or (
        cache_dir() / "benchmarks" / "quick" if options.quick else Path(__file__).parent / "results"
    )
    stem = out / "-".join(
        [machine.slug(here), *(options.only or [])]
    )  # a part never takes the place of the whole
    record = {
        "machine": here,
        "code_sha256": project_sha256(),
        "sizes": its,
        "results": found,
        "turns": turns,
    }
    write_text(f"{stem}.json", json.dumps(record, indent=1) + "\n")
    write_text(f"{stem}.txt", text + "\n")
    report.plot(here, found, Path(f"{stem}.png"))
    print(f"\nWritten: {stem}.json and what goes with it")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
