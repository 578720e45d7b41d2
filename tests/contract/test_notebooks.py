"""Static rules for notebooks/*.ipynb and notebooks/pipeline.yml; every rule has a twin that breaks
it and must be seen.

A rule takes a notebook (and the printed values of results/reported.yml) and yields complaints.
"""

import ast
import copy
import re

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from vwsd_companion import pipeline
from vwsdlib.errors import VwsdError
from vwsdlib.paths import PACKAGE

ROOT = PACKAGE.parent
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
FREE = {
    "explore"
}  # not run by the pipeline: the rules on parameters, start and finish do not bind it
MAX_LINES, MAX_WIDTH = 25, 135
RULES, PIPELINE_RULES = {}, {}


def rule(function):
    RULES[function.__name__] = function
    return function


def pipeline_rule(function):
    PIPELINE_RULES[function.__name__] = function
    return function


# ---------------------------------------------------------------- helpers


def code_cells(nb):
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def trees(nb):
    """Syntax trees of the cells that parse; `plain_python` complains about the others."""
    for cell in code_cells(nb):
        try:
            yield ast.parse(cell.source)
        except SyntaxError:
            pass


def calls(tree, name):
    """Calls of `name` in a tree: `start` is start(...) or notebook.start(...), `run.finish` just
    that.
    """
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (ast.unparse(node.func) == name or ast.unparse(node.func).endswith(f".{name}"))
    ]


def printed_values(reported) -> set[str]:
    """Values that reported.yml says a paper prints, those with a decimal point and three
    significant digits at least.
    """
    if isinstance(reported, dict):
        found = {str(reported["value"])} if "value" in reported else set()
        return {v for v in found if "." in v and len(re.sub(r"\D", "", v).lstrip("0")) >= 3}.union(
            *map(printed_values, reported.values())
        )
    return set().union(*map(printed_values, reported)) if isinstance(reported, list) else set()


def reported() -> set[str]:
    path = ROOT / "results" / "reported.yml"
    return (
        printed_values(yaml.safe_load(path.read_text(encoding="utf-8"))) if path.exists() else set()
    )


# ---------------------------------------------------------------- the rules


@rule
def one_plain_parameters_cell(nb, name, values):
    if name not in FREE:
        try:
            pipeline.read_parameters(nb)
        except VwsdError as e:
            yield str(e)


@rule
def profile_is_a_parameter(nb, name, values):
    if name not in FREE and not any(
        re.search(r"^profile = ", cell.source, re.M)
        for cell in code_cells(nb)
        if "parameters" in cell.metadata.get("tags", [])
    ):
        yield "the parameters cell has no `profile`"


@rule
def starts_under_its_own_name(nb, name, values):
    found = [call for tree in trees(nb) for call in calls(tree, "start")]
    if name not in FREE and [[ast.unparse(a) for a in call.args] for call in found] != [
        [repr(name)]
    ]:
        yield f"it must call start({name!r}, ...) exactly once"


@rule
def finishes_in_the_last_code_cell(nb, name, values):
    if name not in FREE and (not code_cells(nb) or "run.finish(" not in code_cells(nb)[-1].source):
        yield "the last code cell must call run.finish("


@rule
def no_outputs(nb, name, values):
    yield from (
        f"cell {n} has outputs or a count"
        for n, cell in enumerate(code_cells(nb), 1)
        if cell.outputs or cell.execution_count
    )


@rule
def no_widget_state(nb, name, values):
    if "widgets" in nb.metadata:
        yield "it stores the state of widgets"


@rule
def plain_python(nb, name, values):
    """No `!`, `%pip`, `%matplotlib` and whatever else is not Python."""
    for number, cell in enumerate(code_cells(nb), 1):
        try:
            compile(
                cell.source,
                "cell",
                "exec",
                flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST,
            )
        except SyntaxError as e:
            yield f"cell {number}, line {e.lineno} is not plain Python: {(e.text or '').strip()}"


@rule
def no_ipython_calls(nb, name, values):
    yield from (
        f"get_ipython: {ast.unparse(call)}"
        for tree in trees(nb)
        for call in calls(tree, "get_ipython")
    )


@rule
def no_absolute_paths(nb, name, values):
    for tree in trees(nb):
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and re.match(r"(/|~|[A-Za-z]:[\\/])[\w.]?[\w./\\-]", node.value)
            ):
                yield f"absolute path {node.value!r}"
    for cell in nb.cells:
        yield from (
            f"absolute path {path}"
            for path in re.findall(
                r"(?<![\w.:/])/(?:home|Users|root|tmp|mnt|opt|var|content|kaggle)/\S*|[A-Z]:\\\S*",
                cell.source,
            )
        )


@rule
def no_bare_except(nb, name, values):
    yield from (
        f"bare except in line {node.lineno} of a cell"
        for tree in trees(nb)
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and node.type is None
    )


@rule
def cells_fit_on_a_screen(nb, name, values):
    yield from (
        f"cell {n} has {len(cell.source.splitlines())} lines"
        for n, cell in enumerate(code_cells(nb), 1)
        if len(cell.source.splitlines()) > MAX_LINES
    )


@rule
def lines_fit_on_a_screen(nb, name, values):
    yield from (
        f"cell {n} has a line of {max(map(len, cell.source.splitlines()))} characters"
        for n, cell in enumerate(code_cells(nb), 1)
        if any(len(line) > MAX_WIDTH for line in cell.source.splitlines())
    )


@rule
def no_reported_number(nb, name, values):
    for cell in nb.cells:
        for number in re.findall(r"(?<![\d.])\d+\.\d+(?![\d]|\.\d)", cell.source):
            if number in values:
                yield f"{number} is a value that a paper reports: take it from results/reported.yml"


@rule
def python3_kernel(nb, name, values):
    if nb.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "its kernel is not named python3"


@pipeline_rule
def notebooks_and_pipeline_agree(book, parameters):
    listed, there = set(book["notebooks"]), set(parameters)
    yield from (
        f"pipeline.yml lists {name}, which does not exist" for name in sorted(listed - there)
    )
    yield from (f"{name}.ipynb is not in pipeline.yml" for name in sorted(there - listed - FREE))


@pipeline_rule
def profile_parameters_exist(book, parameters):
    for profile, given in book["profiles"].items():
        running = [
            n
            for n, entry in book["notebooks"].items()
            if profile in (entry.get("profiles") or book["profiles"])
        ]
        known = set().union(*(parameters.get(n, {}) for n in running))
        yield from (
            f"profile {profile} sets {name}, which none of its notebooks has"
            for name in sorted(set(given or ()) - known)
        )


@pipeline_rule
def profiles_can_be_planned(book, parameters):
    """`needs` without circles, every output with one owner, every notebook told what it produces
    under each profile.
    """
    for profile in book["profiles"]:
        try:
            made = {
                name: pipeline.outputs(
                    book["notebooks"][name], profile, parameters.get(name, {}), name
                )
                for name in pipeline._graph(book, profile)
            }
        except VwsdError as e:
            yield str(e)
            continue
        yield from (
            f"{name} produces nothing under {profile}" for name, files in made.items() if not files
        )
        everything = [path for files in made.values() for path in files]
        yield from (
            f"{path} is produced twice under {profile}"
            for path in sorted({p for p in everything if everything.count(p) > 1})
        )


@pipeline_rule
def every_notebook_says_what_it_is_about(book, parameters):
    yield from (
        f"{name} has no `{key}`"
        for name, entry in book["notebooks"].items()
        for key in ("about", "minutes")
        if not entry.get(key)
    )


# ---------------------------------------------------------------- the project's notebooks keep them

PAIRS = [pytest.param(path, name, id=f"{path.stem}-{name}") for path in NOTEBOOKS for name in RULES]
NONE_YET = pytest.param(
    None, None, id="none", marks=pytest.mark.skip(reason="notebooks/ holds no notebook yet")
)


@pytest.mark.parametrize("path, name", PAIRS or [NONE_YET])
def test_notebook(path, name):
    assert not list(RULES[name](nbformat.read(path, as_version=4), path.stem, reported()))


@pytest.mark.skipif(
    not (FOLDER / "pipeline.yml").exists(), reason="there is no notebooks/pipeline.yml yet"
)
def test_pipeline(monkeypatch):
    monkeypatch.setenv("VWSD_NOTEBOOKS", str(FOLDER))
    parameters = {
        path.stem: (
            {}
            if path.stem in FREE
            else pipeline.read_parameters(nbformat.read(path, as_version=4), path)
        )
        for path in NOTEBOOKS
    }
    book = pipeline.read_pipeline()
    assert not [
        complaint for check in PIPELINE_RULES.values() for complaint in check(book, parameters)
    ]


# ---------------------------------------------------------------- and every rule can fail

VALUES = printed_values({"rows": [{"id": "a", "value": "63.28"}, {"value": 0.5}, {"value": 77}]})


def good():
    cells = [
        new_markdown_cell("# Good, 12.34 % of 463; see https://example.org/home/x"),
        new_code_cell('profile = "demo"\nalpha = 0.5', metadata={"tags": ["parameters"]}),
        new_code_cell(
            'from vwsd_companion.notebook import start\n\nrun = start("01_good", profile=profile)'
        ),
        new_code_cell('print("a/b", "/", 7 % 2)'),
        new_code_cell("run.finish(n=True)"),
    ]
    return new_notebook(
        cells=cells,
        metadata={"kernelspec": {"name": "python3", "display_name": "x", "language": "python"}},
    )


def having(cell, source):
    return lambda nb: nb.cells[cell].update(source=source)


BREAK = {  # rule -> ways to break a good notebook
    "one_plain_parameters_cell": [
        lambda nb: nb.cells.pop(1),
        lambda nb: nb.cells.append(nb.cells[1]),
        having(1, 'profile = "a" + "b"'),
        having(1, 'profile, seed = "demo", 1'),
        having(1, 'profile = "demo"; seed = 1'),
    ],
    "profile_is_a_parameter": [having(1, "seed = 1")],
    "starts_under_its_own_name": [
        having(2, "run = None"),
        having(2, 'run = start("02_other")'),
        having(2, "run = start()"),
    ],
    "finishes_in_the_last_code_cell": [
        having(4, "print(run)"),
        lambda nb: nb.cells.append(new_code_cell("1")),
    ],
    "no_outputs": [
        lambda nb: nb.cells[3].update(execution_count=3),
        lambda nb: nb.cells[3].outputs.append(nbformat.v4.new_output("stream", text="x")),
    ],
    "no_widget_state": [lambda nb: nb.metadata.update(widgets={})],
    "plain_python": [
        having(3, "!ls"),
        having(3, "%pip install x"),
        having(3, "%matplotlib inline"),
        having(3, "%%time\nx = 1"),
        having(3, "x?"),
    ],
    "no_ipython_calls": [having(3, "get_ipython().system('ls')")],
    "no_absolute_paths": [
        having(3, 'open("/data/x.csv")'),
        having(3, 'open("~/x")'),
        having(3, r'open("C:\\x")'),
        having(3, "# see /home/me/x"),
        having(0, "Put it in /root/data."),
        having(3, 'open(f"/data/{profile}/x")'),
    ],
    "no_bare_except": [having(3, "try:\n    pass\nexcept:\n    pass")],
    "cells_fit_on_a_screen": [having(3, "x = 1\n" * (MAX_LINES + 1))],
    "lines_fit_on_a_screen": [having(3, "x = " + "1 + " * MAX_WIDTH + "1")],
    "no_reported_number": [
        having(3, "paper = 63.28"),
        having(0, "The paper has 63.28."),
        having(3, 'print("63.28%")'),
    ],
    "python3_kernel": [
        lambda nb: nb.metadata.update(kernelspec={"name": "myenv"}),
        lambda nb: nb.metadata.pop("kernelspec"),
    ],
}
GOOD_BOOK = {
    "profiles": {"demo": {"alpha": 1.0}, "paper": {}},
    "notebooks": {
        "01_good": {"about": "x", "minutes": 1, "produces": ["tables/x"]},
        "02_next": {
            "about": "y",
            "minutes": 1,
            "produces": {"demo": ["tables/y"], "paper": ["tables/z"]},
            "needs": ["01_good"],
        },
    },
}
BREAK_PIPELINE = {
    "notebooks_and_pipeline_agree": [
        lambda b: b["notebooks"].pop("02_next"),
        lambda b: b["notebooks"].update({"03_ghost": {}}),
    ],
    "profile_parameters_exist": [
        lambda b: b["profiles"]["demo"].update(alpa=1.0),
        lambda b: b["notebooks"]["01_good"].update(profiles=["paper"]),
    ],
    "profiles_can_be_planned": [
        lambda b: b["notebooks"]["01_good"].update(needs=["02_next"]),
        lambda b: b["notebooks"]["01_good"].update(produces=["tables/y"]),
        lambda b: b["notebooks"]["02_next"]["produces"].pop("paper"),
        lambda b: b["notebooks"]["01_good"].update(produces=[]),
        lambda b: b["notebooks"]["01_good"].update(produces=["predictions/{encoder}"]),
        lambda b: b["notebooks"]["01_good"].update(profiles=["paper"]),
    ],
    "every_notebook_says_what_it_is_about": [
        lambda b: b["notebooks"]["01_good"].pop("about"),
        lambda b: b["notebooks"]["01_good"].pop("minutes"),
    ],
}


def cases(table):
    return [
        pytest.param(name, damage, id=f"{name}-{n}")
        for name, ways in table.items()
        for n, damage in enumerate(ways)
    ]


def test_every_rule_has_a_twin():
    assert (
        BREAK.keys() == RULES.keys()
        and BREAK_PIPELINE.keys() == PIPELINE_RULES.keys()
        and {"63.28"} == VALUES
    )


def test_a_good_notebook_passes_every_rule():
    assert [
        complaint for check in RULES.values() for complaint in check(good(), "01_good", VALUES)
    ] == []
    parameters = {"01_good": {"alpha": 0.5}, "02_next": {}, "explore": {}}
    assert [
        complaint
        for check in PIPELINE_RULES.values()
        for complaint in check(copy.deepcopy(GOOD_BOOK), parameters)
    ] == []


@pytest.mark.parametrize("name, damage", cases(BREAK))
def test_a_bad_notebook_is_seen(name, damage):
    nb = good()
    damage(nb)
    assert list(RULES[name](nb, "01_good", VALUES))


@pytest.mark.parametrize("name, damage", cases(BREAK_PIPELINE))
def test_a_bad_pipeline_is_seen(name, damage):
    book = copy.deepcopy(GOOD_BOOK)
    damage(book)
    assert list(
        PIPELINE_RULES[name](book, {"01_good": {"alpha": 0.5}, "02_next": {}, "explore": {}})
    )
