"""Predictions on disk: the one durable fact. Every number, table and figure after them can be made again without a model.

`results/<profile>/predictions/<run>.jsonl` holds a line an item, `<run>.meta.json` what made them. Cosines are stored as float32 in
their shortest exact spelling; a rank is stored for readers and checked against the scores when it is read.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from .. import paths
from ..analysis.metrics import gold_ranks
from ..data.items import Item
from ..data.sets import VwsdSet
from ..errors import VwsdError

VERSIONED = ("torch", "transformers", "numpy", "pillow")  # packages that can move a score


@dataclass(frozen=True)
class Predictions:
    """One run: `meta` as written, items, the text that was scored, scores [n, 10], ranks of the gold [n]."""

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


@cache
def code_sha256() -> str:
    """Hash of the library's own sources: names and bytes of every .py, .yml and .json below vwsdlib/."""
    files = sorted(p for p in paths.PACKAGE.rglob("*") if p.suffix in {".py", ".yml", ".json"})
    return paths.sha256_bytes(b"\0".join(part for p in files for part in (p.relative_to(paths.PACKAGE).as_posix().encode(), p.read_bytes())))


def versions() -> dict[str, str]:
    """Python (major.minor) and the packages that can move a score; those not installed are left out."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_predictions(folder: Path, run: str, data: VwsdSet, texts: Sequence[str], scores: np.ndarray, *, profile: str, variant: str,
                      identity: dict, limit: int = 0, seed: int = 0) -> Predictions:
    """Write one run below `folder`/predictions; returns it.

    scores: [n, 10], higher is better; texts: the n texts as scored; variant: name of the text or technique; identity: the encoder's.
    Raises VwsdError on a score that is not finite or a count that does not fit.
    """
    scores = np.asarray(scores, np.float32)
    if scores.shape != (len(data.items), 10) or len(texts) != len(data.items):
        raise VwsdError(f"{len(texts)} texts and scores of shape {scores.shape} for {len(data.items)} items", where=run,
                        remedy="Give a text and ten scores for each item of the set, in its order.")
    if not np.isfinite(scores).all():
        raise VwsdError("a score is not finite", where=run, remedy="Look for a broken picture or an encoder that overflows.")
    ranks = gold_ranks(scores, [i.gold_index for i in data.items])
    meta = {"run": run, "dataset": data.name, "language": data.language, "split": data.split, "n": len(data.items), "variant": variant, "profile": profile,
            "limit": limit, "seed": seed, "data_sha256": data.sha256, "code_sha256": code_sha256(), "versions": versions(), **identity}
    lines = [{"id": item.id, "language": item.language, "target": item.target, "phrase": item.phrase, "text": text, "candidates": item.candidates,
              "gold": item.gold, "scores": [float(str(s)) for s in row], "rank": int(rank)}
             for item, text, row, rank in zip(data.items, texts, scores, ranks)]
    stem = Path(folder) / "predictions" / run
    paths.write_text(f"{stem}.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    paths.write_text(f"{stem}.meta.json", json.dumps(meta, indent=1, ensure_ascii=False) + "\n")
    return Predictions(run, meta, data.items, tuple(texts), scores, ranks)


def read_predictions(path: str | Path) -> Predictions:
    """Read one run back; VwsdError where lines are missing or a stored rank is not the one its scores give."""
    path = Path(path)
    meta_path = path.with_name(path.name.removesuffix(".jsonl") + ".meta.json")
    try:
        meta = json.loads(meta_path.read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]  # texts may hold U+2028
        items = tuple(Item(x["id"], x["language"], x["target"], x["phrase"], tuple(x["candidates"]), x["gold"]) for x in lines)
        scores = np.array([x["scores"] for x in lines], np.float32)  # [n, 10]
        ranks = gold_ranks(scores, [i.gold_index for i in items])
        stored = [x["rank"] for x in lines]
    except (OSError, ValueError, KeyError) as e:
        raise VwsdError(f"the predictions cannot be read: {e}", where=path, remedy="Run the notebook that makes them again with --force.") from e
    if len(items) != meta["n"] or stored != ranks.tolist():
        raise VwsdError("the predictions do not agree with themselves (a line is missing or was edited)", where=path,
                        remedy="Run the notebook that makes them again with --force.")
    return Predictions(meta["run"], meta, items, tuple(x["text"] for x in lines), scores, ranks)
