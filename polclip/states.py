"""Frozen states of pictures: what no step of training changes is computed once for each distinct
picture and kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vwsdlib.data.pictures import from_bytes, read_bytes
from vwsdlib.encoders.digests import PictureRows
from vwsdlib.encoders.shards import Batch, KeptRows
from vwsdlib.paths import sha256_bytes

from .backbone import Backbone

_Loaded = Image.Image | Tensor  # of a file, or prepared pixels [3, h, w]
BATCH = 16


def _load(name: str | Path, data: bytes, truncated: str) -> _Loaded:
    """A picture file's picture, or the prepared pixels [3, h, w] of a .safetensors file."""
    if not str(name).endswith(".safetensors"):
        return from_bytes(data, name, truncated).image
    from .published import load_pixels

    return torch.from_numpy(load_pixels(name, data))


class PictureStates:
    """States of pictures by name, from disk where they were computed before: in half precision
    (ViT-L/14: 0.5 MB a picture).

    keep: False computes them each time, for sets whose states would fill the disk (all of PolCLIP's
    pictures: 154 GB in half precision).
    """

    def __init__(
        self,
        backbone: Backbone,
        keep: bool = True,
        folder: Path | None = None,
        truncated: str = "keep",
    ):
        self.backbone, self.keep, self.truncated = backbone, keep, truncated
        self.dim = backbone.places * backbone.vision_width
        frozen = {"kept": "float16", "frozen_blocks": getattr(backbone, "frozen_blocks", 0)}
        identity = {**backbone.identity(), **frozen}
        rows = KeptRows("polclip-states", identity, self.dim, BATCH, np.float16, folder)
        self.files = PictureRows(rows, self._read, self._look, truncated)

    def __call__(self, names: Sequence[str], held: Mapping[str, bytes] | None = None) -> Tensor:
        """[N, P, v] float32. `held`: bytes of pictures that are no files, as a stream brings
        them."""
        if self.keep and not held:
            rows = self.files.of(names)
        else:
            rows = self._in_passing(names, held or {})
        return torch.from_numpy(np.asarray(rows, np.float32)).reshape(
            len(names), self.backbone.places, self.backbone.vision_width
        )

    def _in_passing(self, names: Sequence[str], held: Mapping[str, bytes]) -> np.ndarray:
        rows = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(names), BATCH):
            some = names[start : start + BATCH]
            data = [held[name] if held else read_bytes(name) for name in some]
            rows.append(self.states([_load(n, d, self.truncated) for n, d in zip(some, data)]))
        return np.concatenate(rows).astype(np.float16)  # as they would be kept

    def _read(self, places: Sequence[str | Path]) -> Iterator[tuple[list[str], list[_Loaded]]]:
        for start in range(0, len(places), BATCH):
            data = {place: read_bytes(place) for place in places[start : start + BATCH]}
            yield (
                [sha256_bytes(d) for d in data.values()],
                [_load(p, d, self.truncated) for p, d in data.items()],
            )

    def _look(self, read: Iterator[tuple[list[bytes], list[_Loaded]]]) -> Iterator[Batch]:
        return ((keys, self.states(pictures)) for keys, pictures in read)

    def states(self, pictures: Sequence[_Loaded]) -> np.ndarray:
        """RGB pictures, prepared ones ([3, h, w]) among them -> [n, P * v] float32."""
        pixels = torch.cat(
            [p[None] if isinstance(p, Tensor) else self.backbone.pixels([p]) for p in pictures]
        )
        device = next(self.backbone.parameters()).device
        return self.backbone.frozen_look(pixels.to(device)).flatten(1).float().cpu().numpy()
