"""Docstrings say what a reader needs (shapes, units, errors, source), and the API reference builds
from them.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tree import ROOT, SOURCES

from vwsdlib.paths import PACKAGES

ARRAY = re.compile(r"(np\.ndarray|(torch\.)?Tensor)( \| None)?")
UNIT = re.compile(
    r"percent|points|share|0 to 1|chance that|cosine|seconds|hours|[GT]FLOP|pixels|rate|gigabytes",
    re.I,
)
SOURCE = re.compile(r"\b(19|20)\d\d\b|section|equation|paper|as released|published", re.I)
TOLD_ELSEWHERE = (
    "command",
    "check",
)  # exit codes and errors of commands: cli/__init__.py; a check of `vwsd doctor` raises to say FAIL
FROM_PAPERS = [
    "vwsdlib/analysis/metrics.py",
    "vwsdlib/analysis/faithfulness.py",
    "vwsdlib/analysis/saliency.py",
    "vwsdlib/analysis/masks.py",
    "vwsdlib/analysis/wsd_scoring.py",
    "vwsdlib/encoders/clipseg.py",
    "vwsd_standins/lite/__init__.py",
    "vwsd_standins/lite/encoder.py",
    "vwsdlib/encoders/pretrained.py",
    "vwsdlib/language/corpus.py",
    "vwsdlib/language/definitions.py",
    "vwsdlib/language/wsd_baselines.py",
    "polclip/backbone.py",
    "polclip/config.py",
    "polclip/evaluate.py",
    "polclip/losses.py",
    "polclip/model.py",
    "polclip/packing.py",
    "polclip/paper.py",
    "polclip/published.py",
    "polclip/train.py",
]


def public(node: ast.AST, name: str, told: str = "") -> Iterator[tuple[str, ast.AST, str]]:
    """(dotted name, node, docstrings of what it stands in) of each public class, function and
    method.
    """
    told += ast.get_docstring(node) or ""
    for its in node.body:
        if isinstance(its, (ast.FunctionDef, ast.ClassDef)) and not its.name.startswith("_"):
            yield f"{name}.{its.name}", its, told
            if isinstance(its, ast.ClassDef):
                yield from public(its, f"{name}.{its.name}", told)


def raises(node: ast.FunctionDef) -> bool:
    return any(
        isinstance(its, ast.Raise) and its.exc and "VwsdError" in ast.unparse(its.exc)
        for its in ast.walk(node)
    )


def arrays(node: ast.FunctionDef) -> bool:
    arguments = [*node.args.args, *node.args.kwonlyargs]
    return any(
        ARRAY.fullmatch(ast.unparse(its))
        for its in (*(a.annotation for a in arguments), node.returns)
        if its
    )


def decorators(node: ast.AST) -> set[str]:
    return {re.match(r"\w+", ast.unparse(its)).group() for its in node.decorator_list}


def wanting(source: str, name: str = "module") -> list[str]:
    """What the docstrings of a module's public names leave out."""
    tree, found = ast.parse(source), []
    if source.strip() and not ast.get_docstring(tree):
        found.append(f"{name}: no docstring")
    for its_name, node, told in public(tree, name):
        text = ast.get_docstring(node) or ""
        if not text:
            found.append(f"{its_name}: no docstring")
        elif not text.splitlines()[0].rstrip().endswith((".", ":", "!", "?")) and "." not in text:
            found.append(f"{its_name}: no sentence")
        if isinstance(node, ast.ClassDef):
            continue
        if (
            raises(node)
            and not re.search(r"VwsdError|refus", text)
            and not decorators(node) & {*TOLD_ELSEWHERE}
        ):
            found.append(f"{its_name}: raises, and does not say so")
        if arrays(node) and "[" not in text + told:
            found.append(f"{its_name}: an array without its shape")
        if (
            node.returns
            and ast.unparse(node.returns) in ("float", "tuple[float, float]")
            and not UNIT.search(text)
        ):
            found.append(f"{its_name}: a number without its unit")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_public_names_explain_themselves(path):
    assert wanting(path.read_text(encoding="utf-8"), path.stem) == []


def test_the_rules_can_fail():
    source = '''def a(): pass
def b(x: np.ndarray):
    """Of x."""
def c():
    """Nothing."""
    raise VwsdError("no")
def d() -> float:
    """A number."""
class E:
    """[n, 3] each."""
    def f(self, x: Tensor | None): "Of x."
    def _g(self): pass
@command(_h)
def h():
    """Do."""
    raise VwsdError("no")
'''
    said = [
        "module: no docstring",
        "module.a: no docstring",
        "module.b: an array without its shape",
        "module.c: raises, and does not say so",
        "module.d: a number without its unit",
    ]
    assert wanting(source) == said


@pytest.mark.parametrize("name", FROM_PAPERS)
def test_what_comes_from_a_paper_names_it(name):
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    assert any(
        SOURCE.search(text)
        for text in [
            ast.get_docstring(tree) or "",
            *(ast.get_docstring(node) or "" for _, node, _ in public(tree, name)),
        ]
    )


# ---------------------------------------------------------------- the reference


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Folder of the pages that `make reference` writes; the command is the Makefile's own."""
    pytest.importorskip("pdoc", reason="pdoc is not installed (pip install 'vwsdlib[dev]')")
    quiet, recipe = re.search(
        r"^reference:.*\n\t@PYTHONWARNINGS='(.*)' \$\(BIN\)/(pdoc .*)$",
        (ROOT / "Makefile").read_text(),
        re.M,
    ).groups()
    assert recipe.endswith(" $(CODE)")
    folder = tmp_path_factory.mktemp("reference")
    made = subprocess.run(
        [
            sys.executable,
            "-m",
            *recipe.replace("docs/reference", str(folder)).split()[:-1],
            *PACKAGES,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONWARNINGS": quiet},
    )
    assert made.returncode == 0 and "Warn" not in made.stderr, made.stderr[-2000:]
    return folder


def modules() -> dict[str, Path]:
    """Dotted name -> file of each module that has a page: no commands' entry, no private ones."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in SOURCES}
    return {
        name.removesuffix(".__init__"): path
        for name, path in names.items()
        if not name.endswith(".__main__")
    }


def test_the_reference_has_a_page_a_module_with_every_public_name(reference):
    pages = {
        ".".join(page.relative_to(reference).with_suffix("").parts): page.read_text(
            encoding="utf-8"
        )
        for page in reference.rglob("*.html")
    }
    for name, path in modules().items():
        its = [
            node.name
            for dotted, node, _ in public(ast.parse(path.read_text(encoding="utf-8")), name)
            if "." not in dotted.removeprefix(f"{name}.")
        ]
        assert name in pages and [one for one in its if f'id="{one}"' not in pages[name]] == []


def test_the_reference_asks_nobody(reference):
    for page in reference.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert (
            re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//[^"]+', text)
            == []
        ), page.name
