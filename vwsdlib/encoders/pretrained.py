"""Encoders from published checkpoints through transformers: CLIP, CLIPSeg's dual encoder, SigLIP, and text towers for other languages.

What differs between them is data (`RECIPES`). Pictures are prepared by the checkpoint's own processor, read from its files by the name of
its class, because which class an `Auto...` takes depends on what else is installed. Attention is computed openly ("eager"), so that the
weights that `relevance` needs are the ones that made the vector. Batches have one shape, whoever is encoded alongside.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from math import isqrt
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from safetensors import SafetensorError

from ..errors import VwsdError
from ..paths import sha256_bytes
from .checkpoints import CHECKPOINTS, find, read_tensors, weight_files

transformers.logging.set_verbosity_error()       # what it would report (weights that do not fit) is an error here; see load_part
transformers.logging.disable_progress_bar()
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TEXT_BATCH, IMAGE_BATCH = 16, {"cpu": 4, "cuda": 64}
CLIP_STATISTICS = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
IMAGENET_STATISTICS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
AT_352 = {"size": {"shortest_edge": 352}, "crop_size": {"height": 352, "width": 352}}
SQUASH_352 = {"size": {"height": 352, "width": 352}, "do_center_crop": False}
BICUBIC, BILINEAR = {"resample": 3}, {"resample": 2}                                              # CLIP's and CLIPSeg's


@dataclass(frozen=True)
class Recipe:
    """How an encoder uses its checkpoint."""

    checkpoint: str                      # key of CHECKPOINTS
    model: str = "CLIPModel"
    processor: str = "CLIPImageProcessorPil"
    tokenizer: str = "AutoTokenizer"
    lengths: tuple[int, ...] = (77,)     # tokens: a text is padded to the first that holds it, cut at the last
    masked: bool = True                  # False: padding is read like text, as SigLIP was trained (Zhai et al. 2023)
    lower: bool = False
    override: dict = field(default_factory=dict)     # changes to the checkpoint's own preparation of pictures
    tower: str = ""                      # key of the checkpoint whose text tower reads in place of this one's


B16, SIGLIP = Recipe("clip-vit-b16"), Recipe("", "SiglipModel", "SiglipImageProcessorPil", lengths=(64,), masked=False)
# SigLIP 2's tokenizer as it is in its file: the class its configuration names pads on the left and knows nothing of lower case
SIGLIP2 = replace(SIGLIP, tokenizer="PreTrainedTokenizerFast", lower=True)
RECIPES: dict[str, Recipe] = {
    **{key: Recipe(key) for key in ("clip-vit-b32", "clip-vit-b16", "clip-vit-l14", "clip-vit-l14-336", "openclip-h14")},
    "clip-vit-b16-352": replace(B16, override=AT_352 | CLIP_STATISTICS | BICUBIC),
    "clip-vit-b16-352-imagenet": replace(B16, override=AT_352 | IMAGENET_STATISTICS | BICUBIC),
    "clip-vit-b16-352-squash": replace(B16, override=SQUASH_352 | IMAGENET_STATISTICS | BICUBIC),
    "clip-vit-b16-352-squash-bilinear": replace(B16, override=SQUASH_352 | IMAGENET_STATISTICS | BILINEAR),
    "clipseg-rd64": Recipe("clipseg-rd64", "CLIPSegModel", "ViTImageProcessorPil"),
    "siglip-multilingual": replace(SIGLIP, checkpoint="siglip-multilingual"),
    **{key: replace(SIGLIP2, checkpoint=key) for key in ("siglip2-base", "siglip2-large", "siglip2-so400m")},
    "mclip": Recipe("clip-vit-b32", tower="mclip", lengths=(32, 128)),
    "clip-b32-multilingual": Recipe("clip-vit-b32", tower="clip-b32-multilingual", lengths=(32, 128)),
}


def load_part(part: str, folder: Path, **options):
    """`transformers.<part>` from a folder; VwsdError where files are missing or damaged, or weights would be left to chance."""
    cls = getattr(transformers, part)
    options |= {"output_loading_info": True, "attn_implementation": "eager"} if hasattr(cls, "forward") else {}
    try:
        loaded = cls.from_pretrained(folder, local_files_only=True, **options)
        model, info = loaded if isinstance(loaded, tuple) else (loaded, {})
        if info.get("missing_keys"):
            raise ValueError(f"no weights for {', '.join(sorted(info['missing_keys'])[:3])}")
    except (OSError, ValueError, RuntimeError, SafetensorError) as e:
        raise VwsdError(f"{part} cannot be read: {str(e).strip().splitlines()[0]}", where=folder,
                        remedy="Fetch the checkpoint again: vwsd fetch models") from e
    return model.eval().requires_grad_(False) if hasattr(cls, "forward") else model


class MeanTower(torch.nn.Module):
    """Mean of a transformer's token states, then a linear map into CLIP's space (Carlsson et al. 2022; Reimers and Gurevych 2020)."""

    def __init__(self, transformer: torch.nn.Module, weights: dict[str, torch.Tensor]):
        super().__init__()
        self.transformer, self.linear = transformer, torch.nn.Linear(*weights["weight"].shape[::-1], bias="bias" in weights)
        self.linear.load_state_dict(weights)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state    # [n, length, width]
        weight = attention_mask[..., None].to(states.dtype)
        return self.linear((states * weight).sum(1) / weight.sum(1))                                      # [n, dim]


XLM_R_LARGE = {"vocab_size": 250002, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
               "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}


def load_mclip(folder: Path) -> MeanTower:
    """M-CLIP's own layout: tensors of XLM-R under `transformer.`, a linear map with bias; only the base model's name is in its configuration."""
    config = json.loads((folder / "config.json").read_text()).get("xlm_config", XLM_R_LARGE)
    tensors = read_tensors(weight_files(folder)[0])
    with torch.device("meta"):                                                        # no time on random weights
        transformer = transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**config, attn_implementation="eager"), add_pooling_layer=False)
    transformer = transformer.to_empty(device="cpu")
    for name, buffer in transformer.named_buffers():                                  # positions and token types are not stored
        buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer) if name.endswith("position_ids") else torch.zeros_like(buffer))
    part = {k.removeprefix("transformer."): v for k, v in tensors.items() if k.startswith("transformer.")}
    if missing := transformer.load_state_dict(part, strict=False).missing_keys:       # the pooler is there and not used
        raise VwsdError(f"no weights for {', '.join(missing[:3])}", where=folder, remedy="Fetch it again: vwsd fetch models --only mclip")
    return MeanTower(transformer, {k: tensors[f"LinearTransformation.{k}"] for k in ("weight", "bias")}).eval().requires_grad_(False)


def load_sentence(folder: Path) -> MeanTower:
    """The layout of sentence-transformers: a transformer, mean pooling, and `2_Dense`, a linear map without bias."""
    dense = read_tensors(weight_files(folder)[1])
    return MeanTower(load_part("DistilBertModel", folder), {"weight": dense["linear.weight"]}).eval().requires_grad_(False)


TOWERS = {"mclip": load_mclip, "clip-b32-multilingual": load_sentence}


class PretrainedEncoder:
    """One checkpoint (or two: pictures by CLIP, texts by another tower) as an encoder; differentiable in the pictures."""

    batch_size = 64

    def __init__(self, name: str, recipe: Recipe, dtype: str = "fp32"):
        self.name, self.recipe, self.dtype = name, recipe, DTYPES[dtype]
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.found = [find(key) for key in (recipe.checkpoint, recipe.tower) if key]
        self.model = load_part(recipe.model, self.found[0].folder).to(self.device, self.dtype)
        self.tower = TOWERS[recipe.tower](self.found[1].folder).to(self.device, self.dtype) if recipe.tower else None
        self.processor = load_part(recipe.processor, self.found[0].folder, **recipe.override)
        self.tokenizer = load_part(recipe.tokenizer, self.found[-1].folder)
        config = self.model.config
        self.dim = getattr(config, "projection_dim", None) or config.vision_config.hidden_size
        self.side, self.patch = config.vision_config.image_size, config.vision_config.patch_size

    def pixels(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """RGB pictures of any size -> [n, 3, h, w] float32, as the network takes them."""
        return self.processor(list(images), return_tensors="pt")["pixel_values"].to(self.device)

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """[n, 3, h, w] -> [n, dim] float32 unit rows; differentiable."""
        return F.normalize(self.look(pixels).pooler_output.float(), dim=-1)

    def look(self, pixels: torch.Tensor, **options):
        """[n, 3, h, w] -> transformers' output of the picture's tower; `pooler_output` is the vector before normalisation."""
        options["interpolate_pos_encoding"] = pixels.shape[-1] != self.side            # positions learnt for another grid
        return self.model.get_image_features(pixels.to(self.dtype), **options)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """RGB pictures of any size -> [n, dim] float32, unit rows."""
        rows, size = [np.zeros((0, self.dim), np.float32)], IMAGE_BATCH[self.device]
        for start in range(0, len(images), size):
            some = self.pixels(images[start:start + size])
            batch = F.pad(some, (0, 0, 0, 0, 0, 0, 0, size - len(some)))
            rows.append(self.embed(batch)[:len(some)].cpu().numpy())
        return np.concatenate(rows)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> [n, dim] float32, unit rows."""
        texts = [t.lower() if self.recipe.lower else t for t in texts]
        counts = [len(self.tokenizer(t, truncation=True, max_length=self.recipe.lengths[-1])["input_ids"]) for t in texts]
        lengths = np.array([next(size for size in self.recipe.lengths if size >= count) for count in counts], int)
        out = np.zeros((len(texts), self.dim), np.float32)
        for length in sorted(set(lengths)):
            where = np.flatnonzero(lengths == length)
            for rows in (where[start:start + TEXT_BATCH] for start in range(0, len(where), TEXT_BATCH)):
                vectors = self.read([texts[i] for i in rows] + [""] * (TEXT_BATCH - len(rows)), int(length))
                out[rows] = F.normalize(vectors.float(), dim=-1)[:len(rows)].cpu().numpy()
        return out

    def read(self, texts: list[str], length: int) -> torch.Tensor:
        """Texts -> [n, dim] before normalisation, padded on the right to `length` tokens."""
        options = {"padding": "max_length", "padding_side": "right", "truncation": True, "max_length": length, "return_tensors": "pt"}
        tokens = self.tokenizer(texts, return_attention_mask=self.recipe.masked, **options).to(self.device)
        tokens = {k: tokens[k] for k in ("input_ids", "attention_mask") if k in tokens}
        return self.tower(**tokens) if self.tower else self.model.get_text_features(**tokens).pooler_output

    def window(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in pixels of a picture of `size` (w, h): what the network sees of it."""
        (w, h), its = size, self.processor
        if not getattr(its, "do_center_crop", False):
            return 0.0, 0.0, float(w), float(h)
        side = min(w, h) * its.crop_size.height / its.size.shortest_edge
        return (w - side) / 2, (h - side) / 2, (w + side) / 2, (h + side) / 2

    def relevance(self, pixels: torch.Tensor, text_vectors: np.ndarray) -> np.ndarray:
        """[1, 3, h, w] and [t, dim] -> [t, g, g] float32, at least 0: which patches raise each text's cosine (`roll_out`, `grad_cam`)."""
        with torch.inference_mode(False), torch.enable_grad():
            seen = self.look(pixels.clone().requires_grad_(), output_attentions=True)
            texts = torch.tensor(np.asarray(text_vectors), dtype=torch.float32, device=self.device)
            cosines = (F.normalize(seen.pooler_output.float(), dim=-1) @ texts.T)[0]                       # [t]
            maps = torch.stack([RELEVANCE[self.recipe.model](seen, cosine) for cosine in cosines])         # [t, patches]
        grid = isqrt(maps.shape[1])
        assert grid * grid == maps.shape[1] and grid == pixels.shape[-1] // self.patch, f"{maps.shape[1]} patches are no square grid"
        return maps.reshape(-1, grid, grid).float().cpu().numpy()

    def identity(self) -> dict:
        """All that decides a vector."""
        picture = json.dumps(self.processor.to_dict(), sort_keys=True, default=lambda size: {k: v for k, v in vars(size).items() if v is not None})
        rules = {f.name: getattr(self.recipe, f.name) for f in self.recipe.__dataclass_fields__.values() if f.name not in ("override", "checkpoint")}
        tools = ", ".join(f"{package} {version(package)}" for package in ("transformers", "tokenizers", "torch", "pillow"))
        return {"model": " + ".join(CHECKPOINTS[key].repo for key in (self.recipe.checkpoint, self.recipe.tower) if key),
                "revision": " + ".join(f.revision for f in self.found), "weights_sha256": joined_hash(self.found),
                "processor": f"{picture}; {json.dumps(rules)}; batches {IMAGE_BATCH[self.device]}, {TEXT_BATCH}; eager attention; {tools}",
                "image_variant": "as stored", "dtype": str(self.dtype).removeprefix("torch."), "device": self.device}


def joined_hash(found: list) -> str:
    """The weights' SHA-256; of both hashes where there are two checkpoints."""
    hashes = [f.weights_sha256 for f in found]
    return hashes[0] if len(hashes) == 1 else sha256_bytes("".join(hashes).encode())


def roll_out(seen, score: torch.Tensor) -> torch.Tensor:
    """Gradient-weighted attention rollout (Chefer et al. 2021, eqs. 5 and 6): the class token's relevance of each patch, [patches]."""
    gradients = torch.autograd.grad(score, seen.attentions, retain_graph=True)
    relevance = torch.eye(seen.attentions[0].shape[-1], device=score.device)
    for attention, gradient in zip(seen.attentions, gradients):
        relevance = relevance + (attention * gradient).float().clamp(min=0).mean(1)[0] @ relevance        # mean over heads
    return relevance[0, 1:].detach()


def grad_cam(seen, score: torch.Tensor) -> torch.Tensor:
    """Grad-CAM (Selvaraju et al. 2017) on the patch states that SigLIP's head pools: there is no class token to roll out, [patches]."""
    gradient = torch.autograd.grad(score, seen.last_hidden_state, retain_graph=True)[0][0].float()        # [patches, width]
    return (seen.last_hidden_state[0].float() @ gradient.mean(0)).clamp(min=0).detach()


RELEVANCE = {"CLIPModel": roll_out, "CLIPSegModel": roll_out, "SiglipModel": grad_cam}


def load_pretrained(name: str, dtype: str = "fp32") -> PretrainedEncoder:
    """The encoder of one recipe; "fp32" is the reference, "bf16" and "fp16" cast the model and still give float32 rows."""
    return PretrainedEncoder(name if dtype == "fp32" else f"{name}@{dtype}", RECIPES[name], dtype)


def load_encoder_parts(name: str) -> tuple:
    """(model, tokenizer, processor, identity) of one recipe in fp32, for those who build on the towers themselves (PolCLIP)."""
    its = load_pretrained(name)
    return its.model, its.tokenizer, its.processor, its.identity()
