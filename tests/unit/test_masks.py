"""Scores from masks: statistics against slow twins, a store that gives the same bits in any
company, claims measured with planted truths.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from vwsdlib.analysis import masks
from vwsdlib.analysis.masks import (
    STATISTICS,
    MaskStore,
    association,
    choose_weight,
    mask_contrasts,
    mask_scores,
    mask_statistics,
    mix,
    shared_target_pairs,
    standardise,
)
from vwsdlib.analysis.metrics import gold_ranks, mrr
from vwsdlib.data.items import Item
from vwsdlib.data.sets import VwsdSet, key, load_set, user_set
from vwsdlib.encoders.control import RandomEncoder
from vwsdlib.encoders.store import VectorStore
from vwsdlib.paths import sha256_bytes

SIDE = 20


class Toy:
    """A segmenter whose masks follow from picture and text; counts what goes through it and stops
    when told to.
    """

    name, workers = "toy", 2

    def __init__(self, stop_after=None):
        self.seen, self.looks, self.known, self.stop_after = [], 0, None, stop_after

    def masks(self, image, texts):
        if self.stop_after is not None and len(self.seen) >= self.stop_after:
            raise KeyboardInterrupt
        self.looks += 1
        self.seen += [(image.getpixel((0, 0)), text) for text in texts]
        seeds = [int(sha256_bytes(image.tobytes() + text.encode())[:16], 16) for text in texts]
        return np.stack(
            [np.random.default_rng(seed).normal(0, 3, (SIDE, SIDE)) for seed in seeds]
        ).astype(np.float32)

    def read(self, texts):
        self.known = set(texts)

    def identity(self):
        return {"model": "toy"}


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / f"p{i}.png" for i in range(6)]
    for i, path in enumerate(paths):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(path)
    return paths


@pytest.fixture
def pairs(pictures):
    return [
        (path, text) for text in [f"text {i}" for i in range(30)] for path in pictures
    ]  # 180: three batches


# ---------------------------------------------------------------- one mask


def slow_statistics(logits):
    """The six numbers with a sorted list and exp, in float64."""
    values = sorted((float(x) for x in logits.ravel()), reverse=True)
    p = [1 / (1 + np.exp(-x)) for x in values]
    top = max(1, round(0.05 * len(values)))
    return [
        np.mean(p),
        p[0],
        np.mean(p[:top]),
        np.mean([x > 0.5 for x in p]),
        np.mean(values),
        np.mean(values[:top]),
    ]


@pytest.mark.parametrize("shape, scale", [((20, 20), 1), ((11, 7), 4), ((3, 3), 1), ((1, 1), 2)])
def test_statistics_against_a_slow_twin(shape, scale):
    logits = np.random.default_rng(0).normal(0.3, scale, shape).astype(np.float32)
    found, expected = mask_statistics(logits), slow_statistics(logits)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert len(found) == len(STATISTICS) and all(isinstance(x, float) for x in found)
    assert (
        np.abs(np.subtract(found, slow_statistics(-logits))) > 1e-4 * np.abs(found)
    ).all()  # the twin can fail, in every number


def test_each_statistic_has_its_own_name():
    logits = np.full((20, 20), -2.0, np.float32)
    logits[:2, :10] = 3.0  # 5 % of the places
    s = dict(zip(STATISTICS, mask_statistics(logits)))
    low, high = 1 / (1 + np.exp(2)), 1 / (1 + np.exp(-3))
    expected = {
        "prob_mean": 0.95 * low + 0.05 * high,
        "prob_max": high,
        "prob_top": high,
        "prob_area": 0.05,
        "logit_mean": -1.75,
        "logit_top": 3.0,
    }
    assert s == pytest.approx(expected, rel=1e-5)


def test_sigmoid_is_whole_where_exp_overflows_and_keeps_its_type():
    x = np.array([-1000, -1, 0, 1, 1000], np.float32)
    with np.errstate(all="raise"):
        found = masks.sigmoid(x)
    np.testing.assert_allclose(found, [0, 0.268941, 0.5, 0.731059, 1], atol=1e-6)
    assert found.dtype == np.float32 and masks.sigmoid(x.astype(np.float64)).dtype == np.float64


# ---------------------------------------------------------------- the store of masks


def test_each_pair_goes_through_the_network_once(pairs, pictures, tmp_path):
    segmenter = Toy()
    store = MaskStore(segmenter, tmp_path / "v")
    rows = store.statistics([*pairs, pairs[0]])
    assert (
        rows.shape == (181, len(STATISTICS))
        and rows.dtype == np.float32
        and np.array_equal(rows[0], rows[180])
    )
    assert len(segmenter.seen) == len(set(segmenter.seen)) == 180 and segmenter.looks == len(
        pictures
    )
    assert segmenter.known == {text for _, text in pairs}  # read before, together
    (tmp_path / "copy.png").write_bytes(pictures[2].read_bytes())
    assert np.array_equal(
        store.statistics([(tmp_path / "copy.png", "text 4")])[0],
        rows[pairs.index((pictures[2], "text 4"))],
    )
    again = MaskStore(Toy(), tmp_path / "v")
    assert (
        np.array_equal(again.statistics(pairs), rows[:180])
        and again.segmenter.seen == []
        and len(segmenter.seen) == 180
    )
    assert store.statistics([]).shape == (0, len(STATISTICS))


def test_rows_belong_to_their_pairs(pairs, tmp_path):
    rows = MaskStore(Toy(), tmp_path).statistics(pairs)
    for (path, text), row in list(zip(pairs, rows))[::17]:
        logits = Toy().masks(Image.open(path), [text])[0]
        np.testing.assert_allclose(row, slow_statistics(logits), rtol=1e-5)
    assert len({row.tobytes() for row in rows}) == len(pairs)


def test_the_same_bits_in_any_order_or_subset(pairs, tmp_path):
    rows = MaskStore(Toy(), tmp_path / "a").statistics(pairs)
    assert np.array_equal(MaskStore(Toy(), tmp_path / "b").statistics(pairs[::-1])[::-1], rows)
    assert np.array_equal(MaskStore(Toy(), tmp_path / "c").statistics(pairs[5:50:3]), rows[5:50:3])
    alone = MaskStore(Toy(), tmp_path / "d")
    assert np.array_equal(
        np.concatenate([alone.statistics([pair]) for pair in pairs[:9]]), rows[:9]
    )


def test_a_killed_run_resumes(pairs, tmp_path):
    segmenter = Toy(stop_after=100)
    segmenter.workers = 1
    with pytest.raises(KeyboardInterrupt):
        MaskStore(segmenter, tmp_path / "v").statistics(pairs)
    second = Toy()
    rows = MaskStore(second, tmp_path / "v").statistics(pairs)
    assert (
        0 < len(second.seen) == 180 - 120 and second.looks == 2
    )  # four pictures were done, and kept
    assert np.array_equal(rows, MaskStore(Toy(), tmp_path / "other").statistics(pairs))


def test_masks_and_vectors_of_one_name_do_not_share_a_file(tmp_path):
    other = Toy()
    other.identity = lambda: {"model": "toy", "revision": "2"}
    files = {
        MaskStore(Toy(), tmp_path).path,
        MaskStore(other, tmp_path).path,
        VectorStore(RandomEncoder(), tmp_path).path,
    }
    assert len(files) == 3


def test_mask_scores_have_a_row_an_item_and_a_column_a_candidate(official, tmp_path):
    data = user_set(*official)
    store = MaskStore(Toy(), tmp_path / "v")
    texts = [item.phrase for item in data.items]
    scores = mask_scores(data, store, texts)
    assert list(scores) == list(STATISTICS) and all(
        s.shape == (6, 10) and s.dtype == np.float64 for s in scores.values()
    )
    item, which = data.items[4], 7
    row = store.statistics([(data.path(item.candidates[which]), item.phrase)])[0]
    assert [scores[name][4, which] for name in STATISTICS] == row.astype(np.float64).tolist()
    assert not np.array_equal(
        scores["prob_mean"], mask_scores(data, store, texts[::-1])["prob_mean"]
    )
    ahead, further = MaskStore(Toy(), tmp_path / "w"), [(data.path(item.gold), "another phrase")]
    assert all(
        np.array_equal(found, scores[name])
        for name, found in mask_scores(data, ahead, texts, further).items()
    )
    looks = ahead.segmenter.looks
    assert (
        looks == len({c for item in data.items for c in item.candidates})
        and ahead.statistics(further).any()
        and ahead.segmenter.looks == looks
    )


# ---------------------------------------------------------------- mixtures


def test_standardised_scores():
    scores = np.random.default_rng(0).normal(5, 3, (20, 10))
    scores[3] = 0.1
    found = standardise(scores)
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-12)
    np.testing.assert_allclose(np.delete(found.std(1), 3), 1)
    np.testing.assert_allclose(found, standardise(7 * scores - 2), atol=1e-9)
    assert not found[3].any()


@pytest.mark.parametrize("value", np.random.default_rng(1).normal(0, 10, 12).tolist())
def test_a_row_of_equals_says_nothing(value):
    assert not standardise(np.full((1, 10), value)).any()


def random_scores(n=80, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0.2, 0.05, (n, 10)), rng.normal(-3, 2, (n, 10)), rng.integers(0, 10, n)


def test_weight_0_is_the_cosine_and_weight_1_the_mask():
    cosine, mask, gold = random_scores()
    assert np.array_equal(gold_ranks(mix(cosine, mask, 0), gold), gold_ranks(cosine, gold))
    assert np.array_equal(gold_ranks(mix(cosine, mask, 1), gold), gold_ranks(mask, gold))
    assert not np.array_equal(gold_ranks(mix(cosine, mask, 0.5), gold), gold_ranks(cosine, gold))
    np.testing.assert_allclose(
        mix(cosine, mask, 0.3), 0.7 * standardise(cosine) + 0.3 * standardise(mask)
    )


def test_the_chosen_weight_is_the_best_of_a_slow_search():
    cosine, mask, gold = random_scores()
    mask[np.arange(len(gold)), gold] += 2.5  # the mask knows more
    cosine[np.arange(len(gold)), gold] += 0.03
    slow = [
        mrr(gold_ranks((1 - w) * standardise(cosine) + w * standardise(mask), gold))
        for w in np.arange(11) / 10
    ]
    weight, value = choose_weight(cosine, mask, gold)
    assert (
        value == pytest.approx(max(slow))
        and weight == pytest.approx(np.argmax(slow) / 10)
        and 0 < weight < 1
    )
    assert choose_weight(mask, cosine, gold)[0] == pytest.approx(1 - weight)


def test_ties_go_to_the_smaller_weight():
    cosine, _, gold = random_scores()
    assert choose_weight(cosine, cosine, gold) == (
        0,
        pytest.approx(mrr(gold_ranks(cosine, gold))),
    )  # all weights are equal
    knowing = np.eye(10)[gold]
    assert choose_weight(np.zeros_like(cosine), knowing, gold) == (
        0.1,
        pytest.approx(100),
    )  # every weight above 0 is


# ---------------------------------------------------------------- pairs of items that share a
# target


def items(*facts, language="en"):
    """(target, phrase, gold) each -> items over ten pictures."""
    return tuple(
        Item(f"x.{i}", language, t, p, (g, *(f"other{i}.{j}.png" for j in range(9))), g)
        for i, (t, p, g) in enumerate(facts)
    )


def official_set(items, folder):
    return VwsdSet("vwsd", "en", "test", items, folder / "images", "")


def test_official_pairs_are_of_one_target_and_of_other_golds_and_phrases(tmp_path):
    some = items(
        ("bat", "fruit bat", "a"),
        ("Bat", "baseball bat", "b"),
        ("bat", "baseball  BAT", "c"),
        ("bat", "cricket bat", "a"),
        ("bank", "river bank", "e"),
    )
    data = official_set(some, tmp_path)
    assert key(data.images) == {}
    found = {(a.id, b.id) for a, b in shared_target_pairs(data)}
    without = (
        {(a, b) for a in range(4) for b in range(4) if a != b} - {(1, 2), (2, 1)} - {(0, 3), (3, 0)}
    )  # one phrase; one gold
    assert found == {(f"x.{a}", f"x.{b}") for a, b in without}


def test_two_phrases_of_one_sense_are_not_a_pair(emojiwsd):
    data = load_set("emojiwsd", "en", "test")
    shown = key(data.images)
    found = shared_target_pairs(data)
    senses = [(shown[a.gold]["sense"], shown[b.gold]["sense"]) for a, b in found]
    assert (
        len(found) > 500
        and all(a != b for a, b in senses)
        and all(a.split(".")[0] == b.split(".")[0] for a, b in senses)
    )
    kin = [
        (a, b)
        for a in data.items
        for b in data.items
        if a.id != b.id and shown[a.gold]["sense"] == shown[b.gold]["sense"]
    ]
    assert any(a.gold != b.gold for a, b in kin)  # by the picture alone some would pass
    assert not {(a.id, b.id) for a, b in kin} & {(a.id, b.id) for a, b in found}


class Answering(RandomEncoder):
    """Vectors that know which text belongs to which picture: brightness 0 to 255 against "...
    <brightness>".
    """

    def encode_images(self, images):
        return self._turned([i.convert("L").getpixel((0, 0)) for i in images])

    def encode_texts(self, texts):
        return self._turned([int(t.split()[-1]) for t in texts])

    def _turned(self, values):
        angles = np.array(values) / 255 * np.pi / 2
        return np.stack([np.cos(angles), np.sin(angles), *np.zeros((62, len(angles)))], 1).astype(
            np.float32
        )


def test_contrasts_of_own_and_other_phrase(tmp_path):
    (tmp_path / "images").mkdir()
    data = official_set(
        items(
            ("bat", "fruit 10", "a.png"),
            ("bat", "wooden 200", "b.png"),
            ("bank", "river 100", "c.png"),
        ),
        tmp_path,
    )
    for name, grey in (("a.png", 10), ("b.png", 200), ("c.png", 100)):
        Image.new("RGB", (8, 8), (grey,) * 3).save(data.path(name))
    store, vectors = MaskStore(Toy(), tmp_path / "v"), VectorStore(Answering(), tmp_path / "v")
    first, second = mask_contrasts(data, store, vectors)
    assert (first["id"], first["other"], first["target"]) == ("x.0", "x.1", "bat") and (
        second["id"],
        second["other"],
    ) == ("x.1", "x.0")
    own, foreign = (
        mask_statistics(Toy().masks(Image.open(data.path("a.png")), [text])[0])[0]
        for text in ("fruit 10", "wooden 200")
    )
    assert (first["own"], first["foreign"]) == (
        pytest.approx(own),
        pytest.approx(foreign),
    ) and own != foreign
    assert first["own_cosine"] == pytest.approx(1, abs=1e-6) and first[
        "foreign_cosine"
    ] == pytest.approx(np.cos(190 / 255 * np.pi / 2), abs=1e-6)
    assert second["own_cosine"] > second["foreign_cosine"]
    assert mask_contrasts(official_set(data.items[2:], tmp_path), store, vectors) == []


# ---------------------------------------------------------------- association with being right


@pytest.fixture
def few_draws(monkeypatch):
    monkeypatch.setattr(masks, "BOOTSTRAP", 300)


def planted(effect, n=120, seed=0, group_size=2):
    rng = np.random.default_rng(seed)
    right = rng.random(n) < 0.6
    return SimpleNamespace(
        values=rng.normal(0, 1, n) + effect * right,
        right=right,
        groups=[f"g{i // group_size}" for i in range(n)],
    )


def slow_association(values, right, groups, seed):
    """Draw by draw, with scipy."""
    rng, auc = (
        np.random.default_rng(seed),
        lambda v, r: stats.mannwhitneyu(v[r], v[~r]).statistic / (r.sum() * (~r).sum()),
    )
    members = [np.flatnonzero(np.array(groups) == g) for g in dict.fromkeys(groups)]
    draws = [
        np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        for _ in range(masks.BOOTSTRAP)
    ]
    found = [
        (auc(values[d], right[d]), stats.pointbiserialr(right[d], values[d])[0])
        for d in draws
        if 0 < right[d].sum() < len(d)
    ]
    (auc_low, r_low), (auc_high, r_high) = np.percentile(found, [2.5, 97.5], axis=0)
    far = sum(
        abs(auc(values, rng.permutation(right)) - 0.5) >= abs(auc(values, right) - 0.5) - 1e-12
        for _ in range(masks.BOOTSTRAP)
    )
    return {
        "auc_low": auc_low,
        "auc_high": auc_high,
        "r_low": r_low,
        "r_high": r_high,
        "p": (1 + far) / (masks.BOOTSTRAP + 1),
    }


@pytest.mark.parametrize("decimals", [0, 6])
def test_all_draws_at_once_are_the_draws_one_by_one(decimals, few_draws):
    d = planted(0.5, n=24, group_size=4)  # six targets: some draws hold one kind alone
    d.right[4:] = False
    values, groups = (
        d.values.round(decimals),
        [f"g{9 - i // 4}" for i in range(24)],
    )  # not in the order of their names
    found, slow = (
        association(values, d.right, groups, 3),
        slow_association(values, d.right, groups, 3),
    )
    assert {k: found[k] for k in slow} == pytest.approx(slow, abs=1e-12)
    assert {k: found[k] for k in slow} != pytest.approx(
        slow_association(values, d.right, groups, 4), abs=1e-3
    )


@pytest.mark.parametrize("decimals", [0, 6])  # with many ties and without
def test_auc_and_r_against_slow_twins(decimals, few_draws):
    d = planted(0.5)
    values = d.values.round(decimals)
    pairs = [(a, b) for a in values[d.right] for b in values[~d.right]]
    auc = np.mean([(a > b) + (a == b) / 2 for a, b in pairs])
    found = association(values, d.right, d.groups)
    assert found["auc"] == pytest.approx(auc) and found["r"] == pytest.approx(
        stats.pointbiserialr(d.right, values)[0]
    )
    assert found["auc"] == pytest.approx(
        stats.mannwhitneyu(values[d.right], values[~d.right]).statistic / len(pairs)
    )
    assert (
        found["auc_low"] < found["auc"] < found["auc_high"]
        and found["r_low"] < found["r"] < found["r_high"]
    )
    assert (found["n"], found["k"], found["targets"]) == (120, int(d.right.sum()), 60)
    backwards = association(-values, d.right, d.groups)
    assert backwards["auc"] == pytest.approx(1 - auc) and backwards["r"] == pytest.approx(
        -found["r"]
    )


def test_a_planted_effect_is_found_and_a_shuffled_one_is_not():
    d = planted(1.0)
    found = association(d.values, d.right, d.groups)
    assert found["p"] < 0.002 and found["auc_low"] > 0.5 and found["r_low"] > 0
    shuffled = np.random.default_rng(5).permutation(d.values)
    none = association(shuffled, d.right, d.groups)
    assert (
        none["p"] > 0.05
        and none["auc_low"] < 0.5 < none["auc_high"]
        and none["r_low"] < 0 < none["r_high"]
    )
    assert association(d.values, d.right, d.groups) == found  # seeded


def test_p_agrees_with_the_mann_whitney_test():
    d = planted(0.35, seed=1)
    expected = stats.mannwhitneyu(d.values[d.right], d.values[~d.right]).pvalue
    assert (
        association(d.values, d.right, d.groups)["p"] == pytest.approx(expected, abs=0.02)
        and 0.02 < expected < 0.3
    )


def test_p_is_uniform_where_there_is_nothing(few_draws):
    rng = np.random.default_rng(0)
    p = [
        association(rng.normal(size=30), np.arange(30) < 15, [str(i) for i in range(30)], seed)["p"]
        for seed in range(40)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.01 and np.mean(np.array(p) < 0.05) < 0.2


def test_copies_within_a_group_widen_the_interval(few_draws):
    d = planted(0.6, n=40)
    values, right = np.repeat(d.values, 6), np.repeat(d.right, 6)
    honest = association(values, right, [f"g{i // 6}" for i in range(len(values))])
    naive = association(values, right, [f"g{i}" for i in range(len(values))])
    width = {
        name: found["auc_high"] - found["auc_low"]
        for name, found in (("honest", honest), ("naive", naive))
    }
    assert (
        width["honest"] == pytest.approx(width["naive"] * 6**0.5, rel=0.25)
        and honest["auc"] == naive["auc"]
    )
    single = association(d.values, d.right, [f"g{i}" for i in range(40)])
    assert width["honest"] == pytest.approx(
        single["auc_high"] - single["auc_low"], rel=0.15
    )  # six copies tell no more than one
