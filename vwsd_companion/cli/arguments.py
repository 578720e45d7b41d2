"""Types of arguments that several commands share: a number out of range is refused where it is
typed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path


def at_least(lowest: int) -> Callable[[str], int]:
    """A type for argparse: a whole number written with plain digits, not below `lowest`; anything
    else is refused (exit code 2).

    >>> at_least(0)("5")
    5
    """

    def whole_number(text: str) -> int:
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
        if int(text) < lowest:
            raise argparse.ArgumentTypeError(f"{text} is below {lowest}")
        return int(text)

    return whole_number


def path(text: str) -> Path:
    """A type for argparse: a path that is not empty, which would mean the working folder.

    >>> path("a/b").name
    'b'
    """
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def place(text: str) -> str:
    """A type for argparse: a path or an address, as it is written, that is not empty."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return text


TYPES: dict[str, Callable] = {"path": path, "place": place}  # as arguments.yml names them


class InPlace(argparse.Action):
    """An option in whose presence others need not be given; instead: their names."""

    def __init__(self, *args, instead: Sequence[str], **settings):
        super().__init__(*args, **settings)
        self.instead = instead

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, values)
        for action in parser._actions:
            if action.dest in self.instead:
                action.required = False
