"""Commands of textual WSD: wsd, wsd-score."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import VwsdError, known
from . import _say, command


def _wsd_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--data", type=Path, required=True, metavar="DATA.xml", help="data file of the Unified Evaluation Framework or of XL-WSD")
    p.add_argument("--method", required=True, help="first-sense, lesk (simplified) or encoder (sentence against glosses)")
    p.add_argument("--gold", type=Path, metavar="KEY", help="gold key of the data: score the answers")
    p.add_argument("--inventory", type=Path, metavar="FILE", help="XL-WSD: senses of each lemma, no glosses (default: WordNet 3.0, with glosses)")
    p.add_argument("--encoder", default="lite", help="for --method encoder: name in the registry (default: lite)")
    p.add_argument("--out", type=Path, metavar="ANSWERS.key.txt", help="write the answers here, in the layout of a key")
    p.add_argument("--json", action="store_true", help="print JSON instead of a table: a list, a dict a group, empty without --gold")


@command(_wsd_arguments)
def wsd(o: argparse.Namespace) -> int:
    """Run a baseline of textual WSD over a data file; write its answers and, where there is a gold key, score them by group.

    Groups: each of the sets in the file, ALL where its five sets are there, each part of speech, and all items. F1 in percent; the interval
    resamples items. An item without candidates stays unanswered, which lowers recall; their number is said.

    Example:
      vwsd wsd --data ALL.data.xml --gold ALL.gold.key.txt --method first-sense --out first.key.txt
    """
    from ..analysis.wsd_scoring import score_groups
    from ..data.wordnet import load_wordnet
    from ..data.wsd import write_key
    from ..language.wsd_baselines import BASELINES, choose

    method = BASELINES[known("method", o.method, BASELINES)]
    if not (o.gold or o.out):
        raise VwsdError("neither --gold nor --out is given", remedy="Give a key to score the answers, a file to write them to, or both.")
    wordnet = None if o.inventory else load_wordnet()
    items = _wsd_items(o, wordnet)
    answers = choose(items, method(items, wordnet, o.encoder))
    if blank := [item_id for item_id, answer in answers.items() if not answer]:
        print(f"note: {len(blank)} of {len(items)} items have no candidates and stay unanswered, {blank[0]!r} the first", file=sys.stderr)
    found = score_groups(items, answers) if o.gold else []
    if o.out:
        write_key(o.out, answers)
    _say(found) if o.json else _print_groups(found)
    return 0


def _wsd_items(o: argparse.Namespace, wordnet) -> list:
    """Items of --data; VwsdError where there are none, or where an id stands twice, so that one answer would stand for both."""
    from tqdm.auto import tqdm

    from ..data.wsd import read_uef, read_xlwsd
    from ..paths import quiet

    read = read_xlwsd(o.data, o.gold, o.inventory) if o.inventory else read_uef(o.data, o.gold, wordnet)
    items = list(tqdm(read, desc=o.data.name, unit=" items", leave=False, disable=quiet()))
    if not items:
        raise VwsdError("the data file has no instances", where=o.data, remedy="Give a NAME.data.xml, whose targets are <instance> elements.")
    if len({item.id for item in items}) < len(items):
        raise VwsdError("an id stands twice", where=o.data, remedy="Give the sets one by one, or the file ALL, whose ids tell the sets apart.")
    return items


def _print_groups(found: list[dict]) -> None:
    if found:
        print(f"{'group':<6}  {'F1':>6}  {'95 % interval':>15}  {'attempted/total':>15}")
    for g in found:
        print(f"{g['group']:<6}  {g['f1']:6.2f}  {g['ci_low']:6.2f} - {g['ci_high']:6.2f}  {str(g['attempted']) + '/' + str(g['total']):>15}")


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
