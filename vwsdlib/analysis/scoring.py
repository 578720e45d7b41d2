"""Systems' answers compared: the table of `vwsd score`, the tests of its pairs, and each system
against a baseline.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.items import Item
from ..errors import VwsdError
from ..paths import write_text
from .metrics import (
    bootstrap_mrr,
    gold_ranks,
    hits,
    holm,
    mcnemar,
    mrr,
    paired_interval,
    percent,
    tie_range,
    wilson,
)
from .reading import SCORE_COLUMNS


def write_scores(path: str | Path, items: Sequence[Item], scores: np.ndarray) -> None:
    """Write scores [n, 10] as a TSV (full precision) that `read_submission` takes."""
    lines = ["\t".join(["index", "target", "context", "gold", *SCORE_COLUMNS])]
    for i, (item, row) in enumerate(zip(items, scores)):
        spelled = [repr(float(score)) for score in row]
        lines.append("\t".join([str(i), item.target, item.phrase, item.gold or "", *spelled]))
    write_text(path, "\n".join(lines) + "\n")


def ranking(candidates: Sequence[str], scores: Sequence[float]) -> list[str]:
    """Candidates best first; ties keep candidate order. Raises ValueError for a score that is no
    number, which has no place in an order.
    """
    if np.isnan(np.asarray(scores, dtype=np.float64)).any():
        raise ValueError("a score is not a number")
    return [candidates[i] for i in sorted(range(len(candidates)), key=lambda i: -scores[i])]


def score_line(name: str, items: Sequence[Item], scores: np.ndarray) -> dict:
    """One system's line: file, n, k, hit1, mrr and their 95 % intervals (Wilson; bootstrap), all in
    percent. scores: [n, 10].

    `ties` of the n items are decided by the rule for ties alone; another rule could give a k from
    `k_low` to `k_high`. Raises VwsdError where there is no item.
    """
    if not items:
        raise VwsdError("there are no items to score", name, "Give a set with at least one item.")
    gold = [item.gold_index for item in items]
    ranks = gold_ranks(scores, gold)
    k, n = hits(ranks), len(items)
    (low, high), (mrr_low, mrr_high) = wilson(k, n), bootstrap_mrr(ranks)
    k_low, k_high = tie_range(scores, gold)
    return {
        "file": name,
        "n": n,
        "k": k,
        "hit1": percent(k, n),
        "mrr": mrr(ranks),
        "ci_low": low,
        "ci_high": high,
        "mrr_ci_low": mrr_low,
        "mrr_ci_high": mrr_high,
        "ties": k_high - k_low,
        "k_low": k_low,
        "k_high": k_high,
    }


def compare(systems: Sequence[tuple[str, np.ndarray]], items: Sequence[Item]) -> dict:
    """Summary of each (name, scores [n, 10]) and the exact McNemar test of each pair: `{"systems":
    [...], "pairs": [...]}`.
    """
    gold = [item.gold_index for item in items]
    right = [(name, gold_ranks(scores, gold) == 1) for name, scores in systems]
    pairs = []
    for (a, right_a), (b, right_b) in itertools.combinations(right, 2):
        only_a, only_b, p = mcnemar(right_a, right_b)
        pairs.append({"a": a, "b": b, "only_a": only_a, "only_b": only_b, "p": p})
    return {
        "systems": [score_line(name, items, scores) for name, scores in systems],
        "pairs": pairs,
    }


def against_baseline(
    baseline: tuple[str, np.ndarray],
    systems: Sequence[tuple[str, np.ndarray]],
    items: Sequence[Item],
) -> list[dict]:
    """Each (name, scores [n, 10]) against the baseline on the same items, in their order.

    `difference` is its hit@1 less the baseline's in points, with a 95 % interval
    (`paired_interval`); `p` is McNemar's exact one, `p_holm` the same adjusted for the number of
    systems.
    """
    gold = [item.gold_index for item in items]
    right = gold_ranks(baseline[1], gold) == 1
    tests = []
    for name, scores in systems:
        only_baseline, only_system, p = mcnemar(right, gold_ranks(scores, gold) == 1)
        low, high = paired_interval(only_baseline, only_system, len(items))
        test = {
            "file": name,
            "difference": percent(only_system - only_baseline, len(items)),
            "ci_low": low,
            "ci_high": high,
            "only_baseline": only_baseline,
            "only_system": only_system,
            "p": p,
        }
        tests.append(test)
    return adjusted(tests)


def adjusted(tests: Sequence[dict]) -> list[dict]:
    """The tests with `p_holm`, their `p` (0 to 1) adjusted for the number of all of them."""
    adjusted_ps = holm([test["p"] for test in tests])
    return [test | {"p_holm": p} for test, p in zip(tests, adjusted_ps)]


def mean_over_sets(lines: Sequence[dict]) -> list[dict]:
    """Unweighted mean of hit@1 and MRR, in percent, of each `file` over the sets that its lines
    (`score_line`) are of, as on the task's board.
    """
    means = []
    for file in dict.fromkeys(line["file"] for line in lines):
        own = [line for line in lines if line["file"] == file]
        hit1 = float(np.mean([line["hit1"] for line in own]))
        mean_rank = float(np.mean([line["mrr"] for line in own]))
        means.append({"file": file, "sets": len(own), "hit1": hit1, "mrr": mean_rank})
    return means
