"""Whatever goes wrong ends in one sentence and the right exit code; the log of a fault of ours
holds its traceback and no key.
"""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vwsd_companion import cli
from vwsd_companion.cli import last_resort

KEY = "Zebra-Crossing-9"


@pytest.fixture
def broken(monkeypatch, own_folders):
    """`vwsd status` raises what the test wants; returns the call."""

    def call(capsys, fault, *flags):
        def status(options):
            raise fault

        monkeypatch.setitem(cli.COMMANDS, "status", status)
        status.__doc__ = "x\n\nExample:\n  vwsd status"
        code = cli.main(["status", *flags])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def logs(folder):
    return sorted((folder / "cache" / "logs").glob("fault-*.log"))


def test_a_fault_of_ours_is_one_sentence_with_a_log_and_exit_code_3(broken, own_folders, capsys):
    code, out, err = broken(capsys, KeyError("surprise"))
    [log] = logs(own_folders)
    assert (
        code == 3
        and out == ""
        and err.count("\n") == 1
        and "KeyError: 'surprise'" in err
        and str(log) in err
    )
    text = log.read_text()
    assert (
        text.startswith("command: vwsd status\nversions: vwsdlib ")
        and "Traceback" in text
        and "KeyError" in text
    )


def test_debug_shows_the_traceback_as_well(broken, own_folders, capsys):
    code, _, err = broken(capsys, KeyError("surprise"), "--debug")
    assert code == 3 and "Traceback" in err and len(logs(own_folders)) == 1


@pytest.mark.parametrize(
    "fault, words",
    [
        (MemoryError(), "memory"),
        (RecursionError("deep"), "nested too deeply"),
        (AssertionError(), "AssertionError"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_faults_without_words_of_their_own(fault, words, broken, capsys):
    code, _, err = broken(capsys, fault)
    assert code == 3 and words in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "number",
    [
        errno.EACCES,
        errno.ELOOP,
        errno.ENOTDIR,
        errno.EROFS,
        errno.ENOSPC,
        errno.ENAMETOOLONG,
        errno.EMFILE,
    ],
)
def test_an_os_error_that_names_its_file_is_bad_input(number, broken, own_folders, capsys):
    code, _, err = broken(capsys, OSError(number, os.strerror(number), "some/file"))
    assert (
        code == 2
        and "[some/file]" in err
        and last_resort.OS_FAULTS[number][0] in err
        and err.count("\n") == 1
    )
    assert not logs(own_folders)


def test_a_full_disk_needs_no_file_name_and_a_broken_connection_is_no_closed_pipe(
    broken, own_folders, capsys
):
    assert broken(capsys, OSError(errno.ENOSPC, "No space left on device"))[0] == 2
    assert (
        broken(capsys, BrokenPipeError(errno.EPIPE, "Broken pipe"))[0] == 3
    )  # of a socket: stdout is well
    assert len(logs(own_folders)) == 1


def test_a_name_that_is_not_utf8_is_bad_input(broken, capsys):
    with pytest.raises(UnicodeEncodeError) as caught:
        "a\udcff.png".encode()
    code, _, err = broken(capsys, caught.value)
    assert code == 2 and r"a\udcff.png" in err and "Rename" in err


def test_a_user_without_a_home_is_told_so(broken, capsys):
    with pytest.raises(RuntimeError) as caught:
        Path("~nobody-of-this-name/x").expanduser()
    code, _, err = broken(capsys, caught.value)
    assert code == 2 and "Set HOME" in err


SECRET = (
    "sk-abcdefgh12345678",
    "hf_abcdefgh12345678",
    "ghp_abcdefgh12345678",
    "0123456789abcdef0123456789abcdef",
    "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7aB3dE6gH9",
)


@pytest.mark.parametrize(
    "text",
    [f"key {s}" for s in SECRET]
    + [
        f"VWSD_CHAT_KEY={SECRET[0]}",
        f"{{'api_key': '{KEY}x'}}",
        f"Authorization: Bearer {KEY}x",
        f"https://user:{KEY}x@host/",
        f"https://host/?token={KEY}x",
    ],
)
def test_no_log_and_no_sentence_holds_a_key(text, broken, own_folders, capsys, monkeypatch):
    code, _, err = broken(capsys, ValueError(text))
    [log] = logs(own_folders)
    assert code == 3 and last_resort.REMOVED in err
    for secret in (*SECRET, KEY):
        assert secret not in err and secret not in log.read_text()


def test_the_chat_key_is_never_written_whatever_it_looks_like(
    broken, own_folders, capsys, monkeypatch
):
    monkeypatch.setenv("VWSD_CHAT_KEY", "plain")
    _, _, err = broken(capsys, ValueError("sent plain to the host"))
    [log] = logs(own_folders)
    assert "plain" not in err and "plain" not in log.read_text().replace("plainly", "")


def test_names_of_files_stay_readable_in_a_log():
    line = (
        "results/demo/predictions/clip-vit-b16-352-squash-bilinear.phrase.en.test.jsonl line 12:"
        " KeyError: 'candidate'"
    )
    assert last_resort.without_secrets(line) == line


def test_twenty_logs_are_kept(broken, own_folders, capsys):
    for number in range(23):
        broken(capsys, ValueError(f"fault {number}"))
    assert len(logs(own_folders)) == last_resort.LOGS_KEPT


def test_without_a_cache_the_log_goes_to_the_temporary_folder_and_without_both_to_nobody(
    broken, own_folders, capsys, monkeypatch
):
    (own_folders / "cache").write_text("a file")
    temporary = own_folders / "temporary"
    monkeypatch.setattr(last_resort.tempfile, "gettempdir", lambda: str(temporary))
    code, _, err = broken(capsys, ValueError("x"))
    assert code == 3 and str(temporary) in err and len(list(temporary.rglob("fault-*.log"))) == 1
    monkeypatch.setattr(last_resort.tempfile, "gettempdir", lambda: str(own_folders / "cache"))
    code, _, err = broken(capsys, ValueError("x"))
    assert code == 3 and "--debug" in err and "ValueError: x" in err


# ---------------------------------------------------------------- streams, as a shell gives them


def shell(line, folder, **environment):
    return subprocess.run(
        ["sh", "-c", line.replace("vwsd", f"{sys.executable} -m vwsd_companion.cli")],
        capture_output=True,
        timeout=120,
        env={
            **os.environ,
            "VWSD_CACHE": str(folder / "cache"),
            "VWSD_RESULTS": str(folder / "results"),
            **environment,
        },
    )


@pytest.mark.parametrize("line", ["vwsd --help", "vwsd score --help"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_stdout_that_takes_nothing_is_said(line, unbuffered, tmp_path):
    for target in (">/dev/full", ">&-"):
        done = shell(f"{line} {target}", tmp_path, PYTHONUNBUFFERED=unbuffered)
        assert (
            done.returncode == 2
            and b"standard output" in done.stderr
            and done.stderr.count(b"\n") == 1
        ), done.stderr


def test_a_closed_stderr_leaves_stdout_alone(tmp_path):
    done = shell("vwsd score --data none --gold none none 2>&-", tmp_path)
    assert done.returncode == 2 and done.stdout == b""


def test_a_reader_that_goes_away_is_no_fault(tmp_path):
    done = shell("{ vwsd --help; echo $? >&2; } | true", tmp_path)
    assert done.stderr.split() == [b"0"]


def test_letters_that_the_terminal_lacks(capsys, official, tmp_path):
    data, gold, _ = official
    name = tmp_path / "گربه🐈é.tsv"
    name.write_text(
        "".join("\t".join(line.split("\t")[2:]) + "\n" for line in data.read_text().splitlines())
    )
    for encoding in ("ascii", "latin-1"):
        for flag in ("--json", ""):
            done = shell(
                f"vwsd score --data {data} --gold {gold} '{name}' {flag}",
                tmp_path,
                PYTHONIOENCODING=encoding,
            )
            assert done.returncode == 0, done.stderr
            assert not flag or json.loads(done.stdout.decode(encoding))["systems"][0][
                "file"
            ] == str(name)


def test_a_command_line_that_is_not_utf8(tmp_path):
    command = [
        sys.executable.encode(),
        b"-m",
        b"vwsd_companion.cli",
        b"score",
        b"--data",
        b"\xff.txt",
        b"--gold",
        b"\xfe",
        b"\xfd",
    ]
    done = subprocess.run(
        command, capture_output=True, env={**os.environ, "VWSD_CACHE": str(tmp_path)}
    )
    assert done.returncode == 2 and rb"\udcff.txt" in done.stderr and done.stderr.count(b"\n") == 1


# under nohup or in a script's background signals are ignored, and a child inherits that
SLEEPER = """
import signal, sys, time
from pathlib import Path
from vwsd_companion import cli
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
def status(o):
    "x\\n\\nExample:\\n  vwsd status"
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        Path(sys.argv[1]).write_text("tidied")
cli.COMMANDS["status"] = status
sys.exit(cli.main(["status"]))
"""


@pytest.mark.parametrize(
    "number, code", [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_a_signal_tidies_up_and_says_so(number, code, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, tmp_path / "mark"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert (
        process.returncode == code
        and "what was finished is kept" in err
        and "Traceback" not in err
        and (tmp_path / "mark").read_text() == "tidied"
    )


def test_an_own_handler_of_signals_is_left_alone(broken, capsys):
    before = signal.getsignal(signal.SIGTERM)
    broken(capsys, ValueError("x"))
    assert signal.getsignal(signal.SIGTERM) is before
