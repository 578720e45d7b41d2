"""Damaged pictures under each way: what is looked at, what ranks last, how it is counted; and that
an undamaged set is what it was.
"""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from vwsd_companion.facts.collect import Collection
from vwsd_companion.notebook import Run
from vwsd_companion.views.figures import small_picture
from vwsd_companion.views.tables import set_title
from vwsdlib.analysis.masks import MaskStore, mask_scores, shared_target_pairs
from vwsdlib.analysis.scorers import cosine_scores, missed_last
from vwsdlib.data.damage import Damage, damage_told
from vwsdlib.data.pictures import load_picture
from vwsdlib.data.sets import user_set
from vwsdlib.encoders import damage
from vwsdlib.encoders.damage import look_for_damage
from vwsdlib.encoders.registry import load_encoder
from vwsdlib.encoders.store import VectorStore
from vwsdlib.errors import VwsdError

CUT, GONE, NONE = "image.2.png", "image.6.png", "image.10.png"  # golds of items 1, 3 and 5
TEXTS = [f"text {i}" for i in range(6)]


@pytest.fixture
def whole(official, own_folders):
    """Six items over twelve pictures that decode to more than a header."""
    images = official[2]
    dice = np.random.default_rng(0)
    for path in images.iterdir():
        noise = dice.integers(0, 256, (90, 120, 3), np.uint8)
        Image.fromarray(noise).save(path)
    return user_set(*official[:2], images)


@pytest.fixture
def damaged(whole):
    """The same set, one picture of each kind damaged."""
    cut = whole.images.folder / CUT
    cut.write_bytes(cut.read_bytes()[:-9000])
    (whole.images.folder / GONE).unlink()
    (whole.images.folder / NONE).write_bytes(b"<html>")
    return user_set_again(whole)


def user_set_again(data):
    """A set whose folder is read anew."""
    images = type(data.images)(data.images.name, data.images.sources)
    return dataclasses.replace(data, images=images)


class Segmenter:
    """Masks that depend on the pixels and the text."""

    name = "toy"

    def identity(self):
        return {"model": "toy"}

    def masks(self, picture, texts):
        grey = np.asarray(picture.convert("L").resize((8, 8)), np.float32) / 64 - 2
        return np.stack([grey + len(text) for text in texts])


def test_a_whole_set_says_nothing_and_changes_nothing(whole, capsys):
    seen = look_for_damage(whole, "keep")
    assert seen.damage.facts() == {} and not seen.damage.missed
    assert [seen.path(n) for n in ("image.0.png", CUT)] == [
        whole.path("image.0.png"),
        whole.path(CUT),
    ]
    assert type(seen.path(CUT)) is type(whole.path(CUT)) and capsys.readouterr().err == ""
    scores = np.arange(60.0).reshape(6, 10)
    assert missed_last(seen, scores) is scores


def test_each_kind_is_told_from_the_others(damaged, capsys):
    seen = look_for_damage(damaged, "keep").damage
    assert seen.kinds == {CUT: "truncated", GONE: "missing", NONE: "no picture"}
    assert seen.pictures == 12 and seen.missed == {GONE, NONE}
    assert look_for_damage(damaged, "miss").damage.missed == {CUT, GONE, NONE}
    told = "3 of 12 pictures damaged: 1 truncated (kept), 1 missing (ranked last), "
    told += "1 no picture (ranked last)"
    assert f"note: en.toy.data.txt en user: {told}\n" in capsys.readouterr().err
    facts = {
        "way": "keep",
        "pictures": 12,
        "truncated": [CUT],
        "missing": [GONE],
        "no picture": [NONE],
    }
    assert seen.facts() == {"damaged": facts} and damage_told(facts) == told


def test_stop_stops_at_the_first_and_names_it(damaged):
    seen = look_for_damage(damaged, "stop")
    assert seen is damaged
    with pytest.raises(VwsdError, match="image.6.png is not there"):
        cosine_scores(seen, VectorStore(load_encoder("random")), TEXTS)


def test_a_way_that_is_none(damaged):
    with pytest.raises(VwsdError, match="way with damaged pictures"):
        look_for_damage(damaged, "kept")


def test_what_was_seen_is_kept_and_follows_the_bytes(damaged, monkeypatch):
    first = look_for_damage(damaged, "keep").damage
    monkeypatch.setattr(damage, "conditions", lambda places: pytest.fail(f"read again: {places}"))
    assert look_for_damage(user_set_again(damaged), "miss").damage.kinds == first.kinds
    monkeypatch.undo()
    Image.new("RGB", (90, 90), "red").save(damaged.images.folder / NONE)
    assert NONE not in look_for_damage(user_set_again(damaged), "keep").damage.kinds


@pytest.mark.parametrize("way, last", [("keep", {GONE, NONE}), ("miss", {CUT, GONE, NONE})])
def test_scores_of_whole_pictures_stay_and_missed_ones_are_last(damaged, way, last):
    seen = look_for_damage(damaged, way)
    store = VectorStore(load_encoder("random"))
    scores = cosine_scores(seen, store, TEXTS)
    lowered = missed_last(seen, scores)
    for item, before, after in zip(seen.items, scores, lowered):
        out = np.array([name in last for name in item.candidates])
        assert (before[~out] == after[~out]).all()
        assert after[out].max(initial=-9) < after[~out].min() and np.isfinite(after).all()
    if way == "keep":
        kept = VectorStore(load_encoder("random"), truncated="keep")
        vector = kept.images([damaged.path(CUT)])[0]
        item = seen.items[1]
        expected = vector.astype(np.float64) @ store.texts(["text 1"])[0]
        assert scores[1][item.candidates.index(CUT)] == pytest.approx(expected, abs=1e-9)


def test_a_row_that_was_let_through_does_not_pass_where_it_must_not(damaged):
    seen = look_for_damage(damaged, "keep")
    store, masks = VectorStore(load_encoder("random")), MaskStore(Segmenter())
    cosine_scores(seen, store, TEXTS)
    mask_scores(seen, masks, TEXTS)
    with pytest.raises(VwsdError, match="truncated"):
        store.images([damaged.path(CUT)])
    with pytest.raises(VwsdError, match="truncated"):
        masks.statistics([(damaged.path(CUT), "text 1")])
    with pytest.raises(VwsdError, match="truncated"):
        load_picture(damaged.path(CUT))
    assert load_picture(seen.path(CUT)).decisions == ("truncated",)


def test_masks_and_pairs_do_without_missed_pictures(damaged):
    seen = look_for_damage(damaged, "keep")
    scores = mask_scores(seen, MaskStore(Segmenter()), TEXTS)
    assert all(np.isfinite(found).all() for found in scores.values())
    one = [dataclasses.replace(item, target="word", phrase=item.id) for item in seen.items]
    pairs = shared_target_pairs(dataclasses.replace(seen, items=tuple(one)))
    assert {a.gold for a, _ in pairs} == {"image.0.png", CUT, "image.4.png", "image.8.png"}


def test_the_place_of_an_item_whose_picture_can_be_shown(damaged):
    seen = look_for_damage(damaged, "keep")
    assert [seen.shown(i) for i in range(6)] == [0, 1, 2, 4, 4, 0]
    assert small_picture(damaged.images.folder / GONE, 40).size == (40, 40)


def test_an_incomplete_set_is_not_a_damaged_one(damaged):
    for name in ("image.7.png", "image.8.png"):
        (damaged.images.folder / name).unlink()
    with pytest.raises(VwsdError, match="4 of 12 pictures are damaged.*the set is incomplete"):
        look_for_damage(user_set_again(damaged), "keep")


def test_an_item_of_which_nothing_is_left(damaged, monkeypatch):
    monkeypatch.setattr(damage, "A_FEW", 99)
    for number in range(10):
        (damaged.images.folder / f"image.{number}.png").unlink(missing_ok=True)
    with pytest.raises(VwsdError, match="all ten pictures of an item are damaged"):
        look_for_damage(user_set_again(damaged), "keep")


def test_ranks_captions_and_facts(damaged, tmp_path):
    seen = look_for_damage(damaged, "keep")
    seen = dataclasses.replace(seen, language="en", split="test")
    run = Run("02_clip_baseline", {"profile": "mine"})
    scores = np.zeros((6, 10)) + np.arange(10)
    made = run.predictions(seen, "toy", "phrase", TEXTS, scores, {"model": "toy"})
    assert made.ranks[3] == 10 and made.meta["damaged"]["missing"] == [GONE]
    about = run.measure("anything", seen, [{"a": 1}])
    assert about.meta["damaged"] == made.meta["damaged"]
    title = set_title(Collection("mine", tmp_path / "results" / "mine"))
    assert title.endswith(
        "; en test: 3 of 12 pictures damaged: 1 truncated (kept), 1 missing (ranked last), "
        "1 no picture (ranked last)"
    )


def test_without_damage_meta_and_caption_have_no_word_of_it(whole, tmp_path):
    seen = dataclasses.replace(look_for_damage(whole, "keep"), split="test")
    run = Run("02_clip_baseline", {"profile": "mine"})
    made = run.predictions(seen, "toy", "phrase", TEXTS, np.eye(6, 10), {"model": "toy"})
    assert "damaged" not in made.meta
    assert "damaged" not in set_title(Collection("mine", tmp_path / "results" / "mine"))


def test_steps_below_the_lowest_stay_steps_when_stored():
    """In single precision, however close the others lie."""
    from types import SimpleNamespace

    items = [SimpleNamespace(candidates=[f"{i}" for i in range(10)], gold="4", gold_index=4)]
    kinds = {"4": "missing", "7": "missing"}
    data = SimpleNamespace(items=items, damage=Damage("miss", 10, kinds))
    for scores in (np.full((1, 10), 0.25), 1e6 + np.arange(10.0)[None], np.zeros((1, 10))):
        lowered = missed_last(data, scores).astype(np.float32)[0]
        assert (np.delete(lowered, [4, 7]) > lowered[7]).all() and lowered[7] > lowered[4]
