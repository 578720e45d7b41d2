"""What a command says besides its result: notes on stderr, a line each, so that `--json` on stdout
stays pure.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from vwsdlib.errors import one_line


def note(text: str) -> None:
    """One note."""
    print(f"note: {one_line(text)}", file=sys.stderr)


@contextmanager
def notes() -> Iterator[None]:
    """The library's warnings (UserWarning) as notes, each once; also where an error ends the work,
    since a note may be its cause.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        finally:
            said = [str(warning.message) for warning in caught if warning.category is UserWarning]
            for text in dict.fromkeys(said):
                note(text)
