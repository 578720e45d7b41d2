"""EmojiWSD keeps its promises: sizes, rules of writing, nothing to be had without the text, the
same bytes everywhere.
"""

import json
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from vwsd_standins.emojiwsd import build
from vwsd_standins.emojiwsd.arrange import kinds
from vwsd_standins.emojiwsd.drawings import drawable
from vwsd_standins.emojiwsd.senses import SPLITS, sense_emoji, senses
from vwsdlib.analysis.audit import audit, expected_hits
from vwsdlib.data.items import normalise
from vwsdlib.data.sets import key, load_set

FILES = [(language, split) for language in build.LANGUAGES for split in SPLITS]


@pytest.fixture(scope="module")
def sets(emojiwsd):
    return {part: load_set("emojiwsd", *part) for part in FILES}


def total(sets, language):
    return sum(len(sets[language, split].items) for split in SPLITS)


def test_sizes(sets):
    assert len({s.lemma for s in senses()}) >= 120 and len(senses()) >= 280
    assert total(sets, "en") >= 560 and total(sets, "it") >= 150 and total(sets, "fa") >= 150
    assert min(Counter(s.lemma for s in senses()).values()) >= 2


def test_every_sense_has_an_emoji_of_its_own_drawable_in_both_styles():
    assert len(sense_emoji()) == len(senses()) and sense_emoji() <= drawable().keys()


def test_phrases_follow_the_rules_of_writing():
    for s in senses():
        for phrase in s.phrases:
            assert (
                s.lemma in phrase.split()
                and 2 <= len(phrase.split()) <= 3
                and phrase == phrase.lower()
            ), phrase
        for target, phrase in (s.it, s.fa):
            assert target in phrase.split() and 2 <= len(phrase.split()) <= 5, phrase
        assert not set("يك") & set(s.fa[1]), f"Arabic letters: {s.fa[1]}"
        assert s.lemma not in s.gloss.split(), s.id
        assert all(t.count("*") == 2 for t in s.sentences), s.id


def test_no_phrase_gloss_or_sentence_twice(sets):
    for language in build.LANGUAGES:
        phrases = Counter(
            normalise(i.phrase) for split in SPLITS for i in sets[language, split].items
        )
        assert phrases.most_common(1)[0][1] == 1, phrases.most_common(3)
    for texts in (
        Counter(s.gloss for s in senses()),
        Counter(t for s in senses() for t in s.sentences),
    ):
        assert texts.most_common(1)[0][1] == 1


def test_splits_share_no_lemma_and_no_picture(sets):
    lemmas = {split: {s.lemma for s in senses() if s.split == split} for split in SPLITS}
    assert not lemmas["dev"] & lemmas["test"]
    images = {
        split: {
            c
            for language in build.LANGUAGES
            for i in sets[language, split].items
            for c in i.candidates
        }
        for split in SPLITS
    }
    assert not images["dev"] & images["test"]


@pytest.mark.parametrize("part", FILES, ids=lambda p: ".".join(p))
def test_candidates_are_fair(sets, part):
    """Gold once, all other senses there, no concept twice, nothing that also answers the phrase."""
    data, by_emoji = sets[part], {s.emoji: s for s in senses()}
    shown, lemmas = key(data.images), defaultdict(set)
    for s in senses():
        lemmas[s.lemma].add(s.emoji)
    for item in data.items:
        emoji = [shown[c]["emoji"] for c in item.candidates]
        sense = by_emoji[shown[item.gold]["emoji"]]
        assert item.candidates.count(item.gold) == 1 and len(set(emoji)) == 10
        assert lemmas[sense.lemma] <= set(emoji) and not sense.not_with & set(emoji)
        assert item.phrase in {*sense.phrases, sense.it[1], sense.fa[1]}


@pytest.mark.parametrize("part", FILES, ids=lambda p: ".".join(p))
def test_no_text_rules_are_at_chance(sets, part):
    data = sets[part]
    found = audit(data.items)
    assert found["rarest"] == pytest.approx(10) and found["most_frequent"] == pytest.approx(10)
    assert max(found["position_counts"]) - min(found["position_counts"]) <= 1
    assert set(Counter(c for i in data.items for c in i.candidates).values()) == {
        10
    }  # every picture ten slots
    assert set(Counter(i.gold for i in data.items).values()) == {1}  # and gold in one


@pytest.mark.parametrize("part", FILES, ids=lambda p: ".".join(p))
def test_neither_kind_nor_style_marks_the_gold(sets, part):
    """Rules that see what is drawn but not the text: the odd one out or in, by kind and by drawing
    style; all within the range of chance.
    """
    data = sets[part]
    shown = key(data.images)
    kind = kinds(
        [s for s in senses() if s.split == part[1]],
        {e: (d.group, d.subgroup) for e, d in drawable().items()},
    )
    views = {
        "kind": lambda name: kind[shown[name]["emoji"]],
        "style": lambda name: shown[name]["style"],
    }
    low, high = audit(data.items)["intervals"]["chance"]
    for view, of in views.items():
        for sign in (1, -1):
            hit = [
                expected_hits(
                    i,
                    [sign * [of(c) for c in i.candidates].count(of(name)) for name in i.candidates],
                )
                for i in data.items
            ]
            assert low <= 100 * np.mean(hit) <= high, (view, sign, 100 * np.mean(hit))


def test_gold_drawings_are_half_and_half(sets):
    for part in FILES:
        styles = Counter(key(sets[part].images)[i.gold]["style"] for i in sets[part].items)
        share = styles["openmoji"] / sum(styles.values())
        assert share == 0.5 if part[0] == "en" else 0.4 < share < 0.6


def test_a_leaky_set_would_be_seen(sets):
    """The twin: put one and the same picture beside every gold, and the rules find it."""
    from dataclasses import replace

    items = sets["en", "test"].items
    leaky = [
        replace(
            i,
            candidates=tuple(
                "wallpaper.png" if n == (i.gold_index + 1) % 10 else c
                for n, c in enumerate(i.candidates)
            ),
        )
        for i in items
    ]
    assert audit(leaky)["rarest"] > 10.5 and audit(leaky)["most_frequent"] < 9.5


def test_same_text_and_pixels_as_the_reference_build(emojiwsd):
    assert build.differs_from_reference(emojiwsd) == []
    manifest = json.loads((emojiwsd / "manifest.json").read_text())
    for name in ("images/image.0.png", "scenes/scene.7.png", "scenes/scene.7.mask.png"):
        with Image.open(emojiwsd / name) as picture:
            assert build.pixels_sha256(picture) == manifest["files"][name]


def test_arrangement_is_the_same_again(sets):
    assert tuple(build.items("it", "dev", build._image_names())) == sets["it", "dev"].items


def test_interrupted_build_leaves_what_was_there(emojiwsd, tmp_path, monkeypatch):
    target = tmp_path / "emojiwsd"
    (target / "images").mkdir(parents=True)
    (target / "old.txt").write_text("old")
    monkeypatch.setattr(
        build,
        "_write_pictures",
        lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    monkeypatch.setattr(build, "items", lambda *a: load_set("emojiwsd", "fa", "dev").items)
    with pytest.raises(build.VwsdError, match="No space left"):
        build.build(target, force=True)
    assert (target / "old.txt").read_text() == "old" and not (
        tmp_path / ".emojiwsd.building"
    ).exists()


def test_scenes_have_exact_masks(emojiwsd):
    records = [
        json.loads(line) for line in (emojiwsd / "scenes" / "scenes.jsonl").read_text().splitlines()
    ]
    assert len(records) == len(senses())
    for record in records[::40]:
        mask = np.asarray(Image.open(emojiwsd / "scenes" / record["mask"]))
        picture = np.asarray(Image.open(emojiwsd / "scenes" / record["image"]))
        assert picture.shape == (*mask.shape, 3) and mask.max() == len(record["objects"])
        for o in record["objects"]:
            rows, columns = np.nonzero(mask == o["index"])
            assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == o["box"]
        own = next(o for o in record["objects"] if o["index"] == record["index"])
        assert own["sense"] == record["sense"]
        assert (
            sum(o["sense"].split(".")[0] == record["target"] for o in record["objects"]) >= 2
        )  # another sense of the word is there


def test_sentences_mark_their_target(emojiwsd):
    for split in SPLITS:
        for line in (emojiwsd / f"en.{split}.wsd.jsonl").read_text().splitlines():
            r = json.loads(line)
            assert (
                r["text"][r["start"] : r["end"]].lower().startswith(r["lemma"][:3])
                and "*" not in r["text"]
            )
            assert r["gold"] in r["candidates"] and len(r["candidates"]) == len(r["glosses"]) >= 2
