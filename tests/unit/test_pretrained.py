"""Encoders from (tiny, random) checkpoints in the published formats, against transformers' own
models and against naive versions.
"""

import functools
import json
import shutil
import socket
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from vwsd_standins.rehearsal.models import (
    CLIP_STATISTICS,
    IMAGENET_STATISTICS,
    REPOS,
    make_models,
)
from vwsdlib.data.pictures import load_picture
from vwsdlib.encoders import registry
from vwsdlib.encoders.checkpoints import CHECKPOINTS, find
from vwsdlib.encoders.clipseg import DECODER_BATCH, ClipSegSegmenter, inner_clip_differences
from vwsdlib.encoders.pretrained import RECIPES, TEXT_BATCH, load_pretrained, square_of
from vwsdlib.encoders.store import VectorStore
from vwsdlib.encoders.towers import fold_quick_gelu, two_products
from vwsdlib.errors import VwsdError

CLIPS = [
    "clip-vit-b32",
    "clip-vit-b16",
    "clip-vit-l14",
    "clip-vit-l14-336",
    "openclip-h14",
    "clip-vit-b16-352",
    "clip-vit-b16-352-imagenet",
    "clip-vit-b16-352-squash",
    "clip-vit-b16-352-squash-bilinear",
]
SIGLIPS = ["siglip-multilingual", "siglip2-base", "siglip2-large", "siglip2-so400m"]
PUBLISHED = [name for name, entry in registry.ENCODERS.items() if "pretrained" in entry.loader]
TEXTS = [
    "fruit bat",
    "andromeda tree",
    "gomma per smacchiare",
    "درخت آندرومدا",
    "caffè è già",
    "漢字 🦇",
    "the thin end of the thin thing",
    "x",
]


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory):
    """Folder of the tiny checkpoints, as $VWSD_MODELS; any use of the network fails."""

    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    with pytest.MonkeyPatch.context() as m:
        folder = make_models(tmp_path_factory.mktemp("models"))
        m.setenv("VWSD_MODELS", str(folder))
        m.setenv("VWSD_CACHE", str(tmp_path_factory.mktemp("cache")))
        m.setattr(socket.socket, "connect", refuse)
        m.setattr(socket, "getaddrinfo", refuse)
        yield folder


encoder = functools.cache(load_pretrained)


@functools.cache
def pictures(n, seed=0):
    """Pictures of many shapes, with edges and noise."""
    rng = np.random.default_rng(seed)
    small = [
        Image.fromarray(rng.integers(0, 256, (int(h), int(w), 3), dtype=np.uint8))
        for h, w in rng.integers(3, 40, (n, 2))
    ]
    return [
        image.resize((int(w), int(h)), Image.Resampling.NEAREST)
        for image, (w, h) in zip(small, rng.integers(60, 420, (n, 2)))
    ]


def texts(n):
    return [f"{TEXTS[i % len(TEXTS)]} {i // len(TEXTS) or ''}".strip() for i in range(n)]


def reference(name, n, folder=None, **tokens):
    """(cosines, logits_per_text) [n, n] as transformers' own classes compute them, with its own
    padding of texts.
    """
    recipe = RECIPES[name]
    folder = folder or find(recipe.checkpoint).folder
    processor = getattr(transformers, recipe.processor).from_pretrained(folder, **recipe.override)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    siglip = recipe.model == "SiglipModel"
    words = tokenizer(
        texts(n),
        return_tensors="pt",
        **(
            tokens or ({"padding": "max_length", "max_length": 64} if siglip else {"padding": True})
        ),
    )
    model = getattr(transformers, recipe.model).from_pretrained(folder).eval()
    pixels = processor(pictures(n), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        out = model(
            **words,
            pixel_values=pixels,
            interpolate_pos_encoding=pixels.shape[-1] != model.config.vision_config.image_size,
        )
    return (out.text_embeds @ out.image_embeds.T).numpy(), out.logits_per_text.numpy()


def ours(one, n):
    return one.encode_texts(texts(n)) @ one.encode_images(pictures(n)).T


SIZES = [(name, 10) for name in [*CLIPS, "clipseg-rd64", *SIGLIPS]]
SIZES += [(name, n) for name in ("clip-vit-b32", "clipseg-rd64", "siglip2-base") for n in (1, 64)]


@pytest.mark.parametrize("name, n", SIZES)
def test_scores_and_their_order_are_those_of_transformers(name, n):
    scores = ours(encoder(name), n)
    cosines, logits = reference(name, n)
    assert np.abs(scores - cosines).max() < 1e-5
    assert (
        np.diff(np.take_along_axis(scores, np.argsort(logits, 1), 1), axis=1).min(initial=0) > -2e-6
    )
    if n > 1:  # the check can fail: other texts, other order
        assert np.abs(scores - np.roll(cosines, 1, 0)).max() > 1e-2
        assert (
            np.diff(
                np.take_along_axis(scores, np.argsort(np.roll(logits, 1, 0), 1), 1), axis=1
            ).min()
            < -1e-3
        )


@pytest.mark.parametrize("name", PUBLISHED)
def test_pictures_are_shrunk_to_the_very_pixels_of_the_processor(name):
    its = encoder(name)
    squares = np.stack([its.preparation(image) for image in pictures(24)])
    assert squares.dtype == np.uint8
    rows = its.processor(
        list(squares),
        do_resize=False,
        do_center_crop=False,
        input_data_format="channels_last",
        return_tensors="pt",
    )["pixel_values"]
    whole = its.processor(pictures(24), return_tensors="pt")["pixel_values"]
    assert torch.equal(rows, whole) and (its.pixels(pictures(24)) - whole).abs().max() < 2e-6
    other = replace(its.preparation, resample=0)  # the check can fail
    assert not np.array_equal(np.stack([other(image) for image in pictures(24)]), squares)


def test_an_unknown_shape_of_pictures_is_refused():
    for options in (
        {"size": {"height": 200, "width": 100}, "do_center_crop": False},
        {"size": {"height": 9, "width": 9}, "do_center_crop": True},
        {"do_normalize": False},
    ):
        with pytest.raises(VwsdError, match="not known here"):
            square_of(transformers.CLIPImageProcessorPil(**options))


def test_the_draft_variant_sees_slightly_other_pixels_and_says_so(tmp_path):
    rough, exact = load_pretrained("clip-vit-b32", "bf16-draft"), encoder("clip-vit-b32")
    assert (
        rough.name == "clip-vit-b32@bf16-draft"
        and rough.dtype == torch.bfloat16
        and rough.preparation == replace(exact.preparation, draft=True, quick=True)
    )
    assert (
        rough.identity()["processor"]
        != exact.identity()["processor"]
        == encoder("clip-vit-b32").identity()["processor"]
    )
    y, x = np.mgrid[:1000, :1400] / 80
    Image.fromarray(
        np.uint8(np.stack([127 + 120 * np.sin(x * f + y) for f in (1, 2, 3)], -1))
    ).save(tmp_path / "a.jpg", quality=90)
    full, shrunk = (
        load_picture(tmp_path / "a.jpg").image,
        load_picture(tmp_path / "a.jpg", enough=rough.preparation.enough).image,
    )
    assert full.size == (1400, 1000) and shrunk.size == (700, 500)  # not below twice 224
    difference = np.abs(rough.preparation(full).astype(int) - rough.preparation(shrunk))
    assert 0 < difference.max() < 12


@pytest.mark.parametrize("name", ["clip-vit-b32", "clipseg-rd64"])
def test_quick_resizing_is_off_by_a_level_here_and_there(name):
    quick, exact = load_pretrained(name, "quick"), encoder(name)
    assert quick.dtype == torch.float32 and quick.preparation == replace(
        exact.preparation, quick=True
    )
    assert quick.identity()["processor"] != exact.identity()["processor"]
    off = np.abs(
        np.stack(
            [
                quick.preparation(image).astype(int) - exact.preparation(image)
                for image in pictures(24)
            ]
        )
    )
    assert off.max() <= 2 and 0 < (off > 0).mean() < 0.02
    cosines = (quick.encode_images(pictures(24)) * exact.encode_images(pictures(24))).sum(1)
    assert (
        cosines.min() > 0.9999
    )  # random weights are touchy: trained ones are expected to move less


def test_half_precision_attends_in_two_products():
    half, exact = load_pretrained("clip-vit-b32", "bf16"), encoder("clip-vit-b32")
    assert (half.attention, exact.attention) == (
        "two products",
        "sdpa",
    ) and "two products" in half.identity()["processor"]
    assert (
        half.model.config.vision_config._attn_implementation == "two products"
        and half.model.config.text_config._attn_implementation == "sdpa"
    )
    query, key, value = torch.randn(3, 2, 4, 9, 8, generator=torch.Generator().manual_seed(0))
    found, weights = two_products(None, query, key, value, None, 8**-0.5)
    assert weights is None and torch.allclose(
        found,
        torch.nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2),
        atol=1e-6,
    )
    assert (half.encode_images(pictures(5)) * exact.encode_images(pictures(5))).sum(1).min() > 0.999


@pytest.mark.parametrize("name", ["clip-vit-b32", "clipseg-rd64", "openclip-h14", "siglip2-base"])
def test_quick_gelu_is_folded_where_it_is_and_nowhere_else(name):
    half = load_pretrained(name, "bf16")
    assert (
        half.folded
        == (half.model.config.vision_config.hidden_act == "quick_gelu")
        == ("quick GELU folded" in half.identity()["processor"])
    )
    assert not encoder(name).folded and "folded" not in encoder(name).identity()["processor"]
    if half.folded:
        exact = encoder(name).model.vision_model.encoder.layers[0].mlp
        short = deepcopy(encoder(name).model.vision_model)
        fold_quick_gelu(short)
        states = torch.randn(
            3, 5, short.config.hidden_size, generator=torch.Generator().manual_seed(0)
        )
        assert torch.allclose(
            short.encoder.layers[0].mlp(states), exact(states), atol=1e-6
        ) and not torch.equal(short.encoder.layers[0].mlp.fc1.weight, exact.fc1.weight)
    assert (half.encode_images(pictures(5)) * encoder(name).encode_images(pictures(5))).sum(
        1
    ).min() > 0.999
    assert np.isfinite(half.relevance(half.pixels(pictures(1)), half.encode_texts(["a"]))).all()


def changed(tmp_path, monkeypatch, name, file, **change):
    """The encoder `name` from a copy of its checkpoint with a changed file."""
    repo = CHECKPOINTS[RECIPES[name].checkpoint].repo
    shutil.copytree(find(RECIPES[name].checkpoint).folder, tmp_path / repo)
    path = tmp_path / repo / file
    content = json.loads(path.read_text())
    for part in ("text_config", "vision_config") if file == "config.json" else ():
        content[part] |= change
    path.write_text(json.dumps(content | (change if file != "config.json" else {})))
    monkeypatch.setenv("VWSD_MODELS", str(tmp_path))
    return load_pretrained(name)


@pytest.mark.parametrize(
    "name, file, change",
    [
        ("clip-vit-b32", "preprocessor_config.json", IMAGENET_STATISTICS),
        ("clip-vit-b32", "preprocessor_config.json", {"resample": 2}),
        (
            "clip-vit-b32",
            "preprocessor_config.json",
            {"do_center_crop": False, "size": {"height": 224, "width": 224}},
        ),
        ("clip-vit-b32", "config.json", {"hidden_act": "gelu"}),
        ("openclip-h14", "config.json", {"hidden_act": "quick_gelu"}),
        ("clipseg-rd64", "preprocessor_config.json", CLIP_STATISTICS),
        ("clipseg-rd64", "preprocessor_config.json", {"resample": 3}),
        ("clipseg-rd64", "config.json", {"hidden_act": "gelu"}),
        ("siglip2-base", "preprocessor_config.json", CLIP_STATISTICS),
        ("siglip2-base", "preprocessor_config.json", {"resample": 3}),
        ("siglip2-base", "config.json", {"hidden_act": "quick_gelu"}),
    ],
)
def test_a_swapped_normalisation_crop_interpolation_or_activation_shows(
    tmp_path, monkeypatch, name, file, change
):
    expected, _ = reference(name, 4)
    assert np.abs(ours(encoder(name), 4) - expected).max() < 1e-5
    twin = changed(tmp_path, monkeypatch, name, file, **change)
    assert np.abs(ours(twin, 4) - expected).max() > 1e-4
    assert twin.identity() != encoder(name).identity() or file == "config.json"


def naive_pixels(image, side, crop, resample, mean, std):
    """Written apart from any library's processor: Pillow resizes, NumPy cuts and scales."""
    w, h = image.size
    size = (
        (side, side)
        if not crop
        else (side, int(side * h / w))
        if w <= h
        else (int(side * w / h), side)
    )
    values = np.asarray(image.resize(size, resample), np.float64)
    if crop:
        top, left = (size[1] - side) // 2, (size[0] - side) // 2
        values = values[top : top + side, left : left + side]
    return ((values / 255 - mean) / std).transpose(2, 0, 1)


BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
NET_MEAN, NET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PREPARED = {
    "clip-vit-b32": (224, True, BICUBIC, CLIP_MEAN, CLIP_STD),
    "clip-vit-l14-336": (336, True, BICUBIC, CLIP_MEAN, CLIP_STD),
    "openclip-h14": (224, True, BICUBIC, CLIP_MEAN, CLIP_STD),
    "clip-vit-b16-352": (352, True, BICUBIC, CLIP_MEAN, CLIP_STD),
    "clip-vit-b16-352-imagenet": (352, True, BICUBIC, NET_MEAN, NET_STD),
    "clip-vit-b16-352-squash": (352, False, BICUBIC, NET_MEAN, NET_STD),
    "clip-vit-b16-352-squash-bilinear": (352, False, BILINEAR, NET_MEAN, NET_STD),
    "clipseg-rd64": (352, False, BILINEAR, NET_MEAN, NET_STD),
    "siglip2-base": (256, False, BILINEAR, [0.5] * 3, [0.5] * 3),
}


@pytest.mark.parametrize("name", PREPARED)
def test_preparation_of_pictures(name):
    recipe, got = RECIPES[name], encoder(name).pixels(pictures(6)).numpy()
    processor = getattr(transformers, recipe.processor).from_pretrained(
        find(recipe.checkpoint).folder, **recipe.override
    )
    assert (
        np.abs(got - processor(pictures(6), return_tensors="np")["pixel_values"]).max() < 2e-6
        and got.dtype == np.float32
    )
    side, crop, resample, mean, std = PREPARED[name]

    def naive(*how):
        return np.abs(got - np.stack([naive_pixels(image, *how) for image in pictures(6)])).max()

    assert naive(side, crop, resample, mean, std) < 1e-6
    other = BILINEAR if resample == BICUBIC else BICUBIC
    for twin in (
        (side, not crop, resample, mean, std),
        (side, crop, other, mean, std),
        (side, crop, resample, [0.4] * 3, std),
    ):
        assert naive(*twin) > 1e-3


@pytest.mark.parametrize(
    "name", ["clip-vit-b32", "clip-vit-b16-352", "clip-vit-b16-352-squash", "siglip2-base"]
)
def test_window_is_what_the_network_sees(name):
    """Paint outside the window: the pixels stay (but for the resizing filter's reach); inside: they
    change.
    """
    one = encoder(name)
    image = Image.new("RGB", (300, 180), "white")
    left, top, right, bottom = one.window(image.size)
    assert (left, top, right, bottom) == (
        (0, 0, 300, 180) if "squash" in name or "siglip" in name else (60, 0, 240, 180)
    )
    for x, inside in ((left - 12, False), (left + 4, True), (right + 4, False), (right - 12, True)):
        if 0 <= x < 300:
            painted = image.copy()
            painted.paste("black", (int(x), 0, int(x) + 8, 180))
            assert (one.pixels([painted]) != one.pixels([image])).any().item() == inside


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_row_does_not_depend_on_its_neighbours(name):
    one, images, words = encoder(name), pictures(6), texts(TEXT_BATCH + 2)
    rows, read = one.encode_images(images), one.encode_texts(words)
    assert rows.dtype == read.dtype == np.float32 and rows.shape == (6, one.dim)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6) and np.allclose(
        np.linalg.norm(read, axis=1), 1, atol=1e-6
    )
    assert np.array_equal(rows[4:5], one.encode_images(images[4:5])) and np.array_equal(
        rows[::-1], one.encode_images(images[::-1])
    )
    assert np.array_equal(read[3:4], one.encode_texts(words[3:4])) and np.array_equal(
        read[::-1], one.encode_texts(words[::-1])
    )
    assert one.encode_images([]).shape == one.encode_texts([]).shape == (0, one.dim)


@pytest.mark.parametrize("name", SIGLIPS)
def test_siglip_reads_its_padding(name):
    right = reference(name, 4)[0]
    short = reference(name, 4, padding=True)[0]
    masked = reference(name, 4, padding="max_length", max_length=64, return_attention_mask=True)[0]
    assert (
        np.abs(ours(encoder(name), 4) - right).max()
        < 1e-5
        < 1e-3
        < min(np.abs(short - right).max(), np.abs(masked - right).max())
    )


def test_siglip2_reads_lower_case_and_clip_cuts_at_77():
    one = encoder("siglip2-base")
    assert np.array_equal(one.encode_texts(["Fruit BAT"]), one.encode_texts(["fruit bat"]))
    assert (
        "lower"
        not in json.dumps(
            one.tokenizer.backend_tokenizer.normalizer.__getstate__().decode()
        ).lower()
    )  # so the encoder does it
    long = encoder("clip-vit-b32").encode_texts(
        ["a b c d e " * 40, "a b c d e " * 50, "a b c d e " * 10]
    )
    assert np.array_equal(long[0], long[1]) and not np.array_equal(long[0], long[2])


@pytest.mark.parametrize(
    "name, part", [("mclip", "XLMRobertaModel"), ("clip-b32-multilingual", "DistilBertModel")]
)
def test_text_towers_average_the_tokens_and_map_them(models, name, part):
    folder = models / CHECKPOINTS[name].repo
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if name == "mclip":
        tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
        model = transformers.XLMRobertaModel(
            transformers.XLMRobertaConfig(
                **json.loads((folder / "config.json").read_text())["xlm_config"]
            )
        ).eval()
        model.load_state_dict(
            {
                k.removeprefix("transformer."): v
                for k, v in tensors.items()
                if k.startswith("transformer.")
            }
        )
        weight, bias = tensors["LinearTransformation.weight"], tensors["LinearTransformation.bias"]
    else:
        model = transformers.DistilBertModel.from_pretrained(folder).eval()
        weight, bias = (
            torch.load(folder / "2_Dense/pytorch_model.bin", weights_only=True)["linear.weight"],
            0,
        )
    for text in [*TEXTS, "parole " * 20, "parole " * 60]:
        with torch.no_grad():  # alone and without padding, so that a plain mean is right
            states = model(
                **tokenizer(text, truncation=True, max_length=128, return_tensors="pt")
            ).last_hidden_state[0]
        vector = (weight @ states.mean(0) + bias).numpy()
        got = encoder(name).encode_texts([text])[0]
        assert np.abs(got - vector / np.linalg.norm(vector)).max() < 1e-5
        first = (weight @ states[0] + bias).numpy()
        assert np.abs(got - first / np.linalg.norm(first)).max() > 1e-3
    assert np.array_equal(
        encoder(name).encode_images(pictures(2)), encoder("clip-vit-b32").encode_images(pictures(2))
    )


@pytest.mark.parametrize("name", ["clip-vit-b32", "clipseg-rd64", "siglip2-base", "mclip"])
@pytest.mark.parametrize("dtype, word", [("bf16", "bfloat16"), ("fp16", "float16")])
def test_halves_drift_and_say_so(name, dtype, word):
    half, full = load_pretrained(name, dtype), encoder(name)
    assert (
        half.name == f"{name}@{dtype}"
        and half.identity()["dtype"] == word
        and full.identity()["dtype"] == "float32"
    )
    drift = np.abs(half.encode_images(pictures(3)) - full.encode_images(pictures(3))).max()
    assert 0 < drift < (0.1 if dtype == "bf16" else 0.02)
    assert half.encode_texts(TEXTS).dtype == np.float32


def test_registry_understands_variants():
    assert registry.entry("clip-vit-b32@bf16") is registry.ENCODERS["clip-vit-b32"]
    assert registry.load_encoder("siglip2-base@bf16").name == "siglip2-base@bf16"
    registry.load_encoder.cache_clear()
    for name, words in (
        ("clip-vit-b32@int8", "no variant 'int8'"),
        ("lite@bf16", "no variant"),
        ("clip-vit-b23", "no encoder"),
    ):
        with pytest.raises(VwsdError, match=words):
            registry.load_encoder(name)
    with pytest.raises(VwsdError, match="no segmenter"):
        registry.load_segmenter("clip-vit-b32")


def test_the_last_control_is_clipseg_where_the_inner_clip_is_the_same(models):
    """352 px, ImageNet statistics, squashed, bilinear: what is left between CLIP B/16 and CLIPSeg's
    dual encoder is nothing.
    """
    names = (
        "clip-vit-b16",
        "clip-vit-b16-352",
        "clip-vit-b16-352-imagenet",
        "clip-vit-b16-352-squash",
        "clip-vit-b16-352-squash-bilinear",
    )
    gaps = [
        np.abs(ours(encoder(name), 4) - ours(encoder("clipseg-rd64"), 4)).max() for name in names
    ]
    assert gaps[-1] < 1e-5 and min(gaps[:-1]) > 1e-3
    assert len({json.dumps(encoder(name).identity()) for name in names}) == len(names)


@pytest.mark.parametrize("variant", ["bf16", "fp16"])
def test_a_variant_that_has_encoded_still_gives_its_map(variant):
    one = load_pretrained("clip-vit-b32", variant)
    words = one.encode_texts(TEXTS[:2])  # in inference mode, where weights are read on first use
    assert one.relevance(one.pixels(pictures(1)), words).shape == (2, 7, 7)


@pytest.mark.parametrize(
    "name", ["clip-vit-b32", "clip-vit-b16-352", "clipseg-rd64", "siglip2-base"]
)
def test_relevance_by_the_formula(name):
    one, words = encoder(name), encoder(name).encode_texts(TEXTS[:3])
    pixels = one.pixels(pictures(2)[1:])
    before = pixels.clone()
    got = one.relevance(pixels, words)
    grid = pixels.shape[-1] // one.patch
    assert (
        got.shape == (3, grid, grid)
        and got.dtype == np.float32
        and got.min() >= 0
        and got.max() > 0
    )
    assert torch.equal(pixels, before) and not any(
        p.requires_grad or p.grad is not None for p in one.model.parameters()
    )
    vision = (
        getattr(transformers, RECIPES[name].model)
        .from_pretrained(one.files[0].folder, attn_implementation="eager")
        .eval()
    )
    for text, map_ in zip(words, got):
        seen = vision.get_image_features(
            pixels, interpolate_pos_encoding=True, output_attentions=True
        )
        score = torch.cosine_similarity(seen.pooler_output, torch.tensor(text)[None])
        parts = [seen.last_hidden_state] if "siglip" in name else list(seen.attentions)
        slopes = [g.numpy()[0] for g in torch.autograd.grad(score, parts)]
        values = [p.detach().numpy()[0] for p in parts]
        if "siglip" in name:
            naive = np.maximum((values[0] * slopes[0].mean(0)).sum(1), 0)
        else:
            total = np.eye(values[0].shape[-1])
            for value, slope in zip(values, slopes):
                total = (
                    total + np.mean([np.maximum(v * s, 0) for v, s in zip(value, slope)], 0) @ total
                )
            naive = total[0, 1:]
        assert np.abs(map_ - naive.reshape(grid, grid)).max() < 1e-5 * max(1, naive.max())
        assert np.abs(map_ - naive.reshape(grid, grid).T).max() > 1e-4 * naive.max()


def test_clipseg_is_read_by_releases_of_transformers_that_take_its_prefix_for_another(monkeypatch):
    before = encoder("clipseg-rd64").encode_texts(["fruit bat"])
    monkeypatch.setattr(transformers.CLIPSegModel, "base_model_prefix", "clipseg")  # as in 5.17
    fresh = load_pretrained("clipseg-rd64")
    assert (fresh.encode_texts(["fruit bat"]) == before).all()


def test_embedding_is_differentiable_in_the_pixels():
    one = encoder("clip-vit-b32")
    pixels = one.pixels(pictures(2)).requires_grad_()
    text = torch.tensor(one.encode_texts(["fruit bat"]))[0]
    (one.embed(pixels) @ text).sum().backward()
    assert torch.isfinite(pixels.grad).all() and (pixels.grad != 0).any()
    assert np.abs(one.embed(pixels).detach().numpy() - one.encode_images(pictures(2))).max() < 1e-6


@pytest.mark.parametrize(
    "layers", [2, 5]
)  # of the picture's tower; the decoder reads the first two
def test_masks_are_those_of_transformers(layers, models, tmp_path, monkeypatch):
    if layers > 2:
        monkeypatch.setenv("VWSD_MODELS", str(tmp_path))
        folder = shutil.copytree(
            models / CHECKPOINTS["clipseg-rd64"].repo, tmp_path / CHECKPOINTS["clipseg-rd64"].repo
        )
        config = transformers.CLIPSegConfig.from_pretrained(folder)
        config.vision_config.num_hidden_layers = layers
        transformers.CLIPSegForImageSegmentation(config).save_pretrained(folder)
    ours_ = ClipSegSegmenter("clipseg-rd64")
    assert len(ours_.encoder.model.vision_model.encoder.layers) == 2
    folder, image, words = ours_.encoder.files[0].folder, pictures(3)[2], texts(DECODER_BATCH + 2)
    model = transformers.CLIPSegForImageSegmentation.from_pretrained(folder).eval()
    processor, tokenizer = (
        transformers.ViTImageProcessorPil.from_pretrained(folder),
        transformers.AutoTokenizer.from_pretrained(folder),
    )
    looks = []
    ours_.encoder.model.vision_model.register_forward_hook(lambda *a: looks.append(1))
    masks = ours_.masks(image, words)
    assert masks.shape == (len(words), 352, 352) and masks.dtype == np.float32 and len(looks) == 1
    for text, mask in zip(words, masks):
        with torch.no_grad():
            expected = model(
                **tokenizer([text], return_tensors="pt"), **processor([image], return_tensors="pt")
            ).logits.numpy()
        assert np.abs(mask - expected.reshape(352, 352)).max() < 1e-5 * max(
            1, np.abs(expected).max()
        )
        assert np.abs(np.roll(masks, 1, 0)[words.index(text)] - expected).max() > 1e-3
        assert np.array_equal(mask, ours_.masks(image, [text])[0])
    assert ours_.masks(image, words[:1]).shape == (1, 352, 352) and np.array_equal(
        ours_.masks(image, words[:3]), masks[:3]
    )
    assert ours_.identity() != ours_.encoder.identity()


def test_inner_clip_is_compared_tensor_by_tensor(models, tmp_path):
    a, b = models / CHECKPOINTS["clipseg-rd64"].repo, models / CHECKPOINTS["clip-vit-b16"].repo
    rows = inner_clip_differences(a, b)
    names = {row["name"] for row in rows}
    assert all(row["equal"] and row["max_abs_difference"] == 0 for row in rows) and len(
        rows
    ) == len(load_file(b / "model.safetensors"))
    assert {
        "vision_model.embeddings.position_embedding.weight",
        "text_projection.weight",
        "logit_scale",
    } <= names
    tensors = load_file(b / "model.safetensors")
    tensors["text_projection.weight"][3, 5] += 0.25
    tensors["visual_projection.weight"] = torch.zeros(2, 2)
    del tensors["logit_scale"]
    torch.save(tensors, tmp_path / "pytorch_model.bin")  # the pickled kind is read as well
    off = {row["name"]: row for row in inner_clip_differences(a, tmp_path) if not row["equal"]}
    assert off.keys() == {"text_projection.weight", "visual_projection.weight", "logit_scale"}
    assert (
        abs(off["text_projection.weight"]["max_abs_difference"] - 0.25) < 1e-6
        and off["logit_scale"]["max_abs_difference"] is None
    )


def test_a_checkpoint_that_lacks_a_tensor_or_is_cut_off_is_refused(models, tmp_path, monkeypatch):
    monkeypatch.setenv("VWSD_MODELS", str(tmp_path))
    for key in ("clip-vit-b32", "mclip", "clip-b32-multilingual"):
        shutil.copytree(models / CHECKPOINTS[key].repo, tmp_path / CHECKPOINTS[key].repo)
        load_pretrained(key).encode_texts(["x"])  # whole, it reads
    pickled = tmp_path / CHECKPOINTS["mclip"].repo / "pytorch_model.bin"
    torch.save(
        {
            k: v
            for k, v in torch.load(pickled, weights_only=True).items()
            if "layer.1.output.dense" not in k
        },
        pickled,
    )
    file = tmp_path / CHECKPOINTS["clip-b32-multilingual"].repo / "model.safetensors"
    save_file(
        {k: v for k, v in load_file(file).items() if "ffn.lin1" not in k}, file, {"format": "pt"}
    )
    for key in ("mclip", "clip-b32-multilingual"):
        with pytest.raises(VwsdError, match="no weights for") as e:
            load_pretrained(key).encode_texts(["x"])
        assert e.value.where == str(tmp_path / CHECKPOINTS[key].repo)
    (tmp_path / CHECKPOINTS["clip-vit-b32"].repo / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(VwsdError, match="cannot be read"):
        load_pretrained("clip-vit-b32").encode_texts(["x"])


def test_missing_checkpoint_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("VWSD_MODELS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(VwsdError) as e:
        load_pretrained("mclip")
    assert "vwsd fetch models --only clip-vit-b32" in e.value.remedy


def test_tiny_checkpoints_are_the_same_bytes_and_made_once(models, tmp_path):
    again = make_models(tmp_path)
    files = {p.relative_to(again): p.read_bytes() for p in again.rglob("*") if p.is_file()}
    assert files == {
        p.relative_to(models): p.read_bytes() for p in models.rglob("*") if p.is_file()
    }
    assert {"/".join(p.parts[:2]) for p in files if len(p.parts) > 1} == set(REPOS)
    kept = again / REPOS[0] / "model.safetensors"
    kept.write_bytes(b"mine")
    assert make_models(again) and kept.read_bytes() == b"mine"
    make_models(again, seed=1)
    assert kept.read_bytes() not in (
        b"mine",
        (models / REPOS[0] / "model.safetensors").read_bytes(),
    )


# ---------------------------------------------------------------- what an identity covers, and
# files that are damaged

TOKENIZER_FILES = {
    "clip-vit-b32": ("clip-vit-b32", ("vocab.json", "config.json", "preprocessor_config.json")),
    "siglip2-base": ("siglip2-base", ("tokenizer.json",)),
    "mclip": ("mclip", ("tokenizer.json", "config.json")),
}


def copied(models, tmp_path, monkeypatch, *keys):
    monkeypatch.setenv("VWSD_MODELS", str(tmp_path))
    for key in keys:
        shutil.copytree(models / CHECKPOINTS[key].repo, tmp_path / CHECKPOINTS[key].repo)
    return tmp_path / CHECKPOINTS[keys[-1]].repo


@pytest.mark.parametrize("name", TOKENIZER_FILES)
def test_every_file_that_decides_a_vector_decides_the_identity(models, tmp_path, monkeypatch, name):
    recipe, (key, files) = RECIPES[name], TOKENIZER_FILES[name]
    folder = copied(models, tmp_path, monkeypatch, *dict.fromkeys((recipe.checkpoint, key)))
    seen = {json.dumps(load_pretrained(name).identity(), sort_keys=True)}
    for file in files:
        path = folder / file
        path.write_text(
            path.read_text() + "\n"
        )  # one byte more: still read alike, but who could tell
        seen.add(json.dumps(load_pretrained(name).identity(), sort_keys=True))
    assert len(seen) == 1 + len(files)


def test_other_merges_are_another_encoder_and_share_no_vector(models, tmp_path, monkeypatch):
    folder = copied(models, tmp_path, monkeypatch, "clip-vit-b32")
    before = VectorStore(load_pretrained("clip-vit-b32"), tmp_path / "v")
    header, *merges = (folder / "merges.txt").read_text().splitlines()
    (folder / "merges.txt").write_text("\n".join([header, *reversed(merges)]) + "\n")
    assert VectorStore(load_pretrained("clip-vit-b32"), tmp_path / "v").path != before.path


@pytest.mark.parametrize(
    "change, said",
    [
        (
            lambda config: config["vision_config"].update(
                hidden_size=2_000_000, intermediate_size=8_000_000
            ),
            "numbers, the weight files hold|cannot be",
        ),
        (
            lambda config: config["text_config"].update(vocab_size=500_000_000),
            "numbers, the weight files hold",
        ),
        (
            lambda config: config["text_config"].update(num_hidden_layers=2_000_000),
            "more than 1,000 layers",
        ),
        (lambda config: config["vision_config"].update(patch_size=0), "cannot be used"),
        (lambda config: config.update(text_config="none"), "cannot be"),
    ],
)
def test_a_configuration_that_asks_for_too_much_is_refused_before_memory_is(
    models, tmp_path, monkeypatch, change, said
):
    folder = copied(models, tmp_path, monkeypatch, "clip-vit-b32")
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(VwsdError, match=said) as e:
        load_pretrained("clip-vit-b32").encode_texts(["x"])
    assert str(folder) in e.value.where


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"model": {}}',
        b"\xff\xfe\x00",
        b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": -1}, "merges": ["x y"]}}',
    ],
)
def test_a_damaged_vocabulary_is_a_sentence(models, tmp_path, monkeypatch, content):
    folder = copied(models, tmp_path, monkeypatch, "clip-vit-b32")
    for path in folder.glob("*"):
        if path.name in ("tokenizer.json", "vocab.json", "merges.txt"):
            path.write_bytes(content)
    with pytest.raises(VwsdError, match="cannot be read") as e:
        load_pretrained("clip-vit-b32").encode_texts(["x"])
    assert e.value.where == str(folder)


def odd_tensors():
    numbers = torch.ones(4, 4)
    return {
        "sparse": numbers.to_sparse(),
        "quantised": torch.quantize_per_tensor(numbers, 0.1, 0, torch.qint8),
        "without numbers": numbers.to("meta"),
        "over 4 bytes": torch.ones(1).expand(1000, 1000),
    }


@pytest.mark.parametrize("kind", odd_tensors())
def test_tensors_that_are_no_plain_numbers_are_named(models, tmp_path, monkeypatch, kind):
    folder = copied(models, tmp_path, monkeypatch, "clip-vit-b32", "mclip")
    file = folder / "pytorch_model.bin"
    torch.save(
        torch.load(file, weights_only=True) | {"LinearTransformation.bias": odd_tensors()[kind]},
        file,
    )
    with pytest.raises(VwsdError, match=f"{kind}|cannot be read") as e:
        load_pretrained("mclip").encode_texts(["x"])
    assert e.value.where == str(file)


@pytest.mark.parametrize("content", [b"", b"PK\3\4 cut", b"\x80\x04no pickle"])
def test_a_damaged_bin_is_a_sentence(models, tmp_path, monkeypatch, content):
    folder = copied(models, tmp_path, monkeypatch, "clip-vit-b32", "mclip")
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(VwsdError, match="cannot be read"):
        load_pretrained("mclip").encode_texts(["x"])


@pytest.mark.parametrize(
    "name, limit", [("clip-vit-b32", 77), ("siglip2-base", 64), ("mclip", 128)]
)
def test_tokens_are_counted_before_they_are_cut(name, limit):
    one = encoder(name)
    short, long = one.count_tokens(["red", "red " * 400])
    assert one.max_tokens == limit and short <= limit < long and one.count_tokens([]) == []
    assert np.array_equal(*one.encode_texts(["red " * 400, "red " * 400 + "blue"]))
