"""EmojiWSD's scenes as a ground truth for saliency: several drawings on one canvas, a phrase that
means one of them, exact masks.

The truth is the drawing of the phrase's sense; the drawings of the word's *other* senses stand
beside it, so that "somewhere on an object" is not enough.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from ..encoders.store import VectorStore
from ..encoders.streams import side_by_side
from ..errors import VwsdError
from ..paths import quiet
from . import faithfulness
from .saliency import maps


@dataclass(frozen=True)
class Scene:
    """One scene: its file's name, the phrase, the RGB picture, where the sense's drawing is and
    where the others are (bool [h, w]).
    """

    name: str
    phrase: str
    picture: Image.Image
    truth: np.ndarray
    others: np.ndarray


def read_scenes(folder: Path, split: str, count: int) -> list[Scene]:
    """`count` scenes of a split, evenly spread over it (all where it has no more); folder:
    EmojiWSD's.

    Raises VwsdError where there are none.
    """
    records = [
        r
        for r in map(
            json.loads,
            (Path(folder) / "scenes" / "scenes.jsonl").read_text(encoding="utf-8").splitlines(),
        )
        if r["split"] == split
    ]
    if not records:
        raise VwsdError(
            f"no scenes of the split {split!r}",
            folder,
            "Splits are dev and test; `vwsd fetch demo` builds the scenes.",
        )
    chosen = [
        records[i * len(records) // min(count, len(records))]
        for i in range(min(count, len(records)))
    ]
    return [_scene(Path(folder) / "scenes", r) for r in chosen]


def _scene(folder: Path, record: dict) -> Scene:
    index = np.asarray(Image.open(folder / record["mask"]))
    return Scene(
        record["image"],
        record["phrase"],
        Image.open(folder / record["image"]).convert("RGB"),
        index == record["index"],
        (index > 0) & (index != record["index"]),
    )


def scene_maps(
    scenes: Sequence[Scene],
    store: VectorStore | None,
    segmenter,
    methods: Sequence[str],
    settings: Mapping[str, dict] | None = None,
) -> Iterator[tuple[Scene, dict[str, np.ndarray]]]:
    """Each scene with its maps, method -> [h, w]; vectors of crops come from the store. Scenes are
    looked at side by side, one thread each.
    """
    its, one_at_a_time = store.encoder if store else segmenter, Lock()

    def stored(crops):  # itself side by side
        with one_at_a_time:
            return store.pictures(crops)

    def of(scene: Scene) -> tuple[Scene, dict[str, np.ndarray]]:
        found = maps(
            store and its,
            segmenter,
            scene.picture,
            [scene.phrase],
            methods,
            settings,
            store and stored,
        )
        return scene, {method: made[0] for method, made in found.items()}

    made = side_by_side(
        of, scenes, getattr(its, "streams", 0) if store else getattr(its, "workers", 1)
    )
    yield from tqdm(
        made,
        total=len(scenes),
        desc=f"{its.name}: scenes",
        unit="scene",
        leave=False,
        disable=quiet(),
    )


def scene_record(
    scene: Scene,
    model: str,
    method: str,
    found: np.ndarray,
    store: VectorStore | None = None,
    steps: int = 8,
) -> dict:
    """One line of the measurement: pointing, rival (maximum on another drawing), energy, iou, area,
    all shares from 0 to 1; with a store deletion and insertion, mean cosines. found: the map [h, w]
    of the whole canvas.
    """
    record = {
        "scene": scene.name,
        "phrase": scene.phrase,
        "model": model,
        "method": method,
        "area": float(scene.truth.mean()),
        "pointing": faithfulness.pointing(found, scene.truth),
        "rival": faithfulness.pointing(found, scene.others),
        "energy": faithfulness.energy(found, scene.truth),
        "iou": faithfulness.iou(found, scene.truth),
        "deletion": None,
        "insertion": None,
    }
    if store:
        text = store.texts([scene.phrase])[0].astype(np.float64)
        record["deletion"], record["insertion"], _ = faithfulness.deletion_insertion(
            lambda some: store.pictures(some) @ text, scene.picture, found, steps
        )
    return record


def small(found: np.ndarray, longest: int = 96) -> np.ndarray:
    """A map [h, w] for keeping: its longer side at most `longest` pixels."""
    picture = Image.fromarray(np.asarray(found, np.float32))
    scale = min(1.0, longest / max(picture.size))
    return np.asarray(
        picture.resize([max(1, round(scale * side)) for side in picture.size], Image.Resampling.BOX)
    )
