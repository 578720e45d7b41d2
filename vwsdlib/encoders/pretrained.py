"""Encoders from published checkpoints through transformers: CLIP, CLIPSeg's dual encoder, SigLIP,
and text towers for other languages.

What differs between them is data (`RECIPES`). Pictures are prepared by the checkpoint's own
processor, read from its files by the name of its class, because which class an `Auto...` takes
depends on what else is installed; only its resizing and cutting out is called directly (`Square`),
pixel for pixel the same. Batches have one shape and one thread, whoever is encoded alongside.
Attention is fused ("sdpa"); `relevance`, which needs its weights, computes it openly. Weights are
read when the first vector is asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from math import isqrt, log2
from pathlib import Path
from threading import Lock

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from safetensors import safe_open

from ..data.pictures import Square
from ..errors import VwsdError, first_line
from ..paths import sha256_bytes
from .checkpoints import CHECKPOINTS, files_sha256, find, read_tensors, stored_numbers, weight_files
from .streams import side_by_side

# what it would report (weights that do not fit) is an error here; see load_part
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TEXT_BATCH, GPU_BATCH = 32, 64
# of pictures in one pass on a CPU: enough for the matrix product, few enough for the caches
TOKENS = 1000
CLIP_STATISTICS = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
IMAGENET_STATISTICS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
AT_352 = {"size": {"shortest_edge": 352}, "crop_size": {"height": 352, "width": 352}}
SQUASH_352 = {"size": {"height": 352, "width": 352}, "do_center_crop": False}
BICUBIC, BILINEAR = {"resample": 3}, {"resample": 2}  # CLIP's and CLIPSeg's


@dataclass(frozen=True)
class Recipe:
    """How an encoder uses its checkpoint."""

    checkpoint: str  # key of CHECKPOINTS
    model: str = "CLIPModel"
    processor: str = "CLIPImageProcessorPil"
    tokenizer: str = "AutoTokenizer"
    lengths: tuple[int, ...] = (
        16,
        32,
        77,
    )  # tokens: a text is padded to the first that holds it, cut at the last
    masked: bool = (
        True  # False: padding is read like text, as SigLIP was trained (Zhai et al. 2023)
    )
    lower: bool = False
    override: dict = field(
        default_factory=dict
    )  # changes to the checkpoint's own preparation of pictures
    tower: str = ""  # key of the checkpoint whose text tower reads in place of this one's


B16, SIGLIP = (
    Recipe("clip-vit-b16"),
    Recipe("", "SiglipModel", "SiglipImageProcessorPil", lengths=(64,), masked=False),
)
# SigLIP 2's tokenizer as it is in its file: the class its configuration names pads on the left and
# knows nothing of lower case
SIGLIP2 = replace(SIGLIP, tokenizer="PreTrainedTokenizerFast", lower=True)
RECIPES: dict[str, Recipe] = {
    **{
        key: Recipe(key)
        for key in (
            "clip-vit-b32",
            "clip-vit-b16",
            "clip-vit-l14",
            "clip-vit-l14-336",
            "openclip-h14",
        )
    },
    "clip-vit-b16-352": replace(B16, override=AT_352 | CLIP_STATISTICS | BICUBIC),
    "clip-vit-b16-352-imagenet": replace(B16, override=AT_352 | IMAGENET_STATISTICS | BICUBIC),
    "clip-vit-b16-352-squash": replace(B16, override=SQUASH_352 | IMAGENET_STATISTICS | BICUBIC),
    "clip-vit-b16-352-squash-bilinear": replace(
        B16, override=SQUASH_352 | IMAGENET_STATISTICS | BILINEAR
    ),
    "clipseg-rd64": Recipe("clipseg-rd64", "CLIPSegModel", "ViTImageProcessorPil"),
    "siglip-multilingual": replace(SIGLIP, checkpoint="siglip-multilingual"),
    **{
        key: replace(SIGLIP2, checkpoint=key)
        for key in ("siglip2-base", "siglip2-large", "siglip2-so400m")
    },
    "mclip": Recipe("clip-vit-b32", tower="mclip", lengths=(32, 128)),
    "clip-b32-multilingual": Recipe(
        "clip-vit-b32", tower="clip-b32-multilingual", lengths=(32, 128)
    ),
}


def load_part(part: str, folder: Path, **options):
    """`transformers.<part>` from a folder; VwsdError where files are missing or damaged, or weights
    would be left to chance.

    A model is built only where its configuration asks for about as many numbers as the weight files
    hold (`check_size`).
    """
    cls = getattr(transformers, part)
    model_asked = hasattr(cls, "forward")
    options |= {"output_loading_info": True, "attn_implementation": "eager"} if model_asked else {}
    try:
        if model_asked:
            check_size(cls, folder)
        loaded = cls.from_pretrained(folder, local_files_only=True, **options)
        model, info = loaded if isinstance(loaded, tuple) else (loaded, {})
        if info.get("missing_keys"):
            raise ValueError(f"no weights for {', '.join(sorted(info['missing_keys'])[:3])}")
        if info.get("mismatched_keys"):
            raise ValueError(
                f"weights of another shape for {sorted(info['mismatched_keys'])[0][0]}"
            )
        if model_asked and any(
            tensor.is_meta for tensor in (*model.parameters(), *model.buffers())
        ):
            raise ValueError("some of its tensors have no numbers")
    except VwsdError:
        raise
    except (
        Exception
    ) as e:  # tokenizers raises bare Exceptions, transformers whatever a damaged file leads to
        raise VwsdError(
            f"{part} cannot be read: {first_line(e)}",
            where=folder,
            remedy="Fetch the checkpoint again: vwsd fetch models",
        ) from e
    return model.eval().requires_grad_(False) if model_asked else model


MOST_LAYERS = 1000
MOST_SIDE = 4096  # pixels of the square that a network looks at
MOST_TIMES = (
    4  # numbers that a model may have beside those of its files: buffers, tied and unused parts
)


def check_size(cls: type, folder: Path) -> None:
    """VwsdError where a configuration asks for a far larger model than the weight files hold,
    before any of it is in memory.
    """
    config = cls.config_class.from_pretrained(folder, local_files_only=True)
    stored = stored_numbers(folder)
    for part in (
        config.to_dict(),
        *(value for value in config.to_dict().values() if isinstance(value, dict)),
    ):
        if any(
            isinstance(value, int) and value > MOST_LAYERS
            for key, value in part.items()
            if str(key).endswith("layers")
        ):
            raise VwsdError(
                f"the configuration asks for more than {MOST_LAYERS:,} layers",
                where=folder / "config.json",
                remedy="Fetch the checkpoint again: vwsd fetch models",
            )
    with torch.device("meta"):
        empty = cls(config)
    asked = sum(tensor.numel() for tensor in empty.parameters())
    if asked > MOST_TIMES * stored:
        for file in weight_files(
            folder
        ):  # a file that was cut off is small too, and says so itself
            if file.suffix == ".safetensors":
                with safe_open(file, framework="pt"):
                    pass
        raise VwsdError(
            f"the configuration asks for {asked:,} numbers, the weight files hold {stored:,} at"
            " most",
            where=folder / "config.json",
            remedy=(
                "Configuration and weights are not of one model: fetch the checkpoint again: vwsd"
                " fetch models"
            ),
        )


def two_products(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    **_,
) -> tuple[torch.Tensor, None]:
    """Attention without a mask as its two products, [n, heads, length, width] -> [n, length, heads,
    width].

    On processors with bf16 products, the fused kernel of torch 2.13 takes 1.6 times as long at 50
    to 500 tokens; in fp32 it is the faster one.
    """
    weights = torch.softmax((query * scaling) @ key.transpose(-1, -2), -1)
    return (weights @ value).transpose(1, 2).contiguous(), None


transformers.AttentionInterface.register("two products", two_products)
QUICK = 1.702  # quick GELU is x * sigmoid(1.702 x)


def fold_quick_gelu(tower: torch.nn.Module) -> None:
    """Turn a tower's quick GELU into SiLU, with its factor in the weights around it: one pass over
    the widest numbers in place of three.
    """
    for layer in tower.encoder.layers:
        its = layer.mlp
        with torch.no_grad():
            its.fc1.weight.mul_(QUICK), its.fc1.bias.mul_(QUICK), its.fc2.weight.div_(QUICK)
        its.activation_fn = torch.nn.SiLU()


class MeanTower(torch.nn.Module):
    """Mean of a transformer's token states, then a linear map into CLIP's space (Carlsson et al.
    2022; Reimers and Gurevych 2020).
    """

    def __init__(self, transformer: torch.nn.Module, weights: dict[str, torch.Tensor]):
        super().__init__()
        self.transformer, self.linear = (
            transformer,
            torch.nn.Linear(*weights["weight"].shape[::-1], bias="bias" in weights),
        )
        self.linear.load_state_dict(weights)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """ids and mask (1 where a token is) [n, length] -> [n, dim], not normalised."""
        states = self.transformer(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state  # [n, length, width]
        weight = attention_mask[..., None].to(states.dtype)
        return self.linear((states * weight).sum(1) / weight.sum(1))  # [n, dim]


XLM_R_LARGE = {
    "vocab_size": 250002,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}


def load_mclip(folder: Path) -> MeanTower:
    """M-CLIP's own layout: tensors of XLM-R under `transformer.`, a linear map with bias; only the
    base model's name is in its configuration. VwsdError where tensors are missing.
    """
    tensors = read_tensors(weight_files(folder)[0])
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8")).get(
            "xlm_config", XLM_R_LARGE
        )
        with torch.device("meta"):  # no time on random weights
            transformer = transformers.XLMRobertaModel(
                transformers.XLMRobertaConfig(**config, attn_implementation="eager"),
                add_pooling_layer=False,
            )
    except Exception as e:  # whatever a damaged configuration leads to
        raise VwsdError(
            f"the configuration of M-CLIP cannot be used: {first_line(e)}",
            where=folder / "config.json",
            remedy="Fetch it again: vwsd fetch models --only mclip",
        ) from e
    shapes = {
        f"transformer.{name}": parameter.shape for name, parameter in transformer.named_parameters()
    }
    check_shapes(
        tensors,
        shapes | {"LinearTransformation.weight": None, "LinearTransformation.bias": None},
        folder,
    )
    transformer = transformer.to_empty(device="cpu")
    for name, buffer in transformer.named_buffers():  # positions and token types are not stored
        buffer.copy_(
            torch.arange(buffer.shape[-1]).expand_as(buffer)
            if name.endswith("position_ids")
            else torch.zeros_like(buffer)
        )
    part = {
        k.removeprefix("transformer."): v
        for k, v in tensors.items()
        if k.startswith("transformer.")
    }
    transformer.load_state_dict(part, strict=False)  # the pooler is there and not used
    return (
        MeanTower(
            transformer, {k: tensors[f"LinearTransformation.{k}"] for k in ("weight", "bias")}
        )
        .eval()
        .requires_grad_(False)
    )


def check_shapes(
    tensors: dict[str, torch.Tensor], shapes: dict[str, torch.Size | None], folder: Path
) -> None:
    """VwsdError where a tensor is missing or has another shape than it must (None: any)."""
    again = "Fetch the checkpoint again: vwsd fetch models"
    if missing := [name for name in shapes if name not in tensors]:
        raise VwsdError(f"no weights for {', '.join(missing[:3])}", where=folder, remedy=again)
    for name, shape in shapes.items():
        if shape is not None and tensors[name].shape != shape:
            raise VwsdError(
                f"{name} has the shape {tuple(tensors[name].shape)}, the configuration asks for"
                f" {tuple(shape)}",
                where=folder,
                remedy=again,
            )


def load_sentence(folder: Path) -> MeanTower:
    """The layout of sentence-transformers: a transformer, mean pooling, and `2_Dense`, a linear map
    without bias.
    """
    files = weight_files(folder)
    dense = read_tensors(files[1]) if len(files) > 1 else {}
    check_shapes(dense, {"linear.weight": None}, folder)
    return (
        MeanTower(load_part("DistilBertModel", folder), {"weight": dense["linear.weight"]})
        .eval()
        .requires_grad_(False)
    )


TOWERS = {"mclip": load_mclip, "clip-b32-multilingual": load_sentence}


class PretrainedEncoder:
    """One checkpoint (or two: pictures by CLIP, texts by another tower) as an encoder;
    differentiable in the pictures.
    """

    batch_size = 256

    def __init__(self, name: str, recipe: Recipe, variant: str = ""):
        self.name, self.recipe = name, recipe
        self.dtype = next(
            (DTYPES[word] for word in variant.split("-") if word in DTYPES), torch.float32
        )
        self.device = (
            f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
        )
        self.found = [find(key) for key in (recipe.checkpoint, recipe.tower) if key]
        config = load_part(recipe.model.replace("Model", "Config"), self.found[0].folder)
        self.processor = load_part(recipe.processor, self.found[0].folder, **recipe.override)
        self.tokenizer = load_part(recipe.tokenizer, self.found[-1].folder)
        try:
            self._take(config, variant)
        except (AttributeError, TypeError, ValueError, ArithmeticError) as e:
            raise VwsdError(
                f"the configuration cannot be used: {first_line(e)}",
                where=self.found[0].folder,
                remedy="Fetch the checkpoint again: vwsd fetch models",
            ) from e
        self._loading = Lock()

    def _take(self, config, variant: str) -> None:
        """What the checkpoint's configuration decides."""
        self.dim = getattr(config, "projection_dim", None) or config.vision_config.hidden_size
        self.side, self.patch = config.vision_config.image_size, config.vision_config.patch_size
        self.preparation = replace(
            square_of(self.processor), draft="draft" in variant, quick=bool(variant)
        )
        on_cpu = 2 ** int(log2(max(1, TOKENS / ((self.preparation.side // self.patch) ** 2 + 1))))
        self.image_batch, self.streams = (on_cpu, 0) if self.device == "cpu" else (GPU_BATCH, 1)
        short = (
            self.device == "cpu" and self.dtype != torch.float32
        )  # the picture's tower takes fewer steps, which round otherwise
        self.attention = "two products" if short else "sdpa"
        self.folded = short and config.vision_config.hidden_act == "quick_gelu"

    @property
    def model(self) -> torch.nn.Module:
        """Both towers, or the picture's alone where a tower of another checkpoint reads."""
        with self._loading:
            return self._model

    @cached_property
    def _model(self) -> torch.nn.Module:
        model = load_part(self.recipe.model, self.found[0].folder)
        if self.folded:
            fold_quick_gelu(model.vision_model)
        model = model.to(self.device, self.dtype)
        model.set_attn_implementation("sdpa")
        if self.attention != "sdpa":
            model.set_attn_implementation({"vision_config": self.attention})
        return model

    @cached_property
    def _open_model(self) -> torch.nn.Module:
        """The same weights, not a second time in memory, under attention that shows itself."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        model = deepcopy(self.model, {id(tensor): tensor for tensor in tensors})
        model.set_attn_implementation("eager")
        return model

    @cached_property
    def _tower(self) -> torch.nn.Module:
        return TOWERS[self.recipe.tower](self.found[1].folder).to(self.device, self.dtype)

    def pixels(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """RGB pictures of any size -> [n, 3, s, s] float32, as the network takes them: the
        processor's numbers up to rounding (1e-6).
        """
        return self._numbers(np.stack([self.preparation(image) for image in images]))

    def _numbers(self, squares: np.ndarray) -> torch.Tensor:
        """uint8 [n, s, s, 3] -> [n, 3, s, s] float32, channels last: rescaled and normalised in one
        step, on the device, where bytes travel faster.
        """
        shift, scale = self._scale
        rows = torch.from_numpy(squares).to(self.device).float().flatten(2)  # [n, s, 3 s]
        return (
            torch.addcmul(shift, rows, scale, out=rows).view(squares.shape).permute(0, 3, 1, 2)
        )  # in place: fresh memory takes as long

    @cached_property
    def _scale(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What is added to a row of bytes and what it is multiplied by, [3 s] each: long runs are
        quicker than three channels again and again.
        """
        its = self.processor
        mean, std = (
            torch.tensor(values, device=self.device).repeat(self.preparation.side)
            for values in (its.image_mean, its.image_std)
        )
        return -mean / std, its.rescale_factor / std

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """[n, 3, h, w] -> [n, dim] float32 unit rows; differentiable."""
        return F.normalize(self.look(pixels).pooler_output.float(), dim=-1)

    def look(self, pixels: torch.Tensor, model: torch.nn.Module | None = None, **options):
        """[n, 3, h, w] -> transformers' output of the picture's tower; `pooler_output` is the
        vector before normalisation.
        """
        options["interpolate_pos_encoding"] = (
            pixels.shape[-1] != self.side
        )  # positions learnt for another grid
        return (model or self.model).get_image_features(pixels.to(self.dtype), **options)

    @torch.inference_mode()
    def encode_prepared(self, squares: np.ndarray) -> np.ndarray:
        """uint8 [n, s, s, 3] from `preparation`, n at most `image_batch` -> [n, dim] float32, unit
        rows.
        """
        if rest := self.image_batch - len(squares):
            squares = np.concatenate([squares, np.zeros((rest, *squares.shape[1:]), np.uint8)])
        return self.embed(self._numbers(squares))[: len(squares) - rest].cpu().numpy()

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """RGB pictures of any size -> [n, dim] float32, unit rows."""
        starts, size = range(0, len(images), self.image_batch), self.image_batch
        rows = side_by_side(
            lambda start: self.encode_prepared(
                np.stack([self.preparation(image) for image in images[start : start + size]])
            ),
            starts,
            self.streams,
        )
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
        texts = self._cased(texts)
        counts = map(
            len,
            self.tokenizer(texts, truncation=True, max_length=self.recipe.lengths[-1])["input_ids"],
        )
        lengths = np.array(
            [next(size for size in self.recipe.lengths if size >= count) for count in counts], int
        )
        batches = [
            rows[start : start + TEXT_BATCH]
            for length in sorted(set(lengths))
            for rows in [np.flatnonzero(lengths == length)]
            for start in range(0, len(rows), TEXT_BATCH)
        ]
        tokens = (
            self._tokens(
                [texts[i] for i in rows] + [""] * (TEXT_BATCH - len(rows)), int(lengths[rows[0]])
            )
            for rows in batches
        )
        out = np.empty((len(texts), self.dim), np.float32)
        for rows, vectors in zip(batches, side_by_side(self._text_rows, tokens, self.streams)):
            out[rows] = vectors[: len(rows)]
        return out

    @torch.inference_mode()
    def _text_rows(self, tokens: dict[str, torch.Tensor]) -> np.ndarray:
        return F.normalize(self._read(tokens).float(), dim=-1).cpu().numpy()

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
        tokens = self.tokenizer(texts, return_attention_mask=self.recipe.masked, **options).to(
            self.device
        )
        return {k: tokens[k] for k in ("input_ids", "attention_mask") if k in tokens}

    def _read(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        return (
            self._tower(**tokens)
            if self.recipe.tower
            else self.model.get_text_features(**tokens).pooler_output
        )

    def window(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in pixels of a picture of `size` (w, h): what the network sees
        of it.
        """
        (w, h), its = size, self.processor
        if not getattr(its, "do_center_crop", False):
            return 0.0, 0.0, float(w), float(h)
        side = min(w, h) * its.crop_size.height / its.size.shortest_edge
        return (w - side) / 2, (h - side) / 2, (w + side) / 2, (h + side) / 2

    def relevance(self, pixels: torch.Tensor, text_vectors: np.ndarray) -> np.ndarray:
        """[1, 3, h, w] and [t, dim] -> [t, g, g] float32, at least 0: which patches raise each
        text's cosine (`roll_out`, `grad_cam`).
        """
        with torch.inference_mode(False), torch.enable_grad():
            seen = self.look(
                pixels.clone().requires_grad_(), self._open_model, output_attentions=True
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
        picture = json.dumps(
            self.processor.to_dict(),
            sort_keys=True,
            default=lambda size: {k: v for k, v in vars(size).items() if v is not None},
        )
        rules = {
            f.name: getattr(self.recipe, f.name)
            for f in self.recipe.__dataclass_fields__.values()
            if f.name not in ("override", "checkpoint")
        }
        tools = ", ".join(
            f"{package} {version(package)}"
            for package in ("transformers", "tokenizers", "torch", "pillow")
        )
        files = sha256_bytes(" ".join(files_sha256(f.folder) for f in self.found).encode())[:16]
        return {
            "model": " + ".join(
                CHECKPOINTS[key].repo for key in (self.recipe.checkpoint, self.recipe.tower) if key
            ),
            "revision": " + ".join(f.revision for f in self.found),
            "weights_sha256": joined_hash(self.found),
            "processor": (
                f"{picture}; {json.dumps(rules)}; {self.preparation}, batches {self.image_batch},"
                f" {TEXT_BATCH}; {self.attention}{', quick GELU folded' * self.folded}; {tools};"
                f" files {files}"
            ),
            "image_variant": "as stored",
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device.partition(":")[0],
        }


def joined_hash(found: list) -> str:
    """The weights' SHA-256; of both hashes where there are two checkpoints."""
    hashes = [f.weights_sha256 for f in found]
    return hashes[0] if len(hashes) == 1 else sha256_bytes("".join(hashes).encode())


def roll_out(seen, score: torch.Tensor) -> torch.Tensor:
    """Gradient-weighted attention rollout (Chefer et al. 2021, eqs. 5 and 6): the class token's
    relevance of each patch, [patches].
    """
    gradients = torch.autograd.grad(score, seen.attentions, retain_graph=True)
    relevance = torch.eye(seen.attentions[0].shape[-1], device=score.device)
    for attention, gradient in zip(seen.attentions, gradients):
        relevance = (
            relevance + (attention * gradient).float().clamp(min=0).mean(1)[0] @ relevance
        )  # mean over heads
    return relevance[0, 1:].detach()


def grad_cam(seen, score: torch.Tensor) -> torch.Tensor:
    """Grad-CAM (Selvaraju et al. 2017) on the patch states that SigLIP's head pools: there is no
    class token to roll out, [patches].
    """
    gradient = torch.autograd.grad(score, seen.last_hidden_state, retain_graph=True)[0][
        0
    ].float()  # [patches, width]
    return (seen.last_hidden_state[0].float() @ gradient.mean(0)).clamp(min=0).detach()


RELEVANCE = {"CLIPModel": roll_out, "CLIPSegModel": roll_out, "SiglipModel": grad_cam}


def square_of(processor) -> Square:
    """What a processor of transformers does to a picture up to its numbers: resize, and cut out the
    centre where it does. VwsdError where it does anything else.
    """
    size, crop = processor.size, getattr(processor, "do_center_crop", False)
    side, edge = (processor.crop_size.height, size.shortest_edge) if crop else (size.height, 0)
    sizes_fit = bool(side) and (edge >= side if crop and edge else not crop and size.width == side)
    if (
        not sizes_fit
        or max(side, edge or 0) > MOST_SIDE
        or not (processor.do_rescale and processor.do_normalize)
    ):
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
    alone is fp32 otherwise.
    """
    return PretrainedEncoder(f"{name}@{variant}" if variant else name, RECIPES[name], variant)


def load_encoder_parts(name: str) -> tuple:
    """(model, tokenizer, processor, identity) of one recipe in fp32, for those who build on the
    towers themselves (PolCLIP).
    """
    its = load_pretrained(name)
    return its.model, its.tokenizer, its.processor, its.identity()
