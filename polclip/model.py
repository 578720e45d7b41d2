"""PolCLIP (Yang et al., ACL 2024): senses are given an implicit picture, pictures an implicit
sense, and both are fused with what they were made of.

    u_i   the target in its context            c_g   a caption, word and gloss
    s_g   a gloss                              x_n   a picture
    a_g   implicit picture of a sense (SIG)    b_n   implicit sense of a picture (ISG)
    m_g   sense fused with its picture         r_n   picture fused with its sense
    s~, x~   targets: the towers as they were (EMA), without gradient

B texts of L tokens, N pictures of P places that become K tokens (K = L in CLIP), text width w =
joint width d, vision width v.
"""

from __future__ import annotations

import copy
import os
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vwsdlib.errors import VwsdError

from . import losses
from .backbone import Backbone, load_backbone
from .batches import Batch, Coder, Texts
from .blocks import Former, Fusion
from .config import WHERE, Config
from .cost import PART


class SenseVectors(NamedTuple):
    """Of G senses, unit rows: plain s, implicit picture a, fused m, each [G, d]."""

    plain: Tensor
    implicit: Tensor
    fused: Tensor


class PictureVectors(NamedTuple):
    """Of N pictures, unit rows: plain x, implicit sense b, fused r, each [N, d]."""

    plain: Tensor
    implicit: Tensor
    fused: Tensor


class PolClip(nn.Module):
    """The model; `forward` gives the losses of a batch, `context`, `senses`, `pictures` and `read`
    the vectors that are compared.
    """

    backbone: Backbone
    target: Backbone | None

    def __init__(self, config: Config, backbone: Backbone | None = None):
        super().__init__()
        backbone = load_backbone(config) if backbone is None else backbone
        self.config, self.backbone = config, backbone
        self.checkpointing = config.checkpointing is True  # of auto, the training decides
        self.coder = Coder(backbone, config)
        _check_size(config, backbone.width)
        with torch.random.fork_rng(devices=[]):  # a run that starts again has the same weights
            torch.default_generator.manual_seed(config.seed)
            self._add(config, backbone)
        self.target = _follower(backbone) if config.ema else None

    def _add(self, config: Config, backbone: Backbone) -> None:
        """What PolCLIP adds to the towers."""
        width, mlp = backbone.width, config.mlp * backbone.width
        self.former = Former(width, config.former_layers, config.heads, mlp)
        self.to_vision = nn.Linear(width, backbone.vision_width)  # sense tokens -> picture's places
        self.to_text = nn.Linear(width, width)
        # over the token axis: P places -> K tokens
        self.transfer = nn.Linear(backbone.places, backbone.sequence)
        self.fusion = Fusion(width, config.fusion_layers, config.heads, mlp, config.hidden)

    # ------------------------------------------------------------------ vectors

    def context(self, texts: Texts) -> Tensor:
        """u: targets in their contexts, [I, d] unit rows."""
        return _text_vectors(self.backbone, texts)

    def read(self, texts: Texts) -> Tensor:
        """c: captions and the visual test's texts, [B, d] unit rows."""
        return _text_vectors(self.backbone, texts)

    def senses(self, texts: Texts) -> SenseVectors:
        """Glosses, their implicit pictures, and the two fused."""
        tokens, a, places, pads = self._sense_sequences(texts)
        s = F.normalize(self.backbone.text_vector(tokens, texts.inside), dim=-1)  # [G, d]
        if not self.config.fuse:
            return SenseVectors(s, a, s)
        readout = {"first": torch.zeros_like(texts.end), "eot": texts.end, "mean": None}
        place = readout[self.config.readout]
        m = self.fusion(tokens, F.normalize(places, dim=-1), place, pads, pads)  # [G, d]
        return SenseVectors(s, a, F.normalize(m, dim=-1))

    def _sense_sequences(self, texts: Texts) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """SIG: sense tokens [G, L, w]; implicit picture, vector [G, d] and places [G, L, d]; what
        is padding [G, L].
        """
        pads = texts.pads if self.config.mask_pads else None
        tokens = self.backbone.read(texts.ids, texts.pads)  # [G, L, w]
        x = self.to_vision(self.former(tokens, pads))  # [G, L, v]
        vector, places = self.backbone.through_vision(x, self.config.borrowed, pads)
        return tokens, F.normalize(vector, dim=-1), places, pads

    def pictures(self, states: Tensor) -> PictureVectors:
        """Pictures from their frozen states [N, P, v], their implicit senses, and the two fused."""
        if self.checkpointing and torch.is_grad_enabled():  # the memory's peak, a part at a time
            parts = []
            for part in states.split(PART):
                parts.append(checkpoint(self._pictures, part, use_reentrant=False))
            return PictureVectors(*map(torch.cat, zip(*parts)))
        return self._pictures(states)

    def _pictures(self, states: Tensor) -> PictureVectors:
        """ISG, and fusion in the roles that figure or code gives the two sequences."""
        config, states = self.config, self.backbone.look(states)
        tokens = self.backbone.picture_tokens(states)  # [N, P, d]
        tokens = self.transfer(tokens.transpose(1, 2)).transpose(1, 2)  # [N, K, d]
        tokens = F.normalize(tokens, dim=-1)
        x = self.to_text(self.former(tokens))  # [N, K, w]
        b, words = self.backbone.through_text(x, config.borrowed, config.causal)
        plain, b = F.normalize(self.backbone.picture_vector(states), dim=-1), F.normalize(b, dim=-1)
        if not config.fuse:
            return PictureVectors(plain, b, plain)
        query, other = (tokens, words) if config.roles == "figure" else (words, tokens)
        place = {"first": 0, "eot": tokens.shape[1] - 1, "mean": None}[config.readout]
        if place is not None:
            place = torch.full((len(tokens),), place, device=tokens.device)
        r = self.fusion(query, other, place)  # [N, d]
        return PictureVectors(plain, b, F.normalize(r, dim=-1))

    @torch.no_grad()
    def targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """s~ [G, d] and x~ [N, d], unit rows: by the following towers, or by the model itself
        (stop-gradient) where nothing follows.
        """
        towers = self.backbone if self.target is None else self.target
        x = towers.picture_vector(towers.look(batch.states))
        return _text_vectors(towers, batch.glosses), F.normalize(x, dim=-1)

    # ------------------------------------------------------------------ training

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses that are switched on, their sum `loss`, and `textual`, `visual`: the share of
        the batch that the fused vectors get right.
        """
        config, same, depicts = self.config, batch.same, batch.depicts
        how = {"temperature": config.temperature, "normalise": config.normalise_targets}
        u, senses = self.context(batch.contexts), self.senses(batch.glosses)
        pictures = self.pictures(batch.states)
        s_target, x_target = self.targets(batch)
        if config.w2i_query == "caption":
            asks = self.read(batch.captions)  # [G, d]
            means = torch.eye(len(same), dtype=torch.bool, device=u.device)
        else:
            asks, means = u, batch.gold  # [I, d]
        shown = losses.depicted_by(means, depicts, same)  # [G or I, N]
        every = {
            "sig": (losses.sig, senses.implicit, x_target, depicts, same),
            "w2s": (losses.w2s, u, senses.fused, batch.gold, same),
            "isg": (losses.isg, pictures.implicit, s_target, depicts, same),
            "w2i": (losses.w2i, asks, pictures.fused, shown),
        }
        values = {}
        for name in config.losses:
            loss, *arguments = every[name]
            values[name] = loss(*arguments, **how)
        values["loss"] = torch.stack(list(values.values())).sum()
        return values | _shares(u, senses.fused, asks, pictures.fused, batch, shown)

    @torch.no_grad()
    def follow(self) -> None:
        """One step of the targets towards the model; after each optimiser step."""
        if self.target is not None:
            for old, new in zip(self.target.parameters(), self.backbone.parameters()):
                if new.requires_grad:
                    old.lerp_(new, 1 - self.config.ema)

    def attention(self, texts: Texts) -> Tensor:
        """How much each sense token looks at each generated place in the fusion's last layer,
        averaged over heads: [G, L, L].
        """
        tokens, _, places, pads = self._sense_sequences(texts)
        return self.fusion.attention(tokens, F.normalize(places, dim=-1), pads)


def _check_size(config: Config, width: int) -> None:
    """VwsdError, before anything is built, where the heads do not divide the width, or former and
    fusion alone would not fit into this machine's memory.
    """
    if width % config.heads:
        raise VwsdError(
            f"{config.heads} heads do not divide the width {width}",
            WHERE,
            "Choose heads=8 or another divisor.",
        )
    layers = config.former_layers + config.fusion_layers
    numbers = layers * (4 + 2 * config.mlp) * width**2 + 2 * config.hidden * width
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 4 * numbers > memory:
        raise VwsdError(
            f"former and fusion would take {4 * numbers / 1e9:.0f} GB, this machine has"
            f" {memory / 1e9:.0f}",
            WHERE,
            "Choose fewer former_layers and fusion_layers, or a smaller mlp or hidden.",
        )


def _text_vectors(towers: Backbone, texts: Texts) -> Tensor:
    """Texts at the places that are read out, [B, d] unit rows."""
    tokens = towers.read(texts.ids, texts.pads)  # [B, L, w]
    return F.normalize(towers.text_vector(tokens, texts.inside), dim=-1)


def _follower(backbone: Backbone) -> Backbone:
    """A copy whose trained parameters are its own; frozen ones and all that is no weight
    (tokenizer, towers) stay the backbone's.
    """
    own = vars(nn.Module())
    shared = [value for name, value in vars(backbone).items() if name not in own]
    shared += [p for p in backbone.parameters() if not p.requires_grad]
    memo = {id(part): part for part in shared}
    return copy.deepcopy(backbone, memo).requires_grad_(False)


@torch.no_grad()
def _shares(
    u: Tensor, m: Tensor, asks: Tensor, r: Tensor, batch: Batch, shown: Tensor
) -> dict[str, Tensor]:
    """Textual: arg max among an instance's own candidates; visual: arg max over all of the batch's
    pictures. Only of those that have an answer.
    """
    place = torch.arange(len(m), device=m.device)
    outside = (place < batch.own[:, :1]) | (place >= batch.own[:, 1:])  # [I, G]
    chosen = (u @ m.T).masked_fill(outside, -9).argmax(1)  # [I]
    visual = _share(shown, (asks @ r.T).argmax(1)) if len(r) else u.new_tensor(torch.nan)
    return {"textual": _share(batch.gold, chosen), "visual": visual}


def _share(right: Tensor, chosen: Tensor) -> Tensor:
    """Of the rows of right [n, k] that have something right, how many chose it; no number where
    there are none.
    """
    return right.gather(1, chosen[:, None])[:, 0].sum() / right.any(1).sum()


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Unique parameters and tensors, all and trained; blocks that are borrowed count once."""
    unique = list({id(p): p for p in model.parameters()}.values())
    trained = [p for p in unique if p.requires_grad]
    return {
        "parameters": sum(p.numel() for p in unique),
        "tensors": len(unique),
        "trained": sum(p.numel() for p in trained),
        "trained_tensors": len(trained),
    }
