"""Cells that several tables share: the score of a run, and the paired comparison of two runs on the
same items.
"""

from __future__ import annotations

import numpy as np

from vwsdlib.analysis.metrics import hits, mcnemar, mrr, paired_interval, percent, wilson

from ..facts.predictions import Predictions
from .tables import TOLD, Interval, columns_of, interval

SCORE = columns_of(TOLD["groups"]["scored"])
PAIRED = columns_of(TOLD["groups"]["paired"])


def difference(a: Predictions, b: Predictions) -> dict:
    """b against a on the same items, with 95 % interval and exact p; empty where items differ."""
    if a.meta["data_sha256"] != b.meta["data_sha256"]:
        return {}
    return difference_of(a.ranks == 1, b.ranks == 1)


def difference_of(a: np.ndarray, b: np.ndarray) -> dict:
    """The same for two arrays of right or wrong [n]."""
    only_a, only_b, p = mcnemar(a, b)
    return {
        "only_a": only_a,
        "only_b": only_b,
        "difference": percent(only_b - only_a, len(a)),
        "p": p,
        "difference_ci": interval(*paired_interval(only_a, only_b, len(a))),
    }


def share_cells(k: float, n: int) -> dict:
    """k of n in percent with interval; nothing of nothing is empty."""
    return {"value": percent(k, n), "ci": interval(*wilson(k, n))} if n else {}


def with_ends(value: float, ci: Interval) -> dict:
    """A value and the ends of its interval as a table prints them, to be drawn."""
    return {"value": value, "ci_low": round(ci.low, 1), "ci_high": round(ci.high, 1)}


def score_cells(p: Predictions) -> dict:
    """n, k, hit@1 with interval and MRR of a run."""
    return cells_of(p.ranks)


def cells_of(ranks: np.ndarray) -> dict:
    """The same from ranks [n]."""
    k, n = hits(ranks), len(ranks)
    return {"n": n, "k": k, **share_cells(k, n), "mrr": mrr(ranks)}
