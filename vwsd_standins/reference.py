"""EmojiWSD for the registries: the set, its senses as an inventory, and its own English phrases as
a translator that is right by construction.
"""

from __future__ import annotations

import json

from vwsdlib.data.items import read_items
from vwsdlib.data.sets import VwsdSet

from .emojiwsd import build
from .emojiwsd.senses import senses


def load(language: str, split: str) -> VwsdSet:
    """A part of EmojiWSD, built where it is not."""
    folder = build.build()
    data, gold = (folder / f"{language}.{split}.{kind}.txt" for kind in ("data", "gold"))
    items = tuple(read_items(data, gold))
    return VwsdSet("emojiwsd", language, split, items, folder / "images", build.CREDIT)


def fingerprint() -> str:
    """Hashes of EmojiWSD's text and of its pictures' pixels; it is built where it is not."""
    manifest = json.loads((build.build() / "manifest.json").read_text(encoding="utf-8"))
    return manifest["text"] + manifest["pixels"]


def glosses() -> dict[str, str]:
    """Sense id -> gloss, of the senses that the answer key names."""
    return {sense.id: sense.gloss for sense in senses()}
