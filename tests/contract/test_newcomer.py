"""The newcomer's walk (tests/newcomer.py, `make newcomer`) takes every step from a page; here on a
copy of the pages, without the minutes.
"""

import ast
import shutil

import newcomer
import pytest

from vwsdlib.encoders.registry import Entry
from vwsdlib.paths import PACKAGE
from vwsdlib.registry import read_entries

ROOT = PACKAGE.parent
PAGE = "docs/adding-a-model.md"


@pytest.fixture
def walk(tmp_path):
    clone = tmp_path / "clone"
    (clone / "vwsdlib" / "encoders").mkdir(parents=True)
    shutil.copy(ROOT / "README.md", clone)
    shutil.copytree(ROOT / "docs", clone / "docs", ignore=shutil.ignore_patterns("reference"))
    shutil.copy(ROOT / "vwsdlib" / "encoders" / "encoders.yml", clone / "vwsdlib" / "encoders")
    return newcomer.Walk(tmp_path)


def test_the_toy_encoder_is_saved_and_registered_as_the_page_says(walk):
    lines = walk.clone / "vwsdlib" / "encoders" / "encoders.yml"
    before = read_entries(lines, Entry)
    assert newcomer.add_encoder(walk, PAGE) == "grey"
    grey = Entry("vwsdlib.encoders.grey:load_grey", "a toy", ("en",), "")
    assert list(read_entries(lines, Entry).items()) == [*before.items(), ("grey", grey)]
    assert "class Grey" in (walk.clone / "vwsdlib" / "encoders" / "grey.py").read_text()


def test_every_command_of_the_walk_stands_on_its_page(walk):
    """The literals that main() types, and what it expects of the pages."""
    source = next(
        node
        for node in ast.parse((ROOT / "tests" / "newcomer.py").read_text()).body
        if getattr(node, "name", "") == "main"
    )
    typed = [
        call.args
        for call in ast.walk(source)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "walk.type"
    ]
    assert len(
        typed
    ) == 3 and "vwsd run --profile demo --only 02_clip_baseline --set encoder=grey" in walk.page(
        PAGE
    )
    assert (
        ".venv/bin/vwsd report --html" in walk.page("README.md")
        and "`runs/demo/report.md`" in walk.page("README.md")
        and "make demo" in walk.page("README.md")
    )
    assert "`runs/demo/tables/baseline.md`" in walk.page(PAGE)


def test_what_stands_on_no_page_stops_the_walk(walk):
    for step in (
        lambda: walk.type("make everything", "README.md"),
        lambda: walk.page("docs/secret.md"),
        lambda: newcomer.run("exit 3", walk.clone),
    ):
        with pytest.raises(AssertionError):
            step()
    assert newcomer.run("echo here", walk.clone) == "here\n" and walk.steps == []
