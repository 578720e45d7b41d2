"""Encoders from published checkpoints through transformers: CLIP, CLIPSeg's dual encoder, SigLIP,
and text towers for other languages.

What differs between them is data (`recipes.yml`). Pictures are prepared by the checkpoint's own
processor, read from its files by the name of its class, because which class an `Auto...` takes
depends on what else is installed; only its resizing and cutting out is called directly (`Square`),
pixel for pixel the same. Batches have one shape and one thread, whoever is encoded alongside.
Attention is fused ("sdpa"); `relevance`, which needs its weights, computes it openly. Weights are
read when the first vector is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from importlib.metadata import version
from math import isqrt, log2
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from PIL import Image

from .. import device
from ..data.pictures import Square
from ..errors import VwsdError, first_line
from ..paths import sha256_bytes
from .checkpoints import CHECKPOINTS, FETCH_AGAIN, OnDisk, files_sha256, find
from .crops import ON_DEVICE, on_device, prepared
from .networks import Network
from .streams import side_by_side
from .towers import TOWERS, fold_quick_gelu, load_part
from .variants import automatic

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TEXT_BATCH = 32
# of pictures in one pass on a CPU: enough for the matrix product, few enough for the caches
TOKENS = 1000
MOST_SIDE = 4096  # pixels of the square that a network looks at
TOOLS = ("transformers", "tokenizers", "torch", "pillow")  # whose versions decide a vector


@dataclass(frozen=True)
class Recipe:
    """How an encoder uses its checkpoint."""

    checkpoint: str  # key of CHECKPOINTS
    model: str = "CLIPModel"
    processor: str = "CLIPImageProcessorPil"
    tokenizer: str = "AutoTokenizer"
    # tokens: a text is padded to the first that holds it, cut at the last
    lengths: tuple[int, ...] = (16, 32, 77)
    # False: padding is read like text, as SigLIP was trained (Zhai et al. 2023)
    masked: bool = True
    lower: bool = False
    # changes to the checkpoint's own preparation of pictures
    override: dict = field(default_factory=dict)
    tower: str = ""  # key of the checkpoint whose text tower reads in place of this one's


TABLE = yaml.safe_load(Path(__file__).with_name("recipes.yml").read_text(encoding="utf-8"))
RECIPES: dict[str, Recipe] = {
    name: Recipe(**{"checkpoint": name, **line}) for name, line in TABLE.items()
}


class PretrainedEncoder:
    """One checkpoint (or two: pictures by CLIP, texts by another tower) as an encoder;
    differentiable in the pictures.
    """

    batch_size = 256
    depth: int | None = None  # layers of the picture's tower that are used; None: all

    def __init__(self, name: str, recipe: Recipe, variant: str = ""):
        self.name, self.recipe = name, recipe
        words = [word for word in variant.split("-") if word in DTYPES]
        self.dtype = DTYPES[words[0]] if words else torch.float32
        self.device = device.choose()
        self.keys = [key for key in (recipe.checkpoint, recipe.tower) if key]
        self.files: list[OnDisk] = [find(key) for key in self.keys]
        folder = self.files[0].folder
        config = load_part(recipe.model.replace("Model", "Config"), folder)
        self.processor = load_part(recipe.processor, folder, **recipe.override)
        self.tokenizer = load_part(recipe.tokenizer, self.files[-1].folder)
        try:
            self._take(config, variant)
        except (AttributeError, TypeError, ValueError, ArithmeticError) as e:
            raise VwsdError(
                f"the configuration cannot be used: {first_line(e)}",
                where=folder,
                remedy=FETCH_AGAIN,
            ) from e
        self._network = Network(self._load_model, name, self.device)
        self._tower = Network(self._load_tower, name, self.device)
        self._opened: WeakKeyDictionary = WeakKeyDictionary()  # model -> its twin
        self._pictures = device.Room(self.image_batch, "pictures", self.device)
        self._texts = device.Room(TEXT_BATCH, "texts", self.device)
        self._maps = device.Room(1, "pictures with gradients", self.device)

    def _take(self, config, variant: str) -> None:
        """What the checkpoint's configuration decides."""
        self.dim = getattr(config, "projection_dim", None) or config.vision_config.hidden_size
        self.side, self.patch = config.vision_config.image_size, config.vision_config.patch_size
        self.preparation = replace(
            square_of(self.processor), draft="draft" in variant, quick=bool(variant)
        )
        tokens = (self.preparation.side // self.patch) ** 2 + 1
        on_cpu = 2 ** int(log2(max(1, TOKENS / tokens)))
        # on a card two at a time: while one computes, the next is copied and its kernels wait
        on_card = (device.GPU_BATCH, 2)
        self.image_batch, self.streams = (on_cpu, 0) if self.device == "cpu" else on_card
        # the picture's tower takes fewer steps, which round otherwise
        short = self.device == "cpu" and self.dtype != torch.float32
        self.attention = "two products" if short else "sdpa"
        self.folded = short and config.vision_config.hidden_act == "quick_gelu"

    @property
    def model(self) -> torch.nn.Module:
        """Both towers, or the picture's alone where a tower of another checkpoint reads."""
        return self._network()

    def _load_model(self) -> torch.nn.Module:
        model = load_part(self.recipe.model, self.files[0].folder)
        if self.depth:
            del model.vision_model.encoder.layers[self.depth :]
        if self.folded:
            fold_quick_gelu(model.vision_model)
        model = model.to(self.device, self.dtype)
        model.set_attn_implementation("sdpa")
        if self.attention != "sdpa":
            model.set_attn_implementation({"vision_config": self.attention})
        return model

    def _load_tower(self) -> torch.nn.Module:
        return TOWERS[self.recipe.tower](self.files[1].folder).to(self.device, self.dtype)

    def let_go(self) -> None:
        """Forget the weights; what asks for them next loads them again."""
        self._network.let_go()
        self._tower.let_go()

    def _open_model(self) -> torch.nn.Module:
        """The same weights, not a second time in memory, under attention that shows itself."""
        model = self.model
        if model not in self._opened:
            tensors = [*model.parameters(), *model.buffers()]
            twin = deepcopy(model, {id(tensor): tensor for tensor in tensors})
            twin.set_attn_implementation("eager")
            self._opened[model] = twin
        return self._opened[model]

    def pixels(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """RGB pictures of any size -> [n, 3, s, s] float32, as the network takes them: the
        processor's numbers up to rounding (1e-6).
        """
        squares = np.stack([self.preparation(image) for image in images])
        return self._numbers(torch.from_numpy(squares))

    def _numbers(self, squares: torch.Tensor) -> torch.Tensor:
        """uint8 [n, s, s, 3] -> [n, 3, s, s] float32, channels last: rescaled and normalised in one
        step, on the device, where bytes travel faster.
        """
        shift, scale = self._scale
        there = squares.to(self.device, non_blocking=True)
        rows = there.float().flatten(2)  # [n, s, 3 s]
        torch.addcmul(shift, rows, scale, out=rows)  # in place: fresh memory takes as long
        return rows.view(squares.shape).permute(0, 3, 1, 2)

    @cached_property
    def _scale(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What is added to a row of bytes and what it is multiplied by, [3 s] each: long runs are
        quicker than three channels again and again.
        """
        side = self.preparation.side
        mean = torch.tensor(self.processor.image_mean, device=self.device).repeat(side)
        std = torch.tensor(self.processor.image_std, device=self.device).repeat(side)
        return -mean / std, self.processor.rescale_factor / std

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """[n, 3, h, w] -> [n, dim] float32 unit rows; differentiable."""
        return F.normalize(self.look(pixels).pooler_output.float(), dim=-1)

    def look(self, pixels: torch.Tensor, model: torch.nn.Module | None = None, **options):
        """[n, 3, h, w] -> transformers' output of the picture's tower; `pooler_output` is the
        vector before normalisation.
        """
        # positions learnt for another grid
        options["interpolate_pos_encoding"] = pixels.shape[-1] != self.side
        return (model or self.model).get_image_features(pixels.to(self.dtype), **options)

    @torch.inference_mode()
    def encode_prepared(self, squares: np.ndarray | torch.Tensor) -> np.ndarray:
        """uint8 [n, s, s, 3] from `preparation`, n at most `image_batch` -> [n, dim] float32, unit
        rows.
        """
        return self._pictures.use(partial(self._image_rows, torch.as_tensor(squares)))

    def _image_rows(self, squares: torch.Tensor, size: int) -> np.ndarray:
        """[n, dim], `size` squares in one pass, filled up."""
        rows = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(squares), size):
            some = squares[start : start + size]
            n, rest = len(some), size - len(some)
            if rest:
                some = torch.cat([some, some.new_zeros(rest, *some.shape[1:])])
            rows.append(self.embed(self._numbers(some))[:n].cpu().numpy())
        return np.concatenate(rows)

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """RGB pictures of any size -> [n, dim] float32, unit rows."""
        size = self.image_batch

        def encode(start: int) -> np.ndarray:
            some = prepared(images[start : start + size], self.preparation, self.device)
            return self.encode_prepared(some)

        rows = side_by_side(encode, range(0, len(images), size), self.streams)
        return np.concatenate([np.zeros((0, self.dim), np.float32), *rows])

    @property
    def max_tokens(self) -> int:
        """Tokens of a text that are read; the rest is cut."""
        return self.recipe.lengths[-1]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before it is cut at `max_tokens`."""
        if not texts:
            return []
        return [len(ids) for ids in self.tokenizer(self._cased(texts), verbose=False)["input_ids"]]

    def _cased(self, texts: Sequence[str]) -> list[str]:
        return [text.lower() if self.recipe.lower else text for text in texts]

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> [n, dim] float32, unit rows."""
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        texts, longest = self._cased(texts), self.max_tokens
        ids = self.tokenizer(texts, truncation=True, max_length=longest)["input_ids"]
        batches = list(self._batches([len(some) for some in ids]))

        def tokens() -> Iterator[dict[str, torch.Tensor]]:
            for length, rows in batches:
                some = [texts[i] for i in rows]
                yield self._tokens(some + [""] * (TEXT_BATCH - len(rows)), length)

        out = np.empty((len(texts), self.dim), np.float32)
        made = side_by_side(self._text_rows, tokens(), self.streams)
        for (_, rows), vectors in zip(batches, made):
            out[rows] = vectors[: len(rows)]
        return out

    def _batches(self, counts: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Texts of these many tokens in batches: (tokens they are padded to, which they are)."""
        sizes = np.array(self.recipe.lengths)
        lengths = sizes[np.searchsorted(sizes, counts)]  # the first that holds each
        for length in np.unique(lengths).tolist():
            rows = np.flatnonzero(lengths == length)
            for start in range(0, len(rows), TEXT_BATCH):
                yield length, rows[start : start + TEXT_BATCH]

    @torch.inference_mode()
    def _text_rows(self, tokens: dict[str, torch.Tensor]) -> np.ndarray:
        def rows(size: int) -> np.ndarray:
            parts = []
            for start in range(0, TEXT_BATCH, size):
                some = {name: ids[start : start + size] for name, ids in tokens.items()}
                parts.append(F.normalize(self._read(some).float(), dim=-1).cpu().numpy())
            return np.concatenate(parts)

        return self._texts.use(rows)

    def read(self, texts: list[str], length: int) -> torch.Tensor:
        """Texts -> [n, dim] before normalisation, padded on the right to `length` tokens."""
        return self._read(self._tokens(texts, length))

    def _tokens(self, texts: list[str], length: int) -> dict[str, torch.Tensor]:
        options = {
            "padding": "max_length",
            "padding_side": "right",
            "truncation": True,
            "max_length": length,
            "return_tensors": "pt",
        }
        tokens = self.tokenizer(texts, return_attention_mask=self.recipe.masked, **options)
        tokens = tokens.to(self.device)
        return {name: tokens[name] for name in ("input_ids", "attention_mask") if name in tokens}

    def _read(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.recipe.tower:
            return self._tower()(**tokens)
        return self.model.get_text_features(**tokens).pooler_output

    def window(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in pixels of a picture of `size` (w, h): what the network sees
        of it.
        """
        (w, h), processor = size, self.processor
        if not getattr(processor, "do_center_crop", False):
            return 0.0, 0.0, float(w), float(h)
        side = float(min(w, h) * processor.crop_size.height / processor.size.shortest_edge)
        return (w - side) / 2, (h - side) / 2, (w + side) / 2, (h + side) / 2

    def relevance(self, pixels: torch.Tensor, text_vectors: np.ndarray) -> np.ndarray:
        """[1, 3, h, w] and [t, dim] -> [t, g, g] float32, at least 0: which patches raise each
        text's cosine (`roll_out`, `grad_cam`).
        """
        return self._maps.use(lambda _: self._relevance(pixels, text_vectors))

    def _relevance(self, pixels: torch.Tensor, text_vectors: np.ndarray) -> np.ndarray:
        with torch.inference_mode(False), torch.enable_grad():
            seen = self.look(
                pixels.clone().requires_grad_(), self._open_model(), output_attentions=True
            )
            texts = torch.tensor(np.asarray(text_vectors), dtype=torch.float32, device=self.device)
            cosines = (F.normalize(seen.pooler_output.float(), dim=-1) @ texts.T)[0]  # [t]
            maps = torch.stack(
                [RELEVANCE[self.recipe.model](seen, cosine) for cosine in cosines]
            )  # [t, patches]
        grid = isqrt(maps.shape[1])
        assert grid * grid == maps.shape[1] and grid == pixels.shape[-1] // self.patch, (
            f"{maps.shape[1]} patches are no square grid"
        )
        return maps.reshape(-1, grid, grid).float().cpu().numpy()

    def identity(self) -> dict:
        """All that decides a vector."""
        return {
            "model": " + ".join(CHECKPOINTS[key].repo for key in self.keys),
            "revision": " + ".join(f.revision for f in self.files),
            "weights_sha256": joined_hash(self.files),
            "processor": "; ".join(self._rules()),
            "image_variant": "as stored",
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device.partition(":")[0],
            **device.rounding(self.device),
        }

    def _rules(self) -> list[str]:
        """How pictures and texts reach the network, with what, and in which batches."""
        recipe = {f.name: getattr(self.recipe, f.name) for f in fields(self.recipe)}
        del recipe["override"], recipe["checkpoint"]  # they are in what else is said
        files = sha256_bytes(" ".join(files_sha256(f.folder) for f in self.files).encode())[:16]
        return [
            json.dumps(self.processor.to_dict(), sort_keys=True, default=_plain),
            json.dumps(recipe),
            f"{self.preparation}, batches {self.image_batch}, {TEXT_BATCH}",
            f"{self.attention}{', quick GELU folded' * self.folded}",
            ", ".join(f"{package} {version(package)}" for package in TOOLS),
            f"files {files}",
            *([ON_DEVICE] if on_device(self.device) else []),
        ]


def _plain(size) -> dict:
    """A size of transformers as JSON has it."""
    return {name: value for name, value in vars(size).items() if value is not None}


def joined_hash(files: Sequence[OnDisk]) -> str:
    """The weights' SHA-256; of both hashes where there are two checkpoints."""
    hashes = [f.weights_sha256 for f in files]
    return hashes[0] if len(hashes) == 1 else sha256_bytes("".join(hashes).encode())


def roll_out(seen, score: torch.Tensor) -> torch.Tensor:
    """Gradient-weighted attention rollout (Chefer et al. 2021, eqs. 5 and 6): the class token's
    relevance of each patch, [patches].
    """
    gradients = torch.autograd.grad(score, seen.attentions, retain_graph=True)
    relevance = torch.eye(seen.attentions[0].shape[-1], device=score.device)
    for attention, gradient in zip(seen.attentions, gradients):
        step = (attention * gradient).float().clamp(min=0).mean(1)[0]  # mean over heads
        relevance = relevance + step @ relevance
    return relevance[0, 1:].detach()


def grad_cam(seen, score: torch.Tensor) -> torch.Tensor:
    """Grad-CAM (Selvaraju et al. 2017) on the patch states that SigLIP's head pools: there is no
    class token to roll out, [patches].
    """
    (gradient,) = torch.autograd.grad(score, seen.last_hidden_state, retain_graph=True)
    weight = gradient[0].float().mean(0)  # [width]
    return (seen.last_hidden_state[0].float() @ weight).clamp(min=0).detach()


RELEVANCE = {"CLIPModel": roll_out, "CLIPSegModel": roll_out, "SiglipModel": grad_cam}


def square_of(processor) -> Square:
    """What a processor of transformers does to a picture up to its numbers: resize, and cut out the
    centre where it does. VwsdError where it does anything else.
    """
    size, crop = processor.size, getattr(processor, "do_center_crop", False)
    side, edge = (processor.crop_size.height, size.shortest_edge) if crop else (size.height, 0)
    if crop and edge:
        fits = side and edge >= side
    else:
        fits = side and not crop and size.width == side
    numbers = processor.do_rescale and processor.do_normalize
    if not (fits and numbers) or max(side, edge or 0) > MOST_SIDE:
        raise VwsdError(
            f"pictures of this shape are not known here: {size}",
            remedy="Resize to a square, or the shorter side and cut the centre out.",
        )
    return Square(side, edge, int(processor.resample))


def load_pretrained(name: str, variant: str = "") -> PretrainedEncoder:
    """The encoder of one recipe. In fp32, with full decoding and Pillow's resizing, it is the
    reference.

    variant: words joined by "-", each faster and off by a drift that notebook 03 measures: "bf16",
    "fp16", "draft" (of JPEGs), "quick" (resizing). All variants resize quickly (`Square`), "quick"
    alone is fp32 otherwise. "auto": the fastest of them here (`variants`), under its own name.
    """
    if variant == "auto":
        variant = automatic(name)
    return PretrainedEncoder(f"{name}@{variant}" if variant else name, RECIPES[name], variant)


def load_encoder_parts(name: str) -> tuple:
    """(model, tokenizer, processor, identity) of one recipe in fp32, for those who build on the
    towers themselves (PolCLIP).
    """
    encoder = load_pretrained(name)
    return encoder.model, encoder.tokenizer, encoder.processor, encoder.identity()
