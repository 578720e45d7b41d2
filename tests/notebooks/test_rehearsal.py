"""The papers' profile, notebooks 01 to 06, on tiny random checkpoints: the whole path without a
download, on the first items of each set.
"""

import json
import os
import subprocess
import sys

import by_hand
import nbformat
import pytest

from vwsd_companion import pipeline
from vwsdlib import paths
from vwsdlib.data.damage import DAMAGED

ITEMS = 12
SHORT = ("crops=40", "scenes=2", "scene_crops=12", "steps=2")  # notebook 05's
FEW = [word for setting in SHORT for word in ("--set", setting)]


def vwsd(*arguments, folder, **environment):
    """The command in folders of its own, with a proxy that refuses: nothing may reach for a
    network.
    """
    own = {
        "VWSD_RESULTS": str(folder / "results"),
        "VWSD_CACHE": str(folder / "cache"),
        "https_proxy": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }
    command = [sys.executable, "-m", "vwsd_companion.cli", *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=paths.root(),
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, **own, "CI": "true", **environment},
    )


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rehearsal")
    run = vwsd("run", "--profile", "rehearsal", "--limit", ITEMS, *FEW, folder=folder)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def report(folder) -> dict:
    return json.loads((folder / "results" / "rehearsal" / "report.json").read_text())


def test_every_notebook_ran_to_its_end(rehearsal):
    for step in pipeline.plan("rehearsal"):
        cells = nbformat.read(
            rehearsal / "results" / "rehearsal" / "notebooks" / f"{step.name}.ipynb", 4
        ).cells
        assert all(c.execution_count for c in cells if c.cell_type == "code")
        said = [o.text for c in cells for o in c.get("outputs", ()) if o.get("name") == "stderr"]
        lines = [line for text in said for line in text.splitlines()]
        assert all(line.startswith("note: ") for line in lines), (
            step.name
        )  # texts that a tiny tokenizer's limit cuts are said


def test_the_papers_six_numbers_stand_beside_ours_and_no_verdict_is_exact(rehearsal):
    claims = {c["id"]: c for c in report(rehearsal)["claims"]}
    six = [
        "clipseg.clip.en",
        "clipseg.clipseg.en",
        "clipseg.clipseg.it",
        "clipseg.clipseg.fa",
        "clipseg.translated.it",
        "clipseg.translated.fa",
    ]
    for name in six:
        assert (
            claims[name]["verdict"] == "REHEARSAL"
            and claims[name]["ours_n"] == ITEMS
            and claims[name]["ci_low"] <= claims[name]["ours"] <= claims[name]["ci_high"]
        )
    for name in ("clipseg.gain.en", "clipseg.gain.significant"):
        assert claims[name]["verdict"] == "REHEARSAL" and 0 < claims[name]["p"] <= 1
    assert not {c["verdict"] for c in claims.values()} & {
        "EXACT",
        "CLOSE",
        "CONSISTENT",
        "SUPPORTED",
    }


def test_damaged_pictures_cost_no_notebook_and_are_counted(rehearsal):
    """Of the first items one is truncated, one missing and one no picture; the missing one is the
    gold of the fourth.
    """
    results = rehearsal / "results" / "rehearsal"
    meta = json.loads(
        (results / "predictions" / "clip-vit-b32.phrase.en.test.meta.json").read_text()
    )
    assert {kind: len(meta["damaged"][kind]) for kind in DAMAGED} == dict.fromkeys(DAMAGED, 1)
    for path in results.glob("predictions/*.en.test.jsonl"):
        assert json.loads(path.read_text().splitlines()[3])["rank"] == 10, path.name
    caption = (results / "tables" / "baseline.md").read_text()
    assert "en test: 3 of 120 pictures damaged: 1 truncated (kept), 1 missing" in caption


def test_every_table_of_the_paper_profile_is_there(rehearsal):
    made = report(rehearsal)["tables"]
    for name in (
        "baseline",
        "ladder",
        "backbones",
        "dtype_drift",
        "decoder",
        "mask_contrast",
        "inner_clip",
        "multilingual",
        "translators_used",
        "translation_examples",
        "translation_marks",
        "saliency_truth",
        "deletion_insertion",
        "centre_bias",
        "masks_shown",
        "polclip_model",
        "textual",
        "visual_polclip",
        "polclip_ablations",
    ):
        assert name in made or name == "mask_contrast", (
            name
        )  # the first items may all be solved, or none


@pytest.fixture(scope="module")
def at_hand(rehearsal, tmp_path_factory):
    """Results of their own for notebooks by hand, which find in the cache what the run computed."""
    folder = tmp_path_factory.mktemp("by-hand")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VWSD_CACHE", str(rehearsal / "cache"))
        patch.setenv("VWSD_RESULTS", str(folder))
        patch.delenv("VWSD_STAGING", raising=False)
        patch.delenv("VWSD_MODELS", raising=False)  # the kernel of a rehearsal sets it for itself
        yield folder


@pytest.mark.parametrize("name", [step.name for step in pipeline.plan("rehearsal")])
def test_it_runs_by_hand_too(name, at_hand, capsys):
    """In a plain kernel under the parameters cell that `vwsd run --parameters` prints, in order: a
    later notebook needs what an earlier one stored.
    """
    settings = SHORT if name == "05_saliency" else (f"limit={ITEMS}",)
    notebook, cell = by_hand.source_of(name)
    printed = by_hand.printed_parameters("rehearsal", name, settings, capsys)
    assert list(by_hand.values(printed)) == list(by_hand.values(cell.source))
    cell.source = printed
    by_hand.run_to_its_end(notebook, name, at_hand)
    by_hand.check_outputs("rehearsal", name, settings, at_hand, ITEMS)


def test_a_second_run_of_04_loads_no_translator(rehearsal, tmp_path):
    """Replayed by hash: with every translator's weights gone the notebook runs again and writes the
    same translations.
    """
    stored = rehearsal / "results" / "rehearsal" / "translations"
    before = {p.name: p.read_bytes() for p in stored.iterdir()}
    broken = tmp_path / "sitecustomize.py"
    broken.write_text(
        "import vwsdlib.language.translate as t\ndef refuse(*a, **k):\n    raise SystemExit('a"
        " translator was loaded')\nt.load_seq2seq = refuse\n"
    )
    run = vwsd(
        "run",
        "--profile",
        "rehearsal",
        "--only",
        "04_multilingual",
        "--force",
        "--limit",
        ITEMS,
        folder=rehearsal,
        PYTHONPATH=str(tmp_path),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert {p.name: p.read_bytes() for p in stored.iterdir()} == before
