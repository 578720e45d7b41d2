"""Frozen states of pictures: what no step of training changes is computed once for each distinct picture and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.pictures import decode
from ..encoders.store import VectorStore
from .backbone import Backbone


class _States:
    """A backbone's frozen part in the shape of an encoder, for the vector store; half precision on disk (ViT-L/14: 0.5 MB a picture)."""

    kept = np.float16
    batch_size = 16

    def __init__(self, backbone: Backbone):
        self.backbone, self.name, self.dim = backbone, "polclip-states", backbone.places * backbone.vision_width

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """RGB pictures -> [n, P * v]."""
        return self.encode_pixels(self.backbone.pixels(images))

    def encode_pixels(self, pixels: Tensor) -> np.ndarray:
        """[n, 3, h, w] -> [n, P * v]."""
        device = next(self.backbone.parameters()).device
        return self.backbone.frozen_look(pixels.to(device)).flatten(1).float().cpu().numpy()

    def identity(self) -> dict:
        """The backbone's, and how much of it is frozen."""
        return {**self.backbone.identity(), "kept": "float16", "frozen_blocks": getattr(self.backbone, "frozen_blocks", 0)}


class _Store(VectorStore):
    """Reads prepared pixels ([3, h, w] in a .safetensors file) beside picture files."""

    def _encode_files(self, batch: Sequence[str | Path]) -> np.ndarray:
        prepared = [str(path).endswith(".safetensors") for path in batch]
        if any(prepared) and not all(prepared):
            return np.concatenate([self._encode_files([path]) for path in batch])
        if all(prepared):
            from .published import load_pixels

            return self.encoder.encode_pixels(torch.from_numpy(np.stack([load_pixels(path) for path in batch])))
        return super()._encode_files(batch)


class PictureStates:
    """States of pictures by name, from disk where they were computed before.

    keep: False computes them each time, for sets whose states would fill the disk (all of PolCLIP's pictures: 154 GB in half precision).
    """

    def __init__(self, backbone: Backbone, keep: bool = True, folder: Path | None = None, truncated: str = "keep"):
        self.backbone, self.keep, self.truncated = backbone, keep, truncated
        self._states = _States(backbone)
        self._store = _Store(self._states, folder, truncated)

    def __call__(self, names: Sequence[str], held: Mapping[str, bytes] | None = None) -> Tensor:
        """[N, P, v] float32. `held`: bytes of pictures that are no files, as a stream brings them."""
        if held:
            rows = self._in_passing(names, held)
        elif self.keep:
            rows = self._store.images(names)
        else:
            rows = self._in_passing(names)
        return torch.from_numpy(np.asarray(rows, np.float32)).reshape(len(names), self.backbone.places, self.backbone.vision_width)

    def _in_passing(self, names: Sequence[str], held: Mapping[str, bytes] | None = None) -> np.ndarray:
        size = self._states.batch_size
        look = self._store._encode_files if held is None else lambda some: self._states.encode_pixels(torch.cat([self._pixels(n, held) for n in some]))
        rows = [look(names[start:start + size]) for start in range(0, len(names), size)]
        return np.concatenate([np.zeros((0, self._states.dim), np.float32), *rows]).astype(np.float16)   # as they would be kept

    def _pixels(self, name: str, held: Mapping[str, bytes]) -> Tensor:
        """[1, 3, h, w] of a picture's bytes: prepared ones, or a picture file's."""
        from .published import load_pixels

        if name.endswith(".safetensors"):
            return torch.from_numpy(load_pixels(name, held[name]))[None]
        return self._states.backbone.pixels([decode(held[name], name)[0]])
