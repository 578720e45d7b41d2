"""Looks through the pictures of a set for damage, each once: what was seen is kept by the bytes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL

from ..data import pictures
from ..data.damage import DAMAGED_WAYS, MISSING, TRUNCATED, UNDECODED, Damage, damage_told
from ..data.items import image_names
from ..data.places import Place
from ..data.sets import VwsdSet
from ..errors import VwsdError, known
from ..paths import sha256_file
from .digests import PictureRows
from .shards import KeptRows
from .streams import conditions

CONDITIONS = ("", TRUNCATED, UNDECODED)  # a condition as it is kept: the number of its kind
# of a set's pictures: with more it is not damaged but incomplete, and a night on it is for nothing
MOST_MISSED, A_FEW = 0.01, 3


def look_for_damage(data: VwsdSet, way: str) -> VwsdSet:
    """The set with what is known of damaged pictures, under a way of `data.damage.DAMAGED_WAYS`;
    they are counted in a note on stderr. "stop" looks at nothing: whoever reads the picture stops.

    VwsdError where more than one in a hundred, or all ten of an item, would rank last.
    """
    known("way with damaged pictures", way, DAMAGED_WAYS)
    if way == "stop":
        return data
    names, kinds, places = image_names(data.items), {}, {}
    for name in names:
        place = data.find(name)
        if place is None:
            kinds[name] = MISSING
        else:
            places[name] = place
    for name, code in zip(places, _codes(list(places.values()))):
        if code:
            kinds[name] = CONDITIONS[code]
    damage = Damage(way, len(names), {name: kinds[name] for name in names if name in kinds})
    _refuse_much(data, damage)
    if damage.kinds:
        about = damage_told(damage.facts()["damaged"])
        print(f"note: {data.name} {data.language} {data.split}: {about}", file=sys.stderr)
    return replace(data, damage=damage)


def _codes(places: Sequence[Place]) -> np.ndarray:
    """Number in CONDITIONS of each picture file: [n] uint8."""
    identity = {"decoder": sha256_file(Path(pictures.__file__)), "pillow": PIL.__version__}
    rows = KeptRows("damage", identity, 1, batch=256, dtype=np.uint8)
    return PictureRows(rows, conditions, lambda read: read).of(places)[:, 0]


def _refuse_much(data: VwsdSet, damage: Damage) -> None:
    missed = damage.missed
    remedy = "Complete the set: `vwsd doctor --profile paper` says what is missing, and its source."
    if len(missed) > max(A_FEW, MOST_MISSED * damage.pictures):
        first = next(name for name in damage.kinds if name in missed)
        what = f"{len(missed):,} of {damage.pictures:,} pictures are damaged, the first is {first}"
        raise VwsdError(f"{what}: the set is incomplete", data.name, remedy)
    for item in data.items:
        if missed.issuperset(item.candidates):
            raise VwsdError("all ten pictures of an item are damaged", item.id, remedy)
