"""What is too large to hold: published batches and shards, read one batch at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import NamedTuple

from torch import Tensor
from tqdm.auto import tqdm

from vwsdlib.data.sources import picture_names
from vwsdlib.errors import VwsdError
from vwsdlib.paths import cache_dir, quiet, refuse_special, sha256_bytes, write_text

from .config import Config
from .packing import pack
from .published import read_metadata
from .records import Record, from_json
from .streaming import shards_are_read, stream_shards
from .train import Batches


class Source(NamedTuple):
    """`batches(config)` gives the batches of an epoch, `per_epoch(config)` about how many there
    are; `facts` tell one source from another.
    """

    batches: Callable[[Config], Batches]
    per_epoch: Callable[[Config], int]
    facts: dict


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
        return lambda epoch: _mixed(
            [read_metadata(path, roots, missing=missing) for path in paths],
            counts(),
            Random(f"{config.seed} {epoch}"),
        )

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
        raise VwsdError(
            f"the file cannot be read: {e.strerror}", where=path, remedy="Check the path."
        ) from None


def count_batches(path: Path, roots: Mapping[str, str | Path], missing: str = "error") -> int:
    """Batches of a published file, remembered under its path, size and time of change. The first
    time all of it is read, so faults come to light.
    """
    status = _status(path)
    key = sha256_bytes(f"{path.resolve()} {status.st_size} {status.st_mtime_ns}".encode())[:16]
    note = cache_dir() / "polclip" / f"batches-{key}.json"
    counted = _counted(note)
    if not counted:
        batches = tqdm(
            read_metadata(path, roots, missing=missing),
            desc=f"counting {path.name}",
            unit=" batches",
            disable=quiet(),
        )
        counted = sum(1 for _ in batches)
        write_text(note, json.dumps({"file": path.name, "batches": counted}) + "\n")
    return counted


def _counted(note: Path) -> int:
    """How many batches a note of the cache says, 0 where there is none that says it: then they are
    counted again.
    """
    refuse_special(note, "cache's note", "Remove it.")
    try:
        counted = json.loads(note.read_bytes())["batches"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0
    return counted if type(counted) is int and counted > 0 else 0


class Held(str):
    """A picture's name that brings its file's bytes along, for as long as anything refers to it."""

    data: bytes

    @classmethod
    def of(cls, name: str, data: bytes) -> Held:
        """The name with its bytes."""
        found = cls(name)
        found.data = data
        return found


def held_states(states: Callable[..., Tensor]) -> Callable[[Sequence[str]], Tensor]:
    """PictureStates for names that may be `Held`."""
    return lambda names: states(
        names, {name: name.data for name in names if isinstance(name, Held)}
    )


def shard_source(folder: str | Path) -> Source:
    """Shards as `streaming.to_shards` writes them, packed by the configuration's budgets as they
    come; every process reads all of them.

    Their pictures' states are had by `held_states`. VwsdError for a folder without shards.
    """
    paths = sorted(Path(folder).glob("records-*.parquet"))
    if not paths:
        raise VwsdError(
            "there are no shards", folder, "Write them with: vwsd convert shards RECORDS.jsonl DIR"
        )

    def packed(records: Iterator[Record], config: Config, epoch: int) -> Iterator[list[Record]]:
        return pack(
            records,
            config.senses,
            config.pictures,
            config.per_sense,
            config.seed,
            epoch,
            config.drop_last,
            config.count_pictures,
            shuffle=False,
        )

    def per_epoch(config: Config) -> int:
        return sum(1 for _ in packed(_records(paths), config, 0))

    return Source(
        lambda config: lambda epoch: packed(_held(folder, config.seed, epoch), config, epoch),
        per_epoch,
        {"shards": {path.name: path.stat().st_size for path in paths}},
    )


def _held(folder: str | Path, seed: int, epoch: int) -> Iterator[Record]:
    for record, data in stream_shards(folder, seed, epoch):
        yield replace(
            record,
            candidates=tuple(
                replace(c, pictures=tuple(Held.of(p, data[p]) for p in c.pictures))
                for c in record.candidates
            ),
        )


def _records(paths: Sequence[Path]) -> Iterator[Record]:
    """Records alone; columns are stored apart, so that no picture is read."""
    from pyarrow.parquet import ParquetFile

    for path in paths:
        with shards_are_read(path, [path]):
            for part in ParquetFile(path).iter_batches(columns=["record"]):
                yield from (from_json(line, path) for line in part["record"].to_pylist())
