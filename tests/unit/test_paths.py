"""Files are written whole or not at all, and a full disk is one sentence."""

import errno
import os
import subprocess
import sys

import pytest

from vwsdlib import paths
from vwsdlib.errors import VwsdError


def test_written_whole(tmp_path):
    path = paths.write_text(tmp_path / "deep" / "x.txt", "naïve\n")
    assert path.read_bytes() == "naïve\n".encode() and os.listdir(path.parent) == ["x.txt"]


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_full_disk_loses_nothing_and_says_what_to_do(tmp_path, monkeypatch, call):
    def full(*arguments, **named):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = paths.write_text(tmp_path / "x.txt", "before")
    if call == "write":
        monkeypatch.setattr(paths.Path, "write_bytes", full)
    else:
        monkeypatch.setattr(paths.os, call, full)
    with pytest.raises(VwsdError, match="No space left.*x.txt.*Free some space"):
        paths.write_text(path, "after")
    monkeypatch.undo()
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["x.txt"]


def test_an_error_inside_leaves_no_litter(tmp_path):
    with pytest.raises(ZeroDivisionError), paths.atomic(tmp_path / "x.txt") as temporary:
        temporary.write_text("half")
        1 / 0
    assert os.listdir(tmp_path) == []


def test_a_kill_while_writing_leaves_the_old_file(tmp_path):
    paths.write_text(tmp_path / "x.txt", "before")
    script = f"import os, vwsdlib.paths as p\nwith p.atomic({str(tmp_path / 'x.txt')!r}) as t:\n t.write_text('half'); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", script], cwd=paths.PACKAGE.parent).returncode == -9
    assert (tmp_path / "x.txt").read_text() == "before"


def test_errors_pickle_and_print_as_one_sentence_each():
    import pickle

    e = VwsdError("it broke.", where="a:1", remedy="Mend it.")
    assert str(pickle.loads(pickle.dumps(e))) == str(e) == "it broke [a:1]. Mend it."


def test_folders_can_be_moved_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("VWSD_HOME", str(tmp_path))
    for name in ("VWSD_DATA", "VWSD_CACHE", "VWSD_RESULTS"):
        monkeypatch.delenv(name, raising=False)
    assert paths.data_dir() == tmp_path / "data" and paths.results_dir("demo") == tmp_path / "results" / "demo"
    monkeypatch.setenv("VWSD_RESULTS", str(tmp_path / "r"))
    assert paths.results_dir("demo") == tmp_path / "r" / "demo"
