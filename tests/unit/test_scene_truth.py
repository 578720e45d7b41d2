"""Scenes as a ground truth: which are taken, what is true in them, and that a right and a wrong map
are told apart.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from vwsdlib.analysis.scene_truth import Scene, read_scenes, scene_maps, scene_record, small
from vwsdlib.encoders.control import RandomEncoder
from vwsdlib.encoders.store import VectorStore
from vwsdlib.errors import VwsdError


@pytest.fixture(scope="module")
def scenes(emojiwsd):
    return read_scenes(emojiwsd, "test", 12)


def stored(emojiwsd, split="test"):
    lines = (emojiwsd / "scenes" / "scenes.jsonl").read_text(encoding="utf-8").split("\n")
    return [r for r in map(json.loads, filter(None, lines)) if r["split"] == split]


@pytest.mark.parametrize("split", ["dev", "test"])
def test_scenes_are_spread_evenly_over_their_split(emojiwsd, split):
    names = [r["image"] for r in stored(emojiwsd, split)]
    for count in (1, 7, 12):
        places = [names.index(s.name) for s in read_scenes(emojiwsd, split, count)]
        steps = np.diff([*places, len(names)])
        assert len(places) == count and places[0] == 0 and steps.max() - steps.min() <= 1
    assert [s.name for s in read_scenes(emojiwsd, "dev", 10_000)] == [
        r["image"] for r in stored(emojiwsd, "dev")
    ]


def test_splits_share_no_scene_and_an_unknown_one_is_named(emojiwsd):
    assert not {r["image"] for r in stored(emojiwsd)} & {
        r["image"] for r in stored(emojiwsd, "dev")
    }
    with pytest.raises(VwsdError, match="no scenes of the split 'trial'.*dev and test"):
        read_scenes(emojiwsd, "trial", 3)


def test_truth_is_the_phrases_drawing_and_others_are_the_rest(scenes, emojiwsd):
    facts = {r["image"]: r for r in stored(emojiwsd)}
    for s in scenes:
        r = facts[s.name]
        own = next(o for o in r["objects"] if o["index"] == r["index"])
        left, top, right, bottom = own["box"]
        rows, columns = np.nonzero(s.truth)
        assert own["sense"] == r["sense"] and s.phrase == r["phrase"]
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (
            left,
            top,
            right,
            bottom,
        )
        assert (
            s.picture.mode == "RGB"
            and s.picture.size == s.truth.shape[::-1]
            and s.truth.dtype == s.others.dtype == bool
        )
        assert not (s.truth & s.others).any() and all(
            s.others[(b := o["box"])[1] : b[3], b[0] : b[2]].any()
            for o in r["objects"]
            if o is not own
        )
        assert (s.truth | s.others).sum() == (
            np.asarray(Image.open(emojiwsd / "scenes" / r["mask"])) > 0
        ).sum()
        assert 0.01 < s.truth.mean() < 0.3 and s.others.any()


def test_a_perfect_map_and_an_inverted_one(scenes):
    for s in scenes:
        right, wrong = (
            scene_record(s, "m", "mask", found) for found in (s.truth.astype(float), 1.0 - s.truth)
        )
        assert (right["pointing"], right["rival"], right["energy"], right["iou"]) == (1, 0, 1, 1)
        assert (wrong["pointing"], wrong["energy"], wrong["iou"]) == (0, 0, 0) and wrong[
            "rival"
        ] == pytest.approx(s.others.sum() / (~s.truth).sum())
        assert (
            right["area"] == wrong["area"] == s.truth.mean()
            and right["deletion"] is right["insertion"] is None
        )
        assert (right["scene"], right["phrase"], right["model"], right["method"]) == (
            s.name,
            s.phrase,
            "m",
            "mask",
        )


def test_a_map_on_the_other_senses_is_a_rival_and_no_hit(scenes):
    record = scene_record(scenes[0], "m", "x", scenes[0].others.astype(float))
    assert (record["pointing"], record["rival"], record["energy"]) == (0, 1, 0)


class Reddish(RandomEncoder):
    """cos(picture, any text) grows with how much red a picture holds."""

    def encode_images(self, images):
        red = (
            np.array(
                [
                    np.asarray(i, float)[..., 0].mean() - np.asarray(i, float)[..., 1].mean()
                    for i in images
                ]
            )
            / 255
        )
        return np.stack([red, np.sqrt(1 - red**2), *np.zeros((62, len(images)))], 1).astype(
            np.float32
        )

    def encode_texts(self, texts):
        return np.eye(64, dtype=np.float32)[[0] * len(texts)]


def red_square():
    picture, truth, others = (
        np.full((96, 96, 3), 128, np.uint8),
        np.zeros((96, 96), bool),
        np.zeros((96, 96), bool),
    )
    truth[16:48, 16:48], others[64:, 64:] = True, True
    picture[truth] = (255, 0, 0)
    return Scene("toy.png", "red", Image.fromarray(picture), truth, others)


def test_deletion_and_insertion_come_with_a_store(tmp_path):
    s, store = red_square(), VectorStore(Reddish(), tmp_path)
    right, wrong = (
        scene_record(s, "m", "x", found, store, steps=6)
        for found in (s.truth.astype(float), 1.0 - s.truth)
    )
    assert right["deletion"] < wrong["deletion"] and right["insertion"] > wrong["insertion"]
    assert (
        right["insertion"] - right["deletion"] > 0.01 > 0 > wrong["insertion"] - wrong["deletion"]
    )


def test_scene_maps_fit_their_scenes(tmp_path):
    s, store = red_square(), VectorStore(Reddish(), tmp_path)
    [(back, found)] = scene_maps(
        [s],
        store,
        None,
        ["crops_by_visits", "centre", "random"],
        {"crops": {"n": 150, "smallest": 10, "seed": 0}},
    )
    assert (
        back is s
        and set(found) == {"crops_by_visits", "centre", "random"}
        and all(m.shape == s.truth.shape for m in found.values())
    )
    red = scene_record(s, "m", "crops_by_visits", found["crops_by_visits"])
    assert (
        red["pointing"] == 1
        and red["energy"] > 2 * scene_record(s, "m", "random", found["random"])["energy"]
    )


@pytest.mark.parametrize("streams", [1, 3])
def test_scenes_side_by_side_are_the_scenes_one_by_one(tmp_path, streams):
    first, encoder, methods, settings = (
        red_square(),
        Reddish(),
        ["crops_by_visits", "random"],
        {"crops": {"n": 150, "smallest": 10, "seed": 0}},
    )
    encoder.streams = streams
    scenes = [
        replace(first, name=f"{turn}.png", picture=first.picture.rotate(90 * turn))
        for turn in range(4)
    ]
    alone = [
        next(scene_maps([s], VectorStore(Reddish(), tmp_path / s.name), None, methods, settings))[1]
        for s in scenes
    ]
    found = list(
        scene_maps(scenes, VectorStore(encoder, tmp_path / "all"), None, methods, settings)
    )
    assert [s.name for s, _ in found] == [s.name for s in scenes]
    assert all(
        m[name].tobytes() == a[name].tobytes()
        for (_, m), a in zip(found, alone)
        for name in methods
    )
    assert len({a[name].tobytes() for a in alone for name in methods}) == 8


@pytest.mark.parametrize(
    "shape, expected",
    [((384, 384), (96, 96)), ((200, 400), (48, 96)), ((40, 20), (40, 20)), ((1000, 2), (96, 1))],
)
def test_small_maps_keep_proportions_and_means(shape, expected):
    found = np.random.default_rng(0).random(shape).astype(np.float32)
    made = small(found)
    assert made.shape == expected and made.mean() == pytest.approx(found.mean(), abs=0.02)
    assert small(np.eye(96) > 0).dtype == np.float32  # the truth goes through it too
