"""The whole DAG through papermill on the built-in default, as `vwsd run --profile demo` does it,
into folders of its own.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from vwsd_companion import compare, pipeline
from vwsd_standins.lite_e5 import fault
from vwsdlib import paths

NOTEBOOKS = [
    "01_data",
    "02_clip_baseline",
    "03_clipseg",
    "04_multilingual",
    "05_saliency",
    "06_polclip",
]
FEW = [
    word
    for setting in (
        "crops=60",
        "seeds=2",
        "scenes=8",
        "scene_crops=16",
        "steps=4",  # notebook 05 in a minute
        "training_seeds=[0]",
        "ablations=[no-sig]",
        "settings={unambiguous: 40}",
        "contexts=12",
    )  # and 06
    for word in ("--set", setting)
]


def vwsd(*arguments, results: Path, **environment):
    command = [sys.executable, "-m", "vwsd_companion.cli", *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=paths.root(),
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "VWSD_RESULTS": str(results), "CI": "true", **environment},
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory, emojiwsd):
    """One run of all notebooks; later tests look at it and leave it whole. Vectors and the head
    come from the usual cache.
    """
    results = tmp_path_factory.mktemp("results")
    run = vwsd("run", "--profile", "demo", *FEW, results=results)
    assert run.returncode == 0, run.stdout + run.stderr
    return results, run.stdout


def test_all_notebooks_ran_and_the_table_is_printed(demo):
    _, printed = demo
    for name in NOTEBOOKS:
        assert f"{name}  done" in printed
    for words in (
        "chance",
        "none: rarest picture",
        "none: most frequent picture",
        "bare word",
        "phrase",
        "95 % interval",
    ):
        assert words in printed


def test_the_run_ends_with_what_it_reproduced_of_the_reference(demo):
    """Notebooks 01 to 04 ran as in the reference: where nothing was trained, every row is the
    same. 05 and 06 were cut short (FEW), which the summary does not hide.
    """
    results, printed = demo
    reference, run = map(compare.read_results, (paths.reference_dir("demo"), results / "demo"))
    pairs = compare.paired_rows(reference, run, check=False)
    assert f"of results/demo: {compare.in_words(pairs)}" in printed
    cut = reference.trained.keys() | run.trained.keys()
    whole = [p for p in pairs if p.id not in cut and not p.id.startswith("saliency.")]
    differing = [str(p) for p in whole if p.state != "identical"]
    assert len(whole) > 70 and not differing
    scenes = [p for p in pairs if p.id.startswith("saliency.")]
    assert all(p.state == "outside" and "other items (n" in p.why for p in scenes)


def test_everything_promised_is_there(demo):
    folder = demo[0] / "demo"
    for name in (
        "report.md",
        "report.json",
        "rows.jsonl",
        "audit/en.test.json",
        "predictions/lite.phrase.fa.test.jsonl",
        "predictions/lite.phrase.fa.test.meta.json",
        "predictions/lite-352.phrase.en.test.jsonl",
        "predictions/lite-dense.mixed.en.test.jsonl",
        "measured/contrast.jsonl",
        "translations/reference.it.test.jsonl",
        "translations/literal.fa.test.jsonl",
        "measured/saliency_truth.jsonl",
        "measured/scene_maps.safetensors",
        "tables/ladder.md",
        "tables/decoder.md",
        "tables/mask_contrast.md",
        "tables/multilingual.md",
        "tables/saliency_truth.md",
        "tables/deletion_insertion.md",
        "figures/masks.png",
        "figures/scenes.png",
        "figures/crop_maps.png",
        "figures/pointing.png",
        "predictions/polclip-seed0.sum.en.test.jsonl",
        "predictions/polclip-no-sig.sum.en.test.jsonl",
        "measured/wsd_answers.jsonl",
        "tables/textual.md",
        "tables/visual_polclip.md",
        "tables/polclip_ablations.md",
        "tables/multimodal.md",
        "figures/architecture.png",
        "figures/polclip_training.png",
        "figures/polclip_scores.png",
        "figures/polclip_attention.png",
        "figures/sense_map.png",
        "figures/translations_shown.png",
        "tables/baseline.csv",
        "tables/baseline.md",
        "tables/baseline.tex",
        "figures/baseline.png",
        "figures/baseline.pdf",
        "figures/baseline.json",
    ):
        assert (folder / name).stat().st_size > 0, name
    for name in NOTEBOOKS:
        cells = nbformat.read(folder / "notebooks" / f"{name}.ipynb", 4).cells
        assert all(c.execution_count for c in cells if c.cell_type == "code")


def test_the_phrase_beats_the_bare_word_and_the_bare_word_beats_chance(demo):
    """What the demo is for; far below the measured gain of 13 points, so that only a real fault
    fails it.
    """
    rows = {
        r["id"]: r
        for r in map(json.loads, (demo[0] / "demo" / "rows.jsonl").read_text().splitlines())
    }
    value = {v: rows[f"lite.{v}.en.test/hit@1"]["value"] for v in ("word", "phrase")}
    assert value["phrase"] > value["word"] + 8 and rows["lite.word.en.test/hit@1"]["ci_low"] > 10
    assert (
        rows["lite.phrase.fa.test/hit@1"]["ci_low"]
        < 10
        < rows["lite.phrase.fa.test/hit@1"]["ci_high"]
    )  # a language it never saw


def test_the_multilingual_twin_knows_italian_and_not_farsi(demo):
    """Italian through the twin is at least 12 points above raw Italian; Farsi stays inside the
    interval of raw Farsi.
    """
    rows = {
        r["id"]: r
        for r in map(json.loads, (demo[0] / "demo" / "rows.jsonl").read_text().splitlines())
    }
    raw, twin = (
        {lang: rows[f"{name}.phrase.{lang}.test/hit@1"] for lang in ("it", "fa")}
        for name in ("lite", "lite-multilingual")
    )
    assert twin["it"]["value"] > raw["it"]["value"] + 12
    assert raw["fa"]["ci_low"] <= twin["fa"]["value"] <= raw["fa"]["ci_high"]


def test_a_twin_reads_farsi_and_a_literal_translation_is_a_poor_one(demo):
    """Raw, literal and reference translation in this order; the third twin reads what lite does
    not, if its engine is here.
    """
    rows = {
        r["id"]: r
        for r in map(json.loads, (demo[0] / "demo" / "rows.jsonl").read_text().splitlines())
    }
    for language in ("it", "fa"):
        raw, literal, reference = (
            rows[f"lite.{variant}.{language}.test/hit@1"]["value"]
            for variant in ("phrase", "translated-literal", "translated")
        )
        assert raw + 3 < literal < reference - 3
        if fault() is None:
            twin = rows[f"lite-e5.phrase.{language}.test/hit@1"]
            assert twin["value"] > raw + 12 and twin["n"] == 251
    records = (demo[0] / "demo" / "translations" / "literal.it.test.jsonl").read_text()
    marked = [json.loads(line)["flags"] for line in records.splitlines()]
    assert 50 < sum("copied" in flags for flags in marked) < 200


def test_every_saliency_method_stands_beside_chance(demo):
    table = (demo[0] / "demo" / "tables" / "saliency_truth.md").read_text()
    for method in (
        "plain sum (as published)",
        "divided by visits",
        "occlusion",
        "integrated gradients",
        "gradient-weighted",
        "segmentation mask",
        "centre",
        "noise",
    ):
        assert method in table
    rows = [
        r
        for r in map(json.loads, (demo[0] / "demo" / "rows.jsonl").read_text().splitlines())
        if r["metric"] == "pointing"
    ]
    assert len(rows) == 10 and all(
        r["n"] == 8 and r["ci_low"] <= r["value"] <= r["ci_high"] for r in rows
    )


def test_polclip_learns_and_no_gain_is_made_up(demo):
    """Fused vectors begin at random: after training they are far above chance, and each row of a
    seed has its own paired p.
    """
    rows = {
        r["id"]: r
        for r in map(json.loads, (demo[0] / "demo" / "rows.jsonl").read_text().splitlines())
    }
    fused = rows["polclip-seed0.fused.en.test/hit@1"]
    assert fused["ci_low"] > 10 and fused["n"] == 502 and fused["model"].startswith("PolCLIP on")
    answers = [
        json.loads(line)
        for line in (demo[0] / "demo" / "measured" / "wsd_answers.jsonl").read_text().splitlines()
    ]
    right = [
        a["candidates"][max(range(len(s)), key=s.__getitem__)] in a["golds"]
        for a in answers
        if a["system"] == "seed0"
        for s in [a["scores"]["fused"]]
    ]
    assert len(right) == 502 and sum(right) > 0.6 * 502


def test_executed_notebooks_hold_no_warning(demo):
    for path in sorted((demo[0] / "demo" / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, 4).cells:
            for output in cell.get("outputs", ()):
                assert output.get("name") != "stderr", f"{path.name}: {output['text'][:300]}"


def test_a_second_run_runs_nothing_and_leaves_every_byte(demo):
    before = {p: p.read_bytes() for p in (demo[0] / "demo").rglob("*") if p.is_file()}
    run = vwsd("run", "--profile", "demo", *FEW, results=demo[0])
    assert run.returncode == 0 and run.stdout.count("up to date") == len(NOTEBOOKS)
    assert {
        p: p.read_bytes()
        for p in (demo[0] / "demo").rglob("*")
        if p.is_file() and p.name != ".lock.pid"
    } == {p: b for p, b in before.items() if p.name != ".lock.pid"}
    lines = vwsd("status", results=demo[0]).stdout.splitlines()
    states = [line.split()[1:3] for line in lines[: len(NOTEBOOKS)]]
    assert lines[len(NOTEBOOKS)] == "slowest cells:" and len(lines) == len(NOTEBOOKS) + 4
    assert [state for state, _ in states] == ["done"] * (len(NOTEBOOKS) - 2) + [
        "stale"
    ] * 2 and all(why.startswith("parameters") for _, why in states[-2:])  # 05 and 06, by FEW


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
    run = vwsd(
        "run",
        "--profile",
        "demo",
        "--only",
        "02_clip_baseline",
        "--set",
        "encoder=random",
        results=results,
        VWSD_DATA=str(data),
    )
    assert run.returncode == 1 and name in run.stdout and "truncated" in run.stdout, (
        run.stdout + run.stderr
    )
    assert not (results / "demo" / "predictions").exists()


def test_a_shifted_gold_file_is_noticed(emojiwsd, tmp_path):
    data, results = tmp_path / "data", tmp_path / "results"
    shutil.copytree(emojiwsd, data / "emojiwsd")
    gold = data / "emojiwsd" / "it.test.gold.txt"
    lines = gold.read_text().splitlines()
    gold.write_text("\n".join([*lines[:20], "image.0.png", *lines[20:-1]]) + "\n")
    run = vwsd(
        "run", "--profile", "demo", "--only", "01_data", results=results, VWSD_DATA=str(data)
    )
    assert (
        run.returncode == 1 and "it.test.gold.txt:21" in run.stdout and "shifted" in run.stdout
    ), run.stdout + run.stderr
    assert not (results / "demo" / "audit").exists()


def test_official_files_go_through_the_same_notebook(shared, tmp_path):
    """01_data under the profile paper, on the official text; pictures are not at hand and shown as
    missing.
    """
    for part in ("test",):
        shutil.copytree(shared / "vwsd" / part, tmp_path / "data" / "vwsd" / part)
    run = vwsd(
        "run",
        "--profile",
        "paper",
        "--only",
        "01_data",
        results=tmp_path / "results",
        VWSD_DATA=str(tmp_path / "data"),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    table = (tmp_path / "results" / "paper" / "tables" / "audit.md").read_text()
    for value in ("13.01", "12.63", "10.61", "4.49", "3.14", "5.98"):
        assert value in table
    claims = {
        c["id"]: c["verdict"]
        for c in json.loads((tmp_path / "results" / "paper" / "report.json").read_text())["claims"]
    }
    assert (
        claims["vwsd.items.en"] == claims["vwsd.items.it"] == claims["vwsd.items.fa"] == "EXACT"
        and claims["clipseg.clip.en"] == "NOT RUN"
    )


def test_committed_results_were_made_by_this_code(monkeypatch):
    """results/demo in git agrees with its predictions and with the code beside it."""
    from vwsd_companion.report import check_report

    monkeypatch.setenv("VWSD_RESULTS", str(paths.root() / "results"))
    if not (paths.root() / "results" / "demo" / "predictions").exists():
        pytest.fail("results/demo is not there: run make demo and commit it")
    assert check_report("demo") == []


def test_every_notebook_of_the_pipeline_is_in_the_demo():
    assert [s.name for s in pipeline.plan("demo")] == NOTEBOOKS
