"""The plan before the work: what it reckons, what it leaves out and why, and that the runner does
the same.
"""

import dataclasses
import json

import pytest
from test_pipeline import PARAMETERS, Project, outcomes, states

from vwsd_companion import cli, doctor, forecast, machine, runner, work
from vwsd_companion.pipeline import plan
from vwsd_companion.report import left_out
from vwsdlib.data.items import Item
from vwsdlib.data.sets import VwsdSet
from vwsdlib.encoders import variants
from vwsdlib.kept import digest
from vwsdlib.language.definitions import WRITING, Definitions, write_definitions
from vwsdlib.paths import cache_dir, run_dir, write_text

CARDS = list(machine.COSTS["cards"])
OWN = machine.Machine(
    "a processor",
    "cpu",
    16.0,
    2,
    {"float32": 0.2, "bfloat16": 0.4},
    {"original": 40.0, "resized": 800.0},
    "measured",
    0.7,
)


@pytest.fixture(scope="module")
def paper():
    return plan("paper")


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """No data, no checkpoints, a machine that needs no measuring."""
    for variable in ("VWSD_DATA", "VWSD_RESULTS", "VWSD_CACHE", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    for variable in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "VWSD_MODELS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(forecast, "this_machine", lambda: OWN)
    return tmp_path


def by_name(planned):
    return {one.notebook: one for one in planned.forecasts}


# ---------------------------------------------------------------- what is reckoned


@pytest.mark.parametrize(
    "name, tower, options",
    [
        ("clip-vit-b32", "picture", {"patch_size": 32}),
        ("clip-vit-b16-352", "picture", {"patch_size": 16, "image_size": 352}),
        (
            "clip-vit-l14-336",
            "picture",
            {
                "patch_size": 14,
                "image_size": 336,
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
            },
        ),
        ("clip-vit-b32", "text", {}),
    ],
)
def test_operations_are_those_that_torch_counts(name, tower, options):
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

    with torch.device("meta"):
        if tower == "text":
            model, given = CLIPTextModel(CLIPTextConfig()), torch.zeros(1, 77, dtype=torch.long)
        else:
            config = CLIPVisionConfig(**options)
            side = config.image_size
            model, given = CLIPVisionModel(config), torch.zeros(1, 3, side, side)
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(given)
    reckoned = work.tower_gflop(*machine.COSTS["networks"][name][tower])
    assert reckoned == pytest.approx(counter.get_total_flops() / 1e9, rel=0.04)


def test_every_network_of_the_profile_paper_has_its_costs(paper):
    assert [step.name for step in paper if not work.work_of(step.name, step.parameters)] == []


def test_a_set_or_a_network_that_is_not_known_has_no_estimate(paper):
    given = paper[1].parameters
    assert work.work_of("02_clip_baseline", given | {"dataset": "mine"}) is None
    assert work.work_of("02_clip_baseline", given | {"encoder": "mine"}) is None
    assert work.work_of("mine", given) is None


def test_fewer_items_are_less_work(paper):
    whole, some = (
        sum(one.gflop for one in work.work_of("02_clip_baseline", paper[1].parameters | limit))
        for limit in ({}, {"limit": 20})
    )
    assert 0 < some < whole / 5


@pytest.mark.parametrize("times", [2, 10])
def test_a_faster_card_never_takes_longer(times, paper):
    slow = machine.pretended("t4")
    rates = {number: times * rate for number, rate in slow.tflops.items()}
    fast = dataclasses.replace(slow, tflops=rates)
    for one, other in zip(
        forecast.plan_of(paper, machine=slow).forecasts,
        forecast.plan_of(paper, machine=fast).forecasts,
        strict=True,
    ):
        assert other.hours <= one.hours
        if one.notebook >= "03":  # there the network decides, not the reading of pictures
            assert other.hours < one.hours


def test_memory_is_that_of_the_largest_network(paper):
    one = by_name(forecast.plan_of(paper, machine=machine.pretended("h100")))
    largest = max(work.weights_gb(name) for name in paper[2].parameters["backbones"])
    assert largest < one["03_clipseg"].memory_gb < largest + 2
    assert one["02_clip_baseline"].memory_gb < one["03_clipseg"].memory_gb


# ---------------------------------------------------------------- what is left out, and why


@pytest.mark.parametrize("card", CARDS)
def test_a_pretended_plan_is_the_same_everywhere(card, paper, bare, monkeypatch):
    def measured():
        raise AssertionError("nothing is measured for a machine that is pretended")

    first = str(forecast.plan_of(paper, machine=machine.pretended(card)))
    monkeypatch.setattr(forecast, "this_machine", measured)
    monkeypatch.setenv("VWSD_DATA", str(bare / "elsewhere"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert str(forecast.plan_of(paper, machine=machine.pretended(card))) == first
    assert machine.pretended(card).name in first and str(bare) not in first
    for key in ("siglip2-so400m", "nllb-200-1.3b", "clipseg-rd64"):
        assert first.count(f"vwsd fetch models --only {key}\n") == 1


def test_too_little_memory_and_too_many_hours_are_reasons(paper):
    small = dataclasses.replace(machine.pretended("t4"), memory_gb=4.0)
    one = by_name(forecast.plan_of(paper, machine=small))["03_clipseg"]
    assert one.state == "left out" and len(one.reasons) == 1
    assert "GB of card memory, and 4.0 GB are there" in one.reasons[0]
    slow = dataclasses.replace(OWN, pretended=True)
    one = by_name(forecast.plan_of(paper, hours=2, machine=slow))
    assert "more than its 2 hours (--hours N" in one["03_clipseg"].reasons[0]
    assert one["02_clip_baseline"].state == "run" and one["03_clipseg"].minutes == 120
    assert by_name(forecast.plan_of(paper, hours=200, machine=slow))["03_clipseg"].state == "run"


def test_who_needs_what_is_left_out_is_blocked(paper):
    small = dataclasses.replace(machine.pretended("t4"), memory_gb=1.5)  # 02's network does not fit
    after = dataclasses.replace(paper[0], name="x", needs=("02_clip_baseline",))
    one = by_name(forecast.plan_of([*paper[:2], after], machine=small))
    assert one["02_clip_baseline"].state == "left out"
    assert (one["x"].state, one["x"].reasons) == ("blocked", ["by 02_clip_baseline"])


def test_what_is_missing_here_is_named_with_its_command(paper, bare):
    planned = forecast.plan_of(paper, state=False)
    one = by_name(planned)
    commands = {missing.what: missing.remedy for missing in planned.missing}
    assert "vwsd fetch vwsd --split test" in commands["en.test.data.v1.1.txt"]
    assert commands["checkpoint clip-vit-b32"] == "vwsd fetch models --only clip-vit-b32"
    assert any("gold" in what for what in commands)
    assert one["01_data"].state == "left out" and "are not here" in one["01_data"].reasons[0]
    assert "what needs no training" in " ".join(commands)
    checkpoints = [each for each in one["02_clip_baseline"].missing if "checkpoint" in each.what]
    assert [each.fetched for each in checkpoints] == [True]


def test_definitions_that_were_written_before_need_no_model(paper, bare, monkeypatch):
    items = [Item(f"en.{i}", "en", "bank", "river bank", ("a",) * 10, "a") for i in range(2)]
    shown = VwsdSet("vwsd", "en", "test", tuple(items), bare, "made up")
    monkeypatch.setattr(forecast, "load_set", lambda *_: shown)
    settings = {"temperature": 0, **WRITING}

    def plans(of):
        """(is Qwen missing?, hours) where definitions of these items are there."""
        facts = {"definer": "hf", "settings": settings}
        ids = tuple(item.id for item in of)
        made = Definitions(ids, tuple(map(str, ids)), facts, "generated")
        write_definitions(run_dir("paper"), made, "en", "test")
        one = by_name(forecast.plan_of(paper, state=False))["06_polclip"]
        return any("qwen" in each.what for each in one.missing), one.hours

    replayed, asked = plans(items), plans(items[:1])
    assert not replayed[0] and asked[0] and replayed[1] < asked[1]
    settings["prompt"] = "another"
    assert plans(items)[0]
    (run_dir("paper") / "definitions" / "hf.en.test.jsonl").write_text("{")
    assert any("qwen" in each.what for each in forecast.plan_of(paper, state=False).missing)


def test_checkpoints_that_the_notebook_would_fetch_are_a_reason_only_offline(
    paper, bare, monkeypatch
):
    monkeypatch.setattr(forecast, "_missing_set", lambda *_: iter(()))
    baseline = paper[1:2]
    alone = [dataclasses.replace(baseline[0], needs=())]
    assert forecast.plan_of(alone, state=False).forecasts[0].state == "run"
    monkeypatch.setattr(forecast, "free_gb", lambda folder: 0.1)
    [reason] = forecast.plan_of(alone, state=False).forecasts[0].reasons
    assert reason == "0.6 GB of checkpoints do not fit on their disk, 0.1 GB are free"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    [reason] = forecast.plan_of(alone, state=False).forecasts[0].reasons
    assert reason == "checkpoints are not here and nothing is fetched offline: clip-vit-b32"
    monkeypatch.setenv("VWSD_MODELS", "models")
    [reason] = forecast.plan_of(alone, state=False).forecasts[0].reasons
    assert reason == "checkpoints are not in models (VWSD_MODELS): clip-vit-b32"


def test_a_profile_without_known_costs_measures_nothing(bare, monkeypatch):
    def measured():
        raise AssertionError("the demo's costs are not known: nothing to measure for")

    monkeypatch.setattr(forecast, "this_machine", measured)
    planned = forecast.plan_of(plan("demo"), state=False)
    assert {one.state for one in planned.forecasts} == {"run"} and planned.machine is None
    assert "its hours are not known; it is stopped after 30 min" in str(planned)


# ---------------------------------------------------------------- the probe


def test_the_probe_is_kept_for_this_machine_and_made_again_when_damaged(bare, monkeypatch):
    made = []
    monkeypatch.setattr(machine, "_tflops", lambda device, number: made.append(number) or 1.5)
    monkeypatch.setattr(machine, "_decoded", lambda kind: 10.0)
    first = machine.kept_rates("cpu", "a processor")
    assert first == machine.kept_rates("cpu", "a processor") and made == ["float32", "bfloat16"]
    machine.kept_rates("cpu", "another processor")
    assert len(made) == 4
    for path in (bare / "VWSD_CACHE" / "machine").glob("*.json"):
        path.write_text('{"tflops": 3}')
    assert machine.kept_rates("cpu", "a processor") == first and len(made) == 6


def test_a_card_that_cannot_compute_is_estimated_from_its_name(monkeypatch):
    def full(*_):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(machine, "kept_rates", full)
    monkeypatch.setattr(machine, "hardware", lambda: ("cuda:0", "Tesla T4", 2.0))
    seen = machine.look()
    assert (seen.rates, seen.memory_gb) == ("estimated from the card's name", 2.0)
    assert seen.tflops == machine.pretended("t4").tflops and not seen.pretended
    monkeypatch.setattr(machine, "hardware", lambda: ("cuda:0", "an unknown card", 2.0))
    with pytest.raises(RuntimeError):
        machine.look()


def test_this_machine_is_measured_in_a_process_of_its_own(bare, monkeypatch):
    monkeypatch.setenv("VWSD_DEVICE", "cpu")
    known = {"milliseconds": {"pillow": 1.0, "quick": 1.0, "fp32": 1.0, "bf16": 4.0}}
    of_this = f"variants-{digest(variants.fingerprint())[:16]}.json"
    write_text(cache_dir() / "machine" / of_this, json.dumps(known))
    machine.this_machine.cache_clear()
    seen = machine.this_machine()
    assert seen.losing == {"bf16": 0.4} and "@bf16 (0.40 times as fast)" in seen.slower
    assert seen.rates == "measured" and seen.device == "cpu"
    assert min(*seen.tflops.values(), *seen.decoded.values(), seen.memory_gb) > 0
    assert seen.decoded["resized"] > seen.decoded["original"]
    machine.this_machine.cache_clear()


# ---------------------------------------------------------------- the commands


def test_the_plan_as_data_is_pure_json(bare, capsys):
    assert cli.main(["run", "--profile", "paper", "--plan", "--json"]) == 1
    planned = json.loads(capsys.readouterr().out)
    assert planned["machine"]["name"] == OWN.name and planned["hours_a_notebook"] == 24
    assert [one["state"] for one in planned["notebooks"]] == ["left out"] * 6
    assert cli.main(["run", "--profile", "paper", "--plan", "--pretend", "h100", "--json"]) in (
        0,
        1,
    )
    planned = json.loads(capsys.readouterr().out)
    assert planned["disks"] == {} and planned["notebooks"][2]["state"] == "run"


@pytest.mark.parametrize(
    "options", [["--pretend", "t4"], ["--json"], ["--plan", "--parameters"]], ids=" ".join
)
def test_options_that_do_not_go_together_are_refused(options, bare, capsys):
    assert cli.main(["run", "--profile", "paper", *options]) == 2
    assert "go with --plan" in capsys.readouterr().err


def test_the_cards_of_the_table_can_be_pretended(capsys):
    with pytest.raises(SystemExit):
        cli.main(["run", "--plan", "--pretend", "abacus"])
    said = capsys.readouterr().err
    assert all(card in said for card in CARDS)


def test_the_doctor_says_what_would_run(bare, monkeypatch):
    slow = dataclasses.replace(OWN, losing={"bf16": 0.25})
    monkeypatch.setattr(forecast, "this_machine", lambda: slow)
    rows = {row["check"]: row for row in doctor.examine("paper")}
    assert set(rows["plan"]) == {"check", "state", "what", "remedy"}
    assert "a processor" in rows["plan"]["what"]
    assert "03_clipseg left out" in rows["plan"]["what"]
    assert "slower here than fp32: @bf16 (0.25 times as fast)" in rows["plan"]["what"]
    assert "plan" not in {row["check"] for row in doctor.examine("demo")}


# ---------------------------------------------------------------- the run

OFFICIAL = f'{PARAMETERS}\ndataset = "vwsd"\nsplit = "test"\nencoder = "clip-vit-b32"'


@pytest.fixture
def official(tmp_path, bare, monkeypatch):
    """01_other, which needs nothing; 02_clip_baseline on data that are not here; 03_after."""
    project = Project(tmp_path / "home").enter(monkeypatch)
    monkeypatch.setenv("VWSD_DATA", str(bare / "VWSD_DATA"))
    project.add("01_other")
    project.add("02_clip_baseline", parameters=OFFICIAL)
    project.add("03_after", needs=["02_clip_baseline"])
    return project


def test_a_run_leaves_out_what_cannot_run_here_and_does_the_rest(official, capsys):
    report = runner.run("demo")
    said = capsys.readouterr().out
    assert outcomes(report) == {
        "01_other": "done",
        "02_clip_baseline": "left out",
        "03_after": "blocked",
    }
    assert report.exit_code == 1
    assert "02_clip_baseline  left out: en.test.data.v1.1.txt and en.test.gold.v1.1.txt" in said
    assert states(runner.status("demo"))["02_clip_baseline"][0] == "left out"
    assert states(runner.status("demo"))["03_after"] == ("blocked", "by 02_clip_baseline")
    assert list(left_out(official.results)) == ["02_clip_baseline"]


def test_hours_decide_and_more_of_them_let_it_run(official, monkeypatch):
    monkeypatch.setattr(forecast, "_missing", lambda *_: iter(()))
    slow = dataclasses.replace(OWN, tflops={"float32": 1e-5, "bfloat16": 1e-5})
    monkeypatch.setattr(forecast, "this_machine", lambda: slow)
    assert outcomes(runner.run("demo"))["02_clip_baseline"] == "left out"
    assert "more than its 1 hours" in left_out(official.results)["02_clip_baseline"]
    assert outcomes(runner.run("demo", hours=10**6))["02_clip_baseline"] == "done"
    assert left_out(official.results) == {}


def test_what_is_up_to_date_is_never_left_out(official, monkeypatch):
    monkeypatch.setattr(forecast, "_missing", lambda *_: iter(()))
    assert runner.run("demo").exit_code == 0
    monkeypatch.setattr(forecast, "this_machine", lambda: dataclasses.replace(OWN, memory_gb=0.1))
    assert set(outcomes(runner.run("demo")).values()) == {"up to date"}
    planned = forecast.plan_of(plan("demo"))
    assert {one.state for one in planned.forecasts} == {"up to date"}


def test_hours_are_the_time_budget_too(official, monkeypatch):
    monkeypatch.setattr(forecast, "_missing", lambda *_: iter(()))
    official.add("01_other", "import time; time.sleep(60)")
    report = runner.run("demo", only=["01_other"], hours=2 / 3600)
    assert "TimeBudgetExceeded" in report.outcomes[0].detail
