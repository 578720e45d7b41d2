"""Our resizing gives Pillow's pixels, every one of them, or is not used."""

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Resampling

from vwsdlib.data import pictures
from vwsdlib.data.pictures import Square

resizing = pytest.importorskip(
    "vwsdlib.data.resizing", reason="numba is not installed: Pillow does all resizing"
)
FILTERS = (Resampling.BICUBIC, Resampling.BILINEAR)


def noise(seed, width, height):
    """Pixels of all values, or of the two extremes only, where sums overshoot most."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return np.uint8(255) * (pixels > 127) if seed % 3 == 0 else pixels


def pairs():
    """(old size, new size) that suit: smaller and larger, one side kept, single pixels, more rows
    than are summed at once.
    """
    rng = np.random.default_rng(0)
    yield from [
        ((1, 1), (7, 7)),
        ((64, 64), (64, 64)),
        ((65, 64), (65, 31)),
        ((999, 130), (224, 224)),
        ((129, 129), (224, 224)),
        ((480, 480), (1, 1)),
    ]
    for _ in range(120):
        height, width = sorted(rng.integers(1, 700, 2).tolist())
        side = int(rng.integers(1, 400))
        yield (width, height), (side, side)
        yield (width, height), (max(1, int(side * width / height)), side)


@pytest.mark.parametrize("resample", FILTERS)
def test_pixels_are_those_of_pillow(resample):
    done = 0
    for seed, (old, new) in enumerate(pairs()):
        if resizing.suits(old, new, resample):
            pixels, done = noise(seed, *old), done + 1
            assert np.array_equal(
                resizing.resize(pixels, new, resample),
                np.asarray(Image.fromarray(pixels).resize(new, resample)),
            ), (old, new)
    assert done > 150


def test_fewer_bits_are_other_pixels(monkeypatch):
    """The twin that must turn red: weights of 15 bits, as quick resizers take them."""
    exact, pixels = resizing.weights, noise(1, 300, 300)
    same = resizing.resize(pixels, (224, 224), Resampling.BICUBIC)

    def coarse(*sizes):
        first, count, weight = exact(*sizes)
        return first, count, (weight + 64) // 128 * 128

    monkeypatch.setattr(resizing, "weights", coarse)
    assert 0.001 < (resizing.resize(pixels, (224, 224), Resampling.BICUBIC) != same).mean() < 0.5
    assert not resizing.agrees()


def test_what_pillow_may_do_in_another_order_is_left_to_it():
    assert resizing.suits((300, 200), (224, 224), Resampling.BICUBIC) and resizing.suits(
        (300, 300), (224, 224), Resampling.BILINEAR
    )
    for old, new in (((200, 300), (224, 224)), ((300, 200), (300, 20)), ((4000, 3000), (224, 224))):
        assert not resizing.suits(old, new, Resampling.BICUBIC)
    assert not resizing.suits((300, 200), (224, 224), Resampling.LANCZOS)


@pytest.mark.parametrize(
    "square", [Square(224), Square(224, 224), Square(64, 96), Square(352, 0, Resampling.BILINEAR)]
)
def test_squares_are_the_same_without_numba(square, monkeypatch):
    images = [
        Image.fromarray(noise(seed, *size))
        for seed, size in enumerate(
            [(500, 400), (400, 500), (97, 97), (1300, 200), (224, 224), (64, 64)]
        )
    ]
    found = [square(image) for image in images]
    monkeypatch.setattr(pictures, "resizing", lambda: None)
    assert all(
        made.shape == (square.side, square.side, 3) and np.array_equal(made, square(image))
        for made, image in zip(found, images)
    )


def test_a_pillow_that_counts_otherwise_does_it_itself(monkeypatch):
    monkeypatch.setattr(resizing, "agrees", lambda: False)
    pictures.resizing.cache_clear()
    try:
        assert pictures.resizing() is None
        assert Square(32)(Image.fromarray(noise(2, 50, 40))).shape == (32, 32, 3)
    finally:
        monkeypatch.undo()
        pictures.resizing.cache_clear()
    assert pictures.resizing() is resizing
