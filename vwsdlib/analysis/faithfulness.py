"""What a saliency map is worth, as numbers: against a mask of where the thing is, and against the
model's own score.

map: floats [h, w]; mask: bool [h, w], true where the thing is. Where a map leaves a choice open
(ties, nothing positive), the value is the mean over all choices: a constant map scores what chance
gives, never a hit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageFilter

from ..errors import VwsdError
from .metrics import BOOTSTRAP, percent, wilson

BLUR = 1 / 16  # radius of the blur that stands for "nothing there", in shorter sides of the picture


def _checked(values: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, mask = np.asarray(values, np.float64), np.asarray(mask, bool)
    if values.shape != mask.shape or not mask.any() or not np.isfinite(values).all():
        raise VwsdError(
            f"a map of shape {values.shape} and a mask of shape {mask.shape} with {mask.sum()}"
            " pixels cannot be compared",
            remedy="Both must have one shape, the mask a pixel at least, and the map numbers only.",
        )
    return values, mask


def pointing(saliency: np.ndarray, mask: np.ndarray) -> float:
    """Pointing game: 1 where the map's maximum lies in the mask, else 0 (Zhang et al. 2018, here
    without their margin of 15 pixels).

    Of several equal maxima the share inside counts.
    """
    saliency, mask = _checked(saliency, mask)
    return float(mask[saliency == saliency.max()].mean())


def energy(saliency: np.ndarray, mask: np.ndarray) -> float:
    """Share of the map's positive part inside the mask (Wang et al. 2020, energy-based pointing
    game).
    """
    saliency, mask = _checked(saliency, mask)
    positive = saliency.clip(0)
    return float(positive[mask].sum() / positive.sum()) if positive.any() else float(mask.mean())


def iou(saliency: np.ndarray, mask: np.ndarray) -> float:
    """Intersection over union at the threshold where the map marks as many pixels as the mask has:
    nothing is tuned.

    Pixels that tie at the threshold count by the share of them that is needed.
    """
    saliency, mask = _checked(saliency, mask)
    k = int(mask.sum())
    threshold = np.partition(saliency, -k, axis=None)[-k]
    above, tied = saliency > threshold, saliency == threshold
    inside = mask[above].sum() + (k - above.sum()) * mask[tied].mean()
    return float(inside / (2 * k - inside))


def chance(mask: np.ndarray) -> dict[str, float]:
    """What a uniform random map is expected to score: the mask's share of the picture a, a, and a /
    (2 - a).
    """
    a = float(np.mean(mask))
    return {"pointing": a, "energy": a, "iou": a / (2 - a)}


def deletion_insertion(
    embed_scores: Callable[[list[Image.Image]], np.ndarray],
    picture: Image.Image,
    saliency: np.ndarray,
    steps: int = 8,
    grid: int = 14,
) -> tuple[float, float, dict[str, np.ndarray]]:
    """Deletion (lower is better) and insertion (higher is better), after Petsiuk et al. 2018:
    (deletion, insertion, curves).

    The map is averaged over grid x grid cells; in `steps` equal steps the most important cells go
    from the picture into its blurred version, or come back. embed_scores: pictures -> [k] cosines
    with the text, called once. Each value is the plain mean cosine over the steps, ends included;
    it is not divided by the whole picture's cosine, which may be near zero or below. curves:
    `share` of cells, `deletion`, `insertion`, each [steps + 1]. VwsdError where the map or a cosine
    is no number.
    """
    sharp, saliency = np.asarray(picture), np.asarray(saliency, np.float64)
    if not np.isfinite(saliency).all():
        raise VwsdError(
            "a map that is not all numbers has no order of places",
            remedy="Look for an overflow in what made it.",
        )
    blur = ImageFilter.GaussianBlur(BLUR * min(picture.size))
    blurred = np.asarray(picture.filter(blur))  # [h, w, 3]
    rank = _cell_ranks(saliency, min(grid, *picture.size))
    share = np.linspace(0, 1, steps + 1)
    taken = [rank < round(s * (rank.max() + 1)) for s in share]  # each [h, w]
    deleted = [np.where(t[..., None], blurred, sharp) for t in taken]
    inserted = [np.where(t[..., None], sharp, blurred) for t in taken]
    altered = [Image.fromarray(pixels) for pixels in deleted + inserted]
    scores = np.asarray(embed_scores(altered), np.float64).reshape(2, steps + 1)
    if not np.isfinite(scores).all():
        raise VwsdError(
            "a cosine of a picture with parts blurred is no number",
            remedy="Look for an overflow in the encoder.",
        )
    curves = {"share": share, "deletion": scores[0], "insertion": scores[1]}
    return float(scores[0].mean()), float(scores[1].mean()), curves


def _cell_ranks(saliency: np.ndarray, grid: int) -> np.ndarray:
    """[h, w] ints: the rank of each pixel's cell, 0 for the cell of the highest mean; ties go to
    the earlier cell.
    """
    rows, columns = (np.arange(side) * grid // side for side in saliency.shape)
    cell = rows[:, None] * grid + columns  # [h, w]
    means = np.bincount(cell.ravel(), saliency.ravel()) / np.bincount(cell.ravel())
    return np.argsort(np.argsort(-means, kind="stable"))[cell]


def _hits(values: np.ndarray, seed: int) -> dict:
    k, n = float(values.sum()), len(values)
    return {"value": percent(k, n), "k": k, "interval": wilson(k, n)}


def _mean(values: np.ndarray, seed: int) -> dict:
    n = len(values)
    times = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=BOOTSTRAP)  # [b, n]
    interval = np.percentile(times @ values / n, [2.5, 97.5])
    return {"value": float(values.mean()), "k": None, "interval": interval}


KINDS: dict[str, Callable[[np.ndarray, int], dict]] = {
    "pointing": _hits,  # in percent, Wilson interval; k may be fractional
    "mean": _mean,  # anything else: its own unit, percentile bootstrap
}


def summary(values: Sequence[float] | np.ndarray, kind: str, seed: int = 0) -> dict:
    """Values [n] of many pictures -> {value, n, k, ci_low, ci_high}, 95 % intervals; kind: a key of
    KINDS, which has the unit.

    Raises VwsdError where there is no value or one is no number.
    """
    values = np.asarray(values, np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise VwsdError(
            f"{len(values)} values, some of them perhaps no numbers, have no mean",
            remedy="Give one number a picture, one picture at least.",
        )
    made = KINDS[kind](values, seed)
    low, high = map(float, made.pop("interval"))
    return {**made, "n": len(values), "ci_low": low, "ci_high": high}
