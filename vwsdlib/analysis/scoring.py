"""Systems' answers: rankings and scores read from files, and the comparison table of `vwsd score`.

A prediction file is either the official submission (a line an item: the ten names, best first, tab-separated) or a TSV with a
header and columns `score_1` to `score_10` in candidate order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.items import CANDIDATES, Item, normalise, read_lines
from ..errors import VwsdError
from ..paths import write_text
from .metrics import bootstrap_mrr, gold_ranks, hits, mcnemar, mrr, percent, wilson

SCORE_COLUMNS = [f"score_{i + 1}" for i in range(CANDIDATES)]


def read_predictions(path: str | Path, items: Sequence[Item]) -> np.ndarray:
    """Scores [n, 10] of a prediction file in either format; raises VwsdError naming file and line."""
    lines = read_lines(path)
    if not lines:
        raise VwsdError("the prediction file is empty", where=path, remedy="Run the system again.")
    header = lines[0].split("\t")
    has_header = "score_1" in header
    rows = lines[1:] if has_header else lines
    if len(rows) != len(items):
        raise VwsdError(f"{len(rows)} predictions for {len(items)} items", where=path, remedy="Give predictions of exactly this set, a line an item.")
    if has_header:
        return _read_scores(path, header, rows, items)
    return np.array([_submission_scores(row, item, f"{path}:{i + 1}") for i, (row, item) in enumerate(zip(rows, items))])


def _submission_scores(row: str, item: Item, where: str) -> list[float]:
    names = [name.strip() for name in row.split("\t")]
    if sorted(names) != sorted(item.candidates):
        raise VwsdError(f"not a ranking of the ten candidates of {item.phrase!r}", where=where,
                        remedy="A submission holds each item's ten image names, best first, tab-separated, in the data file's order.")
    return [-float(names.index(c)) for c in item.candidates]


def _read_scores(path: str | Path, header: list[str], rows: list[str], items: Sequence[Item]) -> np.ndarray:
    if absent := [c for c in SCORE_COLUMNS if c not in header]:
        raise VwsdError(f"column {absent[0]} is missing", where=f"{path}:1", remedy="Columns score_1 to score_10 are needed, in candidate order.")
    columns = [header.index(c) for c in SCORE_COLUMNS]
    checks = [(header.index(name), field) for name, field in (("target", "target"), ("context", "phrase"), ("phrase", "phrase"), ("gold", "gold"))
              if name in header]
    return np.array([_score_row(row.split("\t"), item, f"{path}:{i + 2}", len(header), columns, checks)
                     for i, (row, item) in enumerate(zip(rows, items))])


def _score_row(fields: list[str], item: Item, where: str, width: int, columns: list[int], checks: list[tuple[int, str]]) -> list[float]:
    if len(fields) != width:
        raise VwsdError(f"{len(fields)} fields, the header has {width}", where=where, remedy="Write the file again.")
    for column, field in checks:  # a shifted or foreign file must not pass as this set's scores
        expected = getattr(item, field)
        if expected is not None and fields[column] and normalise(fields[column]) != normalise(expected):
            raise VwsdError(f"{field} is {fields[column]!r} here and {expected!r} in the data", where=where,
                            remedy="Give predictions of exactly this set, in the data file's order.")
    try:
        scores = [float(fields[c]) for c in columns]
    except ValueError as e:
        raise VwsdError(str(e), where=where, remedy="Scores are decimal numbers with a point.") from None
    if any(math.isnan(s) for s in scores):
        raise VwsdError("a score is not a number (nan)", where=where, remedy="Run the system again; a missing picture is written -inf.")
    return scores


def write_scores(path: str | Path, items: Sequence[Item], scores: np.ndarray) -> None:
    """Write scores [n, 10] as a TSV (full precision) that `read_predictions` takes."""
    lines = ["\t".join(["index", "target", "context", "gold", *SCORE_COLUMNS])]
    for i, (item, row) in enumerate(zip(items, scores)):
        lines.append("\t".join([str(i), item.target, item.phrase, item.gold or "", *(repr(float(s)) for s in row)]))
    write_text(path, "\n".join(lines) + "\n")


def ranking(candidates: Sequence[str], scores: Sequence[float]) -> list[str]:
    """Candidates best first; ties keep candidate order."""
    return [candidates[i] for i in sorted(range(len(candidates)), key=lambda i: -scores[i])]


def summarise(name: str, items: Sequence[Item], scores: np.ndarray) -> dict:
    """One system's line: file, n, k, hit1, mrr and their 95 % intervals (Wilson; bootstrap), all in percent. scores: [n, 10]."""
    ranks = gold_ranks(scores, [item.gold_index for item in items])
    k, n = hits(ranks), len(items)
    (low, high), (mrr_low, mrr_high) = wilson(k, n), bootstrap_mrr(ranks)
    return {"file": name, "n": n, "k": k, "hit1": percent(k, n), "mrr": mrr(ranks), "ci_low": low, "ci_high": high,
            "mrr_ci_low": mrr_low, "mrr_ci_high": mrr_high}


def compare(systems: Sequence[tuple[str, np.ndarray]], items: Sequence[Item]) -> dict:
    """Summary of each (name, scores [n, 10]) and the exact McNemar test of each pair: `{"systems": [...], "pairs": [...]}`."""
    gold = [item.gold_index for item in items]
    right = [(name, gold_ranks(scores, gold) == 1) for name, scores in systems]
    pairs = []
    for (a, right_a), (b, right_b) in itertools.combinations(right, 2):
        only_a, only_b, p = mcnemar(right_a, right_b)
        pairs.append({"a": a, "b": b, "only_a": only_a, "only_b": only_b, "p": p})
    return {"systems": [summarise(name, items, scores) for name, scores in systems], "pairs": pairs}
