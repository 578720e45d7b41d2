"""A view is one record with two faces: what a name of `run.table(name)` and `run.figure(name)`
stands for.

The module of a notebook registers its views as it is loaded: a function `<name>_table` under
`@table` of tables.py, a function `<name>_figure` under `@figure` of figures.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..facts.collect import Collection

Face = Callable[[Collection], Any]


@dataclass
class View:
    """A table, a figure, or both under one name; each gives None where it has no facts."""

    name: str
    table: Face | None = None
    figure: Face | None = None
    pictures: bool = False  # whether the figure shows pictures of a set, and credits them

    @property
    def about(self) -> str:
        """What the figure shows, in words."""
        return " ".join((self.figure.__doc__ or "").split())


VIEWS: dict[str, View] = {}


def view_of(function: Face, face: str) -> View:
    """The view that a function is a face of, by its name: `ladder_table` is that of `ladder`."""
    name = function.__name__.removesuffix(f"_{face}")
    return VIEWS.setdefault(name, View(name))


def records_of(c: Collection, name: str) -> list[dict]:
    """The records of a measurement; none where it was not made."""
    return c.measured[name].records if name in c.measured else []
