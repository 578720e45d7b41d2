"""Pictures in folders, behind URLs and in tar shards are the same pictures."""

import tarfile

import fsspec
import numpy as np
import pytest
from PIL import Image

from vwsdlib.data.pictures import load_picture
from vwsdlib.data.sources import picture_names, pictures_at, remote, stamp
from vwsdlib.encoders.control import RandomEncoder
from vwsdlib.encoders.store import VectorStore
from vwsdlib.errors import VwsdError

NAMES = [f"image.{i}.png" for i in range(6)]


@pytest.fixture
def folder(tmp_path):
    """Six pictures as files, in `memory://set` and in two shards with their texts."""
    (tmp_path / "images").mkdir()
    memory = fsspec.filesystem("memory")
    for i, name in enumerate(NAMES):
        Image.new("RGB", (4, 5), (i, 2 * i, 3 * i)).save(tmp_path / "images" / name)
        memory.pipe(f"/set/{name}", (tmp_path / "images" / name).read_bytes())
    (tmp_path / "0.txt").write_text("a caption")
    for shard in range(2):
        with tarfile.open(tmp_path / f"train-{shard}.tar", "w") as tar:
            for name in NAMES[shard::2]:
                tar.add(tmp_path / "images" / name, f"some/{name}")
            tar.add(tmp_path / "0.txt", f"{shard}.txt")
    yield tmp_path
    memory.rm("/set", recursive=True)


KINDS = {"folder": lambda f: f / "images", "url": lambda f: "memory://set", "shards": lambda f: f / "train-*.tar", "shards at a url": lambda f: f"file://{f}/train-*.tar"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_pictures_wherever_they_lie(folder, kind):
    at = pictures_at(KINDS[kind](folder))
    assert picture_names(at) == set(NAMES)
    for name in NAMES:
        assert load_picture(at / name).sha256 == load_picture(folder / "images" / name).sha256
    store = VectorStore(RandomEncoder(), folder / "v")
    assert np.array_equal(store.images([at / n for n in NAMES]), VectorStore(RandomEncoder(), folder / "w").images([folder / "images" / n for n in NAMES]))
    assert store.fill_images([at / n for n in NAMES]) == 0


def test_what_was_encoded_in_a_shard_is_known_in_the_folder(folder):
    store = VectorStore(RandomEncoder(), folder / "v")
    at = pictures_at(folder / "train-*.tar")
    assert list(at.index) == [*NAMES[::2], *NAMES[1::2]]                       # shard by shard
    assert store.fill_images([at / n for n in NAMES]) == 6
    store.fill_images([folder / "images" / n for n in NAMES])
    assert len(store._rows._index) == 6


def test_a_changed_shard_is_read_again(folder):
    at = pictures_at(folder / "train-*.tar") / NAMES[0]
    before = stamp(at)
    with tarfile.open(folder / "train-0.tar", "a") as tar:
        tar.add(folder / "0.txt", "another.txt")
    assert remote(at) and stamp(at) != before


@pytest.mark.parametrize("place, said", [("no/such/folder", "no such folder"), ("none-*.tar", "no shard"), ("memory://nowhere", "cannot be read"),
                                         ("nothing://here", "Protocol not known")])
def test_what_is_not_there_is_named(tmp_path, monkeypatch, place, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VwsdError, match=said) as e:
        picture_names(pictures_at(place)) or (pictures_at(place) / "a")
    assert place in str(e.value)


def test_members_that_are_missing_or_twice_there(folder):
    at = pictures_at(folder / "train-*.tar")
    with pytest.raises(VwsdError, match="image.9.png is in no shard"):
        at / "image.9.png"
    with pytest.raises(VwsdError, match="cannot be read"):
        load_picture(f"tar://image.9.png::{folder}/train-0.tar")
    with tarfile.open(folder / "train-2.tar", "w") as tar:
        tar.add(folder / "images" / NAMES[0], NAMES[0])
    with pytest.raises(VwsdError, match="1 names stand in more than one place"):
        picture_names(pictures_at(folder / "train-*.tar"))
