"""Looking into a trained model: what a sense's tokens look at among its generated places, and a map
of senses and pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from vwsdlib.finite import finite

from .batches import Coder
from .evaluate import picture_vectors, sense_vectors
from .model import PolClip
from .records import Candidate


@torch.no_grad()
def attention_maps(
    model: PolClip, candidates: Sequence[Candidate]
) -> list[tuple[list[str], np.ndarray]]:
    """(tokens of the gloss, attention [tokens, places]) of each candidate, from the fusion's last
    layer; rows sum to one over the places that are no padding.
    """
    coder, found = Coder(model.backbone, model.config), []
    for candidate in candidates:
        texts = coder.texts([candidate.gloss])
        n = int((~texts.pads[0]).sum())
        weights = finite(
            model.attention(texts)[0, :n].cpu().numpy(), "the model's weights of attention"
        )  # [n, places]
        words = model.backbone.tokenizer.convert_ids_to_tokens(texts.ids[0, :n].tolist())
        found.append(
            (
                [word.replace("</w>", "") for word in words],
                weights[:, :n] if model.config.mask_pads else weights,
            )
        )
    return found


@torch.no_grad()
def sense_map(
    model: PolClip, candidates: Sequence[Candidate], states: Callable[[Sequence[str]], Tensor]
) -> list[dict]:
    """Glosses and pictures, plain and fused, on the plane of their two first principal components:
    {"sense", "kind", "picture", "x", "y"}.

    Each kind is centred on its own, since texts and pictures live apart in the joint space; the
    plane is that of all of them together.
    """
    names = [(c.id, name) for c in candidates for name in c.pictures]
    s, m = sense_vectors(model, candidates)
    x, r = picture_vectors(model, [name for _, name in names], states)
    senses, shown = [(c.id, "") for c in candidates], names
    kinds = [
        ("gloss", senses, s),
        ("fused gloss", senses, m),
        ("picture", shown, x),
        ("fused picture", shown, r),
    ]
    centred = [(v - v.mean(0)).cpu().numpy().astype(np.float64) for _, _, v in kinds]
    axes = np.linalg.svd(np.concatenate(centred), full_matrices=False)[2][:2]  # [2, d]
    axes *= np.sign(axes[np.arange(2), np.abs(axes).argmax(1)])[
        :, None
    ]  # a singular vector's sign is arbitrary
    return [
        {
            "sense": sense,
            "kind": kind,
            "picture": picture.rpartition("/")[2],
            "x": float(px),
            "y": float(py),
        }
        for (kind, of, _), rows in zip(kinds, centred)
        for (sense, picture), (px, py) in zip(of, rows @ axes.T)
    ]
