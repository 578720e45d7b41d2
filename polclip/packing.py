"""Packing: records gathered into batches by budgets of candidate senses and pictures, the same
every time for a seed and an epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from random import Random

from vwsdlib.errors import VwsdError

from .records import Candidate, Record


def pack(
    records: Iterable[Record],
    senses: int = 50,
    pictures: int = 250,
    per_sense: int = 5,
    seed: int = 0,
    epoch: int = 0,
    drop_last: bool = False,
    count_pictures: bool = True,
    shuffle: bool = True,
    buffer: int = 10_000,
) -> Iterator[list[Record]]:
    """Batches of records, filled until one more record would exceed `senses` candidate senses or
    `pictures` pictures.

    The two budgets are the `gloss_batch_size` and `image_batch_size` of the paper's README: 50 and
    250 fill more than 24 GB of GPU memory; for smaller GPUs it advises 10 or 20 senses with 50 or
    100 pictures (five a sense). Each record comes out as `trim` cuts it, drawn by (seed, epoch,
    record id) alone, so that its neighbours do not matter; every record is in one batch, and
    another epoch packs anew.

    A sequence is shuffled whole, an iterator within a window of `buffer` records (or not at all:
    shuffle=False). The released code differs in three ways: `drop_last=True` loses the last batch,
    `count_pictures=False` takes the budget of pictures for senses with a list of pictures, which
    never binds, and `epoch` stays the same. VwsdError for a record without candidates.
    """
    ordered = _shuffled(records, Random(f"order {seed} {epoch}"), buffer) if shuffle else records
    batch, used = [], (0, 0)
    for record in ordered:
        record = trim(
            record,
            senses,
            pictures if count_pictures else None,
            per_sense,
            Random(f"{seed} {epoch} {record.id}"),
        )
        cost = (
            len(record.candidates),
            sum(len(c.pictures) if count_pictures else 1 for c in record.candidates),
        )
        if batch and (used[0] + cost[0] > senses or used[1] + cost[1] > pictures):
            yield batch
            batch, used = [], (0, 0)
        batch.append(record)
        used = used[0] + cost[0], used[1] + cost[1]
    if batch and not drop_last:
        yield batch


def trim(
    record: Record, senses: int, pictures: int | None, per_sense: int, random: Random
) -> Record:
    """The record with at most `senses` candidates, its golds first among those kept, and
    `per_sense` pictures of each, drawn at random.

    Where the pictures still exceed the budget `pictures` (None: no budget), every sense's share is
    cut alike until they fit. Orders stay. VwsdError for a record without candidates.
    """
    if not record.candidates:
        raise VwsdError(
            "a record without candidates cannot be packed",
            record.id,
            "Leave such records out: there is nothing to choose from.",
        )
    if len(record.candidates) > senses:
        golds = [c for c in record.candidates if c.id in record.golds][:senses]
        others = [c for c in record.candidates if c.id not in record.golds]
        kept = {c.id for c in (*golds, *random.sample(others, senses - len(golds)))}
        record = replace(
            record,
            candidates=tuple(c for c in record.candidates if c.id in kept),
            golds=tuple(g for g in record.golds if g in kept),
        )
    sizes, share = [len(c.pictures) for c in record.candidates], per_sense
    while pictures is not None and sum(min(n, share) for n in sizes) > pictures:
        share -= 1
    return replace(record, candidates=tuple(_sampled(c, share, random) for c in record.candidates))


def _sampled(candidate: Candidate, share: int, random: Random) -> Candidate:
    if len(candidate.pictures) <= share:
        return candidate
    kept = sorted(random.sample(range(len(candidate.pictures)), share))
    return replace(candidate, pictures=tuple(candidate.pictures[i] for i in kept))


def _shuffled(records: Iterable[Record], random: Random, buffer: int) -> Iterator[Record]:
    """A sequence in an order drawn whole; from an iterator, each time one of the next `buffer`
    records.
    """
    if isinstance(records, Sequence):
        yield from (records[i] for i in random.sample(range(len(records)), len(records)))
        return
    records = iter(records)
    window = list(islice(records, buffer))
    for record in records:
        at = random.randrange(len(window))
        yield window[at]
        window[at] = record
    random.shuffle(window)
    yield from window
