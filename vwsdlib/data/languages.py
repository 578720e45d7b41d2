"""Languages by code: what a data file's name says, what the user says, and what a code is called."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import VwsdError

NAMES = {"en": "English", "it": "Italian", "fa": "Farsi", "de": "German", "es": "Spanish", "fr": "French", "pt": "Portuguese", "nl": "Dutch"}
OTHER_CODES = {"eng": "en", "ita": "it", "fas": "fa", "per": "fa"}
WORDS = {name.lower(): code for code, name in NAMES.items()} | {"persian": "fa"}
OFFICIAL_NAME = re.compile(r"(?:(?:en|it|fa)\.test|train|trial)\.data\b.*")
ARABIC_LETTER = re.compile(r"[\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufeff]")


def language_code(text: str) -> str:
    """The code of a language as people and files write it: `it`, `IT`, `it-IT`, `ita`, `Italian`; VwsdError for anything else."""
    word = re.split(r"[-_]", text.strip().lower())[0]
    code = OTHER_CODES.get(word) or WORDS.get(word) or word
    if not re.fullmatch(r"[a-z]{2,3}", code):
        raise VwsdError(f"{text!r} is no language code", where="--language", remedy="Give two letters, as en, it or fa.")
    return code


def language_name(code: str) -> str:
    """What a language is called, or its code where no name is known."""
    return NAMES.get(code, f"{code!r}")


def language_for(data_path: str | Path, given: str | None = None) -> tuple[str, str]:
    """Language code of a data file, and how it is known: "given", "named" or "assumed".

    What the user gives wins. Else the name counts where it is an official one (train and trial are English) or begins with the project's
    languages and a dot, in either case (`it.mine.data.txt`); else English is assumed. VwsdError for a `given` that is no language code.
    """
    if given is not None:
        return language_code(given), "given"
    name = Path(data_path).name
    first, dot, _ = name.partition(".")
    if dot and first.lower() in ("en", "it", "fa"):
        return first.lower(), "named"
    return "en", "named" if OFFICIAL_NAME.fullmatch(name) else "assumed"


def language_note(data_path: str | Path, given: str | None = None) -> str:
    """A sentence for the user where the language of a file is only assumed, else ""."""
    language, how = language_for(data_path, given)
    if how != "assumed":
        return ""
    return f"language of {Path(data_path).name} taken as English ({language}); name it with --language"


def in_arabic_letters(text: str) -> bool:
    """Does a letter of the Arabic script stand in a text? Farsi is written in it."""
    return bool(ARABIC_LETTER.search(text))
