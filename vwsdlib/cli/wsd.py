"""Commands of textual WSD: wsd, wsd-score."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import _say, command


def _wsd_score_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--gold", type=Path, required=True, metavar="KEY", help="gold key: a line an item, its id and its senses, spaces between")
    p.add_argument("--pred", type=Path, required=True, metavar="KEY", help="a system's answers in the same layout, items in any order")
    p.add_argument("--json", action="store_true", help="print JSON instead of a table")


@command(_wsd_score_arguments, "wsd-score")
def wsd_score(o: argparse.Namespace) -> int:
    """Score answers of textual WSD: precision, recall and F1 in percent, as the scorer of the Unified Evaluation Framework does.

    Of several answers to an item each right one counts one over their number. An item without an answer lowers recall alone; answers to
    items that the gold does not list are left out, and said to be.

    Example:
      vwsd wsd-score --gold ALL.gold.key.txt --pred mine.key.txt
    """
    from dataclasses import asdict

    from ..analysis.wsd_scoring import score_answers
    from ..data.wsd import read_key

    gold, answers = read_key(o.gold), read_key(o.pred)
    found = asdict(score_answers(gold, answers))
    if strange := [item_id for item_id in answers if item_id not in gold]:
        print(f"note: {len(strange)} answered ids are not in the gold and are left out, {strange[0]!r} the first", file=sys.stderr)
    _say(found) if o.json else print("\n".join(f"{name:<9}  {value:>7{'d' if isinstance(value, int) else '.2f'}}" for name, value in found.items()))
    return 0
