"""Predictions: the durable fact of a model over ten pictures an item. Every number, table and
figure after them can be made again without a model.

`results/<profile>/predictions/<run>.jsonl` holds a line an item, `<run>.meta.json` what made them.
Scores are stored with the digits that mean something (`meaningful`); a rank is stored for readers
and checked against the scores when it is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vwsdlib import paths
from vwsdlib.analysis.metrics import gold_ranks
from vwsdlib.data.items import Item, items_sha256
from vwsdlib.data.sets import VwsdSet
from vwsdlib.errors import VwsdError

from .fact import FactKind, provenance, read_fact, write_fact

AGAIN = "Run the notebook that makes them again with --force."
DISAGREE = "the predictions do not agree with themselves"
PREDICTIONS = FactKind(
    what="predictions",
    meta="predictions' meta",
    again=AGAIN,
    counted=f"{DISAGREE}: {{}} lines, and {{}} were written",
    hashed=f"{DISAGREE}: the lines are not those that were written (lines_sha256)",
)
# of a run's largest score. Between processors (AVX-512 and AVX2) cosines of up to 0.5 differ by
# 1e-7 in the middle and by 3e-6 at most: the fifth digit is the last that stays, but for the one
# score in fifty that lies beside the edge of its step
DIGITS = 5


@dataclass(frozen=True)
class Predictions:
    """One run: `meta` as written, items, the text that was scored, scores [n, 10], ranks of the
    gold [n].
    """

    run: str
    meta: dict
    items: tuple[Item, ...]
    texts: tuple[str, ...]
    scores: np.ndarray
    ranks: np.ndarray

    @property
    def encoder(self) -> str:
        """Registry name of the encoder (or segmenter): the first part of the run's name."""
        return self.run.split(".")[0]

    @property
    def variant(self) -> str:
        """Name of the text or technique."""
        return self.meta["variant"]


def write_predictions(
    folder: Path,
    run: str,
    data: VwsdSet,
    texts: Sequence[str],
    scores: np.ndarray,
    *,
    profile: str,
    variant: str,
    identity: dict,
    limit: int = 0,
    seed: int = 0,
) -> Predictions:
    """Write one run below `folder`/predictions; returns it.

    scores: [n, 10], higher is better; texts: the n texts as scored; variant: name of the text or
    technique; identity: the encoder's. Raises VwsdError on a score that is not finite, a count that
    does not fit, or a run that cannot be a file's name.
    """
    paths.safe_name(run, "run")
    scores = np.asarray(scores, np.float32)
    _check_scores(run, data, texts, scores)
    scores = meaningful(scores)
    ranks = gold_ranks(scores, [i.gold_index for i in data.items])
    meta = {
        "run": run,
        "dataset": data.name,
        "language": data.language,
        "split": data.split,
        "n": len(data.items),
        "variant": variant,
        "profile": profile,
        "limit": limit,
        "seed": seed,
        "data_sha256": data.sha256,
        **provenance(),
        **identity,
    }
    lines = []
    for item, text, row, rank in zip(data.items, texts, scores, ranks):
        lines.append(
            {
                "id": item.id,
                "language": item.language,
                "target": item.target,
                "phrase": item.phrase,
                "text": text,
                "candidates": item.candidates,
                "gold": item.gold,
                "scores": [float(str(score)) for score in row],
                "rank": int(rank),
            }
        )
    meta = write_fact(Path(folder) / "predictions" / run, lines, meta)
    return Predictions(run, meta, data.items, tuple(texts), scores, ranks)


def _check_scores(run: str, data: VwsdSet, texts: Sequence[str], scores: np.ndarray) -> None:
    if scores.shape != (len(data.items), 10) or len(texts) != len(data.items):
        raise VwsdError(
            f"{len(texts)} texts and scores of shape {scores.shape} for {len(data.items)} items",
            where=run,
            remedy="Give a text and ten scores for each item of the set, in its order.",
        )
    if not np.isfinite(scores).all():
        raise VwsdError(
            "a score is not finite",
            where=run,
            remedy="Look for a broken picture or an encoder that overflows.",
        )
    if not data.items:
        raise VwsdError(
            "there is no item to predict",
            where=run,
            remedy="Give a set that holds items; --limit counts from 1.",
        )


def meaningful(scores: np.ndarray) -> np.ndarray:
    """Scores rounded to DIGITS digits of the largest; an item whose order or ties would change
    keeps all of its own.

    scores: [n, c] finite, n and c at least 1. Returns [n, c] float32.
    """
    scores = np.asarray(scores, np.float32)
    largest = float(np.abs(scores).max()) or 1.0
    decimals = DIGITS - 1 - math.floor(math.log10(largest))
    # 0.0: of a negative zero the sign is no digit
    rounded = (scores.astype(np.float64).round(decimals) + 0.0).astype(np.float32)
    changed = (_order(scores) != _order(rounded)).any((1, 2))  # [n]
    return np.where(changed[:, None], scores, rounded)


def _order(scores: np.ndarray) -> np.ndarray:
    """[n, c] -> [n, c, c]: 1 where the first of a pair is higher, -1 where lower, 0 of equals."""
    return np.sign(scores[:, :, None] - scores[:, None, :])


def read_predictions(path: str | Path) -> Predictions:
    """Read one run back; VwsdError with file, line and key where anything in it is not as it was
    written.

    Checked: the form of every line and of the meta, ids that are unique, ten candidates with the
    gold among them, ranks that the scores give, the number of lines, the hash of the items
    (`data_sha256`), and the hash of the lines where the meta has one.
    """
    from .shapes import shape

    def make(lines: list, known: Any, meta: dict, _data: bytes) -> Predictions:
        check_lines(lines, known.language, path)
        items = tuple(map(_item, lines))
        scores, ranks = _scores(lines, items, path)
        if items_sha256(items) != known.data_sha256:
            raise VwsdError(
                f"{DISAGREE}: the items are not those that their meta names (data_sha256)",
                where=path,
                remedy=AGAIN,
            )
        texts = tuple(line.text for line in lines)
        return Predictions(known.run, meta, items, texts, scores, ranks)

    return read_fact(path, PREDICTIONS, (shape("line"), shape("prediction_meta")), make)


def _item(line: Any) -> Item:
    return Item(line.id, line.language, line.target, line.phrase, tuple(line.candidates), line.gold)


def _scores(lines: list, items: Sequence[Item], path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Scores [n, 10] and ranks [n]; VwsdError where they do not agree."""
    with np.errstate(over="ignore"):
        scores = np.array([line.scores for line in lines], np.float32)
    unbounded = np.argwhere(~np.isfinite(scores).all(1))
    if len(unbounded):
        raise VwsdError(
            "a score is not finite in single precision",
            where=f"{path}:{unbounded[0, 0] + 1}",
            remedy=AGAIN,
        )
    ranks = gold_ranks(scores, [item.gold_index for item in items])
    wrong = np.argwhere(ranks != [line.rank for line in lines])
    if len(wrong):
        raise VwsdError(
            f"{DISAGREE}: the rank is not the one that the scores give",
            where=f"{path}:{int(wrong[0, 0]) + 1}",
            remedy=AGAIN,
        )
    return scores, ranks


def check_lines(lines: Sequence[Any], language: str, path: str | Path) -> None:
    """VwsdError where an id stands twice, or a line is of another language than the meta says."""
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if line.language != language:
            raise VwsdError(
                f"language is {line.language!r}, and {language!r} in the meta",
                where=f"{path}:{number}",
                remedy=AGAIN,
            )
        first = seen.setdefault(line.id, number)
        if first != number:
            raise VwsdError(
                f"the id {line.id!r} stands in line {first} already",
                where=f"{path}:{number}",
                remedy=AGAIN,
            )
