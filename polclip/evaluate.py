"""PolCLIP's scores at test (Yang et al. 2024): textual (which sense), visual (which picture) and
both at once; plain, fused, and their sum.

The released test adds plain and fused vectors although the plain ones are in no loss; so all three
are given, and must be reported apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from vwsdlib.finite import finite
from vwsdlib.paths import quiet

from .batches import Coder, Texts, candidates_of
from .model import PolClip
from .records import Candidate, Record

SCORES = ("plain", "fused", "sum")
BATCH = 16


def _encoded(count: int, unit: str) -> Iterator[slice]:
    starts = tqdm(
        range(0, count, BATCH),
        desc=f"PolCLIP: {unit}",
        leave=False,
        disable=True if count <= 4 * BATCH else quiet(),
    )
    return (slice(start, start + BATCH) for start in starts)


@torch.no_grad()
def sense_vectors(model: PolClip, candidates: Sequence[Candidate]) -> tuple[Tensor, Tensor]:
    """(s, m) of candidates' glosses: [G, d] each, unit rows."""
    coder, glosses = Coder(model.backbone, model.config), [c.gloss for c in candidates]
    found = [
        model.senses(_on(model, coder.texts(glosses[some])))
        for some in _encoded(len(glosses), "senses")
    ]
    return _sound(torch.cat([f.plain for f in found])), _sound(torch.cat([f.fused for f in found]))


@torch.no_grad()
def picture_vectors(
    model: PolClip, names: Sequence[str], states: Callable[[Sequence[str]], Tensor]
) -> tuple[Tensor, Tensor]:
    """(x, r) of pictures: [N, d] each, unit rows."""
    device = next(model.parameters()).device
    if not names:
        return torch.zeros(0, model.backbone.dim, device=device), torch.zeros(
            0, model.backbone.dim, device=device
        )
    found = [
        model.pictures(states(names[some]).to(device)) for some in _encoded(len(names), "pictures")
    ]
    return _sound(torch.cat([f.plain for f in found])), _sound(torch.cat([f.fused for f in found]))


@torch.no_grad()
def text_vectors(model: PolClip, texts: Sequence[str]) -> Tensor:
    """Texts as a whole, [n, d] unit rows."""
    coder = Coder(model.backbone, model.config)
    return _sound(
        torch.cat(
            [
                model.read(_on(model, coder.texts(texts[some])))
                for some in _encoded(len(texts), "texts")
            ]
        )
    )


@torch.no_grad()
def context_vectors(model: PolClip, records: Sequence[Record]) -> Tensor:
    """u of records: targets in their contexts, [I, d] unit rows."""
    coder = Coder(model.backbone, model.config)
    return _sound(
        torch.cat(
            [
                model.context(_on(model, coder.contexts(records[some])))
                for some in _encoded(len(records), "contexts")
            ]
        )
    )


def _sound(vectors: Tensor) -> Tensor:
    """The vectors themselves, [n, d]; every score at test is made of them, so here a NaN stops
    before it can be an answer.
    """
    finite(vectors.cpu().numpy(), "the model's scores")
    return vectors


def _on(model: PolClip, texts: Texts) -> Texts:
    device = next(model.parameters()).device
    return Texts(*(getattr(texts, name).to(device) for name in ("ids", "pads", "inside", "end")))


def textual_scores(model: PolClip, records: Sequence[Record]) -> dict[str, list[np.ndarray]]:
    """Score of each candidate of each record: u.s (plain), u.m (fused) and their sum, from -2 to 2;
    {"plain": [[candidates], ...], ...}.
    """
    candidates = candidates_of(records)
    place = {c.gloss: i for i, c in enumerate(candidates)}
    own = [[place[c.gloss] for c in record.candidates] for record in records]
    if not candidates:
        return {name: [np.zeros(0, np.float32) for _ in records] for name in SCORES}
    u, (s, m) = (
        context_vectors(model, records),
        sense_vectors(model, candidates),
    )  # [I, d], [G, d] each
    plain, fused = (
        [(v[its] * u[i]).sum(1).cpu().numpy() for i, its in enumerate(own)] for v in (s, m)
    )  # row by row: equal vectors tie
    return {"plain": plain, "fused": fused, "sum": [a + b for a, b in zip(plain, fused)]}


class Seen(NamedTuple):
    """Pictures that were looked at: the row of each name, plain x and fused r [N, d]."""

    place: dict[str, int]
    plain: Tensor
    fused: Tensor


def look_at(
    model: PolClip, candidates: Iterable[Sequence[str]], states: Callable[[Sequence[str]], Tensor]
) -> Seen:
    """Every distinct picture of some items, each looked at once."""
    names = list(dict.fromkeys(name for ten in candidates for name in ten))
    return Seen({name: i for i, name in enumerate(names)}, *picture_vectors(model, names, states))


def visual_scores(
    model: PolClip,
    texts: Sequence[str],
    candidates: Sequence[Sequence[str]],
    states: Callable[[Sequence[str]], Tensor],
    seen: Seen | None = None,
) -> dict[str, np.ndarray]:
    """Scores of the ten pictures of each item under its text: t.x (plain), t.r (fused) and their
    sum; [n, 10] float32 each.

    seen: pictures looked at before, where several texts ask for the same ones.
    """
    place, *vectors = seen or look_at(model, candidates, states)
    t = text_vectors(model, texts)  # [n, d]
    own = torch.tensor(
        [[place[name] for name in ten] for ten in candidates], device=t.device
    )  # [n, 10]
    plain, fused = (torch.einsum("nd,nkd->nk", t, v[own]).cpu().numpy() for v in vectors)
    return {"plain": plain, "fused": fused, "sum": plain + fused}


def multimodal_record(
    model: PolClip, record: Record, states: Callable[[Sequence[str]], Tensor]
) -> dict:
    """A record's joint ranking and what is right in it: its first sense, its first picture, and
    whatever stands first of all.
    """
    ranking = multimodal(model, record, states)
    first = {
        kind: next((e["sense"] for e in ranking if e["kind"] == kind), None)
        for kind in ("sense", "picture")
    }
    return {
        "id": record.id,
        "lemma": record.target.lower(),
        "sentence": record.sentence,
        "gold": record.golds[0],
        "ranking": [{key: e[key] for key in ("kind", "sense", "score")} for e in ranking],
        "sense_right": first["sense"] in record.golds,
        "picture_right": first["picture"] in record.golds,
        "first_right": ranking[0]["sense"] in record.golds,
    }


def multimodal(
    model: PolClip, record: Record, states: Callable[[Sequence[str]], Tensor], score: str = "sum"
) -> list[dict]:
    """One context, its candidate senses and all their pictures in one ranking: [{"kind", "id",
    "sense", "score"}], best first.

    A picture lies further from any text than a gloss does, whatever it shows, so scores are
    standardised within each kind before they are put into one order; `score` is the standardised
    one.
    """
    pictures = [(c.id, name) for c in record.candidates for name in c.pictures]
    vectors = {"sense": sense_vectors(model, record.candidates)}
    if pictures:
        vectors["picture"] = picture_vectors(model, [name for _, name in pictures], states)
    u, entries = context_vectors(model, [record])[0], []
    for kind, (plain, fused) in vectors.items():
        raw = (
            {"plain": plain @ u, "fused": fused @ u, "sum": (plain + fused) @ u}[score]
            .cpu()
            .numpy()
            .astype(float)
        )
        ids = (
            [(c.id, c.id) for c in record.candidates]
            if kind == "sense"
            else [(name, sense) for sense, name in pictures]
        )
        spread = raw.std() or 1.0
        entries += [
            {"kind": kind, "id": its, "sense": sense, "score": float((value - raw.mean()) / spread)}
            for (its, sense), value in zip(ids, raw)
        ]
    return sorted(entries, key=lambda e: -e["score"])
