"""Scores that must be numbers before the best one is taken: numpy's arg max takes the first NaN for
the best of all.
"""

from __future__ import annotations

import numpy as np

from .errors import VwsdError

DIVERGED = "the checkpoint has diverged"
EARLIER = "Take a checkpoint that was written earlier, or train again at a lower rate."


def finite(
    scores: np.ndarray,
    what: str = "the model's scores",
    why: str = DIVERGED,
    where: object = "",
    remedy: str = EARLIER,
) -> np.ndarray:
    """`scores` [any shape] themselves; VwsdError, saying how many, where one is NaN or infinite."""
    wrong = int((~np.isfinite(scores)).sum())
    if wrong:
        raise VwsdError(
            f"{what} are not numbers ({wrong:,} of {np.size(scores):,} are NaN or infinite): {why}",
            where,
            remedy,
        )
    return scores


def all_numbers(scores: np.ndarray, what: str) -> np.ndarray:
    """The scores [...] themselves; VwsdError where one is NaN, which an argmax or a sort would take
    for an answer. -inf is a missing picture's.
    """
    wrong = int(np.isnan(scores).sum())
    if wrong:
        raise VwsdError(
            f"{wrong} of {scores.size} scores are no numbers (NaN)",
            what,
            "Nothing is ranked by them; look for a division by zero or an overflow in what made"
            " them.",
        )
    return scores


def best(
    scores: np.ndarray,
    what: str = "the model's scores",
    why: str = DIVERGED,
    where: object = "",
    remedy: str = EARLIER,
) -> int:
    """Place of the highest of `scores` [n], of equals the earlier; VwsdError as of `finite`."""
    return int(np.argmax(finite(scores, what, why, where, remedy)))
