"""PolCLIP's model: published sizes without weights, towers against transformers, read-outs, losses,
gradients, borrowed and frozen parts.
"""

import functools
import itertools
import json
import math

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from polclip_tiny import (
    BATCHES,
    PLACES,
    VISION,
    WIDTH,
    Letters,
    backbone,
    data,
    make,
    record,
    states,
)

from polclip import backbone as backbones
from polclip import blocks, losses
from polclip.backbone import ClipBackbone, load_backbone
from polclip.batches import Coder, Texts, collate, photo_text, picture_names
from polclip.config import LOSSES, PRESETS, Config, make_config
from polclip.model import PolClip, count_parameters
from polclip.records import Candidate, Record
from polclip.train import train
from vwsdlib.errors import VwsdError

PHRASES = ["a fruit bat hangs", "baseball", "an old bat made of wood and other things, not of wool"]


def batch(model, records=BATCHES[0]):
    return collate(records, Coder(model.backbone, model.config), states(picture_names(records)))


def texts(model, some=PHRASES):
    return Coder(model.backbone, model.config).texts(some)


def close(a, b, tolerance=1e-5):
    return torch.allclose(a, b, rtol=0, atol=tolerance)


# ---------------------------------------------------------------- the published sizes, on torch's
# meta device: shapes, no numbers


@functools.cache
def published(preset):
    """PolCLIP on ViT-L/14 as OpenAI's configuration describes it."""
    import transformers

    text = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
    }
    vision = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
        "hidden_act": "quick_gelu",
    }
    config = make_config(preset)
    with torch.device("meta"):
        model = transformers.CLIPModel(
            transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=768)
        )
        return PolClip(config, ClipBackbone(model, Letters(), None, {"model": "ViT-L/14"}, config))


def per_part(model):
    """{part: (parameters, trained)}, each tensor once."""
    found = {}
    for name, p in model.named_parameters():
        part = name.split(".")[0]
        if part == "backbone":
            part = (
                "text"
                if name.split(".")[1] in ("token_embedding", "position", "text_blocks", "ln_final")
                else "vision"
            )
        have = found.get(part, (0, 0))
        found[part] = have[0] + p.numel(), have[1] + p.numel() * p.requires_grad
    return found


def test_published_sizes_as_released():
    model = published("code")
    counted = count_parameters(model)
    assert (counted["parameters"], counted["tensors"], counted["trained"]) == (
        474_101_914,
        528,
        132_919_706,
    )
    assert per_part(model) == {
        "vision": (303_966_208, 788_480),
        "text": (123_060_480, 85_056_000),
        "former": (14_175_744,) * 2,
        "to_vision": (787_456,) * 2,
        "to_text": (590_592,) * 2,
        "transfer": (19_866,) * 2,
        "fusion": (31_501_568,) * 2,
    }
    assert (
        model.target is None
        and tuple(model.backbone.text_projection.shape) == (768, 768)
        and not model.backbone.text_projection.requires_grad
    )


def test_published_sizes_of_the_paper_differ_by_the_targets_alone():
    parts, released = per_part(published("paper")), per_part(published("code"))
    assert parts.pop("target") == (85_056_000 + 788_480, 0)
    assert parts == released and count_parameters(published("paper"))["trained"] == 132_919_706


@pytest.mark.parametrize("preset", ["code", "paper"])
def test_published_shapes(preset):
    model = published(preset)
    its, pixels = model.backbone, torch.empty(2, 3, 224, 224, device="meta")
    g = texts(model)
    g = Texts(*(getattr(g, name).to("meta") for name in ("ids", "pads", "inside", "end")))
    tokens, seen = its.read(g.ids, g.pads), its.frozen_look(pixels)

    def shapes(*found):
        return [tuple(x.shape) for x in found]

    assert shapes(tokens, its.text_vector(tokens, g.inside)) == [(3, 77, 768), (3, 768)]
    assert shapes(seen, its.picture_vector(seen), its.picture_tokens(seen)) == [
        (2, 257, 1024),
        (2, 768),
        (2, 257, 768),
    ]
    assert shapes(model.former(tokens), model.to_vision(tokens)) == [(3, 77, 768), (3, 77, 1024)]
    assert shapes(*its.through_vision(model.to_vision(tokens), model.config.borrowed, None)) == [
        (3, 768),
        (3, 77, 768),
    ]
    moved = model.transfer(its.picture_tokens(seen).transpose(1, 2)).transpose(1, 2)
    assert shapes(moved, *its.through_text(model.to_text(moved), model.config.borrowed, True)) == [
        (2, 77, 768),
        (2, 768),
        (2, 77, 768),
    ]
    assert (
        shapes(*model.senses(g)) == [(3, 768)] * 3
        and shapes(*model.pictures(seen)) == [(2, 768)] * 3
    )
    assert shapes(model.attention(g)) == [(3, 77, 77)]


# ---------------------------------------------------------------- the towers against transformers


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Folder of tiny checkpoints, as $VWSD_MODELS: ViT-L/14 with its own activation and, under
    another name, with the usual GELU.
    """
    from vwsd_standins.rehearsal.models import MAKERS, _clip
    from vwsdlib.encoders.checkpoints import CHECKPOINTS

    folder = tmp_path_factory.mktemp("models")
    makers = {key: MAKERS[key] for key in ("clip-vit-l14", "clip-vit-b32")} | {
        "openclip-h14": _clip(224, 14, "gelu", dim=32)
    }
    for repo, make_one in ((CHECKPOINTS[key].repo, maker) for key, maker in makers.items()):
        (folder / repo).mkdir(parents=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(repo))
            make_one(folder / repo)
    with pytest.MonkeyPatch.context() as m:
        m.setenv("VWSD_MODELS", str(folder))
        yield folder


def against_transformers(key):
    """Largest differences of text vectors, text tokens, picture vectors and states, in their
    largest values: ours against CLIPModel's own.
    """
    import transformers

    from vwsdlib.encoders.checkpoints import find

    config = make_config("paper", backbone=key, borrowed=2)
    its, folder = load_backbone(config).eval(), find(key).folder
    theirs = transformers.CLIPModel.from_pretrained(folder).eval()
    words = transformers.AutoTokenizer.from_pretrained(folder)(
        PHRASES, return_tensors="pt", padding=True
    )
    ours = Coder(its, config).texts(PHRASES)
    pixels = its.pixels(
        [Image.effect_noise((90, 60), 80).convert("RGB"), Image.new("RGB", (60, 90), (200, 30, 90))]
    )
    with torch.no_grad():
        tokens, seen = its.read(ours.ids, ours.pads), its.frozen_look(pixels)
        text, vision = theirs.text_model(**words), theirs.vision_model(pixel_values=pixels)
        pairs = [
            (its.text_vector(tokens, ours.inside), theirs.text_projection(text.pooler_output)),
            (
                tokens[:, : words["input_ids"].shape[1]][words["attention_mask"].bool()],
                text.last_hidden_state[words["attention_mask"].bool()],
            ),
            (its.picture_vector(seen), theirs.visual_projection(vision.pooler_output)),
            (its.look(seen), vision.last_hidden_state),
        ]
    assert all(a.shape == b.shape and b.std() > 0.1 for a, b in pairs)
    return [((a - b).abs().max() / b.abs().max()).item() for a, b in pairs]


@pytest.mark.parametrize("key", ["clip-vit-l14", "openclip-h14"])
def test_towers_are_those_of_transformers(checkpoints, key):
    assert max(against_transformers(key)) < 1e-5


def test_swapped_queries_and_keys_are_seen(checkpoints, monkeypatch):
    taken = backbones._taken

    def swapped(theirs, name):
        found = taken(theirs, name)
        return found | {
            k: v.view(3, -1, *v.shape[1:])[[1, 0, 2]].reshape(v.shape)
            for k, v in found.items()
            if "in_proj" in k
        }

    monkeypatch.setattr(backbones, "_taken", swapped)
    assert min(against_transformers("clip-vit-l14")) > 1e-3


def test_the_other_activation_is_seen(checkpoints, monkeypatch):
    monkeypatch.setitem(blocks.ACTIVATIONS, "quick_gelu", F.gelu)
    assert min(against_transformers("clip-vit-l14")) > 1e-4


def test_what_cannot_be_a_backbone_is_refused(checkpoints):
    with pytest.raises(VwsdError, match="text tower's width 32 is not that of the joint space, 24"):
        load_backbone(make_config(backbone="clip-vit-b32"))
    for key in ("siglip2-base", "mclip", "clip-vit-b16-352", "unheard-of"):
        with pytest.raises(VwsdError, match="is no backbone") as e:
            load_backbone(make_config(backbone=key))
        assert "clip-vit-l14" in e.value.remedy and key not in e.value.remedy


# ---------------------------------------------------------------- read-outs and roles


@pytest.mark.parametrize("readout", ["first", "eot", "mean"])
def test_swapped_sense_queries_change_nothing_under_first_alone(readout):
    """CLIP's first token sees itself alone, so as a query it is the same for every sense; only keys
    and values tell senses apart.
    """
    model = make(readout=readout).eval()
    g = texts(model)
    with torch.no_grad():
        tokens, _, places, _ = model._sense_sequences(g)
        swap = torch.tensor([1, 2, 0])
        ends = {
            "first": (torch.zeros_like(g.end),) * 2,
            "eot": (g.end, g.end[swap]),
            "mean": (None, None),
        }[readout]
        straight, swapped = (
            model.fusion(tokens, places, ends[0]),
            model.fusion(tokens[swap], places, ends[1]),
        )
        other = model.fusion(tokens, places[swap], ends[0])
        assert close(
            F.normalize(model.fusion(tokens, F.normalize(places, dim=-1), ends[0]), dim=-1),
            model.senses(g).fused,
        )
    assert torch.equal(straight, swapped) == (readout == "first")
    assert readout == "first" or (straight - swapped).abs().max() > 1e-3
    assert (straight - other).abs().max() > 1e-3


@pytest.mark.parametrize("roles", ["figure", "code"])
def test_both_sequences_matter_for_pictures(roles, monkeypatch):
    model, given = make(roles=roles).eval(), []
    fusion = model.fusion.forward
    monkeypatch.setattr(model.fusion, "forward", lambda *args: given.append(args) or fusion(*args))
    with torch.no_grad():
        seen = states(["a", "b", "c"])
        model.pictures(seen)
        ((query, other, where),) = given
        tokens = F.normalize(model.transfer(model.backbone.picture_tokens(seen).mT).mT, dim=-1)
        generated = model.backbone.through_text(
            model.to_text(model.former(tokens)), model.config.borrowed, True
        )[1]
        assert close(query, tokens if roles == "figure" else generated) and close(
            other, generated if roles == "figure" else tokens
        )
        straight, swap = fusion(query, other, where), torch.tensor([1, 2, 0])
        assert (straight - fusion(query[swap], other, where)).abs().max() > 1e-3 and (
            straight - fusion(query, other[swap], where)
        ).abs().max() > 1e-3


def test_the_causal_mask_stays_on_in_borrowed_text_blocks_unless_taken_off():
    its, x = (
        make(borrowed=2).backbone,
        torch.randn(2, 20, WIDTH, generator=torch.Generator().manual_seed(0)),
    )
    later = x.clone()
    later[:, 10:] += torch.randn(2, 10, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for causal in (True, False):
            (vector, tokens), (_, changed) = (
                its.through_text(x, 2, causal),
                its.through_text(later, 2, causal),
            )
            assert close(tokens[:, :10], changed[:, :10], 1e-6) == causal
            assert close(vector, tokens.mean(1) @ its.text_projection)
        given = [
            make(borrowed=2, causal=causal).eval().pictures(states("ab")).implicit
            for causal in (True, False)
        ]
    assert not close(*given, 1e-3)


def test_vectors_have_the_last_norm_and_tokens_have_not():
    its = make(borrowed=2).backbone
    x = states("ab")
    with torch.no_grad():
        vector, tokens = its.through_vision(x, 2, None)
        for block in its.vision_blocks:
            x = block(x)
        assert close(vector, its.ln_post(x.mean(1)) @ its.vision_projection) and close(
            tokens, x @ its.vision_projection
        )
        assert close(its.picture_vector(x), its.ln_post(x[:, 0]) @ its.vision_projection) and close(
            its.picture_tokens(x), tokens
        )
        assert not close(its.ln_post(x), x, 0.1)


def test_without_fusion_plain_vectors_stand_for_fused_ones():
    model = make(fuse=False)
    senses, pictures = model.senses(texts(model)), model.pictures(states("ab"))
    assert senses.fused is senses.plain and pictures.fused is pictures.plain


def test_fusion_is_what_the_formula_says():
    """Layer by layer in plain products: q + attention(LN(q), LN(o), LN(o)), + MLP, then a map
    without a way around it and LN of one place.
    """
    fusion = make(fusion_layers=2).fusion
    g = torch.Generator().manual_seed(0)
    q, o, heads = torch.randn(2, 3, WIDTH, generator=g), torch.randn(2, 4, WIDTH, generator=g), 4
    x = q
    for block in fusion.blocks:
        a, b = block.ln_1(x), block.ln_1(o)
        wq, wk, wv = block.attention.in_proj_weight.chunk(3)
        bq, bk, bv = block.attention.in_proj_bias.chunk(3)
        split = [
            y.view(2, -1, heads, WIDTH // heads).transpose(1, 2)
            for y in (a @ wq.T + bq, b @ wk.T + bk, b @ wv.T + bv)
        ]
        weights = (split[0] @ split[1].mT / (WIDTH // heads) ** 0.5).softmax(-1)
        x = x + block.attention.out_proj((weights @ split[2]).transpose(1, 2).reshape(2, 3, WIDTH))
        h = block.inner(block.ln_2(x))
        x = x + block.outer(h * torch.sigmoid(1.702 * h))
    mapped = fusion.outer(fusion.inner(x).relu())
    assert close(fusion(q, o, torch.tensor([2, 0])), fusion.ln(mapped[[0, 1], [2, 0]])) and close(
        fusion(q, o, None), fusion.ln(mapped.mean(1))
    )
    assert close(fusion.attention(q, o), weights.mean(1)) and close(
        fusion.attention(q, o).sum(-1), torch.ones(2, 3)
    )


def test_transfer_works_on_the_token_axis():
    model = make()
    tokens = model.backbone.picture_tokens(states("ab"))  # [2, 5, 32]
    moved = model.transfer(tokens.mT).mT
    assert close(
        moved[1, 3], (model.transfer.weight[3][:, None] * tokens[1]).sum(0) + model.transfer.bias[3]
    )


# ---------------------------------------------------------------- losses


def unit(rows, dim, seed):
    return F.normalize(
        torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=-1
    )


def test_losses_where_nothing_is_known():
    zeros, same, depicts = (
        torch.zeros(50, 8),
        torch.eye(50).bool(),
        torch.eye(50).bool().repeat_interleave(5, 0),
    )
    found = {
        "sig": losses.sig(zeros, torch.zeros(250, 8), depicts, same),
        "w2s": losses.w2s(zeros[:7], zeros, same[:7], same),
        "isg": losses.isg(torch.zeros(250, 8), zeros, depicts, same),
        "w2i": losses.w2i(zeros, torch.zeros(250, 8), depicts.T),
    }
    rounded = {
        name: round(value.item(), 2 if name in ("w2s", "isg") else 1)
        for name, value in found.items()
    }
    assert rounded == {"sig": 27.6, "w2s": 3.91, "isg": 3.91, "w2i": 27.6}
    assert losses.uniform(50, 5) == pytest.approx(
        {name: value.item() for name, value in found.items()}, abs=1e-4
    )
    assert [round(losses.uniform(4, 2)[name], 2) for name in LOSSES] == [4.16, 1.39, 1.39, 4.16]


def test_losses_by_hand():
    """Two senses along the axes, three pictures: two of the first sense, one of the second."""
    e = torch.eye(2)
    depicts, same = torch.tensor([[1, 0], [1, 0], [0, 1]]).bool(), torch.eye(2).bool()
    x = e[[0, 1, 1]]  # the second picture looks like the other sense
    log = math.log
    first, second = (
        2 * log(math.e + 2) - 1,
        log(1 + 2 * math.e) - 1,
    )  # of a_0: (1, 0, 0), of a_1: (0, 1, 1)
    assert losses.sig(e, x, depicts, same).item() == pytest.approx((first + second) / 2, abs=1e-6)
    right, wrong = log(math.e + 1) - 1, log(math.e + 1)
    assert losses.isg(x, e, depicts, same).item() == pytest.approx(
        (2 * right + wrong) / 3, abs=1e-6
    )
    assert losses.w2s(
        e, e, torch.tensor([[True, False], [True, False]]), same
    ).item() == pytest.approx((right + wrong) / 2, abs=1e-6)
    halves = losses.sig(e, x, depicts, same, normalise=True).item()
    assert halves == pytest.approx((first / 2 + second) / 2, abs=1e-6)
    assert losses.isg(e[[0]], e, depicts[:1], same, temperature=0.5).item() == pytest.approx(
        log(math.exp(2) + 1) - 2, abs=1e-6
    )


def naive(queries, keys, positive, temperature, normalise):
    """Word for word: for each query, minus log of each positive's share of all exponentials."""
    total = 0.0
    for q, query in enumerate(queries):
        weights = [math.exp(float(query @ key) / temperature) for key in keys]
        right = [k for k in range(len(keys)) if positive(q, k)]
        terms = [-math.log(weights[k] / sum(weights)) for k in right]
        total += sum(terms) / (len(terms) or 1) if normalise else sum(terms)
    return total / len(queries)


@pytest.mark.parametrize(
    ("temperature", "normalise", "merge"),
    [(1.0, False, False), (0.5, True, False), (0.3, False, True), (1.0, True, True)],
)
def test_losses_agree_with_double_loops(temperature, normalise, merge):
    i, g, n, dim = 3, 5, 7, 6
    u, m, a, s, c = (unit(rows, dim, seed) for seed, rows in enumerate((i, g, g, g, g)))
    b, x, r = (unit(n, dim, 10 + seed) for seed in range(3))
    owner, gold = [0, 0, 1, 2, 4, 4, 4], [0, 3, 4]  # sense 3 has no picture
    sense = ["p", "q", "p", "o", "q"] if merge else list("abcde")  # 0 and 2 are one, so are 1 and 4
    same = torch.tensor([[p == q for q in sense] for p in sense])
    depicts, golds = (
        F.one_hot(torch.tensor(owner), g).bool(),
        F.one_hot(torch.tensor(gold), g).bool(),
    )
    how = {"temperature": temperature, "normalise": normalise}
    shown = losses.depicted_by(torch.eye(g).bool(), depicts, same)
    pairs = {
        "sig": (
            losses.sig(a, x, depicts, same, **how),
            naive(a, x, lambda p, q: sense[owner[q]] == sense[p], *how.values()),
        ),
        "w2s": (
            losses.w2s(u, m, golds, same, **how),
            naive(u, m, lambda p, q: sense[gold[p]] == sense[q], *how.values()),
        ),
        "isg": (
            losses.isg(b, s, depicts, same, **how),
            naive(b, s, lambda p, q: sense[owner[p]] == sense[q], *how.values()),
        ),
        "w2i": (
            losses.w2i(c, r, shown, **how),
            naive(c, r, lambda p, q: sense[owner[q]] == sense[p], *how.values()),
        ),
        "w2i, target": (
            losses.w2i(u, r, losses.depicted_by(golds, depicts, same), **how),
            naive(u, r, lambda p, q: sense[owner[q]] == sense[gold[p]], *how.values()),
        ),
    }
    for name, (ours, loops) in pairs.items():
        assert ours.item() == pytest.approx(loops, abs=1e-5), name
    assert (
        abs(losses.sig(a, x.roll(1, 0), depicts, same, **how).item() - pairs["sig"][1]) > 1e-3
    )  # the twin: one picture off


def test_models_losses_are_the_formulas_on_its_vectors():
    """Sense ids that stand in two records, several golds: what collate puts into the targets, by
    loops over the records themselves.
    """
    other = Record(
        "x",
        "en",
        ("a", "bat"),
        (1, 1),
        (Candidate("m1", "mammal, differently", ("q",)), Candidate("z", "none")),
        ("m1",),
    )
    two = [record(1, golds=("c1", "m1")), other]
    ids, golds = ["m1", "c1", "m1", "z"], [("c1", "m1"), ("m1",)]
    owner = [0, 0, 1, 2]
    for merge, several, query in itertools.product(
        (False, True), (False, True), ("caption", "target")
    ):
        model = make(
            merge_duplicates=merge, multi_positive=several, w2i_query=query, temperature=0.7
        ).eval()
        b = batch(model, two)
        with torch.no_grad():
            found, u, senses, pictures = (
                model(b),
                model.context(b.contexts),
                model.senses(b.glosses),
                model.pictures(b.states),
            )
            s, x = model.targets(b)
            c = model.read(b.captions)
        one = (lambda p, q: ids[p] == ids[q]) if merge else (lambda p, q: p == q)
        right = [
            [k for k in own if ids[k] in (its if several else its[:1])]
            for own, its in zip(((0, 1), (2, 3)), golds)
        ]

        def means(i, k):
            return any(one(g, k) for g in right[i])

        expected = {
            "sig": naive(senses.implicit, x, lambda p, q: one(p, owner[q]), 0.7, False),
            "w2s": naive(u, senses.fused, means, 0.7, False),
            "isg": naive(pictures.implicit, s, lambda p, q: one(owner[p], q), 0.7, False),
            "w2i": (
                naive(c, pictures.fused, lambda p, q: one(p, owner[q]), 0.7, False)
                if query == "caption"
                else naive(u, pictures.fused, lambda p, q: means(p, owner[q]), 0.7, False)
            ),
        }
        assert {k: found[k].item() for k in LOSSES} == pytest.approx(expected, abs=1e-5), (
            merge,
            several,
            query,
        )
        assert found["loss"].item() == pytest.approx(sum(expected.values()), abs=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_no_vectors_go_below_the_floor(temperature):
    """Free vectors, pushed down by gradient: they come to the stated floor and not below."""
    g, each, dim = 4, 2, 6
    same, depicts = torch.eye(g).bool(), torch.eye(g).bool().repeat_interleave(each, 0)
    free = [unit(rows, dim, seed).requires_grad_() for seed, rows in enumerate((g, g, g * each))]
    optimizer = torch.optim.LBFGS(free, max_iter=300, line_search_fn="strong_wolfe")

    def now():
        u, m, x = (F.normalize(v, dim=-1) for v in free)
        return {
            "sig": losses.sig(m, x, depicts, same, temperature=temperature),
            "w2s": losses.w2s(u, m, same, same, temperature=temperature),
            "isg": losses.isg(x, m, depicts, same, temperature=temperature),
            "w2i": losses.w2i(u, x, depicts.T, temperature=temperature),
        }

    def closure():
        optimizer.zero_grad()
        total = sum(now().values())
        total.backward()
        return total

    optimizer.step(closure)
    floor = losses.floor(g, each, temperature)
    assert {k: v.item() for k, v in now().items()} == pytest.approx(floor, abs=2e-3)
    assert sum(now().values()).item() > sum(floor.values()) - 1e-4


def test_floors_at_the_published_budget():
    floor = losses.floor(50, 5)
    assert [round(floor[name], 1) for name in LOSSES] == [22.7, 2.9, 2.9, 22.7]


def test_half_precision_does_not_round_logits():
    model = make(temperature=0.07).eval()
    b = batch(model)
    with torch.no_grad():
        exact = model(b)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(b)
            u, m = unit(3, 8, 0), unit(5, 8, 1)
            gold, same = torch.eye(3, 5).bool(), torch.eye(5).bool()
            logits = losses.w2s(u, m, gold, same, temperature=0.01)
    assert logits.item() == pytest.approx(
        losses.w2s(u, m, gold, same, temperature=0.01).item(), rel=1e-6
    )
    assert rough["loss"].dtype == torch.float32 and rough["loss"].item() == pytest.approx(
        exact["loss"].item(), rel=0.1
    )


# ---------------------------------------------------------------- batches without pictures or golds


def test_a_batch_without_pictures_has_zero_losses_and_gradients_everywhere():
    """So that processes whose batches differ in this wait for no one."""
    model = make()
    found = model(batch(model, [record(1, pictures=False)]))
    assert (
        found["sig"] == found["isg"] == found["w2i"] == 0
        and found["w2s"] > 0
        and math.isnan(found["visual"])
    )
    found["loss"].backward()
    assert not [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.isfinite().all())
    ]


def test_a_record_without_gold_adds_nothing_and_is_not_counted_as_wrong():
    model = make().eval()
    both = model(batch(model, [record(1), record(2, golds=())]))
    alone = model(batch(model, [record(1, golds=())]))
    assert (
        alone["w2s"] == 0
        and math.isnan(alone["textual"])
        and both["textual"] in (0, 1)
        and both["w2s"] > 0
    )


def test_shares_count_what_is_right():
    model = make().eval()
    records = [record(i, golds=(f"{kind}{i}",)) for i, kind in enumerate("mcmmc")]
    b = batch(model, records)
    with torch.no_grad():
        found, u, m = model(b), model.context(b.contexts), model.senses(b.glosses).fused
        c, r = model.read(b.captions), model.pictures(b.states).fused
    textual = [
        ("m", "c")[int(torch.argmax(m[2 * i : 2 * i + 2] @ u[i]))] == kind
        for i, kind in enumerate("mcmmc")
    ]
    owner = [g for i in range(5) for g in (2 * i, 2 * i, 2 * i + 1)]
    visual = [owner[int(torch.argmax(r @ c[g]))] == g for g in range(10)]
    assert found["textual"].item() == pytest.approx(sum(textual) / 5) and found[
        "visual"
    ].item() == pytest.approx(sum(visual) / 10)
    assert 0 < sum(textual) < 5 or 0 < sum(visual) < 10


# ---------------------------------------------------------------- which loss trains what

TEXT_ALL = {"text_blocks.0", "text_blocks.1", "ln_final"}
REACHES = {
    "sig": TEXT_ALL | {"former", "to_vision", "ln_post", "vision_projection"},
    "w2s": TEXT_ALL | {"former", "to_vision", "vision_projection", "fusion"},
    "isg": {"text_blocks.1", "ln_final", "former", "to_text", "transfer", "vision_projection"},
    "w2i": TEXT_ALL | {"former", "to_text", "transfer", "vision_projection", "fusion"},
}
SUBSETS = [some for size in range(1, 5) for some in itertools.combinations(LOSSES, size)]


def part_of(name):
    parts = name.removeprefix("backbone.").split(".")
    return ".".join(parts[:2]) if parts[0] == "text_blocks" else parts[0]


@pytest.mark.parametrize("ema", [0.995, 0.0])
@pytest.mark.parametrize("some", SUBSETS, ids="+".join)
def test_each_loss_trains_what_the_paper_draws(some, ema):
    """One borrowed block of two open ones: ISG reaches the borrowed block alone, and nothing
    reaches through the targets.
    """
    model = make(losses=some, open_text=2, ema=ema)
    model(batch(model))["loss"].backward()
    reached, expected = {}, set().union(*(REACHES[name] for name in some))
    for name, p in model.named_parameters():
        reached.setdefault(part_of(name), []).append(p.grad is not None and bool(p.grad.any()))
        assert p.requires_grad or p.grad is None
    assert {part for part, hits in reached.items() if any(hits)} == expected
    assert all(all(reached[part]) for part in expected)


def test_checkpointing_gives_the_same_gradients():
    found = []
    for checkpointing in (False, True):
        model = make(checkpointing=checkpointing)
        model(batch(model))["loss"].backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0]) and any(
        g.any() for g in found[0].values()
    )


# ---------------------------------------------------------------- borrowed, frozen and following
# parts


@pytest.mark.parametrize("borrowed", [1, 2, 3])
def test_the_generators_run_through_the_towers_own_last_blocks(borrowed):
    model = make(borrowed=borrowed, layers=3)
    its, calls = model.backbone, []
    for tower in ("text_blocks", "vision_blocks"):
        for i, block in enumerate(getattr(its, tower)):
            block.register_forward_hook(lambda *_, place=(tower, i): calls.append(place))
    g = texts(model)
    with torch.no_grad():
        model.pictures(states("ab"))
        assert calls == [("text_blocks", i) for i in range(3 - borrowed, 3)]
        calls.clear()
        model.senses(g)
    assert calls == [("text_blocks", i) for i in range(3)] + [
        ("vision_blocks", i) for i in range(3 - borrowed, 3)
    ]
    assert (
        count_parameters(model)["tensors"]
        == count_parameters(make(borrowed=1, layers=3))["tensors"]
    )


def test_training_leaves_the_frozen_alone_and_changes_the_rest(tmp_path):
    model = make(open_text=1, open_vision=1, epochs=1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    train(model, data(), tmp_path, save_every=0)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    follows = {
        f"target.{name.removeprefix('backbone.')}"
        for name in trained
        if name.startswith("backbone.")
    }
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == trained | follows
    assert {part_of(name) for name in trained} == {
        "text_blocks.1",
        "ln_final",
        "vision_blocks",
        "ln_post",
        "vision_projection",
        "former",
        "to_vision",
        "to_text",
        "transfer",
        "fusion",
    }
    assert {name.split(".")[2] for name in trained if "vision_blocks" in name} == {"1"}
    assert all(torch.equal(b, buffers[name]) for name, b in model.named_buffers())


def test_the_text_projection_is_constant_unless_asked_for():
    assert "backbone.text_projection" not in dict(make().named_parameters())
    model = make(train_text_projection=True)
    model(batch(model))["loss"].backward()
    assert model.backbone.text_projection.grad.any()


def test_targets_follow_by_the_stated_rate(tmp_path):
    model = make(ema=0.9, epochs=1)
    before = {
        name: p.detach().clone() for name, p in model.backbone.named_parameters() if p.requires_grad
    }
    train(model, data(), tmp_path, save_every=0, stop_after=1)
    after, target = dict(model.backbone.named_parameters()), dict(model.target.named_parameters())
    for name, old in before.items():
        assert (
            torch.equal(target[name], old.lerp(after[name], 1 - 0.9))
            and not torch.equal(target[name], old)
            and not torch.equal(after[name], old)
        )


def test_following_towers_share_all_that_is_not_trained():
    config = make_config(borrowed=1, open_text=1)
    its = backbone(config)
    its._towers = [torch.nn.Linear(2, 2)]  # as the lite backbone keeps its frozen towers
    model = PolClip(config, its)
    theirs = dict(model.target.named_parameters(remove_duplicate=False))
    for name, p in model.backbone.named_parameters():
        assert (theirs[name] is p) == (not p.requires_grad) and not theirs[name].requires_grad, name
    assert (
        model.target._towers is its._towers
        and model.target.tokenizer is its.tokenizer
        and model.target.text_blocks is not its.text_blocks
    )


def test_targets_have_no_gradient_and_without_ema_are_the_model_itself():
    model = make(ema=0.0).eval()
    b = batch(model)
    s, x = model.targets(b)
    assert model.target is None and not s.requires_grad and not x.requires_grad
    assert close(s, model.senses(b.glosses).plain) and close(x, model.pictures(b.states).plain)
    following = make(ema=0.9)
    assert (
        not any(p.requires_grad for p in following.target.parameters())
        and not following.targets(batch(following))[0].requires_grad
    )


def test_new_weights_follow_the_seed_alone():
    def weights(seed, noise):
        torch.manual_seed(noise)
        model = make(seed=seed)
        return torch.cat([p.detach().flatten() for p in model.parameters()]), torch.rand(1)

    first, second, third = weights(1, 5), weights(1, 6), weights(2, 5)
    assert torch.equal(first[0], second[0]) and not torch.equal(first[0], third[0])
    assert torch.equal(first[1], third[1]) and not torch.equal(
        first[1], second[1]
    )  # the caller's own dice are left alone


# ---------------------------------------------------------------- texts


def context(words, first, last, **changes):
    """(ids, places read out) of one context."""
    model = make(**changes)
    found = Coder(model.backbone, model.config).contexts(
        [Record("r", "en", tuple(words), (first, last), (), (), set="vwsd-kb")]
    )
    return found, model


def letters(word):
    return Letters()(word, False)["input_ids"]


def test_a_target_is_the_mean_of_its_tokens():
    found, model = context(("the", "fruit", "bat", "flew"), 1, 2)
    with torch.no_grad():
        tokens = model.backbone.read(found.ids, found.pads)
        u = model.context(found)
    assert close(
        u, F.normalize(tokens[:, 4:12].mean(1) @ model.backbone.text_projection, dim=-1)
    )  # start, t h e, f r u i t b a t
    assert not close(
        u, F.normalize(tokens[:, 4:11].mean(1) @ model.backbone.text_projection, dim=-1)
    )
    sentence, _ = context(("the", "fruit", "bat", "flew"), 1, 2, context="sentence")
    assert sentence.inside.nonzero().tolist() == [[0, int(sentence.end)]]


@pytest.mark.parametrize("place", range(0, 30, 3))
@pytest.mark.parametrize("width", [1, 2, 6])
def test_a_long_context_is_a_window_that_holds_its_target(place, width):
    words = [chr(0x100 + i) * 3 for i in range(36)]
    found, _ = context(words, place, place + width - 1)
    ids = [i for word in words[place : place + width] for i in letters(word)]
    inside = found.ids[0][found.inside[0]].tolist()
    assert inside == ids[:18] and len(inside) == min(3 * width, 18)
    assert found.ids[0, 0] == 298 and found.ids[0, -1] == 299 and not found.pads.any()


def test_drop_end_keeps_the_target_too_but_not_the_end():
    words = [chr(0x100 + i) * 3 for i in range(36)]
    for place in (0, 5, 20, 35):
        found, _ = context(words, place, place, drop_end=True)
        assert (
            found.ids[0][found.inside[0]].tolist() == letters(words[place])
            and 299 not in found.ids[0]
        )
    assert 298 not in found.ids[0]  # a window in the middle loses its start as well


def test_a_word_without_tokens_reads_some_place_of_the_text():
    found, _ = context(("bat", ""), 1, 1)
    assert found.inside.sum() == 1 and found.ids[0][found.inside[0]].tolist() == [299]


def test_long_glosses_keep_their_end_unless_the_fault_is_asked_for():
    long = " ".join(["mammal"] * 9)
    found = texts(make(), [long, "bat"])
    assert (
        found.end.tolist() == [19, 4]
        and found.ids[0, 19] == 299
        and found.ids[1].tolist() == [298, *letters("bat"), 299] + [0] * 15
    )
    assert found.inside.nonzero().tolist() == [[0, 19], [1, 4]]
    faulty = texts(make(drop_end=True), [long, "bat"])
    assert (
        faulty.end.tolist() == [0, 4]
        and 299 not in faulty.ids[0]
        and faulty.inside.nonzero().tolist() == [[0, 0], [1, 4]]
    )
    model = make(drop_end=True).eval()
    with torch.no_grad():
        one, other = (
            model.read(texts(model, [long, long + " else"])),
            model.read(texts(model, ["wholly different " * 5])),
        )
    assert close(one[0], other[0]) and close(one[0], one[1])  # every long text reads the same


@pytest.mark.parametrize(
    ("phrase", "target", "left"),
    [
        ("andromeda tree", "andromeda", "t"),
        ("bank erosion", "bank", "erosio"),
        ("river bank", "bank", "river"),
    ],
)
def test_strip_target_takes_letters_for_a_word(phrase, target, left):
    words = tuple(phrase.split())
    at = words.index(target)
    model = make(strip_target=True)
    placed = Coder(model.backbone, model.config)._placed(
        Record("r", "en", words, (at, at), (), (), set="vwsd-kb")
    )
    assert placed == ([target, left], 0, 0)
    kept = make()
    assert Coder(kept.backbone, kept.config)._placed(
        Record("r", "en", words, (at, at), (), (), set="vwsd-kb")
    ) == (list(words), at, at)


def test_target_first_and_last_occurrence():
    def placed(words, span, set, **faults):
        model = make(**faults)
        return Coder(model.backbone, model.config)._placed(
            Record("r", "en", tuple(words.split()), span, (), (), set=set)
        )

    assert placed("steep river bank", (2, 2), "vwsd-kb", target_first=True) == (
        ["bank", "steep", "river"],
        0,
        0,
    )
    assert placed("steep river bank", (2, 2), "semcor", target_first=True) == (
        ["steep", "river", "bank"],
        2,
        2,
    )
    assert placed("a bank by a bank", (1, 1), "semcor", last_occurrence=True) == (
        "a bank by a bank".split(),
        4,
        4,
    )
    assert placed("a bank by a bank", (1, 1), "semcor") == ("a bank by a bank".split(), 1, 1)
    assert placed("fruit bat fruit bat", (0, 1), "semcor", last_occurrence=True)[1:] == (0, 1)


def test_captions_and_the_visual_tests_text():
    assert photo_text("bat", "A Small mammal", stop=True) == 'A photo of "bat", a small mammal.'
    assert (
        photo_text("fruit bat", "small mammal") == 'A photo of "fruit bat", small mammal'
        and photo_text("fruit bat") == 'A photo of "fruit bat"'
    )
    model = make()
    its = Record(
        "r",
        "en",
        ("the", "x", "y"),
        (1, 2),
        (Candidate("m", "B c."), Candidate("c", "club")),
        ("m",),
    )
    found, expected = (
        batch(model, [its]).captions,
        texts(model, ['A photo of "x y", b c.', 'A photo of "x y", club.']),
    )
    assert torch.equal(found.ids, expected.ids) and torch.equal(found.end, expected.end)


@pytest.mark.parametrize("readout", ["first", "eot", "mean"])
def test_masked_padding_means_nothing(readout):
    """Alone, beside a longer gloss, and with another embedding of the padding id: the same vectors;
    unmasked, padding is read like a token.
    """

    def vectors(mask, pad):
        model = make(mask_pads=mask, readout=readout).eval()
        with torch.no_grad():
            model.backbone.token_embedding.weight[0] = model.backbone.token_embedding.weight[pad]
            alone, together = (
                torch.cat([v[:1] for v in model.senses(texts(model, some))])
                for some in (["a bat"], ["a bat", *PHRASES])
            )
        return alone, together

    (alone, together), (other, _) = vectors(True, 0), vectors(True, 7)
    assert close(alone, together) and close(alone, other)
    assert not close(vectors(False, 0)[0], vectors(False, 7)[0], 1e-3)


# ---------------------------------------------------------------- configuration


def test_presets_and_misspelt_names():
    code = make_config("code", ema=0.5, clip=1.0)
    assert (
        code.borrowed,
        code.roles,
        code.ema,
        code.clip,
        PRESETS["paper"].borrowed,
        PRESETS["paper"].roles,
    ) == (2, "code", 0.5, 1.0, 4, "figure")
    assert Config(**json.loads(code.to_json())) == code
    for wrong, said in (
        ({"temprature": 1}, "Did you mean 'temperature'"),
        ({"ema": "high"}, "ema takes float"),
        ({"roles": "both"}, "figure, code"),
        ({"losses": ["sgi"]}, "sig, w2s"),
        ({"ema": 1.0}, "ema is 1.0 .*from 0.0 to 0.999999"),
        ({"senses": 0}, "senses is 0 .*from 1 to"),
        ({"repack": 1}, "repack takes bool"),
    ):
        with pytest.raises(VwsdError, match=said):
            make_config("code", **wrong)
    with pytest.raises(VwsdError, match="Did you mean 'paper'"):
        make_config("papr")


def test_the_tiny_clip_is_what_these_tests_take_it_for():
    its = make().backbone
    assert (its.width, its.vision_width, its.places, its.length) == (WIDTH, VISION, PLACES, 20)


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": float("nan")},
        {"rate": -1.0},
        {"open_text": -1},
        {"temperature": 0.0},
        {"ema": 1.0},
        {"borrowed": 0},
    ],
)
def test_a_number_out_of_range_is_refused(changes):
    with pytest.raises(VwsdError, match="out of range"):
        make_config("paper", **changes)


def test_a_text_from_the_command_line_becomes_a_rate_or_a_loss():
    its = make_config("paper", rate="1e-4", losses="sig")
    assert its.rate == 1e-4 and its.losses == ("sig",)
    with pytest.raises(VwsdError, match="rate takes float"):
        make_config("paper", rate="fast")
