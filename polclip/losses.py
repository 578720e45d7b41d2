"""PolCLIP's four losses (Yang et al. 2024): softmax over the batch, plain dot products of unit
vectors. Notation: a sense is g, a picture n, an instance i.

`same` [G, G] says which senses of a batch are one (the identity, unless duplicates are merged);
`depicts` [N, G] whose picture each is.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cross_entropy(
    queries: Tensor,
    keys: Tensor,
    positives: Tensor,
    temperature: float = 1.0,
    normalise: bool = False,
) -> Tensor:
    """-(1/Q) sum_q sum_{k positive} log p(k | q), p the softmax of q.k / temperature over all keys.

    queries [Q, d], keys [K, d], positives [Q, K]. Not divided by the number of positives unless
    `normalise`, as in the released code: five pictures weigh five times, and a query without a
    positive adds nothing.
    """
    # in single precision: half would round logits of 1 / 0.07 to 0.06
    with torch.autocast(queries.device.type, enabled=False):
        log_p = (queries.float() @ keys.float().T / temperature).log_softmax(-1)  # [Q, K]
    positives = positives.to(log_p.dtype)
    if normalise:
        positives = positives / positives.sum(1, keepdim=True).clamp(min=1)
    return -(positives * log_p).sum() / max(len(queries), 1)  # a batch without pictures: 0, not 0/0


def sig(a: Tensor, x_target: Tensor, depicts: Tensor, same: Tensor, **how) -> Tensor:
    """Sense to image generation: a sense's implicit picture a_g [G, d] finds its real pictures
    among the targets x~ [N, d].
    """
    return cross_entropy(a, x_target, _through(same, depicts.T), **how)


def w2s(u: Tensor, m: Tensor, gold: Tensor, same: Tensor, **how) -> Tensor:
    """Word to sense: the target in its context u_i [I, d] finds its fused sense among all of the
    batch m [G, d]; gold [I, G].
    """
    return cross_entropy(u, m, _through(gold, same), **how)


def isg(b: Tensor, s_target: Tensor, depicts: Tensor, same: Tensor, **how) -> Tensor:
    """Image to sense generation: a picture's implicit sense b_n [N, d] finds its real sense among
    the targets s~ [G, d].
    """
    return cross_entropy(b, s_target, _through(depicts, same), **how)


def w2i(c: Tensor, r: Tensor, depicted: Tensor, **how) -> Tensor:
    """Word to image: each caption c_g [G, d] (or each target u_i [I, d]) finds its fused pictures r
    [N, d]; depicted [G or I, N].
    """
    return cross_entropy(c, r, depicted, **how)


def depicted_by(asked: Tensor, depicts: Tensor, same: Tensor) -> Tensor:
    """Pictures that are right for each query: asked [Q, G], which senses it means -> [Q, N]."""
    return _through(asked, _through(same, depicts.T))


def _through(a: Tensor, b: Tensor) -> Tensor:
    """Boolean matrix product: through any sense in the middle."""
    return (a.float() @ b.float()) > 0


def uniform(senses: int, per_sense: int) -> dict[str, float]:
    """Each loss where the model knows nothing, every picture and sense equally likely; `per_sense`
    pictures of every sense.
    """
    g, n = (torch.tensor(float(k)).log().item() for k in (senses, senses * per_sense))
    return {"sig": per_sense * n, "w2s": g, "isg": g, "w2i": per_sense * n}


def floor(senses: int, per_sense: int, temperature: float = 1.0) -> dict[str, float]:
    """Each loss at its ideal geometry: cosine 1 with what is right and -1/(G-1), the simplex, with
    every other sense.

    Nothing that averages over the batch's queries goes below. Cosines are bounded, so at
    temperature 1 no loss comes near 0 (50 senses: 2.9 and 22.7; if -1 to all others were possible
    at once: 2.03 and 18.2).
    """
    # a wrong sense's weight where the right one's is 1
    far = torch.tensor(-1.0 / (senses - 1) - 1.0).div(temperature).exp().item()
    g = torch.tensor(1 + (senses - 1) * far).log().item()
    n = torch.tensor(per_sense * (1 + (senses - 1) * far)).log().item()
    return {"sig": per_sense * n, "w2s": g, "isg": g, "w2i": per_sense * n}
