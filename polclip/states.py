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
from vwsdlib.encoders.store import VectorStore
from vwsdlib.paths import sha256_bytes

from .backbone import Backbone


class _States:
    """A backbone's frozen part in the shape of an encoder, for the vector store; half precision on
    disk (ViT-L/14: 0.5 MB a picture).
    """

    kept = np.float16
    batch_size = 16

    def __init__(self, backbone: Backbone):
        self.backbone, self.name, self.dim = (
            backbone,
            "polclip-states",
            backbone.places * backbone.vision_width,
        )

    def encode_images(self, pictures: Sequence[Image.Image | Tensor]) -> np.ndarray:
        """RGB pictures, prepared ones ([3, h, w]) among them -> [n, P * v]."""
        pixels = torch.cat(
            [p[None] if isinstance(p, Tensor) else self.backbone.pixels([p]) for p in pictures]
        )
        device = next(self.backbone.parameters()).device
        return self.backbone.frozen_look(pixels.to(device)).flatten(1).float().cpu().numpy()

    def identity(self) -> dict:
        """The backbone's, and how much of it is frozen."""
        return {
            **self.backbone.identity(),
            "kept": "float16",
            "frozen_blocks": getattr(self.backbone, "frozen_blocks", 0),
        }


def _load(name: str | Path, data: bytes, truncated: str) -> Image.Image | Tensor:
    """A picture file's picture, or the prepared pixels [3, h, w] of a .safetensors file."""
    if not str(name).endswith(".safetensors"):
        return from_bytes(data, name, truncated).image
    from .published import load_pixels

    return torch.from_numpy(load_pixels(name, data))


class _Store(VectorStore):
    """Reads prepared pixels beside picture files."""

    def _loaded(
        self, places: Sequence[str | Path]
    ) -> Iterator[tuple[list[str], list[Image.Image | Tensor]]]:
        for start in range(0, len(places), self.encoder.batch_size):
            data = {p: read_bytes(p) for p in places[start : start + self.encoder.batch_size]}
            yield (
                [sha256_bytes(d) for d in data.values()],
                [_load(p, d, self.truncated) for p, d in data.items()],
            )


class PictureStates:
    """States of pictures by name, from disk where they were computed before.

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
        self._states = _States(backbone)
        self._store = _Store(self._states, folder, truncated)

    def __call__(self, names: Sequence[str], held: Mapping[str, bytes] | None = None) -> Tensor:
        """[N, P, v] float32. `held`: bytes of pictures that are no files, as a stream brings
        them."""
        if held:
            rows = self._in_passing(names, held)
        elif self.keep:
            rows = self._store.images(names)
        else:
            rows = self._in_passing(names)
        return torch.from_numpy(np.asarray(rows, np.float32)).reshape(
            len(names), self.backbone.places, self.backbone.vision_width
        )

    def _in_passing(
        self, names: Sequence[str], held: Mapping[str, bytes] | None = None
    ) -> np.ndarray:
        size, rows = self._states.batch_size, [np.zeros((0, self._states.dim), np.float32)]
        for some in (names[start : start + size] for start in range(0, len(names), size)):
            rows.append(
                self._states.encode_images(
                    [_load(n, held[n] if held else read_bytes(n), self.truncated) for n in some]
                )
            )
        return np.concatenate(rows).astype(np.float16)  # as they would be kept
