"""What a training costs: counted operations and memory against those of a real step."""

import dataclasses

import pytest
import torch
from polclip_tiny import (  # noqa: F401
    BATCHES,
    LENGTH,
    VISION,
    WIDTH,
    make,
    one_thread,
    states,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from polclip import cost
from polclip.batches import collate, pictures_of
from polclip.config import PRESETS, make_config
from vwsdlib.encoders.pretrained import RECIPES

TINY = cost.Size(WIDTH, 2, VISION, 2, 28, 14, tokens=LENGTH, mlp=2)


def step(**changes):
    """(model, batch of ten senses and fifteen pictures, its configuration with those budgets)."""
    model = make(**changes)
    records = [record for batch in BATCHES[:2] for record in batch][:4] + BATCHES[4][:1]
    batch = collate(records, model.coder, states(pictures_of(records)))
    config = dataclasses.replace(model.config, senses=10, pictures=15, per_sense=2)
    return model, batch, config


@pytest.mark.parametrize("changes", [{}, {"fuse": False}, {"open_vision": 1}, {"borrowed": 2}])
def test_operations_are_those_that_a_step_does(changes):
    model, batch, config = step(open_text=2, **changes)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(batch)["loss"].backward()
    counted, _ = cost._step_flop(config, TINY, candidates=2)
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_operations_of_the_frozen_tower():
    model, _, config = step()
    pixels = torch.zeros(15, 3, 28, 28)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.backbone.frozen_look(pixels)
    patches = 2 * 15 * 4 * VISION * 3 * 14 * 14  # a tenth here, nothing in a real tower
    _, counted = cost._step_flop(config, TINY, candidates=2)
    assert counted + patches == pytest.approx(counter.get_total_flops(), rel=0.05)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_memory_is_what_a_step_keeps(precision):
    model, batch, config = step(open_text=2, precision=precision)
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    alive = [*model.parameters()]
    weights = {p.untyped_storage().data_ptr() for p in alive}
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with autocast, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(batch)
    measured = sum(size for place, size in kept.items() if place not in weights)
    estimated = 1e9 * cost.memory_gb(config, TINY, False, candidates=2)
    estimated -= cost._weight_bytes(config, TINY)
    assert 0.7 < estimated / measured < 1.5


def test_the_paper_s_size_and_what_its_settings_say():
    paper = make_config("paper", precision="bf16")
    one = cost.training_cost(paper, 1000)
    assert one.frozen_tflop == pytest.approx(40, rel=0.05)
    assert one.trained_tflop == pytest.approx(15, rel=0.05)
    twice = cost.training_cost(dataclasses.replace(paper, epochs=40), 1000)
    assert twice.steps == 2 * one.steps and twice.tflop == pytest.approx(2 * one.tflop)
    assert one.hours(100) == pytest.approx(one.tflop / 360_000)
    smaller = dataclasses.replace(paper, senses=20, pictures=100)
    assert cost.training_cost(smaller, 1000).steps > 2 * one.steps
    size = cost.SIZES["clip-vit-l14"]
    whole, parts = (cost.memory_gb(paper, size, on) for on in (False, True))
    assert parts < 0.75 * whole < 24
    assert cost.training_cost(PRESETS["demo"], 1000) is None


def test_every_clip_that_can_be_a_backbone_has_its_sizes():
    able = {n for n, r in RECIPES.items() if r.model == "CLIPModel" and not (r.tower or r.override)}
    assert able == cost.SIZES.keys()


def test_the_study_of_the_paper_is_months_and_stand_ins_are_not_counted():
    parameters = ("paper", {}, {"train": "all"}, [42, 43, 44], ["no-sig"] * 9)
    whole = cost.study_cost("published", *parameters)
    assert whole.runs == 12 and whole.hours(100) > 24 * 30
    alone = cost.study_cost("published", "paper", {}, {"train": "ie_semcor"}, [42], [])
    assert alone.runs == 1 and alone.steps < whole.steps
    assert cost.study_cost("rehearsal", *parameters) is None
