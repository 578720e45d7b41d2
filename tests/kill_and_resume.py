"""Kill `vwsd run` at random moments, over and over, and demand the bytes of an undisturbed run in
the end.

    python tests/kill_and_resume.py --kills 20 --profile demo [--only NOTEBOOK] [--seed 0]
        [--keep FOLDER] [--flag=--limit=20]

Three pairs of results and cache folders: two for undisturbed runs, which must agree, one for the
run that is killed. So that kills do not land on a run with nothing to do, each round first loses a
stamp, or starts with --force, or does so without stored vectors, states and trained models; the
moment is uniform over an
undisturbed run, from nothing until one got through, then with all at hand. Exit code 0 when the
bytes agree and at least half of the kills met a run at work, else 1.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
COMPARED = ("predictions", "definitions", "translations", "measured", "audit", "rows.jsonl")
COMPARED += ("tables", "report.md", "report.json")


class Folders:
    """A pair of results and cache folders, and the command that fills them."""

    def __init__(self, home: Path, profile: str, flags: tuple[str, ...] = ()):
        self.home, self.profile, self.flags = home, profile, flags
        self.results, self.cache = home / "results", home / "cache"

    def start(self, *flags: str) -> subprocess.Popen:
        """Start the run as leader of its own process group; what it says goes to run.log."""
        environment = {
            **os.environ,
            "VWSD_RESULTS": str(self.results),
            "VWSD_CACHE": str(self.cache),
            "CI": "1",
        }
        self.home.mkdir(parents=True, exist_ok=True)
        with open(self.home / "run.log", "ab") as log:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "vwsd_companion.cli",
                    "run",
                    "--profile",
                    self.profile,
                    *self.flags,
                    *flags,
                ],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def complete(self, *flags: str) -> float:
        """Run to the end; returns the seconds it took, leaves the program when it fails."""
        began = time.monotonic()
        if code := self.start(*flags).wait():
            sys.exit(
                f"the undisturbed run failed with exit code {code}:\n"
                + (self.home / "run.log").read_text()[-3000:]
            )
        return time.monotonic() - began

    def files(self) -> dict[str, bytes]:
        """The compared results: path below the profile's folder and bytes. Hidden files are
        temporary ones that a kill left.
        """
        base = self.results / self.profile
        paths = [
            p
            for name in COMPARED
            for p in [base / name, *(base / name).rglob("*")]
            if p.is_file() and p.name[0] != "."
        ]
        return {p.relative_to(base).as_posix(): p.read_bytes() for p in paths}


def lose_stamp(folders: Folders, dice: random.Random) -> list[str]:
    """Resume where one notebook's stamp is gone: it and what builds on it run again."""
    stamps = sorted((folders.results / folders.profile / ".stamps").glob("*.json"))
    if stamps:
        dice.choice(stamps).unlink()
    return []


def force(folders: Folders, dice: random.Random) -> list[str]:
    """Run everything again, vectors at hand."""
    return ["--force"]


def forget_vectors(folders: Folders, dice: random.Random) -> list[str]:
    """Run everything again, encoding included."""
    shutil.rmtree(folders.cache / "vectors", ignore_errors=True)
    return ["--force"]


def forget_training(folders: Folders, dice: random.Random) -> list[str]:
    """Run everything again, training included."""
    shutil.rmtree(folders.cache / "polclip", ignore_errors=True)
    return ["--force"]


PREPARATIONS = (
    lose_stamp,
    force,
    forget_vectors,
    forget_training,
)  # taken in turn; each returns flags for the command


def kill(process: subprocess.Popen) -> bool:
    """SIGKILL the run's process group; its kernels lead groups of their own and must notice by
    themselves.

    Returns whether the run was still going. A kernel alive 15 s later is an error.
    """
    if process.poll() is not None:
        return False
    descendants = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(descendants, timeout=15)
    if alive:
        sys.exit(f"orphans outlive the killed run: {[p.pid for p in alive]}")
    return True


def torment(folders: Folders, kills: int, cold: float, warm: float, seed: int) -> int:
    """Start and kill the run `kills` times, `cold` and `warm` seconds being the undisturbed times;
    returns how often it was at work.
    """
    dice, at_work, duration = random.Random(seed), 0, cold
    for number in range(1, kills + 1):
        prepare = PREPARATIONS[number % len(PREPARATIONS)]
        process = folders.start(*prepare(folders, dice))
        moment = dice.uniform(0, duration)
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            pass
        running = kill(process)
        duration = duration if running else warm
        at_work += running
        print(
            f"kill {number:3d} ({prepare.__name__}) after {moment:5.1f} s: "
            + ("was running" if running else f"had ended, exit code {process.returncode}"),
            flush=True,
        )
    return at_work


def compare(expected: dict[str, bytes], found: dict[str, bytes]) -> list[str]:
    """What differs, a line each."""
    return (
        [f"missing  {name}" for name in sorted(expected.keys() - found.keys())]
        + [f"surplus  {name}" for name in sorted(found.keys() - expected.keys())]
        + [
            f"differs  {name}"
            for name in sorted(expected.keys() & found.keys())
            if expected[name] != found[name]
        ]
    )


def sources() -> dict[Path, bytes]:
    """The library and the notebooks: a result carries their hash, so they must not change
    meanwhile.
    """
    return {
        p: p.read_bytes()
        for p in ROOT.glob("**/*")
        if p.suffix in (".py", ".yml", ".ipynb")
        and p.relative_to(ROOT).parts[0] in ("vwsdlib", "polclip", "notebooks")
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--only", help="this notebook and what it needs, not all")
    parser.add_argument(
        "--flag", action="append", default=[], help="a further flag of every run (--flag=--limit=9)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it there")
    arguments = parser.parse_args()
    home = arguments.keep or Path(tempfile.mkdtemp(prefix="vwsd-kill-"))
    flags = (*(("--only", arguments.only) if arguments.only else ()), *arguments.flag)
    first, calm, killed = (
        Folders(home.resolve() / name, arguments.profile, flags)
        for name in ("first", "calm", "killed")
    )
    before = sources()
    try:
        first.complete()  # also puts data sets in place, which no results or cache folder holds
        cold, expected = calm.complete(), calm.files()
        warm = calm.complete("--force")
        print(
            f"undisturbed run: {cold:.1f} s, with vectors at hand {warm:.1f} s, {len(expected)}"
            " files to compare",
            flush=True,
        )
        if not expected or compare(first.files(), expected) or compare(expected, calm.files()):
            sys.exit("undisturbed runs left nothing, or do not agree among themselves")
        at_work = torment(killed, arguments.kills, cold, warm, arguments.seed)
        killed.complete()
        differences = compare(expected, killed.files())
    finally:
        if not arguments.keep:
            shutil.rmtree(home, ignore_errors=True)
    if sources() != before:
        sys.exit(
            "the library or a notebook was edited meanwhile: the comparison means nothing, run it"
            " again"
        )
    print(f"{arguments.kills} kills, {at_work} of them while the run was at work")
    print("\n".join(differences) or "same bytes")
    return int(bool(differences) or at_work * 2 < arguments.kills)


if __name__ == "__main__":
    sys.exit(main())
