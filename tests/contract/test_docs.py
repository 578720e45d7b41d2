"""README and docs/ hold: links and anchors, Python that compiles, commands that parse, quotations
that are the library's own words, pages that can be reached.
"""

import argparse
import ast
import re
import shlex
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from tree import ROOT, SOURCES

import vwsdlib
from polclip.config import make_config
from polclip.study import STUDIES
from vwsd_companion import cli, pipeline
from vwsdlib.analysis.scorers import TEXTS
from vwsdlib.encoders import registry
from vwsdlib.encoders.checkpoints import CHECKPOINTS
from vwsdlib.errors import VwsdError
from vwsdlib.language.definitions import DEFINERS
from vwsdlib.language.wsd_baselines import BASELINES

PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
TOY = "vwsdlib/encoders/grey.py"  # what the reader of adding-a-model.md writes
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(text: str) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]+`", "``", FENCE.sub("", text))


# ---------------------------------------------------------------- links


def slugs(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.M)
    plain = [re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in plain}


def links(text: str) -> list[str]:
    return [
        link
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(text))
        if not re.match(r"[a-z]+:", link)
    ]


def broken(page: Path, text: str) -> list[str]:
    """Relative links of a page that lead to no file or to no heading."""
    found = []
    for link in links(text):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if (
            not target.exists()
            or anchor
            and anchor not in slugs(text if target == page else text_of(target))
        ):
            found.append(link)
    return found


@each_page
def test_links_and_anchors_resolve(page):
    assert broken(page, text_of(page)) == []


def test_a_broken_link_would_be_seen():
    page = ROOT / "docs" / "faq.md"
    wrong = (
        "# One two\n[a](none.md) [b](faq.md#nowhere) [c](#one-two) [d](footguns.md#data) [e](#one)"
        " [f](https://example.org/x)"
    )
    assert broken(page, wrong) == ["none.md", "faq.md#nowhere", "#one"]


def reachable(start: Path) -> set[Path]:
    """Pages that links lead to, from page to page."""
    found, todo = set(), [start]
    while todo:
        page = todo.pop()
        if page not in found and page.suffix == ".md" and page.exists():
            found.add(page)
            todo += [
                (page.parent / link.partition("#")[0]).resolve()
                for link in links(text_of(page))
                if link.partition("#")[0]
            ]
    return found


def test_every_page_is_reached_from_the_readme_and_listed_in_the_index():
    assert set(PAGES) <= reachable(ROOT / "README.md")
    index = ROOT / "docs" / "index.md"
    assert {(index.parent / link).resolve() for link in links(text_of(index))} == set(PAGES) - {
        index
    }


@each_page
def test_files_and_tests_that_are_named_exist(page):
    for path in re.findall(
        r"`((?:vwsdlib|tests|notebooks|docs|results|benchmarks)/[\w./-]+\.(?:py|yml|md|json))(?:`|::)",
        text_of(page),
    ):
        assert path == TOY or (ROOT / path).exists(), path
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text_of(page)):
        assert re.search(rf"^def {name}\(", text_of(ROOT / path), re.M), name


# ---------------------------------------------------------------- code


@each_page
def test_python_compiles(page):
    for kind, block in FENCE.findall(text_of(page)):
        if kind == "python":
            compile(block, page.name, "exec")


@cache
def parsers() -> dict[str, argparse.ArgumentParser]:
    """Subcommand -> its parser."""
    return next(
        a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction)
    ).choices


def block_commands(text: str) -> list[str]:
    """`vwsd ...` lines in fences and indented blocks, also behind torchrun and the like; those with
    dots in place of arguments are left out.
    """
    lines = [
        line
        for kind, block in FENCE.findall(text)
        if kind != "python"
        for line in block.splitlines()
    ]
    lines += [line for line in FENCE.sub("", text).splitlines() if line.startswith("    ")]
    found = [
        re.search(r"(?:^|\s)(vwsd (?!\w[\w-]*: ).*)", line)
        for line in lines
        if not re.search(r"\.\.\.", line.split("#")[0])
    ]
    return [match[1] for match in found if match]


def inline_commands(text: str) -> list[str]:
    return re.findall(r"`(?:[A-Z_]+=\w* )?(vwsd [^`]+)`", FENCE.sub("", text))


def spelled_out(line: str) -> str:
    """A command with its options out of their brackets."""
    return re.sub(r"\[(--[^\]]*)\]", r"\1", line)


def parsed(line: str):
    """What the real parser makes of a command line; ValueError where it refuses."""
    words = shlex.split(spelled_out(line), comments=True)[1:]
    try:
        return cli.parser().parse_args(words)
    except SystemExit as e:
        if e.code:
            raise ValueError(line) from None


def unknown_names(o) -> list[str]:
    """Names in a parsed command that no table has: profiles, notebooks, parameters, encoders,
    checkpoints.
    """
    try:
        if o.command == "run":
            pipeline.plan(
                o.profile, o.only, o.start_from, settings=pipeline.parse_settings(o.settings)
            )
        elif getattr(o, "profile", None) not in pipeline.read_pipeline()["profiles"] | {
            "mine": {},
            None: {},  # of `vwsd fetch` without --profile
        }:
            return [o.profile]
        if o.command == "train":
            make_config(o.preset, **pipeline.parse_settings(o.settings))
        if getattr(o, "encoder", "grey") != "grey":  # the toy of adding-a-model.md
            registry.entry(o.encoder)
    except VwsdError as e:
        return [str(e)]
    named = {
        "fetch": ("only", CHECKPOINTS),
        "evaluate": ("text", TEXTS),
        "wsd": ("method", BASELINES),
        "define": ("definer", DEFINERS),
        "train": ("study", STUDIES),
    }
    option, table = named.get(o.command, ("", ()))
    given = getattr(o, option, None) or ()
    wrong = [name for name in ([given] if isinstance(given, str) else given) if name not in table]
    return wrong + ([str(o.out)] if o.command == "define" and o.out.suffix != ".jsonl" else [])


def strange_words(line: str) -> list[str]:
    """What is no command, no option of it or none of its choices, in a command that may lack
    arguments or stand in brackets.
    """
    words = shlex.split(spelled_out(line), comments=True)[1:]
    if words and words[0] == "COMMAND":
        return []
    if not words or words[0] not in parsers():
        return words[:1]
    options = parsers()[words[0]]._option_string_actions
    found = [w for w in words[1:] if w.startswith("-") and w not in options]
    chosen = [(options[a], b) for a, b in pairwise(words[1:]) if a in options]
    places = [a for a in parsers()[words[0]]._actions if not a.option_strings and a.choices]
    if places and len(words) > 1 and not words[1].startswith("-"):
        chosen.append((places[0], words[1]))
    return found + [
        value
        for action, value in chosen
        if action.choices and value not in action.choices and not value.startswith("-")
    ]


@each_page
def test_commands_parse(page):
    for line in block_commands(text_of(page)):
        o = parsed(line)
        assert strange_words(line) == [] and (o is None or unknown_names(o) == []), line
    for line in inline_commands(text_of(page)):
        assert strange_words(line) == [], line


def test_there_are_commands_to_look_at():
    assert (
        len(block_commands(text_of(ROOT / "README.md"))) >= 15
        and len(inline_commands(text_of(ROOT / "README.md"))) >= 5
    )


@pytest.mark.parametrize(
    "line",
    [
        "vwsd scor --data a --gold b c",
        "vwsd score --data a --gold b",
        "vwsd fetch vwsd --split dev",
        "vwsd fetch model",
        "vwsd status --json yes",
    ],
)
def test_a_wrong_command_would_be_seen(line):
    assert block_commands(f"```\n{line}\n```") == [line]
    with pytest.raises(ValueError):
        parsed(line)


@pytest.mark.parametrize(
    "line",
    [
        "vwsd run --set encodr=lite",
        "vwsd run --only 02_clip",
        "vwsd run --profile papers",
        "vwsd status --profile papers",
        "vwsd fetch models --only clip-b32",
        "vwsd encode DIR --encoder lit",
        "vwsd evaluate --data a --gold b --images d --text prompt",
        "vwsd define --data D --definer lesk --out F",
        "vwsd define --data D --definer leks --out f.jsonl",
        "vwsd train --records r --out d --set sense=3",
        "vwsd wsd --data x --method first",
    ],
)
def test_a_wrong_name_in_a_command_would_be_seen(line):
    assert unknown_names(parsed(line))


@pytest.mark.parametrize(
    "line, words",
    [
        ("vwsd rnu", ["rnu"]),
        ("vwsd run [--onyl NOTEBOOK]", ["--onyl"]),
        ("vwsd evaluate --imag d", ["--imag"]),
        ("vwsd fetch vwsd --split dev", ["dev"]),
        ("vwsd fetch vwsd --from DIR", []),
    ],
)
def test_a_wrong_word_in_passing_would_be_seen(line, words):
    assert strange_words(line) == words


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_has_an_example_that_parses(name):
    lines = [
        line.strip()
        for line in parsers()[name].epilog.removeprefix("example:").splitlines()
        if line.strip()
    ]
    assert lines
    for line in lines:
        words = re.sub(r"^.*?(vwsd|-m vwsdlib\.cli)(?= )", "vwsd", line)
        o = parsed(words)
        assert o.command == name and unknown_names(o) == []


def test_a_command_without_an_example_would_be_seen(monkeypatch):
    def bare(o):
        """Does something."""

    monkeypatch.setitem(cli.COMMANDS, "bare", bare)
    epilog = (
        next(a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
        .choices["bare"]
        .epilog
    )
    assert not epilog.removeprefix("example:").strip()


# ---------------------------------------------------------------- quotations of errors


def template(node: ast.AST) -> str:
    """A string of the sources with a mark for each part that is filled in."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in parts)


@cache
def templates() -> tuple[str, ...]:
    """All strings of the library but its docstrings."""
    found = []
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        doc = {
            id(n.value)
            for n in ast.walk(tree)
            if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)
        }
        found += [
            template(n)
            for n in ast.walk(tree)
            if isinstance(n, (ast.JoinedStr, ast.Constant))
            and id(n) not in doc
            and (isinstance(n, ast.JoinedStr) or isinstance(n.value, str))
        ]
    return tuple(found)


def quoted(text: str) -> list[str]:
    """First cells of the tables whose words are ours."""
    ours = text.partition("## Words that are not ours")[0]
    return re.findall(r"^\| `([^`]+)`", ours, re.M)


def said(message: str, of: tuple[str, ...]) -> bool:
    """Is the message, whose dots stand for anything, a part of a template, or a template with some
    of its blanks filled in?
    """
    wanted, fits = re.compile(blanks(message)), [t for t in of if len(re.sub(r"[\W_]", "", t)) >= 7]
    return any(wanted.search(t) for t in of) or any(re.fullmatch(blanks(t), message) for t in fits)


def blanks(text: str) -> str:
    """A pattern in which a mark stands for anything."""
    return ".+?".join(map(re.escape, text.split("…")))


MESSAGES = quoted(text_of(ROOT / "docs" / "troubleshooting.md"))


@pytest.mark.parametrize("message", MESSAGES)
def test_a_quoted_error_is_the_librarys(message):
    assert said(message, templates())


def test_errors_are_quoted_once_and_in_number():
    assert len(MESSAGES) == len(set(MESSAGES)) >= 60


@pytest.mark.parametrize(
    "message",
    ["… gold line for … items", "the checkpoint … is nowhere", "unknown parametre", "disk full"],
)
def test_an_error_that_nobody_raises_would_be_seen(message):
    assert not said(message, templates())


def variables() -> set[str]:
    """Variables of the environment that the library speaks of, but those that the runner sets
    itself.
    """
    return {name for t in templates() for name in re.findall(r"\bVWSD_[A-Z]+(?:_[A-Z]+)?\b", t)} - {
        "VWSD_STAGING",
        "VWSD_NOTEBOOK",
        "VWSD_PROGRESS",
    }


def test_every_variable_of_the_environment_is_explained():
    page = text_of(ROOT / "docs" / "troubleshooting.md").partition(
        "## Variables of the environment"
    )[2]
    told = set(re.findall(r"^\| `(VWSD_\w+)` \|", page, re.M))
    assert told == variables() and len(told) >= 10


# ---------------------------------------------------------------- the changelog


def newest(text: str) -> tuple[str, str]:
    """(version, date) of the first released version."""
    return re.search(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", text, re.M).groups()


def test_the_newest_version_is_the_packages_and_the_citations():
    version, date = newest(text_of(ROOT / "CHANGELOG.md"))
    cited = yaml.safe_load(text_of(ROOT / "CITATION.cff"))
    assert (version, date) == (vwsdlib.__version__, str(cited["date-released"])) and version == str(
        cited["version"]
    )


def test_versions_go_down_and_every_part_has_a_known_heading():
    text = text_of(ROOT / "CHANGELOG.md")
    versions = [
        tuple(map(int, v.split("."))) for v in re.findall(r"^## \[(\d+\.\d+\.\d+)\]", text, re.M)
    ]
    assert versions == sorted(set(versions), reverse=True) and text.index(
        "## [Unreleased]"
    ) < text.index("## [0")
    assert set(re.findall(r"^### (.+)$", text, re.M)) <= {
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    }
    assert newest("## [Unreleased]\n## [1.2.3] - 2027-01-01\n## [1.0.0] - 2026-01-01") == (
        "1.2.3",
        "2027-01-01",
    )
