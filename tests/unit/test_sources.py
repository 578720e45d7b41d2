"""Pictures in folders, behind URLs and in archives are the same pictures, found by one rule; what
is none is left out, counted and named.
"""

import gzip
import os
import tarfile
import time
import unicodedata
import zipfile

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vwsdlib.data import places
from vwsdlib.data.items import Item, missing_pictures
from vwsdlib.data.kinds import HEAD, kind_of
from vwsdlib.data.pictures import load_picture
from vwsdlib.data.sources import (
    count_pictures,
    lasting,
    picture_names,
    pictures_at,
    pictures_named,
    remote,
    stamp,
)
from vwsdlib.encoders.control import RandomEncoder
from vwsdlib.encoders.store import VectorStore
from vwsdlib.errors import VwsdError

NAMES = [f"image.{i}.png" for i in range(6)]


@pytest.fixture
def folder(tmp_path):
    """Six pictures as files, in `memory://set`, in two shards with their texts, in a compressed tar
    and in a zip.
    """
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
        memory.pipe(f"/shards/train-{shard}.tar", (tmp_path / f"train-{shard}.tar").read_bytes())
    with (
        tarfile.open(tmp_path / "all.tar.gz", "w:gz") as tar,
        zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in NAMES:
            tar.add(tmp_path / "images" / name, f"some/{name}")
            packed.write(tmp_path / "images" / name, f"some/{name}")
    yield tmp_path
    memory.rm("/set", recursive=True)
    memory.rm("/shards", recursive=True)


KINDS = {
    "folder": lambda f: f / "images",
    "url": lambda f: "memory://set",
    "shards": lambda f: f / "train-*.tar",
    "shards by file://": lambda f: f"file://{f}/train-*.tar",
    "shards at a url": lambda f: "memory://shards/train-*.tar",
    "compressed tar": lambda f: f / "all.tar.gz",
    "zip": lambda f: f / "all.zip",
    "zip by its url": lambda f: f"zip://::{f}/all.zip",
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_pictures_wherever_they_lie(folder, kind):
    at = pictures_at(KINDS[kind](folder))
    assert {path.rpartition("/")[2] for path in at.names()} == set(NAMES) and len(at.pictures) == 6
    for name in NAMES:
        assert load_picture(at / name).sha256 == load_picture(folder / "images" / name).sha256
    assert at.find("image.9.png") is None and at.find("mage.1.png") is None
    store = VectorStore(RandomEncoder(), folder / "v")
    assert np.array_equal(
        store.images([at / n for n in NAMES]),
        VectorStore(RandomEncoder(), folder / "w").images([folder / "images" / n for n in NAMES]),
    )
    assert store.fill_images([at / n for n in NAMES]) == 0


def test_what_was_encoded_in_a_shard_is_known_in_the_folder(folder):
    store = VectorStore(RandomEncoder(), folder / "v")
    at = pictures_at(folder / "train-*.tar")
    assert [entry.path for entry in at.pictures] == [
        f"some/{name}" for name in (*NAMES[::2], *NAMES[1::2])
    ]  # shard by shard
    assert store.fill_images([at / n for n in NAMES]) == 6
    store.fill_images([folder / "images" / n for n in NAMES])
    assert len(store.rows) == 6


def test_a_changed_archive_is_read_again(folder):
    at = pictures_at(folder / "train-*.tar") / NAMES[0]
    before = stamp(at)
    with tarfile.open(folder / "train-0.tar", "a") as tar:
        tar.add(folder / "0.txt", "another.txt")
    assert remote(at) and stamp(at) != before


@pytest.mark.parametrize(
    "place, said",
    [
        ("no/such/folder", "no such folder"),
        ("none-*.tar", "no shard"),
        ("none.tar", "no such archive"),
        ("memory://nowhere", "cannot be read"),
        ("nothing://here", "Protocol not known"),
    ],
)
def test_what_is_not_there_is_named(tmp_path, monkeypatch, place, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VwsdError, match=said) as e:
        picture_names(pictures_at(place)) or (pictures_at(place) / "a")
    assert place in str(e.value)


def test_members_that_are_missing_or_twice_there(folder):
    at = pictures_at(folder / "train-*.tar")
    with pytest.raises(VwsdError, match="image.9.png is not there"):
        at / "image.9.png"
    with pytest.raises(VwsdError, match="IMAGE.1.png is not there.*some/image.1.png is there"):
        at / "IMAGE.1.png"
    with pytest.raises(VwsdError, match="cannot be read"):
        load_picture(f"tar://image.9.png::{folder}/train-0.tar")
    with tarfile.open(folder / "train-2.tar", "w") as tar:
        tar.add(folder / "images" / NAMES[0], f"more/{NAMES[0]}")  # once more, the same bytes
        tar.add(
            folder / "images" / NAMES[1], f"more/{NAMES[2]}"
        )  # another picture under a name that is taken
    at = pictures_at(folder / "train-*.tar")
    assert load_picture(at / NAMES[0]).sha256 == load_picture(folder / "images" / NAMES[0]).sha256
    assert at / NAMES[1] and len(at.pictures) == 8  # who does not ask for it is not stopped
    with pytest.raises(
        VwsdError, match=r"image.2.png stands in 2 places with different pictures: .*more"
    ):
        at / NAMES[2]


# ---------------------------------------------------------------- one rule for names


@pytest.fixture
def odd(tmp_path):
    """A folder with everything that a folder can hold."""
    top = tmp_path / "photos"
    (top / "a" / "b").mkdir(parents=True)
    (top / "__MACOSX").mkdir()
    for i, path in enumerate(
        (
            "top.jpg",
            "a/deep.jfif",
            "a/b/deeper",
            ".hidden.png",
            "a/same.png",
            "__MACOSX/top.jpg",
            "._top.jpg",
        )
    ):
        Image.new("RGB", (5, 5), (i * 30, 0, 0)).save(
            top / path, "JPEG" if path.endswith(("jpg", "jfif", "deeper")) else "PNG"
        )
    (top / "notes.txt").write_text("no picture")
    (top / "page.jpg").write_text("<!DOCTYPE html><html>not found</html>")
    (top / "empty.png").write_bytes(b"")
    os.mkfifo(top / "pipe.jpg")
    (top / "lost.jpg").symlink_to("nowhere")
    (top / "circle.jpg").symlink_to("circle.jpg")
    (top / "round").symlink_to(".")
    (tmp_path / "beside").mkdir()
    Image.new("RGB", (5, 5), "white").save(tmp_path / "beside" / "far.png")
    (top / "linked").symlink_to(tmp_path / "beside")
    return top


def test_a_folder_gives_pictures_by_content_and_says_what_it_leaves_out(odd):
    at = pictures_at(odd)
    assert at.names() == {"top.jpg", "a/deep.jfif", "a/b/deeper", "a/same.png", "linked/far.png"}
    assert at.left_out == {
        "what macOS keeps beside files": ["._top.jpg", "__MACOSX/top.jpg"],
        "links to no file here": ["circle.jpg", "lost.jpg"],
        "no file but a named pipe": ["pipe.jpg"],
        "hidden (the name begins with a dot)": [".hidden.png"],
        "text": ["notes.txt"],
        "a web page": ["page.jpg"],
        "an empty file": ["empty.png"],
    }
    assert (
        at.note().startswith(f"9 files of {odd} are left out: ")
        and "1 a web page (page.jpg)" in at.note()
    )
    assert count_pictures(odd) == 5 and count_pictures(odd / "none") == 0


def test_names_are_found_with_and_without_their_folders(odd):
    at = pictures_at(odd)
    found = {
        name: at.find(name)
        for name in (
            "top.jpg",
            "./top.jpg",
            "deep.jfif",
            "a/deep.jfif",
            "b/deeper",
            "a/b/deeper",
            ".hidden.png",
            "far.png",
            "linked/far.png",
            "round/top.jpg",
        )
    }
    assert (
        all(path.is_file() for path in found.values())
        and found["deep.jfif"] == found["a/deep.jfif"] == odd / "a" / "deep.jfif"
    )
    assert [
        at.find(name)
        for name in (
            "TOP.jpg",
            "._top.jpg",
            "__MACOSX/top.jpg",
            "x/top.jpg",
            "../beside/far.png",
            "a",
            "pipe.jpg",
            "hidden.png",
        )
    ] == [None] * 8
    items = [Item("x.0", "en", "w", "w", ("deeper", "b/deeper", "none.jpg"))]
    assert missing_pictures(items, odd) == {"x.0": ["none.jpg"]} == missing_pictures(items, at)


def packed(folder, path):
    with tarfile.open(path, "w") as tar:
        tar.add(folder, ".", recursive=True)
    return path


def test_a_tar_of_that_folder_gives_the_same(odd, tmp_path):
    at, beside = pictures_at(packed(odd, tmp_path / "p.tar")), pictures_at(odd)
    assert at.names() == beside.names() - {"linked/far.png"}  # a tar holds no folder behind a link
    for name in ("top.jpg", "deep.jfif", "b/deeper", ".hidden.png", "._top.jpg", "none"):
        assert (at.find(name) is None) == (beside.find(name) is None), name
    assert any("pipe" in why for why in at.left_out)


def test_composed_and_decomposed_letters_are_one_name(tmp_path):
    one, other = (unicodedata.normalize(form, "caffè.png") for form in ("NFC", "NFD"))
    Image.new("RGB", (5, 5), "red").save(tmp_path / one)
    assert pictures_at(tmp_path).find(other) == tmp_path / one
    Image.new("RGB", (5, 5), "blue").save(tmp_path / other)
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system keeps one spelling")
    with pytest.raises(VwsdError, match="stands in 2 places with different pictures"):
        pictures_at(tmp_path).find(one)
    (tmp_path / other).write_bytes((tmp_path / one).read_bytes())
    assert pictures_at(tmp_path).find(other)  # the same picture twice is no question


def test_what_stands_right_there_is_taken_and_its_twin_below_told(tmp_path):
    (tmp_path / "small").mkdir()
    Image.new("RGB", (5, 5), "red").save(tmp_path / "p.png")
    Image.new("RGB", (5, 5), "blue").save(tmp_path / "small" / "p.png")
    at = pictures_at(tmp_path)
    assert at.find("p.png") == tmp_path / "p.png" and at.shadowed == {"p.png": "small/p.png"}


def test_what_exists_is_no_pattern(folder):
    (folder / "set [v1]").mkdir()
    for shard in range(2):
        os.rename(folder / f"train-{shard}.tar", folder / "set [v1]" / f"set-{shard}.tar")
    assert len(pictures_at(folder / "set [v1]" / "set-0.tar").pictures) == 3
    assert (
        len(pictures_at(folder / "set [v1]" / "set-*.tar").pictures) == 6
    )  # its brackets are none of the pattern's
    os.rename(folder / "images", folder / "im[a]ges")
    assert len(pictures_at(folder / "im[a]ges").pictures) == 6


def test_single_pictures_out_of_everything(folder, odd):
    found, notes = pictures_named(
        [
            str(folder / "images" / NAMES[0]),
            str(odd),
            str(folder / "all.zip"),
            "https://example.org/a.jpg",
            "memory://set/image.1.png",
            f"file://{folder}/images/image.2.png",
            str(folder / "no.jpg"),
        ]
    )
    assert len(found) == 1 + 5 + 6 + 1 + 1 + 1 + 1 and len(notes) == 1
    assert (
        found[12] == ("https://example.org/a.jpg", "https://example.org/a.jpg")
        and found[1][0] == f"{odd}/a/b/deeper"
    )
    assert load_picture(found[14][1]).sha256 == load_picture(folder / "images" / NAMES[2]).sha256
    (folder / "nothing").mkdir()
    with pytest.raises(VwsdError, match="there are no pictures"):
        pictures_named([str(folder / "nothing")])


# ---------------------------------------------------------------- archives that are none, cut or
# damaged


def whole(folder):
    return (folder / "train-0.tar").read_bytes()


CUTS = {
    "within a picture": lambda data: data[:700],
    "within a header": lambda data: data[:1100],
    "between members": lambda data: data[:1024],
    "without its end mark": (
        lambda data: data.rstrip(b"\0") + b"\0" * (-len(data.rstrip(b"\0")) % 512)
    ),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("squeezed", [False, True])
def test_a_tar_cut_short_is_refused(folder, cut, squeezed):
    data = CUTS[cut](whole(folder))
    (folder / "cut.tar").write_bytes(gzip.compress(data, mtime=0) if squeezed else data)
    with pytest.raises(VwsdError, match="cut short|damaged") as e:
        pictures_at(folder / "cut.tar").pictures
    assert "cut.tar" in e.value.where and e.value.remedy


@pytest.mark.parametrize(
    "name, data, said",
    [
        ("a.tar", b"", "empty file"),
        ("a.tar", b"just text\n" * 200, "no archive: the file is text"),
        ("a.zip", b"PK\3\4 and no more", "cut short or damaged"),
        ("a.tgz", gzip.compress(b"no tar in here" * 100, mtime=0)[:30], "cut short or damaged"),
        ("a.tgz", gzip.compress(b"no tar in here" * 100, mtime=0), "cut short or damaged"),
        ("a.tar.zst", b"\x28\xb5\x2f\xfd" + b"\0" * 50, "Zstandard"),
    ],
)
def test_what_is_no_archive_is_named(tmp_path, name, data, said):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(VwsdError, match=said):
        pictures_at(tmp_path / name).pictures


def test_damage_inside_and_joined_archives_are_seen(folder):
    data = bytearray(whole(folder))
    data[1024] ^= 255  # the second member's header
    (folder / "bad.tar").write_bytes(data)
    with pytest.raises(VwsdError, match="damaged"):
        pictures_at(folder / "bad.tar").pictures
    (folder / "joined.tar").write_bytes(whole(folder) + (folder / "train-1.tar").read_bytes())
    with pytest.raises(VwsdError, match="joined"):
        pictures_at(folder / "joined.tar").pictures


def test_an_empty_archive_has_no_pictures_and_links_inside_one_are_resolved(folder):
    tarfile.open(folder / "empty.tar", "w").close()
    assert pictures_at(folder / "empty.tar").pictures == [] and "no pictures" in str(
        pictures_at(folder / "empty.tar").none_here()
    )
    with tarfile.open(folder / "links.tar", "w") as tar:
        tar.add(folder / "images" / NAMES[0], "x/a.png")
        for name, kind, target in (
            ("x/hard.png", tarfile.LNKTYPE, "x/a.png"),
            ("soft.png", tarfile.SYMTYPE, "x/a.png"),
            ("out.png", tarfile.SYMTYPE, "/etc/passwd"),
            ("pipe.png", tarfile.FIFOTYPE, ""),
            ("dev.png", tarfile.CHRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    at = pictures_at(folder / "links.tar")
    assert (
        at.names() == {"x/a.png", "x/hard.png", "soft.png"}
        and sum(map(len, at.left_out.values())) == 3
    )
    assert load_picture(at / "hard.png").sha256 == load_picture(folder / "images" / NAMES[0]).sha256


def test_a_member_too_large_for_a_picture_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "MOST_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as packed_file:
        packed_file.writestr("a.png", b"\x89PNG\r\n\x1a\n" + bytes(100_000))
    at = pictures_at(tmp_path / "bomb.zip")
    with pytest.raises(VwsdError, match="more than a picture may have"):
        load_picture(at / "a.png")
    (tmp_path / "large.png").write_bytes(bytes(2000))
    with pytest.raises(VwsdError, match="more than a picture may have"):
        load_picture(tmp_path / "large.png")


def test_a_pipe_is_never_opened(odd):
    with pytest.raises(VwsdError, match="a named pipe, which is not opened"):
        load_picture(odd / "pipe.jpg")
    with pytest.raises(VwsdError, match="a named pipe, which is not opened"):
        pictures_at(odd / "pipe.jpg").pictures


# ---------------------------------------------------------------- stamps


def test_a_replaced_file_has_another_stamp_whatever_its_time_says(tmp_path):
    path, other = tmp_path / "p.bmp", tmp_path / "q.bmp"
    path.write_bytes(b"one"), other.write_bytes(b"two")
    before, times = stamp(path), os.stat(path)
    for replace in (lambda: path.write_bytes(b"two"), lambda: os.replace(other, path)):
        replace()
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # touch -r, cp -p
        assert os.stat(path).st_mtime_ns == times.st_mtime_ns and stamp(path) != before


def test_a_file_changed_a_moment_ago_is_not_trusted(tmp_path, monkeypatch):
    path = tmp_path / "p"
    path.write_bytes(b"one")
    assert not lasting(stamp(path)) and stamp(path) != stamp(path)
    now = time.time_ns()
    monkeypatch.setattr(places.time, "time_ns", lambda: now + 3 * 10**9)
    assert lasting(stamp(path)) and stamp(path) == stamp(path)


# ---------------------------------------------------------------- kinds


@pytest.mark.parametrize(
    "format", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "PPM", "MPO"]
)
def test_what_the_loader_reads_is_told_to_be_a_picture(tmp_path, format):
    Image.effect_noise((20, 20), 50).convert("RGB").save(tmp_path / "x", format)
    assert kind_of((tmp_path / "x").read_bytes()[:HEAD]).readable


@pytest.mark.parametrize(
    "format, name",
    [
        ("JPEG2000", "JPEG 2000"),
        ("ICO", "ICO"),
        ("PDF", "PDF"),
        ("EPS", "PostScript"),
        ("DDS", "DDS"),
    ],
)
def test_what_the_loader_does_not_read_is_named(tmp_path, format, name):
    Image.effect_noise((20, 20), 50).convert("RGB").save(tmp_path / "x", format)
    kind = kind_of((tmp_path / "x").read_bytes()[:HEAD])
    assert name in kind.name and not kind.readable and kind.remedy


@pytest.mark.parametrize(
    "head, name",
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "a video"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
        (b"<?xml version='1.0'?>\n<!-- x -->\n<svg xmlns=''/>", "SVG"),
        (b"\n <HTML>", "a web page"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"\0\5\x16\7\0\2", "AppleDouble"),
        (bytes(100), "zeros"),
        (b"", "empty"),
        (b"BM is how this text begins, and goes on", "text"),
        (b"P5 is a postcode", "text"),
        (b"\x93\x01\x02\xff\xfe", "no known"),
    ],
)
def test_kinds_by_their_first_bytes(head, name):
    assert name in kind_of(head).name and not kind_of(head).readable


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=64))
def test_any_bytes_are_of_some_kind(head):
    assert kind_of(head).name


def test_a_zip_that_holds_one_name_twice_with_other_bytes_is_refused(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "twice.zip", "w") as packed,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        for colour in ("red", "blue"):
            Image.new("RGB", (8, 8), colour).save(tmp_path / f"{colour}.png")
            packed.write(tmp_path / f"{colour}.png", "x.png")
    with pytest.raises(VwsdError, match="x.png stands twice in the archive"):
        pictures_at(tmp_path / "twice.zip").names()
