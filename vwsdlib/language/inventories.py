"""Inventories of senses by name, and V-WSD questions asked as textual ones: the target in its
phrase, with the senses that an inventory has of it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence

from ..data.items import Item
from ..data.wordnet import WordNet, load_wordnet
from ..data.wsd import WsdItem
from ..registry import Line, Registry
from .quality import words

# plurals; Persian ye of the ezafe
ENDINGS = (("s", ""), ("es", ""), ("ies", "y"), ("\u06cc", ""))
# language -> where a word that lost its vowel ends and the next begins: l'ancora, dell\u2019aquila,
# un'altra
ELISIONS = {"it": re.compile("(?<=[^\\W\\d_]['\u2019\u02bc\u2032\u00b4`\uff07])(?=[^\\W\\d_])")}

# (lemma, language) -> (sense ids, glosses)
Inventory = Callable[[str, str], tuple[tuple[str, ...], tuple[str, ...]]]


def english_inventory(look_up: Callable[[str], list[tuple[str, str]]]) -> Inventory:
    """An inventory of English lemmas, by a function lemma -> (sense id, gloss) pairs; other
    languages have none.
    """

    def inventory(lemma: str, language: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        pairs = look_up(lemma) if language == "en" else []
        return tuple(key for key, _ in pairs), tuple(gloss for _, gloss in pairs)

    return inventory


def wordnet_inventory(wordnet: WordNet | None = None) -> Inventory:
    """Senses of an English lemma under all parts of speech in WordNet's order: nouns, verbs,
    adjectives, adverbs; other languages have none.
    """
    book = wordnet or load_wordnet()

    def look_up(lemma: str) -> list[tuple[str, str]]:
        senses = [sense for pos in "nvar" for sense in book.candidates(lemma, pos)]
        return [(sense.key, sense.gloss) for sense in senses]

    return english_inventory(look_up)


INVENTORIES = Registry(
    Line, "vwsdlib.inventories", {"wordnet": Line(wordnet_inventory, "WordNet's senses")}
)


def as_wsd_items(items: Sequence[Item], inventory: Inventory) -> list[WsdItem]:
    """V-WSD questions as WSD items: the phrase as tokens, the target's span in it (all of it where
    it is not found), the target's senses.

    Words that an apostrophe joins in Italian are tokens of their own (`l'ancora`), glued so that
    the phrase stays as it is. There are no golds: the gold of a V-WSD question is a picture. A
    warning counts the targets that do not stand in their phrases.
    """
    asked, lost = [], []
    for item in items:
        tokens, glued = _tokens(item.phrase, item.language)
        span = _locate(_tokens(item.target, item.language)[0], tokens)
        if span is None:
            lost.append(item)
            span = (0, len(tokens) - 1)
        keys, glosses = inventory(item.target, item.language)
        about = (item.id, item.language, item.target, "", tokens, span)
        asked.append(WsdItem(*about, keys, glosses, (), glued=glued))
    if lost:
        warnings.warn(
            f"{len(lost)} of {len(asked)} targets do not stand in their phrases, {lost[0].target!r}"
            f" of {lost[0].id!r} the first; there the whole phrase is marked as the target",
            stacklevel=2,
        )
    return asked


def _tokens(text: str, language: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Words of a text, and the places of those that follow the one before without a space."""
    elided = ELISIONS.get(language)
    tokens: list[str] = []
    glued: list[int] = []
    for word in text.split():
        parts = elided.split(word) if elided else [word]
        glued += range(len(tokens) + 1, len(tokens) + len(parts))
        tokens += parts
    return tuple(tokens), tuple(glued)


def _locate(target: Sequence[str], tokens: Sequence[str]) -> tuple[int, int] | None:
    """Where the target's words stand: as they are, else inflected; None where they do not."""
    wanted, there = (["".join(words(word)) for word in some] for some in (target, tokens))
    if not any(wanted):
        return None
    for alike in (str.__eq__, _inflected):
        for start in range(len(there) - len(wanted) + 1):
            if all(map(alike, wanted, there[start : start + len(wanted)])):
                return start, start + len(wanted) - 1
    return None


def _inflected(one: str, other: str) -> bool:
    return not _forms(one).isdisjoint(_forms(other))


def _forms(word: str) -> set[str]:
    forms = {word}
    for end, instead in ENDINGS:
        if word.endswith(end) and len(word) > len(end) + 1:
            forms.add(word.removesuffix(end) + instead)
    return forms
