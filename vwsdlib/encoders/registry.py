"""Encoders by name. A new model is one entry here: nothing else needs to know.

An encoder turns pictures and texts into unit vectors of one space. Its `identity()` holds everything that a vector depends on;
equal identities mean equal vectors. Vectors must not depend on what else is in the batch.
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
    """What every encoder offers."""

    name: str
    dim: int
    batch_size: int  # pictures or texts that the store hands over at once

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """RGB pictures -> [n, dim] float32, unit rows."""

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> [n, dim] float32, unit rows."""

    def identity(self) -> dict:
        """model, revision, weights_sha256, processor, image_variant, dtype, device: all that decides a vector."""


@dataclass(frozen=True)
class Entry:
    """One line of the registry: where the encoder is made, what it is, what it needs, which languages it was made for."""

    loader: str  # "module:function" without arguments, imported when asked for
    about: str
    languages: tuple[str, ...]
    extra: str   # the extra of this package that brings what it needs


ENCODERS: dict[str, Entry] = {
    "lite": Entry("vwsdlib.encoders.lite:load_lite", "EfficientNet-Lite0 + MiniLM with a small trained head; runs anywhere", ("en",), "demo"),
    "random": Entry("vwsdlib.encoders.control:load_random", "control: a random unit vector for each content, so at chance", ("en", "it", "fa"), ""),
}


def entry(name: str) -> Entry:
    """Registry line of an encoder; VwsdError lists the alternatives."""
    if name not in ENCODERS:
        near = difflib.get_close_matches(name, ENCODERS, 1)
        raise VwsdError(f"no encoder named {name!r}", remedy=f"{f'Did you mean {near[0]!r}? ' if near else ''}Encoders: {', '.join(ENCODERS)}.")
    return ENCODERS[name]


@cache
def load_encoder(name: str) -> Encoder:
    """An encoder by name, loaded once a process; VwsdError says what to install where something is missing."""
    found = entry(name)
    module, function = found.loader.split(":")
    try:
        make: Callable[[], Encoder] = getattr(import_module(module), function)
        return make()
    except ImportError as e:
        raise VwsdError(f"the encoder {name!r} needs the package {e.name or e}", remedy=f"Install it: pip install 'vwsdlib[{found.extra}]'.") from e
