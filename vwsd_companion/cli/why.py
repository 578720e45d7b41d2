"""The command that leads from a cell of a table to its origin."""

from __future__ import annotations

import argparse

from .base import command, print_json


@command()
def why(o: argparse.Namespace) -> int:
    """Say where a cell of a table comes from: rows of numbers, stored facts and their lines, model,
    data, code, notebook and cell.

    The table is asked itself: what moves the cell when it is changed is behind it. Whether the code
    that made a fact is the code that is here is said too.

    Example:
      vwsd why baseline "English lite phrase" Hit@1
      vwsd why ladder 2 k --json
    """
    from ..why import origin_of, origin_text

    answer = origin_of(o.profile, o.table, o.row, o.column)
    print_json(answer.as_json()) if o.json else print(origin_text(answer))
    return 0
