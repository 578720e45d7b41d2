"""Shared by all tests: no network, no progress bars, folders of their own; real data where they are
at hand.
"""

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CI", "true")  # quiet bars
os.environ["VWSD_DEVICE"] = "cpu"  # what tests expect are the processor's numbers and steps
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real data (`VWSD_SHARED`, else ../shared/data beside the checkout); skips with the
    reason where there is none.
    """
    folder = Path(os.environ.get("VWSD_SHARED") or ROOT.parent / "shared" / "data")
    if not (folder / "vwsd").is_dir():
        pytest.skip(f"real data not at hand: {folder} (set VWSD_SHARED)")
    return folder


@pytest.fixture(autouse=True)
def no_notebook():
    """A test that begins a notebook (`start`) does not make the facts of the tests after it."""
    yield
    fact = sys.modules.get("vwsd_companion.facts.fact")
    if fact:
        fact._now.clear()


@pytest.fixture
def own_folders(tmp_path, monkeypatch):
    """Results and cache below tmp_path, so that a test leaves the checkout alone."""
    monkeypatch.setenv("VWSD_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("VWSD_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="session")
def emojiwsd():
    """Folder of EmojiWSD, built where it is not."""
    from vwsd_standins.emojiwsd import build

    return build.build()


@pytest.fixture
def official(tmp_path):
    """Writes a small set in the official layout with pictures; returns (data, gold, images) and
    lets tests break them.
    """
    from PIL import Image

    images = tmp_path / "images"
    images.mkdir()
    for i in range(12):
        Image.new("RGB", (32, 24), (i * 20, 255 - i * 20, 90)).save(images / f"image.{i}.png")
    lines, golds = [], []
    for i in range(6):
        names = [f"image.{(i + j) % 12}.png" for j in range(10)]
        lines.append("\t".join([f"word{i}", f"word{i} thing", *names]))
        golds.append(names[i])
    data, gold = tmp_path / "en.toy.data.txt", tmp_path / "en.toy.gold.txt"
    data.write_text("\n".join(lines) + "\n")
    gold.write_text("\n".join(golds) + "\n")
    return data, gold, images


@pytest.fixture(scope="session")
def tiny_results(emojiwsd, tmp_path_factory):
    """Results of a small demo with report and notebooks (site_tiny.py); for the whole session,
    never changed in place.
    """
    import site_tiny

    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VWSD_RESULTS", str(folder))
        site_tiny.write_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_site(tiny_results, tmp_path_factory):
    """The site of `tiny_results`; never changed in place."""
    from vwsd_companion.pipeline import owners
    from vwsd_companion.site import write_site

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VWSD_RESULTS", str(tiny_results))
        return write_site("demo", tmp_path_factory.mktemp("site") / "pages", owners("demo"))
