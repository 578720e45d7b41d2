"""The whole DAG through papermill on the built-in default, as `vwsd run --profile demo` does it, into folders of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from vwsdlib import paths, pipeline

NOTEBOOKS = ["01_data", "02_clip_baseline"]


def vwsd(*arguments, results: Path, **environment):
    command = [sys.executable, "-m", "vwsdlib.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=paths.root(), capture_output=True, text=True, timeout=900,
                          env={**os.environ, "VWSD_RESULTS": str(results), "CI": "true", **environment})


@pytest.fixture(scope="module")
def demo(tmp_path_factory, emojiwsd):
    """One run of all notebooks; later tests look at it and leave it whole. Vectors and the head come from the usual cache."""
    results = tmp_path_factory.mktemp("results")
    run = vwsd("run", "--profile", "demo", results=results)
    assert run.returncode == 0, run.stdout + run.stderr
    return results, run.stdout


def test_all_notebooks_ran_and_the_table_is_printed(demo):
    _, printed = demo
    for name in NOTEBOOKS:
        assert f"{name}  done" in printed
    for words in ("chance", "none: rarest picture", "none: most frequent picture", "bare word", "phrase", "95 % interval"):
        assert words in printed


def test_everything_promised_is_there(demo):
    folder = demo[0] / "demo"
    for name in ("report.md", "report.json", "rows.jsonl", "audit/en.test.json", "predictions/lite.phrase.fa.test.jsonl", "predictions/lite.phrase.fa.test.meta.json",
                 "tables/baseline.csv", "tables/baseline.md", "tables/baseline.tex", "figures/baseline.png", "figures/baseline.pdf", "figures/baseline.json"):
        assert (folder / name).stat().st_size > 0, name
    for name in NOTEBOOKS:
        cells = nbformat.read(folder / "notebooks" / f"{name}.ipynb", 4).cells
        assert all(c.execution_count for c in cells if c.cell_type == "code")


def test_the_phrase_beats_the_bare_word_and_the_bare_word_beats_chance(demo):
    """What the demo is for; far below the measured gain of 13 points, so that only a real fault fails it."""
    rows = {r["id"]: r for r in map(json.loads, (demo[0] / "demo" / "rows.jsonl").read_text().splitlines())}
    value = {v: rows[f"lite.{v}.en.test/hit@1"]["value"] for v in ("word", "phrase")}
    assert value["phrase"] > value["word"] + 8 and rows["lite.word.en.test/hit@1"]["ci_low"] > 10
    assert rows["lite.phrase.fa.test/hit@1"]["ci_low"] < 10 < rows["lite.phrase.fa.test/hit@1"]["ci_high"]  # a language it never saw


def test_a_second_run_runs_nothing_and_leaves_every_byte(demo):
    before = {p: p.read_bytes() for p in (demo[0] / "demo").rglob("*") if p.is_file()}
    run = vwsd("run", "--profile", "demo", results=demo[0])
    assert run.returncode == 0 and run.stdout.count("up to date") == len(NOTEBOOKS)
    assert {p: p.read_bytes() for p in (demo[0] / "demo").rglob("*") if p.is_file() and p.name != ".lock.pid"} == {p: b for p, b in before.items() if p.name != ".lock.pid"}
    assert [line.split()[1] for line in vwsd("status", results=demo[0]).stdout.splitlines()] == ["done"] * len(NOTEBOOKS)


def test_report_check_agrees(demo):
    run = vwsd("report", "--check", results=demo[0])
    assert run.returncode == 0, run.stdout


def test_an_edited_picture_of_the_set_is_noticed(emojiwsd, tmp_path):
    """A truncated picture: a named error, exit code 1, and nothing half written."""
    data, results = tmp_path / "data", tmp_path / "results"
    shutil.copytree(emojiwsd, data / "emojiwsd")
    name = (data / "emojiwsd" / "en.test.data.txt").read_text().split("\n")[0].split("\t")[2]
    picture = data / "emojiwsd" / "images" / name
    picture.write_bytes(picture.read_bytes()[:700])
    run = vwsd("run", "--profile", "demo", "--only", "02_clip_baseline", "--set", "encoder=random", results=results, VWSD_DATA=str(data))
    assert run.returncode == 1 and name in run.stdout and "truncated" in run.stdout, run.stdout + run.stderr
    assert not (results / "demo" / "predictions").exists()


def test_a_shifted_gold_file_is_noticed(emojiwsd, tmp_path):
    data, results = tmp_path / "data", tmp_path / "results"
    shutil.copytree(emojiwsd, data / "emojiwsd")
    gold = data / "emojiwsd" / "it.test.gold.txt"
    lines = gold.read_text().splitlines()
    gold.write_text("\n".join([*lines[:20], "image.0.png", *lines[20:-1]]) + "\n")
    run = vwsd("run", "--profile", "demo", "--only", "01_data", results=results, VWSD_DATA=str(data))
    assert run.returncode == 1 and "it.test.gold.txt:21" in run.stdout and "shifted" in run.stdout, run.stdout + run.stderr
    assert not (results / "demo" / "audit").exists()


def test_official_files_go_through_the_same_notebook(shared, tmp_path):
    """01_data under the profile paper, on the official text; pictures are not at hand and shown as missing."""
    for part in ("test",):
        shutil.copytree(shared / "vwsd" / part, tmp_path / "data" / "vwsd" / part)
    run = vwsd("run", "--profile", "paper", "--only", "01_data", results=tmp_path / "results", VWSD_DATA=str(tmp_path / "data"))
    assert run.returncode == 0, run.stdout + run.stderr
    table = (tmp_path / "results" / "paper" / "tables" / "audit.md").read_text()
    for value in ("13.01", "12.63", "10.61", "4.49", "3.14", "5.98"):
        assert value in table
    claims = {c["id"]: c["verdict"] for c in json.loads((tmp_path / "results" / "paper" / "report.json").read_text())["claims"]}
    assert claims["vwsd.items.en"] == claims["vwsd.items.it"] == claims["vwsd.items.fa"] == "EXACT" and claims["clipseg.clip.en"] == "NOT RUN"


def test_committed_results_were_made_by_this_code():
    """results/demo in git agrees with its predictions and with the code beside it."""
    from vwsdlib.results.report import check_report

    if not (paths.root() / "results" / "demo" / "predictions").exists():
        pytest.fail("results/demo is not there: run make demo and commit it")
    assert check_report("demo") == []


def test_every_notebook_of_the_pipeline_is_in_the_demo():
    assert [s.name for s in pipeline.plan("demo")] == NOTEBOOKS
