"""From records to tensors: tokens with the target's span, captions, which sense is right, whose
picture each is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

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

    def to(self, device: torch.device | str) -> Texts:
        """The same on another device."""
        return Texts(*(part.to(device) for part in vars(self).values()))


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
        return Batch(*(part.to(device) for part in vars(self).values()))


def photo_text(text: str, sense: str = "", stop: bool = False) -> str:
    """`A photo of "TEXT", sense`: training captions take the target's word and a full stop, the
    visual test the phrase and none, as released.
    """
    return f'A photo of "{text}"' + (f", {sense.lower()}" if sense else "") + ("." if stop else "")


@dataclass(frozen=True)
class Coder:
    """Turns words into tokens for one backbone, as the configuration says."""

    backbone: Backbone
    config: Config

    def contexts(self, records: Sequence[Record]) -> Texts:
        """Contexts, read out at their targets' spans."""
        coded = [self._context(*self._placed(record)) for record in records]
        ends = [len(ids) - 1 for ids, _, _ in coded]
        return self._stack(coded, ends, spans=self.config.context == "span")

    def texts(self, texts: Sequence[str]) -> Texts:
        """Glosses and captions, read out as a whole; what is too long is cut, its end token
        kept."""
        coded = [self._plain(text) for text in texts]
        return self._stack(coded, [last for _, _, last in coded])

    def _placed(self, record: Record) -> tuple[list[str], int, int]:
        """Words, first and last place of the target; with the released code's faults where they are
        asked for.
        """
        words, (first, last), config = list(record.words), record.span, self.config
        if config.last_occurrence and first == last:
            first = last = max(i for i, word in enumerate(words) if word == words[first])
        if not record.set.startswith("vwsd"):  # phrases alone were treated so
            return words, first, last
        target = words[first : last + 1]
        if config.strip_target:
            rest = record.sentence.strip(" ".join(target)).split()
        elif config.target_first:
            rest = words[:first] + words[last + 1 :]
        else:
            return words, first, last
        return target + rest, 0, len(target) - 1

    def _context(self, words: Sequence[str], first: int, last: int) -> tuple[list[int], int, int]:
        """Ids, first and last place of the target among them; a long context is a window around its
        target.
        """
        pieces = self.backbone.words(words)
        ids, room = list(chain(*pieces)), self.backbone.length - 2
        begin = sum(map(len, pieces[:first]))
        size = sum(map(len, pieces[first : last + 1]))
        stop = min(begin + max(1, size), begin + room)
        start = 0
        if len(ids) > room and stop > room:
            start = min(max(0, (begin + stop) // 2 - room // 2), len(ids) - room)
        if not self.config.drop_end or len(ids) <= room:
            inner = ids[start : start + room]
            coded = [self.backbone.start, *inner, self.backbone.end]
            return coded, begin - start + 1, stop - start
        if start:  # as released: start and end tokens are lost
            return ids[start : start + room + 2], begin - start, stop - 1 - start
        return [self.backbone.start, *ids][: room + 2], begin + 1, stop

    def _plain(self, text: str) -> tuple[list[int], int, int]:
        ids, room = list(chain(*self.backbone.words(text.split()))), self.backbone.length - 2
        if self.config.drop_end and len(ids) > room:  # arg max of the ids finds the start token
            return [self.backbone.start, *ids][: room + 2], 0, 0
        whole = [self.backbone.start, *ids[:room], self.backbone.end]
        return whole, len(whole) - 1, len(whole) - 1

    def _stack(
        self, coded: list[tuple[list[int], int, int]], ends: list[int], spans: bool = False
    ) -> Texts:
        """Padded with 0 to the full length; to the longest where padding is masked, so that it
        costs nothing.
        """
        length = self.backbone.length
        if self.config.mask_pads:
            length = max(len(ids) for ids, _, _ in coded)
        ids = torch.zeros(len(coded), length, dtype=torch.long)
        inside, pads = (torch.zeros(len(coded), length, dtype=torch.bool) for _ in range(2))
        for row, (own, first, last) in enumerate(coded):
            ids[row, : len(own)] = torch.tensor(own)
            inside[row, first : last + 1] = True
            pads[row, len(own) :] = True
        end = torch.tensor(ends)
        return Texts(ids, pads, inside if spans else self.backbone.whole(end, length), end)


def collate(records: Sequence[Record], coder: Coder, states: Tensor) -> Batch:
    """One batch of a packed list of records; states [N, P, v] of `pictures_of(records)` in their
    order.
    """
    senses, captions = senses_of(records), []
    for record in records:
        for sense in record.candidates:
            captions.append(photo_text(record.target, sense.gloss.rstrip("."), stop=True))
    bounds = torch.tensor([0, *(len(record.candidates) for record in records)]).cumsum(0)
    gold = torch.zeros(len(records), len(senses), dtype=torch.bool)
    for i, record in enumerate(records):
        ids = [candidate.id for candidate in record.candidates]
        right = [ids.index(gold_id) for gold_id in record.golds if gold_id in ids]
        if not coder.config.multi_positive:
            right = right[:1]
        gold[i, [int(bounds[i]) + place for place in right]] = True
    return Batch(
        coder.contexts(records),
        coder.texts([sense.gloss for sense in senses]),
        coder.texts(captions),
        gold,
        torch.stack([bounds[:-1], bounds[1:]], 1),
        _same(senses, coder.config.merge_duplicates),
        _depicts(senses),
        states,
    )


def _same(senses: Sequence[Candidate], merge: bool) -> Tensor:
    """[G, G] True where two senses are one: the identity, or wherever ids are equal."""
    if not merge:
        return torch.eye(len(senses), dtype=torch.bool)
    first = {}
    for sense in senses:
        first.setdefault(sense.id, len(first))
    number = torch.tensor([first[sense.id] for sense in senses])
    return number[:, None] == number


def _depicts(senses: Sequence[Candidate]) -> Tensor:
    """[N, G] True where a picture is of a sense."""
    counts = torch.tensor([len(sense.pictures) for sense in senses])
    return torch.eye(len(senses), dtype=torch.bool).repeat_interleave(counts, 0)


def senses_of(records: Sequence[Record]) -> list[Candidate]:
    """The candidate senses of records in one list."""
    return list(chain.from_iterable(record.candidates for record in records))


def pictures_of(records: Sequence[Record]) -> list[str]:
    """Names of the pictures of a batch, sense by sense."""
    return list(chain.from_iterable(sense.pictures for sense in senses_of(records)))


def candidates_of(records: Sequence[Record]) -> list[Candidate]:
    """One candidate for each distinct gloss of records, in order of first use: equal glosses tie,
    and an id may have several (languages, sets).
    """
    return list({sense.gloss: sense for sense in senses_of(records)}.values())
