"""Encoders by name. A new model is one entry here: nothing else needs to know.

An encoder turns pictures and texts into unit vectors of one space. Its `identity()` holds
everything that a vector depends on; equal identities mean equal vectors. Vectors must not depend on
what else is in the batch.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Protocol

import numpy as np
from PIL import Image

from ..errors import VwsdError


class Encoder(Protocol):
    """What every encoder offers.

    For speed it may also have `preparation` (picklable: an RGB picture -> uint8 [s, s, 3];
    `data.pictures.Square`), `encode_prepared` (uint8 [n, s, s, 3] -> [n, dim], n at most
    `image_batch`; called from several threads) and `streams` (how many; 0: one a core). Where it
    cuts long texts it has `max_tokens` and `count_tokens` (texts -> how many tokens each has before
    it is cut): those cut are counted on stderr.
    """

    name: str
    dim: int
    batch_size: int  # pictures or texts that the store hands over at once

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """RGB pictures -> [n, dim] float32, unit rows."""

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> [n, dim] float32, unit rows."""

    def identity(self) -> dict:
        """model, revision, weights_sha256, processor, image_variant, dtype, device: all that
        decides a vector.
        """


class Segmenter(Protocol):
    """A model that gives a mask for a text."""

    name: str

    def masks(self, image: Image.Image, texts: Sequence[str]) -> np.ndarray:
        """An RGB picture and t texts -> [t, S, S] float32 raw logits over the whole squashed
        picture.
        """

    def identity(self) -> dict:
        """All that decides a mask."""


@dataclass(frozen=True)
class Entry:
    """One line of the registry: where the encoder is made, what it is, what it needs, which
    languages it was made for.
    """

    loader: str  # "module:callable" or "module:callable:argument", imported when asked for
    about: str
    languages: tuple[str, ...]
    extra: str  # the extra of this package that brings what it needs
    checkpoints: tuple[str, ...] = ()  # keys of checkpoints.CHECKPOINTS that it reads
    variants: tuple[str, ...] = ()  # faster ones with a drift that is measured: "name@variant"


EN = ("en",)
USE_16 = (
    "en",
    "ar",
    "zh",
    "nl",
    "fr",
    "de",
    "it",
    "ja",
    "ko",
    "pl",
    "pt",
    "ru",
    "es",
    "th",
    "tr",
)  # traditional Chinese is the sixteenth
MANY = (
    "en",
    "it",
    "fa",
    "ar",
    "bg",
    "cs",
    "da",
    "de",
    "el",
    "es",
    "et",
    "fi",
    "fr",
    "he",
    "hi",
    "hr",
    "hu",
    "id",
    "ja",
    "ko",
    "lt",
    "lv",
    "nl",
    "no",
    "pl",
    "pt",
    "ro",
    "ru",
    "sk",
    "sl",
    "sr",
    "sv",
    "th",
    "tr",
    "uk",
    "vi",
    "zh",
)


def published(name: str, about: str, languages: tuple[str, ...], *checkpoints: str) -> Entry:
    """Line of an encoder from published checkpoints: by default the one of its own name."""
    return Entry(
        f"vwsdlib.encoders.pretrained:load_pretrained:{name}",
        about,
        languages,
        "paper",
        checkpoints or (name,),
        ("quick", "bf16", "fp16", "draft", "bf16-draft"),
    )


ENCODERS: dict[str, Entry] = {
    "lite": Entry(
        "vwsd_standins.lite:load_lite",
        "EfficientNet-Lite0 + MiniLM with a small trained head; runs anywhere",
        EN,
        "demo",
    ),
    "random": Entry(
        "vwsdlib.encoders.control:load_random",
        "control: a random unit vector for each content, so at chance",
        MANY,
        "",
    ),
    "lite-352": Entry(
        "vwsd_standins.lite_twins:load_view:lite-352",
        "the lite encoder at 352 px, CLIPSeg's input size",
        EN,
        "demo",
    ),
    "lite-352-imagenet": Entry(
        "vwsd_standins.lite_twins:load_view:lite-352-imagenet",
        "the same with ImageNet's mean and deviation",
        EN,
        "demo",
    ),
    "lite-multilingual": Entry(
        "vwsd_standins.lite_twins:load_multilingual",
        "the lite encoder's pictures, texts of 16 languages (not Farsi)",
        USE_16,
        "demo",
    ),
    "clip-vit-b32": published(
        "clip-vit-b32", "OpenAI CLIP ViT-B/32 at 224 px: the study's baseline", EN
    ),
    "clip-vit-b16": published("clip-vit-b16", "OpenAI CLIP ViT-B/16 at 224 px", EN),
    "clip-vit-l14": published("clip-vit-l14", "OpenAI CLIP ViT-L/14 at 224 px", EN),
    "clip-vit-l14-336": published("clip-vit-l14-336", "OpenAI CLIP ViT-L/14 at 336 px", EN),
    "clip-vit-b16-352": published(
        "clip-vit-b16-352",
        "control: CLIP ViT-B/16 at 352 px, positions interpolated",
        EN,
        "clip-vit-b16",
    ),
    "clip-vit-b16-352-imagenet": published(
        "clip-vit-b16-352-imagenet",
        "control: the same with ImageNet's mean and deviation",
        EN,
        "clip-vit-b16",
    ),
    "clip-vit-b16-352-squash": published(
        "clip-vit-b16-352-squash", "control: the same, squashed, not cropped", EN, "clip-vit-b16"
    ),
    "clip-vit-b16-352-squash-bilinear": published(
        "clip-vit-b16-352-squash-bilinear",
        "control: the same, bilinear, not bicubic",
        EN,
        "clip-vit-b16",
    ),
    "clipseg-rd64": published(
        "clipseg-rd64",
        "CLIPSeg rd64-refined as dual encoder (352 px, squashed, no decoder): what the study"
        " scored",
        EN,
    ),
    "siglip-multilingual": published(
        "siglip-multilingual", "SigLIP base, multilingual, 256 px", MANY
    ),
    "siglip2-base": published("siglip2-base", "SigLIP 2 base at 256 px", MANY),
    "siglip2-large": published("siglip2-large", "SigLIP 2 large at 256 px", MANY),
    "siglip2-so400m": published("siglip2-so400m", "SigLIP 2 so400m at 256 px", MANY),
    "openclip-h14": published("openclip-h14", "OpenCLIP ViT-H/14, LAION-2B", EN),
    "mclip": published(
        "mclip", "M-CLIP: XLM-R large reads, CLIP ViT-B/32 sees", MANY, "clip-vit-b32", "mclip"
    ),
    "clip-b32-multilingual": published(
        "clip-b32-multilingual",
        "the organisers' multilingual CLIP: DistilBERT reads, B/32 sees",
        MANY,
        "clip-vit-b32",
        "clip-b32-multilingual",
    ),
}

# models that give a mask for a text
SEGMENTERS: dict[str, Entry] = {
    "lite-dense": Entry(
        "vwsd_standins.lite_twins:load_dense:lite-dense",
        "the lite encoder at every place of its 11x11 feature map (352 px)",
        EN,
        "demo",
    ),
    "lite-dense-704": Entry(
        "vwsd_standins.lite_twins:load_dense:lite-dense-704",
        "the same at 704 px, 22x22 places",
        EN,
        "demo",
    ),
    "clipseg-rd64": Entry(
        "vwsdlib.encoders.clipseg:ClipSegSegmenter:clipseg-rd64",
        "CLIPSeg with its decoder",
        EN,
        "paper",
        ("clipseg-rd64",),
    ),
}


def entry(name: str, table: dict[str, Entry] = ENCODERS) -> Entry:
    """Registry line of an encoder, also of its variant "name@variant"; VwsdError lists the
    alternatives.
    """
    plain, _, variant = name.partition("@")
    if plain not in table:
        near = difflib.get_close_matches(plain, table, 1)
        kind, hint = (
            "encoder" if table is ENCODERS else "segmenter",
            (f"Did you mean {near[0]!r}? " if near else ""),
        )
        raise VwsdError(
            f"no {kind} named {name!r}", remedy=f"{hint}{kind.capitalize()}s: {', '.join(table)}."
        )
    if "@" in name and variant not in table[plain].variants:
        variants = ", ".join(f"{plain}@{v}" for v in table[plain].variants)
        raise VwsdError(
            f"{plain!r} has no variant {variant!r}", remedy=f"Variants: {variants or 'none'}."
        )
    return table[plain]


@cache
def load_encoder(name: str) -> Encoder:
    """An encoder by name or "name@variant", loaded once a process; VwsdError says what to install
    or fetch where something is missing.
    """
    return _load(name, ENCODERS)


@cache
def load_segmenter(name: str) -> Segmenter:
    """A model that gives masks for texts, by name, loaded once a process."""
    return _load(name, SEGMENTERS)


def _load(name: str, table: dict[str, Entry]):
    found = entry(name, table)
    module, function, *arguments = found.loader.split(":")
    try:
        make: Callable = getattr(import_module(module), function)
        return make(*arguments, *name.split("@")[1:])
    except ImportError as e:
        raise VwsdError(
            f"{name!r} needs the package {e.name or e}",
            remedy=f"Install it: pip install 'vwsdlib[{found.extra}]'.",
        ) from e
