"""Looking into a trained model: what a sense's tokens look at among its generated places, and a map
of senses and pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vwsdlib.finite import finite

from .evaluate import States, picture_vectors, sense_vectors
from .model import PolClip
from .records import Candidate


@torch.no_grad()
def attention_maps(
    model: PolClip, candidates: Sequence[Candidate]
) -> list[tuple[list[str], np.ndarray]]:
    """(tokens of the gloss, attention [tokens, places]) of each candidate, from the fusion's last
    layer; rows sum to one over the places that are no padding.
    """
    maps, device = [], next(model.parameters()).device
    for candidate in candidates:
        texts = model.coder.texts([candidate.gloss]).to(device)
        n = int((~texts.pads[0]).sum())
        weights = model.attention(texts)[0, :n].cpu().numpy()  # [n, places]
        finite(weights, "the model's weights of attention")
        if model.config.mask_pads:
            weights = weights[:, :n]
        words = model.backbone.tokenizer.convert_ids_to_tokens(texts.ids[0, :n].tolist())
        maps.append(([word.replace("</w>", "") for word in words], weights))
    return maps


def sense_points(model: PolClip, candidates: Sequence[Candidate], states: States) -> list[dict]:
    """Glosses and pictures, plain and fused, on the plane of their two first principal components:
    {"sense", "kind", "picture", "x", "y"}.

    Each kind is centred on its own, since texts and pictures live apart in the joint space; the
    plane is that of all of them together.
    """
    senses, shown = [], []
    for candidate in candidates:
        senses.append((candidate.id, ""))
        shown += [(candidate.id, name) for name in candidate.pictures]
    s, m = sense_vectors(model, candidates)
    x, r = picture_vectors(model, [name for _, name in shown], states)
    kinds = {
        "gloss": (senses, s),
        "fused gloss": (senses, m),
        "picture": (shown, x),
        "fused picture": (shown, r),
    }
    centred = [(v - v.mean(0)).cpu().numpy().astype(np.float64) for _, v in kinds.values()]
    axes = np.linalg.svd(np.concatenate(centred), full_matrices=False)[2][:2]  # [2, d]
    largest = axes[np.arange(2), np.abs(axes).argmax(1)]
    axes *= np.sign(largest)[:, None]  # a singular vector's sign is arbitrary
    points = []
    for (kind, (names, _)), rows in zip(kinds.items(), centred):
        for (sense, picture), (px, py) in zip(names, rows @ axes.T):
            point = {"sense": sense, "kind": kind, "picture": picture.rpartition("/")[2]}
            points.append(point | {"x": float(px), "y": float(py)})
    return points
