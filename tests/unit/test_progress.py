"""What a run says while it runs: bars write records, the runner says them, and executed notebooks
hold nothing of it.
"""

import ast
import doctest
import json

import nbformat
import pytest
from test_pipeline import FINISH, START, WRITE, Project, outcomes
from tree import SOURCES

from vwsd_companion import progress, runner
from vwsdlib import progress as bars

WORK = """
import time
from vwsdlib.progress import tqdm
for _ in tqdm(range(2), desc="runs", unit=" run"):
    for _ in tqdm(range(60), desc="pictures", unit="picture", leave=False, disable=True):
        time.sleep(0.03)
"""


@pytest.fixture
def record(tmp_path, monkeypatch):
    """The file of records, and bars that write at once."""
    path = tmp_path / "progress.json"
    monkeypatch.setenv("VWSD_PROGRESS", str(path))
    monkeypatch.setattr(bars, "SECONDS", 0)
    return path


def test_open_bars_are_recorded_outermost_first_even_where_they_are_to_be_quiet(record, capsys):
    with (
        bars.RecordedBar(total=3, desc="runs", unit=" run", disable=True) as outer,
        bars.RecordedBar(total=10, desc="pictures", unit="picture") as inner,
    ):
        inner.update(4)
        read = progress.read_bars(record)
        assert [(one["what"], one["done"], one["total"]) for one in read] == [
            ("runs", 0, 3),
            ("pictures", 4, 10),
        ]
        assert read[0]["unit"] == "run" and read[1]["rate"] > 0
        inner.close()
        outer.update()
        assert [one["what"] for one in progress.read_bars(record)] == ["runs"]
    assert progress.read_bars(record) == []
    assert capsys.readouterr() == ("", "")


def test_a_bar_that_is_dropped_half_way_is_not_recorded_for_ever(record):
    bar = iter(bars.RecordedBar(range(9), desc="dropped"))
    assert next(bar) == 0 and next(bar) == 1
    assert [one["what"] for one in progress.read_bars(record)] == ["dropped"]
    del bar
    assert progress.read_bars(record) == []


def test_short_work_is_not_recorded(record, monkeypatch):
    monkeypatch.setattr(bars, "SECONDS", 1.0)
    assert list(bars.RecordedBar(range(1000))) == list(range(1000))
    assert not record.exists()


def test_a_folder_that_is_gone_costs_no_work(record, monkeypatch):
    monkeypatch.setenv("VWSD_PROGRESS", str(record.parent / "gone" / "progress.json"))
    assert list(bars.RecordedBar(range(3))) == [0, 1, 2]


@pytest.mark.parametrize("text", ["", "[", "{}"])
def test_a_record_that_cannot_be_read_is_no_fault(text, record):
    assert progress.read_bars(record) == []
    record.write_text(text)
    assert list(progress.read_bars(record)) == []


def test_lines_are_as_their_docstrings_show():
    assert doctest.testmod(progress).failed == 0


@pytest.mark.parametrize(
    "bar, told",
    [
        (("fetch", 25e6, 100e6, "B", 5e6), "fetch 25/100 MB, 5 MB/s, 0:15 left"),
        (("steps", 2, 10, "step", 0.25), "steps 2/10, 4.0 s/step, 0:32 left"),
        (("records", 7, None, "record", 3.0), "records 7, 3 record/s"),
        (("", 0, 10, "it", None), "0/10"),
    ],
)
def test_a_bar_in_words(bar, told):
    keys = ("what", "done", "total", "unit", "rate")
    said = progress.line("01", "", 5, [dict(zip(keys, bar, strict=True))])
    assert said == f"01  0:05  {told}"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A notebook with bars, run without and with a terminal: stderr, and what the run left."""
    said = {}
    for live in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            project = Project(tmp_path_factory.mktemp("progress") / "home")
            project.add("01_data", START, WORK, WRITE, FINISH).enter(patch)
            for cell in (notebook := nbformat.read(path_of(project), 4)).cells:
                cell.id = f"cell{notebook.cells.index(cell)}"
            nbformat.write(notebook, str(path_of(project)))
            for seconds in ("LINE_SECONDS", "LIVE_SECONDS"):
                patch.setattr(progress, seconds, 0.2)
            printed = Printed()
            patch.setattr(progress.sys, "stderr", printed)
            assert outcomes(runner.run("demo", progress=live)) == {"01_data": "done"}
            said[live] = "".join(printed.parts), project.tree()
    return said


def path_of(project):
    return project.home / "notebooks" / "01_data.ipynb"


class Printed:
    """A stderr that is read afterwards."""

    def __init__(self):
        self.parts = []
        self.write, self.flush = self.parts.append, lambda: None


def test_without_a_terminal_a_run_says_lines(ran):
    said, _ = ran[False]
    lines = [line for line in said.splitlines() if "pictures" in line]
    assert lines and all(line.startswith("01_data  4/7 cells, 0:") for line in lines)
    assert any("runs 1/2" in line and "/60, " in line and " left" in line for line in lines)
    assert "\r" not in said


def test_on_a_terminal_a_run_draws_one_line_over_and_wipes_it(ran):
    said, _ = ran[True]
    assert "\n" not in said and "runs 1/2" in said
    assert {len(part) for part in said.split("\r") if part} == {len(said.split("\r")[1])}
    assert said.split("\r")[-2].strip() == ""


def test_the_executed_copy_is_the_same_and_holds_no_bar(ran):
    (_, lines), (_, live) = ran.values()
    assert lines == live
    [copied] = [data for name, data in lines.items() if name.endswith(".ipynb")]
    cells = [cell for cell in json.loads(copied)["cells"] if cell["cell_type"] == "code"]
    assert cells[-3]["outputs"] == [] and "progress" not in str(list(lines))


def test_every_bar_is_drawn_by_the_librarys_own_module():
    drawing = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            if any(name.partition(".")[0] == "tqdm" for name in names):
                drawing.add(f"{path.parent.name}/{path.name}")
    assert drawing == {"vwsdlib/progress.py"}
