"""Files are written whole or not at all, and a full disk is one sentence."""

import errno
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    script = (
        f"import os, vwsdlib.paths as p\nwith p.atomic({str(tmp_path / 'x.txt')!r}) as t:\n"
        " t.write_text('half'); os.kill(os.getpid(), 9)"
    )
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
    assert paths.data_dir() == tmp_path / "data"
    assert paths.run_dir("demo") == tmp_path / "runs" / "demo"
    assert paths.reference_dir("demo") == tmp_path / "results" / "demo"
    monkeypatch.setenv("VWSD_RESULTS", str(tmp_path / "r"))
    assert paths.run_dir("demo") == tmp_path / "r" / "demo"
    assert paths.reference_dir("demo") == tmp_path / "results" / "demo"


def test_who_reads_results_gets_the_run_where_there_is_one_else_the_reference(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("VWSD_HOME", str(tmp_path))
    monkeypatch.delenv("VWSD_RESULTS", raising=False)
    run, reference = tmp_path / "runs" / "demo", tmp_path / "results" / "demo"
    assert paths.results_dir("demo") == run  # nothing is anywhere: what a run would write
    reference.mkdir(parents=True)
    (run / ".stamps").mkdir(parents=True)
    (run / ".stamps" / "01_data.failed.json").write_text("{}")  # a run that came to nothing
    assert paths.results_dir("demo") == reference
    (run / "predictions").mkdir()
    (run / "predictions" / "a.jsonl").write_text("")
    assert paths.results_dir("demo") == run
    monkeypatch.setenv("VWSD_RESULTS", str(tmp_path / "none"))
    assert paths.results_dir("demo") == tmp_path / "none" / "demo"
    assert paths.shown(run) == "runs/demo" and paths.shown(Path("/x/y")) == "/x/y"


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "/x",
        "\\\\host\\x",
        "C:x",
        "c:\\x",
        ".hidden",
        "a\0b",
        "a\nb",
        "a\x1bb",
        "\ud800",
        "é" * 101,
        None,
        3,
        ["x"],
    ],
)
def test_what_is_no_plain_name_becomes_no_path(name):
    with pytest.raises(VwsdError, match="no file is named after it.*separators"):
        paths.safe_name(name, "run")


@pytest.mark.parametrize(
    "name",
    [
        "lite.phrase.en.test",
        "lite@bf16",
        "خفاش",
        "a b",
        "x" * 200,
        "a..b",
        "50%",
        "my [v1]",
        "ab:c",
    ],
)
def test_a_plain_name_of_any_language_stays(name):
    assert paths.safe_name(name) == name


@settings(deadline=None, derandomize=True)
@given(st.text(max_size=30))
def test_a_name_that_passes_stays_in_its_folder(name):
    try:
        paths.safe_name(name)
    except VwsdError:
        return
    folder = os.path.abspath("folder")
    assert os.path.dirname(os.path.abspath(os.path.join(folder, name))) == folder


@pytest.mark.parametrize("profile", ["../../x", "/etc", "..", "a\0b"])
def test_a_profile_is_a_plain_name(profile, capsys):
    from vwsd_companion import cli

    with pytest.raises(VwsdError, match="no file is named after it"):
        paths.results_dir(profile)
    assert (
        cli.main(["report", "--profile", profile]) == 2
        and "no file is named after it" in capsys.readouterr().err
    )


# ---------------------------------------------------------------- modes, links, special files


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_a_new_file_has_the_mode_that_the_umask_leaves_and_an_old_one_its_own(tmp_path, mask):
    before = os.umask(mask)
    try:
        path = paths.write_text(tmp_path / "x.txt", "one")
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask
        path.chmod(0o640)
        paths.write_text(path, "two")
        assert path.stat().st_mode & 0o777 == 0o640 and path.read_text() == "two"
    finally:
        os.umask(before)


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "real").mkdir()
    target = paths.write_text(tmp_path / "real" / "x.txt", "before")
    link, dangling = tmp_path / "link.txt", tmp_path / "dangling.txt"
    link.symlink_to(target)
    dangling.symlink_to(tmp_path / "new" / "y.txt")
    paths.write_text(link, "after")
    paths.write_text(dangling, "new")
    assert (
        link.is_symlink()
        and target.read_text() == "after"
        and dangling.is_symlink()
        and (tmp_path / "new" / "y.txt").read_text() == "new"
    )
    assert os.listdir(tmp_path / "real") == ["x.txt"] and os.listdir(tmp_path / "new") == ["y.txt"]


def test_devices_pipes_sockets_and_folders_are_no_outputs(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    (tmp_path / "folder").mkdir()
    null = os.stat("/dev/null")
    for path, kind in (
        ("/dev/null", "a device"),
        ("/dev/stdout", "a stream"),
        ("/dev/fd/1", "a stream"),
        (tmp_path / "pipe", "a pipe"),
        (tmp_path / "socket", "a socket"),
        (tmp_path / "folder", "a folder"),
    ):
        with pytest.raises(VwsdError, match=f"the output is {kind}, not a file"):
            paths.write_text(path, "x")
    server.close()
    assert os.stat("/dev/null").st_rdev == null.st_rdev and sorted(os.listdir(tmp_path)) == [
        "folder",
        "pipe",
        "socket",
    ]


def test_each_reason_has_its_own_remedy(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    for path, words in (
        (tmp_path / "file" / "x", "A file stands where a folder is needed"),
        (tmp_path / ("x" * 254), "shorter name"),
        (tmp_path / "loop", "leads back to itself"),
        (tmp_path / "loop" / "x", "leads back|A file stands"),
    ):
        with pytest.raises(VwsdError, match=words):
            paths.write_text(path, "x")
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]


def test_a_read_only_folder_is_one_sentence(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(VwsdError, match="Permission denied.*permissions"):
        paths.write_text(tmp_path / "locked" / "x", "x")


# ---------------------------------------------------------------- what killed writers leave

KILLED = """
import os, sys, vwsdlib.paths as p
with p.atomic(sys.argv[1]) as t:
    t.write_text("half")
    print(t, flush=True)
    os.kill(os.getpid(), 9)
"""
HOLDING = KILLED.replace("os.kill(os.getpid(), 9)", "sys.stdin.read()")


def python(code, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=paths.PACKAGE.parent,
        text=True,
        **options,
    )


def test_the_next_writer_removes_what_killed_ones_left(tmp_path):
    path = paths.write_text(tmp_path / "x.txt", "before")
    for _ in range(3):
        assert python(KILLED, path, stdout=subprocess.DEVNULL).wait() == -9
        assert len(os.listdir(tmp_path)) == 2
    assert path.read_text() == "before"
    paths.write_text(path, "after")
    assert os.listdir(tmp_path) == ["x.txt"] and path.read_text() == "after"


def test_what_a_living_writer_holds_is_left_alone(tmp_path):
    path = paths.write_text(tmp_path / "x.txt", "before")
    living = [
        python(HOLDING, path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(3)
    ]
    held = {process.stdout.readline().strip() for process in living}
    living[1].kill()
    living[1].wait()
    paths.write_text(path, "mine")
    assert (
        path.read_text() == "mine" and len(held) == 3 and len(os.listdir(tmp_path)) == 3
    )  # the file, and what two hold
    for process in (living[0], living[2]):
        process.communicate("")
        assert process.returncode == 0
    assert os.listdir(tmp_path) == ["x.txt"] and path.read_text() == "half"


def test_two_threads_write_one_file(tmp_path):
    path, texts = tmp_path / "x.txt", [str(n) * 1000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: paths.write_text(path, text), texts * 10))
    assert path.read_text() in texts and os.listdir(tmp_path) == ["x.txt"]


def test_a_planted_link_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".x.txt.0.tmp").symlink_to(victim)
    paths.write_text(tmp_path / "x.txt", "new")
    assert victim.read_text() == "precious" and (tmp_path / "x.txt").read_text() == "new"


# ---------------------------------------------------------------- folders that take another's place

MARK = ".mark"
STAGED = """
import os, sys, vwsdlib.paths as p
from pathlib import Path
with p.staging_folder(sys.argv[1], ".mark") as new:
    (new / "half").write_text("half")
    if sys.argv[2] == "inside":
        os.kill(os.getpid(), 9)
    usual = Path.rename
    def rename(self, target):
        if self.name == "new":
            os.kill(os.getpid(), 9)      # the former one has just been moved away
        return usual(self, target)
    Path.rename = rename
"""


def folder_of(target, text="whole"):
    with paths.staging_folder(target, MARK) as new:
        (new / "x").write_text(text)


def test_a_folder_takes_the_place_of_its_former_one(tmp_path):
    for text in ("one", "two"):
        folder_of(tmp_path / "out", text)
        assert (tmp_path / "out" / "x").read_text() == text and os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("moment", ["inside", "between"])
def test_a_kill_leaves_the_former_folder_and_the_next_run_nothing_else(tmp_path, moment):
    target = tmp_path / "out"
    folder_of(target, "former")
    for _ in range(2):
        assert python(STAGED, target, moment).wait() == -9
        with pytest.raises(ZeroDivisionError), paths.staging_folder(target, MARK):
            1 / 0  # even where the next run fails
        assert (target / "x").read_text() == "former" and os.listdir(tmp_path) == ["out"]


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis").write_text("x")
    with pytest.raises(VwsdError, match="left alone.*--out"):
        folder_of(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"] and os.listdir(tmp_path / "out") == ["thesis"]


def test_a_scratch_folder_goes_and_so_do_those_of_killed_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(paths.tempfile, "tempdir", str(tmp_path))
    code = (
        f"import os, tempfile; tempfile.tempdir = {str(tmp_path)!r}; import vwsdlib.paths as"
        " p\nwith p.scratch_folder('check') as f:\n (f / 'x').write_text('x');"
        " os.kill(os.getpid(), 9)"
    )
    assert python(code).wait() == -9 and len(os.listdir(tmp_path)) == 1
    with paths.scratch_folder("check") as folder:
        assert os.listdir(folder) == [] and len(os.listdir(tmp_path)) == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc, which makes no folder")
def test_where_no_folder_can_be_made_it_is_said_at_once():
    with (
        pytest.raises(VwsdError, match="cannot write the site"),
        paths.staging_folder("/proc/none", MARK, "site"),
    ):
        raise AssertionError("nothing can be written there")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte; skips with the reason where none may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk_keeps_what_was_there(small_disk):
    path = paths.write_bytes(small_disk / "x", b"before" * 100_000)
    with pytest.raises(VwsdError, match="No space left on device.*Free some space"):
        paths.write_bytes(path, b"after" * 200_000)
    folder_of(small_disk / "out", "former")
    with (
        pytest.raises(VwsdError, match="No space left on device"),
        paths.staging_folder(small_disk / "out", MARK) as new,
    ):
        (new / "x").write_bytes(b"after" * 200_000)
    assert (
        path.read_bytes() == b"before" * 100_000
        and (small_disk / "out" / "x").read_text() == "former"
    )
    assert sorted(os.listdir(small_disk)) == ["out", "x"]


def test_a_read_only_file_system_is_one_sentence(small_disk):
    path = paths.write_text(small_disk / "x", "before")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(VwsdError, match="Read-only file system.*read-only"):
        paths.write_text(path, "after")
    with pytest.raises(VwsdError, match="Read-only file system"):
        folder_of(small_disk / "out")
    assert path.read_text() == "before" and os.listdir(small_disk) == ["x"]
