"""Sets as `datasets.Dataset`, for those who live in that ecosystem: items with pictures that are decoded only when looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .sets import VwsdSet

if TYPE_CHECKING:
    from datasets import Dataset


def to_dataset(data: VwsdSet) -> Dataset:
    """A row an item: id, language, target, phrase, candidates (names), images (ten, lazy), label (position of the gold, -1 unknown).

    Pictures come as `datasets` decodes them (PIL, mode as stored). Scores are made from `data.pictures.load_picture`, which decides
    more; a missing file gives None.
    """
    from datasets import ClassLabel, Dataset, Features, Image, List, Value

    rows = [{"id": item.id, "language": item.language, "target": item.target, "phrase": item.phrase, "candidates": list(item.candidates),
             "images": [str(path) if (path := data.path(name)).exists() else None for name in item.candidates],
             "label": item.gold_index if item.gold else -1} for item in data.items]
    features = Features({"id": Value("string"), "language": Value("string"), "target": Value("string"), "phrase": Value("string"),
                         "candidates": List(Value("string"), length=10), "images": List(Image(), length=10),
                         "label": ClassLabel(names=[f"candidate_{i + 1}" for i in range(10)])})
    return Dataset.from_list(rows, features=features)
