"""docs/results.md names exactly the keys that occur below results/demo; a key that is added,
dropped or becomes null turns these tests red.
"""

import json
import re
from collections import Counter

import pytest

from vwsd_companion.facts.numbers import KEYS
from vwsdlib.paths import PACKAGE

ROOT = PACKAGE.parent
DEMO = ROOT / "results" / "demo"
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def documented(page: str) -> dict[str, dict[str, str]]:
    """Name of a table (`<!-- keys: NAME -->`) -> key -> what its column on emptiness says."""
    found = {}
    for name, table in re.findall(r"<!-- keys: (.+?) -->\n((?:\|.*\n)+)", page):
        lines = [
            [cell.strip() for cell in line.strip("|\n").split("|")]
            for line in table.splitlines()[2:]
        ]
        found[name] = {line[0].strip("`"): line[2] for line in lines}
        assert len(found[name]) == len(lines), f"{name}: a key stands twice"
    return found


def records(name: str) -> list[dict]:
    """What the stored files of a table hold."""
    if name.startswith("report.json"):
        report = json.loads((DEMO / "report.json").read_text(encoding="utf-8"))
        part = report[name.split()[1]] if " " in name else report
        return part if isinstance(part, list) else [part]
    files = [
        p
        for p in sorted(DEMO.glob(name))
        if not (name.endswith(".jsonl") and p.name.endswith(".meta.json"))
    ]
    return [
        record
        for p in files
        for record in map(
            json.loads,
            filter(
                None,
                (
                    p.read_text(encoding="utf-8").split("\n")
                    if p.suffix == ".jsonl"
                    else [p.read_text(encoding="utf-8")]
                ),
            ),
        )
    ]


def complaints(told: dict[str, str], stored: list[dict]) -> list[str]:
    """Where a table and the records do not agree."""
    there, null = (
        Counter(k for r in stored for k in r),
        {k for r in stored for k, v in r.items() if v is None},
    )
    found = [f"{key} is stored and not documented" for key in there if key not in told]
    found += [f"{key} is documented and not stored" for key in told if key not in there]
    found += [
        f"{key} is missing in {len(stored) - there[key]} records"
        for key in told
        if 0 < there[key] < len(stored) and "absent:" not in told[key]
    ]
    return found + [f"{key} is null" for key in null & told.keys() if "null:" not in told[key]]


TABLES = documented(PAGE)


def test_every_kind_of_file_has_its_table():
    kinds = {
        "rows.jsonl",
        "report.json",
        "report.json claims",
        "report.json provenance",
        "audit/*.json",
        "predictions/*.jsonl",
        "predictions/*.meta.json",
        "translations/*.jsonl",
        "translations/*.meta.json",
        "definitions/*.jsonl",
        "definitions/*.meta.json",
        "measured/*.meta.json",
    }
    assert set(TABLES) == kinds
    stored = set()
    for p in DEMO.glob("[!.]*/*.json*"):
        ending = ".meta.json" if p.name.endswith(".meta.json") else p.suffix
        stored.add(f"{p.relative_to(DEMO).parts[0]}/*{ending}")
    assert stored - {"figures/*.json", "measured/*.jsonl"} <= kinds


@pytest.mark.parametrize("name", TABLES)
def test_the_documented_keys_are_those_that_are_stored(name):
    assert complaints(TABLES[name], records(name)) == []


def test_rows_are_documented_in_the_librarys_own_order():
    assert list(TABLES["rows.jsonl"]) == list(KEYS)


MEASURED = {
    name: set(re.findall(r"`(\w+)`", keys))
    for name, keys in re.findall(
        r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$",
        PAGE.split("<!-- measured -->")[1].split("<!--")[0],
        re.M,
    )
}


def test_every_measurement_is_documented():
    assert set(MEASURED) == {p.stem for p in DEMO.glob("measured/*.jsonl")}


@pytest.mark.parametrize("name", MEASURED)
def test_the_documented_keys_of_a_measurement_are_those_that_are_stored(name):
    stored = {key for record in records(f"measured/{name}.jsonl") for key in record}
    assert MEASURED[name] == stored


def test_a_key_that_is_added_dropped_or_becomes_null_would_be_seen():
    told, stored = TABLES["predictions/*.meta.json"], records("predictions/*.meta.json")
    assert complaints(told, [*stored, {**stored[0], "clock": 1}]) == [
        "clock is stored and not documented"
    ]
    assert complaints({**told, "clock": ""}, stored) == ["clock is documented and not stored"]
    assert complaints(told, [*stored, {k: v for k, v in stored[0].items() if k != "n"}]) == [
        "n is missing in 1 records"
    ]
    assert complaints(told, [*stored, {**stored[0], "n": None}]) == ["n is null"]
