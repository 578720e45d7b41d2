"""Scorers: an item becomes ten floats, higher is better. A new technique is one function here; a new text one entry of TEXTS."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..data.items import Item
from ..data.sets import VwsdSet
from ..encoders.store import VectorStore
from ..errors import VwsdError

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
    names = [n for n in dict.fromkeys(c for item in data.items for c in item.candidates) if n not in absent]
    vectors = dict(zip(names, store.images([data.path(n) for n in names])))
    nothing = np.full(store.encoder.dim, np.nan, np.float32)
    pictures = np.stack([[vectors.get(c, nothing) for c in item.candidates] for item in data.items]).astype(np.float64)  # [n, 10, d]
    words = store.texts(texts).astype(np.float64)  # [n, d]
    scores = np.einsum("ncd,nd->nc", pictures, words)  # [n, 10]
    return np.where(np.isnan(scores), -np.inf, scores)
