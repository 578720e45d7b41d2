"""What of a text an encoder gets to see: invisible characters are taken out, what lies beyond its
limit is cut, and either is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from ..data.languages import language_name
from .registry import ENCODERS, Encoder

# Characters that nobody sees and that do not belong to a word's spelling: soft hyphens out of a
# PDF, zero-width spaces, marks of direction.
# The joiners (U+200C, U+200D) do belong to it, in Farsi and in emoji; so do the signs of Arabic
# numbers and the letters of flags.
SINGLES = (0x00AD, 0x061C, 0x180E, 0x200B, 0x200E, 0x200F, 0xFEFF)
BLOCKS = (range(0x202A, 0x202F), range(0x2060, 0x2065), range(0x2066, 0x2070))
NOTES = range(0xFFF9, 0xFFFC)  # between lines
INVISIBLE = dict.fromkeys(chain(SINGLES, *BLOCKS, NOTES))
ARABIC_LETTERS = "\u064a\u0643"  # yeh and kaf of an Arabic keyboard; Farsi writes U+06CC and U+06A9


def visible(text: str) -> str:
    """The text without INVISIBLE characters."""
    return text if text.isascii() else text.translate(INVISIBLE)


def unseen_notes(encoder: Encoder, texts: Sequence[str]) -> list[str]:
    """What an encoder does not get to see of texts, a sentence a kind, counted; empty where it sees
    all.
    """
    said, n = [], len(texts)
    hidden = sum(visible(text) != text for text in texts)
    if hidden:
        said.append(
            f"{hidden} of {n} texts {_holds(hidden)} invisible characters (soft hyphens, zero-width"
            " spaces, marks of direction), which are taken out"
        )
    longest = getattr(encoder, "max_tokens", None)
    if longest:
        counts = encoder.count_tokens([visible(text) for text in texts])
        cut = sum(count > longest for count in counts)
        if cut:
            are, were = ("is", "was") if cut == 1 else ("are", "were")
            said.append(
                f"{cut} of {n} texts {are} longer than {encoder.name}'s {longest} tokens and {were}"
                " cut"
            )
    return said


def _holds(count: int) -> str:
    return "holds" if count == 1 else "hold"


def language_notes(encoder: str, language: str | None, texts: Sequence[str]) -> list[str]:
    """What to know of texts of a language under an encoder: that it was not made for it, or that
    letters are of another keyboard.
    """
    if not language:
        return []
    said, able = [], ENCODERS[encoder.partition("@")[0]].languages
    if language not in able:
        reads = ", ".join(language_name(code) for code in able)
        said.append(
            f"{encoder} does not read {language_name(language)}: it was made for {reads}, and its"
            " scores say little here"
        )
    foreign = sum(not set(text).isdisjoint(ARABIC_LETTERS) for text in texts)
    if language == "fa" and foreign:
        said.append(
            f"{foreign} of {len(texts)} texts {_holds(foreign)} yeh or kaf of an Arabic keyboard"
            " (U+064A, U+0643), which encoders take for other letters than Farsi's own (U+06CC,"
            " U+06A9)"
        )
    return said
