"""Where checkpoints are looked for, what happens without network, and that other bytes under the
same name are refused.
"""

import json
import os
import shutil
import socket

import pytest

from vwsdlib.data import places
from vwsdlib.encoders import checkpoints
from vwsdlib.encoders.checkpoints import CHECKPOINTS, fetch, find, present, weight_files
from vwsdlib.encoders.registry import ENCODERS, SEGMENTERS
from vwsdlib.errors import VwsdError

KEY = "clip-vit-b32"
REPO, REVISION = CHECKPOINTS[KEY].repo, CHECKPOINTS[KEY].revision


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Own cache, own (empty) Hugging Face cache, and no way out."""

    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("VWSD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("VWSD_MODELS", raising=False)


def fill(folder, weights="model.safetensors", content=b"weights"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / weights).parent.mkdir(exist_ok=True)
    (folder / weights).write_bytes(content)
    return folder


def cached(tmp_path, revision=REVISION, repo=REPO, **what):
    return fill(
        tmp_path / "hub" / f"models--{repo.replace('/', '--')}" / "snapshots" / revision, **what
    )


def test_missing_names_the_command_and_the_folder(tmp_path, monkeypatch):
    with pytest.raises(VwsdError) as e:
        find(KEY)
    assert f"vwsd fetch models --only {KEY}" in e.value.remedy and REPO in e.value.what
    monkeypatch.setenv("VWSD_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("HF_HUB_OFFLINE")  # with a folder given the hub stays out of it, online too
    with pytest.raises(VwsdError) as e:
        find(KEY)
    assert e.value.where == str(tmp_path / "models")
    with pytest.raises(VwsdError, match="no checkpoint named"):
        find("clip")


@pytest.mark.parametrize("place", [REPO, REPO.split("/")[1]])
def test_local_folder_comes_first(place, tmp_path, monkeypatch):
    cached(tmp_path)
    folder = fill(tmp_path / "models" / place)
    monkeypatch.setenv("VWSD_MODELS", str(tmp_path / "models"))
    found = find(KEY)
    assert (found.folder, found.revision) == (folder, "local")
    assert found.weights_sha256 == checkpoints.sha256_file(folder / "model.safetensors")
    fill(folder, content=b"other weights")  # the user's own folder: taken as it is
    assert find(KEY).weights_sha256 != found.weights_sha256


def test_cache_without_network_even_where_the_folder_lacks_it(tmp_path, monkeypatch):
    folder = cached(tmp_path, weights="pytorch_model.bin")
    assert find(KEY).folder == folder and find(KEY).revision == REVISION
    monkeypatch.setenv("VWSD_MODELS", str(tmp_path))
    assert find(KEY).revision == REVISION


def test_another_commit_or_a_folder_without_weights_is_not_taken(tmp_path):
    cached(tmp_path, revision="0" * 40)
    (cached(tmp_path) / "model.safetensors").unlink()
    with pytest.raises(VwsdError, match="is not here"):
        find(KEY)


def test_main_reads_as_the_commit_it_stands_for(tmp_path):
    assert CHECKPOINTS["mclip"].revision == "main"
    cached(tmp_path, "f" * 40, CHECKPOINTS["mclip"].repo)
    refs = tmp_path / "hub" / f"models--{CHECKPOINTS['mclip'].repo.replace('/', '--')}" / "refs"
    refs.mkdir()
    (refs / "main").write_text("f" * 40)
    assert find("mclip").revision == "f" * 40


def test_online_the_hub_is_asked_and_offline_it_is_not(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(checkpoints, "fetch", lambda key: asked.append(key) or cached(tmp_path))
    with pytest.raises(VwsdError):
        find(KEY)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert find(KEY).revision == REVISION and asked == [KEY]


def test_fetch_without_connection_is_one_sentence(monkeypatch):
    with pytest.raises(VwsdError, match="cannot be fetched") as e:
        fetch(KEY, progress=False)
    assert f"vwsd fetch models --only {KEY}" in e.value.remedy and "\n" not in e.value.what


def test_other_bytes_under_the_same_commit_are_refused(tmp_path, monkeypatch):
    folder = cached(tmp_path)
    first = find(KEY)
    assert find(KEY) == first
    fill(folder, content=b"other weights")
    with pytest.raises(VwsdError, match="not the ones known") as e:
        find(KEY)
    assert e.value.where == str(folder)
    fill(folder)
    assert find(KEY) == first


def test_weights_that_differ_from_the_published_hash_are_refused_on_first_use(
    tmp_path, monkeypatch
):
    known = tmp_path / "weights.json"
    monkeypatch.setattr(checkpoints, "KNOWN", known)
    digest = checkpoints.sha256_file(cached(tmp_path) / "model.safetensors")
    known.write_text(json.dumps({f"{REPO}@{REVISION}": "0" * 64}))
    with pytest.raises(VwsdError, match="not the ones known"):
        find(KEY)
    known.write_text(json.dumps({f"{REPO}@{REVISION}": digest}))
    assert find(KEY).weights_sha256 == digest


def test_weights_are_read_once_and_again_when_they_change(tmp_path, monkeypatch):
    monkeypatch.setenv("VWSD_MODELS", str(tmp_path / "models"))
    folder, read = fill(tmp_path / "models" / REPO), []
    monkeypatch.setattr(
        checkpoints,
        "sha256_file",
        lambda path, real=checkpoints.sha256_file: read.append(path) or real(path),
    )
    assert (
        find(KEY) == find(KEY) and len(read) == 2
    )  # changed a moment ago: it may change again within a tick of the clock
    monkeypatch.setattr(places, "SETTLED", 0)
    read.clear()
    assert find(KEY) == find(KEY) and len(read) == 1
    fill(folder, content=b"weights!")
    assert find(KEY) and len(read) == 2
    (tmp_path / "cache" / "weights.json").write_text("{damaged")
    assert find(KEY) and len(read) == 3


def test_a_second_part_belongs_to_the_hash(tmp_path, monkeypatch):
    monkeypatch.setenv("VWSD_MODELS", str(tmp_path / "models"))
    folder = fill(tmp_path / "models" / CHECKPOINTS["clip-b32-multilingual"].repo)
    one = find("clip-b32-multilingual").weights_sha256
    fill(folder, "2_Dense/pytorch_model.bin")
    two = find("clip-b32-multilingual").weights_sha256
    fill(folder, "2_Dense/pytorch_model.bin", b"other")
    assert len({one, two, find("clip-b32-multilingual").weights_sha256}) == 3
    fill(folder, "pytorch_model.bin")  # not loaded beside safetensors, so not part of it
    assert [p.name for p in weight_files(folder)] == ["model.safetensors", "pytorch_model.bin"]


def test_present_tells_sizes(tmp_path):
    assert present(KEY) == (False, CHECKPOINTS[KEY].megabytes * 10**6)
    cached(tmp_path)
    assert present(KEY) == (True, len(b"weights"))
    shutil.rmtree(tmp_path / "hub")
    assert not present(KEY)[0]


def test_every_registered_model_names_checkpoints_of_the_table():
    used = {
        key for table in (ENCODERS, SEGMENTERS) for it in table.values() for key in it.checkpoints
    }
    assert (
        used <= set(CHECKPOINTS)
        and {"clip-vit-b32", "clipseg-rd64", "mclip", "siglip2-so400m"} <= used
    )
    assert all(
        c.revision == "main" or len(c.revision) == 40 and int(c.revision, 16)
        for c in CHECKPOINTS.values()
    )
    assert len({c.repo for c in CHECKPOINTS.values()}) == len(CHECKPOINTS)
    assert all(
        isinstance(v, str) and len(v) == 64
        for v in json.loads(checkpoints.KNOWN.read_text()).values()
    )


@pytest.mark.parametrize(
    "content",
    ["[]", '{"files": [], "seen": 3}', '{"files": {"a": 7}, "seen": {}}', "[" * 5000, "\udc80"],
)
def test_a_damaged_memory_of_weights_is_made_again(tmp_path, content):
    cached(tmp_path)
    first = find(KEY)
    (tmp_path / "cache" / "weights.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert find(KEY) == first


def test_weights_replaced_at_the_same_size_and_time_are_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "SETTLED", 0)
    monkeypatch.setenv("VWSD_MODELS", str(tmp_path / "models"))
    file = fill(tmp_path / "models" / REPO) / "model.safetensors"
    first, times = find(KEY), file.stat()
    file.write_bytes(b"stheigw")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert find(KEY).weights_sha256 != first.weights_sha256
