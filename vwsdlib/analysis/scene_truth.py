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

from ..encoders.store import VectorStore
from ..encoders.streams import side_by_side
from ..errors import VwsdError
from ..paths import cache_dir, quiet
from ..progress import tqdm
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
    path = Path(folder) / "scenes" / "scenes.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    records = [record for record in map(json.loads, lines) if record["split"] == split]
    if not records:
        remedy = "Splits are dev and test; `vwsd fetch demo` builds the scenes."
        raise VwsdError(f"no scenes of the split {split!r}", folder, remedy)
    n = min(count, len(records))
    chosen = [records[i * len(records) // n] for i in range(n)]
    return [_scene(path.parent, record) for record in chosen]


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
    """Each scene with its maps, method -> [h, w]; vectors of crops come from the store, and maps by
    gradients are kept in the cache: a killed run takes up both. Scenes are looked at side by side,
    one thread each.
    """
    if store:
        encoder, network, streams = store.encoder, store.encoder, "streams"
    else:
        encoder, network, streams = None, segmenter, "workers"
    one_at_a_time = Lock()

    def stored(crops):  # itself side by side
        with one_at_a_time:
            return store.pictures(crops)

    def of(scene: Scene) -> tuple[Scene, dict[str, np.ndarray]]:
        vectors_of, texts = stored if store else None, [scene.phrase]
        how = (methods, settings, vectors_of, cache_dir() / "saliency")
        drawn = maps(encoder, segmenter, scene.picture, texts, *how)
        return scene, {method: made[0] for method, made in drawn.items()}

    made = side_by_side(of, scenes, getattr(network, streams, 0 if store else 1))
    shown = {"total": len(scenes), "unit": "scene", "leave": False, "disable": quiet()}
    yield from tqdm(made, desc=f"{network.name}: scenes", **shown)


def scene_record(
    scene: Scene,
    model: str,
    method: str,
    saliency: np.ndarray,
    store: VectorStore | None = None,
    steps: int = 8,
) -> dict:
    """One line of the measurement: pointing, rival (maximum on another drawing), energy, iou, area,
    all shares from 0 to 1; with a store deletion and insertion, mean cosines. saliency: the map
    [h, w] of the whole canvas.
    """
    record = {
        "scene": scene.name,
        "phrase": scene.phrase,
        "model": model,
        "method": method,
        "area": float(scene.truth.mean()),
        "pointing": faithfulness.pointing(saliency, scene.truth),
        "rival": faithfulness.pointing(saliency, scene.others),
        "energy": faithfulness.energy(saliency, scene.truth),
        "iou": faithfulness.iou(saliency, scene.truth),
        "deletion": None,
        "insertion": None,
    }
    if store:
        text = store.texts([scene.phrase])[0].astype(np.float64)
        record["deletion"], record["insertion"], _ = faithfulness.deletion_insertion(
            lambda some: store.pictures(some) @ text, scene.picture, saliency, steps
        )
    return record


def small(saliency: np.ndarray, longest: int = 96) -> np.ndarray:
    """A map [h, w] for keeping: its longer side at most `longest` pixels."""
    picture = Image.fromarray(np.asarray(saliency, np.float32))
    scale = min(1.0, longest / max(picture.size))
    size = [max(1, round(scale * side)) for side in picture.size]
    return np.asarray(picture.resize(size, Image.Resampling.BOX))
