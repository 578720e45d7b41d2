"""Frozen states of pictures: what no step of training changes is computed once for each distinct
picture and kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vwsdlib.data.pictures import from_bytes, read_bytes
from vwsdlib.encoders.store import VectorStore
from vwsdlib.paths import sha256_bytes

from .backbone import Backbone
from .published import load_pixels
from .streaming import Held


class _States:
    """A backbone's frozen part in the shape of an encoder, for the vector store; half precision on
    disk (ViT-L/14: 0.5 MB a picture).
    """

    kept = np.float16
    batch_size = 16
    name = "polclip-states"

    def __init__(self, backbone: Backbone):
        self.backbone, self.dim = backbone, backbone.places * backbone.vision_width

    def encode_images(self, pictures: Sequence[Image.Image | Tensor]) -> np.ndarray:
        """RGB pictures, prepared ones ([3, h, w]) among them -> [n, P * v]."""
        pixels = []
        for picture in pictures:
            prepared = isinstance(picture, Tensor)
            pixels.append(picture[None] if prepared else self.backbone.pixels([picture]))
        device = next(self.backbone.parameters()).device
        states = self.backbone.frozen_look(torch.cat(pixels).to(device))
        return states.flatten(1).float().cpu().numpy()

    def identity(self) -> dict:
        """The backbone's, and how much of it is frozen."""
        frozen = getattr(self.backbone, "frozen_blocks", 0)
        return {**self.backbone.identity(), "kept": "float16", "frozen_blocks": frozen}


class _Store(VectorStore):
    """Reads prepared pixels beside picture files."""

    def _loaded(self, places: Sequence[str | Path]) -> Iterator[tuple[list[str], list]]:
        for some in _parts(places, self.encoder.batch_size):
            data = {place: read_bytes(place) for place in some}
            hashes = [sha256_bytes(own) for own in data.values()]
            yield hashes, [_picture(place, own, self.truncated) for place, own in data.items()]


class PictureStates:
    """States of pictures by name, from disk where they were computed before; of names that bring
    their bytes along (`streaming.Held`) each time.

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
        self._states = _States(backbone)
        encoder: Any = self._states
        self._store = _Store(encoder, folder, truncated)

    def __call__(self, names: Sequence[str]) -> Tensor:
        """[N, P, v] float32."""
        if self.keep and not any(isinstance(name, Held) for name in names):
            rows = self._store.images(names)
        else:
            rows = self._in_passing(names)
        shape = (len(names), self.backbone.places, self.backbone.vision_width)
        return torch.from_numpy(np.asarray(rows, np.float32)).reshape(shape)

    def _in_passing(self, names: Sequence[str]) -> np.ndarray:
        rows = [np.zeros((0, self._states.dim), np.float32)]
        for some in _parts(names, self._states.batch_size):
            pictures = []
            for name in some:
                data = name.data if isinstance(name, Held) else read_bytes(name)
                pictures.append(_picture(name, data, self.truncated))
            rows.append(self._states.encode_images(pictures))
        return np.concatenate(rows).astype(np.float16)  # as they would be kept


def _parts(names: Sequence, size: int) -> Iterator[Sequence]:
    for start in range(0, len(names), size):
        yield names[start : start + size]


def _picture(name: str | Path, data: bytes, truncated: str) -> Image.Image | Tensor:
    """A picture file's picture, or the prepared pixels [3, h, w] of a .safetensors file."""
    if str(name).endswith(".safetensors"):
        return torch.from_numpy(load_pixels(name, data))
    return from_bytes(data, name, truncated).image
