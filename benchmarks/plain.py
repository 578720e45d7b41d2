"""The plain loop that the library is measured against, as the study's reader would write it: one
item at a time, one text, ten pictures, one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from tqdm.auto import tqdm

from benchmarks import models
from vwsdlib.data.sets import VwsdSet
from vwsdlib.device import choose
from vwsdlib.encoders.checkpoints import CHECKPOINTS
from vwsdlib.encoders.pretrained import RECIPES
from vwsdlib.paths import quiet


@dataclass(frozen=True)
class Plain:
    """A checkpoint through transformers' own classes: fp32, default threads, default attention; on
    the device that its model is on.
    """

    model: torch.nn.Module
    processor: object
    tokenizer: object

    @torch.no_grad()
    def cosines(self, text: str, pictures: Sequence[Image.Image]) -> np.ndarray:
        """One pass: a text and k pictures -> [k] cosines (the logits without their scale, which
        changes no order).
        """
        inputs = {
            **self.tokenizer([text], return_tensors="pt"),
            **self.processor(images=pictures, return_tensors="pt"),
        }
        inputs = {name: values.to(self.model.device) for name, values in inputs.items()}
        logits = self.model(**inputs).logits_per_image / self.model.logit_scale.exp()
        return logits[:, 0].cpu().numpy()


@cache
def load(name: str, tiny: bool = False) -> Plain:
    """The plain model of an encoder's name, on the device that the library would take."""
    recipe, folder = RECIPES[name], models.folder(tiny) / CHECKPOINTS[RECIPES[name].checkpoint].repo
    return Plain(
        getattr(transformers, recipe.model).from_pretrained(folder).eval().to(choose()),
        getattr(transformers, recipe.processor).from_pretrained(folder),
        transformers.AutoTokenizer.from_pretrained(folder),
    )


def _open(path: Path) -> Image.Image:
    image = Image.open(path)
    return image if image.mode == "RGB" else image.convert("RGB")


def scores(plain: Plain, data: VwsdSet, texts: Sequence[str]) -> np.ndarray:
    """[n, 10] cosines of each item's text with its pictures."""
    pairs = tqdm(
        list(zip(data.items, texts)),
        desc=f"plain loop, {data.language}",
        unit=" items",
        leave=False,
        disable=quiet(),
    )
    return np.array(
        [
            plain.cosines(text, [_open(data.path(c)) for c in item.candidates])
            for item, text in pairs
        ]
    )


def crop_map(plain: Plain, picture: Image.Image, text: str, crops: np.ndarray) -> np.ndarray:
    """Random-crop saliency, one crop a pass: sums of the changes in cosine, [h, w] float64; crops:
    [n, 3] of left, top, side.
    """
    pixels, total = np.asarray(picture), np.zeros(picture.size[::-1])
    whole = plain.cosines(text, [picture])[0].astype(np.float64)
    for x, y, side in tqdm(
        crops.tolist(), desc="plain crops", unit=" crops", leave=False, disable=quiet()
    ):
        part = pixels[y : y + side, x : x + side]
        total[y : y + side, x : x + side] += plain.cosines(text, [Image.fromarray(part)])[0] - whole
    return total
