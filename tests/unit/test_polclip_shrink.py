"""Small pictures: sizes, what cannot be read, going on, what is refused before it is touched."""

import numpy as np
import pytest
from PIL import Image

from polclip import shrink as module
from polclip.shrink import NOTE, shrink
from vwsd_companion import cli
from vwsdlib.errors import VwsdError


@pytest.fixture
def originals(tmp_path):
    """Four pictures and two files that are none."""
    folder, dice = tmp_path / "originals", np.random.default_rng(0)
    folder.mkdir()
    for name, size in {"wide.PNG": (90, 60), "tall.jpg": (40, 400), "tiny.webp": (9, 12)}.items():
        pixels = dice.integers(0, 255, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    turned = Image.new("RGB", (60, 30))
    exif = turned.getexif()
    exif[0x0112] = 6  # stands on its side
    turned.save(folder / "turned.jpg", exif=exif)
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "readme.txt").write_text("none either")
    return folder


def test_the_shorter_side_is_small_and_nothing_is_enlarged(originals, tmp_path):
    made = shrink(originals, tmp_path / "small", side=20, workers=2)
    sizes = {}
    for path in (tmp_path / "small").glob("*.jpg"):
        sizes[path.stem] = Image.open(path).size
    expected = {"wide": (30, 20), "tall": (20, 200), "tiny": (9, 12), "turned": (20, 40)}
    assert sizes == expected
    assert (made.written, made.there, made.unread) == (4, 0, ["broken.jpg"])
    assert made.bytes == sum(path.stat().st_size for path in (tmp_path / "small").glob("*.jpg"))


def test_a_second_run_goes_on_and_overwrites_nothing(originals, tmp_path):
    small = tmp_path / "small"
    shrink(originals, small, side=20)
    (small / "tall.jpg").unlink()
    (small / "wide.jpg").write_bytes(b"somebody's own")
    made = shrink(originals, small, side=20)
    assert (made.written, made.there) == (1, 3)
    assert (small / "wide.jpg").read_bytes() == b"somebody's own"
    with pytest.raises(VwsdError, match="shorter side of 20 pixels, not 32"):
        shrink(originals, small, side=32)


def test_what_would_destroy_is_refused_before_anything_is_written(originals, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    for target in (originals, originals / "small", tmp_path, other):
        with pytest.raises(VwsdError):
            shrink(originals, target)
        assert not (target / NOTE).exists()
    with pytest.raises(VwsdError, match="no pictures"):
        shrink(other, tmp_path / "small")
    Image.new("RGB", (9, 9)).save(originals / "wide.jpg")
    with pytest.raises(VwsdError, match="would both become wide.jpg"):
        shrink(originals, tmp_path / "small")


def test_a_disk_that_is_too_small_is_said_by_the_size_of_what_is_done(
    originals, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "TOGETHER", 2)
    monkeypatch.setattr(module, "free_gb", lambda folder: 1e-9)
    with pytest.raises(VwsdError, match="pictures that are left take about"):
        shrink(originals, tmp_path / "small", side=20)
    monkeypatch.undo()
    assert shrink(originals, tmp_path / "small", side=20).there > 0


def test_the_command(originals, tmp_path, capsys):
    small = tmp_path / "small"
    command = ["convert", "small", str(originals), str(small), "--side", "20", "--workers", "1"]
    assert cli.main(command) == 0
    assert "4 pictures written" in capsys.readouterr().out
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "0 pictures written" in said and "4 were there; 1 cannot be read, broken.jpg" in said
    assert cli.main([*command[:4], "--kind", "raw"]) == 2
    assert cli.main(["convert", "shards", "a", "b", "--side", "20"]) == 2
