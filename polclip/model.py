"""PolCLIP (Yang et al., ACL 2024): senses are given an implicit picture, pictures an implicit
sense, and both are fused with what they were made of.

    u_i   the target in its context                         s_g   a gloss                        c_g
    a caption, word and gloss
    a_g   implicit picture of a sense  (SIG)                m_g   sense fused with its implicit
    picture
    x_n   a picture                                         b_n   implicit sense of a picture  (ISG)
    r_n   picture fused with its implicit sense             s~, x~  targets: the towers as they were
    (EMA), without gradient

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
from .batches import Batch, Texts
from .blocks import Former, Fusion
from .config import Config


class Senses(NamedTuple):
    """Of G senses, unit rows: plain s, implicit picture a, fused m, each [G, d]."""

    plain: Tensor
    implicit: Tensor
    fused: Tensor


class Pictures(NamedTuple):
    """Of N pictures, unit rows: plain x, implicit sense b, fused r, each [N, d]."""

    plain: Tensor
    implicit: Tensor
    fused: Tensor


class PolClip(nn.Module):
    """The model; `forward` gives the losses of a batch, `context`, `senses`, `pictures` and `read`
    the vectors that are compared.
    """

    def __init__(self, config: Config, backbone: Backbone | None = None):
        super().__init__()
        self.config, self.backbone = (
            config,
            (backbone if backbone is not None else load_backbone(config)),
        )
        its = self.backbone
        with torch.random.fork_rng(
            devices=[]
        ):  # a run that starts again begins with the same weights
            torch.default_generator.manual_seed(config.seed)
            self._make(config, its)
        self.target = _follower(its) if config.ema else None

    def _make(self, config: Config, its: Backbone) -> None:
        """What PolCLIP adds to the towers."""
        if its.width % config.heads:
            raise VwsdError(
                f"{config.heads} heads do not divide the width {its.width}",
                where="PolCLIP's configuration",
                remedy="Choose heads=8 or another divisor.",
            )
        _check_memory(config, its.width)
        self.former = Former(its.width, config.former_layers, config.heads, config.mlp * its.width)
        self.to_vision = nn.Linear(
            its.width, its.vision_width
        )  # sense tokens -> places of a picture
        self.to_text = nn.Linear(its.width, its.width)
        self.transfer = nn.Linear(
            its.places, its.sequence
        )  # over the token axis: P places -> K tokens
        self.fusion = Fusion(
            its.width, config.fusion_layers, config.heads, config.mlp * its.width, config.hidden
        )

    # ------------------------------------------------------------------ vectors

    def context(self, texts: Texts) -> Tensor:
        """u: targets in their contexts, [I, d] unit rows."""
        return self._vector(self.backbone, texts)

    def read(self, texts: Texts) -> Tensor:
        """c: captions and the visual test's texts, [B, d] unit rows."""
        return self._vector(self.backbone, texts)

    def senses(self, texts: Texts) -> Senses:
        """Glosses, their implicit pictures, and the two fused."""
        tokens, a, places, pads = self._sense_sequences(texts)
        s = F.normalize(self.backbone.text_vector(tokens, texts.inside), dim=-1)  # [G, d]
        if not self.config.fuse:
            return Senses(s, a, s)
        end = texts.end if self.config.readout == "eot" else torch.zeros_like(texts.end)
        m = self.fusion(
            tokens,
            F.normalize(places, dim=-1),
            None if self.config.readout == "mean" else end,
            pads,
            pads,
        )  # [G, d]
        return Senses(s, a, F.normalize(m, dim=-1))

    def _sense_sequences(self, texts: Texts) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """SIG: sense tokens [G, L, w]; implicit picture, vector [G, d] and places [G, L, d]; what
        is padding [G, L].
        """
        pads = texts.pads if self.config.mask_pads else None
        tokens = self.backbone.read(texts.ids, texts.pads)  # [G, L, w]
        x = self.to_vision(self.former(tokens, pads))  # [G, L, v]
        vector, places = self.backbone.through_vision(
            x, self.config.borrowed, pads
        )  # [G, d], [G, L, d]
        return tokens, F.normalize(vector, dim=-1), places, pads

    def pictures(self, states: Tensor) -> Pictures:
        """Pictures from their frozen states [N, P, v], their implicit senses, and the two fused."""
        if self.config.checkpointing and torch.is_grad_enabled():  # the memory's peak
            return Pictures(*checkpoint(self._pictures, states, use_reentrant=False))
        return self._pictures(states)

    def _pictures(self, states: Tensor) -> Pictures:
        states = self.backbone.look(states)
        tokens = self.transfer(self.backbone.picture_tokens(states).transpose(1, 2)).transpose(
            1, 2
        )  # [N, P, d] -> [N, K, d]
        tokens = F.normalize(tokens, dim=-1)
        x = self.to_text(self.former(tokens))  # [N, K, w]
        b, words = self.backbone.through_text(
            x, self.config.borrowed, self.config.causal
        )  # [N, d], [N, K, w]
        plain, b = F.normalize(self.backbone.picture_vector(states), dim=-1), F.normalize(b, dim=-1)
        if not self.config.fuse:
            return Pictures(plain, b, plain)
        query, other = (tokens, words) if self.config.roles == "figure" else (words, tokens)
        place = {"first": 0, "eot": tokens.shape[1] - 1, "mean": None}[self.config.readout]
        where = None if place is None else torch.full((len(tokens),), place, device=tokens.device)
        r = self.fusion(query, other, where)  # [N, d]
        return Pictures(plain, b, F.normalize(r, dim=-1))

    def _vector(self, backbone: Backbone, texts: Texts) -> Tensor:
        return F.normalize(
            backbone.text_vector(backbone.read(texts.ids, texts.pads), texts.inside), dim=-1
        )

    @torch.no_grad()
    def targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """s~ [G, d] and x~ [N, d], unit rows: by the following towers, or by the model itself
        (stop-gradient) where nothing follows.
        """
        its = self.backbone if self.target is None else self.target
        x = its.picture_vector(its.look(batch.states))
        return self._vector(its, batch.glosses), F.normalize(x, dim=-1)

    # ------------------------------------------------------------------ training

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses that are switched on, their sum `loss`, and `textual`, `visual`: the share of
        the batch that the fused vectors get right.
        """
        its, how = (
            self.config,
            {
                "temperature": self.config.temperature,
                "normalise": self.config.normalise_targets,
            },
        )
        u, senses, pictures = (
            self.context(batch.contexts),
            self.senses(batch.glosses),
            self.pictures(batch.states),
        )
        s_target, x_target = self.targets(batch)
        asks = self.read(batch.captions) if its.w2i_query == "caption" else u  # [G, d] or [I, d]
        means = (
            torch.eye(len(batch.same), dtype=torch.bool, device=u.device)
            if its.w2i_query == "caption"
            else batch.gold
        )
        shown = losses.depicted_by(means, batch.depicts, batch.same)  # [G or I, N]
        every = {
            "sig": lambda: losses.sig(senses.implicit, x_target, batch.depicts, batch.same, **how),
            "w2s": lambda: losses.w2s(u, senses.fused, batch.gold, batch.same, **how),
            "isg": lambda: losses.isg(
                pictures.implicit, s_target, batch.depicts, batch.same, **how
            ),
            "w2i": lambda: losses.w2i(asks, pictures.fused, shown, **how),
        }
        found = {name: every[name]() for name in its.losses}
        return {
            **found,
            "loss": torch.stack(list(found.values())).sum(),
            **_shares(u, senses.fused, asks, pictures.fused, batch, shown),
        }

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


def _check_memory(config: Config, width: int) -> None:
    """VwsdError, before anything is built, where former and fusion alone would not fit into this
    machine's memory.
    """
    layers = config.former_layers + config.fusion_layers
    numbers = layers * (4 + 2 * config.mlp) * width**2 + 2 * config.hidden * width
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 4 * numbers > there:
        raise VwsdError(
            f"former and fusion would take {4 * numbers / 1e9:.0f} GB, this machine has"
            f" {there / 1e9:.0f}",
            where="PolCLIP's configuration",
            remedy="Choose fewer former_layers and fusion_layers, or a smaller mlp or hidden.",
        )


def _follower(backbone: nn.Module) -> nn.Module:
    """A copy whose trained parameters are its own; frozen ones and all that is no weight
    (tokenizer, towers) stay the backbone's.
    """
    plain = [value for name, value in vars(backbone).items() if name not in vars(nn.Module())]
    shared = {
        id(x): x for x in (*plain, *(p for p in backbone.parameters() if not p.requires_grad))
    }
    return copy.deepcopy(backbone, shared).requires_grad_(False)


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
