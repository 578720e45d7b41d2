"""Notebooks by hand: top to bottom in a plain kernel, without papermill and runner, under the
parameters cell that `vwsd run --parameters` prints.
"""

import re

import nbformat
import pytest
from nbclient import NotebookClient

from vwsd_companion import cli, pipeline
from vwsd_companion.facts.predictions import read_predictions

ITEMS = 8
CASES = [
    *(("demo", name) for name in ("01_data", "02_clip_baseline", "04_multilingual")),
    *(
        ("rehearsal", name)
        for name in (
            "01_data",
            "02_clip_baseline",
            "03_clipseg",
            "04_multilingual",
            "05_saliency",
            "06_polclip",
        )
    ),
]
FEW = {
    "05_saliency": ("crops=40", "scenes=2", "scene_crops=12", "steps=2"),
    "06_polclip": ("training_seeds=[42]", "ablations=[no-sig]"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of their own for all cases: a later notebook reads what an earlier one wrote."""
    folder = tmp_path_factory.mktemp("by-hand")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VWSD_RESULTS", str(folder))
        patch.delenv("VWSD_STAGING", raising=False)
        patch.delenv("VWSD_MODELS", raising=False)  # the kernel of a rehearsal sets it for itself
        yield folder


def asked(name) -> tuple[str, ...]:
    """Settings that make a notebook short; 05 has no `limit`."""
    return FEW.get(name, ()) + (() if name == "05_saliency" else (f"limit={ITEMS}",))


def parameters(profile, name, capsys) -> str:
    few = [word for setting in asked(name) for word in ("--set", setting)]
    assert cli.main(["run", "--profile", profile, "--only", name, *few, "--parameters"]) == 0
    return capsys.readouterr().out


def values(cell: str) -> dict:
    """What a parameters cell sets."""
    found = {}
    exec(cell, {}, found)
    return found


@pytest.mark.parametrize("profile, name", CASES, ids=["-".join(case) for case in CASES])
def test_it_runs_to_its_end(profile, name, folder, capsys):
    """In the order of CASES: a later notebook needs what an earlier one stored."""
    notebook = nbformat.read(pipeline.notebooks_dir() / f"{name}.ipynb", 4)
    cell, printed = (
        next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])),
        parameters(profile, name, capsys),
    )
    stands = values(cell.source)
    assert list(values(printed)) == list(stands) and (
        values(printed) == {**stands, "limit": ITEMS}
    ) == (profile == "demo")
    cell.source = (
        cell.source.replace("limit = 0", f"limit = {ITEMS}") if profile == "demo" else printed
    )  # the demo's cell is the notebook's own
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    last = [c for c in notebook.cells if c.cell_type == "code"][-1]
    assert f"{name}: complete, checks held: " in "".join(o.get("text", "") for o in last.outputs)
    for path in (
        p
        for step in pipeline.plan(
            profile, only=[name], settings=pipeline.parse_settings(asked(name))
        )
        if step.name == name
        for p in step.outputs
    ):
        assert (folder / profile / path).exists(), path
    for path in (folder / profile / "predictions").glob("*.jsonl"):
        assert len(read_predictions(path).items) == ITEMS


def test_the_cell_is_that_of_the_profile(capsys):
    found = parameters("paper", "03_clipseg", capsys)
    assert (
        found.startswith("# 03_clipseg, profile paper\n")
        and "dataset = 'vwsd'" in found
        and f"limit = {ITEMS}" in found
        and "# 02" not in found
    )
    compile(found, "cell", "exec")
    assert cli.main(["run", "--profile", "demo", "--parameters"]) == 0
    assert len(re.findall(r"^# 0\d_", capsys.readouterr().out, re.M)) == 6
    assert cli.main(["run", "--only", "03_clipsegs", "--parameters"]) == 2
