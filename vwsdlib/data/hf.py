"""Sets as `datasets.Dataset`, for those who live in that ecosystem: items with pictures that are
decoded only when looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .items import image_names
from .places import Place, remote
from .sets import VwsdSet
from .sources import picture_bytes

if TYPE_CHECKING:
    from datasets import Dataset


def to_dataset(data: VwsdSet) -> Dataset:
    """A row an item: id, language, target, phrase, candidates (names), images (ten, lazy), label
    (position of the gold, -1 unknown).

    Pictures come as `datasets` decodes them (PIL, mode as stored): files on disk are named, those
    in archives or at a URL are held as their bytes, each distinct one read once. Scores are made
    from `data.pictures.load_picture`, which decides more; a missing file gives None. Raises
    VwsdError for a picture that cannot be read.
    """
    from datasets import ClassLabel, Dataset, Features, Image, List, Value

    held = {name: _held(data.find(name)) for name in image_names(data.items)}
    rows = []
    for item in data.items:
        rows.append(
            {
                "id": item.id,
                "language": item.language,
                "target": item.target,
                "phrase": item.phrase,
                "candidates": list(item.candidates),
                "images": [held[name] for name in item.candidates],
                "label": item.gold_index if item.gold else -1,
            }
        )
    features = Features(
        {
            "id": Value("string"),
            "language": Value("string"),
            "target": Value("string"),
            "phrase": Value("string"),
            "candidates": List(Value("string"), length=10),
            "images": List(Image(), length=10),
            "label": ClassLabel(names=[f"candidate_{i + 1}" for i in range(10)]),
        }
    )
    return Dataset.from_list(rows, features=features)


def _held(place: Place | None) -> str | dict | None:
    """What `datasets` takes for a picture: a file's path, or bytes where there is no file."""
    if place is None:
        return None
    if not remote(place):
        return str(place)
    name = str(place).partition("::")[0].rpartition("/")[2]
    return {"path": name, "bytes": picture_bytes(place)}
