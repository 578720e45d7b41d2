"""PolCLIP's scores at test (Yang et al. 2024): textual (which sense), visual (which picture) and
both at once; plain, fused, and their sum.

The released test adds plain and fused vectors although the plain ones are in no loss; so all three
are given, and must be reported apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vwsdlib.finite import finite
from vwsdlib.paths import quiet
from vwsdlib.progress import tqdm

from .batches import Texts, candidates_of, pictures_of
from .model import PolClip
from .records import Candidate, Record

SCORES = ("plain", "fused", "sum")
BATCH = 16
States = Callable[[Sequence[str]], Tensor]  # names of N pictures -> their frozen states [N, P, v]


@torch.no_grad()
def _encoded(
    encode: Callable[[Sequence], Sequence[Tensor]], asked: Sequence, unit: str
) -> list[Tensor]:
    """What `encode` makes of `asked`, some at a time: each of its tensors [n, d] for all of them.
    Every score at test is made of these, so here a NaN stops before it can be an answer.
    """
    silent = True if len(asked) <= 4 * BATCH else quiet()
    starts = range(0, len(asked), BATCH)
    bar = tqdm(starts, desc=f"PolCLIP: {unit}", leave=False, disable=silent)
    parts = [encode(asked[start : start + BATCH]) for start in bar]
    whole = [torch.cat(column) for column in zip(*parts)]
    for vectors in whole:
        finite(vectors.cpu().numpy(), "the model's scores")
    return whole


def sense_vectors(model: PolClip, candidates: Sequence[Candidate]) -> tuple[Tensor, Tensor]:
    """(s, m) of candidates' glosses: [G, d] each, unit rows."""
    glosses = [candidate.gloss for candidate in candidates]
    s, m = _encoded(lambda some: model.senses(_texts(model, some))[::2], glosses, "senses")
    return s, m


def picture_vectors(model: PolClip, names: Sequence[str], states: States) -> tuple[Tensor, Tensor]:
    """(x, r) of pictures: [N, d] each, unit rows."""
    device = _device(model)
    if not names:
        nothing = torch.zeros(0, model.backbone.dim, device=device)
        return nothing, nothing
    x, r = _encoded(lambda some: model.pictures(states(some).to(device))[::2], names, "pictures")
    return x, r


def text_vectors(model: PolClip, texts: Sequence[str]) -> Tensor:
    """Texts as a whole, [n, d] unit rows."""
    (c,) = _encoded(lambda some: [model.read(_texts(model, some))], texts, "texts")
    return c


def context_vectors(model: PolClip, records: Sequence[Record]) -> Tensor:
    """u of records: targets in their contexts, [I, d] unit rows."""
    device, contexts = _device(model), model.coder.contexts
    (u,) = _encoded(lambda some: [model.context(contexts(some).to(device))], records, "contexts")
    return u


def _texts(model: PolClip, texts: Sequence[str]) -> Texts:
    return model.coder.texts(texts).to(_device(model))


def _device(model: PolClip) -> torch.device:
    return next(model.parameters()).device


def textual_scores(model: PolClip, records: Sequence[Record]) -> dict[str, list[np.ndarray]]:
    """Score of each candidate of each record: u.s (plain), u.m (fused) and their sum, from -2 to 2;
    {"plain": [[candidates], ...], ...}.
    """
    candidates = candidates_of(records)
    if not candidates:
        return dict.fromkeys(SCORES, [np.zeros(0, np.float32)] * len(records))
    u, (s, m) = context_vectors(model, records), sense_vectors(model, candidates)
    place = {candidate.gloss: g for g, candidate in enumerate(candidates)}
    scores = {name: [] for name in SCORES}
    for record, context in zip(records, u):  # row by row: equal vectors tie
        own = [place[candidate.gloss] for candidate in record.candidates]
        plain, fused = ((v[own] * context).sum(1).cpu().numpy() for v in (s, m))
        for name, row in zip(SCORES, (plain, fused, plain + fused)):
            scores[name].append(row)
    return scores


class Seen(NamedTuple):
    """Pictures that were looked at: the row of each name, plain x and fused r [N, d]."""

    place: dict[str, int]
    plain: Tensor
    fused: Tensor


def look_at(model: PolClip, candidates: Iterable[Sequence[str]], states: States) -> Seen:
    """Every distinct picture of some items, each looked at once."""
    names = list(dict.fromkeys(chain.from_iterable(candidates)))
    place = {name: n for n, name in enumerate(names)}
    return Seen(place, *picture_vectors(model, names, states))


def visual_scores(
    model: PolClip,
    texts: Sequence[str],
    candidates: Sequence[Sequence[str]],
    states: States,
    seen: Seen | None = None,
) -> dict[str, np.ndarray]:
    """Scores of the ten pictures of each item under its text: t.x (plain), t.r (fused) and their
    sum; [n, 10] float32 each.

    seen: pictures looked at before, where several texts ask for the same ones.
    """
    place, *vectors = seen or look_at(model, candidates, states)
    t = text_vectors(model, texts)  # [n, d]
    own = torch.tensor([list(map(place.__getitem__, ten)) for ten in candidates], device=t.device)
    plain, fused = (torch.einsum("nd,nkd->nk", t, v[own]).cpu().numpy() for v in vectors)
    return {"plain": plain, "fused": fused, "sum": plain + fused}


def multimodal_record(model: PolClip, record: Record, states: States) -> dict:
    """A record's joint ranking and what is right in it: its first sense, its first picture, and
    whatever stands first of all.
    """
    ranking = rank_together(model, record, states)
    first, told = {}, []
    for entry in ranking:
        first.setdefault(entry["kind"], entry["sense"])
        told.append({key: entry[key] for key in ("kind", "sense", "score")})
    return {
        "id": record.id,
        "lemma": record.target.lower(),
        "sentence": record.sentence,
        "gold": record.golds[0],
        "ranking": told,
        "sense_right": first.get("sense") in record.golds,
        "picture_right": first.get("picture") in record.golds,
        "first_right": ranking[0]["sense"] in record.golds,
    }


def rank_together(model: PolClip, record: Record, states: States, score: str = "sum") -> list[dict]:
    """One context, its candidate senses and all their pictures in one ranking: [{"kind", "id",
    "sense", "score"}], best first.

    A picture lies further from any text than a gloss does, whatever it shows, so scores are
    standardised within each kind before they are put into one order; `score` is the standardised
    one.
    """
    u, names = context_vectors(model, [record])[0], pictures_of([record])
    ids = [(candidate.id, candidate.id) for candidate in record.candidates]
    entries = _entries("sense", ids, sense_vectors(model, record.candidates), u, score)
    if names:
        owners = chain.from_iterable([c.id] * len(c.pictures) for c in record.candidates)
        vectors = picture_vectors(model, names, states)
        entries += _entries("picture", list(zip(names, owners)), vectors, u, score)
    return sorted(entries, key=lambda entry: -entry["score"])


def _entries(
    kind: str,
    ids: Sequence[tuple[str, str]],
    vectors: tuple[Tensor, Tensor],
    u: Tensor,
    score: str,
) -> list[dict]:
    """Entries of one kind, (id, sense) each, with their standardised scores under u [d]."""
    plain, fused = vectors
    chosen = {"plain": plain, "fused": fused, "sum": plain + fused}[score]
    raw = (chosen @ u).cpu().numpy().astype(float)
    standardised = (raw - raw.mean()) / (raw.std() or 1.0)
    entries = []
    for (own, sense), value in zip(ids, standardised):
        entries.append({"kind": kind, "id": own, "sense": sense, "score": float(value)})
    return entries
