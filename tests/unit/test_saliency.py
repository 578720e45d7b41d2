"""Saliency maps and what they are worth: against closed forms, slow twins and maps whose score is
known.
"""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from vwsdlib.analysis import faithfulness, saliency
from vwsdlib.encoders.store import VectorStore
from vwsdlib.errors import VwsdError

STUDY = (472, 554)  # width, height of the study's picture
SIDE, DIM = 24, 5


class Toy(torch.nn.Module):
    """A network on 24 x 24 pixels, linear or not, that sees the whole picture or its centre
    square."""

    dim = DIM

    def __init__(self, linear=True, crop=False):
        super().__init__()
        self.layer = torch.nn.Linear(3 * SIDE * SIDE, DIM, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(
                torch.randn(self.layer.weight.shape, generator=torch.Generator().manual_seed(0))
                / SIDE
            )
        self.linear, self.crop, self.passes = linear, crop, []

    def window(self, size):
        w, h = size
        side = min(size)
        return (
            ((w - side) / 2, (h - side) / 2, (w + side) / 2, (h + side) / 2)
            if self.crop
            else (0.0, 0.0, float(w), float(h))
        )

    def pixels(self, images):
        small = [
            np.asarray(
                i.resize((SIDE, SIDE), Image.Resampling.BILINEAR, self.window(i.size)), np.float32
            )
            / 255
            for i in images
        ]
        return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2)

    def embed(self, pixels):
        self.passes.append(len(pixels))
        out = self.layer(pixels.flatten(1))
        return out if self.linear else torch.nn.functional.normalize(out.tanh(), dim=-1)

    def relevance(self, pixels, text_vectors):
        return np.stack([np.arange(16, dtype=np.float32).reshape(4, 4)] * len(text_vectors))

    def encode_images(self, images):
        with torch.no_grad():
            return self.embed(self.pixels(images)).numpy()

    def encode_texts(self, texts):
        return np.stack([np.random.default_rng(len(t)).standard_normal(DIM) for t in texts]).astype(
            np.float32
        )


class Segments:
    def masks(self, image, texts):
        return np.stack(
            [np.where(np.arange(64).reshape(8, 8) < 32, 30.0, -2000.0)] * len(texts)
        ).astype(np.float32)


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (60, 80, 3), np.uint8))


@pytest.fixture
def texts():
    return np.random.default_rng(4).standard_normal((2, DIM)).astype(np.float32)


# --- random crops


def test_crops_are_drawn_as_the_study_draws_them():
    left, top, side = saliency.draw_crops(STUDY, 50_000).T
    assert (side.min(), side.max()) == (50, 471)
    assert left.min() == top.min() == 0 and (left + side).max() == 472 and (top + side).max() == 554
    assert abs(side.mean() - 260.5) < 3 * 122 / np.sqrt(50_000)
    narrow = (side > 100) & (side < 110)
    assert abs((left / (472 - side))[narrow].mean() - 0.5) < 0.05


def test_smallest_picture_that_has_a_crop():
    assert set(saliency.draw_crops((51, 90))[:, 2]) == {50}
    with pytest.raises(VwsdError, match="90 x 50") as caught:
        saliency.draw_crops((90, 50))
    assert "smallest" in caught.value.remedy


def naive(crops, values, size):
    total = np.zeros((values.shape[1], size[1], size[0]))
    for (x, y, c), value in zip(crops, values):
        total[:, y : y + c, x : x + c] += value[:, None, None]
    return total


def test_running_sums_equal_the_plain_loop():
    size = (97, 131)
    crops = saliency.draw_crops(size, 500, 20, seed=5)
    values = np.random.default_rng(0).standard_normal((500, 3))
    assert np.abs(saliency.spread(crops, values, size) - naive(crops, values, size)).max() < 1e-9
    shifted = crops - [0, 0, 1]  # sides one short: the comparison notices
    assert np.abs(saliency.spread(shifted, values, size) - naive(crops, values, size)).max() > 0.1


def test_random_crop_equals_the_studys_loop(picture, texts):
    toy = Toy(linear=False)
    found = saliency.random_crop(toy.encode_images, picture, texts, n=150, smallest=20, seed=1)

    def cosine(image):
        v, t = toy.encode_images([image])[0].astype(float), texts.astype(float)
        return t @ v / np.linalg.norm(v) / np.linalg.norm(t, axis=1)

    changes = np.stack(
        [
            cosine(picture.crop((x, y, x + c, y + c))) - cosine(picture)
            for x, y, c in found.crops.tolist()
        ]
    )
    total, visits = (
        naive(found.crops, changes, picture.size),
        naive(found.crops, np.ones((150, 1)), picture.size)[0],
    )
    assert (
        np.abs(found.total - total).max() < 1e-5 and (found.visits == visits).all()
    )  # float32 vectors, other batches
    assert (
        found.published.dtype == found.by_visits.dtype == np.float32
        and found.published.shape == (2, 60, 80)
    )
    assert np.allclose(
        found.by_visits,
        np.divide(total, visits, out=np.zeros_like(total), where=visits > 0),
        atol=1e-5,
    )
    assert (
        (visits == 0).any()
        and not found.total[:, visits == 0].any()
        and not found.by_visits[:, visits == 0].any()
    )


def test_texts_do_not_matter_to_each_other(picture, texts):
    toy = Toy()
    both, one = (
        saliency.random_crop(toy.encode_images, picture, t, n=80, smallest=20).published
        for t in (texts, texts[1:])
    )
    assert np.allclose(both[1], one[0], atol=1e-6) and not np.allclose(both[0], one[0], atol=1e-6)


def test_same_seed_same_bytes(picture, texts):
    toy = Toy()
    a, b, c = (
        saliency.random_crop(toy.encode_images, picture, texts, n=80, smallest=20, seed=s)
        for s in (0, 0, 1)
    )
    assert a.published.tobytes() == b.published.tobytes() != c.published.tobytes()
    assert a.by_visits.tobytes() == b.by_visits.tobytes() != c.by_visits.tobytes()


def scored(score):
    """`vectors_of` whose cosine with (1, 0) is `score(picture)`."""
    return lambda images: np.array([[s, np.sqrt(1 - s * s)] for s in map(score, images)])


def test_by_visits_finds_the_square_and_the_sum_shows_the_centre():
    """The study's picture at half size. A crop scores 1 inside the square, 0.1 elsewhere, the whole
    picture 0.
    """
    size, square = (236, 277), (40, 50, 140, 150)
    picture = Image.new("L", size)
    picture.paste(255, square)
    mask = np.asarray(picture) > 0
    score = scored(
        lambda i: 0.0 if i.size == size else 1.0 if i.getextrema() == (255, 255) else 0.1
    )
    found = saliency.random_crop(score, picture, np.array([[1.0, 0.0]]), n=6000, smallest=25)
    by_visits, total = (
        faithfulness.iou(found.by_visits[0], mask),
        faithfulness.iou(found.published[0], mask),
    )
    assert by_visits > 0.8
    assert total < 0.5 < by_visits
    assert faithfulness.pointing(found.by_visits[0], mask) == 1


def test_plain_sum_of_a_constant_score_is_the_centre_bias():
    picture = Image.new("L", STUDY)
    found = saliency.random_crop(
        scored(lambda i: 0.5 if i.size == STUDY else 0.6), picture, np.array([[1.0, 0.0]]), n=2000
    )
    total, bias = found.published[0], saliency.centre_bias(STUDY)
    middle, top = total[277, 236], total[0, 230:243].max()
    assert 100 < bias["ratio"] < 200
    spread = (
        4 * bias["ratio"] / np.sqrt(bias["top"])
    )  # four standard deviations of a count as small as the top edge's
    assert abs(middle / top - bias["ratio"]) < spread
    assert np.allclose(
        found.by_visits[0][found.visits > 0], 0.1, atol=1e-6
    )  # flat: the bias is gone


def test_closed_form_of_the_visits():
    bias = saliency.centre_bias(STUDY)
    published = {
        "centre": (1290, 1284 * 0.36),
        "top": (9, 7.5),
        "corner": (0.1, 0.2),
    }  # one simulated run, and its variance
    assert all(
        abs(bias[k] - value) < 2 * np.sqrt(variance) for k, (value, variance) in published.items()
    )
    n = 100_000
    visits = saliency.spread(saliency.draw_crops(STUDY, n), np.ones((n, 1)), STUDY)[0]
    expected, wrong = (saliency.expected_visits(STUDY, n, smallest) for smallest in (50, 60))
    at = [(277, 236), (0, 236), (277, 0), (100, 60), (553, 236)]
    off, far = (
        [abs(visits[p] - e[p]) / np.sqrt(e[p] * (1 - e[p] / n)) for p in at]
        for e in (expected, wrong)
    )
    assert max(off) < 4 < max(far)
    sides = saliency.draw_crops(STUDY, n)[:, 2].astype(float)
    assert visits.sum() == (sides**2).sum() and abs(expected.sum() / visits.sum() - 1) < 0.01


def test_interval_over_seeds():
    maps = np.random.default_rng(0).normal(2, 1, (4000, 3, 2))
    mean, low, high = saliency.seed_interval(maps)
    assert mean.shape == (3, 2) and mean.dtype == np.float32
    assert (
        np.allclose(mean, 2, atol=0.1)
        and np.allclose(low, 2 - 1.96, atol=0.15)
        and np.allclose(high, 2 + 1.96, atol=0.15)
    )
    with pytest.raises(VwsdError, match="one seed"):
        saliency.seed_interval(maps[:1])


# --- methods that look into the network


def weights(toy, text):
    """[3, 24, 24]: the linear toy's score is their product with the pixels."""
    return (text @ toy.layer.weight.detach().numpy()).reshape(3, SIDE, SIDE)


def test_occlusion_of_a_linear_network(texts):
    picture = Image.fromarray(
        np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    )  # its own pixels are the network's
    toy = Toy()
    found = saliency.occlusion(toy, picture, texts)
    assert toy.passes == [
        1,
        16,
        16,
        16,
        1,
    ]  # the picture, then 7 x 7 windows of 6 pixels: once a window, not once a text
    x = toy.pixels([picture])[0].numpy()
    lost = x - x.mean((1, 2), keepdims=True)
    for text, one in zip(texts, found):
        total, count = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
        for y in range(0, 19, 3):
            for left in range(0, 19, 3):
                here = np.s_[y : y + 6, left : left + 6]
                total[here] += (weights(toy, text) * lost)[(slice(None), *here)].sum()
                count[here] += 1
        assert np.allclose(one, total / count, atol=1e-5)
    assert not np.allclose(
        found, saliency.occlusion(toy, picture, texts, baseline="zero"), atol=1e-3
    )
    toy.passes, toy.image_batch = [], 20
    assert np.allclose(
        saliency.occlusion(toy, picture, texts), found, atol=1e-6
    ) and toy.passes == [
        1,
        20,
        20,
        9,
    ]  # as many as the encoder likes


def test_altered_pictures_go_in_smaller_batches_where_memory_runs_out(picture, texts, capsys):
    toy = Toy()
    embed = toy.embed

    def small(pixels):
        if len(pixels) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return embed(pixels)

    def maps():
        first = saliency.integrated_gradients(toy, picture, texts[0])
        return first, *saliency.occlusion(toy, picture, texts)

    whole = maps()
    toy.embed = small
    for many, few in zip(whole, maps(), strict=True):
        assert np.allclose(few, many, atol=1e-5)
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 2 and notes[1].endswith("8 altered pictures at once: 4 from here on")


def test_integrated_gradients_of_a_linear_network(texts):
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8))
    toy = Toy()
    x = toy.pixels([picture])[0].numpy()
    signed = (weights(toy, texts[0]) * (x - x.mean((1, 2), keepdims=True))).sum(0)
    assert np.allclose(
        saliency.integrated_gradients(toy, picture, texts[0]), signed.clip(0), atol=1e-5
    )
    assert (signed < -0.01).any()


def test_integrated_gradients_are_complete(texts):
    toy, picture = Toy(linear=False), Image.new("RGB", (80, 60))
    picture.paste((255, 200, 90), (10, 10, 50, 40))
    pixels = toy.pixels([picture])
    with torch.no_grad():
        ends = toy.embed(torch.cat([pixels, saliency.BASELINES["mean"](pixels)])).numpy() @ texts[0]
    found, gap = saliency.path_attribution(toy, pixels, texts[0], steps=16)
    coarse, coarse_gap = saliency.path_attribution(toy, pixels, texts[0], steps=1)
    assert abs(ends[0] - ends[1]) > 0.1
    assert abs(found.sum() - (ends[0] - ends[1])) < 1e-3 and abs(gap) < 1e-3
    assert (
        abs(coarse.sum() - (ends[0] - ends[1])) > 5e-3 and abs(coarse_gap) > 5e-3
    )  # one step is not enough, and says so


def test_place_puts_a_cropped_window_where_it_was():
    seen = np.stack(
        [np.full((4, 4), 3.0), np.pad(np.full((4, 3), 5.0), ((0, 0), (1, 0)), constant_values=-1.0)]
    )
    placed = saliency.in_picture(seen, (10.0, 0.0, 50.0, 40.0), (60, 40))
    assert placed.shape == (2, 40, 60) and placed.dtype == np.float32
    assert (placed[0] == 3).all()  # outside: the map's own minimum
    assert (placed[1, :, :10] == -1).all() and (placed[1, :, 50:] == -1).all()
    assert (placed[1, :, 26:50] == 5).all() and (placed[1, :, 10:15] == -1).all()
    fraction = saliency.in_picture(
        np.array([[[0.0, 1.0]]]), (0.5, 0.0, 8.5, 4.0), (9, 4)
    )  # pixels 0 and 8 are half seen
    assert (fraction[:, :, [0, 8]] == 0).all() and np.allclose(
        fraction[0, 0, 1:8] + fraction[0, 0, 7:0:-1], 1
    )


def test_a_ramp_keeps_its_place():
    ramp = np.arange(12, dtype=np.float32)[None, None].repeat(12, 1)
    placed = saliency.in_picture(ramp, (20.0, 5.0, 80.0, 65.0), (100, 70))
    inner = np.arange(25, 75)
    assert np.allclose(placed[0, 30, inner], (inner + 0.5 - 20) / 5 - 0.5, atol=1e-4)


def test_relevance_follows_the_window(picture, texts):
    found = saliency.relevance(Toy(crop=True), picture, texts)
    assert (
        found.shape == (2, 60, 80)
        and (found[:, :, :10] == 0).all()
        and (found[:, :, 70:] == 0).all()
    )
    assert found[0, 59, 69] == found.max() == 15


def test_nothing_is_left_behind(picture, texts):
    toy = Toy(linear=False)
    state, pixels = {k: v.clone() for k, v in toy.state_dict().items()}, picture.tobytes()
    own = texts.copy()
    with torch.no_grad():  # a caller who has gradients off still gets maps
        saliency.integrated_gradients(toy, picture, texts[0], steps=4)
    saliency.maps(
        toy,
        Segments(),
        picture,
        ["a", "bb"],
        list(saliency.METHODS),
        {"crops": {"n": 70, "smallest": 20}},
    )
    assert picture.tobytes() == pixels and (own == texts).all()
    assert all(torch.equal(v, state[k]) for k, v in toy.state_dict().items())
    assert (
        toy.layer.weight.grad is None and toy.layer.weight.requires_grad and torch.is_grad_enabled()
    )
    assert not any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in toy.modules()
    )


# --- the registry


def test_all_methods_give_maps_and_share_the_crops(picture):
    toy = Toy(linear=False)
    alone = [
        saliency.maps(toy, None, picture, ["a", "bb"], [m], {"crops": {"n": 70, "smallest": 20}})[m]
        for m in ("crops_sum", "crops_by_visits")
    ]
    toy.passes.clear()
    found = saliency.maps(
        toy,
        Segments(),
        picture,
        ["a", "bb"],
        ["crops_sum", "crops_by_visits"],
        {"crops": {"n": 70, "smallest": 20}},
    )
    assert sum(toy.passes) == 71 and all((a == b).all() for a, b in zip(alone, found.values()))
    names = saliency.available(toy, Segments())
    found = saliency.maps(
        toy, Segments(), picture, ["a", "bb"], names, {"crops": {"n": 70, "smallest": 20}}
    )
    assert list(found) == names == list(saliency.METHODS)
    assert all(
        m.shape == (2, 60, 80) and m.dtype == np.float32 and np.isfinite(m).all()
        for m in found.values()
    )
    assert all(
        (m[0] != m[1]).any()
        for name, m in found.items()
        if name in ("crops_sum", "crops_by_visits", "occlusion", "integrated_gradients")
    )
    assert np.allclose(found["mask"][:, :25], 1) and np.allclose(found["mask"][:, 35:], 0)


def test_vectors_of_stands_in_for_the_encoder(picture):
    toy, asked = Toy(), []

    def vectors_of(images):
        asked.append(len(images))
        return toy.encode_images(images)

    saliency.maps(
        toy,
        None,
        picture,
        ["a"],
        ["crops_sum"],
        {"crops": {"n": saliency.BATCH + 6, "smallest": 20}},
        vectors_of,
    )
    assert asked == [1, saliency.BATCH, 6]


def test_what_is_not_to_be_had(picture):
    class Plain:
        encode_images, encode_texts = Toy.encode_images, Toy.encode_texts

    assert saliency.available(Plain(), None) == ["crops_sum", "crops_by_visits", "centre", "random"]
    assert saliency.available(None, Segments()) == ["mask", "centre", "random"]
    for methods, settings in (
        (["mask"], {}),
        (["centre", "nonsense"], {}),
        (["centre"], {"crop": {}}),
    ):
        with pytest.raises(VwsdError, match="mask|nonsense|crop"):
            saliency.maps(Plain(), None, picture, ["a"], methods, settings)


def test_controls_know_no_picture():
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)) for _ in range(600)]
    mask = np.zeros((24, 32), bool)
    mask[:12, :16] = True  # a quarter, at the corner
    random = [saliency.random_map(p) for p in pictures]
    assert abs(np.mean([faithfulness.pointing(m, mask) for m in random]) - 0.25) < 3 * np.sqrt(
        0.25 * 0.75 / 600
    )
    assert abs(np.mean([faithfulness.energy(m, mask) for m in random]) - 0.25) < 0.03
    assert (random[0] == saliency.random_map(pictures[0])).all() and (
        random[0] != saliency.random_map(pictures[0], seed=1)
    ).any()
    assert np.abs(np.diff(random[0], axis=1)).mean() < random[0].std() < 1  # smooth
    centre = saliency.centre((33, 25))
    assert np.unravel_index(centre.argmax(), centre.shape) == (12, 16) and centre[12, 16] == 1


# --- faithfulness


MASK = np.zeros((10, 10), bool)
MASK[2:6, 3:8] = True  # 20 of 100


def test_measures_of_hand_made_maps():
    inside, outside = np.where(MASK, 1.0, -1.0), np.where(MASK, -1.0, 1.0)
    half = np.zeros((10, 10))
    half[4:8, 3:8] = 1  # as large as the mask, ten pixels in common
    for measure in (faithfulness.pointing, faithfulness.energy, faithfulness.iou):
        assert measure(inside, MASK) == 1 and measure(outside, MASK) == 0
    assert (
        faithfulness.pointing(half, MASK) == 0.5
        and faithfulness.energy(half, MASK) == 0.5
        and faithfulness.iou(half, MASK) == 10 / 30
    )
    half[0, 0] = 2
    assert faithfulness.pointing(half, MASK) == 0 and faithfulness.energy(half, MASK) == 10 / 22
    few = np.zeros((10, 10))
    few[2, 3:7] = (
        # four pixels marked, all right: the other sixteen are drawn from 96 that tie, 16 of them
        # right
        1
    )
    intersection = 4 + 16 * 16 / 96
    assert faithfulness.iou(few, MASK) == pytest.approx(intersection / (40 - intersection))
    assert faithfulness.energy(-inside - 5, MASK) == 0.2  # nothing positive


@pytest.mark.parametrize("value", [-1.0, 0.0, 3.0])
def test_a_constant_map_scores_chance(value):
    flat, expected = np.full((10, 10), value), faithfulness.chance(MASK)
    assert expected == {"pointing": 0.2, "energy": 0.2, "iou": pytest.approx(1 / 9)}
    assert {k: pytest.approx(getattr(faithfulness, k)(flat, MASK)) for k in expected} == expected


def test_chance_by_simulation():
    rng, expected = np.random.default_rng(0), faithfulness.chance(MASK)
    maps = rng.random((4000, 10, 10))
    for name, value in expected.items():
        got = np.array([getattr(faithfulness, name)(m, MASK) for m in maps])
        assert abs(got.mean() - value) < 4 * got.std() / np.sqrt(4000) + 0.003, (
            name
        )  # iou: to the first order in the mask's size
        biased = np.array([getattr(faithfulness, name)(m + MASK / 5, MASK) for m in maps[:500]])
        assert abs(biased.mean() - value) > 4 * got.std() / np.sqrt(500), name


def test_maps_that_cannot_be_measured():
    for found, mask in (
        (np.ones((10, 9)), MASK),
        (np.ones((10, 10)), MASK & False),
        (np.full((10, 10), np.nan), MASK),
    ):
        with pytest.raises(VwsdError, match="cannot be compared"):
            faithfulness.iou(found, mask)


@pytest.fixture
def textured():
    """A grey picture with a noisy patch, its mask, and a score that is the noise left in the
    patch."""
    mask = np.zeros((90, 112), bool)
    mask[20:60, 30:70] = True
    pixels = np.full((90, 112, 3), 128, np.uint8)
    pixels[mask] = np.random.default_rng(0).integers(0, 256, (mask.sum(), 3))
    asked = []

    def scores(images):
        asked.append(images)
        return np.array([np.asarray(i)[mask].std() / 74 for i in images])

    return Image.fromarray(pixels), mask, scores, asked


def test_deletion_falls_and_insertion_rises_for_a_right_map(textured):
    picture, mask, scores, asked = textured
    found = mask.astype(float)
    deletion, insertion, curves = faithfulness.deletion_insertion(scores, picture, found)
    assert deletion < 0.4 < 0.7 < insertion
    wrong_deletion, wrong_insertion, _ = faithfulness.deletion_insertion(scores, picture, -found)
    assert wrong_deletion > 0.7 > 0.4 > wrong_insertion
    assert (
        len(asked) == 2
        and len(asked[0]) == 18
        and curves["share"].tolist() == [i / 8 for i in range(9)]
    )
    assert deletion == curves["deletion"].mean() and insertion == curves["insertion"].mean()
    first, gone, blank, back = (np.asarray(asked[0][i]) for i in (0, 8, 9, 17))
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(90 / 16)))
    assert (
        (first == np.asarray(picture)).all()
        and (back == first).all()
        and (gone == blurred).all()
        and (blank == blurred).all()
    )
    assert (found == mask).all()


def test_last_step_takes_every_cell(picture):
    asked = []
    faithfulness.deletion_insertion(
        lambda images: asked.extend(images) or np.zeros(len(images)),
        picture,
        np.zeros((60, 80)),
        steps=3,
    )
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(60 / 16)))
    replaced = [float((np.asarray(a) == blurred).all(-1).mean()) for a in asked]
    assert replaced[3] == replaced[4] == 1
    assert replaced[1:3] == pytest.approx([1 / 3, 2 / 3], abs=0.03) and replaced[
        5:7
    ] == pytest.approx([2 / 3, 1 / 3], abs=0.03)


def test_steps_take_equal_numbers_of_cells_in_order():
    ranks = faithfulness._cell_ranks(np.arange(28 * 28, dtype=float).reshape(28, 28), 14)
    assert ranks[27, 27] == 0 and ranks[0, 0] == 195 and ranks[26, 26] == 0 and ranks[26, 25] == 1
    assert (np.bincount(ranks.ravel()) == 4).all()
    tied = faithfulness._cell_ranks(np.zeros((15, 31)), 14)
    assert tied[0, 0] == 0 and tied[-1, -1] == 195 and (np.diff(tied[0]) >= 0).all()


def test_summaries():
    hits = faithfulness.summary([1, 0, 0.5, 1], "pointing")
    assert (hits["value"], hits["k"], hits["n"]) == (62.5, 2.5, 4) and hits["ci_low"] < 62.5 < hits[
        "ci_high"
    ]
    values = np.random.default_rng(0).normal(0.3, 0.1, 400)
    mean = faithfulness.summary(values, "mean")
    assert (
        mean["value"] == values.mean()
        and mean["k"] is None
        and mean["n"] == 400
        and mean == faithfulness.summary(values, "mean")
    )
    half = 1.96 * values.std() / 20
    assert mean["ci_low"] == pytest.approx(mean["value"] - half, abs=half / 10)
    assert mean["ci_high"] == pytest.approx(mean["value"] + half, abs=half / 10)
    with pytest.raises(VwsdError, match="no mean"):
        faithfulness.summary([], "mean")
    with pytest.raises(VwsdError, match="no mean"):
        faithfulness.summary([np.nan], "pointing")


GRADIENTS = ["occlusion", "integrated_gradients", "relevance"]


class Known(Toy):
    """A toy that says what decides its maps."""

    def identity(self):
        return {"model": "toy", "linear": self.linear}


def drawn(toy, picture, folder, methods=GRADIENTS, **settings):
    """Maps of two texts, and how often the network was run for them."""
    before = len(toy.passes)
    made = saliency.maps(toy, None, picture, ["a", "bcd"], methods, settings, keep=folder)
    return made, len(toy.passes) - before


def test_maps_by_gradients_are_taken_up_byte_for_byte(picture, tmp_path):
    fresh, ran = drawn(Known(), picture, None)
    first, also_ran = drawn(Known(), picture, tmp_path)
    again, none = drawn(Known(), picture, tmp_path)
    assert ran == also_ran > 0 == none and list(again) == GRADIENTS
    for name in GRADIENTS:
        assert fresh[name].tobytes() == first[name].tobytes() == again[name].tobytes()
        assert again[name].dtype == first[name].dtype


def test_what_decides_a_map_makes_another(picture, tmp_path):
    drawn(Known(), picture, tmp_path)
    other = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert drawn(Known(linear=False), picture, tmp_path)[1] > 0
    assert drawn(Known(), other, tmp_path)[1] > 0
    assert drawn(Known(), picture, tmp_path, occlusion={"stride": 1 / 4})[1] > 0


def test_a_run_that_was_killed_goes_on_with_what_it_has(picture, tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(saliency, "integrated_gradients", killed)
        with pytest.raises(KeyboardInterrupt):
            drawn(Known(), picture, tmp_path)
    (done,) = tmp_path.glob("*.npz")
    assert done.name.startswith("occlusion-")
    _, whole = drawn(Known(), picture, None)
    made, rest = drawn(Known(), picture, tmp_path)
    assert 0 < rest < whole
    done.write_bytes(done.read_bytes()[:-40])  # a disk that lost its end: made again
    assert (
        drawn(Known(), picture, tmp_path)[0]["occlusion"].tobytes() == made["occlusion"].tobytes()
    )


def test_crops_of_a_killed_run_are_taken_up(picture, tmp_path, monkeypatch):
    monkeypatch.setattr(saliency, "BATCH", 16)
    toy, texts = Known(), Known().encode_texts(["a"])
    toy.name, toy.batch_size = "toy", 8
    store, encode = VectorStore(toy, tmp_path), toy.encode_images
    toy.encode_images = lambda some: 1 / 0 if len(toy.passes) > 4 else encode(some)
    with pytest.raises(ZeroDivisionError):
        saliency.random_crop(store.pictures, picture, texts, 64, 20)
    looked_at = sum(toy.passes)
    toy.encode_images, toy.passes = encode, []
    made = saliency.random_crop(VectorStore(toy, tmp_path).pictures, picture, texts, 64, 20)
    assert sum(toy.passes) <= 65 - looked_at
    alone = saliency.random_crop(encode, picture, texts, 64, 20)
    assert np.allclose(made.total, alone.total, atol=1e-5)
