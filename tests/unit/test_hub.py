"""Checkpoints as they are published, from a hub as it is: what is fetched, kept, gone on with,
held, and said.
"""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import fake_hub
import pytest
import torch
from fake_hub import FakeHub, published

from vwsd_standins.rehearsal.models import make_models
from vwsd_standins.rehearsal.translators import make_translators
from vwsdlib.encoders import checkpoints, hub
from vwsdlib.encoders.checkpoints import CHECKPOINTS, commit_of, fetch, find, present
from vwsdlib.encoders.pretrained import load_pretrained
from vwsdlib.errors import VwsdError

KEY, SENTENCE, MCLIP = "clip-vit-b32", "clip-b32-multilingual", "mclip"
WEIGHTS = "model.safetensors"
TEXTS = ["fruit bat", "gomma per smacchiare", "an old tree"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of the tiny checkpoints."""
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def tiny_writers(tmp_path_factory):
    """Folder of the tiny translators and the tiny definer."""
    folder = tmp_path_factory.mktemp("writers")
    make_translators(folder)
    return folder


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A hub's folder, an empty cache of this machine, and how long was waited. `world.serve(fault)`
    is the hub, asked by whatever is fetched.
    """
    slept = []
    monkeypatch.setenv("VWSD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VWSD_MODELS", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub.time, "sleep", slept.append)

    def ask(url):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)

    class Serve(FakeHub):
        def __enter__(self):
            super().__enter__()
            ask(self.url)
            return self

    root = tmp_path / "published"
    return SimpleNamespace(
        root=root, slept=slept, ask=ask, serve=lambda fault="": Serve(root, fault)
    )


@pytest.fixture
def clip(world, tiny):
    """The hub has CLIP ViT-B/32; its folder there."""
    return published(tiny, world.root, CHECKPOINTS[KEY].repo)


def refusal(world, fault):
    with world.serve(fault) as server, pytest.raises(VwsdError) as e:
        fetch(KEY, progress=False)
    assert "\n" not in str(e.value)
    return server, e.value


# ---------------------------------------------------------------- what is fetched


def test_only_what_is_loaded_is_fetched(world, clip):
    fake_hub.with_clutter(clip)
    with world.serve() as server:
        folder = fetch(KEY, progress=False)
    kept = {path.name for path in folder.rglob("*") if path.is_file()}
    loaded = {path.name for path in clip.iterdir() if path.suffix in (".json", ".txt")}
    assert kept == loaded | {WEIGHTS}
    assert (folder / WEIGHTS).read_bytes() == (clip / WEIGHTS).read_bytes()
    assert len(server.requests) == 1 + len(kept) and folder.name == CHECKPOINTS[KEY].revision
    with world.serve() as server:
        assert fetch(KEY, progress=False) == folder
    assert len(server.requests) == 1  # the listing


def test_two_at_once_fetch_once(world, clip):
    with world.serve() as server, ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: fetch(KEY, progress=False), range(2)))
    assert folders[0] == folders[1] and len(server.asked(WEIGHTS)) == 1


def test_what_is_fetched_is_found_without_the_hub_by_others_too(world, clip):
    with world.serve():
        folder = fetch(KEY, progress=False)
    assert find(KEY).folder == folder  # no hub answers any more
    from huggingface_hub import scan_cache_dir, try_to_load_from_cache

    scanned = scan_cache_dir(hub.hub_folder())
    assert not scanned.warnings and [repo.repo_id for repo in scanned.repos] == [
        CHECKPOINTS[KEY].repo
    ]
    cached = try_to_load_from_cache(CHECKPOINTS[KEY].repo, WEIGHTS, revision=folder.name)
    assert cached == str(folder / WEIGHTS)


def test_what_lies_in_the_users_own_folder_is_not_fetched(world, clip, tiny, monkeypatch):
    monkeypatch.setenv("VWSD_MODELS", str(tiny))
    with world.serve() as server:
        assert fetch(KEY) == tiny / CHECKPOINTS[KEY].repo
    assert not server.requests


def test_a_cut_off_file_in_the_cache_is_fetched_again(world, clip):
    with world.serve():
        weights = fetch(KEY, progress=False) / WEIGHTS
        weights.resolve().write_bytes(b"cut off")
        fetch(KEY, progress=False)
    assert weights.read_bytes() == (clip / WEIGHTS).read_bytes()


@pytest.mark.parametrize("listed", ["model.safetensors", "tokenizer_config.json"])
def test_a_download_stays_found_whatever_a_newer_library_would_fetch(world, clip, listed):
    """A listing that the hub's client keeps names more than lies there."""
    with world.serve():
        folder = fetch(KEY, progress=False)
    trees = folder.parents[1] / "trees"
    trees.mkdir()
    entries = {name: {"size": 1, "blob_id": "a"} for name in (listed, "of a newer library.json")}
    (trees / f"{folder.name}.json").write_text(json.dumps(entries))
    assert present(KEY)[0] and find(KEY).folder == folder


# ---------------------------------------------------------------- layouts


def vectors(name):
    return torch.from_numpy(load_pretrained(name).encode_texts(TEXTS))


def whole(folder):
    return folder


LAYOUTS = {  # (checkpoint, what is done to its tiny twin) in the order of a table of them
    "safetensors": (KEY, whole),
    "pickled": (KEY, fake_hub.pickled),
    "shards": (KEY, fake_hub.sharded),
    "pickled shards": (KEY, lambda folder: fake_hub.sharded(fake_hub.pickled(folder))),
    "clutter": (KEY, fake_hub.with_clutter),
    "M-CLIP, pickled": (MCLIP, whole),
    "M-CLIP, pickled shards": (MCLIP, fake_hub.sharded),
    "second part pickled": (SENTENCE, whole),
    "second part safetensors": (SENTENCE, lambda f: fake_hub.as_safetensors(f, "2_Dense")),
    "first part pickled": (
        SENTENCE,
        lambda f: fake_hub.pickled(fake_hub.as_safetensors(f, "2_Dense")),
    ),
    "both pickled": (SENTENCE, fake_hub.pickled),
    "spiece.model": ("siglip-multilingual", fake_hub.with_sentencepiece),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_published_layout_loads_and_gives_the_same_vectors(layout, world, tiny, monkeypatch):
    key, arrange = LAYOUTS[layout]
    for other in {KEY, key}:
        published(tiny, world.root, CHECKPOINTS[other].repo)
    arrange(world.root / CHECKPOINTS[key].repo)
    with world.serve():
        fetched = vectors(key)
    assert find(key).revision == (commit_of(key) or CHECKPOINTS[key].revision)
    monkeypatch.setenv("VWSD_MODELS", str(tiny))
    if layout != "spiece.model":  # another tokenizer, so other numbers
        assert torch.equal(fetched, vectors(key))
    assert len(fetched.unique(dim=0)) == len(TEXTS)


def test_the_tokenizer_of_spiece_model_is_siglips_own(world, tiny):
    folder = published(tiny, world.root, CHECKPOINTS["siglip-multilingual"].repo)
    fake_hub.with_sentencepiece(folder)
    with world.serve():
        encoder = load_pretrained("siglip-multilingual")
    tokenizer = encoder.tokenizer
    assert type(tokenizer).__name__ == "SiglipTokenizer"
    assert not (encoder.files[0].folder / "tokenizer.json").exists()
    ids = encoder._tokens(["Fruit BAT!"], 64)["input_ids"][0].tolist()
    text = tokenizer.decode([i for i in ids if i != tokenizer.pad_token_id])
    assert text == "fruit bat" and len(ids) == 64  # lower case, no punctuation, padded


@pytest.mark.parametrize("pickle", [False, True], ids=["safetensors", "pickled"])
def test_a_missing_shard_is_named(pickle, world, clip, monkeypatch):
    fake_hub.sharded(fake_hub.pickled(clip) if pickle else clip)
    lost = next(clip.glob("*-00002-of-00003.*"))
    lost.unlink()
    with world.serve(), pytest.raises(VwsdError, match="1 of 3 shards are missing") as e:
        find(KEY)
    assert lost.name in e.value.what
    with pytest.raises(VwsdError, match=lost.name):  # offline, of what was fetched
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        find(KEY)
    assert not present(KEY)[0]
    monkeypatch.setenv("VWSD_MODELS", str(world.root))
    with pytest.raises(VwsdError, match=lost.name) as e:
        find(KEY)
    assert e.value.where == str(clip) and "Copy" in e.value.remedy


@pytest.mark.parametrize("index", ["[]", '{"weight_map": {"a": "../../etc/x"}}', "{", "[" * 9999])
def test_a_damaged_index_is_one_sentence(index, tmp_path, monkeypatch):
    folder = tmp_path / CHECKPOINTS[KEY].repo
    folder.mkdir(parents=True)
    (folder / "model.safetensors.index.json").write_text(index)
    monkeypatch.setenv("VWSD_MODELS", str(tmp_path))
    with pytest.raises(VwsdError) as e:
        find(KEY)
    assert "index.json" in e.value.where and "\n" not in str(e.value)
    assert not present(KEY)[0]  # which the doctor asks


def test_a_damaged_index_in_the_cache_is_fetched_again(world, clip):
    fake_hub.sharded(clip)
    with world.serve():
        index = fetch(KEY, progress=False) / f"{WEIGHTS}.index.json"
        index.resolve().write_text("{")
        assert not present(KEY)[0]
        fetch(KEY, progress=False)
    assert present(KEY)[0] and index.read_text() == (clip / index.name).read_text()


def test_a_repository_without_weights_is_one_sentence(world, clip):
    (clip / WEIGHTS).rename(clip / "flax_model.msgpack")
    with world.serve(), pytest.raises(VwsdError, match="there is neither"):
        fetch(KEY, progress=False)


WRITERS = {"opus-mt-it-en": "opus-mt", "mt5-fa-en": "mt5-parsinlu", "nllb-200-600m": "nllb-600m"}


def network(answering):
    """The model inside a loaded translator or definer."""
    return next(part for part in answering.args if isinstance(part, torch.nn.Module))


@pytest.mark.parametrize("layout", ["pickled", "sharded"])
@pytest.mark.parametrize("key", WRITERS)
def test_translators_come_through_the_same_door(layout, key, world, tiny_writers, monkeypatch):
    from vwsdlib.language.translate import TRANSLATORS, local_translator

    arrange = getattr(fake_hub, layout)
    arrange(published(tiny_writers, world.root, CHECKPOINTS[key].repo))
    entry, language = TRANSLATORS[WRITERS[key]], "fa" if key == "mt5-fa-en" else "it"
    with world.serve():
        facts, load = local_translator(entry, language, "en")
    assert facts["revision"] == commit_of(key)
    fetched = network(load()).state_dict()
    monkeypatch.setenv("VWSD_MODELS", str(tiny_writers))
    local = network(local_translator(entry, language, "en")[1]()).state_dict()
    assert fetched.keys() == local.keys()
    assert all(torch.equal(fetched[name], local[name]) for name in local)


def test_a_definer_comes_through_the_same_door(world, tiny_writers):
    from vwsdlib.language.definitions import DEFINERS, local_definer

    key = "qwen2.5-1.5b-instruct"
    fake_hub.sharded(published(tiny_writers, world.root, CHECKPOINTS[key].repo))
    with world.serve():
        facts, load = local_definer(DEFINERS["hf"])
    assert facts["revision"] == CHECKPOINTS[key].revision and len(facts["revision"]) == 40
    assert load() and facts["weights_sha256"] == find(key).weights_sha256


def test_pickled_weights_of_a_writer_may_hold_tensors_only(tiny_writers, tmp_path):
    from vwsdlib.language.translate import load_seq2seq

    folder = shutil.copytree(tiny_writers / CHECKPOINTS["opus-mt-it-en"].repo, tmp_path / "hostile")
    (folder / WEIGHTS).unlink()
    torch.save({"a": SimpleNamespace()}, folder / "pytorch_model.bin")
    with pytest.raises(VwsdError, match="the checkpoint cannot be loaded") as e:
        load_seq2seq(folder, {"max_new_tokens": 4})
    assert "\n" not in str(e.value)


# ---------------------------------------------------------------- the commit


def test_the_commit_that_main_was_first_holds(world, tiny):
    published(tiny, world.root, CHECKPOINTS[MCLIP].repo)
    assert CHECKPOINTS[MCLIP].revision == "main" and commit_of(MCLIP) == ""
    with world.serve():
        first = find(MCLIP)
    assert first.revision == commit_of(MCLIP) == fake_hub.COMMIT
    with world.serve() as server:  # the authors went on
        server.commit = "d" * 40
        fetch(MCLIP, progress=False)
    assert find(MCLIP) == first and "/revision/" + fake_hub.COMMIT in server.requests[0].path
    # another tool moved the cache's own `main`
    refs = first.folder.parents[1] / "refs"
    (refs / "main").write_text("d" * 40)
    assert find(MCLIP) == first
    shutil.rmtree(first.folder)
    with world.serve() as server:
        server.commit = "d" * 40
        assert find(MCLIP) == first


def test_fetching_alone_holds_what_another_tool_looked_at(world, tiny):
    """It knew the commit, and had none of the weights."""
    published(tiny, world.root, CHECKPOINTS[MCLIP].repo)
    refs = hub.snapshot(CHECKPOINTS[MCLIP].repo, "").parent / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("e" * 40)
    with world.serve():
        assert fetch(MCLIP, progress=False).name == "e" * 40
    (refs / "main").write_text("f" * 40)
    assert find(MCLIP).revision == "e" * 40


def test_a_commit_that_another_tool_fetched_holds_from_its_first_use(world, tiny):
    from huggingface_hub import constants

    store = hub.hub_folder() / f"models--{CHECKPOINTS[MCLIP].repo.replace('/', '--')}"
    assert str(store).startswith(constants.HF_HUB_CACHE)
    shutil.copytree(tiny / CHECKPOINTS[MCLIP].repo, store / "snapshots" / ("e" * 40))
    (store / "refs").mkdir()
    (store / "refs" / "main").write_text("e" * 40 + "\n")
    assert find(MCLIP).revision == "e" * 40
    (store / "refs" / "main").write_text("f" * 40)
    assert find(MCLIP).revision == commit_of(MCLIP) == "e" * 40


@pytest.mark.parametrize("damaged", ["", "main", "\udcff" * 40, "../../etc/passwd"])
def test_a_damaged_record_of_the_commit_is_none(damaged, world):
    refs = hub.snapshot(CHECKPOINTS[MCLIP].repo, "").parent / "refs"
    refs.mkdir(parents=True)
    (refs / "vwsd").write_bytes(damaged.encode("utf-8", "surrogateescape"))
    assert commit_of(MCLIP) == "" and not present(MCLIP)[0]
    (refs / "main").write_text("e" * 40)
    assert commit_of(MCLIP) == "e" * 40


def test_a_pinned_commit_is_asked_for_and_nothing_is_recorded(world, clip):
    with world.serve() as server:
        folder = fetch(KEY, progress=False)
    assert server.requests[0].path.endswith(f"/revision/{CHECKPOINTS[KEY].revision}")
    assert not (folder.parents[1] / "refs").exists()
    assert commit_of(KEY) == CHECKPOINTS[KEY].revision


# ---------------------------------------------------------------- when the line breaks


@pytest.mark.parametrize("fault", ["drop once", "reset once"])
def test_a_dropped_connection_goes_on_where_it_was(fault, world, clip):
    size = (clip / WEIGHTS).stat().st_size
    with world.serve(fault) as server:
        folder = fetch(KEY, progress=False)
    first, second = server.asked(WEIGHTS)
    assert second.start > 0 and second.sent == size - second.start
    if fault == "drop once":  # a torn one may lose what was on its way
        assert (first.sent, second.start) == (size // 2, size // 2)
    assert (folder / WEIGHTS).read_bytes() == (clip / WEIGHTS).read_bytes()
    assert world.slept == [hub.PAUSES[0]]


@pytest.mark.parametrize("fault", ["stall once", "busy once"])
def test_a_hub_that_is_slow_or_busy_is_asked_again(fault, world, clip, monkeypatch):
    monkeypatch.setattr(hub, "READ_SECONDS", 2)
    with world.serve(fault) as server:
        folder = fetch(KEY, progress=False)
    first, second = server.asked(WEIGHTS)
    assert second.start == (first.sent if fault == "stall once" else 0)
    assert (folder / WEIGHTS).read_bytes() == (clip / WEIGHTS).read_bytes()
    assert world.slept == [hub.PAUSES[0]]


def test_files_may_lie_on_another_server_which_gets_no_token(world, clip, monkeypatch):
    """As the hub's do: it sends on to one that stores them."""
    monkeypatch.setenv("HF_TOKEN", "hf_never-to-be-seen")
    with FakeHub(world.root, "drop once") as storage, world.serve() as server:
        server.elsewhere = storage.url
        folder = fetch(KEY, progress=False)
    first, second = storage.asked(WEIGHTS)
    assert second.start == first.sent > 0
    assert (folder / WEIGHTS).read_bytes() == (clip / WEIGHTS).read_bytes()
    assert all(request.token for request in server.requests)
    assert not any(request.token for request in storage.requests)


def test_a_line_that_drops_again_and_again_is_a_sentence_and_the_next_try_goes_on(world, clip):
    server, error = refusal(world, "drop")
    asked, size = server.asked(WEIGHTS), (clip / WEIGHTS).stat().st_size
    assert len(asked) == 1 + len(hub.PAUSES) and world.slept == list(hub.PAUSES)
    assert sum(request.sent for request in asked) == size - (size >> 5) - (size % 32 > 0)
    assert "the download stopped at " in error.what and " MB: " in error.what
    assert f"vwsd fetch models --only {KEY} goes on there" in error.remedy
    assert not present(KEY)[0]
    with world.serve() as server:
        folder = fetch(KEY, progress=False)
    (rest,) = server.asked(WEIGHTS)
    assert rest.sent == size - sum(request.sent for request in asked)
    assert (folder / WEIGHTS).read_bytes() == (clip / WEIGHTS).read_bytes()


def test_a_killed_download_goes_on_where_it_was(tiny, tmp_path):
    """The command itself, in a process that is killed, and once more."""
    from tests.hub_faults import Home, _fault_row

    weights = published(tiny, tmp_path / "published", CHECKPOINTS[KEY].repo) / WEIGHTS
    code, said, sent = _fault_row("stall once", Home(tmp_path))
    half = weights.stat().st_size // 2
    assert code == 0 and sent == f"{half:,} + {half:,}" and CHECKPOINTS[KEY].repo in said
    kept = next((tmp_path / "hf").rglob(f"snapshots/*/{WEIGHTS}"))
    assert kept.read_bytes() == weights.read_bytes()


def test_a_server_without_ranges_begins_again(world, clip):
    with world.serve("no ranges") as server:
        folder = fetch(KEY, progress=False)
    assert [request.start for request in server.asked(WEIGHTS)] == [0, 0]
    assert (folder / WEIGHTS).read_bytes() == (clip / WEIGHTS).read_bytes()


def test_bytes_that_are_not_the_announced_ones_are_fetched_again(world, clip):
    with world.serve("damage once") as server:
        folder = fetch(KEY, progress=False)
    assert len(server.asked(WEIGHTS)) == 2
    assert (folder / WEIGHTS).read_bytes() == (clip / WEIGHTS).read_bytes()


@pytest.mark.parametrize("steady, tries", [(10, 2), (10**9, 1)])
def test_a_try_that_brought_much_begins_the_count_anew(steady, tries, world, clip, monkeypatch):
    monkeypatch.setattr(hub, "STEADY", steady)
    monkeypatch.setattr(hub, "PAUSES", (1,))
    server, _ = refusal(world, "drop")
    assert (len(server.asked(WEIGHTS)) > 2) == (tries == 2)


def test_a_short_pause_that_the_hub_asks_for_is_made(world, clip):
    with world.serve("rate once"):
        assert fetch(KEY, progress=False)
    assert set(world.slept) == {1} and len(world.slept) > 2


@pytest.mark.parametrize(
    "fault, said, remedy",
    [
        ("rate", "asks for a pause of 3600 seconds (429)", "Wait that long"),
        ("gated", "only to those whom its owners let in (403)", "hf auth login"),
        ("login", "only to those whom its owners let in (401)", "hf auth login"),
        ("gone", "the hub does not have it (404)", "VWSD_MODELS"),
        ("down", "the hub itself fails (503)", "Wait until"),
    ],
)
def test_what_the_hub_refuses_is_one_fitting_sentence(fault, said, remedy, world, clip):
    server, error = refusal(world, fault)
    assert said in error.what and "cannot be fetched: " in error.what and remedy in error.remedy
    assert world.slept == []  # none of it passes by waiting a little
    assert len(server.asked(WEIGHTS)) == 0


def test_xet_is_never_needed(world, clip):
    with world.serve("xet") as server:
        fetch(KEY, progress=False)
    assert not [request for request in server.requests if "xet" in request.path]


@pytest.mark.parametrize("kind", ["XetDownloadError", "RuntimeError", "TypeError"])
def test_whatever_the_client_raises_is_a_sentence(kind, world, clip, monkeypatch):
    from huggingface_hub import errors

    error = {"RuntimeError": RuntimeError, "TypeError": TypeError}.get(kind)

    def drop(*_):
        raise (error or getattr(errors, kind))("CAS service: no answer")

    monkeypatch.setattr(hub, "_append", drop)
    _, said = refusal(world, "")
    assert "CAS service: no answer" in said.what
    passing = kind != "TypeError"  # a fault of the program itself
    assert world.slept == list(hub.PAUSES) * passing


def test_a_dead_hub_is_asked_once(world, clip, capfd):
    with world.serve() as server:
        pass  # and gone
    with pytest.raises(VwsdError, match="cannot be fetched: ") as e:
        find(KEY)
    assert "Check the connection" in e.value.remedy and world.slept == []
    assert not server.requests and capfd.readouterr().err == ""


def test_a_dead_proxy_is_named_without_its_password(world, clip, monkeypatch):
    from huggingface_hub.utils import close_session

    world.ask("http://hub.invalid")
    monkeypatch.setenv("HTTP_PROXY", "http://user:hunter2@127.0.0.1:9")
    close_session()  # proxies are read when a session begins
    try:
        with pytest.raises(VwsdError, match="the proxy does not answer") as e:
            fetch(KEY, progress=False)
    finally:
        close_session()
    assert "HTTP_PROXY" in e.value.remedy and "hunter2" not in str(e.value)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_is_said_and_what_is_here_is_enough(variable, world, clip, monkeypatch):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(VwsdError, match=f"{variable} is set") as e:
        fetch(KEY, progress=False)
    assert "Unset it" in e.value.remedy
    monkeypatch.delenv(variable)
    with world.serve():
        folder = fetch(KEY, progress=False)
    monkeypatch.setenv(variable, "1")
    assert fetch(KEY, progress=False) == folder


# ---------------------------------------------------------------- the disk


def test_a_disk_that_is_too_small_is_said_before_a_byte_is_fetched(world, clip, monkeypatch):
    asked = []

    def usage(folder):
        asked.append(folder)
        return SimpleNamespace(free=1000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.setattr(hub.shutil, "disk_usage", usage)
    with world.serve() as server, pytest.raises(VwsdError, match="GB are missing") as e:
        fetch(KEY, progress=False)
    assert e.value.where == str(hub.hub_folder()) and "HF_HOME" in e.value.remedy
    assert asked[-1].is_relative_to(hub.hub_folder()) and len(server.requests) == 1


def test_a_full_disk_names_itself(world, clip, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hub, "_append", full)
    _, error = refusal(world, "")
    assert "No space left" in error.what and "Free some space" in error.remedy
    assert world.slept == []


def test_weights_appear_last(world, clip, monkeypatch):
    """Who sees the weights sees all: a kill between two links loses no file that is read."""
    linked, link = [], hub._link
    monkeypatch.setattr(hub, "_link", lambda b, pointer: linked.append(pointer) or link(b, pointer))
    with world.serve():
        fetch(KEY, progress=False)
    assert linked[-1].name == WEIGHTS and len(linked) > 3
    assert checkpoints.present(KEY)[0]
