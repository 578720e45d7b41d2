"""What the doctor says of folders and disks: tried, each for itself, with a remedy, and nothing
left behind.
"""

import errno
import json

import pytest

from vwsd_companion import cli, doctor
from vwsdlib import disk
from vwsdlib.errors import VwsdError

VARIABLES = {
    "write_results": "VWSD_RESULTS",
    "write_cache": "VWSD_CACHE",
    "write_data": "VWSD_DATA",
    "write_hub": "HF_HOME",
    "write_temporary": "TMPDIR",
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Every folder in a place of its own."""
    for variable in VARIABLES.values():
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setattr(disk.tempfile, "gettempdir", lambda: str(tmp_path / "TMPDIR"))
    (tmp_path / "TMPDIR").mkdir()
    return tmp_path


def looked(capsys):
    code = cli.main(["doctor", "--json"])
    return code, {row["check"]: row for row in json.loads(capsys.readouterr().out)}


def test_each_folder_is_tried_and_nothing_is_left(own, capsys):
    _, found = looked(capsys)
    assert {name: found[name]["state"] for name in VARIABLES} == dict.fromkeys(VARIABLES, "OK")
    assert all(
        str(own / variable) in found[name]["what"] and "GB free" in found[name]["what"]
        for name, variable in VARIABLES.items()
    )
    assert [path.name for path in own.rglob("*")] == [
        "TMPDIR"
    ]  # not even the folders that are not there yet


@pytest.mark.parametrize("name", list(VARIABLES))
def test_one_that_cannot_be_written_fails_with_its_remedy(name, own, capsys):
    target = own / VARIABLES[name]
    if target.exists():
        target.rmdir()
    target.write_text("a file in the folder's place")
    code, found = looked(capsys)
    assert code == 1 and [other for other in VARIABLES if found[other]["state"] == "FAIL"] == [name]
    assert (
        "cannot be written" in found[name]["what"]
        and f"{VARIABLES[name]}=FOLDER" in found[name]["remedy"]
    )


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_read_only_or_full_disk_is_found_by_trying(number, own, monkeypatch, capsys):
    def refused(*_, **__):
        raise OSError(number, "refused")

    monkeypatch.setattr(disk.os, "fsync", refused)
    _, found = looked(capsys)
    assert {found[name]["state"] for name in VARIABLES} == {"FAIL"} and "refused" in found[
        "write_cache"
    ]["what"]
    assert [path.name for path in own.rglob("*")] == ["TMPDIR"]


def test_the_disk_of_each_folder_is_measured(own, monkeypatch, capsys):
    monkeypatch.setattr(
        doctor, "free_gb", lambda folder: 0.1 if "VWSD_DATA" in str(folder) else 50.0
    )
    code, found = looked(capsys)
    assert (
        code == 1
        and found["write_data"]["state"] == "FAIL"
        and "0.1 GB" in found["write_data"]["what"]
        and "VWSD_DATA=FOLDER" in found["write_data"]["remedy"]
    )
    assert (
        found["disk"]["state"] == "FAIL"
        and found["write_results"]["state"] == found["write_cache"]["state"] == "OK"
    )


def test_a_folder_that_is_not_there_is_tried_above(tmp_path):
    disk.try_writing(tmp_path / "a" / "b", "sets", "x")
    assert disk.nearest(tmp_path / "a" / "b") == tmp_path and not list(tmp_path.iterdir())
    with pytest.raises(VwsdError, match="sets cannot be written"):
        (tmp_path / "file").write_text("")
        disk.try_writing(tmp_path / "file" / "below", "sets", "x")


def test_the_lock_is_read_with_hashes_and_markers(own, monkeypatch, capsys):
    import numpy

    monkeypatch.setenv("VWSD_HOME", str(own))
    sound = (
        f"# a comment\nnumpy=={numpy.__version__} \\\n    --hash=sha256:00 \\\n   "
        " --hash=sha256:11\nnumpy==1.0 ; python_version < '3' \\\n   "
        " --hash=sha256:22\nnot-installed==1 \\\n    --hash=sha256:33\n"
    )
    (own / "requirements.lock").write_text(sound)
    assert doctor.locked() == "1 packages as in requirements.lock"
    (own / "requirements.lock").write_text(
        sound.replace(f"numpy=={numpy.__version__}", "numpy==1.2.3")
    )
    with pytest.raises(VwsdError, match=r"numpy .* \(lock: 1\.2\.3\)"):
        doctor.locked()
