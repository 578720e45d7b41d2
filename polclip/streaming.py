"""Sets of hundreds of GB: records with their pictures' bytes in parquet shards, read one by one in
an order shuffled anew each epoch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path

from tqdm.auto import tqdm

from vwsdlib.errors import VwsdError
from vwsdlib.paths import atomic, quiet, refuse_special, sha256_bytes

from .records import Record, from_json, to_json

ROWS = 8  # a row group is read at once; with 20 pictures of 1 MB a record, 160 MB


def _features():
    from datasets import Features, List, Value

    picture = {
        "name": Value("string"),
        "bytes": Value("large_binary"),
    }  # large: a buffer of records passes 2 GB
    return Features({"key": Value("string"), "record": Value("string"), "pictures": List(picture)})


def to_shards(records: Iterable[Record], folder: str | Path, per_shard: int = 1000) -> int:
    """Write records with the bytes of their pictures as `records-00000.parquet`, ...; returns the
    number of shards.

    A row a record: `key` (hash of the record as given), `record` (JSON), `pictures` (list of name
    and bytes; a name begins with the hash of the bytes, so names of different folders cannot
    clash). Shards are written one after another, atomically; those that are there with the same
    records are skipped, so that a second run goes on. VwsdError for shards of other records in the
    folder and for a missing picture. Give them in random order: readers mix neighbours only. Where
    the number of processes that will read divides the number of shards, each process opens its own
    shards; else every process reads all.
    """
    folder, records = (
        Path(folder),
        iter(tqdm(records, desc="Shards", unit=" records", disable=quiet())),
    )
    for number in count():
        path, part = folder / f"records-{number:05d}.parquet", list(islice(records, per_shard))
        if part and not path.exists():
            _write_shard(path, part)
        elif path.exists() and _keys(path) != [_key(record) for record in part]:
            raise VwsdError(
                "this shard holds other records",
                path,
                "Delete the folder's shards or choose another folder.",
            )
        elif not part:
            return number


def _key(record: Record) -> str:
    return sha256_bytes(json.dumps(to_json(record)).encode())


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
            data = {p: _bytes(p, record) for c in record.candidates for p in c.pictures}
            names = {p: f"{sha256_bytes(data[p])[:16]}-{Path(p).name}" for p in data}
            pictures = [{"name": names[p], "bytes": data[p]} for p in data]
            writer.write(
                {
                    "key": _key(record),
                    "record": json.dumps(to_json(record, names), ensure_ascii=False),
                    "pictures": pictures,
                }
            )
        writer.finalize()


def _bytes(path: str, record: Record) -> bytes:
    refuse_special(path, "picture")
    try:
        return Path(path).read_bytes()
    except OSError as e:
        raise VwsdError(
            f"a picture of {record.id} cannot be read: {e.strerror}",
            path,
            "Check the path, or leave the picture out.",
        ) from None


def stream_shards(
    source: str | Path | Sequence[str],
    seed: int = 0,
    epoch: int = 0,
    rank: int = 0,
    world: int = 1,
    buffer: int = 100,
) -> Iterator[tuple[Record, dict[str, bytes]]]:
    """(record, name -> bytes of its pictures) in an order drawn by (seed, epoch), each record in
    one of `world` processes.

    source: a folder of shards, or URLs of them. One shard after another, in a drawn order, feeds a
    buffer in which records are mixed: it and the copy made in mixing hold two to three times
    `buffer` records with their pictures. Processes may get numbers of records that differ a little.
    VwsdError for a folder without shards and for a damaged one.
    """
    from datasets import IterableDataset
    from datasets.distributed import split_dataset_by_node

    paths = (
        sorted(map(str, Path(source).glob("records-*.parquet")))
        if isinstance(source, (str, Path))
        else list(source)
    )
    if not paths:
        raise VwsdError(
            "there are no shards", source, "Write them with polclip.streaming.to_shards."
        )
    with shards_are_read(source, paths):
        stream = IterableDataset.from_parquet(
            paths, features=_features()
        )  # load_dataset would ask the hub even for local files
        stream = split_dataset_by_node(
            stream.shuffle(seed=seed, buffer_size=buffer, max_buffer_input_shards=1), rank, world
        )
        stream.set_epoch(epoch)
        for row in stream:
            pictures = {picture["name"]: picture["bytes"] for picture in row["pictures"]}
            record = from_json(row["record"], row["key"])
            named = {name for candidate in record.candidates for name in candidate.pictures}
            if absent := sorted(named - pictures.keys()):
                raise ValueError(f"the picture {absent[0]!r} of {record.id!r} is not in it")
            yield record, pictures


@contextmanager
def shards_are_read(source: object, paths: Sequence[str | Path]) -> Iterator[None]:
    """Whatever is wrong with a shard while its rows are read becomes a VwsdError; a pipe in the
    place of one is not opened.
    """
    for path in paths:
        refuse_special(path, "shard")
    try:
        yield
    except (OSError, ValueError) as e:  # pyarrow's errors are of these types
        raise VwsdError(
            f"a shard cannot be read: {e}",
            source,
            "Delete the damaged shard and write the shards again.",
        ) from None
