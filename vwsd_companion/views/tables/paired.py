"""Cells that several tables share: the score of a run, and the paired comparison of two runs on the
same items.
"""

from __future__ import annotations

import numpy as np

from vwsdlib.analysis.metrics import hits, mcnemar, mrr, paired_interval, percent, wilson

from ...facts.predictions import Predictions
from . import Column, interval


def difference(a: Predictions, b: Predictions) -> dict:
    """b against a on the same items: counts right alone, points with 95 % interval, exact McNemar
    p; empty where the items differ.
    """
    if a.meta["data_sha256"] != b.meta["data_sha256"]:
        return {}
    return difference_of(a.ranks == 1, b.ranks == 1)


def difference_of(a: np.ndarray, b: np.ndarray) -> dict:
    """The same for two arrays of right or wrong [n]."""
    only_a, only_b, p = mcnemar(a, b)
    return {
        "only_a": only_a,
        "only_b": only_b,
        "difference": 100 * (only_b - only_a) / len(a),
        "p": p,
        "difference_ci": interval(*paired_interval(only_a, only_b, len(a))),
    }


def score_cells(p: Predictions) -> dict:
    """n, k, hit@1 with interval and MRR of a run."""
    return cells_of(p.ranks)


def cells_of(ranks: np.ndarray) -> dict:
    """The same from ranks [n]."""
    k, n = hits(ranks), len(ranks)
    return {
        "n": n,
        "k": k,
        "value": percent(k, n),
        "ci": interval(*wilson(k, n)),
        "mrr": mrr(ranks),
    }


SCORE = (
    Column("n", "n", "d"),
    Column("k", "k", "d"),
    Column("value", "Hit@1", ".2f"),
    Column("ci", "95 % interval"),
    Column("mrr", "MRR", ".2f"),
)
PAIRED = (
    Column("only_a", "lost", "d"),
    Column("only_b", "won", "d"),
    Column("difference", "Points", "+.2f"),
    Column("difference_ci", "95 % interval"),
    Column("p", "McNemar p", ".2g"),
)
