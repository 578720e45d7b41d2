"""Stored predictions in other people's formats: the task's submission, tables of scores, Parquet, a
folder of `datasets`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from vwsdlib.analysis.scoring import ranking, write_scores
from vwsdlib.errors import VwsdError
from vwsdlib.paths import atomic, safe_name, staging_folder, write_bytes, write_text

from .predictions import Predictions

if TYPE_CHECKING:
    from datasets import Dataset

MARK = ".vwsd-export"  # in a folder that `dataset` wrote and may replace
FROM_META = (
    "dataset",
    "language",
    "split",
    "variant",
    "model",
    "revision",
    "weights_sha256",
    "image_variant",
    "dtype",
    "seed",
    "profile",
    "limit",
    "data_sha256",
    "code_sha256",
)


def submission(runs: Sequence[Predictions], folder: Path) -> list[Path]:
    """`prediction.<language>.txt` each, a line an item: the ten names, best first, tab-separated;
    and all in `submission.zip`, as the task's site takes them.

    Raises VwsdError for two runs of one language, and for a run of a part of its set.
    """
    texts: dict[str, str] = {}
    for p in runs:
        language = safe_name(p.meta["language"], p.run)
        name = f"prediction.{language}.txt"
        if name in texts:
            raise VwsdError(
                "a submission has one run a language",
                where=p.run,
                remedy="Name one file for each language.",
            )
        if p.meta.get("limit"):
            raise VwsdError(
                f"the run answers the first {p.meta['limit']} items only",
                where=p.run,
                remedy="Run the notebook again without --limit.",
            )
        texts[name] = "".join(
            "\t".join(ranking(item.candidates, row)) + "\n" for item, row in zip(p.items, p.scores)
        )
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as z:
        for name, text in sorted(texts.items()):
            z.writestr(zipfile.ZipInfo(name), text)  # no clock: the same runs give the same bytes
    return [
        *(write_text(folder / name, text) for name, text in texts.items()),
        write_bytes(folder / "submission.zip", packed.getvalue()),
    ]


def scores(runs: Sequence[Predictions], folder: Path) -> list[Path]:
    """`<run>.tsv` each, in the layout that `vwsd score` reads: columns score_1 to score_10 in the
    order of the candidates.

    Raises VwsdError for two runs of one name.
    """
    twice = {p.run for p in runs if sum(p.run == other.run for other in runs) > 1}
    if twice:
        raise VwsdError(
            "two runs of one name would be one file",
            where=min(twice),
            remedy="Export them into two folders.",
        )
    written = []
    for p in runs:
        written.append(folder / f"{safe_name(p.run, 'run')}.tsv")
        write_scores(written[-1], p.items, p.scores)
    return written


def runs_dataset(runs: Sequence[Predictions]) -> Dataset:
    """All items of all runs, a row each: run, item, text, ten scores, rank of the gold, and of the
    run's meta the keys FROM_META.
    """
    from datasets import Dataset, Features, List, Value

    words = {
        name: Value("string")
        for name in ("run", "id", "target", "phrase", "text", "gold", *FROM_META)
    } | {"seed": Value("int64"), "limit": Value("int64")}
    features = Features(
        words
        | {
            "candidates": List(Value("string"), length=10),
            "scores": List(Value("float32"), length=10),
            "rank": Value("int64"),
        }
    )
    rows = [
        {
            "run": p.run,
            "id": item.id,
            "target": item.target,
            "phrase": item.phrase,
            "text": text,
            "gold": item.gold,
            **{key: p.meta.get(key) for key in FROM_META},
            "candidates": list(item.candidates),
            "scores": row.tolist(),
            "rank": int(rank),
        }
        for p in runs
        for item, text, row, rank in zip(p.items, p.texts, p.scores, p.ranks)
    ]
    return Dataset.from_list(rows, features=features)


def parquet(runs: Sequence[Predictions], folder: Path) -> list[Path]:
    """`predictions.parquet`, the rows of `runs_dataset`: `pandas.read_parquet` and everybody else
    read it.
    """
    with atomic(folder / "predictions.parquet") as temporary:
        runs_dataset(runs).to_parquet(temporary)
    return [folder / "predictions.parquet"]


def dataset(runs: Sequence[Predictions], folder: Path) -> list[Path]:
    """The rows of `runs_dataset` as a folder `predictions` for `datasets.load_from_disk`, in place
    of an earlier export.

    An earlier one stays until the new one is whole. VwsdError where the folder holds something else
    or cannot be written.
    """
    made = runs_dataset(runs)
    with staging_folder(folder / "predictions", MARK, "export") as staging:
        made.save_to_disk(staging)
    return [folder / "predictions"]


FORMATS: dict[str, Callable[[Sequence[Predictions], Path], list[Path]]] = {
    "submission": submission,
    "scores": scores,
    "parquet": parquet,
    "dataset": dataset,
}
