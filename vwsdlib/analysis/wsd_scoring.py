"""Textual WSD scored as the authors of the Unified Evaluation Framework score it (their
Scorer.java; Raganato et al. 2017), in percent.

Of several answers to an item each right one counts one over their number; an answer is right that
is any of the golds. Precision is over the answered items, recall over all, so an unanswered item
lowers recall alone; answers to items that are not in the gold are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..data.wordnet import POS_NAMES, find_pos
from ..data.wsd import SETS, WsdItem
from ..errors import VwsdError
from .metrics import BOOTSTRAP, mcnemar

Key = Mapping[str, Collection[str]]  # item id -> senses
# the five sets whose concatenation is ALL (Raganato et al. 2017)
ALL = ("SE2", "SE3", "SE07", "SE13", "SE15")
POS = ("NOUN", "VERB", "ADJ", "ADV")


@dataclass(frozen=True)
class WsdScore:
    """Precision, recall and F1 in percent; counts of the answered items and of all."""

    precision: float
    recall: float
    f1: float
    attempted: int
    total: int


def credits(gold: Key, answers: Key) -> np.ndarray:
    """[n, 2] float64, a row a gold item: the share of its answers that is right, and 1 where it has
    any.
    """
    rows = np.zeros((len(gold), 2))
    for row, (item_id, golds) in zip(rows, gold.items()):
        given = set(answers.get(item_id, ()))
        if given:
            row[:] = len(given & set(golds)) / len(given), 1
    return rows


def _f1(sums: np.ndarray, total: int) -> np.ndarray:
    """F1 in percent of (right, answered) sums in the last axis: the harmonic mean of right/answered
    and right/total.
    """
    return 200 * sums[..., 0] / (sums[..., 1] + total)


def score_answers(gold: Key, answers: Key) -> WsdScore:
    """The score of a system; precision is 0 where it answers nothing (Scorer.java prints NaN
    there). VwsdError where the gold is empty.
    """
    if not gold:
        raise VwsdError(
            "the gold key is empty",
            remedy="Give a key file: a line an item, its id and its senses.",
        )
    rows = credits(gold, answers)
    (right, attempted), total = rows.sum(0), len(gold)
    return WsdScore(
        float(100 * right / max(attempted, 1)),
        float(100 * right / total),
        float(_f1(rows.sum(0), total)),
        int(attempted),
        total,
    )


@dataclass(frozen=True)
class Alike:
    """Answers that would be right were it not for a `difference` of spelling: how many of how many
    `given`, the first one's item id, F1 without it.
    """

    difference: str
    count: int
    given: int
    first: str
    f1: float


def _without_satellites(sense: str) -> str:
    return re.sub(r"%[35]:", "%3:", sense)


# what two keys of one sense may differ in -> a spelling in which they do not
SPELLINGS: dict[str, Callable[[str], str]] = {
    "%3/%5 (adjective or satellite)": _without_satellites,
    "capital letters": str.lower,
}


def alike_answers(gold: Key, answers: Key) -> list[Alike]:
    """For each of SPELLINGS, the wrong answers that are right in it, where there are any; gold must
    not be empty.
    """
    alike = []
    for difference, spelled in SPELLINGS.items():
        count, given, first = 0, 0, ""
        for item_id, golds in gold.items():
            right = set(map(spelled, golds))
            for sense in answers.get(item_id, ()):
                given += 1
                if sense not in golds and spelled(sense) in right:
                    count, first = count + 1, first or item_id
        if count:
            score = score_answers(_respelled(gold, spelled), _respelled(answers, spelled))
            alike.append(Alike(difference, count, given, first, score.f1))
    return alike


def _respelled(key: Key, spelled: Callable[[str], str]) -> Key:
    return {item_id: list(map(spelled, senses)) for item_id, senses in key.items()}


def f1_without_blanks(gold: Key, answers: Key) -> float:
    """F1 in percent where the empty senses of a key with two spaces in a row are left out, of the
    gold and of the answers.
    """
    return score_answers(_without_blanks(gold), _without_blanks(answers)).f1


def _without_blanks(key: Key) -> Key:
    return {item_id: list(filter(None, senses)) for item_id, senses in key.items()}


def _resampled(rows: np.ndarray, seed: int) -> np.ndarray:
    """[n, m] -> [BOOTSTRAP, m]: sums over items drawn with replacement; counts of equal rows are
    drawn, which is the same.
    """
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    return rng.multinomial(len(rows), counts / len(rows), size=BOOTSTRAP) @ kinds


def f1_interval(gold: Key, answers: Key, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of F1 over items, in percent (10,000 resamples,
    seeded)."""
    low, high = np.percentile(_f1(_resampled(credits(gold, answers), seed), len(gold)), [2.5, 97.5])
    return float(low), float(high)


def compare_answers(gold: Key, a: Key, b: Key, seed: int = 0) -> dict:
    """F1 of b less that of a on the same items: difference, ci_low, ci_high (paired bootstrap,
    points), p and the name of its test.

    Where each system gives at most one answer to an item, p is the exact McNemar test of right
    against not right; where one gives several, approximate randomisation of F1 (Noreen 1989): the
    two systems' answers to an item are swapped at random, 10,000 times.
    """
    of_a, of_b = credits(gold, a), credits(gold, b)
    n = len(gold)
    sums = _resampled(np.hstack([of_a, of_b]), seed)  # [BOOTSTRAP, 4]
    low, high = np.percentile(_f1(sums[:, 2:], n) - _f1(sums[:, :2], n), [2.5, 97.5])
    single = _single(gold, a) and _single(gold, b)
    p = mcnemar(of_a[:, 0] == 1, of_b[:, 0] == 1)[2] if single else _randomised(of_a, of_b, seed)
    return {
        "difference": float(_f1(of_b.sum(0), n) - _f1(of_a.sum(0), n)),
        "ci_low": float(low),
        "ci_high": float(high),
        "p": p,
        "test": "McNemar" if single else "randomisation",
    }


def _single(gold: Key, answers: Key) -> bool:
    """Does no item have more than one answer?"""
    return all(len(set(answers.get(item_id, ()))) <= 1 for item_id in gold)


def _randomised(of_a: np.ndarray, of_b: np.ndarray, seed: int) -> float:
    # what a swap moves from b to a
    kinds, counts = np.unique(of_b - of_a, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    moved = rng.binomial(counts, 0.5, size=(BOOTSTRAP, len(counts))) @ kinds  # [BOOTSTRAP, 2]
    n, a, b = len(of_a), of_a.sum(0), of_b.sum(0)
    observed, drawn = abs(_f1(b, n) - _f1(a, n)), np.abs(_f1(b - moved, n) - _f1(a + moved, n))
    return float((1 + (drawn >= observed - 1e-9).sum()) / (1 + BOOTSTRAP))


def groups(items: Sequence[WsdItem]) -> dict[str, list[WsdItem]]:
    """Items by set, then "ALL" where the five sets of Raganato et al. are there, "ALL6" where SE10
    is too, then by part of speech over all items.

    ALL6, SemEval-2010 included, is what PolCLIP's released code calls ALL; its figures and those of
    ALL must not be compared.
    """
    members: dict[str, list[WsdItem]] = {name: [] for name in SETS.values()}
    for item in items:
        if item.set:
            members[item.set].append(item)
    for whole, parts in (("ALL", ALL), ("ALL6", tuple(SETS.values()))):
        if all(members[part] for part in parts):
            members[whole] = [item for item in items if item.set in parts]
    for pos in POS:
        members[pos] = [item for item in items if POS_NAMES.get(find_pos(item.pos)) == pos]
    members["items"] = list(items)
    return {name: some for name, some in members.items() if some}


def score_groups(items: Sequence[WsdItem], answers: Key) -> list[dict]:
    """One dict a group: group, precision, recall, f1, attempted, total, ci_low, ci_high; the last,
    "items", is over all items given.

    VwsdError where an item has no gold (it would count as wrong) or an id stands twice (one answer
    would count for both).
    """
    blind = [item.id for item in items if not item.golds]
    if blind:
        remedy = "Read the data together with their key."
        raise VwsdError(f"{len(blind)} items have no gold", blind[0], remedy)
    if len({item.id for item in items}) < len(items):
        remedy = "Score the sets one by one, or read the file ALL, whose ids tell the sets apart."
        raise VwsdError("an id stands twice", remedy=remedy)
    lines = []
    for name, members in groups(items).items():
        gold = {item.id: item.golds for item in members}
        low, high = f1_interval(gold, answers)
        score = asdict(score_answers(gold, answers))
        lines.append({"group": name, **score, "ci_low": low, "ci_high": high})
    return lines
