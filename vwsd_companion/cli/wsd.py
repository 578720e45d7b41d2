"""Commands of textual WSD: wsd, wsd-score."""

from __future__ import annotations

import argparse

from vwsdlib.errors import VwsdError, known

from .base import command, print_json
from .notes import note, notes


@command()
def wsd(o: argparse.Namespace) -> int:
    """Run a baseline of textual WSD over a data file; write its answers and, where there is a gold
    key, score them by group.

    Groups: each of the sets in the file, ALL where its five sets are there, each part of speech,
    and all items. F1 in percent; the interval resamples items. An item without candidates stays
    unanswered, which lowers recall; their number is said. A key of some of the instances scores
    these alone, and a note counts the others.

    Example:
      vwsd wsd --data ALL.data.xml --gold ALL.gold.key.txt --method first-sense --out first.key.txt
    """
    from vwsdlib.analysis.wsd_scoring import score_groups
    from vwsdlib.data.wordnet import load_wordnet
    from vwsdlib.data.wsd import write_key
    from vwsdlib.language.wsd_baselines import BASELINES, choose

    method = BASELINES[known("method", o.method, BASELINES)]
    if not (o.gold or o.out):
        raise VwsdError(
            "neither --gold nor --out is given",
            remedy="Give a key to score the answers, a file to write them to, or both.",
        )
    wordnet = None if o.inventory else load_wordnet()
    with notes():
        items = _wsd_items(o, wordnet)
    answers = choose(items, method(items, wordnet, o.encoder))
    blank = [item_id for item_id, answer in answers.items() if not answer]
    if blank:
        note(
            f"{len(blank)} of {len(items)} items have no candidates and stay unanswered,"
            f" {blank[0]!r} the first"
        )
    scored = [item for item in items if item.golds]
    if o.gold:
        _say_alike({item.id: item.golds for item in scored}, answers)
    groups = score_groups(scored, answers) if o.gold else []
    if o.out:
        write_key(o.out, answers)
    if o.json:
        print_json(groups)
    else:
        _print_groups(groups)
    return 0


def _wsd_items(o: argparse.Namespace, wordnet) -> list:
    """Items of --data; VwsdError where there are none."""
    from vwsdlib.data.languages import language_code
    from vwsdlib.data.wsd import read_uef, read_xlwsd
    from vwsdlib.paths import quiet
    from vwsdlib.progress import tqdm

    language = language_code(o.language) if o.language else None
    if o.inventory:
        read = read_xlwsd(o.data, o.gold, o.inventory, language=language)
    else:
        read = read_uef(o.data, o.gold, wordnet, language)
    items = list(tqdm(read, desc=o.data.name, unit=" items", leave=False, disable=quiet()))
    if not items:
        raise VwsdError(
            "the data file has no instances",
            where=o.data,
            remedy="Give a NAME.data.xml, whose targets are <instance> elements.",
        )
    return items


def _say_alike(gold, answers) -> None:
    """A note for each way in which wrong answers differ from the gold in their spelling alone, with
    what F1 would be.
    """
    from vwsdlib.analysis.wsd_scoring import alike_answers, f1_without_blanks, score_answers

    for alike in alike_answers(gold, answers):
        note(
            f"{alike.count} of {alike.given} answers differ from the gold in {alike.difference}"
            f" only and count as wrong, {alike.first!r} the first; F1 would be {alike.f1:.2f}"
        )
    without = f1_without_blanks(gold, answers)
    if without != score_answers(gold, answers).f1:
        note(f"without the empty answers F1 would be {without:.2f}")


def _print_groups(groups: list[dict]) -> None:
    if groups:
        print(f"{'group':<6}  {'F1':>6}  {'95 % interval':>15}  {'attempted/total':>15}")
    for g in groups:
        attempted = f"{g['attempted']}/{g['total']}"
        print(
            f"{g['group']:<6}  {g['f1']:6.2f}  {g['ci_low']:6.2f} - {g['ci_high']:6.2f}"
            f"  {attempted:>15}"
        )


@command("wsd-score")
def wsd_score(o: argparse.Namespace) -> int:
    """Score answers of textual WSD: precision, recall and F1 in percent, as the scorer of the
    Unified Evaluation Framework does.

    Of several answers to an item each right one counts one over their number. An item without an
    answer lowers recall alone; answers to items that the gold does not list are left out, and said
    to be.

    Example:
      vwsd wsd-score --gold ALL.gold.key.txt --pred mine.key.txt
    """
    from dataclasses import asdict

    from vwsdlib.analysis.wsd_scoring import score_answers
    from vwsdlib.data.wsd import read_key

    with notes():
        gold, answers = read_key(o.gold), read_key(o.pred)
    scores = asdict(score_answers(gold, answers))
    strange = [item_id for item_id in answers if item_id not in gold]
    if strange:
        note(
            f"{len(strange)} answered ids are not in the gold and are left out, {strange[0]!r} the"
            " first"
        )
        if len(strange) == len(answers):
            note("not one of the answered ids is in the gold: these may be answers to another set")
    _say_alike(gold, answers)
    if o.json:
        print_json(scores)
        return 0
    for name, value in scores.items():
        kind = "d" if isinstance(value, int) else ".2f"
        print(f"{name:<9}  {value:>7{kind}}")
    return 0
