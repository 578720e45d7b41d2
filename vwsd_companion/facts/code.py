"""The code that made a fact: the import closure of its roots, and the hash of that code.

Roots are modules: those that a notebook's cells import, those of the loaders of whatever its
parameters name, and the writer of the fact. From there imports are followed, in function bodies
too, inside vwsdlib, polclip and vwsd_standins: nothing is imported to find out. Views, pages,
commands and the runner never count, for they make no fact.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path

from vwsdlib import paths

FACTS = "vwsd_companion.facts"
# the companion's modules that count: what turns numbers into the lines of a file
WRITERS = tuple(f"{FACTS}.{name}" for name in ("fact", "predictions", "measurements", "audits"))
COUNTED = paths.PACKAGES[:-1]  # packages whose modules count
FOR_TYPES = ("TYPE_CHECKING", "typing.TYPE_CHECKING")
SOURCES = (".py", ".yml", ".json")
# where entries stand by name; the first four are light to import
REGISTRIES = {
    "vwsdlib.data.sets": ("SETS",),
    "vwsdlib.encoders.registry": ("ENCODERS", "SEGMENTERS"),
    "vwsdlib.language.translate": ("TRANSLATORS",),
    "vwsdlib.language.definitions": ("DEFINERS",),
    "vwsdlib.language.inventories": ("INVENTORIES",),
    "vwsdlib.analysis.scorers": ("SCORERS",),
    "polclip.config": ("PRESETS",),
    "polclip.study": ("STUDIES",),
    "polclip.backbone": ("BACKBONES",),
}
LIGHT = tuple(REGISTRIES)[:4]
LOADER = re.compile(r"((?:\w+\.)*\w+):\w+(:.*)?")


def code_sha256(roots: Iterable[str], home: Path | None = None) -> str:
    """Hash of the import closure of `roots` (module names): names and bytes of its files.

    home: the folder of the packages, by default that of this checkout.
    """
    home = home or paths.PACKAGE.parent
    return _sha256(closure(roots, home), home)


def other_code(metas: Mapping[str, Mapping]) -> list[str]:
    """Names of the facts that were made by other code than is here, as their metas say. A meta of
    an earlier version has no roots: its hash is that of all sources.
    """
    here: dict[tuple[str, ...], str] = {}
    names = []
    for name, meta in metas.items():
        roots = tuple(meta.get("code_roots", ()))
        if roots not in here:
            here[roots] = code_sha256(roots) if roots else project_sha256()
        if meta.get("code_sha256") != here[roots]:
            names.append(name)
    return names


def is_current(meta: Mapping) -> bool:
    """Is the code that made a fact the code that is here?"""
    return not other_code({"": meta})


def project_sha256() -> str:
    """Hash of all sources of the project, views included: what a page or a figure was drawn by."""
    home = paths.PACKAGE.parent
    files = [path for package in paths.PACKAGES for path in (home / package).rglob("*")]
    return _sha256([path for path in files if path.suffix in SOURCES], home)


def _sha256(files: Iterable[Path], home: Path) -> str:
    parts = []
    for path in sorted(files):
        parts += [path.relative_to(home).as_posix().encode(), path.read_bytes()]
    return paths.sha256_bytes(b"\0".join(parts))


def closure(roots: Iterable[str], home: Path) -> set[Path]:
    """Files that `roots` are made of: modules, the packages around them, all that they import, and
    the .yml and .json files that one of these names.
    """
    waiting = list(roots)
    seen: set[str] = set()
    files: set[Path] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        waiting += _above(name)
        path = _file(name, home)
        if path:
            imported, words, loaded = _read(path, name, path.stat().st_mtime_ns)
            waiting += [*imported, *loaders(loaded)]
            files |= {path, *_named_files(path, words)}
    return files


def _above(name: str) -> list[str]:
    """The package around a module, which is imported with it."""
    package = name.rpartition(".")[0]
    return [package] if package else []


def _file(name: str, home: Path) -> Path | None:
    """The source file of a module that counts; None for any other name."""
    if name.split(".")[0] not in COUNTED and name not in WRITERS:
        return None
    stem = home.joinpath(*name.split("."))
    for path in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py"):
        if path.is_file():
            return path
    return None


@lru_cache(maxsize=4096)
def _read(path: Path, name: str, _changed: int) -> tuple[frozenset[str], ...]:
    """(modules that a source file imports, texts that stand in it, things that it loads by name);
    `_changed` keys the cache.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    nodes = list(_walk(tree))
    texts = [node.value for node in nodes if isinstance(node, ast.Constant)]
    words = frozenset(text for text in texts if isinstance(text, str))
    return frozenset(_imports(nodes, package)), words, frozenset(_loaded(nodes))


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below `node`, but for those of `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in FOR_TYPES:
            for other in child.orelse:
                yield other
                yield from _walk(other)
            continue
        yield child
        yield from _walk(child)


def _imports(nodes: Iterable[ast.AST], package: str = "") -> Iterator[str]:
    """Dotted names that import statements name: `from a import b` names a and a.b, which may be no
    module.
    """
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")
                above = above[: len(above) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            for alias in node.names:
                yield f"{base}.{alias.name}"


def _loaded(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Names of registered things that stand in a call: load_set("emojiwsd", ...)."""
    for node in nodes:
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("load_"):
            yield from _texts([a.value for a in node.args[:1] if isinstance(a, ast.Constant)])


def _named_files(path: Path, words: frozenset[str]) -> Iterator[Path]:
    """Data files beside a module or below, whose name stands in it; a bare ".yml" names all."""
    for suffix in SOURCES[1:]:
        if any(word.endswith(suffix) for word in words):
            for file in path.parent.rglob(f"*{suffix}"):
                if suffix in words or any(word.endswith(file.name) for word in words):
                    yield file


def notebooks_dir() -> Path:
    """Folder of the notebooks and `pipeline.yml` (`VWSD_NOTEBOOKS`, default `<root>/notebooks`)."""
    return Path(os.environ.get("VWSD_NOTEBOOKS") or paths.root() / "notebooks")


def code_cells(notebook: str) -> list[str]:
    """Sources of a notebook's code cells; none where there is no such notebook or it is damaged."""
    path = notebooks_dir() / f"{notebook}.ipynb"
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []


def roots_of(cells: Sequence[str], parameters: Mapping) -> list[str]:
    """Roots of what a notebook makes: modules that its code cells import, those of the loaders of
    all that its parameters name in a registry that it reaches, and the writers of facts. A cell
    that is no Python has none.
    """
    things = {key: value for key, value in parameters.items() if key != "profile"}
    home = paths.PACKAGE.parent
    roots, names = set(WRITERS), list(_texts(things))
    for cell in cells:
        try:
            nodes = list(_walk(ast.parse(cell)))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        roots |= set(_imports(nodes))
        names += _loaded(nodes)
    reached = closure(roots, home)
    registries = [module for module in REGISTRIES if _file(module, home) in reached]
    roots |= set(loaders(names, registries))
    return sorted(root for root in roots if _file(root, home))


def loaders(names: Iterable[str], registries: Sequence[str] = LIGHT) -> Iterator[str]:
    """Modules of the loaders of registered things, and of the things that their settings name."""
    waiting = [name.partition("@")[0] for name in names]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for entry in registered(name, registries):
            for value in getattr(entry, "__dict__", {}).values():
                if isinstance(value, str) and (match := LOADER.fullmatch(value)):
                    yield match[1]
            waiting += _texts(getattr(entry, "settings", None))
            waiting += _texts(getattr(entry, "backbone", None))


def registered(name: str, registries: Sequence[str] = LIGHT) -> list:
    """What stands under a name in any of the registries: encoders, sets, translators, ..."""
    tables = []
    for module in registries:
        for attribute in REGISTRIES[module]:
            tables.append(getattr(import_module(module), attribute, {}))
    return [table[name] for table in tables if name in table]


def _texts(value: object) -> Iterator[str]:
    """Every text in a value of lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(each)
