"""The hand-written part of EmojiWSD: lemmas, senses and their text, read from `senses.yml`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

SENSES_FILE = Path(__file__).with_name("senses.yml")
SPLITS = ("dev", "test")


@dataclass(frozen=True)
class Sense:
    """One meaning of a lemma with the one emoji that depicts it.

    `phrases`: two English phrases; `sentences`: two sentences with the target between asterisks;
    `it`, `fa`: (target, phrase); `not_with`: emoji of other senses that would also answer one of
    the phrases and are kept off its candidates.
    """

    id: str
    lemma: str
    emoji: str
    gloss: str
    phrases: tuple[str, str]
    sentences: tuple[str, str]
    it: tuple[str, str]
    fa: tuple[str, str]
    not_with: frozenset[str]

    @property
    def split(self) -> str:
        """dev or test, decided by the lemma alone (about 2 : 3), so that no lemma stands in
        both."""
        digest = hashlib.sha256(f"emojiwsd-split:{self.lemma}".encode()).hexdigest()
        return "dev" if int(digest, 16) % 5 < 2 else "test"


@cache
def senses() -> tuple[Sense, ...]:
    """All senses in file order."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    entries = yaml.load(SENSES_FILE.read_text(encoding="utf-8"), loader)
    made = []
    for entry in entries:
        made += [_sense(entry["lemma"], written) for written in entry["senses"]]
    return tuple(made)


def _sense(lemma: str, written: dict) -> Sense:
    return Sense(
        written["id"],
        lemma,
        written["emoji"],
        written["gloss"],
        tuple(written["phrases"]),
        tuple(written["sentences"]),
        (written["it"]["target"], written["it"]["phrase"]),
        (written["fa"]["target"], written["fa"]["phrase"]),
        frozenset(written.get("not_with", ())),
    )


def sense_emoji() -> frozenset[str]:
    """Every emoji that stands for a sense: never to be trained on by an encoder that is tested
    here.
    """
    return frozenset(s.emoji for s in senses())
