"""Baselines of textual WSD on a toy inventory, with an encoder whose cosines are known, and on real
items.
"""

import numpy as np
import pytest

from vwsdlib.analysis.wsd_scoring import score_answers
from vwsdlib.data.wsd import WsdItem, read_emojiwsd, read_uef
from vwsdlib.encoders.registry import load_encoder
from vwsdlib.encoders.store import VectorStore
from vwsdlib.errors import VwsdError
from vwsdlib.language.wsd_baselines import choose, encoder_scores, first_sense_scores, lesk_scores

BAT = ("bat%1:05:00::", "bat%1:04:00::", "bat%1:06:00::")
GLOSSES = (
    "nocturnal mammal that flies; lives in a cave",
    "(baseball) a turn trying to get a hit",
    "a club for hitting a ball",
)


def item(text, target, candidates=BAT, glosses=GLOSSES, lemma="bat"):
    tokens = tuple(text.split())
    at = tokens.index(target)
    return WsdItem(text, "en", lemma, "NOUN", tokens, (at, at), candidates, glosses, candidates[:1])


def test_lesk_counts_distinct_content_words():
    ball = item("the player swung the bat at the ball , a ball like the other", "bat")
    cave = item("a bat in the Cave is a mammal", "bat")
    nothing = item("bat the of a bat", "bat")
    scores = lesk_scores([ball, cave, nothing])
    assert [list(s) for s in scores] == [
        [0, 0, 1],
        [2, 0, 0],
        [0, 0, 0],
    ]  # once a word; "the", "in", "a" never
    assert choose([ball, cave, nothing], scores) == {
        ball.id: BAT[2:],
        cave.id: BAT[:1],
        nothing.id: BAT[:1],
    }


def test_lesk_reads_examples_where_wordnet_is_given(toy_wordnet):
    wood = item("he had an ash wood bat", "bat")
    assert list(lesk_scores([wood])[0]) == [0, 0, 0] and list(
        lesk_scores([wood], toy_wordnet)[0]
    ) == [0, 0, 2]


def test_the_target_itself_does_not_count():
    same = item("Bats bat", "Bats", glosses=("any bat", "bats and things", "club"))
    assert list(lesk_scores([same])[0]) == [0, 0, 0]
    other = item("club Bats club", "Bats", glosses=("any bat", "bats and things", "club"))
    assert list(lesk_scores([other])[0]) == [0, 0, 1]


class Sight:
    """An encoder of two dimensions that looks for words."""

    name, dim, batch_size = "sight", 2, 4
    seen: list[str] = []

    def encode_texts(self, texts):
        self.seen += texts
        rows = np.array(
            [[1 + 9 * ("mammal" in t or "cave" in t), 1 + 9 * (" ball" in t)] for t in texts],
            np.float32,
        )
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def identity(self):
        return {"model": "sight"}


def test_the_sentence_encoder_compares_sentence_and_lemma_with_gloss(tmp_path):
    encoder = Sight()
    items = [
        item("a ball bat", "bat"),
        item("a cave bat", "bat", lemma="fruit_bat"),
        item("no bat", "bat", (), ()),
    ]
    scores = encoder_scores(items, VectorStore(encoder, tmp_path))
    assert {
        "a ball bat",
        "bat: a club for hitting a ball",
        "fruit bat: a club for hitting a ball",
    } <= set(encoder.seen)
    assert len(encoder.seen) == len(set(encoder.seen)) == 2 * 3 + 3  # every text once
    assert (
        scores[0][2] == pytest.approx(1)
        and scores[0][0] == pytest.approx(20 / 101)
        and scores[2].shape == (0,)
    )
    assert choose(items, scores) == {
        items[0].id: (BAT[2],),
        items[1].id: (BAT[0],),
        items[2].id: (),
    }


def test_ties_go_to_the_first_sense_and_first_sense_is_first():
    one = item("a bat", "bat")
    assert (
        choose([one], [np.zeros(3)])
        == choose([one], first_sense_scores([one]))
        == {one.id: BAT[:1]}
    )
    assert choose([one], [np.array([0, 0, 1.0])]) == {one.id: BAT[2:]}


def test_candidates_without_glosses_are_named():
    for scores in (lesk_scores, encoder_scores):
        with pytest.raises(VwsdError, match="no glosses .*a bat"):
            scores(
                [item("a bat", "bat", glosses=())],
                *([VectorStore(Sight())] if scores is encoder_scores else []),
            )


def test_on_emojiwsd_the_order_of_baselines_is_as_it_should_be(emojiwsd, tmp_path):
    items = read_emojiwsd(emojiwsd / "en.dev.wsd.jsonl")
    gold = {i.id: i.golds for i in items}
    random = encoder_scores(items, VectorStore(load_encoder("random"), tmp_path))
    chance = 100 * np.mean([1 / len(i.candidates) for i in items])
    f1 = {
        name: score_answers(gold, choose(items, scores)).f1
        for name, scores in (("lesk", lesk_scores(items)), ("random", random))
    }
    assert f1["lesk"] > chance + 8 and abs(f1["random"] - chance) < 8


def test_on_the_real_sets(shared, wordnet):
    folder = shared / "wsd" / "raganato" / "semeval2007"
    items = list(
        read_uef(folder / "semeval2007.data.xml", folder / "semeval2007.gold.key.txt", wordnet)
    )
    gold = {i.id: i.golds for i in items}
    f1 = {
        name: score_answers(gold, choose(items, scores)).f1
        for name, scores in (
            ("first", first_sense_scores(items)),
            ("lesk", lesk_scores(items, wordnet)),
            ("last", [-s for s in first_sense_scores(items)]),
        )
    }
    assert round(f1["first"], 2) == 55.16 and 45 < f1["lesk"] < 55.16 and f1["last"] < 25
