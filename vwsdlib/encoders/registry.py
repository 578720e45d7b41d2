"""Encoders by name. A new model is one entry in encoders.yml, or in another package
(`vwsdlib.registry`): nothing else needs to know.

An encoder turns pictures and texts into unit vectors of one space. Its `identity()` holds
everything that a vector depends on; equal identities mean equal vectors. Vectors must not depend on
what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from ..errors import VwsdError, entry_of
from ..registry import Line, Registry


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
        ...

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> [n, dim] float32, unit rows."""
        ...

    def identity(self) -> dict:
        """model, revision, weights_sha256, processor, image_variant, dtype, device: all that
        decides a vector.
        """
        ...


class Segmenter(Protocol):
    """A model that gives a mask for a text."""

    name: str

    def masks(self, image: Image.Image, texts: Sequence[str]) -> np.ndarray:
        """An RGB picture and t texts -> [t, S, S] float32 raw logits over the whole squashed
        picture.
        """
        ...

    def identity(self) -> dict:
        """All that decides a mask."""
        ...


@dataclass(frozen=True)
class Entry(Line):
    """An encoder or a segmenter: where it is made (with the variant as the last argument, where one
    is asked for), what it is, what it needs, which languages it was made for.

    fault: "module:callable" -> the VwsdError of a machine that cannot run it, else None; of those
    that a notebook goes on without.
    """

    languages: tuple[str, ...]
    extra: str  # the extra of this package that brings what it needs
    checkpoints: tuple[str, ...] = ()  # keys of checkpoints.CHECKPOINTS that it reads
    variants: tuple[str, ...] = ()  # faster ones with a drift that is measured: "name@variant"
    fault: str = ""


ENCODERS = Registry(Entry, "vwsdlib.encoders", Path(__file__).with_name("encoders.yml"))
# models that give a mask for a text
SEGMENTERS = Registry(
    Entry,
    "vwsdlib.segmenters",
    {
        "clipseg-rd64": Entry(
            "vwsdlib.encoders.clipseg:ClipSegSegmenter:clipseg-rd64",
            "CLIPSeg with its decoder",
            ("en",),
            "paper",
            ("clipseg-rd64",),
        )
    },
)


def entry(name: str, table: Mapping[str, Entry] = ENCODERS) -> Entry:
    """Registry line of an encoder, also of its variant "name@variant"; VwsdError lists the
    alternatives.
    """
    plain, at, variant = name.partition("@")
    line = entry_of("encoder" if table is ENCODERS else "segmenter", plain, table)
    if at and variant not in line.variants:
        variants = ", ".join(f"{plain}@{v}" for v in line.variants)
        raise VwsdError(
            f"{plain!r} has no variant {variant!r}", remedy=f"Variants: {variants or 'none'}."
        )
    return line


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


def _load(name: str, table: Mapping[str, Entry]):
    line = entry(name, table)
    try:
        return line(*name.split("@")[1:])
    except ImportError as e:
        raise VwsdError(
            f"{name!r} needs the package {e.name or e}",
            remedy=f"Install it: pip install 'vwsdlib[{line.extra}]'.",
        ) from e
