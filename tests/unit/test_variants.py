"""`@auto`: what the probe says is what is taken, kept and said."""

import json

import pytest

from vwsd_standins.rehearsal.models import make_models
from vwsdlib.encoders import variants
from vwsdlib.encoders.pretrained import load_pretrained
from vwsdlib.encoders.registry import entry
from vwsdlib.errors import VwsdError

# milliseconds a picture of one core: with products for bf16, and without
WITH = {"pillow": 14.0, "quick": 5.0, "fp32": 80.0, "bf16": 25.0}
WITHOUT = {"pillow": 14.0, "quick": 5.0, "fp32": 40.0, "bf16": 160.0}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    monkeypatch.setenv("VWSD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VWSD_DEVICE", "cpu")
    return monkeypatch


@pytest.mark.parametrize("measured, chosen", [(WITH, "bf16"), (WITHOUT, "quick")])
def test_the_fastest_is_taken_and_what_loses_is_named(machine, measured, chosen):
    machine.setattr(variants, "probe", lambda: measured)
    faster = variants.speeds()
    assert variants.fastest(faster) == chosen
    assert variants.losing() == {n: s for n, s in faster.items() if n == "bf16" and s < 1}
    assert (faster["bf16"] < 1) == (measured is WITHOUT)


def test_a_less_exact_variant_must_pay():
    assert variants.fastest({"fp32": 1.0, "quick": 1.05, "bf16": 1.08}) == "fp32"
    assert variants.fastest({"fp32": 1.0, "quick": 1.2, "bf16": 1.25}) == "quick"
    assert variants.fastest({"fp32": 1.0, "quick": 0.9, "bf16": 1.2}) == "bf16"


def test_a_card_computes_while_the_cores_resize(machine):
    machine.setattr(variants, "probe", lambda: WITHOUT | {"fp32": 0.2, "bf16": 0.1})
    machine.setattr(variants.device, "choose", lambda: "cuda:0")
    machine.setattr(variants, "cores", lambda: 4)
    assert variants.speeds()["bf16"] == pytest.approx(14 / 5)  # the cores decide, not the card


def test_the_probe_measures_once_a_machine(machine):
    machine.setattr(variants, "PICTURE", (64, 48))
    machine.setitem(variants.SHAPE, "cpu", (1, 1))
    first = variants.probe()
    assert set(first) == {"pillow", "quick", "fp32", "bf16"} and min(first.values()) > 0
    machine.setattr(variants, "_measured", lambda: WITH)
    assert variants.probe() == first
    machine.setattr(variants, "cores", lambda: 77)
    assert variants.probe() == WITH  # another machine


def test_a_card_is_measured_with_the_batch_that_encoders_give_it(machine):
    layers, pictures = variants.SHAPE["card"]
    assert layers == variants.OF_LAYERS  # fewer: launching kernels would be measured
    assert pictures == variants.device.GPU_BATCH


def test_a_damaged_probe_is_measured_again(machine):
    machine.setattr(variants, "_measured", lambda: WITH)
    variants.probe()
    (file,) = (variants.cache_dir() / "machine").glob("variants-*.json")
    assert json.loads(file.read_text())["machine"]["device"] == "cpu"
    file.write_text("{}")
    machine.setattr(variants, "_measured", lambda: WITHOUT)
    assert variants.probe() == WITHOUT


@pytest.mark.parametrize(
    "measured, name", [(WITH, "clip-vit-b32@bf16"), (WITHOUT, "clip-vit-b32@quick")]
)
def test_auto_is_stored_as_what_was_chosen(machine, tmp_path, capsys, measured, name):
    machine.setenv("VWSD_MODELS", str(make_models(tmp_path / "models")))
    machine.setattr(variants, "probe", lambda: measured)
    encoder = load_pretrained("clip-vit-b32", "auto")
    chosen = load_pretrained("clip-vit-b32", name.partition("@")[2])
    assert encoder.name == chosen.name == name and encoder.identity() == chosen.identity()
    assert f"note: clip-vit-b32@auto is {name.partition('@')[2]} here" in capsys.readouterr().err


def test_auto_is_a_variant_of_published_encoders_alone():
    assert "auto" in entry("clip-vit-b32@auto").variants
    with pytest.raises(VwsdError, match="no variant 'auto'"):
        entry("random@auto")
