"""CLIPSeg as what it was made for: a mask for a text (Lüddecke and Ecker 2022), and what its inner
CLIP is.

The decoder reads three layers of the picture's tower, modulated by the text's vector before
normalisation. A picture is looked at once, whatever the number of texts, and a text is read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image

from ..device import Room
from .checkpoints import read_part
from .networks import Network
from .pretrained import RECIPES, PretrainedEncoder
from .streams import cores
from .towers import load_part

# texts decoded at once; fewer are padded, so that a mask does not depend on its neighbours
DECODER_BATCH = 4


class ClipSegSegmenter:
    """Masks of the whole squashed picture, as `CLIPSegForImageSegmentation` gives them; pictures
    may go through it side by side (`workers`).
    """

    def __init__(self, name: str):
        self.name = name
        self.encoder = PretrainedEncoder(name, RECIPES[name])
        config = load_part("CLIPSegConfig", self.encoder.files[0].folder)
        self.layers = cast(list[int], config.extract_layers)
        self.encoder.depth = max(self.layers) + 1  # a mask needs none of the last ones
        self._decoder = Network(self._load_decoder, name, self.encoder.device)
        self.workers = self.encoder.streams or cores()
        self._texts: dict[str, torch.Tensor] = {}
        self._room = Room(DECODER_BATCH, "texts of a picture", self.encoder.device)

    def _load_decoder(self) -> torch.nn.Module:
        whole = load_part("CLIPSegForImageSegmentation", self.encoder.files[0].folder)
        decoder = cast(torch.nn.Module, whole.decoder)
        return decoder.to(self.encoder.device)

    def let_go(self) -> None:
        """Forget the weights; what asks for them next loads them again."""
        self.encoder.let_go()
        self._decoder.let_go()

    @torch.inference_mode()
    def masks(self, image: Image.Image, texts: Sequence[str]) -> np.ndarray:
        """An RGB picture and t texts -> [t, 352, 352] float32 raw logits."""
        return self._room.use(partial(self._masks, image, texts))

    def _masks(self, image: Image.Image, texts: Sequence[str], size: int) -> np.ndarray:
        pixels = self.encoder.pixels([image])  # [1, 3, s, s]
        states = self.encoder.look(pixels, output_hidden_states=True).hidden_states
        # the first is the input's
        activations = [states[i + 1].expand(size, -1, -1) for i in self.layers]
        conditions, masks = self._conditions(texts), [np.zeros((0, *pixels.shape[-2:]), np.float32)]
        for start in range(0, len(texts), size):
            some = conditions[start : start + size]
            batch = torch.cat([some, some[:1].expand(size - len(some), -1)])
            logits = self._decoder()(activations, batch).logits  # [b, s, s]
            masks.append(logits[: len(some)].cpu().numpy())
        return np.concatenate(masks)

    def _conditions(self, texts: Sequence[str]) -> torch.Tensor:
        """[t, dim]: the texts' vectors before normalisation, remembered."""
        for text in dict.fromkeys(texts):
            if text not in self._texts:
                self._texts[text] = self.encoder.read([text], self.encoder.recipe.lengths[-1])[0]
        return torch.stack([self._texts[text] for text in texts])

    def identity(self) -> dict:
        """All that decides a mask."""
        output = f"logits of the decoder, batches {DECODER_BATCH}"
        return self.encoder.identity() | {"output": output}


def inner_clip_differences(a: Path, b: Path) -> list[dict]:
    """CLIPSeg's CLIP part (folder `a`) against a CLIP checkpoint (`b`), tensor by tensor and
    without building a model.

    A dict a tensor: `name`, `shape`, `max_abs_difference` (None where a shape differs or one side
    lacks it), `equal` (bit by bit).
    """
    ours, theirs = _tensors(a), _tensors(b)
    return [_difference(name, ours.get(name), theirs.get(name)) for name in sorted(ours | theirs)]


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors under CLIP's names, without a decoder's and without indices."""
    tensors = {}
    for name, tensor in read_part(folder).items():
        bare = name.removeprefix("model.").removeprefix("clip.")
        if not bare.startswith("decoder.") and not bare.endswith("position_ids"):
            tensors[bare] = tensor
    return tensors


def _difference(name: str, one: torch.Tensor | None, other: torch.Tensor | None) -> dict:
    same = one is not None and other is not None and one.shape == other.shape
    return {
        "name": name,
        "shape": tuple((other if one is None else one).shape),
        "equal": same and torch.equal(one, other),
        "max_abs_difference": float((one.double() - other.double()).abs().max()) if same else None,
    }
