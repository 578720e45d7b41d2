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
from vwsdlib.device import Room
from vwsdlib.encoders.digests import PictureRows
from vwsdlib.encoders.shards import Batch, KeptRows
from vwsdlib.paths import sha256_bytes

from .backbone import Backbone
from .published import load_pixels
from .streaming import Held

_Picture = Image.Image | Tensor  # of a file, or prepared pixels [3, h, w]
BATCH, CARD_BATCH = 16, 64  # pictures that go through the frozen tower at once
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class PictureStates:
    """States of pictures by name, from disk where they were computed before, in half precision
    (ViT-L/14: 0.5 MB a picture); of names that bring their bytes along (`streaming.Held`) each
    time.

    keep: False computes all of them each time, for sets whose states would fill the disk (all of
    PolCLIP's pictures: 154 GB in half precision); `read` and `look` are the two halves of that, the
    first for any thread. precision: as the configuration has it; in half, the frozen tower computes
    under autocast, as what is trained does.
    """

    def __init__(
        self,
        backbone: Backbone,
        keep: bool = True,
        folder: Path | None = None,
        truncated: str = "keep",
        precision: str = "no",
    ):
        self.backbone, self.keep, self.truncated = backbone, keep, truncated
        self.half = HALF.get(precision)
        self.dim = backbone.places * backbone.vision_width
        frozen = {"kept": "float16", "frozen_blocks": getattr(backbone, "frozen_blocks", 0)}
        if self.half:
            frozen["autocast"] = precision
        identity = {**backbone.identity(), **frozen}
        rows = KeptRows("polclip-states", identity, self.dim, BATCH, np.float16, folder)
        self.files = PictureRows(rows, self._read, self._look, truncated)
        self._room: Room | None = None

    def __call__(self, names: Sequence[str]) -> Tensor:
        """[N, P, v] float32."""
        if not self.keep or any(isinstance(name, Held) for name in names):
            return self.look(self.read(names))
        rows = np.asarray(self.files.of(names), np.float32)
        return torch.from_numpy(rows).reshape(self._shape(len(names)))

    def _shape(self, n: int) -> tuple[int, int, int]:
        return n, self.backbone.places, self.backbone.vision_width

    def read(self, names: Sequence[str]) -> list[Tensor]:
        """Prepared pictures [3, h, w], one a name, still on the processor."""
        pixels = []
        for name in names:
            data = name.data if isinstance(name, Held) else read_bytes(name)
            pixels.append(self._pixels(_picture(name, data, self.truncated)))
        return pixels

    def look(self, pixels: Sequence[Tensor]) -> Tensor:
        """States [N, P, v] float32 of prepared pictures, on the backbone's device, rounded as they
        would be kept.
        """
        return self.room.use(lambda size: self._look_at(pixels, size))

    @property
    def room(self) -> Room:
        """How many pictures go through the frozen tower at once."""
        device = self._device()
        if self._room is None or self._room.device != str(device):
            most = BATCH if device.type == "cpu" else CARD_BATCH
            self._room = Room(most, "pictures of a step", str(device))
        return self._room

    def _look_at(self, pixels: Sequence[Tensor], size: int) -> Tensor:
        parts = [torch.zeros(self._shape(0), device=self._device())]
        for start in range(0, len(pixels), size):
            parts.append(self._frozen(pixels[start : start + size]).half().float())
        return torch.cat(parts)

    def _frozen(self, pixels: Sequence[Tensor]) -> Tensor:
        """Through the frozen tower at once: [n, P, v] float32."""
        device, whole = self._device(), torch.stack(list(pixels))
        if device.type == "cuda":
            whole = whole.pin_memory()
        with torch.autocast(device.type, self.half, enabled=self.half is not None):
            states = self.backbone.frozen_look(whole.to(device, non_blocking=True))
        return states.float()

    def _device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    def _pixels(self, picture: _Picture) -> Tensor:
        return picture if isinstance(picture, Tensor) else self.backbone.pixels([picture])[0]

    def _read(self, places: Sequence[str | Path]) -> Iterator[tuple[list[str], list[_Picture]]]:
        for start in range(0, len(places), BATCH):
            data = {place: read_bytes(place) for place in places[start : start + BATCH]}
            hashes = [sha256_bytes(own) for own in data.values()]
            yield hashes, [_picture(place, own, self.truncated) for place, own in data.items()]

    def _look(self, read: Iterator[tuple[list[bytes], list[_Picture]]]) -> Iterator[Batch]:
        return ((keys, self.states(pictures)) for keys, pictures in read)

    def states(self, pictures: Sequence[_Picture]) -> np.ndarray:
        """RGB pictures, prepared ones ([3, h, w]) among them -> [n, P * v] float32."""
        return self._frozen(list(map(self._pixels, pictures))).flatten(1).cpu().numpy()


def _picture(name: str | Path, data: bytes, truncated: str) -> _Picture:
    """A picture file's picture, or the prepared pixels [3, h, w] of a .safetensors file."""
    if str(name).endswith(".safetensors"):
        return torch.from_numpy(load_pixels(name, data))
    return from_bytes(data, name, truncated).image
