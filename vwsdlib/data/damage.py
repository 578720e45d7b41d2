"""Damaged pictures of a set: not there, no picture, or cut short; and what stands in their place.

What to do with them is a parameter of the notebooks (DAMAGED_WAYS). "keep" is their default, as it
is the field's, whose code sets Pillow's LOAD_TRUNCATED_IMAGES and scores what decodes. What does
not decode at all is ranked last and its item stays counted, as pictures that `vwsd evaluate` lacks.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..paths import cache_dir, write_bytes

DAMAGED_WAYS = {
    "stop": "a damaged picture stops the notebook",
    "keep": "what decodes of a picture that is cut short is looked at; all others as with miss",
    "miss": "a damaged picture ranks last, and its item is counted",
}
TRUNCATED, MISSING, UNDECODED = DAMAGED = ("truncated", "missing", "no picture")


@dataclass(frozen=True)
class Damage:
    """What is damaged of a set's pictures. way: of DAMAGED_WAYS; pictures: how many were looked at;
    kinds: image name -> one of DAMAGED.
    """

    way: str = "stop"
    pictures: int = 0
    kinds: Mapping[str, str] = field(default_factory=dict, hash=False)

    @cached_property
    def missed(self) -> frozenset[str]:
        """Names of the pictures that nobody looks at and that rank last."""
        kept = TRUNCATED if self.way == "keep" else ""
        return frozenset(name for name, kind in self.kinds.items() if kind != kept)

    def facts(self) -> dict:
        """What a fact's meta says of it; nothing where all pictures are whole."""
        if not self.kinds:
            return {}
        names: dict[str, list[str]] = {}
        for name, kind in self.kinds.items():
            names.setdefault(kind, []).append(name)
        return {"damaged": {"way": self.way, "pictures": self.pictures, **names}}


def damage_told(damaged: Mapping) -> str:
    """`Damage.facts` in words: "3 of 8,100 pictures damaged: 1 truncated (kept), 2 missing (ranked
    last)".
    """
    counts = {kind: len(damaged[kind]) for kind in DAMAGED if kind in damaged}
    parts = []
    for kind, count in counts.items():
        kept = kind == TRUNCATED and damaged["way"] == "keep"
        parts.append(f"{count} {kind} ({'kept' if kept else 'ranked last'})")
    total = sum(counts.values())
    return f"{total:,} of {damaged['pictures']:,} pictures damaged: {', '.join(parts)}"


def blank() -> Path:
    """A grey picture, which stands in the place of one that is missed: all that looks at pictures
    runs on, and its rank is not the model's (`analysis.scorers.missed_last`).
    """
    path = cache_dir() / "blank.png"
    if not path.exists():
        from PIL import Image

        out = io.BytesIO()
        Image.new("RGB", (64, 64), (128, 128, 128)).save(out, "PNG")
        write_bytes(path, out.getvalue())
    return path
