"""Encoding spread over threads, processes and machines gives the vectors of one process, bit for
bit.
"""

import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from vwsd_companion.cli import main
from vwsd_standins.rehearsal.models import make_models
from vwsdlib.data.pictures import Square
from vwsdlib.encoders import streams
from vwsdlib.encoders.pretrained import load_pretrained
from vwsdlib.encoders.shards import Rows
from vwsdlib.encoders.store import VectorStore
from vwsdlib.encoders.streams import AHEAD, OnDemand, cores, side_by_side, squares
from vwsdlib.errors import VwsdError
from vwsdlib.paths import PACKAGE


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with tiny checkpoints and 90 pictures of many sizes."""
    folder = tmp_path_factory.mktemp("streams")
    make_models(folder / "models")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(90):
        pixels = rng.integers(0, 256, (*rng.integers(8, 30, 2), 3), dtype=np.uint8)
        Image.fromarray(pixels).resize(tuple(rng.integers(60, 700, 2).tolist())).save(
            folder / "images" / f"{i}.{'png' if i % 10 == 0 else 'jpg'}"
        )
    return folder


@pytest.fixture
def environment(place, tmp_path, monkeypatch):
    """As `vwsd encode` finds it, with a cache of its own."""
    for name, value in (
        ("VWSD_MODELS", place / "models"),
        ("VWSD_CACHE", tmp_path / "cache"),
        ("CI", "1"),
        ("PYTHONPATH", PACKAGE.parent),
    ):
        monkeypatch.setenv(name, str(value))
    return tmp_path


def rows_of(place, folder=None):
    store = VectorStore(load_pretrained("clip-vit-b32"), folder)
    paths = sorted((place / "images").iterdir())
    digests = store.files.digests
    missing = digests.known(list(digests.look(paths).values())).count(None)
    return store.images(paths), missing


def torchrun(place, processes):
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(processes),
            "-m",
            "vwsd_companion.cli",
            "encode",
            str(place / "images"),
            "--encoder",
            "clip-vit-b32",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_two_processes_of_torchrun_write_what_one_would(place, environment):
    run = torchrun(place, 2)
    said = run.communicate(timeout=120)[0]
    assert (
        run.returncode == 0
        and "process 1 of 2: 45 pictures, 45 of them encoded now" in said
        and "process 2 of 2: 45 pictures" in said
    ), said
    rows, missing = rows_of(place)
    assert missing == 0 and np.array_equal(rows, rows_of(place, environment / "alone")[0])
    assert len(list((environment / "cache" / "vectors").glob("clip-vit-b32-*/*.keys"))) == 2


def test_killed_processes_resume_whoever_goes_on(place, environment):
    last = [
        place / "images" / name for name in ("44z.png", "99z.png")
    ]  # the last of each process's share takes a second to decode
    for path in last:
        Image.new("RGB", (9000, 9000), "navy").save(path)
    run = torchrun(place, 2)
    shards = environment / "cache" / "vectors"
    for _ in range(600):
        if any(p.stat().st_size for p in shards.glob("clip-vit-b32-*/*.keys")):
            break
        time.sleep(0.05)
    family = [
        psutil.Process(run.pid),
        *psutil.Process(run.pid).children(recursive=True),
    ]  # the processes of torchrun would outlive it
    for process in family:
        process.kill()
    psutil.wait_procs(family, timeout=30)
    kept = sum(len(np.fromfile(p, np.uint8)) // 36 for p in shards.glob("clip-vit-b32-*/*.keys"))
    rows, _ = rows_of(place)  # one process goes on
    alone, _ = rows_of(place, environment / "alone")
    for path in last:
        path.unlink()
    assert 0 < kept < 91 and np.array_equal(rows, alone)  # 91: the two navy pictures are one


def test_batches_come_in_order_side_by_side_with_one_thread_each():
    before, seen = torch.get_num_threads(), set()

    def work(i):
        seen.add((threading.get_ident(), torch.get_num_threads()))
        time.sleep(0.01 * (i % 3))
        return i

    assert list(side_by_side(work, range(20), 3)) == list(range(20))
    assert (
        len(seen) == 3
        and {threads for _, threads in seen} == {1}
        and torch.get_num_threads() == before
    )


def test_few_batches_wait_and_a_failure_reaches_the_caller():
    drawn = []

    def batches():
        for i in range(100):
            drawn.append(i)
            yield i

    stream = side_by_side(lambda i: 1 // (5 - i), batches(), 2)
    with pytest.raises(ZeroDivisionError):
        list(stream)
    assert len(drawn) < 12


def test_things_on_demand_are_made_when_asked_for():
    asked = []
    things = OnDemand(lambda i: asked.append(i) or 10 * i, 5)
    assert (
        len(things) == 5
        and asked == []
        and things[1:3] == [10, 20]
        and things[-1] == 40
        and asked == [1, 2, 4]
    )
    assert list(things) == [0, 10, 20, 30, 40]
    with pytest.raises(IndexError):
        things[5]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_freed_memory_is_kept_for_the_next_batch():
    code = """
import resource, torch
from vwsdlib.encoders.streams import keep_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(40):
        [torch.ones(2_000_000) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
torch.set_num_threads(1)
usual = (faults(), faults())[1]
keep_memory(), keep_memory(), faults()
print(usual, faults())
"""
    usual, kept = map(
        int,
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=PACKAGE.parent,
        ).stdout.split(),
    )
    assert kept <= usual / 20  # both may be none, where something holds the top of the heap


def test_cores_are_shared_among_the_processes_of_a_machine(monkeypatch):
    everything = cores()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert cores() == max(1, everything // 2)


def test_rows_of_other_types_and_keys_of_no_row(tmp_path):
    rows, keys = Rows(tmp_path / "r", 3, np.float16), [bytes([i]) * 32 for i in range(5)]
    rows.append(keys[:4], np.arange(12).reshape(4, 3))
    assert rows.missing([*keys, keys[0]]) == keys[4:]
    assert np.array_equal(
        rows.take([keys[2], keys[0], keys[2]]),
        np.array([[6, 7, 8], [0, 1, 2], [6, 7, 8]], np.float16),
    )
    assert rows.take([]).shape == (0, 3)


def test_encode_measures_the_drift_of_a_variant_and_goes_on_where_it_was(
    place, environment, capsys
):
    arguments = [
        "encode",
        str(place / "images"),
        "--encoder",
        "clip-vit-b32@bf16-draft",
        "--drift",
        "8",
        "--json",
    ]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pictures"] == found["encoded"] == 90 and found["drift"]["n"] == 8
    assert (
        0.9 < found["drift"]["lowest_cosine"] <= found["drift"]["mean_cosine"] < 1
        and 1e-4 < found["drift"]["largest_difference"] < 0.5
    )
    assert main(arguments) == 0 and json.loads(capsys.readouterr().out)["encoded"] == 0


def test_encode_names_what_it_cannot_take(environment, capsys):
    (environment / "empty").mkdir()
    (environment / "empty" / "notes.txt").write_text("no picture")
    assert (
        main(["encode", str(environment / "empty"), "--encoder", "clip-vit-b32"]) == 2
        and "there are no pictures" in capsys.readouterr().err
    )
    (environment / "empty" / "a.jpg").write_text("no picture either")
    assert (
        main(["encode", str(environment / "empty"), "--encoder", "clip-vit-b32"]) == 2
        and "a.jpg" in capsys.readouterr().err
    )


class Dying(Square):
    """Ends the process at the seventh picture, as the system does when memory runs out."""

    def __call__(self, image):
        if image.size == (7, 7) and torch.utils.data.get_worker_info():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(image)


def test_a_worker_that_dies_is_told_in_a_sentence(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(1, 13)]
    for i, path in enumerate(paths, 1):
        Image.new("RGB", (i, i)).save(path)
    assert [len(made[0]) for made in squares(paths, Square(8), 2)] == [2] * 6
    with pytest.raises(VwsdError, match="ended early.*run it again"):
        list(squares(paths, Dying(8), 2))


KILLED = """
import sys, time
import numpy as np
from PIL import Image
from vwsdlib.data.pictures import Square
from vwsdlib.encoders.streams import squares
from vwsdlib.encoders import streams
streams.cores = lambda: 2
paths = sys.argv[1:]
for made in squares(paths, Square(700), 1):
    print("one", flush=True)
    time.sleep(600)                       # nobody reads on: the workers wait for a full pipe
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked")
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (50, 50)).save(path)
    run = subprocess.Popen(
        [sys.executable, "-c", KILLED, *[str(path)] * 60],
        stdout=subprocess.PIPE,
        text=True,
        cwd=PACKAGE.parent,
    )
    assert run.stdout.readline() == "one\n"
    workers = psutil.Process(run.pid).children(recursive=True)
    assert len(workers) >= 2
    run.kill()  # the parent alone, as the system does it
    run.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    for process in alive:
        process.kill()
    assert alive == []


@pytest.mark.parametrize(
    "rank, world, said",
    [
        ("x", "2", "RANK is 'x'"),
        ("0", "0", "WORLD_SIZE is '0'"),
        ("-1", "2", "RANK is '-1'"),
        ("2", "2", "counted from 0"),
        ("1", "", "WORLD_SIZE is ''"),
        ("１", "2", "RANK is"),
    ],
)
def test_odd_numbers_of_processes_are_named(
    place, environment, monkeypatch, capsys, rank, world, said
):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    assert (
        main(["encode", str(place / "images"), "--encoder", "random"]) == 2
        and said in capsys.readouterr().err
    )


class Counted:
    """What a worker does with a batch, counted over all workers."""

    def __init__(self):
        self.made = multiprocessing.get_context("fork").Value("i", 0)

    def __getitem__(self, places):
        with self.made.get_lock():
            self.made.value += 1
        return places


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the count is inherited by a fork")
def test_workers_read_ahead_while_the_network_computes_and_not_too_far():
    work, workers = Counted(), cores()
    stream = streams._by_workers(work, range(10 * AHEAD * workers), 1)
    first = next(stream)
    for _ in range(200):  # the network computes: workers go on, up to their bound, and wait there
        if work.made.value > AHEAD * workers:
            break
        time.sleep(0.05)
    time.sleep(0.2)
    assert 1 < work.made.value <= AHEAD * workers + 1
    assert [list(first), *map(list, stream)] == [[i] for i in range(10 * AHEAD * workers)]


@pytest.mark.filterwarnings("ignore:.*pin_memory.*no accelerator")
@pytest.mark.parametrize("room", [1 << 40, 0])
def test_a_card_gets_the_same_pixels_as_tensors_where_shared_memory_has_room(
    place, monkeypatch, room
):
    monkeypatch.setattr(streams, "_shared_memory", lambda: room)
    paths, square = sorted((place / "images").iterdir())[:30], Square(32, 32)
    plain, there = list(squares(paths, square, 8)), list(squares(paths, square, 8, device="cuda:0"))
    assert [hashes for hashes, _ in plain] == [hashes for hashes, _ in there]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(plain, there, strict=True))
    assert {type(made) for _, made in there} == {torch.Tensor if room else np.ndarray}
    assert {made.is_pinned() for _, made in there if room} <= {torch.cuda.is_available()}


def test_only_for_cuda_memory_is_pinned(place, monkeypatch):
    asked = []
    monkeypatch.setattr(streams, "_by_workers", lambda *_, **how: asked.append(how) or [])
    for device in ("cpu", "mps", "cuda:1"):
        list(squares([], Square(32, 32), 8, device=device))
    assert [how["pin_memory"] for how in asked] == [False, False, True]


def test_a_tensor_is_encoded_as_the_array_is(place, environment):
    encoder = load_pretrained("clip-vit-b32")
    array = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    tensor = torch.from_numpy(array)
    assert np.array_equal(encoder.encode_prepared(array), encoder.encode_prepared(tensor))
