"""Packing: records gathered into batches by budgets of candidate senses and pictures, the same
every time for a seed and an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from random import Random

from vwsdlib.errors import VwsdError

from .config import Config
from .records import Candidate, Record


def packed(records: Sequence[Record], config: Config) -> Callable[[int], list[list[Record]]]:
    """epoch -> its batches under a configuration's budgets."""
    return lambda epoch: list(pack_epoch(records, config, epoch))


def pack_epoch(
    records: Iterable[Record], config: Config, epoch: int, shuffle: bool = True
) -> Iterator[list[Record]]:
    """The batches of an epoch under a configuration's budgets, as `pack` makes them."""
    budgets = (config.senses, config.pictures, config.per_sense)
    how = {"drop_last": config.drop_last, "count_pictures": config.count_pictures}
    return pack(records, *budgets, config.seed, epoch, shuffle=shuffle, **how)


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
    if shuffle:
        records = _shuffled(records, Random(f"order {seed} {epoch}"), buffer)
    budget = pictures if count_pictures else None
    batch, used_senses, used_pictures = [], 0, 0
    for record in records:
        record = trim(record, senses, budget, per_sense, Random(f"{seed} {epoch} {record.id}"))
        more = len(record.candidates)
        shown = sum(len(c.pictures) for c in record.candidates) if count_pictures else more
        if batch and (used_senses + more > senses or used_pictures + shown > pictures):
            yield batch
            batch, used_senses, used_pictures = [], 0, 0
        batch.append(record)
        used_senses, used_pictures = used_senses + more, used_pictures + shown
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
        right = [c.id for c in record.candidates if c.id in record.golds][:senses]
        others = [c.id for c in record.candidates if c.id not in record.golds]
        stay = {*right, *random.sample(others, senses - len(right))}
        record = replace(
            record,
            candidates=tuple(c for c in record.candidates if c.id in stay),
            golds=tuple(gold for gold in record.golds if gold in stay),
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
