"""Translators: settings that reach generate(), neighbours that do not matter, translations that are
made once; rules checked by hand.
"""

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from vwsd_standins.rehearsal.translators import make_translators
from vwsdlib.data import sets
from vwsdlib.data.items import Item
from vwsdlib.encoders import checkpoints
from vwsdlib.errors import VwsdError
from vwsdlib.language import endpoint, quality
from vwsdlib.language import translate as tr
from vwsdlib.paths import sha256_file

IT = [
    "ballo delle debuttanti",
    "pallone da calcio",
    "sponda del fiume",
    "tavoletta di cioccolato fondente con nocciole",
    "vino",
    "chiave inglese",
]
FA = ["توپ فوتبال", "مجلس رقص", "شعبه بانک", "ساحل رودخانه", "می‌خواهم شیر تازه", "تخته شکلات تلخ"]
CASES = [
    ("opus-mt", "it", IT),
    ("mt5-parsinlu", "fa", FA),
    ("nllb-600m", "it", IT),
    ("nllb-600m", "fa", FA),
    ("nllb-1.3b", "it", IT),
]
KEY = "sk-never-to-be-seen"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folder of the tiny checkpoints."""
    folder = tmp_path_factory.mktemp("models")
    make_translators(folder)
    return folder


@pytest.fixture
def models(tiny, own_folders, monkeypatch):
    """The tiny checkpoints found as the real ones are; `models.changed[key]` stands in for one of
    them.
    """
    changed = {}

    def find(key):
        folder = changed.get(key) or tiny / checkpoints.checkpoint(key).repo
        return SimpleNamespace(
            folder=folder,
            revision="local",
            weights_sha256=sha256_file(folder / "model.safetensors"),
        )

    monkeypatch.setattr(checkpoints, "find", find)
    return SimpleNamespace(folder=tiny, changed=changed)


def twin(models, tmp_path, key, file, **content):
    """A copy of a checkpoint with other content in one of its JSON files, found in its place."""
    import shutil

    folder = shutil.copytree(models.folder / checkpoints.checkpoint(key).repo, tmp_path / "twin")
    old = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(old | content))
    models.changed[key] = folder
    return folder


def refuse(*_):
    raise AssertionError("a model was loaded")


def test_registry_names_known_checkpoints():
    assert {e.model for e in tr.TRANSLATORS.values() if e.model} <= checkpoints.CHECKPOINTS.keys()


@pytest.mark.parametrize("name,language,texts", CASES)
def test_tiny_checkpoint_translates_and_ignores_neighbours(models, name, language, texts):
    together = tr.translate(name, texts, language, store=models.folder / "together").texts_out
    assert len(set(together)) > 3  # random, but not deaf to its input
    for i in (0, 3):
        alone = tr.translate(
            name, [texts[i]], language, store=models.folder / f"alone{i}{name}{language}"
        )
        assert alone.replayed == 0 and alone.texts_out == (together[i],)
    crowd = [f"{text} {text} {text}" for text in texts] * 3 + texts[
        ::-1
    ]  # other lengths, other rows, several batches
    assert (
        tr.translate(
            name, crowd, language, store=models.folder / f"crowd{name}{language}"
        ).texts_out[-len(texts) :]
        == together[::-1]
    )


def test_padding_would_matter_without_the_mask(models, monkeypatch):
    """The twin of the test above: the same text padded further, mask taken away, comes out
    differently.
    """
    from transformers import M2M100ForConditionalGeneration as Model

    def run(where):
        return tr.translate("nllb-600m", IT, "it", store=models.folder / where).texts_out

    short, generate = run("short"), Model.generate
    monkeypatch.setattr(tr, "LENGTHS", (64,))
    assert run("long") == short

    def blind(self, input_ids, attention_mask):
        return generate(self, input_ids=input_ids, attention_mask=attention_mask * 0 + 1)

    monkeypatch.setattr(Model, "generate", blind)
    monkeypatch.setattr(tr, "LENGTHS", (128,))
    assert run("blind") != short


@pytest.mark.parametrize("name,language,texts", CASES[:3])
def test_exactly_the_stated_settings_reach_generate(models, monkeypatch, name, language, texts):
    from transformers import GenerationMixin

    seen, prepare = [], GenerationMixin._prepare_generation_config
    monkeypatch.setattr(
        GenerationMixin,
        "_prepare_generation_config",
        lambda *a, **k: seen.append(prepare(*a, **k)) or seen[-1],
    )
    settings = tr.translate(name, texts[:2], language).identity["settings"]
    used = seen[0][0].to_dict()
    assert {k: used.get(k) for k in settings if k != "codes"} == {
        k: v for k, v in settings.items() if k != "codes"
    }
    assert settings["num_beams"] == {"opus-mt": 6, "mt5-parsinlu": 1, "nllb-600m": 4}[name]
    assert ("forced_bos_token_id" in used and used["forced_bos_token_id"] is not None) == (
        name == "nllb-600m"
    )


def test_nllb_starts_with_the_target_code_and_reads_the_source_code(models):
    from transformers import AutoTokenizer

    folder = models.folder / "facebook" / "nllb-200-distilled-600M"
    tokenizer = AutoTokenizer.from_pretrained(folder, src_lang="pes_Arab")
    assert (
        tokenizer(FA[0])["input_ids"][0]
        == tokenizer.convert_tokens_to_ids("pes_Arab")
        != tokenizer.unk_token_id
    )
    settings = tr.identity("nllb-600m", "fa")["settings"]
    assert (
        settings["codes"]
        == ["pes_Arab", "eng_Latn"]
        != tr.identity("nllb-600m", "it")["settings"]["codes"]
    )
    with pytest.raises(VwsdError, match="does not know xyz_Latn"):
        tr.load_seq2seq(folder, {**settings, "codes": ["xyz_Latn", "eng_Latn"]})


def test_library_default_of_twenty_tokens_means_nineteen_new_ones(models):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

    folder = models.folder / "persiannlp" / "mt5-base-parsinlu-opus-translation_fa_en"
    tokenizer, model = (
        AutoTokenizer.from_pretrained(folder),
        AutoModelForSeq2SeqLM.from_pretrained(folder).eval(),
    )
    assert tokenizer("می‌خواهم شیر")["input_ids"].count(tokenizer.unk_token_id) == 0
    model.generation_config = GenerationConfig(
        max_length=20, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1
    )
    out = [
        model.generate(**tokenizer(text, return_tensors="pt"))[0] for text in FA
    ]  # a phrase a call, as the study had it
    assert max(map(len, out)) == 20
    expected = tuple(
        tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for ids in out
    )
    assert tr.translate("mt5-parsinlu", FA, "fa").texts_out == expected


def test_opus_takes_the_beam_that_the_checkpoint_ships(models, tmp_path):
    six = tr.translate("opus-mt", IT, "it")
    twin(models, tmp_path, "opus-mt-it-en", "generation_config.json", num_beams=2)
    two = tr.translate("opus-mt", IT, "it")
    assert (six.identity["settings"]["num_beams"], two.identity["settings"]["num_beams"]) == (6, 2)
    assert two.replayed == 0 and two.texts_out != six.texts_out


def test_others_ignore_what_the_checkpoint_ships(models, tmp_path):
    plain = tr.translate("mt5-parsinlu", FA, "fa")
    twin(
        models,
        tmp_path,
        "mt5-fa-en",
        "generation_config.json",
        num_beams=5,
        no_repeat_ngram_size=1,
        max_length=5,
        repetition_penalty=3.0,
    )
    shipped = tr.translate("mt5-parsinlu", FA, "fa")
    assert (
        shipped.identity["settings"] == plain.identity["settings"]
        and shipped.texts_out == plain.texts_out
    )
    assert shipped.replayed == 0  # the folder's files are part of the identity all the same


def test_second_run_loads_no_model(models, monkeypatch):
    first = tr.translate("opus-mt", IT, "it")
    monkeypatch.setattr(tr, "load_seq2seq", refuse)
    again = tr.translate("opus-mt", [*IT[::-1], IT[0]], "it")
    assert (
        again.replayed == len(IT) + 1
        and again.texts_out == (*first.texts_out[::-1], first.texts_out[0])
        and first.replayed == 0
    )
    with pytest.raises(AssertionError, match="a model was loaded"):  # the twin: one new text
        tr.translate("opus-mt", [*IT, "una frase nuova"], "it")


def test_other_settings_weights_or_language_are_other_keys(models, monkeypatch, tmp_path):
    tr.translate("nllb-600m", IT, "it")
    monkeypatch.setattr(tr, "load_seq2seq", refuse)
    entry = tr.TRANSLATORS["nllb-600m"]
    for change in ("language", "settings", "weights"):
        with monkeypatch.context() as m, pytest.raises(AssertionError, match="a model was loaded"):
            if change == "settings":
                other = replace(entry, settings={**entry.settings, "num_beams": 5})
                m.setitem(tr.TRANSLATORS, "nllb-600m", other)
            if change == "weights":
                m.setattr(
                    checkpoints,
                    "find",
                    lambda key: SimpleNamespace(
                        folder=models.folder / checkpoints.checkpoint(key).repo,
                        revision="local",
                        weights_sha256="0" * 64,
                    ),
                )
            tr.translate("nllb-600m", IT, "fa" if change == "language" else "it")
    assert tr.translate("nllb-600m", IT, "it").replayed == len(IT)


def test_cut_off_line_is_translated_again(models, own_folders, monkeypatch):
    first = tr.translate("opus-mt", IT, "it")
    (path,) = (own_folders / "cache" / "translations").glob("opus-mt-*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    again = tr.translate("opus-mt", IT, "it")
    assert again.texts_out == first.texts_out and again.replayed == len(IT) - 1
    assert set(whole.split(b"\n")) <= set(path.read_bytes().split(b"\n"))
    monkeypatch.setattr(tr, "load_seq2seq", refuse)
    assert tr.translate("opus-mt", IT, "it").replayed == len(IT)  # the store is whole again


def test_checkpoints_are_seeded_and_made_once(tiny, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in tiny.rglob("*.safetensors")}
    folders = make_translators(tiny)
    assert len(folders) == 5 == len(before) and {p: p.stat().st_mtime_ns for p in before} == before
    for other in make_translators(tmp_path):
        same = tiny / other.relative_to(tmp_path)
        assert {p.name for p in same.iterdir()} == {p.name for p in other.iterdir()}
        assert all(sha256_file(same / p.name) == sha256_file(p) for p in other.iterdir())
    assert (
        not (folders[1] / "generation_config.json").exists()
        and not (folders[1] / "tokenizer.json").exists()
    )  # as the study's download list


def test_unreadable_checkpoint_names_the_packages(models, tmp_path):
    folder = twin(models, tmp_path, "mt5-fa-en", "special_tokens_map.json")
    (folder / "spiece.model").write_bytes(b"damaged")
    with pytest.raises(VwsdError, match="protobuf"):
        tr.translate("mt5-parsinlu", FA, "fa")


def test_unknown_translator_and_language(own_folders):
    with pytest.raises(VwsdError, match="Did you mean 'opus-mt'"):
        tr.translate("opus", IT, "it")
    with pytest.raises(
        VwsdError, match="fa is translated by: mt5-parsinlu, nllb-600m, nllb-1.3b, chat, reference"
    ):
        tr.translate("opus-mt", FA, "fa")
    with pytest.raises(VwsdError, match="does not translate it to de"):
        tr.translate("opus-mt", IT, "it", "de")


def test_records_on_disk(models, tmp_path):
    items = [
        Item(f"it.toy.{i}", "it", text.split()[0], text, tuple("abcdefghij"), "a")
        for i, text in enumerate(IT)
    ]
    records = tr.translate_items("opus-mt", items, "it")
    assert [r["phrase_en"] for r in records] == list(tr.translate("opus-mt", IT, "it").texts_out)
    assert [r["target_en"] for r in records] == list(
        tr.translate("opus-mt", [i.target for i in items], "it").texts_out
    )
    path = tr.write_translations(tmp_path, records, tr.identity("opus-mt", "it"), "toy")
    assert path == tmp_path / "translations" / "opus-mt.it.toy.jsonl"
    back, meta = tr.read_translations(path)
    assert (
        back == records
        and meta["n"] == len(IT)
        and meta["settings"]["num_beams"] == 6
        and meta["weights_sha256"]
    )
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(VwsdError, match="5 translations, 6 were written"):
        tr.read_translations(path)


def test_users_own_table(tmp_path):
    table = tmp_path / "own.tsv"
    header = "index\ttarget\tcontext\ttarget_en\tcontext_en\n"
    table.write_text(
        header
        + '7\tsponda\tsponda del "fiume\tbank\triver bank\n8\tballo\tballo lento\tdance\tslow'
        " ball\n"
    )
    first, second = tr.load_stored(table, "it")
    assert first == {
        "id": "7",
        "language": "it",
        "target": "sponda",
        "phrase": 'sponda del "fiume',
        "phrase_en": "river bank",
        "target_en": "bank",
        "flags": [],
    }
    assert second["flags"] == ["target_lost"]
    table.write_text("index\ttarget\n")
    with pytest.raises(VwsdError, match="no column context, context_en, target_en"):
        tr.load_stored(table, "it")


class Stub(BaseHTTPRequestHandler):
    """A chat endpoint that answers as its server's `script` says."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers.get("Authorization"), body))
        code = self.server.script.pop(0) if self.server.script else 200
        if code == "hang":
            self.server.release.wait(10)
            return
        text = body["messages"][0]["content"].splitlines()[-1]
        answer = (
            {"choices": [{"message": {"content": f" EN({text})\n"}}]}
            if code == 200
            else {"error": f"bad key {KEY}"}
        )
        self.send_response(200 if code == "odd" else code)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def chat(own_folders, monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Stub)
    server.script, server.asked, server.release = [], [], threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    for name, value in {
        "URL": f"http://127.0.0.1:{server.server_port}/v1",
        "MODEL": "toy",
        "KEY": KEY,
    }.items():
        monkeypatch.setenv(f"VWSD_CHAT_{name}", value)
    monkeypatch.setattr(endpoint, "PAUSES", (0, 0, 0))
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()


def test_chat_translates_and_replays(chat, own_folders):
    chat.script = [503, 429]  # busy twice, then ready
    first = tr.translate("chat", FA[:2], "fa")
    assert first.texts_out == (f"EN({FA[0]})", f"EN({FA[1]})") and len(chat.asked) == 4
    path, authorization, body = chat.asked[-1]
    assert (path, authorization, body["model"], body["temperature"]) == (
        "/v1/chat/completions",
        f"Bearer {KEY}",
        "toy",
        0,
    )
    assert body["messages"][0]["content"].startswith(
        "Translate this Persian (Farsi) phrase into English"
    )
    assert (
        first.identity["settings"]["prompt"] == tr.TRANSLATORS["chat"].settings["prompt"]
        and first.identity["model"] == "toy"
    )
    assert tr.translate("chat", FA[:2], "fa").replayed == 2 and len(chat.asked) == 4
    stored = [p for p in own_folders.rglob("*") if p.is_file()]
    assert (
        stored
        and not any(KEY.encode() in p.read_bytes() for p in stored)
        and KEY not in json.dumps(first.identity)
    )


@pytest.mark.parametrize(
    "script,variable,asked",
    [
        ([401], "VWSD_CHAT_KEY", 1),
        ([404], "VWSD_CHAT_MODEL", 1),
        ([500] * 3, "Try again later", 3),
        (["odd"], "VWSD_CHAT_URL", 1),
        (["hang"] * 3, "VWSD_CHAT_URL", 1),
    ],
)
def test_chat_errors_name_the_variable_and_never_the_key(
    chat, monkeypatch, script, variable, asked
):
    chat.script = list(script)
    monkeypatch.setattr(endpoint, "TIMEOUT", 0.2)
    with pytest.raises(VwsdError, match=variable) as e:
        tr.translate("chat", IT[:1], "it")
    assert KEY not in str(e.value) and len(chat.asked) == asked


def test_chat_needs_its_variables(chat, monkeypatch):
    monkeypatch.delenv("VWSD_CHAT_MODEL")
    with pytest.raises(VwsdError, match="Set VWSD_CHAT_MODEL"):
        tr.identity("chat", "it")
    for address in ("", "file:///etc/passwd", f"http://me:{KEY}@localhost/v1"):
        monkeypatch.setenv("VWSD_CHAT_URL", address)
        with pytest.raises(VwsdError, match="Set VWSD_CHAT_URL") as e:
            tr.identity("chat", "it")
        assert KEY not in str(e.value)


@pytest.mark.parametrize("language", ["it", "fa"])
def test_reference_gives_the_phrase_of_the_gold_sense(emojiwsd, own_folders, language):
    from vwsd_standins.emojiwsd.senses import senses

    data = sets.load_set("emojiwsd", language, "test")
    records = tr.translate_items("reference", data.items, language)
    answers, by_id = sets.key(data.images), {s.id: s for s in senses()}
    golds = [by_id[answers[item.gold]["sense"]] for item in data.items]
    assert len(records) == len(data.items) > 100
    assert [(r["phrase_en"], r["target_en"]) for r in records] == [
        (s.phrases[0], s.lemma) for s in golds
    ]
    marks = [
        mark for r in records for mark in r["flags"]
    ]  # the upper bound loses no sense; some Italian words are English ones too
    assert set(marks) == ({"copied"} if language == "it" else set()) and len(marks) < 0.1 * len(
        records
    )
    assert tr.identity("reference", language)["settings"]["upper_bound"] is True
    with pytest.raises(VwsdError, match="EmojiWSD's phrases alone"):
        tr.translate("reference", ["nessuna frase"], language)


def record(language, phrase, phrase_en, target_en="x"):
    return {
        "language": language,
        "target": phrase.split()[0],
        "phrase": phrase,
        "phrase_en": phrase_en,
        "target_en": target_en,
    }


@pytest.mark.parametrize(
    "rule,language,phrase,phrase_en,target_en,expected",
    [
        ("copied", "it", "sponda del fiume", "Sponda of the river", "bank", True),
        ("copied", "it", "sponda del fiume", "river bank", "bank", False),
        ("copied", "it", "re di cuori", "king (re) of hearts", "king", False),  # two letters
        (
            "copied",
            "it",
            "torre della chiesa",
            "della tower",
            "tower",
            False,
        ),  # no sense of its own
        ("copied", "it", "barca", "barcarole", "boat", False),  # a part of a word
        ("copied", "fa", "شیر آب", "شیر water", "milk", True),
        (
            "copied",
            "fa",
            "كيك شكلاتی",
            "کیک chocolate",
            "cake",
            True,
        ),  # Arabic kaf and yeh there, Persian here
        (
            "copied",
            "fa",
            "می‌خواهم آب",
            "میخواهم water",
            "want",
            True,
        ),  # zero-width non-joiner left out
        ("copied", "fa", "شیر آب", "water tap", "milk", False),
        (
            "copied",
            "fa",
            "نسخه 2",
            "version 2",
            "version",
            False,
        ),  # a figure is no word in Arabic script
        ("target_lost", "it", "ballo lento", "slow dancing", "Dance.", False),
        ("target_lost", "it", "ballo lento", "slow ball", "dance", True),
        ("target_lost", "it", "mazze da baseball", "baseball bats", "bat", False),
        (
            "target_lost",
            "it",
            "ballo lento",
            "the slow ball",
            "the dance",
            True,
        ),  # an article saves nothing
        ("target_lost", "fa", "شیر آب", "water tap", "milk", True),
        ("target_lost", "fa", "شیر تازه", "fresh milk", "Milk", False),
        ("target_lost", "fa", "شیر تازه", "fresh milk", "...", True),
        ("empty", "it", "ballo lento", " … -!", "dance", True),
        ("empty", "it", "ballo lento", "a", "dance", False),
        ("empty", "fa", "شیر", "", "milk", True),
        ("empty", "fa", "شیر", "شیر", "milk", False),
        ("repeats", "it", "ballo lento", "slow slow Slow dance", "dance", True),
        ("repeats", "it", "ballo lento", "slow slow dance slow", "dance", False),
        (
            "repeats",
            "it",
            "ballo lento",
            "one two three four five six seven eight nine",
            "dance",
            True,
        ),
        ("repeats", "it", "ballo lento", "one two three four five six seven eight", "dance", False),
        ("repeats", "fa", "شیر آب", "no, no, no", "milk", True),
        ("repeats", "fa", "شیر آب", "no water, no", "milk", False),
    ],
)
def test_rules_by_hand(rule, language, phrase, phrase_en, target_en, expected):
    assert quality.RULES[rule](record(language, phrase, phrase_en, target_en)) is expected


def test_flags_keep_the_registrys_order():
    assert quality.flags(record("it", "ballo lento", "", "dance")) == ["target_lost", "empty"]
    assert quality.flags(record("fa", "شیر آب", "شیر شیر شیر", "milk")) == [
        "copied",
        "target_lost",
        "repeats",
    ]
    assert quality.flags(record("it", "ballo lento", "slow dance", "dance")) == []
    assert all(rule.__doc__ for rule in quality.RULES.values())
