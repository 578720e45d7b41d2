"""The code of a fact is what was imported to make it: a colour of a figure is no part of it, a
metric is part of exactly what uses it.
"""

import json
import shutil

import pytest

from vwsd_companion import pipeline, runner
from vwsd_companion.facts import code, fact
from vwsd_companion.facts.measurements import read_measurement, write_measurement
from vwsdlib import paths

HOME = paths.PACKAGE.parent


@pytest.fixture
def home(tmp_path):
    """Writes fake packages; returns the function that adds a file and gives the folder."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path.joinpath(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            for package in path.relative_to(tmp_path).parents[:-1]:
                init = tmp_path / package / "__init__.py"
                init.exists() or init.write_text("")
        return tmp_path

    return write


def names(roots, folder):
    files = code.closure(roots, folder)
    return {path.relative_to(folder).as_posix() for path in files} - INITS


INITS = {f"{package}/__init__.py" for package in ("vwsdlib", "polclip", "vwsd_standins")}


@pytest.mark.parametrize(
    "line",
    [
        "import vwsdlib.b",
        "from vwsdlib import b",
        "from vwsdlib.b import x",
        "from . import b",
        "from .b import x",
        "def later():\n    from .b import x",
        "if True:\n    import vwsdlib.b as c",
        "class A:\n    def f(self):\n        from vwsdlib.b import y",
        "if not TYPE_CHECKING:\n    from .b import x",
        "if TYPE_CHECKING:\n    pass\nelse:\n    from .b import x",
    ],
)
def test_an_import_is_followed_wherever_it_stands(home, line):
    folder = home(vwsdlib__a=line, vwsdlib__b="x = y = 1", vwsdlib__c="")
    assert names(["vwsdlib.a"], folder) == {"vwsdlib/a.py", "vwsdlib/b.py"}


@pytest.mark.parametrize(
    "line",
    [
        "if TYPE_CHECKING:\n    from .b import x",
        "import typing\nif typing.TYPE_CHECKING:\n    import vwsdlib.b",
        "LOADER = 'vwsdlib.b:load'",
        "# import vwsdlib.b",
        "import numpy.b",
        "from vwsd_companion.views import b",
    ],
)
def test_what_is_no_import_is_not_followed(home, line):
    folder = home(vwsdlib__a=line, vwsdlib__b="", vwsd_companion__views__b="from vwsdlib import b")
    assert names(["vwsdlib.a"], folder) == {"vwsdlib/a.py"}


def test_packages_of_packages_cycles_and_imports_from_above_are_followed(home):
    folder = home(
        vwsdlib__deep__a="from ..other import b",
        vwsdlib__other__b="from ..deep.a import nothing\nfrom .. import c",
        vwsdlib__c="from polclip import d",
        polclip__d="import vwsdlib.deep.a",
        vwsd_standins__e="",
    )
    (folder / "vwsdlib" / "other" / "__init__.py").write_text("from . import more")
    (folder / "vwsdlib" / "other" / "more.py").write_text("")
    whole = names(["vwsdlib.deep.a"], folder)
    assert whole == {
        "vwsdlib/deep/__init__.py",
        "vwsdlib/deep/a.py",
        "vwsdlib/other/__init__.py",
        "vwsdlib/other/b.py",
        "vwsdlib/other/more.py",
        "vwsdlib/c.py",
        "polclip/d.py",
    }
    assert whole == names(["polclip.d"], folder)


def test_data_files_count_for_who_names_them(home):
    folder = home(
        vwsdlib__a="FILE = Path(__file__).with_name('weights.json')",
        vwsdlib__b="FILE = Path(__file__).with_suffix('.yml')",
        vwsdlib__c="",
    )
    for name in ("weights.json", "other.json", "b.yml"):
        (folder / "vwsdlib" / name).write_text("{}")
    assert names(["vwsdlib.a"], folder) == {"vwsdlib/a.py", "vwsdlib/weights.json"}
    assert names(["vwsdlib.b"], folder) == {"vwsdlib/b.py", "vwsdlib/b.yml"}
    before = code.code_sha256(["vwsdlib.a"], folder), code.code_sha256(["vwsdlib.c"], folder)
    (folder / "vwsdlib" / "weights.json").write_text("[]")
    after = code.code_sha256(["vwsdlib.a"], folder), code.code_sha256(["vwsdlib.c"], folder)
    assert before[0] != after[0] and before[1] == after[1]


def test_a_cells_imports_and_what_the_parameters_name_are_roots():
    cells = [
        "from vwsdlib.analysis import masks\n%timeit x",
        "from vwsdlib.analysis import metrics",
    ]
    plain = set(code.roots_of(cells, {"profile": "demo", "n": 3}))
    assert plain == {"vwsdlib.analysis", "vwsdlib.analysis.metrics", *code.WRITERS}
    imports = ["from vwsdlib.encoders.registry import load_encoder"]
    parameters = {"encoders": ["lite@x", ["clip-vit-b32"]], "segmenter": "clipseg-rd64"}
    named = code.roots_of(imports, parameters)
    loaders = {"vwsd_standins.lite", "vwsdlib.encoders.pretrained", "vwsdlib.encoders.clipseg"}
    registry = {"vwsdlib.encoders.registry", *code.WRITERS}
    assert loaders == set(named) - registry
    cells = [*imports, "store = load_encoder('lite')"]
    assert set(code.roots_of(cells, {})) - registry == {"vwsd_standins.lite"}
    assert code.roots_of([], {"encoder": "lite"}) == sorted(code.WRITERS)  # nothing can load it


def test_no_fact_is_made_of_views_pages_or_commands():
    for profile in ("demo", "paper", "rehearsal"):
        for step in pipeline.plan(profile):
            cells = [cell.source for cell in step.source.cells if cell.cell_type == "code"]
            files = names(code.roots_of(cells, step.parameters), HOME)
            companion = {name for name in files if name.startswith("vwsd_companion")}
            assert companion == {f"{name.replace('.', '/')}.py" for name in code.WRITERS}


# ---------------------------------------------------------------- a copied checkout


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of the sources and notebooks whose results are all up to date."""
    for name in (*paths.PACKAGES, "notebooks"):
        shutil.copytree(HOME / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "vwsdlib")
    monkeypatch.setattr(pipeline, "_data_hash", lambda parameters: "data")
    monkeypatch.setenv("VWSD_RESULTS", str(tmp_path / "results"))
    for variable in ("VWSD_HOME", "VWSD_NOTEBOOKS"):
        monkeypatch.delenv(variable, raising=False)
    for step in pipeline.plan("demo"):
        for name in step.outputs:
            paths.write_text(paths.results_dir("demo") / name, "x")
        stamp = {
            "fingerprint": step.name,
            "components": pipeline.components(step),
            "outputs": dict.fromkeys(step.outputs, paths.sha256_bytes(b"x")),
            "seconds": 1.0,
        }
        paths.write_text(pipeline.stamp_path("demo", step.name), json.dumps(stamp))
    return tmp_path


def stale():
    return {name: detail for name, state, detail in runner.status("demo") if state != "done"}


def test_a_changed_colour_makes_nothing_stale_and_the_report_is_drawn_again(checkout):
    assert stale() == {}
    before = code.project_sha256()
    for path in (checkout / "vwsd_companion" / "views").rglob("*.py"):
        path.write_text(path.read_text() + "\nBLUE = '#000000'\n")
    assert stale() == {} and code.project_sha256() != before  # what refresh_report asks


@pytest.mark.parametrize(
    "module, users",
    [
        ("vwsdlib/analysis/masks.py", {"03_clipseg", "05_saliency"}),
        ("vwsdlib/language/translate.py", {"04_multilingual"}),
        ("polclip/losses.py", {"06_polclip"}),
    ],
)
def test_a_changed_metric_makes_stale_exactly_what_uses_it(checkout, module, users):
    facts = {}
    for step in pipeline.plan("demo"):
        fact.begin(step.name, step.parameters)
        folder = paths.results_dir("demo") / step.name
        write_measurement(folder, "toy", [{"x": 1}])
        facts[step.name] = folder / "measured" / "toy.jsonl"
    path = checkout / module
    path.write_text(path.read_text() + "\nX = 1\n")
    assert stale() == dict.fromkeys(users, "library")
    metas = {name: read_measurement(file).meta for name, file in facts.items()}
    assert {name for name, meta in metas.items() if not code.is_current(meta)} == users


def test_a_fact_says_its_roots_and_where_it_was_made(tmp_path, monkeypatch):
    monkeypatch.setattr(fact, "_now", {})
    bare = write_measurement(tmp_path, "toy", [{"x": 1}]).meta
    assert bare["code_roots"] == sorted(code.WRITERS) and "made_in" not in bare
    fact.begin("03_clipseg", {"encoder": "lite"})
    source = "def write():\n    return write_measurement(folder, 'toy', [{'x': 1}]).meta\n"
    space = {"write_measurement": write_measurement, "folder": tmp_path}
    cell = tmp_path / "ipykernel_1.py"  # a kernel names its cells so
    cell.write_text(source)
    exec(compile(source, str(cell), "exec"), space)
    meta = space["write"]()
    line = "return write_measurement(folder, 'toy', [{'x': 1}]).meta"
    assert meta["made_in"] == {"notebook": "03_clipseg", "line": line}
    assert {"vwsd_standins.lite", "vwsdlib.analysis.masks"} <= set(meta["code_roots"])
    assert meta["code_sha256"] == code.code_sha256(meta["code_roots"]) and code.is_current(meta)


def test_a_fact_of_an_earlier_version_counts_as_made_by_all_sources():
    assert code.is_current({"code_sha256": code.project_sha256()})
    assert not code.is_current({"code_sha256": "0" * 64})
