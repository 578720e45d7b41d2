"""Text for comparing, never for scoring: letters that look alike become one.

An Arabic keyboard types other code points for the Persian kaf and yeh, an editor turns straight quotes
into curly ones, a copy from a page brings soft hyphens and no-break spaces. None of them is another word.
"""

from __future__ import annotations

import unicodedata

# Arabic kaf and yeh for the Persian ones; short vowels and the lengthening stroke are often left out.
VOWEL_MARKS = [chr(mark) for mark in range(0x64B, 0x653)]
PERSIAN = str.maketrans({
    "\u0643": "\u06a9", "\u064a": "\u06cc", "\u0649": "\u06cc", "\u0640": "",
    **dict.fromkeys(VOWEL_MARKS, ""),
})
QUOTES_AND_DASHES = str.maketrans({
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u00b4\u0060\u2032", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
})
VARIATION_SELECTORS = range(0xFE00, 0xFE10)   # ask for one drawing of a letter or another
FEW = 3                                       # differing characters that a message spells out


def normalise(text: str) -> str:
    """Text for comparing: NFKC, invisible (Cf) characters out, letters that look alike made one, spaces and case folded.

    The zero-width non-joiner goes too, as it is often left out in Farsi.

    >>> normalise("L\u2019ora  d\u2019ORO") == normalise("l'ora d'oro")
    True
    """
    folded = text.translate(QUOTES_AND_DASHES)   # before NFKC, which parts the acute accent from its space
    composed = unicodedata.normalize("NFKC", "".join(c for c in folded if not _invisible(c)))
    return " ".join(composed.translate(PERSIAN).split()).casefold()


def _invisible(character: str) -> bool:
    return unicodedata.category(character) == "Cf" or ord(character) in VARIATION_SELECTORS


def first_difference(here: str, there: str) -> str:
    """The code points at the first place where two texts that look much alike differ; "" where they differ by more than FEW.

    >>> first_difference("b\u0430nk", "bank")
    'U+0430 here, U+0061 in the data'
    """
    a, b = normalise(here), normalise(there)
    differing = [i for i, (x, y) in enumerate(zip(a, b)) if x != y]
    if a == b or abs(len(a) - len(b)) + len(differing) > FEW:
        return ""
    place = differing[0] if differing else min(len(a), len(b))
    return f"{_code_point(a, place)} here, {_code_point(b, place)} in the data"


def _code_point(text: str, place: int) -> str:
    return f"U+{ord(text[place]):04X}" if place < len(text) else "the end"
