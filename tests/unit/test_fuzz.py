"""The harness of docs/fuzzing.md in short, and that it can find what it looks for. The long form is
run by hand: python -m tests.fuzz --n 2000.
"""

import collections
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import cases, mutations, twin
from tests.fuzz.plans import ENVIRONMENTS, PLANS
from vwsd_companion import cli

ROOT = Path(__file__).resolve().parents[2]


def test_every_subcommand_is_fuzzed():
    assert {plan.command for plan in PLANS} == set(cli.COMMANDS)


def test_every_plan_parses_and_every_kind_of_file_has_mutations():
    for plan in PLANS:
        cli.parser().parse_args([plan.command, *plan.arguments])
        for kind in plan.files.values():
            assert len(mutations.available(kind, harmless=False)) > 10, kind
    assert all(
        isinstance(value, str) for surroundings in ENVIRONMENTS for value in surroundings.values()
    )


def test_a_seed_gives_the_same_cases_and_another_seed_others():
    def spelled(seed):
        return [str(cases.draw(number, seed)) for number in range(300)]

    assert spelled(7) == spelled(7) != spelled(8)
    drawn = [cases.draw(number, 7) for number in range(600)]
    used = collections.Counter(mutation.__name__ for case in drawn for _, mutation in case.mutated)
    assert (
        len(used) > 40
        and any(case.odd for case in drawn)
        and any(case.environment for case in drawn)
        and any(case.harmless and case.mutated for case in drawn)
    )


@pytest.mark.parametrize(
    "kind",
    [
        "table",
        "scores",
        "key",
        "jsonl",
        "json",
        "xml",
        "yaml",
        "picture",
        "tar",
        "zip",
        "ranking",
        "gold",
    ],
)
def test_each_mutation_leaves_something_else_and_nothing_beside_it(kind, tmp_path):
    """On a small text; what needs another kind of file says so by an error of its own."""
    sound = "word\tphrase\tscore_1\tscore_2\ta.png\n1\t2\t3\t4\tb.png\n1\t2\t3\t5\tc.png\n"
    sound = {"json": '{"a": [1, {"b": 2}]}', "jsonl": '{"a": [1]}\n{"a": [2]}\n'}.get(kind, sound)
    for mutation in mutations.available(kind, harmless=False):
        changed = 0
        for attempt in range(10):
            folder = tmp_path / mutation.__name__ / str(attempt)
            folder.mkdir(parents=True)
            (folder / "file").write_text(sound)
            mutation(folder / "file", random.Random(attempt))
            assert set(os.listdir(folder)) <= {"file"}
            ordinary = (folder / "file").is_file() and not (folder / "file").is_symlink()
            changed += (
                not ordinary
                or (folder / "file").read_bytes() != sound.encode()
                or mutation.__name__ == "unreadable"
            )
        assert changed, mutation.__name__


def test_the_twin_counts_by_hand(tmp_path):
    names = [f"{letter}.png" for letter in "abcdefghij"]
    (tmp_path / "en.toy.data.txt").write_text(
        "".join("\t".join(["w", "w x", *names]) + "\n" for _ in range(2))
    )
    (tmp_path / "en.toy.gold.txt").write_text("b.png\na.png\n")
    header = "\t".join(f"score_{place}" for place in range(1, 11))
    (tmp_path / "a.tsv").write_text(
        header
        + "\n"
        + "\t".join(["1", "1", *["0"] * 8])
        + "\n"
        + "\t".join(["1", *["0"] * 9])
        + "\n"
    )  # a tie: the earlier one wins
    (tmp_path / "b.txt").write_text("\t".join(names) + "\n" + "\t".join(reversed(names)) + "\n")
    assert twin.score(tmp_path) == [(1, 2, 75.0), (0, 2, 30.0)]
    header, *rows = (tmp_path / "a.tsv").read_text().splitlines()
    (tmp_path / "a.tsv").write_text(
        "".join(f"{line}\n" for line in (f"index\t{header}", f"1\t{rows[1]}", f"0\t{rows[0]}"))
    )  # the index says where a row belongs
    assert twin.score(tmp_path) == [(1, 2, 75.0), (0, 2, 30.0)]
    assert twin.audit(tmp_path) == (2, 1, 10, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    (tmp_path / "x.key").write_text("a 1\nb 2\nc 3 4\n")
    (tmp_path / "answers.key").write_text("a 1\nc 4\n")
    assert twin.wsd_score(tmp_path) == 80.0
    (tmp_path / "answers.key").write_text("")
    assert twin.wsd_score(tmp_path) == 0.0


@pytest.mark.parametrize(
    "fault, verdict",
    [
        ("raise KeyError('x')", "crash"),
        ("raise VwsdError('no')", "named"),
        ("Path('stray.txt').write_text('x')", "left"),
        ("Path('a.tsv').write_text('x')", "left"),
        ("import tempfile; tempfile.mkstemp()", "left"),
        ("print('Traceback (most recent call last)', file=sys.stderr)", "crash"),
        ("print('{}')", "crash"),
        ("os._exit(9)", "crash"),
        ("while True: pass", "crash"),
        ("print(SOUND.replace('\"k\": ', '\"k\": 9'))", "changed"),
        ("print(SOUND)", "ok"),
    ],
)
def test_the_harness_can_fail(fault, verdict, tmp_path):
    """A command that misbehaves, in the place of `score`; in a process of its own, for the harness
    forks.
    """
    script = f"""
import json, os, random, sys
from pathlib import Path
from vwsd_companion import cli
from vwsdlib.errors import VwsdError
from tests.fuzz import base, cases
from tests.fuzz.plans import PLANS
inputs = Path({str(tmp_path)!r}) / "inputs"
for name in ("tmp", "home", "cache", "results"):
    (inputs / name).mkdir(parents=True)
base._official_set(inputs)
SOUND = json.dumps({{"systems": [{{"k": 1, "n": 6, "mrr": 30.0}}]}})
def score(options):
    {fault}
    return 0
cli.COMMANDS["score"] = score
score.__doc__ = "x\\n\\nExample:\\n  vwsd score"
place = next(i for i, plan in enumerate(PLANS) if plan.numbers and plan.command == "score")
nothing = [("en.toy.gold.txt", lambda path, dice: None)]
case = cases.Case(len(PLANS), PLANS[place], random.Random(0), mutated=nothing)
usual = {{place: [(1, 6, 30.0)]}}
found = cases.carry_out(case, inputs, Path({str(tmp_path)!r}), usual, ceiling=0.15)
print(json.dumps(sorted(found.verdicts)), found.said)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert verdict in json.loads(done.stdout.partition("]")[0] + "]"), done.stdout
    assert verdict in cases.FAILURES or not set(cases.FAILURES) & set(
        json.loads(done.stdout.partition("]")[0] + "]")
    )


@pytest.mark.slow
def test_the_short_form_finds_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--n", "150", "--seed", "7", "--patience", "3"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"^all +150 ", done.stdout, re.M) and list(tmp_path.iterdir()) == []
