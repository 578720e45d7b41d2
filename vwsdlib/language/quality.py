"""Rules that mark translations in which the sense of the target may be lost: simple enough to be
checked by hand, word by word.

A record is a line of a translations file: `language`, `target`, `phrase`, `phrase_en`, `target_en`.
A mark is a hint, not a verdict: a name or a loanword (`radio`, `Madeira`) rightly stands unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ..data.letters import normalise

JOINING = set(
    "con degli dagli dalla dalle dallo della delle dello nella nelle nello sulla sulle sullo alla"
    " alle allo negli sugli come senza sopra sotto dopo prima fino".split()
)  # of four letters and more, they carry no sense of their own
ARTICLES = frozenset("a an the of to in on at for from with by and or".split())


def words(text: str) -> list[str]:
    """Words for comparing: case folded, without zero-width non-joiners, in Persian letters."""
    return re.findall(r"[^\W_]+", normalise(text))


def stem(word: str) -> str:
    """The first four letters, less the plural's s: "bats" and "bat" are one, so are "dancing" and
    "dance".
    """
    return re.sub(r"(?<=\w\w\w)(?<!s)s$", "", word)[:4]


def copied(record: Mapping) -> bool:
    """A content word of the source (four letters and more in Italian, any word in Arabic script in
    Farsi) stands unchanged in the output.
    """
    shared = set(words(record["phrase"])) & set(words(record["phrase_en"]))
    if record["language"] == "fa":
        return any(re.search(r"[\u0600-\u06ff]", word) for word in shared)
    return any(len(word) >= 4 and word not in JOINING for word in shared)


def target_lost(record: Mapping) -> bool:
    """No word of the target's own translation, articles and prepositions aside, stands in the
    phrase's translation (by `stem`).
    """
    there = {stem(word) for word in words(record["phrase_en"])}
    return not any(
        stem(word) in there for word in words(record["target_en"]) if word not in ARTICLES
    )


def empty(record: Mapping) -> bool:
    """The output holds nothing but punctuation and space."""
    return not words(record["phrase_en"])


def repeats(record: Mapping) -> bool:
    """A word stands three times in a row, or the output has more than four times the words of the
    input.
    """
    out = words(record["phrase_en"])
    thrice = any(a == b == c for a, b, c in zip(out, out[1:], out[2:]))
    return thrice or len(out) > 4 * len(words(record["phrase"]))


RULES: dict[str, Callable[[Mapping], bool]] = {
    "copied": copied,
    "target_lost": target_lost,
    "empty": empty,
    "repeats": repeats,
}


def flags(record: Mapping) -> list[str]:
    """Names of the rules that mark a record, in the registry's order."""
    return [name for name, rule in RULES.items() if rule(record)]
