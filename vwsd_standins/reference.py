"""EmojiWSD for the registries: the set, its senses as an inventory, and its own English phrases as
a translator that is right by construction.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from vwsdlib.data.items import read_items
from vwsdlib.data.sets import VwsdSet
from vwsdlib.data.wordnet import lemma_form
from vwsdlib.errors import VwsdError
from vwsdlib.language.inventories import Inventory, english_inventory
from vwsdlib.language.replay import Answerer, Answering, one_by_one
from vwsdlib.paths import sha256_file

from .emojiwsd import build
from .emojiwsd.senses import SENSES_FILE, Sense, senses


def emojiwsd_set(language: str, split: str) -> VwsdSet:
    """A part of EmojiWSD, built where it is not."""
    folder = build.build()
    data, gold = (folder / f"{language}.{split}.{kind}.txt" for kind in ("data", "gold"))
    items = tuple(read_items(data, gold))
    return VwsdSet("emojiwsd", language, split, items, folder / "images", build.CREDIT)


def emojiwsd_fingerprint() -> str:
    """Hashes of EmojiWSD's text and of its pictures' pixels; it is built where it is not."""
    manifest = json.loads((build.build() / "manifest.json").read_text(encoding="utf-8"))
    return manifest["text"] + manifest["pixels"]


def emojiwsd_glosses() -> dict[str, str]:
    """Sense id -> gloss, of the senses that the answer key names."""
    return {sense.id: sense.gloss for sense in senses()}


def emojiwsd_inventory() -> Inventory:
    """EmojiWSD's own senses of an English lemma in file order; other languages have none."""

    def look_up(lemma: str) -> list[tuple[str, str]]:
        wanted = lemma_form(lemma)
        own = [sense for sense in senses() if lemma_form(sense.lemma) == wanted]
        return [(sense.id, sense.gloss) for sense in own]

    return english_inventory(look_up)


def reference_translator(
    entry: Answerer, source: str, target: str
) -> tuple[dict, Callable[[], Answering]]:
    """Identity and loader of the reference: EmojiWSD's own first English phrase of the sense."""
    facts = {
        "model": "EmojiWSD",
        "revision": SENSES_FILE.name,
        "weights_sha256": sha256_file(SENSES_FILE),
        "settings": dict(entry.settings),
    }
    answer = one_by_one(lambda phrase: reference_sense(phrase, source).phrases[0])
    return facts, lambda: answer


def reference_target(phrase: str, language: str) -> str:
    """English lemma of the sense that a phrase means."""
    return reference_sense(phrase, language).lemma


def reference_sense(phrase: str, language: str) -> Sense:
    """EmojiWSD's sense of a phrase: each Italian and Farsi phrase has one; VwsdError for any
    other."""
    for sense in senses():
        if getattr(sense, language)[1] == phrase:
            return sense
    raise VwsdError(
        f"no reference translation of {phrase!r}",
        remedy="The reference knows EmojiWSD's phrases alone; choose another translator.",
    )
