"""Pieces of one picture, cut when they are asked for, and pictures made ready on the device that
looks at them.

On the processor Pillow cuts and resizes, pixel for pixel as the checkpoint's own preparation. A
card would wait for that: it gets the whole picture once a batch, and cuts and resizes by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..data.pictures import TORCH_FILTERS, WIDE, Square

if TYPE_CHECKING:
    import torch

ON_DEVICE = "pictures in memory resized on the device"  # what an identity says where they are
PILLOWS = ("cpu", "mps")  # Apple's lacks a smoothing filter in some versions of torch


def on_device(device: str) -> bool:
    """Are pictures in memory cut and resized on this device (torch's words), not by Pillow?"""
    return device not in PILLOWS


@dataclass(frozen=True)
class Crops(Sequence):
    """Pieces of a picture; boxes: ints [n, 4] of left, top, right, bottom in pixels. Few pieces of
    a large picture fit in memory, so each is cut anew; a slice or a list of numbers gives Crops.
    """

    picture: Image.Image
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, which: int | slice | list[int]):
        if isinstance(which, (slice, list)):
            return Crops(self.picture, self.boxes[which])
        return self.picture.crop(tuple(self.boxes[which].tolist()))


def prepared(
    images: Sequence[Image.Image], square: Square, device: str
) -> np.ndarray | torch.Tensor:
    """RGB pictures as a network takes them, uint8 [n, side, side, 3]: an array by `square`, or a
    tensor that was resized on the device (`on_device`).
    """
    if on_device(device):
        return prepared_there(images, square, device)
    return np.stack([square(image) for image in images])


def prepared_there(images: Sequence[Image.Image], square: Square, device: str) -> torch.Tensor:
    """RGB pictures -> uint8 [n, side, side, 3] on the device: resized by torch in fp32, smoothed as
    Pillow does it. Pillow rounds and clips after each of its two passes, so a value may be another:
    by one of 255 in a photograph now and then, by up to 18 where small pictures have hard edges.
    """
    import torch

    if isinstance(images, Crops):
        whole = _pixels(images.picture, device)
        boxes = images.boxes.tolist()
        pieces = [whole[:, top:bottom, left:right] for left, top, right, bottom in boxes]
    else:
        pieces = [_pixels(image, device) for image in images]
    return torch.stack([_resized(piece, square) for piece in pieces])


def _pixels(image: Image.Image, device: str) -> torch.Tensor:
    """uint8 [3, h, w] on the device."""
    import torch

    return torch.from_numpy(np.array(image)).to(device).permute(2, 0, 1)


def _resized(pixels: torch.Tensor, square: Square) -> torch.Tensor:
    """uint8 [3, h, w] -> [side, side, 3], by `square` on the pixels' device."""
    import torch

    size, left, top = square.fit(pixels.shape[:0:-1])
    if size[0] * size[1] > WIDE:  # so thin a picture would fill the memory
        image = Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
        return torch.from_numpy(square(image).copy()).to(pixels.device)
    made = torch.nn.functional.interpolate(
        pixels[None].float(), size=size[::-1], mode=TORCH_FILTERS[square.resample], antialias=True
    )
    rows = slice(top, top + square.side)
    columns = slice(left, left + square.side)
    return made[0, :, rows, columns].round().clamp(0, 255).byte().permute(1, 2, 0)
