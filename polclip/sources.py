"""What PolCLIP is trained and tested on: a study, and sources that are too large to hold (published
batches and shards), read one batch at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple

from pydantic import PositiveInt

from vwsdlib.data.sets import VwsdSet
from vwsdlib.data.sources import picture_names
from vwsdlib.data.wsd import WsdItem
from vwsdlib.errors import VwsdError
from vwsdlib.kept import kept
from vwsdlib.paths import cache_dir, quiet, sha256_bytes
from vwsdlib.progress import tqdm
from vwsdlib.schema import Stored, read_json

from .config import Config
from .packing import pack_epoch
from .published import read_metadata
from .records import Record, as_item
from .streaming import records_in_shards, shards_in, stream_shards
from .train import Batches


class Source(NamedTuple):
    """`batches(config)` gives the batches of an epoch, `per_epoch(config)` about how many there
    are; `facts` tell one source from another.
    """

    batches: Callable[[Config], Batches]
    per_epoch: Callable[[Config], int]
    facts: dict


@dataclass(frozen=True)
class Study:
    """Sources of one study. `batches(config)` gives the packed batches of an epoch; epochs are
    chosen on `dev_records` and `dev_set`.
    """

    name: str
    batches: Callable[[Config], Batches]
    dev_records: list[Record]
    dev_set: VwsdSet | None
    test_records: list[Record]
    test_sets: list[VwsdSet]  # the first is the one that ablations are tested on
    facts: dict = field(default_factory=dict)
    # how many batches an epoch, where they are streamed
    per_epoch: Callable[[Config], int] | None = None
    keep_states: bool = True  # pictures' frozen states go to disk (0.5 MB each with ViT-L/14)
    missing: VwsdError | None = None  # why it can be tested and not trained, with the remedy

    def test_items(self) -> list[WsdItem]:
        """The test contexts for those who know words alone."""
        return [as_item(record) for record in self.test_records]

    def answer(self, record: Record) -> dict:
        """What an answer to a record is judged by: id, lemma, pos, set, golds, candidates."""
        return {
            "id": record.id,
            "lemma": record.target.lower(),
            "pos": record.pos,
            "set": record.set,
            "golds": list(record.golds),
            "candidates": [c.id for c in record.candidates],
        }


def metadata_source(
    paths: Sequence[str | Path], roots: Mapping[str, str | Path], missing: str = "error"
) -> Source:
    """Published batches as they are, whatever the configuration's budgets; roots, missing: as
    `published.read_metadata` has them.

    Each file keeps its order, which its authors drew; of two files the next batch comes from one or
    the other, drawn by (seed, epoch) in proportion to what is left. Files count as the same by name
    and size, folders of pictures by how many there are: they hold up to 3 and 195 GB.
    """
    paths = [Path(path) for path in paths]
    facts = {
        "batches": {path.name: _status(path).st_size for path in paths},
        "missing": missing,
        "pictures": {kind: len(picture_names(folder)) for kind, folder in sorted(roots.items())},
    }

    def counts() -> list[int]:
        return [count_batches(path, roots, missing) for path in paths]

    def batches(config: Config) -> Batches:
        def epoch_of(epoch: int) -> Iterator:
            streams = [read_metadata(path, roots, missing) for path in paths]
            return _mixed(streams, counts(), Random(f"{config.seed} {epoch}"))

        return epoch_of

    return Source(batches, lambda config: sum(counts()), facts)


def _mixed(streams: Sequence[Iterator], left: list[int], random: Random) -> Iterator:
    while any(left):
        at = random.choices(range(len(left)), left)[0]
        left[at] -= 1
        yield next(streams[at])


def _status(path: Path):
    try:
        return path.stat()
    except OSError as e:
        what = f"the file cannot be read: {e.strerror}"
        raise VwsdError(what, path, "Check the path.") from None


class _Note(Stored):
    batches: PositiveInt


def count_batches(path: Path, roots: Mapping[str, str | Path], missing: str = "error") -> int:
    """Batches of a published file, remembered under its path, size and time of change. The first
    time all of it is read, so faults come to light.
    """
    status = _status(path)
    key = sha256_bytes(f"{path.resolve()} {status.st_size} {status.st_mtime_ns}".encode())[:16]

    def count() -> int:
        batches = read_metadata(path, roots, missing)
        bar = tqdm(batches, desc=f"counting {path.name}", unit=" batches", disable=quiet())
        return sum(1 for _ in bar)

    return kept(
        cache_dir() / "polclip" / f"batches-{key}.json",
        read=lambda note: read_json(note, _Note, "cache's note", "Remove it.").batches,
        make=count,
        write=lambda number, note: note.write_text(
            json.dumps({"file": path.name, "batches": number}) + "\n"
        ),
        damaged=(VwsdError,),
    )


def shard_source(folder: str | Path) -> Source:
    """Shards as `streaming.to_shards` writes them, packed by the configuration's budgets as they
    come; every process reads all of them. VwsdError for a folder without shards.
    """
    facts = {"shards": {path.name: path.stat().st_size for path in shards_in(folder)}}

    def batches(config: Config) -> Batches:
        return lambda epoch: pack_epoch(
            stream_shards(folder, config.seed, epoch), config, epoch, shuffle=False
        )

    def per_epoch(config: Config) -> int:
        return sum(1 for _ in pack_epoch(records_in_shards(folder), config, 0, shuffle=False))

    return Source(batches, per_epoch, facts)
