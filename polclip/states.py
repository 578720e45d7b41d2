"""Frozen states of pictures: what no step of training changes is computed once for each distinct
picture and kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from .published import load_pixels
from .streaming import Held

_Picture = Image.Image | Tensor  # of a file, or prepared pixels [3, h, w]
BATCH = 16


class PictureStates:
    """States of pictures by name, from disk where they were computed before, in half precision
    (ViT-L/14: 0.5 MB a picture); of names that bring their bytes along (`streaming.Held`) each
    time.

    keep: False computes all of them each time, for sets whose states would fill the disk (all of
    PolCLIP's pictures: 154 GB in half precision).
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

    def __call__(self, names: Sequence[str]) -> Tensor:
        """[N, P, v] float32."""
        if self.keep and not any(isinstance(name, Held) for name in names):
            rows = self.files.of(names)
        else:
            rows = self._in_passing(names)
        shape = (len(names), self.backbone.places, self.backbone.vision_width)
        return torch.from_numpy(np.asarray(rows, np.float32)).reshape(shape)

    def _in_passing(self, names: Sequence[str]) -> np.ndarray:
        rows = [np.zeros((0, self.dim), np.float32)]
        for some in _parts(names):
            pictures = []
            for name in some:
                data = name.data if isinstance(name, Held) else read_bytes(name)
                pictures.append(_picture(name, data, self.truncated))
            rows.append(self.states(pictures))
        return np.concatenate(rows).astype(np.float16)  # as they would be kept

    def _read(self, places: Sequence[str | Path]) -> Iterator[tuple[list[str], list[_Picture]]]:
        for some in _parts(places):
            data = {place: read_bytes(place) for place in some}
            hashes = [sha256_bytes(own) for own in data.values()]
            yield hashes, [_picture(place, own, self.truncated) for place, own in data.items()]

    def _look(self, read: Iterator[tuple[list[bytes], list[_Picture]]]) -> Iterator[Batch]:
        return ((keys, self.states(pictures)) for keys, pictures in read)

    def states(self, pictures: Sequence[_Picture]) -> np.ndarray:
        """RGB pictures, prepared ones ([3, h, w]) among them -> [n, P * v] float32."""
        pixels = []
        for picture in pictures:
            prepared = isinstance(picture, Tensor)
            pixels.append(picture[None] if prepared else self.backbone.pixels([picture]))
        device = next(self.backbone.parameters()).device
        states = self.backbone.frozen_look(torch.cat(pixels).to(device))
        return states.flatten(1).float().cpu().numpy()


def _parts(names: Sequence) -> Iterator[Sequence]:
    for start in range(0, len(names), BATCH):
        yield names[start : start + BATCH]


def _picture(name: str | Path, data: bytes, truncated: str) -> _Picture:
    """A picture file's picture, or the prepared pixels [3, h, w] of a .safetensors file."""
    if str(name).endswith(".safetensors"):
        return torch.from_numpy(load_pixels(name, data))
    return from_bytes(data, name, truncated).image
