"""Scores that do use the segmentation decoder, and the study's claim about masks as a measurement.

A segmenter gives a mask of logits for a picture and a text. `STATISTICS` turn a mask into one
number; ten numbers are a ranking. The study (Comito 2024) scored CLIPSeg without its decoder;
whether the decoder helps is measured here.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..data.items import Item, normalise
from ..data.pictures import load_picture
from ..data.places import CutShort
from ..data.sets import VwsdSet, key
from ..data.sources import Place
from ..encoders.digests import FileDigests
from ..encoders.registry import Segmenter
from ..encoders.shards import Batch, KeptRows, row_key
from ..encoders.store import VectorStore
from ..encoders.streams import side_by_side
from ..finite import all_numbers
from ..paths import sha256_bytes
from .metrics import gold_ranks, mrr

TOP = 0.05  # share of a mask's places that count as its top
WEIGHTS = tuple(round(0.1 * i, 1) for i in range(11))  # of the mask in a mixture
BOOTSTRAP = 2_000


STATISTICS = {
    "prob_mean": "mean of probabilities",
    "prob_max": "largest probability",  # ranks like the largest logit
    "prob_top": "mean of the top 5 % (probabilities)",
    "prob_area": "share of places above 0.5",
    "logit_mean": "mean of logits",
    "logit_top": "mean of the top 5 % (logits)",
}


def mask_statistics(logits: np.ndarray) -> list[float]:
    """The numbers of STATISTICS, in order, of one mask of logits [s, s]; probabilities rise with
    logits, so one partition serves both tops.
    """
    count = max(1, round(TOP * logits.size))
    top = np.partition(logits, -count, axis=None)[-count:]
    p = sigmoid(logits)
    statistics = (
        p.mean(dtype=np.float64),
        p.max(),
        sigmoid(top).mean(dtype=np.float64),
        (logits > 0).mean(),
        logits.mean(dtype=np.float64),
        top.mean(dtype=np.float64),
    )
    return [float(x) for x in statistics]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow, in the shape [...] and type of x."""
    return 0.5 * (1 + np.tanh(0.5 * x))


class MaskStore:
    """STATISTICS of masks on disk, by picture and text, computed where they are missing; a killed
    run resumes.
    """

    def __init__(self, segmenter: Segmenter, folder: Path | None = None):
        self.segmenter = segmenter
        identity = {**segmenter.identity(), "statistics": [*STATISTICS], "top": TOP}
        self.rows = KeptRows(
            f"masks-{segmenter.name}", identity, len(STATISTICS), batch=64, folder=folder
        )
        self.path = self.rows.folder
        self.digests = FileDigests(self.path.parent / "files")

    def statistics(self, pairs: Sequence[tuple[Place, str]]) -> np.ndarray:
        """(picture file, text) pairs -> [n, len(STATISTICS)] float32; each picture goes through the
        network once a call.
        """
        digests = self.digests.of([path for path, _ in pairs])
        keys = []
        for digest, (path, text) in zip(digests, pairs):
            kind = "mask, truncated kept" if isinstance(path, CutShort) else "mask"
            keys.append(row_key(kind, f"{digest}:{sha256_bytes(text.encode())}"))
        return self.rows.of(keys, dict(zip(keys, pairs)), self._measured, "masks")

    def _measured(self, missing: dict[bytes, tuple[Place, str]]) -> Iterator[Batch]:
        """Pictures side by side, each with all its texts; the texts are read first, together."""
        asked = defaultdict(dict)
        for row, (path, text) in missing.items():
            asked[path][text] = row
        if hasattr(self.segmenter, "read"):
            self.segmenter.read([text for _, text in missing.values()])
        workers = getattr(self.segmenter, "workers", 1)
        yield from side_by_side(self._measure_picture, asked.items(), workers)

    def _measure_picture(self, asked: tuple[Place, dict[str, bytes]]) -> Batch:
        path, texts = asked
        masks = self.segmenter.masks(load_picture(path).image, list(texts))
        return list(texts.values()), np.array([mask_statistics(mask) for mask in masks], np.float32)


def mask_scores(
    data: VwsdSet, store: MaskStore, texts: Sequence[str], further: Sequence[tuple[Place, str]] = ()
) -> dict[str, np.ndarray]:
    """STATISTICS name -> scores [n, 10] of each item's text over its ten pictures; `further` pairs
    are stored while their pictures are looked at.
    """
    pairs = []
    for item, text in zip(data.items, texts):
        pairs += [(data.path(name), text) for name in item.candidates]
    rows = store.statistics([*pairs, *further])[: len(pairs)].astype(np.float64)
    scores = rows.reshape(len(data.items), -1, len(STATISTICS))  # [n, 10, s]
    return {name: scores[..., i] for i, name in enumerate(STATISTICS)}


def standardise(scores: np.ndarray) -> np.ndarray:
    """Each item's ten scores [n, 10] with mean 0 and deviation 1 (0 where all are equal)."""
    scores = np.asarray(scores, np.float64)
    centred = scores - scores.mean(1, keepdims=True)
    spread = centred.std(1, keepdims=True)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)


def mix(cosine: np.ndarray, mask: np.ndarray, weight: float) -> np.ndarray:
    """(1 - weight) * cosine + weight * mask, each standardised within the item: [n, 10]; VwsdError
    where one is no number.
    """
    mixed = (1 - weight) * standardise(cosine) + weight * standardise(mask)
    return all_numbers(mixed, "mixture of cosine and mask")


def choose_weight(cosine: np.ndarray, mask: np.ndarray, gold: Sequence[int]) -> tuple[float, float]:
    """(weight of WEIGHTS with the best MRR on these items, that MRR in percent); the smaller of
    equals. For dev items only. cosine, mask: [n, 10].
    """
    reached = [(mrr(gold_ranks(mix(cosine, mask, w), gold)), -w) for w in WEIGHTS]
    best, negative = max(reached)
    return -negative, best


def shared_target_pairs(data: VwsdSet) -> list[tuple[Item, Item]]:
    """All ordered pairs (item, other) of one target whose phrases mean different things.

    Phrases mean different things when their golds do: another sense where an answer key says
    (EmojiWSD), else another image and another phrase. Items whose gold's picture is missed are left
    out.
    """
    shown = key(data.images)
    meaning = {item.id: shown.get(item.gold, {}).get("sense", item.gold) for item in data.items}
    by_target = defaultdict(list)
    for item in data.items:
        if item.gold not in data.damage.missed:
            by_target[normalise(item.target)].append(item)
    pairs = []
    for group in by_target.values():
        for a, b in itertools.product(group, group):
            if meaning[a.id] != meaning[b.id] and normalise(a.phrase) != normalise(b.phrase):
                pairs.append((a, b))
    return pairs


def foreign_pairs(data: VwsdSet) -> list[tuple[Place, str]]:
    """Of `shared_target_pairs`, the item's gold picture and the other's phrase."""
    return [(data.path(a.gold), b.phrase) for a, b in shared_target_pairs(data)]


def mask_contrasts(data: VwsdSet, store: MaskStore, vectors: VectorStore) -> list[dict]:
    """A record a pair of `shared_target_pairs`: the item's gold picture under its own phrase and
    under the other's.

    `own`, `foreign`: mean of the mask's probabilities; `own_cosine`, `foreign_cosine`: cosines of
    the dual encoder, the control.
    """
    pairs = shared_target_pairs(data)
    if not pairs:
        return []
    golds = vectors.images([data.path(a.gold) for a, _ in pairs]).astype(np.float64)  # [p, d]
    own_cosines = (golds * vectors.texts([a.phrase for a, _ in pairs])).sum(1)  # [p]
    other_cosines = (golds * vectors.texts([b.phrase for _, b in pairs])).sum(1)
    own = store.statistics([(data.path(a.gold), a.phrase) for a, _ in pairs])
    other = store.statistics(foreign_pairs(data))
    records = []
    for i, (a, b) in enumerate(pairs):
        record = {
            "id": a.id,
            "other": b.id,
            "target": normalise(a.target),
            "own": float(own[i][0]),
            "foreign": float(other[i][0]),
            "own_cosine": float(own_cosines[i]),
            "foreign_cosine": float(other_cosines[i]),
        }
        records.append(record)
    return records


def association(
    values: Sequence[float] | np.ndarray,
    right: Sequence[bool] | np.ndarray,
    groups: Sequence[str],
    seed: int = 0,
) -> dict:
    """How far `values` [n] go with being right [n]: area under the ROC curve (0.5: not at all) and
    point-biserial correlation.

    95 % intervals by bootstrap over groups (targets), because items of a target share pairs; p by
    2,000 permutations of `right`. VwsdError where a value is no number.
    """
    values = all_numbers(np.asarray(values, np.float64), "association with being right")
    right, rng = np.asarray(right, bool), np.random.default_rng(seed)
    number = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    drawn = rng.integers(0, len(number), (BOOTSTRAP, len(number)))
    of_groups = np.stack([np.bincount(some, minlength=len(number)) for some in drawn])
    times = of_groups[:, [number[g] for g in groups]]  # [b, n]: how often an item is drawn
    right_drawn = times @ right
    times = times[(right_drawn > 0) & (right_drawn < times.sum(1))]  # draws that hold both kinds
    once = np.ones((1, len(values)))
    (auc,), (r,) = _auc(values, right, once), _correlation(values, right, once)
    auc_low, auc_high = np.nanpercentile(_auc(values, right, times), [2.5, 97.5])
    r_low, r_high = np.nanpercentile(_correlation(values, right, times), [2.5, 97.5])
    shuffled = np.stack([rng.permutation(right) for _ in range(BOOTSTRAP)])  # [b, n]
    by_chance = _auc(values, shuffled, np.ones(shuffled.shape))
    further = np.abs(by_chance - 0.5) >= abs(auc - 0.5) - 1e-12
    return {
        "n": len(values),
        "k": int(right.sum()),
        "targets": len(number),
        "auc": float(auc),
        "auc_low": float(auc_low),
        "auc_high": float(auc_high),
        "r": float(r),
        "r_low": float(r_low),
        "r_high": float(r_high),
        "p": float((1 + further.sum()) / (BOOTSTRAP + 1)),
    }


def _auc(values: np.ndarray, right: np.ndarray, times: np.ndarray) -> np.ndarray:
    """[b]: chance that a right item's value lies above a wrong one's, ties half (Mann-Whitney),
    where items count `times` [b, n].
    """
    order = values.argsort()
    levels = np.flatnonzero(np.diff(values[order], prepend=np.nan))  # where another value begins
    above = np.add.reduceat((times * right)[:, order], levels, axis=1)  # [b, levels]
    below = np.add.reduceat((times * ~right)[:, order], levels, axis=1)
    with np.errstate(invalid="ignore"):  # one kind alone: no number
        return (above * (below.cumsum(1) - below / 2)).sum(1) / (above.sum(1) * below.sum(1))


def _correlation(values: np.ndarray, right: np.ndarray, times: np.ndarray) -> np.ndarray:
    """[b]: Pearson's correlation where items count `times` [b, n]; no number where all values or
    all answers are alike.
    """
    share = times / times.sum(1, keepdims=True)
    x, y = (some - (share @ some)[:, None] for some in (values, right))  # [b, n]
    with np.errstate(invalid="ignore"):
        return (share * x * y).sum(1) / np.sqrt((share * x**2).sum(1) * (share * y**2).sum(1))
