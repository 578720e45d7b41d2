"""Transformer blocks of the towers, the former and the fusion. Layouts are those of OpenAI's CLIP
(queries, keys and values in one matrix).
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# a fast path for evaluation alone has other last bits than training
torch.backends.mha.set_fastpath_enabled(False)


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x), the activation of OpenAI's CLIP; the usual GELU in its place changes
    results silently. Any shape [...].
    """
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class Block(nn.Module):
    """A pre-LN transformer block: x + attention(LN(x)), then x + MLP(LN(x)); twelve tensors.

    With `other` it is cross attention: q + attention(LN(q), LN(o), LN(o)) with one shared LN, then
    the MLP (PolCLIP's fusion).
    """

    def __init__(
        self, width: int, heads: int, mlp: int, activation: str = "quick_gelu", eps: float = 1e-5
    ):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.inner, self.outer = nn.Linear(width, mlp), nn.Linear(mlp, width)
        self.activation = ACTIVATIONS[activation]

    def forward(
        self,
        x: Tensor,
        other: Tensor | None = None,
        causal: bool = False,
        pads: Tensor | None = None,
    ) -> Tensor:
        """x [b, l, w]; other [b, k, w]; pads [b, k] True where a key is padding -> [b, l, w]."""
        x = x + self.look(x, other, causal, pads)[0]
        return x + self.outer(self.activation(self.inner(self.ln_2(x))))

    def look(
        self,
        x: Tensor,
        other: Tensor | None = None,
        causal: bool = False,
        pads: Tensor | None = None,
        weights: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """What attention adds, [b, l, w], and its weights averaged over heads, [b, l, k], where
        they are asked for.
        """
        query = self.ln_1(x)  # [b, l, w]
        key = query if other is None else self.ln_1(other)  # [b, k, w]
        hidden = None
        if causal:
            length = x.shape[1]
            hidden = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        return self.attention(
            query, key, key, key_padding_mask=pads, attn_mask=hidden, need_weights=weights
        )


def mean(x: Tensor, pads: Tensor | None = None) -> Tensor:
    """[b, l, w] -> [b, w]: mean over places, padding (pads [b, l] True) left out."""
    if pads is None:
        return x.mean(1)
    inside = (~pads)[..., None].to(x.dtype)  # [b, l, 1]
    return (x * inside).sum(1) / inside.sum(1)


class Former(nn.Module):
    """The shared former: self-attention and MLP over a sequence; one instance serves senses and
    pictures.
    """

    def __init__(self, width: int, layers: int, heads: int, mlp: int):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, mlp) for _ in range(layers))

    def forward(self, x: Tensor, pads: Tensor | None = None) -> Tensor:
        """[b, l, w] -> [b, l, w]."""
        for block in self.blocks:
            x = block(x, pads=pads)
        return x


class Fusion(nn.Module):
    """Multi-fusion: cross attention from one sequence to the other, a map w -> hidden -> w without
    a way around it, and LN of one place.
    """

    def __init__(self, width: int, layers: int, heads: int, mlp: int, hidden: int):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, mlp) for _ in range(layers))
        self.inner, self.outer = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.ln = nn.LayerNorm(width)

    def forward(
        self,
        query: Tensor,
        other: Tensor,
        readout: Tensor | None,
        query_pads: Tensor | None = None,
        pads: Tensor | None = None,
    ) -> Tensor:
        """query [b, l, w], other [b, k, w], readout [b] places (None: the mean over places) -> [b,
        w].
        """
        for block in self.blocks:
            query = block(query, other, pads=pads)
        if readout is None:
            return self.ln(mean(self._map(query), query_pads))
        chosen = query[torch.arange(len(query), device=query.device), readout]  # [b, w]
        return self.ln(self._map(chosen))  # the map goes place by place: one is enough

    def _map(self, x: Tensor) -> Tensor:
        return self.outer(F.relu(self.inner(x)))

    def attention(self, query: Tensor, other: Tensor, pads: Tensor | None = None) -> Tensor:
        """Attention of the last layer from each query to each key, averaged over heads: [b, l, k],
        rows sum to one.
        """
        *before, last = self.blocks
        for block in before:
            query = block(query, other, pads=pads)
        return cast(Block, last).look(query, other, pads=pads, weights=True)[1]
