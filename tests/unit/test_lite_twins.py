"""The lite encoder's twins with real weights: views, masks at every place, texts of other
languages; the same bits in any company.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from vwsd_standins import lite_twins
from vwsd_standins.emojiwsd.drawings import draw
from vwsd_standins.lite import places, to_pixels
from vwsd_standins.lite_twins import IMAGENET, MultilingualLite
from vwsdlib.encoders.registry import load_encoder, load_segmenter
from vwsdlib.encoders.store import VectorStore
from vwsdlib.errors import VwsdError

VIEWS = ["lite", "lite-352", "lite-352-imagenet"]
SENTENCES = [
    "una banana matura",
    "il pipistrello",
    "a ripe banana",
    "banco di nebbia in valle",
    "der Hund",
]


@pytest.fixture(scope="module")
def pictures():
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 300, 3), dtype=np.uint8))
    return [draw("🐘", "openmoji"), draw("🍕", "twemoji"), wide]


@pytest.fixture(scope="module")
def two_things():
    """An elephant on the left, a banana on the right."""
    canvas = Image.new("RGB", (512, 256), "white")
    canvas.paste(draw("🐘", "openmoji").resize((256, 256)), (0, 0))
    canvas.paste(draw("🍌", "openmoji").resize((256, 256)), (256, 0))
    return canvas


# ---------------------------------------------------------------- views


def test_views_share_the_weights_and_differ_in_all_that_sees(pictures, tmp_path):
    encoders = [load_encoder(name) for name in VIEWS]
    assert [e.name for e in encoders] == [e.identity()["model"] for e in encoders] == VIEWS
    assert (
        len({e.identity()["weights_sha256"] for e in encoders}) == 1
        and len({e.identity()["processor"] for e in encoders}) == 3
    )
    assert len({VectorStore(e, tmp_path).path for e in encoders}) == 3
    rows = [e.encode_images(pictures[:1])[0] for e in encoders]
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(rows, [*rows[1:], rows[0]]))
    assert len({e.encode_texts(["fruit bat"]).tobytes() for e in encoders}) == 1


@pytest.mark.parametrize("name, side", [("lite-352", 352), ("lite-352-imagenet", 352)])
def test_a_view_is_the_networks_input_side_and_statistics(name, side, pictures):
    mean, std = (
        np.array(IMAGENET[k]) if name.endswith("imagenet") else np.full(3, v)
        for k, v in (("mean", 127.0), ("std", 128.0))
    )
    expected = (
        np.asarray(pictures[2].resize((side, side), Image.Resampling.BICUBIC), np.float64) - mean
    ) / std
    found = load_encoder(name).pixels(pictures[2:])
    assert found.shape == (1, 3, side, side)
    np.testing.assert_allclose(found[0].permute(1, 2, 0), expected, atol=1e-5)
    assert (
        np.abs(
            found[0].permute(1, 2, 0).numpy()
            - np.asarray(pictures[2].resize((side, side), Image.Resampling.BILINEAR)) / 128
            + 127 / 128
        ).max()
        > 0.01
    )


def test_imagenets_statistics_are_the_usual_ones():
    np.testing.assert_allclose(np.array(IMAGENET["mean"]) / 255, [0.485, 0.456, 0.406], atol=1e-9)
    np.testing.assert_allclose(np.array(IMAGENET["std"]) / 255, [0.229, 0.224, 0.225], atol=1e-9)


@pytest.mark.parametrize("name", VIEWS)
def test_embed_equals_encode_images_and_has_a_gradient(name, pictures):
    encoder = load_encoder(name)
    pixels = encoder.pixels(pictures).requires_grad_(True)
    found = encoder.embed(pixels)
    np.testing.assert_allclose(found.detach(), encoder.encode_images(pictures), atol=1e-5)
    assert (
        np.abs(found.detach()[[1, 2, 0]] - encoder.encode_images(pictures)).max() > 1e-2
    )  # rows do differ
    (slope,) = torch.autograd.grad(found[0, 0], pixels)
    assert slope[0].abs().max() > 0 and not slope[1:].any()


@pytest.mark.parametrize("name, grid", [("lite", 7), ("lite-352", 11)])
def test_relevance_is_a_grid_without_negatives_that_follows_the_text(name, grid, two_things):
    encoder = load_encoder(name)
    texts = encoder.encode_texts(["elephant", "banana", "elephant"])
    found = encoder.relevance(encoder.pixels([two_things]), texts)
    assert (
        found.shape == (3, grid, grid)
        and found.dtype == np.float32
        and found.min() >= 0
        and found.max(axis=(1, 2)).min() > 0
    )
    assert np.array_equal(found[0], found[2]) and np.abs(found[0] - found[1]).max() > 0
    half = grid // 2
    elephant, banana = (m[:, :half].sum() / m[:, -half:].sum() for m in found[:2])
    assert elephant > banana


def test_a_squashed_picture_is_seen_whole():
    assert (
        load_encoder("lite").window((640, 480))
        == load_encoder("lite-352").window((640, 480))
        == (0.0, 0.0, 640.0, 480.0)
    )


# ---------------------------------------------------------------- the dense twin


@pytest.fixture(scope="module")
def dense():
    return load_segmenter("lite-dense")


def test_masks_are_the_formula_at_each_place(dense, two_things):
    encoder, text = load_encoder("lite"), "elephant"
    word = torch.from_numpy(encoder.encode_texts([text])[0])
    with torch.no_grad():
        levels = encoder.towers.levels(to_pixels(two_things, dense.encoder.view)[None])
        rows = places(levels, dense.around)[0]  # [121, SUMMARY]
        cosines = torch.stack([encoder.vectors(row[None])[0] @ word for row in rows])
        lengths = levels[0][0].flatten(1).norm(dim=0)
        grid = (cosines * lengths / 18.6 - 0.15).reshape(1, 1, 11, 11) / 0.07
        expected = torch.nn.functional.interpolate(
            grid, size=(352, 352), mode="bilinear", align_corners=False
        )[0, 0]
    found = dense.masks(two_things, [text])
    assert found.shape == (1, 352, 352) and found.dtype == np.float32
    np.testing.assert_allclose(found[0], expected, atol=1e-4)
    assert np.abs(found[0] - expected.numpy().T).max() > 0.1


def test_masks_lie_on_what_the_text_means(dense, two_things):
    elephant, banana = dense.masks(two_things, ["elephant", "banana"])
    left, right = (slice(None), slice(0, 176)), (slice(None), slice(176, 352))
    assert (
        elephant[left].mean() > elephant[right].mean()
        and banana[right].mean() > banana[left].mean()
    )
    elephant, banana = (mask[left].mean() - mask[right].mean() for mask in (elephant, banana))
    assert elephant > 0 > banana


def test_a_mask_does_not_depend_on_the_other_texts(dense, two_things):
    texts = [
        "elephant",
        "banana",
        "a very long phrase about nothing that has to do with the picture at all, and then some",
        "bat",
        "river bank",
    ]
    together = dense.masks(two_things, texts)
    alone = np.concatenate([dense.masks(two_things, [t]) for t in texts])
    fresh = lite_twins.load_dense("lite-dense").masks(two_things, texts[::-1])[
        ::-1
    ]  # no text remembered
    assert together.tobytes() == alone.tobytes() == np.ascontiguousarray(fresh).tobytes()


def test_dense_twins_have_identities_of_their_own(dense):
    other = load_segmenter("lite-dense-704")
    ids = [
        dense.identity(),
        other.identity(),
        load_encoder("lite").identity(),
        load_encoder("lite-352").identity(),
    ]
    assert [i["model"] for i in ids[:2]] == ["lite-dense", "lite-dense-704"] and len(
        {str(i) for i in ids}
    ) == 4
    assert (
        all(str(n) in ids[0]["processor"] for n in (352, 18.6, 0.15, 0.07))
        and "704" in ids[1]["processor"]
    )
    assert ids[0]["weights_sha256"] == ids[2]["weights_sha256"]
    assert other.masks(Image.new("RGB", (40, 30), "red"), ["red"]).shape == (1, 704, 704)


# ---------------------------------------------------------------- the multilingual twin


@pytest.fixture(scope="module")
def multilingual():
    return load_encoder("lite-multilingual")


def test_multilingual_pictures_are_the_teachers_and_texts_its_own(multilingual, pictures):
    base = load_encoder("lite")
    assert (
        multilingual.encode_images(pictures[:1]).tobytes()
        == base.encode_images(pictures[:1]).tobytes()
    )
    rows = multilingual.encode_texts(SENTENCES)
    assert (
        rows.shape == (5, 384)
        and rows.dtype == np.float32
        and multilingual.encode_texts([]).shape == (0, 384)
    )
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    own, theirs = multilingual.identity(), base.identity()
    assert (
        own["model"] == "lite-multilingual"
        and own["weights_sha256"] != theirs["weights_sha256"]
        and "universal-sentence-encoder" in own["revision"]
    )


def test_what_is_the_same_in_two_languages_is_near(multilingual):
    italian, bat, english, *_ = multilingual.encode_texts(SENTENCES)
    teacher = load_encoder("lite").encode_texts(["a ripe banana"])[0]
    assert italian @ english > 0.8 > bat @ english and italian @ teacher > 0.4 > bat @ teacher


def test_multilingual_texts_do_not_depend_on_their_neighbours(multilingual):
    together = multilingual.encode_texts(SENTENCES)
    alone = np.concatenate([multilingual.encode_texts([s]) for s in SENTENCES])
    backwards = multilingual.encode_texts(SENTENCES[::-1])[::-1]
    assert together.tobytes() == alone.tobytes() == np.ascontiguousarray(backwards).tobytes()


def test_the_map_is_a_ridge_regression_stored_once_and_read_again(
    multilingual, tmp_path, monkeypatch
):
    base = load_encoder("lite")
    few = ["elephant", "banana", "river bank", "bat", "crane", "fog"]
    monkeypatch.setattr(lite_twins, "class_names", lambda: few)
    monkeypatch.setattr(lite_twins, "training_emoji", lambda held_out: [])
    monkeypatch.setattr(MultilingualLite, "_student", multilingual._student)
    first = MultilingualLite(base, tmp_path)
    student, teacher = first._read(few), base.encode_texts(few).astype(np.float64)
    centred = student - student.mean(0)
    dual = centred.T @ np.linalg.solve(
        centred @ centred.T + 0.1 * np.eye(len(few)), teacher
    )  # the same by the dual formula
    np.testing.assert_allclose(first.map["matrix"], dual, atol=1e-8)
    np.testing.assert_allclose(first.map["mean"], student.mean(0))
    assert np.abs(first.map["matrix"] - multilingual.map["matrix"]).max() > 1e-3

    monkeypatch.setattr(MultilingualLite, "_fit", lambda self: pytest.fail("fitted again"))
    again = MultilingualLite(base, tmp_path)
    assert (
        again.map["matrix"].tobytes() == first.map["matrix"].tobytes()
        and len(list(tmp_path.glob("multilingual-*.safetensors"))) == 1
    )
    assert (
        again.encode_texts(SENTENCES[:2]).tobytes() == first.encode_texts(SENTENCES[:2]).tobytes()
    )
    for change in (("RIDGE", 0.2), ("USE_SHA256", {"weights.npz": "0"})):
        with monkeypatch.context() as patch:
            patch.setattr(lite_twins, *change)
            with pytest.raises(pytest.fail.Exception, match="fitted again"):  # the guard can fail
                MultilingualLite(base, tmp_path)


@pytest.mark.parametrize("file", ["weights.npz", "sp.model"])
def test_student_weights_with_another_hash_are_refused(file, multilingual, monkeypatch):
    monkeypatch.setitem(lite_twins.USE_SHA256, file, "0" * 64)
    fresh = object.__new__(MultilingualLite)
    with pytest.raises(VwsdError, match=f"weights are not the ones.*{file}"):
        fresh._student
