"""The code is formatted, and the rules in pyproject.toml hold; so do the hooks of a commit."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tree import ROOT

from vwsdlib.paths import PACKAGES

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def tool(name: str) -> str:
    """Path of a command of this environment, or any."""
    beside = Path(sys.executable).parent / name
    path = beside if beside.exists() else shutil.which(name)
    if not path:
        pytest.skip(f"{name} is not installed: make tools")
    return str(path)


def run(name: str, *arguments: object, text: str | None = None) -> subprocess.CompletedProcess:
    command = [tool(name), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, input=text)


@pytest.mark.parametrize(
    "folder",
    [
        *PACKAGES,
        "tests",
        "tools",
        "benchmarks",
    ],
)
def test_the_rules_hold(folder):
    done = run("ruff", "check", "--no-cache", "--output-format", "concise", folder)
    assert done.returncode == 0, done.stdout


def test_everything_is_formatted():
    done = run("ruff", "format", "--no-cache", "--check")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "line, rule",
    [
        ("double = lambda x: 2 * x", "E731"),
        ("import os", "F401"),
        ("def f(rows=[]):\n    return rows", "B006"),
        ("def f():\n    rest = 1", "F841"),
        ("def f(x):\n    a, b = x\n    return a", "RUF059"),
        (f"text = '{'x' * 100}'", "E501"),
        ("import sys\nimport os\n\nprint(sys, os)", "I001"),
        ("pairs = [pair for pair in range(3)]\n", "C416"),
    ],
)
def test_a_rule_can_fail(line, rule):
    done = run(
        "ruff",
        "check",
        "--no-cache",
        "--output-format",
        "concise",
        "--stdin-filename",
        "vwsdlib/x.py",
        "-",
        text=line,
    )
    assert done.returncode == 1 and rule in done.stdout


def test_notebooks_are_as_the_hook_leaves_them():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entry = next(hook["entry"] for hook in hooks if hook["id"] == "nbstripout")
    done = run("nbstripout", *entry.split()[1:], "--verify", *NOTEBOOKS)
    assert done.returncode == 0, done.stdout


def test_hooks_fetch_nothing():
    """All are commands of .venv; a repository would be fetched at the first commit."""
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    for hook in repos[0]["hooks"]:
        assert hook["language"] == "system" and hook["entry"].startswith(".venv/bin/")
