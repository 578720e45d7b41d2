"""The rehearsal's data: official sizes with or without the official text, every kind of picture
file, the same bytes each time.
"""

import io
import json
import re
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from vwsd_standins import rehearsal
from vwsd_standins.rehearsal import data
from vwsdlib.data import official, sets
from vwsdlib.data.items import image_names
from vwsdlib.data.pictures import decode
from vwsdlib.encoders.damage import look_for_damage

SMALL = {"test": {"en": (6, 4), "it": (4, 3), "fa": (3, 2)}, "trial": {"en": (2, 2)}}
NAMES = [
    f"image.{i}{suffix}" for i in range(50) for suffix in (".jpg", ".png", ".JPG", ".jpeg", ".PNG")
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("VWSD_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "rehearsal"


@pytest.fixture
def small(home, monkeypatch):
    monkeypatch.setattr(data, "SPLITS", SMALL)
    return home


def lost_of(home):
    """("test", name) of the pictures that are left out on purpose."""
    damaged = data._damaged(home / "vwsd" / "test")
    return {("test", name) for name, kind in damaged.items() if kind == "missing"}


@pytest.fixture
def drawn(monkeypatch):
    """(split, name) of what was drawn, in order; drawing itself is replaced by something cheap."""
    names = []

    def draw(name, seed):
        names.append((seed.partition(":")[0], name))
        return f"{name} {seed}".encode()

    monkeypatch.setattr(data, "picture", draw)
    return names


def everything(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != ".lock"
    }


# ---------------------------------------------------------------------------- made-up text


@pytest.fixture(scope="module")
def made():
    return data.stand_in("test")


def test_the_stand_in_has_the_official_sizes(made):
    assert {
        language: (len(items), len({i.target for i in items})) for language, items in made.items()
    } == {"en": (463, 259), "it": (305, 208), "fa": (200, 154)}
    assert (
        7500 < len(image_names(i for items in made.values() for i in items)) < 8500
        and len(data.stand_in("trial")["en"]) == 16
    )


def test_targets_and_distractors_are_shared_and_golds_are_not(made):
    for items in made.values():
        uses = Counter(c for i in items for c in i.candidates)
        assert (
            all(uses[i.gold] == 1 and len(set(i.candidates)) == 10 for i in items)
            and max(uses.values()) > 1
        )
        again = Counter(i.target for i in items)
        assert sum(n > 1 for n in again.values()) > 40
        first = next(t for t, n in again.items() if n > 1)
        a, b = [set(i.candidates) for i in items if i.target == first][:2]
        assert a & b
        assert all(i.target in i.phrase.split() and i.phrase != i.target for i in items)
    positions = Counter(i.gold_index for items in made.values() for i in items)
    assert min(positions.values()) > 60  # of 968 in ten places


def test_farsi_is_in_arabic_script_and_the_others_are_not(made):
    assert all(re.fullmatch(r"[\u0600-\u06ff ]+", i.phrase) for i in made["fa"])
    assert all(
        re.fullmatch(r"[a-z ]+", i.phrase) for language in ("en", "it") for i in made[language]
    )


def test_suffixes_are_as_mixed_as_the_official_ones(made):
    suffixes = Counter(
        name.rpartition(".")[2] for name in image_names(i for items in made.values() for i in items)
    )
    assert suffixes["jpg"] > 7000 and suffixes["png"] > 150 and {"jpeg", "JPG"} <= set(suffixes)


def test_the_same_seed_gives_the_same_text(made):
    assert data.stand_in("test") == made != data.stand_in("test", seed=1)


# ---------------------------------------------------------------------------- made-up pictures


def test_pictures_come_in_every_kind_and_fit_their_suffix():
    decisions, modes, sides = Counter(), Counter(), []
    for name in NAMES:
        file = data.picture(name)
        image, done = decode(file, name)
        assert Image.open(io.BytesIO(file)).format == (
            "PNG" if name.lower().endswith("png") else "JPEG"
        )
        decisions.update(done)
        modes[Image.open(io.BytesIO(file)).mode] += 1
        sides += image.size
    assert {
        "exif-rotated",
        "grey-to-rgb",
        "cmyk-to-rgb",
        "palette-to-rgb",
        "alpha-over-white",
    } <= set(decisions) and "truncated" not in decisions
    assert {"RGB", "L", "CMYK", "P", "RGBA"} <= set(modes) and min(sides) >= 60
    assert (
        all(side <= 320 or side in (1200, 900) for side in sides)
        and 0 < sum(side == 1200 for side in sides) < 12
    )


def test_pictures_are_the_same_each_time_and_each_another():
    files = [data.picture(name) for name in NAMES[:60]]
    assert files == [data.picture(name) for name in NAMES[:60]] and files != [
        data.picture(name, seed=1) for name in NAMES[:60]
    ]
    small = [np.asarray(decode(f)[0].resize((8, 8)), float).ravel() for f in files]
    assert (
        min(np.abs(a - b).mean() for i, a in enumerate(small) for b in small[:i]) > 5
    )  # levels of 255; equal pictures would give 0


def test_drawing_and_decoding_are_cheap():
    begun = time.process_time()
    files = [data.picture(name) for name in NAMES[:200:5]]
    spent = time.process_time() - begun
    assert (
        spent / len(files) < 60 / 8100 and sum(map(len, files)) / len(files) < 20_000
    )  # 8,100 in under a minute


# ---------------------------------------------------------------------------- the set


def test_the_set_is_built_on_first_use_and_then_left_alone(small):
    found = {part: sets.load_set("rehearsal", *part) for part in sets.SETS["rehearsal"].parts}
    assert set(found) == {("en", "test"), ("it", "test"), ("fa", "test"), ("en", "trial")}
    for data_set in found.values():
        assert (
            data_set.official is False
            and data_set.image_variant == "generated"
            and data_set.credit.startswith("generated pictures and made-up text")
        )
        seen = look_for_damage(data_set, "keep")
        names = [c for c in image_names(data_set.items) if c not in seen.damage.kinds]
        assert all(decode(data_set.path(name).read_bytes())[1] is not None for name in names)
        kinds = sorted(seen.damage.kinds.values())
        whole = (data_set.language, data_set.split) != ("en", "test")
        assert whole or set(kinds) == {"missing", "no picture", "truncated"}, kinds
        assert not whole or "truncated" not in kinds
    before = {p: p.stat().st_mtime_ns for p in small.rglob("*")}
    sets.load_set("rehearsal", "fa")
    assert {p: p.stat().st_mtime_ns for p in small.rglob("*")} == before


def test_two_builds_give_the_same_bytes(small, tmp_path):
    one, two = (everything(data.make_data(tmp_path / name)) for name in ("one", "two"))
    assert one == two and one != everything(data.make_data(tmp_path / "three", seed=1))


def test_a_killed_build_goes_on(small, drawn, monkeypatch):
    draw = data.picture

    def killed(name, seed):
        if len(drawn) == 20:
            raise KeyboardInterrupt
        return draw(name, seed)

    monkeypatch.setattr(data, "picture", killed)
    with pytest.raises(KeyboardInterrupt):
        data.make_data(small)
    assert not (small / "rehearsal.json").exists()
    monkeypatch.setattr(data, "picture", draw)
    data.make_data(small)
    wanted = {
        ("test", name) for items in data.stand_in("test").values() for name in image_names(items)
    }
    assert (
        len(drawn) == len(set(drawn))
        and {d for d in drawn if d[0] == "test"} == wanted - lost_of(small)
        and drawn[20] not in drawn[:20]
    )


def test_a_lost_picture_is_drawn_again_and_a_new_seed_draws_all(small, drawn):
    data.make_data(small)
    there = sorted((small / "vwsd" / "test" / "test_images").iterdir())
    drawn.clear()
    there[3].unlink()
    data.make_data(small)
    assert drawn == [("test", there[3].name)]
    drawn.clear()
    data.make_data(small, seed=1)
    assert len(drawn) > 50 and there[3].parent.is_dir()


def test_fingerprint_builds_and_follows(small, drawn):
    before = sets.fingerprint("rehearsal")
    assert before == sets.fingerprint("rehearsal") and drawn
    data.make_data(small, seed=1)
    assert official.split_state(small / "vwsd", "test") != official.split_state(
        data.make_data(small) / "vwsd", "test"
    )
    assert sets.fingerprint("rehearsal") == before


def test_official_text_is_taken_at_full_size_and_kept(shared, home, drawn):
    data.make_data(home, texts=shared / "vwsd")
    assert len(drawn) == 8100 + 160 - len(lost_of(home)) and json.loads(
        (home / "rehearsal.json").read_text()
    )["text"] == {"test": "official", "trial": "official"}
    drawn.clear()
    found = [
        sets.load_set("rehearsal", language) for language in ("en", "it", "fa")
    ]  # no `texts` now: its own copy will do
    assert (
        [len(s.items) for s in found] == [463, 305, 200]
        and all(s.official for s in found)
        and not drawn
    )
    assert all(
        s.image_variant == "generated" and "text: SemEval-2023 Task 1" in s.credit for s in found
    )


def test_text_that_is_not_as_published_is_no_official_text(shared, small, drawn, tmp_path):
    for split in ("test", "trial"):
        for path in (shared / "vwsd" / split).glob("*.txt"):
            (tmp_path / "mine").mkdir(exist_ok=True)
            (tmp_path / "mine" / path.name).write_bytes(
                path.read_bytes() + b"\n" * path.name.startswith("fa.test.gold")
            )
    data.make_data(small, texts=tmp_path / "mine")
    assert (
        rehearsal.record()["text"] == {"test": "generated", "trial": "official"}
        and len(sets.load_set("rehearsal", "en").items) == 6
    )
