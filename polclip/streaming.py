"""Sets of hundreds of GB: records with their pictures' bytes in parquet shards, read one by one in
an order shuffled anew each epoch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path

from vwsdlib.errors import VwsdError
from vwsdlib.paths import atomic, quiet, refuse_special, sha256_bytes
from vwsdlib.progress import tqdm

from .records import Record, from_json, renamed, to_json

ROWS = 8  # a row group is read at once; with 20 pictures of 1 MB a record, 160 MB
WRITE = "Write them with: vwsd convert shards RECORDS.jsonl DIR"


class Held(str):
    """A picture's name that brings its file's bytes along, for as long as anything refers to it."""

    data: bytes

    @classmethod
    def of(cls, name: str, data: bytes) -> Held:
        """The name with its bytes."""
        held = cls(name)
        held.data = data
        return held


def _features():
    from datasets import Features, List, Value

    # large: a buffer of records passes 2 GB
    picture = {"name": Value("string"), "bytes": Value("large_binary")}
    return Features({"key": Value("string"), "record": Value("string"), "pictures": List(picture)})


def to_shards(records: Iterable[Record], folder: str | Path, per_shard: int = 1000) -> int:
    """Write records with the bytes of their pictures as `records-00000.parquet`, ...; returns the
    number of shards.

    A row a record: `key` (hash of the record as given), `record` (JSON), `pictures` (list of name
    and bytes; a name begins with the hash of the bytes, so names of different folders cannot
    clash). Shards are written one after another, atomically; those that are there with the same
    records are skipped, so that a second run goes on. VwsdError for shards of other records in the
    folder and for a missing picture. Give them in random order: readers mix neighbours only.
    """
    records = iter(tqdm(records, desc="Shards", unit=" records", disable=quiet()))
    number = 0
    while True:
        path = Path(folder) / f"records-{number:05d}.parquet"
        part = list(islice(records, per_shard))
        if part and not path.exists():
            _write_shard(path, part)
        elif path.exists() and _keys(path) != [_key(record) for record in part]:
            remedy = "Delete the folder's shards or choose another folder."
            raise VwsdError("this shard holds other records", path, remedy)
        elif not part:
            return number
        number += 1


def _key(record: Record) -> str:
    return sha256_bytes(json.dumps(asdict(record)).encode())


def _keys(path: Path) -> list[str]:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path, columns=["key"])["key"].to_pylist()
    except (OSError, ValueError, KeyError) as e:
        raise VwsdError(f"not a shard: {e}", path, "Delete it and run again.") from None


def _write_shard(path: Path, records: Sequence[Record]) -> None:
    from datasets.arrow_writer import ParquetWriter

    with (
        atomic(path) as temporary,
        ParquetWriter(path=str(temporary), features=_features(), writer_batch_size=ROWS) as writer,
    ):
        for record in records:
            names, pictures = {}, []
            for picture in chain.from_iterable(c.pictures for c in record.candidates):
                if picture not in names:
                    data = _bytes(picture, record)
                    names[picture] = f"{sha256_bytes(data)[:16]}-{Path(picture).name}"
                    pictures.append({"name": names[picture], "bytes": data})
            line = to_json(renamed(record, names.__getitem__))
            writer.write({"key": _key(record), "record": line, "pictures": pictures})
        writer.finalize()


def _bytes(path: str, record: Record) -> bytes:
    refuse_special(path, "picture")
    try:
        return Path(path).read_bytes()
    except OSError as e:
        what = f"a picture of {record.id} cannot be read: {e.strerror}"
        raise VwsdError(what, path, "Check the path, or leave the picture out.") from None


def shards_in(folder: str | Path) -> list[Path]:
    """The shards of a folder, in order; VwsdError where there are none."""
    paths = sorted(Path(folder).glob("records-*.parquet"))
    if not paths:
        raise VwsdError("there are no shards", folder, WRITE)
    return paths


def stream_shards(
    folder: str | Path, seed: int = 0, epoch: int = 0, buffer: int = 100
) -> Iterator[Record]:
    """Records in an order drawn by (seed, epoch); names of their pictures are `Held`.

    One shard after another, in a drawn order, feeds a buffer in which records are mixed: it and the
    copy made in mixing hold two to three times `buffer` records with their pictures. VwsdError for
    a folder without shards and for a damaged one.
    """
    from datasets import IterableDataset

    paths: list = list(map(str, shards_in(folder)))
    with _shards_are_read(folder, paths):
        # load_dataset would ask the hub even for local files
        stream = IterableDataset.from_parquet(paths, features=_features())
        stream = stream.shuffle(seed=seed, buffer_size=buffer, max_buffer_input_shards=1)
        stream.set_epoch(epoch)
        for row in stream:
            held = {p["name"]: Held.of(p["name"], p["bytes"]) for p in row["pictures"]}
            record = from_json(row["record"], row["key"])
            names = set(chain.from_iterable(c.pictures for c in record.candidates))
            absent = sorted(names - held.keys())
            if absent:
                raise ValueError(f"the picture {absent[0]!r} of {record.id!r} is not in it")
            yield renamed(record, held.__getitem__)


def records_in_shards(folder: str | Path) -> Iterator[Record]:
    """Records alone, in the order of the shards; columns are stored apart, so that no picture is
    read. VwsdError for a folder without shards and for a damaged one.
    """
    from pyarrow.parquet import ParquetFile

    for path in shards_in(folder):
        with _shards_are_read(path, [path]):
            for part in ParquetFile(path).iter_batches(columns=["record"]):
                for line in part["record"].to_pylist():
                    yield from_json(line, path)


@contextmanager
def _shards_are_read(source: object, paths: Sequence[str | Path]) -> Iterator[None]:
    """Whatever is wrong with a shard while its rows are read becomes a VwsdError; a pipe in the
    place of one is not opened.
    """
    for path in paths:
        refuse_special(path, "shard")
    try:
        yield
    except (OSError, ValueError) as e:  # pyarrow's errors are of these types
        remedy = "Delete the damaged shard and write the shards again."
        raise VwsdError(f"a shard cannot be read: {e}", source, remedy) from None
