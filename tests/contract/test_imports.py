"""Imports lead downwards: between the four packages, and between the rooms of each. Read are import
statements wherever they stand, names given to import_module, and loader strings
("module:callable"), also those of a registry's .yml. What leads upwards goes through entry points.
"""

import ast
import re
from pathlib import Path

import pytest
from tree import ROOT, SOURCES, module_name

from vwsdlib.paths import PACKAGES

# each imports from itself and from those before it
ROOMS = {
    "vwsdlib": (
        "errors device finite schema disk processes paths progress kept registry"
        " data encoders language analysis cli"
    ),
    "polclip": "",
    "vwsd_standins": (
        "emojiwsd text_tower lite lite_twins lite_e5 lite_backbone records rehearsal reference"
        " literal studies"
        " entries"
    ),
    "vwsd_companion": (
        "facts views notebook report site pipeline why machine work forecast progress"
        " runner compare explore doctor cli"
    ),
}
LOADER = re.compile(r"((?:{})(?:\.\w+)*):\w+".format("|".join(PACKAGES)))
MODULE = re.compile(r"(?:{})(?:\.\w+)*".format("|".join(PACKAGES)))


def named(source: str, module: str, package: bool, folder: Path = ROOT) -> set[str]:
    """Dotted names of the project's modules that a module's source imports or names as loaders;
    `folder` is where the .yml lie that it names.
    """
    above = module.split(".") if package else module.split(".")[:-1]
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = above[: len(above) - node.level + 1] if node.level else []
            base = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                module_of = f"{base}.{alias.name}"
                names.add(module_of if module_of in MODULES else base)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if match := LOADER.fullmatch(node.value.rsplit(":", 1)[0]) or LOADER.fullmatch(
                node.value
            ):
                names.add(match[1])
            if node.value.endswith(".yml") and (folder / node.value).is_file():
                names |= set(LOADER.findall((folder / node.value).read_text(encoding="utf-8")))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names |= set(MODULE.findall(ast.unparse(node)))
    return names & MODULES


MODULES = {module_name(path) for path in SOURCES}
IMPORTS = {}
for path in SOURCES:
    text, module = path.read_text(encoding="utf-8"), module_name(path)
    IMPORTS[module] = named(text, module, path.stem == "__init__", path.parent) - {module}


def upward(imports: dict[str, set[str]]) -> list[str]:
    """ "module -> module" of each import that leads to a later package or a later room."""
    wrong = []
    for module, targets in sorted(imports.items()):
        for target in sorted(targets):
            if place(target) > place(module):
                wrong.append(f"{module} -> {target}")
    return wrong


def place(module: str) -> tuple[int, int]:
    """Where a module stands: the number of its package, and that of its room (0 where none)."""
    package, *rest = module.split(".")
    rooms = ROOMS[package].split()
    room = rooms.index(rest[0]) if rest and rest[0] in rooms else 0
    return PACKAGES.index(package), room


def circles(imports: dict[str, set[str]]) -> list[str]:
    """Modules that import themselves by way of others, package `__init__`s included."""
    state, wrong = {}, []

    def visit(module, trail):
        if state.get(module) == "open":
            wrong.append(" -> ".join([*trail[trail.index(module) :], module]))
        if module in state:
            return
        state[module] = "open"
        for target in sorted(imports[module]):
            visit(target, [*trail, module])
        state[module] = "done"

    for module in sorted(imports):
        visit(module, [])
    return wrong


def test_every_room_is_named():
    for package, rooms in ROOMS.items():
        there = {path.stem for path in (ROOT / package).glob("*") if path.suffix in ("", ".py")}
        missing = there - set(rooms.split()) - {"__init__", "__pycache__"}
        assert not rooms or not missing, (package, missing)


def test_imports_lead_downwards():
    assert upward(IMPORTS) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circles(package):
    """None that has a module of the package in it."""
    assert [circle for circle in circles(IMPORTS) if f"{package}." in circle] == []


def test_the_lines_of_a_yml_are_read(tmp_path):
    (tmp_path / "x.yml").write_text("lite: {loader: vwsd_standins.lite:load_lite}\n")
    source = 'LINES = read_entries("x.yml", Entry)'
    assert named(source, "vwsdlib.encoders.registry", False, tmp_path) == {"vwsd_standins.lite"}
    assert "vwsdlib.encoders.pretrained" in IMPORTS["vwsdlib.encoders.registry"]


@pytest.mark.parametrize(
    "line",
    [
        "from vwsd_companion.facts import predictions",
        "import polclip.model",
        "from ..analysis import metrics",
        "from ..analysis.metrics import mrr",
        "def later():\n    from vwsd_standins.emojiwsd.build import build",
        'LOADER = "vwsd_standins.lite:load_lite"',
        'LOADER = "vwsd_standins.lite_twins:load_view:lite-352"',
        'make = import_module("vwsd_standins.rehearsal.data").make_data',
    ],
)
def test_what_leads_upwards_is_found(line):
    module = "vwsdlib.data.items"
    assert upward({module: named(line, module, False)})


def test_a_circle_is_found():
    imports = {"vwsdlib.a": {"vwsdlib.b"}, "vwsdlib.b": {"vwsdlib.c"}, "vwsdlib.c": {"vwsdlib.a"}}
    assert circles(imports) == ["vwsdlib.a -> vwsdlib.b -> vwsdlib.c -> vwsdlib.a"]
