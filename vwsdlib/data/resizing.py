"""Pillow's resizing of small pictures, bit for bit, in half its time: the same sums, made by numba
for rows side by side.

Thousands of crops or drawings are resized for one map or one set. Faster resizers round otherwise
(torch and Pillow-SIMD count in 16 bits where Pillow counts in 22), and other pixels are another
experiment. These are the same pixels, so no identity says which of the two made them, and where
numba is not installed Pillow does the work. Follows Pillow's Resample.c (Jeffrey A. Clark and
contributors, MIT-CMU).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import i4, i8, njit, types, u1, void
from PIL import Image
from PIL.Image import Resampling

BITS = 22  # of a weight's fraction, as in Pillow: 32 less 8 of a pixel and 2 to spare
HALF, SHIFT, BLACK, WHITE = (
    np.int32(1 << BITS - 1),
    np.int32(BITS),
    np.int32(0),
    np.int32(255),
)  # not Python's numbers, which numba takes for 64 bits
LANES = 64  # rows that are summed side by side
WIDEST = (
    1000  # pixels; turned rows of wider pictures leave the processor's cache, and Pillow is as fast
)
PASS = void(types.Array(u1, 2, "C", readonly=True), u1[:, ::1], i8[::1], i8[::1], i4[:, ::1])


def _bicubic(x: np.ndarray) -> np.ndarray:
    x, a = np.abs(x), -0.5
    return np.where(
        x < 1,
        ((a + 2) * x - (a + 3)) * x * x + 1,
        np.where(x < 2, (((x - 5) * x + 8) * x - 4) * a, 0.0),
    )


def _bilinear(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0.0)


FILTERS = {
    Resampling.BICUBIC: (_bicubic, 2.0),
    Resampling.BILINEAR: (_bilinear, 1.0),
}  # function, half its width


@lru_cache(1024)
def weights(old: int, new: int, resample: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How `old` pixels make `new`: first pixel [new], how many [new], and their weights [new, most]
    as int32 of `BITS` bits.
    """
    function, half = FILTERS[Resampling(resample)]
    scale = old / new
    stretch = max(scale, 1.0)
    centre = (np.arange(new) + 0.5) * scale
    first = np.maximum((centre - half * stretch + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + half * stretch + 0.5).astype(np.int64), old) - first
    places = np.arange(
        count.max() + count.max() % 2
    )  # taken two at a time: the last may weigh nothing
    w = np.where(
        places < count[:, None],
        function((places + first[:, None] - centre[:, None] + 0.5) * (1 / stretch)),
        0.0,
    )
    total = np.zeros(new)
    for column in w.T:  # in Pillow's order: a sum's last bit depends on it
        total += column
    w = w / total[:, None] * (1 << BITS)
    return first, count, np.where(w < 0, w - 0.5, w + 0.5).astype(np.int32)


@njit(PASS, nogil=True, cache=True)
def _down(pixels, out, first, count, weight):
    """[h, k] -> [new h, k]: each new row is a weighted sum of old ones, two at a time, which halves
    the way to memory and back.
    """
    last, width = pixels.shape[0] - 1, pixels.shape[1]
    total = np.empty(width, np.int32)
    for y in range(len(out)):
        total[:] = HALF
        for t in range(0, count[y], 2):
            w, v, one = weight[y, t], weight[y, t + 1], first[y] + t
            other = min(one + 1, last)
            for x in range(width):
                total[x] += np.int32(w * np.int32(pixels[one, x])) + np.int32(
                    v * np.int32(pixels[other, x])
                )
        for x in range(width):
            out[y, x] = np.uint8(min(max(total[x] >> SHIFT, BLACK), WHITE))


@njit(PASS, nogil=True, cache=True)
def _across(pixels, out, first, count, weight):
    """[h, 3 w] -> [h, 3 new w]: the same across; some rows at a time, turned so that what gets the
    same weight lies together.
    """
    height, width = pixels.shape
    turned, total, made = (
        np.zeros((width + 3, LANES), np.uint8),
        np.empty(LANES, np.int32),
        np.empty(LANES, np.uint8),
    )
    for top in range(0, height, LANES):
        rows = min(LANES, height - top)
        for y in range(rows):
            for x in range(width):
                turned[x, y] = pixels[top + y, x]
        for x in range(len(first)):
            for colour in range(3):
                total[:] = HALF
                for t in range(0, count[x], 2):
                    w, v, one = weight[x, t], weight[x, t + 1], 3 * (first[x] + t) + colour
                    for y in range(LANES):
                        total[y] += np.int32(w * np.int32(turned[one, y])) + np.int32(
                            v * np.int32(turned[one + 3, y])
                        )
                for y in range(LANES):
                    made[y] = np.uint8(min(max(total[y] >> SHIFT, BLACK), WHITE))
                for y in range(rows):
                    out[top + y, 3 * x + colour] = made[y]


def suits(old: tuple[int, int], new: tuple[int, int], resample: int) -> bool:
    """Whether `resize` gives Pillow's pixels, and sooner: small pictures no taller than wide, made
    lower by no more than they are made narrower.

    (w, h) each. Of others Pillow 13 may add up columns first, older ones never do (pull request
    9549), and the passes round in between.
    """
    (w, h), (new_w, new_h) = old, new
    return resample in FILTERS and h <= w <= WIDEST and h * new_w <= w * new_h


def resize(pixels: np.ndarray, size: tuple[int, int], resample: int) -> np.ndarray:
    """uint8 [h, w, 3] and (new w, new h) -> uint8 [new h, new w, 3], as `Image.resize` gives it
    where it `suits`: across first, then down.
    """
    (h, w, _), (new_w, new_h) = pixels.shape, size
    pixels = np.ascontiguousarray(pixels).reshape(h, 3 * w)
    if new_w != w:
        across = np.empty((h, 3 * new_w), np.uint8)
        _across(pixels, across, *weights(w, new_w, resample))
        pixels = across
    if new_h != h:
        down = np.empty((new_h, 3 * new_w), np.uint8)
        _down(pixels, down, *weights(h, new_h, resample))
        pixels = down
    return pixels.reshape(new_h, new_w, 3)


def agrees() -> bool:
    """Whether the installed Pillow still counts so, tried on one picture with each filter."""
    noise = np.random.default_rng(0).integers(0, 256, (37, 59, 3), np.uint8)
    return all(
        np.array_equal(
            resize(noise, (29, 31), f), np.asarray(Image.fromarray(noise).resize((29, 31), f))
        )
        for f in FILTERS
    )
