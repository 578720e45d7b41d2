"""The lite encoder as a backbone: MiniLM's tokens, EfficientNet-Lite0's places, and the shipped
head, to which a trained map of the features is added, in the part of CLIP's projection.

What a convolutional tower lacks is said, not faked: it has no blocks for a sequence, so what the
sense-to-image generator borrows of it is its last stage, what brings features into the joint space.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from polclip.backbone import Backbone
from polclip.blocks import mean
from polclip.config import Config
from vwsdlib.encoders.registry import load_encoder

from .lite import FEATURES, IMAGE_BATCH, LiteEncoder, places, summary, to_pixels
from .text_tower import DIM, fixed_threads, in_threads, padded, seen

LENGTH, SEQUENCE = 32, 12  # tokens of a text at most; of a picture
WINDOW = 3  # places around each that its vector is of
# frozen layers -> ids -> states: every model of a process reads a text through them once
KNOWN: dict[int, dict[tuple[int, ...], Tensor]] = {}


class LiteBackbone(Backbone):
    """States of a picture: place 0 is the whole (as CLIP's class token stands for it), then its 49
    places.

    Each state is 1,280 features of the last layer and the 384 numbers that the lite encoder makes
    of the whole or of the place: [N, 50, 1664].
    """

    centre: Tensor
    width = dim = DIM
    vision_width, length, sequence, places = FEATURES + DIM, LENGTH, SEQUENCE, 50

    def __init__(self, config: Config):
        super().__init__()
        lite = cast(LiteEncoder, load_encoder("lite"))
        bert, head = lite.towers.bert, lite.head
        self._lite = [lite]  # in a list: not a part of this module, never saved
        self.tokenizer = lite.towers.tokenizer
        self.start, self.end = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        layers = bert.encoder.layer
        frozen = self.frozen_layers = max(0, len(layers) - config.open_text)
        self._prefix = [(bert.embeddings, layers[:frozen])]
        self.text_blocks = nn.ModuleList(map(_copy, layers[frozen:]))
        first = max(0, frozen - max(0, config.borrowed - config.open_text))
        # borrowed, not trained
        self.lent = nn.ModuleList(map(_copy, layers[first:frozen])).requires_grad_(False)
        self.ln_post = nn.LayerNorm(FEATURES)
        self.head = nn.Linear(FEATURES, DIM)
        self.gate = nn.Parameter(torch.ones(()))
        nn.init.zeros_(self.head.weight)  # untrained, a vector is the lite encoder's own
        nn.init.zeros_(self.head.bias)
        self.register_buffer("centre", head["centre"].detach().clone())
        self._identity = lite.identity()
        self._known = KNOWN.setdefault(self.frozen_layers, {})

    def read(self, ids: Tensor, pads: Tensor | None) -> Tensor:
        """Tokens of the last layer; MiniLM was trained with padding hidden, so it always is."""
        pads = ids == 0 if pads is None else pads
        x = self._through_prefix(ids, pads).to(self.gate.device)  # [B, L, w]
        for block in self.text_blocks:
            x = block(x, attention_mask=~pads[:, None, None])
        return x

    def _through_prefix(self, ids: Tensor, pads: Tensor) -> Tensor:
        """Embeddings and the layers that are never trained: each distinct text once, in batches of
        one shape, so always the same bits.
        """
        keys = [tuple(row[~hidden].tolist()) for row, hidden in zip(ids.cpu(), pads.cpu())]
        missing = [key for key in dict.fromkeys(keys) if key not in self._known]
        embeddings, layers = self._prefix[0]
        for rows, where in padded(missing):
            with fixed_threads(), torch.no_grad():
                x = embeddings(input_ids=rows)  # [b, length, w]
                for layer in layers:
                    x = layer(x, attention_mask=seen(rows)[:, None, None])
            self._known |= {missing[i]: row[: len(missing[i])].clone() for i, row in zip(where, x)}
        out = torch.zeros(*ids.shape, DIM)
        for row, key in zip(out, keys):
            row[: len(key)] = self._known[key]
        return out

    def text_vector(self, tokens: Tensor, inside: Tensor) -> Tensor:
        """normalise(mean of the places inside) less the mean of names, as the lite encoder
        reads."""
        return F.normalize(mean(tokens, ~inside), dim=-1) - self.centre

    def whole(self, end: Tensor, length: int) -> Tensor:
        """All tokens up to the end token."""
        return torch.arange(length, device=end.device) <= end[:, None]

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """224 px, squashed."""
        return torch.stack([to_pixels(image.convert("RGB")) for image in images])

    def frozen_look(self, pixels: Tensor) -> Tensor:
        """Whole and places, four pictures a batch and thread, so always the same bits."""
        return torch.cat(in_threads(self._look_at, pixels.cpu().split(IMAGE_BATCH)))

    @torch.no_grad()
    def _look_at(self, some: Tensor) -> Tensor:
        lite = self._lite[0]
        batch = F.pad(some, (0, 0, 0, 0, 0, 0, 0, IMAGE_BATCH - len(some)))
        levels = lite.towers.levels(batch)
        grid = levels[0].flatten(2).transpose(1, 2)  # [4, 49, 1280]
        features = torch.cat([grid.mean(1, keepdim=True), grid], 1)  # [4, 50, 1280]
        summaries = torch.cat([summary(levels)[:, None], places(levels, WINDOW)], 1)
        vectors = torch.stack([lite.vectors(one) for one in summaries])  # [4, 50, 384]
        return torch.cat([features, vectors], -1)[: len(some)]

    def _head(self, states: Tensor) -> Tensor:
        """gate * lite + head(LN(features)), [..., 1664] -> [..., 384]."""
        features, lite = states.split([FEATURES, DIM], -1)
        return self.gate * lite + self.head(self.ln_post(features))

    def picture_vector(self, states: Tensor) -> Tensor:
        """Of the whole; untrained, the lite encoder's own vector."""
        return self._head(states[:, 0])

    def picture_tokens(self, states: Tensor) -> Tensor:
        """The head at every place."""
        return self._head(states)

    def through_vision(self, x: Tensor, last: int, pads: Tensor | None) -> tuple[Tensor, Tensor]:
        """The head, the tower's last stage; the vector is that of the mean."""
        return self._head(mean(x, pads)), self._head(x)

    def through_text(self, x: Tensor, last: int, causal: bool) -> tuple[Tensor, Tensor]:
        """The last layers, trained or not; the vector is read out as a text's."""
        if len(x):  # BERT's blocks cannot take a batch of nothing
            for block in [*self.lent, *self.text_blocks][-last:]:
                x = block(x)
        return F.normalize(x.mean(1), dim=-1) - self.centre, x

    def identity(self) -> dict:
        """The lite encoder's, with what a state is."""
        states = {"places": self.places, "features": FEATURES, "lite": DIM, "window": WINDOW}
        return {**self._identity, "states": json.dumps(states)}


def _copy(layer: nn.Module) -> nn.Module:
    """A layer of MiniLM to be trained: the encoder's own stays as it is, and there is no dropout in
    PolCLIP.
    """
    made = copy.deepcopy(layer).requires_grad_(True)
    for module in made.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return made
