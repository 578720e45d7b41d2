"""Archives and hosts that are not what they should be: one sentence each, nothing outside the
folder, nothing filled.
"""

import errno
import io
import os
import resource
import struct
import tarfile
import urllib.error
import zipfile
from email.message import Message

import pytest

from vwsd_companion import cli
from vwsdlib.data import fetch
from vwsdlib.errors import VwsdError

NAME = "trial.data.txt"


@pytest.fixture
def given(tmp_path, monkeypatch, own_folders):
    """A folder to give with --from; the data folder is tmp_path/data."""
    monkeypatch.setenv("VWSD_DATA", str(tmp_path / "data"))
    (tmp_path / "given").mkdir()
    return tmp_path / "given"


def vwsd_fetch(capsys, given):
    code = cli.main(["fetch", "vwsd", "--split", "trial", "--from", str(given)])
    out, err = capsys.readouterr()
    assert "Traceback" not in err and not (given.parent / "outside").exists()
    return code, out, err


def a_zip(members, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def a_tar(members, mode="w:gz"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, kind, data in members:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, len(data), "/etc/passwd"
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


WHOLE = a_zip([(NAME, b"x" * 50_000)], zipfile.ZIP_STORED)


@pytest.mark.parametrize(
    "name, data, words",
    [
        ("a.zip", b"", "empty file"),
        ("a.tar", b"", "empty file"),
        ("a.zip", b"\n <!DOCTYPE html><html>", "web page"),
        ("a.tar.gz", b"<html>", "web page"),
        ("a.zip", b"PK\x05\x06" + b"\0" * 18, None),
        ("a.zip", WHOLE[:-30], "damaged"),
        ("a.zip", WHOLE[:200] + b"\0" + WHOLE[201:], "damaged"),
        ("a.zip", b"\x89PNG\r\n\x1a\n" * 100, "damaged"),
        ("a.tar", b"\0" * 100, "damaged"),
        ("a.tar.gz", b"\x1f\x8b" + b"\xff" * 100, "damaged"),
        ("a.tgz", a_tar([(NAME, tarfile.REGTYPE, os.urandom(50_000))])[:-9000], "damaged"),
        (
            "a.zip",
            WHOLE.replace(
                b"\x00\x00\x00\x00" + struct.pack("<H", 0),
                b"\x00\x00\x01\x00" + struct.pack("<H", 0),
                1,
            ),
            None,
        ),
    ],
    ids=range(12),
)
def test_a_damaged_archive_is_one_sentence(name, data, words, given, capsys):
    (given / name).write_bytes(data)
    code, _out, err = vwsd_fetch(capsys, given)
    if words:
        assert code == 2 and words in err and name in err and err.count("\n") == 1
    else:
        assert code in (1, 2)


def test_an_archive_is_read_by_its_content_whatever_it_is_called(given):
    for name, data in (
        ("a.zip", a_tar([("x/all_images/image.1.jpg", tarfile.REGTYPE, b"1")])),
        ("b.tar.gz", a_zip([("x/all_images/image.2.jpg", b"2")])),
        ("c.tar", a_tar([("x/all_images/image.3.jpg", tarfile.REGTYPE, b"3")], "w:xz")),
    ):
        (given / name).write_bytes(data)
    found = fetch._files(given, lambda path: path.suffix == ".jpg")
    assert [(path.name, data) for path, data in found] == [
        ("image.1.jpg", b"1"),
        ("image.2.jpg", b"2"),
        ("image.3.jpg", b"3"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        f"../outside/{NAME}",
        f"/outside/{NAME}",
        f"a/../../outside/{NAME}",
        f"..\\outside\\{NAME}",
        f"{NAME}/../../outside",
    ],
)
def test_names_that_lead_elsewhere_lead_nowhere(name, given, capsys):
    (given / "a.zip").write_bytes(a_zip([(name, b"x")]))
    (given / "b.tar").write_bytes(a_tar([(name, tarfile.REGTYPE, b"x")], "w"))
    assert vwsd_fetch(capsys, given)[0] == 1
    assert {path.name for path in given.parent.iterdir()} <= {"given", "data", "cache", "results"}
    assert not [
        path
        for path in given.parent.rglob("*")
        if path.is_file() and given not in path.parents and path.suffix == ".txt"
    ]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
)
def test_members_that_are_no_files_are_passed_by(kind, given, capsys):
    (given / "a.tar").write_bytes(
        a_tar([(NAME, kind, b""), ("all_images/image.1.jpg", kind, b"")], "w")
    )
    code, out, _ = vwsd_fetch(capsys, given)
    assert code == 1 and f"[MISSING] {NAME}" in out


@pytest.mark.parametrize("pack", ["zip", "tar"])
def test_a_bomb_is_refused_before_it_is_unpacked(pack, given, capsys):
    size = fetch.MOST_OF_A_FILE + 1
    if pack == "zip":
        with (
            zipfile.ZipFile(given / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open(NAME, "w") as f,
        ):
            for _ in range(size // (1 << 20) + 1):
                f.write(b"\0" * (1 << 20))
    else:
        member = tarfile.TarInfo(NAME)
        member.size = size
        (given / "a.tar").write_bytes(member.tobuf() + b"\0" * 10_240)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code, _, err = vwsd_fetch(capsys, given)
    assert (
        code == 2
        and "unpacks to" in err
        and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    )  # kB


class Answer(io.BytesIO):
    """What urlopen returns."""

    def __init__(self, body=b"", status=200, **headers):
        super().__init__(body)
        self.status, self.headers = status, Message()
        for name, value in headers.items():
            self.headers[name.replace("_", "-")] = value


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda: Answer(b"PK" + b"x" * 10, Content_Length="many"), "announces 'many' bytes"),
        (lambda: Answer(b"PK", Content_Length="-5"), "announces '-5' bytes"),
        (lambda: Answer(b"PK12", Content_Length="100"), "4 of 100 bytes came"),
        (lambda: Answer(b"", Content_Length="0"), "a page instead of an archive"),
        (lambda: Answer(b"<html>"), "a page instead of an archive"),
    ],
)
def test_a_host_that_answers_oddly_is_named(answer, words, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "PAUSE", 0)
    monkeypatch.setattr(fetch.urllib.request, "urlopen", lambda *_, **__: answer())
    with pytest.raises(VwsdError) as refused:
        fetch.download("https://host/a.zip", tmp_path / "a.zip")
    assert words in str(refused.value) and not (tmp_path / "a.zip").exists()


@pytest.mark.parametrize(
    "fault",
    [
        ConnectionResetError(errno.ECONNRESET, "reset"),
        BrokenPipeError(errno.EPIPE, "pipe"),
        TimeoutError("slow"),
        urllib.error.HTTPError(
            "https://host", 302, "would lead to an infinite loop", Message(), None
        ),
    ],
)
def test_connections_that_drop_are_tried_again_and_named(fault, tmp_path, monkeypatch):
    tries = []

    def urlopen(*_, **__):
        tries.append(1)
        raise fault

    monkeypatch.setattr(fetch, "PAUSE", 0)
    monkeypatch.setattr(fetch.urllib.request, "urlopen", urlopen)
    with pytest.raises(VwsdError, match="failed 4 times"):
        fetch.download("https://host/a.zip", tmp_path / "a.zip")
    assert len(tries) == fetch.TRIES


def test_a_download_without_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "MOST_OF_A_DOWNLOAD", 1 << 20)
    monkeypatch.setattr(
        fetch.urllib.request, "urlopen", lambda *_, **__: Answer(b"PK" + b"\0" * (5 << 20))
    )
    with pytest.raises(VwsdError, match="no published archive"):
        fetch.download("https://host/a.zip", tmp_path / "a.zip")


def test_a_full_disk_says_so_at_once(tmp_path, monkeypatch):
    class Full(Answer):
        def read(self, *_):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch.urllib.request, "urlopen", lambda *_, **__: Full())
    with pytest.raises(VwsdError, match="cannot write the download: No space left"):
        fetch.download("https://host/a.zip", tmp_path / "a.zip")
