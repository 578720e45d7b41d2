"""Scorers: an item becomes ten floats, higher is better. A new technique is one function and one
entry of SCORERS, here or in another package; a new text one entry of TEXTS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from string import Formatter

import numpy as np

from ..data.items import CANDIDATES, Item, image_names
from ..data.sets import VwsdSet
from ..data.sources import Place
from ..encoders.store import VectorStore
from ..errors import VwsdError, entry_of
from ..finite import all_numbers
from ..registry import Line, Registry

PART = 256  # items whose vectors are in memory at once
TEXTS: dict[str, Callable[[Item], str]] = {
    "word": lambda item: item.target,
    "phrase": lambda item: item.phrase,
    "this_is": lambda item: f"This is {item.phrase}.",  # the organisers' second prompt
}
FIELDS = ("phrase", "word", "target")  # of a template; word and target are the same


def texts_of(
    items: Sequence[Item],
    variant: str,
    translations: Mapping[str, Mapping[str, str]] | None = None,
    definitions: Mapping[str, str] | None = None,
) -> list[str]:
    """The text of each item: a variant of TEXTS or a template as "a photo of {phrase}" (FIELDS), a
    definition behind it after a comma.

    translations: item id -> `phrase_en` (and `target_en`), in place of the item's own. definitions:
    item id -> text, small letters as in the explorer and for PolCLIP; an empty one adds nothing.
    Raises VwsdError for an unknown variant, a template without a field of FIELDS or with another
    one, and a translation that lacks the word the text is made of.
    """
    make = text_maker(variant)
    texts = []
    for item in items:
        text = make(_translated(item, translations) if translations else item)
        if not text.strip():
            raise _no_word(item.id)
        definition = (definitions or {}).get(item.id, "").strip()
        texts.append(f"{text}, {definition.lower()}" if definition else text)
    return texts


def text_maker(variant: str) -> Callable[[Item], str]:
    """How an item becomes a text under a variant of TEXTS or a template; VwsdError as of
    `texts_of`.
    """
    if variant in TEXTS:
        return TEXTS[variant]
    if "{" not in variant and "}" not in variant:
        raise VwsdError(
            f"no text variant {variant!r}",
            remedy=f"Variants: {', '.join(TEXTS)}; or a template as 'a photo of {{phrase}}'.",
        )
    parts = _template_parts(variant)
    return lambda item: "".join(before + _field(item, name) for before, name in parts)


def _template_parts(template: str) -> list[tuple[str, str]]:
    """A template as (text, name of the field behind it) pairs."""
    remedy = "Write as 'a photo of {phrase}'; the fields are {phrase}, {word} and {target}."
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as e:
        raise VwsdError(f"the template {template!r} cannot be read: {e}", remedy=remedy) from None
    names = [name for _, name, _, _ in parsed if name is not None]
    if not names:
        raise VwsdError(
            f"the template {template!r} has no field, so that all items would have one text",
            remedy=remedy,
        )
    for _, name, form, conversion in parsed:
        if name is not None and (name not in FIELDS or form or conversion):
            raise VwsdError(
                f"the template {template!r} asks for {{{name}{':' if form else ''}{form or ''}}}",
                remedy=remedy,
            )
    return [(before, name or "") for before, name, _, _ in parsed]


def _field(item: Item, name: str) -> str:
    if not name:
        return ""
    text = item.phrase if name == "phrase" else item.target
    if not text:
        raise _no_word(item.id)
    return text


def _no_word(item_id: str) -> VwsdError:
    return VwsdError(
        "the translation has no word of its own to make the text of",
        where=item_id,
        remedy="Use the phrase, or give target_en with each translation.",
    )


def _translated(item: Item, translations: Mapping[str, Mapping[str, str]]) -> Item:
    english = translations[item.id]
    return replace(item, phrase=english["phrase_en"], target=english.get("target_en", ""))


def cosine_scores(
    data: VwsdSet,
    store: VectorStore,
    texts: Sequence[str],
    missing: dict[str, list[str]] | None = None,
) -> np.ndarray:
    """Cosine of each item's text with its ten pictures: [n, 10] float64.

    `missing` (item id -> image names) are not looked for and get -inf. Every distinct picture and
    text is encoded once. VwsdError where a cosine is no number.
    """
    absent = {name for names in (missing or {}).values() for name in names}
    places = {name: data.path(name) for name in image_names(data.items) if name not in absent}
    store.tell(texts)
    store.fill_images(places.values())
    parts = [
        _part(data.items[start : start + PART], texts[start : start + PART], places, store)
        for start in range(0, len(data.items), PART)
    ]
    return np.concatenate([np.zeros((0, CANDIDATES)), *parts])


# A scorer takes what `cosine_scores` takes and gives what it gives. Further ones come from other
# packages.
SCORERS = Registry(
    Line, "vwsdlib.scorers", {"cosine": Line(cosine_scores, "cosine of the text with each picture")}
)


def score_with(
    name: str,
    data: VwsdSet,
    store: VectorStore,
    texts: Sequence[str],
    missing: dict[str, list[str]] | None = None,
) -> np.ndarray:
    """Scores [n, 10] float64 of the items by a scorer of SCORERS; -inf for pictures of `missing`.
    VwsdError for an unknown scorer, other shapes, and a score that is no number.
    """
    scores = np.array(entry_of("scorer", name, SCORERS)(data, store, texts, missing), np.float64)
    if scores.shape != (len(data.items), CANDIDATES):
        raise VwsdError(
            f"the scorer {name!r} gives numbers of the shape {scores.shape}, not ten for each of"
            f" {len(data.items)} items",
            remedy="A scorer gives an array [n, 10], a row an item, in the order of candidates.",
        )
    for row, item in zip(scores, data.items):
        absent = set((missing or {}).get(item.id, ()))
        row[[candidate in absent for candidate in item.candidates]] = -np.inf
    return all_numbers(scores, name)


def missed_last(data: VwsdSet, scores: np.ndarray) -> np.ndarray:
    """Scores [n, 10] with the pictures that are missed (`data.damage`) just below all others of
    their item, a missed gold last: finite, as facts are; the very scores where none is missed.
    """
    missed = data.damage.missed
    if not missed:
        return scores
    lowered = np.array(scores, np.float64)
    for row, item in zip(lowered, data.items):
        out = np.array([name in missed for name in item.candidates])
        if out.any():
            low, high = row[~out].min(), row[~out].max()
            step = max(0.01 * (high - low), 1e-4 * max(abs(low), abs(high)), 1e-6)
            row[out] = low - step
            if item.gold in missed:
                row[item.gold_index] = low - 2 * step
    return lowered


def _part(
    items: Sequence[Item], texts: Sequence[str], places: dict[str, Place], store: VectorStore
) -> np.ndarray:
    """Scores [n, 10] of a few items, so that no more of the vectors is ever in memory; a picture
    without a place gets -inf.
    """
    there = np.array([[c in places for c in item.candidates] for item in items])  # [n, 10]
    pictures = np.zeros((*there.shape, store.encoder.dim))  # [n, 10, d]
    pictures[there] = store.images(
        [places[c] for item in items for c in item.candidates if c in places]
    )
    scores = np.einsum("ncd,nd->nc", pictures, store.texts(texts).astype(np.float64))
    return np.where(there, all_numbers(scores, store.encoder.name), -np.inf)
