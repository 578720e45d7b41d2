"""Scorers: an item becomes ten floats, higher is better. A new technique is one function here; a new text one entry of TEXTS."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..data.items import CANDIDATES, Item
from ..data.sets import VwsdSet
from ..data.sources import Place
from ..encoders.store import VectorStore
from ..errors import VwsdError

PART = 256   # items whose vectors are in memory at once
TEXTS: dict[str, Callable[[Item], str]] = {
    "word": lambda item: item.target,
    "phrase": lambda item: item.phrase,
    "this_is": lambda item: f"This is {item.phrase}.",  # the organisers' second prompt
}


def texts_of(items: Sequence[Item], variant: str) -> list[str]:
    """The text of each item under a variant of TEXTS; VwsdError lists them."""
    if variant not in TEXTS:
        raise VwsdError(f"no text variant {variant!r}", remedy=f"Variants: {', '.join(TEXTS)}.")
    return [TEXTS[variant](item) for item in items]


def cosine_scores(data: VwsdSet, store: VectorStore, texts: Sequence[str], missing: dict[str, list[str]] | None = None) -> np.ndarray:
    """Cosine of each item's text with its ten pictures: [n, 10] float64.

    `missing` (item id -> image names) are not looked for and get -inf. Every distinct picture and text is encoded once.
    """
    absent = {name for names in (missing or {}).values() for name in names}
    places = {c: data.path(c) for c in dict.fromkeys(c for item in data.items for c in item.candidates) if c not in absent}
    store.fill_images(places.values())
    parts = [_part(data.items[start:start + PART], texts[start:start + PART], places, store) for start in range(0, len(data.items), PART)]
    return np.concatenate([np.zeros((0, CANDIDATES)), *parts])


def _part(items: Sequence[Item], texts: Sequence[str], places: dict[str, Place], store: VectorStore) -> np.ndarray:
    """Scores [n, 10] of a few items, so that no more of the vectors is ever in memory; a picture without a place gets -inf."""
    there = np.array([[c in places for c in item.candidates] for item in items])                            # [n, 10]
    pictures = np.zeros((*there.shape, store.encoder.dim))                                                  # [n, 10, d]
    pictures[there] = store.images([places[c] for item in items for c in item.candidates if c in places])
    scores = np.einsum("ncd,nd->nc", pictures, store.texts(texts).astype(np.float64))
    return np.where(there, scores, -np.inf)
