"""A translator that is poor on purpose: word by word, without order, sense or grammar.

Its dictionary is learnt from EmojiWSD's targets with their English lemmas and from CLDR's names of
emoji: a word gets the English word that IBM's model 1 finds likeliest (Brown et al. 1993, The
Mathematics of Statistical Machine Translation). Joining words are a table, `literal.yml`. Any other
word is copied, which is one of the marks of `vwsdlib.language.quality`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

import yaml

from vwsdlib.data.letters import normalise
from vwsdlib.language.quality import ARTICLES
from vwsdlib.language.replay import Answerer, Answering, one_by_one
from vwsdlib.paths import sha256_bytes, sha256_file

from .emojiwsd.drawings import drawable
from .emojiwsd.names import emoji_names
from .emojiwsd.senses import SENSES_FILE, senses

JOINING_FILE = Path(__file__).with_name("literal.yml")
Pair = tuple[list[str], list[str]]  # words, and the English words that they mean together


def words(text: str) -> list[str]:
    """Words, folded and in Persian letters; what a zero-width non-joiner parts is two."""
    return re.findall(r"[^\W_]+", normalise(text.replace("\u200c", " ")))


@cache
def joining(language: str) -> dict[str, str]:
    """The joining words of a language ("it", "fa") with their English ones."""
    return yaml.safe_load(JOINING_FILE.read_text(encoding="utf-8"))[language]


def named_pairs(language: str) -> Iterator[Pair]:
    """Targets and lemmas of all senses, then names of all emoji; without joining words."""
    for sense in senses():
        yield words(getattr(sense, language)[0]), words(sense.lemma)
    emoji, small = list(drawable()), joining(language)
    for name, one in zip(emoji_names(emoji, language), emoji):
        english = [word for word in words(drawable()[one].name) if word not in ARTICLES]
        yield [word for word in words(name) if word not in small], english


def likeliest(pairs: list[Pair], rounds: int) -> dict[str, str]:
    """Word -> the English word with the largest t(English | word) after some rounds of IBM's model
    1, the first in the alphabet where several have it.
    """
    share: dict[tuple[str, str], float] = defaultdict(lambda: 1.0)
    for _ in range(rounds):
        count, total = defaultdict(float), defaultdict(float)
        for source, english in pairs:
            for meant in english:
                all_of_them = sum(share[word, meant] for word in source)
                for word in source:
                    part = share[word, meant] / all_of_them
                    count[word, meant] += part
                    total[word] += part
        share = {(word, meant): part / total[word] for (word, meant), part in count.items()}
    best: dict[str, tuple[float, str]] = {}
    for (word, meant), value in sorted(share.items()):
        if value > best.get(word, (0, ""))[0]:
            best[word] = (value, meant)
    return {word: meant for word, (_, meant) in best.items()}


@cache
def dictionary(language: str, rounds: int) -> dict[str, str]:
    """Every word that the translator knows in a language, joining words included."""
    return likeliest(list(named_pairs(language)), rounds) | joining(language)


def literal_translator(
    entry: Answerer, source: str, target: str
) -> tuple[dict, Callable[[], Answering]]:
    """Identity and loader of the literal translator."""
    files = [sha256_file(file) for file in (SENSES_FILE, JOINING_FILE)]
    facts = {
        "model": "word by word",
        "revision": f"emoji {version('emoji')}",
        "weights_sha256": sha256_bytes("".join(files).encode()),
        "settings": dict(entry.settings),
    }

    def load() -> Answering:
        known = dictionary(source, entry.settings["rounds"])
        return one_by_one(
            lambda text: " ".join(filter(None, (known.get(word, word) for word in words(text))))
        )

    return facts, load
