"""Somebody else's package adds to the registries through entry points; a broken one takes nobody
else down, and a name is given once. In a checkout the project's own need no metadata.
"""

import json
import os
import subprocess
import sys
from importlib import metadata
from importlib.metadata import EntryPoint

import pytest
from tree import ROOT

from vwsd_standins import entries
from vwsdlib import registry
from vwsdlib.encoders.registry import ENCODERS, Entry
from vwsdlib.errors import VwsdError, entry_of
from vwsdlib.registry import Line, Registry

ENTRIES = """
from vwsdlib.data.sets import SetEntry
from vwsdlib.encoders.registry import Entry
from vwsdlib.registry import Line

ENCODERS = {"theirs": Entry("theirs.parts:Grey", "mean brightness", ("en", "de"), "")}
SCORERS = {"theirs": Line("theirs.parts:brightest", "the brightest picture first")}
SETS = {"theirs": SetEntry("theirs.parts:load", "Grey pictures", [("de", "mine")])}
"""
PARTS = """
from pathlib import Path

import numpy as np
from PIL import Image

from vwsdlib.data.items import Item
from vwsdlib.data.sets import VwsdSet


class Grey:
    name, dim, batch_size = "theirs", 2, 8

    def encode_images(self, images):
        angles = np.array([np.asarray(image).mean() / 255 for image in images])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def encode_texts(self, texts):
        return np.array([[1.0, 0.0]] * len(texts), np.float32)  # so the darkest is the nearest

    def identity(self):
        return {"model": "grey", "revision": "1", "weights_sha256": "", "processor": "mean",
                "image_variant": "as stored", "dtype": "float32", "device": "cpu"}


def brightest(data, store, texts, missing=None):
    return np.array([store.images([data.path(c) for c in item.candidates])[:, 1]
                     for item in data.items])


def load(language, split):
    images = Path(__file__).with_name("images")
    images.mkdir(exist_ok=True)
    names = tuple(f"image.{i}.png" for i in range(10))
    for i, name in enumerate(names):
        Image.new("RGB", (8, 8), (20 * i,) * 3).save(images / name)
    items = [Item(f"de.mine.{i}", "de", "Schloss", f"Schloss {i}", names[i:] + names[:i], names[9])
             for i in range(3)]
    return VwsdSet("theirs", language, split, tuple(items), images, "nobody")
"""
POINTS = {"vwsdlib.sets": "SETS", "vwsdlib.encoders": "ENCODERS", "vwsdlib.scorers": "SCORERS"}


def package(folder, name, points, **files):
    """A package with metadata of its own, as pip leaves it."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{group}]\n{name} = {name}.entries:{value}\n" for group, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    (folder / name).mkdir()
    for module, text in {"__init__": "", **files}.items():
        (folder / name / f"{module}.py").write_text(text)
    return folder


@pytest.fixture
def vwsd(tmp_path):
    """Runs the command with further folders on the path."""

    def run(*command, path=()):
        there = os.pathsep.join(map(str, [ROOT, *path]))
        environment = {**os.environ, "PYTHONPATH": there, "VWSD_CACHE": str(tmp_path / "cache")}
        return subprocess.run(
            [sys.executable, "-m", "vwsd_companion.cli", *command],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
        )

    return run


@pytest.fixture
def theirs(tmp_path):
    return package(tmp_path / "site", "theirs", POINTS, entries=ENTRIES, parts=PARTS)


def test_a_second_package_adds_an_encoder_a_scorer_and_a_set(vwsd, theirs):
    asked = ("evaluate", "--set", "theirs", "--encoder", "theirs", "--json")
    done = vwsd(*asked, "--scorer", "theirs", path=[theirs])
    [system] = json.loads(done.stdout)["systems"]
    assert (system["file"], system["k"], system["n"]) == ("theirs, theirs", 3, 3), done.stderr
    [system] = json.loads(vwsd(*asked, path=[theirs]).stdout)["systems"]  # cosine: darkest first
    assert (system["file"], system["k"]) == ("theirs", 0)
    without = vwsd(*asked)
    assert without.returncode == 2 and "no encoder named 'theirs'" in without.stderr


def test_a_broken_package_is_told_and_takes_nobody_down(vwsd, theirs, tmp_path):
    other = package(tmp_path / "other", "broken", POINTS, entries="import no_such_package_at_all")
    done = vwsd("evaluate", "--set", "theirs", "--encoder", "theirs", path=[other, theirs])
    assert done.returncode == 0 and "0/3" in done.stdout, done.stderr
    notes = [line for line in done.stderr.splitlines() if "broken" in line]
    said = "of broken are left out (ModuleNotFoundError: No module named 'no_such_package_at_all')"
    assert len(notes) == 3 and all(said in note for note in notes)
    assert "Traceback" not in done.stderr


def test_a_name_is_given_once(vwsd, theirs, tmp_path):
    double = package(tmp_path / "other", "double", POINTS, entries=ENTRIES, parts=PARTS)
    done = vwsd("evaluate", "--set", "theirs", "--encoder", "theirs", path=[theirs, double])
    assert done.returncode == 2 and not done.stdout
    assert "the name 'theirs' is given twice, by " in done.stderr
    assert all(name in done.stderr for name in ("theirs and by double", "Uninstall one"))
    lite = ENTRIES.replace('{"theirs": Entry', '{"lite": Entry')
    own = package(tmp_path / "third", "own", {"vwsdlib.encoders": "ENCODERS"}, entries=lite)
    done = vwsd("evaluate", "--set", "emojiwsd", "--encoder", "random", path=[own])
    assert "the name 'lite' is given twice, by vwsd_standins and by own" in done.stderr


def test_help_and_scores_read_no_entries(tmp_path):
    code = (
        "import sys; from vwsd_companion import cli; cli.parser()\n"
        "heavy = {'torch', 'numpy', 'vwsd_standins.entries', 'importlib.metadata'}\n"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "set()\n", done.stderr


# ---------------------------------------------------------------- the registry itself


@pytest.fixture
def points(monkeypatch):
    """Entry points by hand: the list that a test fills is what every group has."""
    given = []
    monkeypatch.setattr(registry, "entry_points", lambda group: given)
    return given


def test_places_then_the_own_then_in_order(points):
    table = Registry(Line, "vwsdlib.toys", {"b": Line("m:b", "b"), "a": Line("m:a", "a", place=2)})
    points.append(EntryPoint("standins", "vwsd_standins.entries:BACKBONES", "vwsdlib.toys"))
    table["late"] = Line("m:late", "late", place=0)
    assert list(table) == ["a", "b", "lite", "late"] and len(table) == 4 and "none" not in table
    del table["late"]
    assert "late" not in table and table["lite"] is entries.BACKBONES["lite"]


@pytest.mark.parametrize(
    "value, words",
    [
        ("vwsd_standins.entries:BACKBONES", "'lite' is no vwsdlib.encoders.registry.Entry"),
        ("vwsd_standins.entries:NOTHING", "AttributeError"),
        ("vwsd_standins.entries:EN", "is no vwsdlib.encoders.registry.Entry"),
        ("no_such_package:X", "ModuleNotFoundError"),
    ],
)
def test_what_is_no_mapping_of_entries_is_left_out(points, value, words, capsys):
    points.append(EntryPoint("x", value, "vwsdlib.toys"))
    table = Registry(Entry, "vwsdlib.toys", {"own": Entry("m:own", "", ("en",), "")})
    assert list(table) == ["own"]
    said = capsys.readouterr().err
    assert said.startswith("note: vwsdlib.toys of ") and words in said and said.count("\n") == 1


def test_an_entry_calls_its_loader():
    assert Line("json:loads", "")("[1]") == [1] and Line(len, "")([1, 2]) == 2
    assert Line("vwsdlib.registry:resolve:json:loads", "")  # arguments are bound when it is called
    assert Line("operator:concat:ab", "")("c") == "abc"


# ---------------------------------------------------------------- where metadata are missing or old


class Point:
    """An entry point with the distribution that has it."""

    def __init__(self, package):
        self.dist = type("Distribution", (), {"name": package})
        self.name, self.value = package, "x:y"


@pytest.fixture
def installed(monkeypatch):
    """What is installed: this project with old metadata, and another package."""
    there = [Point("vwsdlib"), Point("theirs")]
    monkeypatch.setattr(metadata, "entry_points", lambda group: there)
    registry._checkout.cache_clear()
    yield
    registry._checkout.cache_clear()


def names(group="vwsdlib.encoders"):
    return [(point.name, point.value) for point in registry.entry_points(group)]


def test_a_checkout_outweighs_the_metadata_of_its_installation(installed):
    assert names() == [("standins", "vwsd_standins.entries:ENCODERS"), ("theirs", "x:y")]


@pytest.mark.parametrize("text", [None, "[project]\nname = 'other'\n", "[[[", "[tool]\n"])
def test_elsewhere_the_metadata_are_what_there_is(installed, text, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "PACKAGE", tmp_path / "vwsdlib")
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text)
    assert names() == [("vwsdlib", "x:y"), ("theirs", "x:y")]


def test_a_line_that_names_nothing_is_told_with_its_neighbours():
    with pytest.raises(VwsdError, match="no encoder named 'lit'. Did you mean 'lite'. Encoders: "):
        entry_of("encoder", "lit", ENCODERS)
