"""Shards: what goes in comes out, in an order of its own each epoch, without holding or opening
more than is needed and without a network.
"""

import socket
import sys
from collections import Counter
from dataclasses import replace
from itertools import chain, islice

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from polclip import streaming
from polclip.records import Candidate, Record
from polclip.streaming import stream_shards, to_shards
from vwsdlib.errors import VwsdError

opened: list[str] = []
sys.addaudithook(
    lambda event, args: (
        opened.append(args[0]) if event == "open" and str(args[0]).endswith(".parquet") else None
    )
)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)  # as a user has it


def make(folder, n: int, size: int = 30) -> list[Record]:
    """n records with three pictures each, one name in two folders, one picture under two senses."""
    random, records = np.random.default_rng(0), []
    for i in range(n):
        own = [
            folder / "a" / f"{i}.jpg",
            folder / "b" / f"{i}.jpg",
            folder / "b" / f"{i}.safetensors",
        ]
        for path in own:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(random.bytes(size))
        first, second = (
            Candidate("s1", "glöss", tuple(map(str, own[:2]))),
            Candidate("s2", "", (str(own[2]), str(own[0]))),
        )
        records.append(
            Record(
                f"r{i}", "en", ("a", "bat"), (1, 1), (first, second), ("s2",), "NOUN", "SE2", "d"
            )
        )
    return records


@pytest.fixture
def shards(tmp_path):
    records = make(tmp_path / "p", 30)
    assert to_shards(records, tmp_path / "s", per_shard=4) == 8
    return tmp_path / "s", records


def test_what_goes_in_comes_out(shards, no_network):
    folder, records = shards
    assert [p.name for p in sorted(folder.iterdir())] == [
        f"records-{i:05d}.parquet" for i in range(8)
    ]
    found = {record.id: (record, data) for record, data in stream_shards(folder)}
    assert set(found) == {r.id for r in records}
    for before in records:
        record, data = found[before.id]
        assert replace(record, candidates=before.candidates) == before and [
            c.gloss for c in record.candidates
        ] == ["glöss", ""]
        for own, old in zip(record.candidates, before.candidates):
            assert [data[name] for name in own.pictures] == [
                open(p, "rb").read() for p in old.pictures
            ]
            assert [name[17:] for name in own.pictures] == [
                p.rpartition("/")[2] for p in old.pictures
            ]  # no folder of this machine
        assert len(data) == 3


def test_the_network_double_would_notice(no_network):
    with pytest.raises(AssertionError, match="network"):
        socket.create_connection(("localhost", 9))


def order(*args, **kwargs) -> list[str]:
    return [record.id for record, _ in stream_shards(*args, **kwargs)]


def test_order_is_drawn_by_seed_and_epoch(shards):
    folder, records = shards
    first = order(folder, seed=3)
    assert first == order(folder, seed=3) and Counter(first) == Counter(r.id for r in records)
    assert len(
        {tuple(order(folder, seed=s, epoch=e)) for s in (3, 4) for e in (0, 1, 2)}
    ) == 6 and first != [r.id for r in records]
    assert (
        order([str(p) for p in sorted(folder.iterdir())], seed=3) == first
    )  # a list of files or URLs


@pytest.mark.parametrize("world", [2, 3])  # 8 shards: divisible, and not
@pytest.mark.parametrize("epoch", [0, 1])
def test_processes_share_the_records(shards, world, epoch):
    folder, records = shards
    parts = [
        order(folder, seed=1, epoch=epoch, rank=rank, world=world, buffer=5)
        for rank in range(world)
    ]
    assert (
        Counter(chain.from_iterable(parts)) == Counter(r.id for r in records)
        and min(map(len, parts)) >= len(records) // world - 4
    )


def test_only_the_shards_that_are_needed_are_opened_and_memory_is_bounded(tmp_path):
    assert (
        to_shards(make(tmp_path / "p", 200, size=40_000), tmp_path / "s", per_shard=4) == 50
    )  # 24 MB
    opened.clear()
    assert len(list(islice(stream_shards(tmp_path / "s", buffer=10), 2))) == 2
    assert 1 <= len(set(opened)) <= 4  # ten records for the buffer, four a shard
    opened.clear()
    before, peak = pyarrow.total_allocated_bytes(), 0
    for _ in stream_shards(tmp_path / "s", buffer=10):
        peak = max(peak, pyarrow.total_allocated_bytes() - before)
    assert len(set(opened)) == 50 and 100_000 < peak < 8_000_000
    peaks = [
        pyarrow.total_allocated_bytes() - before for _ in stream_shards(tmp_path / "s", buffer=200)
    ]
    assert max(peaks) > 20_000_000  # all at once would show


def test_row_groups_are_small(tmp_path):
    to_shards(make(tmp_path / "p", 20), tmp_path / "s", per_shard=20)
    assert pyarrow.parquet.ParquetFile(tmp_path / "s" / "records-00000.parquet").num_row_groups == 3


def test_a_second_run_goes_on_where_the_first_was_killed(tmp_path, monkeypatch):
    records = make(tmp_path / "p", 10)

    def killed():
        yield from records[:7]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        to_shards(killed(), tmp_path / "s", per_shard=2)
    assert len(list((tmp_path / "s").iterdir())) == 3  # nothing half written
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "s").iterdir()}
    wrote = []
    write = streaming._write_shard
    monkeypatch.setattr(
        streaming, "_write_shard", lambda path, part: (wrote.append(path.name), write(path, part))
    )
    assert to_shards(records, tmp_path / "s", per_shard=2) == 5 and wrote == [
        "records-00003.parquet",
        "records-00004.parquet",
    ]
    assert {n: (tmp_path / "s" / n).stat().st_mtime_ns for n in kept} == kept and len(
        order(tmp_path / "s")
    ) == 10
    assert to_shards(records, tmp_path / "s", per_shard=2) == 5 and len(wrote) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r[:-2],
        lambda r: r[::-1],
        lambda r: [replace(r[0], definition="else"), *r[1:]],
        lambda r: r[:-1],
    ],
)
def test_shards_of_other_records_are_named(tmp_path, change):
    records = make(tmp_path / "p", 6)
    to_shards(records, tmp_path / "s", per_shard=2)
    with pytest.raises(VwsdError, match="other records"):
        to_shards(change(records), tmp_path / "s", per_shard=2)


def test_faults_are_named(tmp_path):
    records = make(tmp_path / "p", 3)
    (tmp_path / "p" / "b" / "1.jpg").unlink()
    with pytest.raises(VwsdError, match="a picture of r1 cannot be read"):
        to_shards(records, tmp_path / "s")
    assert not list((tmp_path / "s").iterdir()) and to_shards([], tmp_path / "s") == 0
    with pytest.raises(VwsdError, match="no shards"):
        next(stream_shards(tmp_path / "s"))
    to_shards(records[:1], tmp_path / "s")
    [shard] = (tmp_path / "s").iterdir()
    shard.write_bytes(shard.read_bytes()[:-20])
    for bytes_of_it in (
        shard.read_bytes(),
        b"PAR1" + bytes(200) + b"PAR1",
        b"",
        b"noise",
    ):  # cut short, zeros inside, empty, no parquet at all
        shard.write_bytes(bytes_of_it)
        with pytest.raises(VwsdError, match="a shard cannot be read"):
            next(stream_shards(tmp_path / "s"))
    with pytest.raises(VwsdError, match="not a shard"):
        to_shards(records[:1], tmp_path / "s")
