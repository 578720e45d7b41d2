"""The audit nobody publishes: how far one gets on a set without reading the text or looking at a
pixel.

Frequency is counted over the file's own candidate slots. Where a rule leaves ties, its hit@1 is the
expected one under a uniform choice among them. A set at chance under every rule has no such
shortcut; SemEval's silver train set has a large one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..data.items import CANDIDATES, Item, slots
from ..errors import VwsdError
from .metrics import chance_interval, wilson


def slot_counts(items: Sequence[Item]) -> Counter[str]:
    """How many candidate slots each image name fills."""
    return Counter(slots(items))


def expected_hits(item: Item, values: Sequence[float]) -> float:
    """Chance that a rule which takes the highest of `values` [c], guessing among ties, takes the
    gold: 0 to 1.
    """
    best = max(values)
    tied = [v == best for v in values]
    return tied[item.gold_index] / sum(tied)


RULES = {"rarest": lambda count: -count, "most_frequent": lambda count: count}


def rule_hits(items: Sequence[Item], rule: str) -> np.ndarray:
    """Expected hit of a no-text rule for each item: [n] floats in 0 to 1."""
    counts, value = slot_counts(items), RULES[rule]
    expected = []
    for item in items:
        expected.append(expected_hits(item, [value(counts[c]) for c in item.candidates]))
    return np.array(expected)


def gold_as_distractor(items: Sequence[Item]) -> int:
    """Number of non-gold slots filled by an image that is some item's gold."""
    golds = {item.gold for item in items}
    return sum(name in golds and not gold for name, gold in zip(slots(items), _is_gold(items)))


def audit(items: Sequence[Item]) -> dict:
    """All no-text figures of a set with gold.

    Returns `n`, `chance`, `rarest`, `most_frequent` (hit@1 in percent), `gold_as_distractor`
    (slots), `position_counts` (gold at candidate 1 to 10), `images`, `targets` (distinct),
    `p_gold_once` / `p_gold_repeated` (share of golds, in percent, among slots whose image occurs
    once / more often; None where there is none) and `intervals` (95 %, in percent). Raises
    VwsdError where there is no item, or one without gold.
    """
    if not items:
        raise VwsdError("there are no items to audit", remedy="Give a set with at least one item.")
    n, counts = len(items), slot_counts(items)
    hits = {rule: float(rule_hits(items, rule).sum()) for rule in RULES}
    times = np.array([counts[name] for name in slots(items)])  # [10 n]
    places = Counter(item.gold_index for item in items)
    return {
        "n": n,
        "chance": 100 / CANDIDATES,
        **{rule: 100 * k / n for rule, k in hits.items()},
        "gold_as_distractor": gold_as_distractor(items),
        "position_counts": [places[place] for place in range(CANDIDATES)],
        "images": len(counts),
        "targets": len({item.target for item in items}),
        "p_gold_once": _share_of_gold(items, times == 1),
        "p_gold_repeated": _share_of_gold(items, times > 1),
        "intervals": {
            "chance": chance_interval(n, CANDIDATES),
            **{rule: wilson(k, n) for rule, k in hits.items()},
        },
    }


def _share_of_gold(items: Sequence[Item], chosen: np.ndarray) -> float | None:
    """Share of golds in percent among the chosen slots [10 n]; None where there is none."""
    return float(100 * _is_gold(items)[chosen].mean()) if chosen.any() else None


def _is_gold(items: Sequence[Item]) -> np.ndarray:
    """Of each candidate slot, whether the gold stands there: bool [10 n]."""
    golds: list[bool] = []
    for item in items:
        golds += [name == item.gold for name in item.candidates]
    return np.array(golds, bool)
