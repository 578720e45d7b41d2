"""Definitions: where the target stands in its phrase, whose glosses are given, and what `guard`
refuses wherever a definition is made or read.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from chat_double import served

from polclip.runs import check_defined
from polclip.sources import Study
from vwsd_standins.emojiwsd.senses import senses
from vwsdlib.data.items import Item, language_for, language_note
from vwsdlib.data.languages import language_code
from vwsdlib.data.sets import load_set
from vwsdlib.data.wsd import WsdItem
from vwsdlib.errors import VwsdError
from vwsdlib.finite import best, finite
from vwsdlib.language import definitions, endpoint, wsd_baselines
from vwsdlib.language.definitions import (
    Definitions,
    as_wsd_items,
    define,
    define_or_replay,
    guard,
    question,
    read_definitions,
    write_definitions,
)
from vwsdlib.language.local import settings_of
from vwsdlib.language.replay import read_records, read_store, write_records
from vwsdlib.language.wsd_baselines import choose

GLOSSES = ("a club for hitting a ball", "nocturnal mammal that flies")
ASKED = WsdItem("x.0", "en", "bat", "", ("fruit", "bat"), (1, 1), ("club", "mammal"), GLOSSES, ())


def item(target, phrase, language="it"):
    return Item("x.0", language, target, phrase, tuple("abcdefghij"))


@pytest.mark.parametrize(
    "target, phrase, marked",
    [
        ("ancora", "l'ancora della nave", "l'<t>ancora</t> della nave"),
        ("aquila", "volo dell\u2019aquila reale", "volo dell\u2019<t>aquila</t> reale"),
        ("ancora", "getta ancora in mare", "getta <t>ancora</t> in mare"),
        ("Ancora", "L'ANCORA", "L'<t>ANCORA</t>"),
        ("arte", "un'arte", "un'<t>arte</t>"),
        ("acqua", "quell'acqua d'oro", "quell'<t>acqua</t> d'oro"),
        ("oro", "quell'acqua d'oro", "quell'acqua d'<t>oro</t>"),
        (
            "l'aquila",
            "citt\u00e0 dell'aquila e l'aquila",
            "citt\u00e0 dell'aquila e <t>l'aquila</t>",
        ),
        ("sale", "un po' di sale", "un po' di <t>sale</t>"),
        ("ora", "mezz'ora", "mezz'<t>ora</t>"),
        ("isola", "all`isola", "all`<t>isola</t>"),
        ("anno", "l' anno", "l' <t>anno</t>"),
        ("ancora", "l'ancora, ferma", "l'<t>ancora,</t> ferma"),
        ("corpo d'armata", "il corpo d'armata", "il <t>corpo d'armata</t>"),
    ],
)
def test_an_elided_article_is_no_part_of_the_target(target, phrase, marked):
    [asked] = as_wsd_items([item(target, phrase)], lambda lemma, language: ((), ()))
    assert question(asked).splitlines()[-1] == marked and asked.sentence == phrase


def test_apostrophes_of_other_languages_stay():
    [asked] = as_wsd_items(
        [item("o'clock", "five o'clock tea", "en")], lambda lemma, language: ((), ())
    )
    assert question(asked).splitlines()[-1] == "five <t>o'clock</t> tea" and asked.glued == ()


def test_targets_that_do_not_stand_in_their_phrases_are_counted():
    with pytest.warns(
        UserWarning, match="2 of 3 targets do not stand in their phrases, 'gru' of 'x.0' the first"
    ):
        asked = as_wsd_items(
            [item("gru", "banco di nebbia"), item("?!", "banco"), item("banco", "il banco")],
            lambda lemma, language: ((), ()),
        )
    assert [a.span for a in asked] == [(0, 2), (0, 0), (1, 1)]


@pytest.mark.parametrize(
    "name, given, expected",
    [
        ("en.test.data.v1.1.txt", None, ("en", "named")),
        ("trial.data.txt", None, ("en", "named")),
        ("train.data.v1.txt", None, ("en", "named")),
        ("my.data.txt", None, ("en", "assumed")),
        ("own-it.data.txt", None, ("en", "assumed")),
        ("IT.own.txt", None, ("it", "named")),
        ("fa", None, ("en", "assumed")),
        ("my.data.txt", "fas", ("fa", "given")),
        ("it.data.txt", "English", ("en", "given")),
    ],
)
def test_the_language_of_a_file(name, given, expected):
    assert language_for(name, given) == expected and bool(language_note(name, given)) == (
        expected[1] == "assumed"
    )


def test_codes_of_languages():
    assert [
        language_code(text) for text in ("IT", "it-IT", "ita", "Italian", "fa_IR", "per", "de")
    ] == ["it", "it", "it", "it", "fa", "fa", "de"]
    for text in ("", "i", "italiano vero", "1t", "../it"):
        with pytest.raises(VwsdError, match="no language code"):
            language_code(text)


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_never_the_best(odd, monkeypatch):
    with pytest.raises(VwsdError, match="1 of 3 are NaN or infinite.: the checkpoint has diverged"):
        best(np.array([0.1, odd, 0.2]))
    with pytest.raises(VwsdError, match="not numbers.*x.0"):
        choose([ASKED], [np.array([odd, 1.0])])
    monkeypatch.setitem(wsd_baselines.BASELINES, "odd", lambda *_: [np.array([odd, 1.0])])
    chooses = replace(
        definitions.DEFINERS["lesk"], loader="vwsdlib.language.definitions:choosing_definer:odd"
    )
    monkeypatch.setitem(definitions.DEFINERS, "odd", chooses)
    with pytest.raises(VwsdError, match="not numbers.*x.0"):
        define("odd", [ASKED])
    assert best(np.array([1.0, 2.0, 2.0])) == 1 and finite(np.zeros((0, 3))).shape == (0, 3)


def test_an_encoder_that_overflows_answers_nothing(tmp_path):
    class Overflows:
        dim, batch_size, name = 2, 4, "overflows"

    class Store:
        encoder = Overflows()

        def texts(self, texts):
            return np.full((len(texts), 2), np.nan, np.float32)

    with pytest.raises(VwsdError, match="vectors of the encoder overflows are not numbers"):
        wsd_baselines.encoder_scores([ASKED], Store())


# ---------------------------------------------------------------- guard


def test_guard_by_hand():
    written = Definitions(
        ("x.0", "x.1"),
        ("Nocturnal MAMMAL, that flies!", "a thing"),
        {"definer": "chat"},
        "generated",
    )
    with pytest.raises(VwsdError, match="'x.0' is its gold gloss: 1 of 2 are"):
        guard(written, {"x.0": GLOSSES[1:]})
    emptied = guard(written, {"x.0": GLOSSES[1:]}, drop=True)
    assert (
        emptied.texts == ("", "a thing")
        and emptied.refused == 1
        and guard(written, {"x.0": GLOSSES[:1]}) == written
    )
    with pytest.raises(VwsdError, match="belong to other items"):
        guard(written, {"y": GLOSSES})
    with pytest.raises(VwsdError, match="unknown kind"):
        guard(replace(written, kind="found"), {})
    with pytest.raises(VwsdError, match="no gloss of its item's candidates"):
        guard(replace(written, kind="chosen", options=(GLOSSES, GLOSSES)), {})


@pytest.fixture
def chat(own_folders, monkeypatch):
    """An endpoint that answers each question with a gloss of the inventory, or with "It is
    <question>.".
    """
    with served(monkeypatch, endpoint) as server:
        yield server


def test_a_model_that_knows_the_glosses_by_heart_is_refused(chat, monkeypatch, tmp_path):
    said = {"fruit <t>bat</t>": GLOSSES[1], "baseball <t>bat</t>": "A stick for a game."}
    monkeypatch.setattr(
        endpoint,
        "ask",
        lambda messages, temperature: said[messages[-1]["content"].splitlines()[-1]],
    )
    items = [ASKED, replace(ASKED, id="x.1", tokens=("baseball", "bat"))]
    with pytest.warns(UserWarning, match="1 of 2 definitions were refused and emptied"):
        found = define("chat", items)
    assert found.texts == ("", "A stick for a game.") and found.refused == 1
    told = replace(ASKED, golds=("club",))  # the gold is known, and it is the other sense
    assert define("chat", [told]).texts == (GLOSSES[1],)
    path = write_definitions(tmp_path, found, "en", "toy")
    assert read_definitions(path)[1]["refused"] == 1


def test_what_a_model_wrote_once_is_replayed_from_its_file(chat, monkeypatch, tmp_path):
    calls = []

    def ask(messages, temperature):
        calls.append(messages)
        return "A stick for a game."

    monkeypatch.setattr(endpoint, "ask", ask)
    path = tmp_path / "definitions" / "chat.en.toy.jsonl"
    first = define_or_replay("chat", [ASKED], path)  # nothing is there yet
    assert write_definitions(tmp_path, first, "en", "toy") == path and len(calls) == 1
    monkeypatch.delenv("VWSD_CHAT_URL")  # nobody answers any more
    again = define_or_replay("chat", [ASKED], path)
    assert (again.texts, again.facts, again.replayed) == (first.texts, first.facts, 1)
    before = path.with_suffix(".meta.json").read_text()
    write_definitions(tmp_path, again, "en", "toy")
    assert path.with_suffix(".meta.json").read_text() == before
    for items in ([], [replace(ASKED, id="other")]):
        with pytest.raises(VwsdError, match="VWSD_CHAT_URL"):
            define_or_replay("chat", items, path)
    monkeypatch.setitem(definitions.WRITING, "prompt", "Another question.")
    with pytest.raises(VwsdError, match="VWSD_CHAT_URL"):
        define_or_replay("chat", [ASKED], path)


def test_a_study_refuses_definitions_of_other_items_and_leaked_ones(emojiwsd, monkeypatch):
    data = load_set("emojiwsd", "en", "test").head(4)
    study = Study("toy", None, [], None, [], [data])
    check_defined(study, {"en": {"chat": ["a thing"] * 4, "first-sense": [""] * 4}})
    with pytest.raises(VwsdError, match="3 definitions by lesk for 4 items"):
        check_defined(study, {"en": {"lesk": ["x"] * 3}})
    key = {
        line.split("\t")[0]: line.split("\t")
        for line in (emojiwsd / "key.tsv").read_text().splitlines()
    }
    column = key["image"].index("sense")
    gloss = {sense.id: sense.gloss for sense in senses()}[key[data.items[2].gold][column]]
    with pytest.raises(VwsdError, match="is its gold gloss: 1 of 4 are"):
        check_defined(study, {"en": {"chat": ["a thing", "a thing", f"{gloss}.", "a thing"]}})


# ---------------------------------------------------------------- what is stored


@pytest.mark.parametrize(
    "line, words",
    [
        ('{"id": 1, "definition": "x"}', "id: input should be a valid string"),
        ('{"id": "a"}', "definition: field required"),
        ("[1]", "x.jsonl:2"),
        ("{", "x.jsonl:2"),
        ("[" * 100_000, "x.jsonl:2"),
        ('{"id": "x.0", "definition": "y"}', "1 ids stand twice, 'x.0' the first"),
        ('{"id": "a", "definition": null}', "definition: input"),
    ],
)
def test_a_damaged_line_is_named(line, words, tmp_path):
    path = write_records(
        tmp_path / "x",
        [{"id": "x.0", "definition": "x"}, {"id": "x.1", "definition": "y"}],
        {"kind": "chosen"},
    )
    path.write_text(path.read_text().splitlines()[0] + "\n" + line + "\n")
    with pytest.raises(VwsdError) as e:
        read_definitions(path)
    assert words in str(e.value) and e.value.remedy


@pytest.mark.parametrize("meta", ["[]", "{", "[" * 100_000, '{"n": "2"}', "{}", '{"n": true}'])
def test_a_damaged_meta_is_named(meta, tmp_path):
    path = write_records(tmp_path / "x", [{"id": "a"}], {})
    (tmp_path / "x.meta.json").write_text(meta)
    with pytest.raises(VwsdError, match="meta does not have its form.*x.meta.json"):
        read_records(path, "records")


@pytest.mark.parametrize("config", ["[]", "{", "[" * 100_000, "null"])
def test_damaged_settings_of_a_checkpoint_are_named(config, tmp_path):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(VwsdError, match="checkpoint's settings.*config.json"):
        settings_of({}, tmp_path)


def test_answers_of_another_type_are_asked_again(tmp_path):
    lines = [
        {"key": "a", "out": "1"},
        {"key": "b", "out": 2},
        {"key": "c", "out": None},
        {"key": 1, "out": "x"},
    ]
    (tmp_path / "s.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + "[" * 100_000 + "\n"
    )
    assert read_store(tmp_path / "s.jsonl") == {"a": "1"}
