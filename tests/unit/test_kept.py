"""What is made once: by one process, whole, and again where it was damaged."""

import multiprocessing
import os
import time

import pytest

from vwsdlib.kept import digest, kept, made_once


def read(path):
    text = path.read_text()
    if not text.endswith("."):
        raise ValueError("cut off")
    return text


def make_slowly(path):
    time.sleep(0.5)
    return f"made by {os.getpid()}."


def ask(path, answers):
    answers.put(kept(path, read, lambda: make_slowly(path), lambda text, to: to.write_text(text)))


def test_it_is_made_once_and_again_where_it_is_damaged(tmp_path):
    path, made = tmp_path / "new" / "x.txt", []

    def get():
        return kept(path, read, lambda: made.append(1) or "whole.", lambda v, p: p.write_text(v))

    assert get() == get() == "whole." and len(made) == 1
    path.write_text("who")
    assert get() == "whole." and len(made) == 2
    with pytest.raises(KeyError):  # no damage that was named
        kept(path, {}.__getitem__, get, print)


def test_a_failed_make_leaves_nothing(tmp_path):
    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        kept(tmp_path / "x.txt", read, fail, print)
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt.lock"]


def test_a_second_process_waits_and_reads_what_the_first_wrote(tmp_path):
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    workers = [context.Process(target=ask, args=(tmp_path / "x.txt", answers)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert answers.get(timeout=120) == answers.get(timeout=120)
    for worker in workers:
        worker.join()


def test_what_is_more_than_one_file_is_made_unless_it_is_whole(tmp_path):
    record, made = tmp_path / "set" / "record", []

    def make():
        made.append(1)
        record.write_text("whole")

    for _ in range(2):
        made_once(record.exists, make, tmp_path / "set" / ".lock")
    assert len(made) == 1
    record.unlink()
    made_once(record.exists, make, tmp_path / "set" / ".lock")
    assert len(made) == 2


def test_a_digest_depends_on_values_and_not_on_their_order():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})
