"""The check for a card, in small and on the processor: every part runs, and a failure is one."""

import json

import numpy as np
import pytest

from benchmarks import gpu, models, plain


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A cache of its own, and the processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VWSD_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name, value in (("VWSD_MODELS", ""), ("VWSD_DEVICE", "cpu"), ("HF_HUB_OFFLINE", "1")):
            patch.setenv(name, value)
        caches = models.encoder, plain.load, models.load_encoder
        for function in caches:
            function.cache_clear()
        yield patch
        for function in caches:
            function.cache_clear()


@pytest.fixture(scope="module")
def reference(here):
    return gpu.one("reference", True)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "torchrun")) for n in gpu.CHECKS]
)
def test_every_check_passes_in_small(here, reference, name):
    line = reference if name == "reference" else gpu.one(name, True)
    assert line["ok"] and line["failures"] == [], line
    assert json.loads(json.dumps(line, default=str))["check"] == name


def test_drift_and_memory_that_stays_are_failures(here, reference, monkeypatch):
    file = gpu.work_folder() / "reference.npz"
    before = gpu.stored("reference")
    np.savez(file, **before | {"rows": before["rows"][::-1]})
    line = gpu.one("drift", True)
    np.savez(file, **before)
    assert not line["ok"] and "fp32 is" in line["failures"][0]
    monkeypatch.setattr("vwsdlib.encoders.networks.make_room", lambda beside: None)
    assert "still in memory" in gpu.one("memory", True)["failures"][0]


def test_a_check_that_breaks_or_takes_too_long_is_a_line_too(here, monkeypatch, capsys):
    def broken(sizes, out):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setitem(gpu.CHECKS, "facts", gpu.Check(broken, 1))
    line = gpu.one("facts", True)
    assert not line["ok"] and line["failures"] == ["RuntimeError: no kernel image is available"]
    assert gpu.apart("facts", True, 0.01)["failures"] == ["it took more than 0 s"]
    monkeypatch.setattr(gpu, "apart", lambda name, quick, limit: gpu.one(name, quick))
    assert gpu.main(["--quick", "--only", "facts"]) == 1
    assert json.loads(capsys.readouterr().out)["check"] == "facts"


def test_results_are_named_after_the_card(tmp_path):
    gpu.keep([{"check": "facts", "facts": {"card": "NVIDIA H100 80GB"}}], tmp_path)
    gpu.keep([{"check": "facts", "facts": {"card": None}}], tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "gpu-no-card.json",
        "gpu-nvidia-h100-80gb.json",
    ]
