"""Metrics of the task, each with its uncertainty. Percentages are in percent; k and n are counts of
items.

hit@1 (= HR@1 = accuracy) and MRR over all ten candidates, as in SemEval-2023 Task 1. **Ties go to
the earlier candidate**: that rule alone reproduces the organisers' published Farsi MRR. A gold
without a score (-inf, its picture is missing) ranks last, whatever else is missing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z95 = 1.959963984540054  # 97.5 % point of the standard normal
BOOTSTRAP = 10_000  # resamples
# of a term of the exact test, at least: each rounding costs 2^-512 of it, which no double notices
KEPT_BITS = 512


def gold_ranks(scores: np.ndarray, gold: Sequence[int] | np.ndarray) -> np.ndarray:
    """Rank of the gold candidate, 1 is best; c where the gold's own score is -inf, even if all
    others are.

    scores: [n, c] floats, higher is better, -inf allowed (a missing picture), NaN and +inf refused;
    gold: [n] positions. Returns [n] ints.
    """
    scores = np.asarray(scores, dtype=np.float64)  # [n, c]
    gold = np.asarray(gold, dtype=np.int64)  # [n]
    if np.isnan(scores).any():
        raise ValueError(f"score is not a number at row {int(np.argwhere(np.isnan(scores))[0][0])}")
    if np.isposinf(scores).any():
        raise ValueError(f"score is infinite at row {int(np.argwhere(np.isposinf(scores))[0][0])}")
    own = scores[np.arange(len(gold)), gold][:, None]  # [n, 1]
    earlier = np.arange(scores.shape[1])[None, :] < gold[:, None]  # [n, c]
    ranks = 1 + (scores > own).sum(1) + ((scores == own) & earlier).sum(1)
    return np.where(np.isneginf(own[:, 0]), scores.shape[1], ranks)


def tie_range(scores: np.ndarray, gold: Sequence[int] | np.ndarray) -> tuple[int, int]:
    """Fewest and most items whose gold could rank first, by the rule for ties: (k_low, k_high); a
    tie decides k_high - k_low items.

    scores: [n, c] as of `gold_ranks`; gold: [n] positions. A gold of -inf is never first.
    """
    scores = np.asarray(scores, dtype=np.float64)  # [n, c]
    gold = np.asarray(gold, dtype=np.int64)  # [n]
    best = scores.max(1)  # [n]
    first = (scores[np.arange(len(gold)), gold] == best) & ~np.isneginf(best)
    alone = (scores == best[:, None]).sum(1) == 1
    return int((first & alone).sum()), int(first.sum())


def margins(scores: np.ndarray) -> np.ndarray:
    """Best less second-best score of each item: scores [n, c], c at least 2 -> [n] float64, in the
    scores' unit; 0 where two share the best, -inf included.
    """
    ordered = np.sort(np.asarray(scores, np.float64), axis=1)  # [n, c]
    best, second = ordered[:, -1], ordered[:, -2]
    return np.subtract(best, second, out=np.zeros_like(best), where=best != second)


def hits(ranks: np.ndarray) -> int:
    """k: how many items have their gold ranked first. ranks: [n], from 1."""
    return int((np.asarray(ranks) == 1).sum())


def mrr(ranks: np.ndarray) -> float:
    """Mean reciprocal rank in percent. ranks: [n], from 1."""
    return float(100 * np.mean(1 / np.asarray(ranks)))


def percent(k: float, n: int) -> float:
    """100 k / n: k of n in percent."""
    return 100 * k / n


def wilson(k: float, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion, in percent (Wilson 1927).

    `k` may be fractional: the expected count of a rule that guesses among ties.
    """
    p, z2 = k / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # the last bits must not put k/n outside at 0 or n
    low, high = min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half))
    return 100 * low, 100 * high


def mcnemar(
    a: Sequence[bool] | np.ndarray, b: Sequence[bool] | np.ndarray
) -> tuple[int, int, float]:
    """Exact two-sided McNemar test of two systems on the same items (McNemar 1947).

    a, b: [n] whether each system was right. Returns (only a right, only b right, p); p is 1 where
    they never differ.
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if a.shape != b.shape:
        raise ValueError(f"paired test on {len(a)} and {len(b)} items")
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    return only_a, only_b, sign_test(only_a, only_b)


def sign_test(only_a: int, only_b: int) -> float:
    """Exact two-sided p (0 to 1) of `only_a` against `only_b` under a fair coin: what McNemar's
    exact test is (McNemar 1947).
    """
    n, low = only_a + only_b, min(only_a, only_b)
    term = tail = 1  # of C(n, 0) + ... + C(n, low); integers, so that nothing underflows at any n
    dropped = 0  # bits that both have lost at their right end
    for i in range(1, low + 1):
        term = term * (n - i + 1) // i
        tail += term
        if term.bit_length() > 2 * KEPT_BITS:
            term >>= KEPT_BITS
            tail >>= KEPT_BITS
            dropped += KEPT_BITS
    return min(1.0, tail / 2 ** (n - 1 - dropped)) if n else 1.0


def fisher_test(k: int, n: int, other_k: int, other_n: int) -> float:
    """Exact two-sided p (0 to 1) of k of n against other_k of other_n, n and other_n above 0: all
    tables with these margins that are no likelier than this one (Fisher 1934). In integers.
    """
    right = k + other_k
    ways = [
        math.comb(n, i) * math.comb(other_n, right - i)
        for i in range(max(0, right - other_n), min(n, right) + 1)
    ]
    here = math.comb(n, k) * math.comb(other_n, other_k)
    return sum(way for way in ways if way <= here) / math.comb(n + other_n, right)


def holm(p: Sequence[float]) -> list[float]:
    """p values (0 to 1) adjusted for their number, in their order (Holm 1979): none is below its
    own p or above 1.
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted = [0.0] * len(p)
    largest = 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - place) * p[i]))
        adjusted[i] = largest
    return adjusted


def paired_interval(only_a: int, only_b: int, n: int) -> tuple[float, float]:
    """95 % interval of hit@1 of b less that of a on the same n items, in points (Bonett & Price
    2012, adjusted Wald).
    """
    a, b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = Z95 * math.sqrt((a + b - (b - a) ** 2) / (n + 2))
    return 100 * max(-1.0, b - a - half), 100 * min(1.0, b - a + half)


def bootstrap_mrr(ranks: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of MRR over items, in percent (10,000 resamples, seeded;
    Efron and Tibshirani 1993). ranks: [n], from 1.

    Resamples the counts of the distinct ranks: the same distribution as resampling items, at any n.
    """
    values, counts = np.unique(np.asarray(ranks), return_counts=True)
    n = int(counts.sum())
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(n, counts / n, size=BOOTSTRAP)  # [BOOTSTRAP, distinct ranks]
    low, high = np.percentile(draws @ (1 / values) / n, [2.5, 97.5])
    return 100 * float(low), 100 * float(high)


def chance_interval(n: int, candidates: int = 10) -> tuple[float, float]:
    """Central 95 % range of hit@1 of a uniform guesser over n items, in percent."""
    p = 1 / candidates
    k = np.arange(n + 1)
    log_factorial = np.array([math.lgamma(i + 1) for i in range(n + 1)])
    log_pmf = log_factorial[n] - log_factorial[k] - log_factorial[n - k]
    cdf = np.cumsum(np.exp(log_pmf + k * math.log(p) + (n - k) * math.log1p(-p)))
    return 100 * int(np.searchsorted(cdf, 0.025)) / n, 100 * int(np.searchsorted(cdf, 0.975)) / n
