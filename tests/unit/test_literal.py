"""The translator that is poor on purpose: its dictionary by hand, its marks, its store."""

import pytest

from vwsd_standins import literal
from vwsdlib.data.items import Item
from vwsdlib.language import quality
from vwsdlib.language.translate import identity, translate, translate_items


def test_a_word_gets_its_likeliest_english_word():
    pairs = [
        (["casa", "blu"], ["blue", "house"]),
        (["casa"], ["house"]),
        (["libro", "blu"], ["blue", "book"]),
        (["cane"], ["hound"]),
        (["cane"], ["dog"]),
    ]
    # casa is house by the second pair, so blu is blue, so libro is book; of two alike the first
    expected = {"casa": "house", "blu": "blue", "libro": "book", "cane": "dog"}
    assert literal.likeliest(pairs, 8) == expected
    assert literal.likeliest(pairs[::-1], 8) == expected


def test_one_round_of_model_1_by_hand():
    """After one round casa has 3/4 of its count with house: 1/2 + 1 of 2; blu is split evenly."""
    pairs = [(["casa", "blu"], ["azure", "house"]), (["casa"], ["house"])]
    assert literal.likeliest(pairs, 1) == {"casa": "house", "blu": "azure"}


@pytest.mark.parametrize(
    "language, text, english",
    [
        ("it", "Pallone da calcio", "ball from soccer"),
        ("it", "getto d'acqua", "jet of water"),
        ("it", "mazzetta di verdoni", "mazzetta of buck"),  # a word that no name has is copied
        ("fa", "چشم طوفان", "eye طوفان"),
        ("fa", "شکوفه‌های", "blossom"),  # the plural's word goes
        ("fa", "عينك", "sunglasses"),  # letters of an Arabic keyboard
    ],
)
def test_translations_are_word_by_word(language, text, english, tmp_path):
    assert translate("literal", [text], language, store=tmp_path).texts_out == (english,)


def test_the_target_is_known_and_what_is_copied_is_marked(tmp_path):
    item = Item("it.0", "it", "palla", "palla di vattelapesca", ("a",) * 10, "a")
    (record,) = translate_items("literal", [item], "it", store=tmp_path)
    assert record["target_en"] == "ball" and record["phrase_en"] == "ball of vattelapesca"
    assert record["flags"] == ["copied"] and quality.copied(record)


def test_it_is_made_once_and_replayed(tmp_path, monkeypatch):
    first = translate("literal", ["chiave inglese"], "it", store=tmp_path)
    monkeypatch.setattr(literal, "dictionary", lambda *a: pytest.fail("made again"))
    again = translate("literal", ["chiave inglese"], "it", store=tmp_path)
    assert (first.replayed, again.replayed) == (0, 1) and first.texts_out == again.texts_out
    with pytest.raises(pytest.fail.Exception, match="made again"):  # the guard can fail
        translate("literal", ["chiave"], "it", store=tmp_path)


def test_its_identity_is_that_of_its_words(monkeypatch, tmp_path):
    before = identity("literal", "it")
    assert before["translator"] == "literal" and before["settings"]["rounds"] == 8
    table = tmp_path / "literal.yml"
    table.write_text("it: {}\nfa: {}\n")
    monkeypatch.setattr(literal, "JOINING_FILE", table)
    assert identity("literal", "it")["weights_sha256"] != before["weights_sha256"]
