"""Scenes: several emoji on one canvas with exact masks, so that saliency and segmentation have a
ground truth.

Each scene belongs to one sense: its emoji, the other senses of its lemma and some strangers, each
in a jittered cell of a grid, turned and scaled a little, on a plain or a softly textured ground. A
map for the sense's phrase should lie on its emoji and *not* on the other senses': "somewhere on an
object" is not enough.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from itertools import product

import numpy as np
from PIL import Image

from .drawings import STYLES, draw_rgba
from .senses import Sense

SIDE = 384  # pixels
GROUNDS = (
    (250, 250, 250),
    (232, 241, 248),
    (246, 238, 226),
    (230, 243, 230),
    (241, 232, 244),
    (222, 226, 230),
)


def compose(
    sense: Sense, others: Sequence[Sense], rng: random.Random
) -> tuple[Image.Image, Image.Image, list[dict]]:
    """One scene: (RGB picture, mask, objects), sides 384 px.

    The mask is a grey picture: 0 for the ground, i for the i-th object (1-based, the sense's own
    emoji anywhere among them). Objects are dicts of `index`, `sense`, `emoji`, `style`, `box`
    (left, top, right, bottom in pixels).
    """
    cast = [sense, *others]
    rng.shuffle(cast)
    grid = 2 if len(cast) <= 4 else 3
    cells = rng.sample(list(product(range(grid), repeat=2)), len(cast))
    canvas, mask, objects = _ground(rng), np.zeros((SIDE, SIDE), np.uint8), []
    for index, (member, cell) in enumerate(zip(cast, cells), start=1):
        style = rng.choice(STYLES)
        drawing, (left, top) = _place(_drawing(member.emoji, style), cell, SIDE // grid, rng)
        canvas.paste(drawing, (left, top), drawing)
        alpha = np.asarray(drawing)[..., 3] >= 128  # [h, w]: at least half covered
        mask[top : top + drawing.height, left : left + drawing.width][alpha] = index
        rows, columns = np.nonzero(mask == index)
        box = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
        objects.append(
            {"index": index, "sense": member.id, "emoji": member.emoji, "style": style, "box": box}
        )
    return canvas, Image.fromarray(mask), objects


@cache
def _drawing(emoji: str, style: str) -> Image.Image:
    return draw_rgba(emoji, style, 224)


def _ground(rng: random.Random) -> Image.Image:
    """A plain colour, or the same colour under soft blotches (half of the scenes each)."""
    colour = rng.choice(GROUNDS)
    plain = Image.new("RGB", (SIDE, SIDE), colour)
    if rng.random() < 0.5:
        return plain
    coarse = Image.new("L", (12, 12))
    coarse.putdata([rng.randrange(256) for _ in range(144)])
    blotches = coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    darker = Image.new("RGB", (SIDE, SIDE), tuple(c - 34 for c in colour))
    return Image.composite(plain, darker, blotches)


def _place(
    drawing: Image.Image, cell: tuple[int, int], side: int, rng: random.Random
) -> tuple[Image.Image, tuple[int, int]]:
    """The drawing turned by up to 15 degrees, scaled to 70-95 % of its cell, and its top left
    corner inside the cell.
    """
    turned = drawing.rotate(rng.uniform(-15, 15), resample=Image.Resampling.BICUBIC)
    size = round(side * rng.uniform(0.70, 0.95))
    scaled = turned.resize((size, size), Image.Resampling.LANCZOS)
    room = side - size
    return scaled, (cell[0] * side + rng.randint(0, room), cell[1] * side + rng.randint(0, room))
