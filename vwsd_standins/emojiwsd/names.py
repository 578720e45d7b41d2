"""CLDR's names of emoji in other languages, from the package `emoji`."""

from __future__ import annotations

from collections.abc import Sequence

from .drawings import package_folder


def emoji_names(emoji: Sequence[str], language: str) -> list[str]:
    """The name of each emoji in a language ("it", "fa"); VwsdError where the package is not
    installed.
    """
    package_folder("emoji")
    from emoji import EMOJI_DATA, config

    config.load_language(language)
    return [EMOJI_DATA[one][language].strip(":").replace("_", " ") for one in emoji]
