"""The check for a card, in small and on the processor: every part runs, and a failure is one."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu, models, plain

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


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


PATIENT_CHECK = """#!{python}
import signal, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from benchmarks import gpu

def patient(sizes, out):
    out.facts["first half"] = 1
    signal.signal(signal.SIGTERM, {on_sigterm})
    Path({middle!r}).touch()
    time.sleep(60)

gpu.CHECKS["facts"] = gpu.Check(patient, 1)
sys.exit(gpu.main(["--check", "facts"]))
"""


def ended_in_the_middle(tmp_path, monkeypatch, on_sigterm):
    """The line of a check that computes for a minute and is ended once it is half through."""
    middle, script, ends = tmp_path / "middle", tmp_path / "python", gpu._ends
    told = {"python": sys.executable, "root": str(ROOT), "middle": str(middle)}
    script.write_text(PATIENT_CHECK.format(**told, on_sigterm=on_sigterm))
    script.chmod(0o755)

    def ends_there(process, limit):
        while not middle.exists() and process.poll() is None:
            time.sleep(0.02)
        return ends(process, limit)

    monkeypatch.setattr(gpu, "_ends", ends_there)
    monkeypatch.setattr(sys, "executable", str(script))
    return gpu.apart("facts", False, 0.01)


def test_a_check_that_is_ended_gives_the_facts_that_it_has(tmp_path, monkeypatch):
    line = ended_in_the_middle(tmp_path, monkeypatch, "gpu.end")
    assert not line["ok"] and line["facts"] == {"first half": 1} and line["seconds"] < 30
    assert [f[:12] for f in line["failures"]] == ["it was ended", "it took more"]


def test_a_check_that_does_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "GRACE", 0.2)
    line = ended_in_the_middle(tmp_path, monkeypatch, "signal.SIG_IGN")
    assert not line["ok"] and line["facts"] == {}
    assert line["failures"] == ["it took more than 0 s"]


def test_checks_use_what_those_before_them_left(monkeypatch, capsys):
    limits = []

    def passes(name, quick, limit):
        limits.append(limit)
        return {"check": name, "ok": True, "facts": {}}

    monkeypatch.setattr(gpu, "apart", passes)
    assert gpu.main([]) == 0 and gpu.main(["--minutes", "1"]) == 0
    capsys.readouterr()
    whole = np.cumsum([check.limit for check in gpu.CHECKS.values()])
    assert whole[-1] <= 600
    assert limits[: len(whole)] == pytest.approx(whole, abs=1)
    assert limits[len(whole) :] == pytest.approx(np.minimum(whole, 60), abs=1)


def test_the_table_of_what_was_run_on_a_card_is_that_of_its_file():
    lines = json.loads((BENCHMARKS / "results/gpu-nvidia-h100-80gb-hbm3.json").read_text())
    rates = next(line["facts"] for line in lines if line["check"] == "towers")
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    for key, name in (("clip-vit-b32", "B/32"), ("clip-vit-l14", "L/14")):
        for batch in gpu.FULL.batches:
            cells = [f"{name}, {batch}"]
            for dtype in ("fp32", "bf16"):
                label = f"{key} {dtype}, batch {batch}"
                rate, share = rates[f"{label} (pictures/s)"], rates[f"{label}, share of peak (%)"]
                cells.append(f"{rate:,.0f} ({share:.0f} %)")
            assert f"| {' | '.join(cells)} |" in page
    unfinished = gpu.CHECKS.keys() - {line["check"] for line in lines if line["ok"]}
    assert unfinished and all(f"`{name}`" in page for name in unfinished)
    assert len(lines) == 7 and len(unfinished) == 6


def test_results_are_named_after_the_card(tmp_path):
    gpu.keep([{"check": "facts", "facts": {"card": "NVIDIA H100 80GB"}}], tmp_path)
    gpu.keep([{"check": "facts", "facts": {"card": None}}], tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "gpu-no-card.json",
        "gpu-nvidia-h100-80gb.json",
    ]
