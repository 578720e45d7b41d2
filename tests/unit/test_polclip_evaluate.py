"""PolCLIP's scores at test against loops, ties and rankings; states of pictures; the lite backbone
gives the lite encoder's own cosines.
"""

import numpy as np
import polclip_tiny
import pytest
import torch
from PIL import Image
from polclip_tiny import data, make, one_thread, record, states  # noqa: F401

from polclip import evaluate
from polclip.backbone import load_backbone
from polclip.batches import Coder, photo_text
from polclip.config import make_config
from polclip.evaluate import (
    SCORES,
    look_at,
    multimodal_record,
    rank_together,
    textual_scores,
    visual_scores,
)
from polclip.model import PolClip
from polclip.records import Candidate, Record
from polclip.states import PictureStates
from polclip.streaming import Held
from polclip.train import read_log, train
from vwsd_standins import lite, lite_backbone, text_tower
from vwsdlib.errors import VwsdError

TEXTS = ["a photo of a bat", "bat", "an old wooden club", "fruit bat in a cave at night"]


@pytest.fixture(scope="module")
def model():
    return make(ema=0.0).eval()


@torch.no_grad()
def one_sense(model, gloss):
    found = model.senses(Coder(model.backbone, model.config).texts([gloss]))
    return found.plain[0].numpy(), found.fused[0].numpy()


@torch.no_grad()
def one_context(model, its):
    return model.context(Coder(model.backbone, model.config).contexts([its]))[0].numpy()


@torch.no_grad()
def one_text(model, text):
    return model.read(Coder(model.backbone, model.config).texts([text]))[0].numpy()


@torch.no_grad()
def one_picture(model, name):
    found = model.pictures(states([name]))
    return found.plain[0].numpy(), found.fused[0].numpy()


def check_ranges(scores):
    for name in SCORES:
        limit = 2 if name == "sum" else 1
        assert max(np.abs(row).max() for row in scores[name]) <= limit + 1e-5
    assert all(np.array_equal(a + b, c) for a, b, c in zip(*(scores[name] for name in SCORES)))


# ---------------------------------------------------------------- which sense


def test_textual_scores_are_loops_over_single_vectors(model):
    records = [record(i) for i in range(20)]  # more than one batch of senses and of contexts
    scores = textual_scores(model, records)
    assert list(scores) == list(SCORES) and all(len(scores[name]) == 20 for name in SCORES)
    check_ranges(scores)
    for i in (0, 7, 19):
        u = one_context(model, records[i])
        for k, candidate in enumerate(records[i].candidates):
            s, m = one_sense(model, candidate.gloss)
            assert scores["plain"][i][k] == pytest.approx(u @ s, abs=1e-5) and scores["fused"][i][
                k
            ] == pytest.approx(u @ m, abs=1e-5)
    assert (
        abs(scores["plain"][7][0] - scores["plain"][7][1]) > 1e-3
        and abs(scores["plain"][7][0] - scores["fused"][7][0]) > 1e-3
    )


def test_an_id_with_two_glosses_is_scored_by_each_records_own(model):
    def asked(i, gloss):
        return Record(
            f"r{i}",
            "en",
            ("the", "bat"),
            (1, 1),
            (Candidate("same", gloss), Candidate("else", "stick")),
            ("same",),
        )

    both = textual_scores(model, [asked(0, "small mammal"), asked(1, "piccolo mammifero")])
    alone = [
        textual_scores(model, [asked(0, gloss)])["plain"][0][0]
        for gloss in ("small mammal", "piccolo mammifero")
    ]
    assert [row[0] for row in both["plain"]] == pytest.approx(alone, abs=1e-5)
    assert abs(both["plain"][0][0] - both["plain"][1][0]) > 1e-3


def test_equal_glosses_tie_exactly(model):
    glosses = ["small mammal", *(f"thing {i}" for i in range(17)), "small mammal"]
    scores = textual_scores(
        model,
        [
            Record(
                "r",
                "en",
                ("bat",),
                (0, 0),
                tuple(Candidate(str(i), g) for i, g in enumerate(glosses)),
                ("0",),
            )
        ],
    )
    for name in SCORES:
        row = scores[name][0]
        assert row[0] == row[18] and len(set(row.tolist())) == 18


# ---------------------------------------------------------------- which picture


def test_visual_scores_are_loops_over_single_vectors(model):
    rng = np.random.default_rng(0)
    candidates = [[f"p{k}" for k in rng.permutation(30)[:10]] for _ in TEXTS]
    scores = visual_scores(model, TEXTS, candidates, states)
    assert all(
        scores[name].shape == (4, 10) and scores[name].dtype == np.float32 for name in SCORES
    )
    check_ranges(scores)
    for i, text in enumerate(TEXTS):
        t = one_text(model, text)
        for k, name in enumerate(candidates[i]):
            x, r = one_picture(model, name)
            assert scores["plain"][i, k] == pytest.approx(t @ x, abs=1e-5) and scores["fused"][
                i, k
            ] == pytest.approx(t @ r, abs=1e-5)
    assert (
        scores["plain"].argmax(1) != scores["fused"].argmax(1)
    ).any()  # the twin: the two are told apart


def test_pictures_looked_at_before_score_the_same_and_are_not_looked_at_again(model):
    candidates, asked = [["a", "b", "c"], ["c", "b", "d"]], []
    seen = look_at(model, candidates, lambda names: asked.extend(names) or states(names))
    again = visual_scores(model, TEXTS[:2], candidates, None, seen)
    assert asked == ["a", "b", "c", "d"] and all(
        np.array_equal(again[k], v)
        for k, v in visual_scores(model, TEXTS[:2], candidates, states).items()
    )
    assert again["sum"][0, 2] != again["sum"][1, 0]  # one picture under two texts


# ---------------------------------------------------------------- both at once


@pytest.mark.parametrize("score", SCORES)
def test_senses_and_pictures_in_one_ranking(model, score):
    its = record(1)
    ranking = rank_together(model, its, states, score)
    u = one_context(model, its)
    single = {
        "plain": lambda v: u @ v[0],
        "fused": lambda v: u @ v[1],
        "sum": lambda v: u @ v[0] + u @ v[1],
    }[score]
    raw = {
        "sense": {c.id: single(one_sense(model, c.gloss)) for c in its.candidates},
        "picture": {n: single(one_picture(model, n)) for n in ("a", "b1", "c1")},
    }
    expected = {
        (kind, k): (v - np.mean(list(them.values()))) / np.std(list(them.values()))
        for kind, them in raw.items()
        for k, v in them.items()
    }
    assert {(e["kind"], e["id"]): e["score"] for e in ranking} == pytest.approx(expected, abs=1e-3)
    assert [e["score"] for e in ranking] == sorted((e["score"] for e in ranking), reverse=True)
    assert {(e["id"], e["sense"]) for e in ranking if e["kind"] == "picture"} == {
        ("a", "m1"),
        ("b1", "m1"),
        ("c1", "c1"),
    }


def test_one_candidate_and_no_pictures_rank_too(model):
    alone = Record("r", "en", ("bat",), (0, 0), (Candidate("m", "mammal"),), ("m",))
    assert rank_together(model, alone, states) == [
        {"kind": "sense", "id": "m", "sense": "m", "score": 0.0}
    ]


def test_a_joint_ranking_is_judged(model, monkeypatch):
    entries = [
        {"kind": "picture", "id": "c1", "sense": "c1", "score": 2.0},
        {"kind": "sense", "id": "m1", "sense": "m1", "score": 1.0},
        {"kind": "picture", "id": "a", "sense": "m1", "score": 0.5},
    ]
    monkeypatch.setattr(evaluate, "rank_together", lambda *args: entries)
    found = multimodal_record(model, record(1), states)
    assert (found["sense_right"], found["picture_right"], found["first_right"], found["gold"]) == (
        True,
        False,
        False,
        "m1",
    )


# ---------------------------------------------------------------- states of pictures


@pytest.fixture
def pictures(tmp_path):
    """Files of five pictures of different shapes."""
    rng, paths = np.random.default_rng(1), []
    for i in range(5):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(rng.integers(0, 255, (40 + 9 * i, 60, 3), dtype=np.uint8)).resize(
            (90, 70)
        ).save(paths[-1])
    return paths


class Small:
    """A processor: 28 px, squashed."""

    def __call__(self, images, return_tensors):
        return {
            "pixel_values": torch.stack(
                [
                    torch.tensor(np.asarray(i.resize((28, 28)), np.float32) / 128 - 1).permute(
                        2, 0, 1
                    )
                    for i in images
                ]
            )
        }


def test_states_are_computed_once_and_kept_in_half_precision(tmp_path, pictures):
    from pathlib import Path

    its = polclip_tiny.backbone(make_config(borrowed=1))
    its.processor, calls, look = Small(), [], its.frozen_look
    its.frozen_look = lambda pixels: calls.append(len(pixels)) or look(pixels)
    keeps = PictureStates(its, folder=tmp_path / "store")
    first = keeps([*pictures, pictures[0]])
    again = PictureStates(its, folder=tmp_path / "store")(pictures[::-1])
    passing = PictureStates(its, keep=False, folder=tmp_path / "none")(pictures)
    assert (
        sum(calls) == 10
        and first.shape == (6, 5, 48)
        and first.dtype == torch.float32
        and not (tmp_path / "none").exists()
    )
    assert (
        torch.equal(first[0], first[5])
        and torch.equal(again.flip(0), first[:5])
        and torch.equal(passing, first[:5])
    )
    exact = look(its.pixels([Image.open(p).convert("RGB") for p in pictures]))
    assert torch.equal(first[:5], exact.half().float()) and not torch.equal(first[:5], exact)
    held = keeps([Held.of(Path(p).name, Path(p).read_bytes()) for p in pictures[:2]])
    assert torch.allclose(held, first[:2], atol=5e-3) and keeps([]).shape == (0, 5, 48)
    with pytest.raises(VwsdError):
        keeps([str(tmp_path / "none.png")])


def test_states_of_another_frozen_part_are_other_states(tmp_path):
    closed, opened = (
        PictureStates(
            polclip_tiny.backbone(make_config(borrowed=1, open_vision=n)), folder=tmp_path
        )
        for n in (0, 1)
    )
    assert closed.files.rows.folder != opened.files.rows.folder


# ---------------------------------------------------------------- the lite encoder as backbone


@pytest.fixture(scope="module")
def encoder():
    return lite.load_lite()


@pytest.fixture
def on_lite(encoder, monkeypatch):
    """Makes the demo's PolCLIP, untrained, on the lite encoder."""
    monkeypatch.setattr(lite_backbone, "load_encoder", lambda name: encoder)
    return lambda **changes: PolClip(make_config("demo", **changes))


def asked():
    return [photo_text("fruit bat"), photo_text("baseball bat", "A club for hitting a ball"), "x"]


def test_plain_scores_of_an_untrained_model_are_the_lite_encoders_cosines(
    on_lite, encoder, pictures, tmp_path
):
    model = on_lite().eval()
    its, shown = (
        PictureStates(model.backbone, folder=tmp_path),
        [
            pictures,
            pictures[::-1],
            pictures,
        ],
    )
    scores = visual_scores(model, asked(), shown, its)
    cosines = (
        encoder.encode_texts(asked())
        @ encoder.encode_images([Image.open(p).convert("RGB") for p in pictures]).T
    )
    assert scores["plain"][[0, 2]] == pytest.approx(cosines[[0, 2]], abs=1e-3) and scores["plain"][
        1
    ][::-1] == pytest.approx(cosines[1], abs=1e-3)
    assert np.ptp(cosines) > 0.02 and np.abs(scores["fused"] - scores["plain"]).max() > 0.02


def test_textual_plain_scores_of_whole_sentences_are_the_lite_encoders_cosines(on_lite, encoder):
    model = on_lite(context="sentence").eval()
    records = [record(i, pictures=False) for i in range(3)]
    scores = textual_scores(model, records)["plain"]
    for its, row in zip(records, scores):
        assert row == pytest.approx(
            (
                encoder.encode_texts([c.gloss for c in its.candidates])
                @ encoder.encode_texts([its.sentence])[0]
            ),
            abs=1e-4,
        )
    spans = textual_scores(on_lite(context="span").eval(), records)["plain"]
    assert max(np.abs(a - b).max() for a, b in zip(spans, scores)) > 1e-3


def lite_data(count=2):
    """Batches of records whose pictures' states are noise."""

    def noise(names):
        rows = [
            torch.rand(
                50,
                lite.FEATURES + text_tower.DIM,
                generator=torch.Generator().manual_seed(sum(map(ord, name))),
            )
            for name in names
        ]
        return torch.stack(rows)

    its = data()
    return type(its)(lambda epoch: polclip_tiny.BATCHES[:count], count, noise, {})


def test_training_changes_the_model_and_not_the_lite_encoder(on_lite, encoder, tmp_path):
    before = (
        encoder.encode_texts(TEXTS).tobytes(),
        lite.head_digest(encoder.head),
    )
    model = on_lite(epochs=1, hidden=64)
    old = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    train(model, lite_data(), tmp_path, save_every=0)
    assert (
        encoder.encode_texts(TEXTS).tobytes(),
        lite.head_digest(encoder.head),
    ) == before
    unmoved = {
        name
        for name, p in model.named_parameters()
        if p.requires_grad and torch.equal(p, old[name])
    }
    assert not unmoved and {name.split(".")[1] for name in old if name.startswith("backbone")} == {
        "text_blocks",
        "ln_post",
        "head",
        "gate",
    }
    assert len(read_log(tmp_path)[0]) == 2 and not any(
        "_lite" in name for name, _ in model.named_parameters()
    )


def test_lite_targets_share_towers_and_what_is_known(on_lite):
    model = on_lite(ema=0.9, hidden=64)
    for name in ("_lite", "_prefix", "_known", "tokenizer"):
        assert getattr(model.target, name) is getattr(model.backbone, name)
    assert model.target.text_blocks[0] is not model.backbone.text_blocks[0]


def test_there_is_no_dropout_on_the_lite_backbone(on_lite):
    model, found = on_lite(hidden=64), []
    from polclip.batches import collate, pictures_of

    its = lite_data()
    batch = collate(
        its.batches(0)[0],
        Coder(model.backbone, model.config),
        its.states(pictures_of(its.batches(0)[0])),
    )
    for mode in (model.train, model.eval, model.train):
        mode()
        with torch.no_grad():
            found.append(model(batch)["loss"].item())
    assert found[0] == found[1] == found[2]


def test_frozen_parts_of_lite_give_the_same_bits_in_any_company(on_lite, pictures):
    its = on_lite(hidden=64).backbone
    pixels = its.pixels([Image.open(p) for p in pictures])
    together, alone = its.frozen_look(pixels), torch.cat([its.frozen_look(p[None]) for p in pixels])
    assert torch.equal(together, alone) and together.shape == (5, 50, 1664)
    coder = Coder(its, make_config("demo"))
    its._known.clear()
    together = its._through_prefix(*(lambda t: (t.ids, t.pads))(coder.texts(TEXTS)))
    for row, text in zip(together, TEXTS):
        its._known.clear()
        one = coder.texts([text])
        assert torch.equal(its._through_prefix(one.ids, one.pads)[0], row[: one.ids.shape[1]])


def test_lite_is_found_by_its_name(on_lite):
    assert type(load_backbone(make_config("demo"))).__name__ == "LiteBackbone"


def test_the_lite_backbone_takes_a_batch_without_pictures(on_lite):
    backbone = load_backbone(make_config("demo"))
    vectors, tokens = backbone.through_text(torch.zeros(0, 5, text_tower.DIM), 1, True)
    assert vectors.shape[0] == tokens.shape[0] == 0
