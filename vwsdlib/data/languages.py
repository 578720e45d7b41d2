"""Languages by code: what people and files write for them, and what each is called."""

from __future__ import annotations

import re

from ..errors import VwsdError
from ..paths import packaged

_TABLE = packaged("data/languages.yml")
NAMES: dict[str, str] = _TABLE["names"]  # code -> English name
CODES: dict[str, str] = _TABLE["others"] | {name.lower(): code for code, name in NAMES.items()}
ARABIC_LETTER = re.compile(r"[\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufeff]")


def language_code(text: str) -> str:
    """The code of a language as people and files write it: `it`, `IT`, `it-IT`, `ita`, `Italian`;
    VwsdError for anything else.
    """
    word = re.split(r"[-_]", text.strip().lower())[0]
    code = CODES.get(word, word)
    if not re.fullmatch(r"[a-z]{2,3}", code):
        raise VwsdError(
            f"{text!r} is no language code", "--language", "Give two letters, as en, it or fa."
        )
    return code


def language_name(code: str) -> str:
    """What a language is called, or its code where no name is known."""
    return NAMES.get(code, f"{code!r}")


def in_arabic_letters(text: str) -> bool:
    """Does a letter of the Arabic script stand in a text? Farsi is written in it."""
    return bool(ARABIC_LETTER.search(text))
