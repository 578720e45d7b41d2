"""From records to tensors: tokens with the target's span, captions, which sense is right, whose
picture each is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from .backbone import Backbone
from .config import Config
from .records import Candidate, Record


@dataclass(frozen=True)
class Texts:
    """ids [B, L], pads [B, L] True where padding, inside [B, L] True at the places that are read
    out, end [B] the end token's place.
    """

    ids: Tensor
    pads: Tensor
    inside: Tensor
    end: Tensor


@dataclass(frozen=True)
class Batch:
    """I contexts, their G candidate senses in one list, and the senses' N pictures in one list."""

    contexts: Texts
    glosses: Texts
    captions: Texts
    gold: Tensor  # [I, G] True where a sense is right
    own: Tensor  # [I, 2] each instance's candidates: from, to (not included)
    same: Tensor  # [G, G] True where two senses are one
    depicts: Tensor  # [N, G] True where a picture is of a sense
    states: Tensor  # [N, P, v] of the pictures, through everything that is frozen

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""

        def moved(value):
            return (
                replace(value, **{f.name: getattr(value, f.name).to(device) for f in fields(value)})
                if isinstance(value, Texts)
                else value.to(device)
            )

        return Batch(**{f.name: moved(getattr(self, f.name)) for f in fields(self)})


def photo_text(text: str, sense: str = "", stop: bool = False) -> str:
    """`A photo of "TEXT", sense`: training captions take the target's word and a full stop, the
    visual test the phrase and none, as released.
    """
    return f'A photo of "{text}"' + (f", {sense.lower()}" if sense else "") + ("." if stop else "")


class Coder:
    """Turns words into tokens for one backbone, as the configuration says."""

    def __init__(self, backbone: Backbone, config: Config):
        self.backbone, self.config = backbone, config

    def contexts(self, records: Sequence[Record]) -> Texts:
        """Contexts, read out at their targets' spans."""
        return self._stack(
            [self._context(*self._placed(record)) for record in records],
            whole=False,
            spans=self.config.context == "span",
        )

    def texts(self, texts: Sequence[str]) -> Texts:
        """Glosses and captions, read out as a whole; what is too long is cut, its end token
        kept."""
        return self._stack([self._plain(text) for text in texts], whole=True)

    def _placed(self, record: Record) -> tuple[list[str], int, int]:
        """Words, first and last place of the target; with the released code's faults where they are
        asked for.
        """
        words, (first, last), its = list(record.words), record.span, self.config
        if its.last_occurrence and first == last:
            first = last = max(i for i, word in enumerate(words) if word == words[first])
        if record.set.startswith("vwsd") and (
            its.target_first or its.strip_target
        ):  # phrases alone were treated so
            target = words[first : last + 1]
            rest = (
                record.sentence.strip(" ".join(target)).split()
                if its.strip_target
                else words[:first] + words[last + 1 :]
            )
            words, first, last = target + rest, 0, len(target) - 1
        return words, first, last

    def _context(self, words: Sequence[str], first: int, last: int) -> tuple[list[int], int, int]:
        """Ids, first and last place of the target among them; a long context is a window around its
        target.
        """
        pieces, its = self.backbone.words(words), self.backbone
        ids, room = [i for piece in pieces for i in piece], its.length - 2
        begin = sum(map(len, pieces[:first]))
        stop = min(begin + max(1, sum(map(len, pieces[first : last + 1]))), begin + room)
        if len(ids) <= room or stop <= room:
            start = 0
        else:
            start = min(max(0, (begin + stop) // 2 - room // 2), len(ids) - room)
        if self.config.drop_end and len(ids) > room:  # as released: start and end tokens are lost
            return (
                (ids[start : start + its.length], begin - start, stop - 1 - start)
                if start
                else ([its.start, *ids][: its.length], begin + 1, stop)
            )
        return [its.start, *ids[start : start + room], its.end], begin - start + 1, stop - start

    def _plain(self, text: str) -> tuple[list[int], int, int]:
        its = self.backbone
        ids = [i for piece in its.words(text.split()) for i in piece]
        if (
            self.config.drop_end and len(ids) > its.length - 2
        ):  # arg max of the ids then finds the start token
            return [its.start, *ids][: its.length], 0, 0
        kept = [its.start, *ids[: its.length - 2], its.end]
        return kept, len(kept) - 1, len(kept) - 1

    def _stack(
        self, coded: list[tuple[list[int], int, int]], whole: bool, spans: bool = False
    ) -> Texts:
        """Padded with 0 to the full length; to the longest where padding is masked, so that it
        costs nothing.
        """
        length = (
            max(len(ids) for ids, _, _ in coded) if self.config.mask_pads else self.backbone.length
        )
        ids = torch.zeros(len(coded), length, dtype=torch.long)
        inside, pads = (torch.zeros(len(coded), length, dtype=torch.bool) for _ in range(2))
        for row, (its, first, last) in enumerate(coded):
            ids[row, : len(its)] = torch.tensor(its)
            inside[row, first : last + 1] = True
            pads[row, len(its) :] = True
        end = torch.tensor([last if whole else len(its) - 1 for its, _, last in coded])
        return Texts(ids, pads, inside if spans else self.backbone.whole(end, length), end)


def collate(records: Sequence[Record], coder: Coder, states: Tensor) -> Batch:
    """One batch of a packed list of records; states [N, P, v] of `picture_names(records)` in their
    order.
    """
    config, senses = (
        coder.config,
        [(record, candidate) for record in records for candidate in record.candidates],
    )
    bounds = torch.tensor([0, *(len(record.candidates) for record in records)]).cumsum(0)
    gold = torch.zeros(len(records), len(senses), dtype=torch.bool)
    for i, record in enumerate(records):
        right = [g for g, candidate in enumerate(record.candidates) if candidate.id in record.golds]
        order = sorted(right, key=lambda g: record.golds.index(record.candidates[g].id))
        gold[i, [int(bounds[i]) + g for g in (order if config.multi_positive else order[:1])]] = (
            True
        )
    ids = [candidate.id for _, candidate in senses]
    same = (
        torch.tensor([[a == b for b in ids] for a in ids])
        if config.merge_duplicates
        else torch.eye(len(ids), dtype=torch.bool)
    )
    owner = [g for g, (_, candidate) in enumerate(senses) for _ in candidate.pictures]
    depicts = torch.zeros(len(owner), len(senses), dtype=torch.bool)
    depicts[torch.arange(len(owner)), owner] = True
    captions = [
        photo_text(record.target, candidate.gloss.rstrip("."), stop=True)
        for record, candidate in senses
    ]
    return Batch(
        coder.contexts(records),
        coder.texts([candidate.gloss for _, candidate in senses]),
        coder.texts(captions),
        gold,
        torch.stack([bounds[:-1], bounds[1:]], 1),
        same,
        depicts,
        states,
    )


def picture_names(records: Sequence[Record]) -> list[str]:
    """Names of the pictures of a batch, sense by sense."""
    return [
        name for record in records for candidate in record.candidates for name in candidate.pictures
    ]


def candidates_of(records: Sequence[Record]) -> list[Candidate]:
    """One candidate for each distinct gloss of records, in order of first use: equal glosses tie,
    and an id may have several (languages, sets).
    """
    return list(
        {
            candidate.gloss: candidate for record in records for candidate in record.candidates
        }.values()
    )
