"""`pip install .` alone: an environment of its own with the four packages that every command may
use, and no torch.
"""

import subprocess
import venv
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

import pytest

from vwsd_companion.cli import COMMANDS
from vwsdlib.paths import PACKAGE, PACKAGES

DEPENDENCIES = ("numpy", "pillow", "pyyaml", "tqdm")
DATA = "bat\tfruit bat\t" + "\t".join(f"image.{i}.jpg" for i in range(10)) + "\n"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Runs `python -m vwsd_companion.cli` where the package's own dependencies alone are there."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    for name in DEPENDENCIES:
        its = distribution(name)
        for top in {
            file.parts[0] for file in its.files if file.parts[0] not in ("..", "__pycache__")
        }:
            (site / top).symlink_to(Path(its.locate_file(top)))
    for package in PACKAGES:
        (site / package).symlink_to(PACKAGE.parent / package)
    return lambda *arguments: subprocess.run(
        [folder / "bin" / "python", "-P", "-m", "vwsd_companion.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
        env={"PATH": "", "VWSD_CACHE": str(folder / "cache")},
    )


@pytest.fixture
def files(tmp_path):
    (tmp_path / "data.txt").write_text(DATA)
    (tmp_path / "gold.txt").write_text("image.3.jpg\n")
    (tmp_path / "mine.tsv").write_text(
        "\t".join(["image.3.jpg", *(f"image.{i}.jpg" for i in range(10) if i != 3)]) + "\n"
    )
    return tmp_path


def test_what_is_declared_is_what_is_there(bare):
    import tomllib

    declared = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"][
        "dependencies"
    ]
    assert tuple(requirement.split(">")[0].lower() for requirement in declared) == DEPENDENCIES
    assert find_spec("torch"), (
        "here torch is installed, there it is not: else this file would show nothing"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(bare, name):
    said = bare(name, "--help")
    assert said.returncode == 0 and "example:" in said.stdout, said.stderr


def test_scores_and_audits(bare, files):
    data = ("--data", files / "data.txt", "--gold", files / "gold.txt")
    scored, audited = bare("score", *data, files / "mine.tsv"), bare("audit", *data)
    assert scored.returncode == audited.returncode == 0, scored.stderr + audited.stderr
    assert "1/1" in scored.stdout and "most_frequent" in audited.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("run", "--profile", "demo"),
        ("run", "--profile", "paper", "--plan"),
        ("rank", "bat", "x.jpg", "--encoder", "lite"),
        ("report",),
        ("fetch", "demo"),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(bare, command):
    said = bare(*command)
    assert (
        said.returncode == 2 and "vwsdlib[demo]" in said.stderr and "Traceback" not in said.stderr
    ), said.stderr
