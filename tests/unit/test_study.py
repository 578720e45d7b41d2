"""Studies: what the paper's asks for where its data are missing, what the rehearsal replays, and a
run from end to end.
"""

import dataclasses
import json

import numpy as np
import pytest
import torch

from polclip import paper, runs, sources, study
from polclip import train as training
from polclip.backbone import ClipBackbone
from polclip.checkpoints import read_checkpoint, tensors_sha256
from polclip.config import PRESETS, Config, make_config
from polclip.model import PolClip
from polclip.packing import packed
from polclip.published import read_metadata
from polclip.states import PictureStates
from polclip.train import train
from vwsd_standins.rehearsal import data
from vwsd_standins.rehearsal.polclip import FILES, make_polclip, polclip_folder
from vwsdlib.errors import VwsdError

SMALL = {"test": {"en": (6, 4), "it": (4, 3), "fa": (3, 2)}, "trial": {"en": (2, 2)}}
TINY = {"former_layers": 1, "fusion_layers": 1, "hidden": 32, "heads": 4, "epochs": 1}


@pytest.fixture
def home(own_folders, tiny_clip, monkeypatch):
    """Data below tmp_path, the tiny checkpoint, small V-WSD sets; no study is remembered."""
    monkeypatch.setenv("VWSD_DATA", str(own_folders / "data"))
    monkeypatch.setenv("VWSD_MODELS", str(tiny_clip))
    monkeypatch.setattr(data, "SPLITS", SMALL)
    study._study.cache_clear()
    yield own_folders / "data"
    study._study.cache_clear()


def test_weights_are_known_by_their_numbers_not_by_the_order_of_a_file_s_header():
    tensors = {
        "a": torch.arange(6.0).reshape(2, 3),
        "b": torch.tensor(1.5),
        "c": torch.ones(2, dtype=torch.bfloat16),
    }
    mine = tensors_sha256(tensors)
    assert (
        tensors_sha256(dict(reversed(tensors.items())))
        == mine
        == tensors_sha256({**tensors, "a": tensors["a"].T.contiguous().T})
    )
    changed = [
        {**tensors, "a": tensors["a"].reshape(3, 2)},
        {**tensors, "b": torch.tensor(1.25)},
        {**tensors, "c": torch.ones(2, dtype=torch.float16)},
        {("d" if k == "b" else k): v for k, v in tensors.items()},
    ]
    assert len({mine, *map(tensors_sha256, changed)}) == 5


# ---------------------------------------------------------------- the published study


def test_missing_files_are_named_in_one_sentence_with_sizes_and_where_to_get_them(home):
    with pytest.raises(VwsdError) as e:
        study.load_study("published")
    said = str(e.value)
    for part in (
        "semcor_training_tokens.50.250.json",
        "vwsd_training_tokens.50.250.json",
        "image_pt/",
        "image_vecs/",
        "all_twsd_test_data.json",
        "ALL.data.xml",
        "3.06 GB",
        "195 GB",
        "0.97 GB",
        "108 GB",
        "CharlesYang030/PolCLIP",
        str(home / "polclip"),
    ):
        assert part in said
    assert said.count("\n") == 0
    with pytest.raises(VwsdError) as e:
        study.load_study("published", train="ie_semcor")
    assert (
        "vwsd_training" not in str(e.value)
        and "0.97" not in str(e.value)
        and "semcor_training" in str(e.value)
    )
    with pytest.raises(VwsdError, match="ie_semcor"):
        study.load_study("published", train="semcor")


def test_only_what_is_missing_is_named(home):
    folder = make_polclip(home / "polclip")
    (folder / FILES[1]).unlink()
    with pytest.raises(VwsdError) as e:
        paper.training(folder)
    assert (
        FILES[1] in e.value.what and FILES[0] not in e.value.what and FILES[2] not in e.value.what
    )
    assert paper.training(folder, "ie_semcor").facts["pictures"] == {"semcor": 19}


def test_the_published_study_stands_on_the_official_sets(home):
    make_polclip(home / "polclip")
    with pytest.raises(VwsdError, match="vwsd fetch vwsd --split trial"):
        study.load_study("published")
    for split in SMALL:  # made-up text under the official names
        data._make_split(home / "vwsd" / split, split, {}, 0)
    its, alone = study.load_study("published"), study.load_study("published", train="ie_semcor")
    assert (
        not its.keep_states
        and {r.set for r in its.dev_records} == {"SE07"}
        and len(its.test_records) == 48
    )
    assert [(d.language, len(d.items)) for d in its.test_sets] == [
        ("en", 6),
        ("it", 4),
        ("fa", 3),
    ] and len(its.dev_set.items) == 2
    assert (
        its.per_epoch(Config()) == 6 and alone.per_epoch(Config()) == 3 and alone.facts != its.facts
    )
    assert len(list(alone.batches(Config())(0))) == 3


def test_runs_are_kept_by_the_way_with_damaged_pictures_where_there_are_some(home):
    make_polclip(home / "polclip")
    for split in SMALL:
        data._make_split(home / "vwsd" / split, split, {}, 0)
    whole = study.load_study("published", damaged="stop")
    assert study.load_study("published", damaged="keep").facts == whole.facts  # test alone has some
    path = whole.dev_set.path(whole.dev_set.items[0].gold)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    study._study.cache_clear()
    kept = study.load_study("published", damaged="keep").facts
    assert kept["dev"]["damaged"]["way"] == "keep" and kept["dev"]["damaged"]["truncated"]
    assert study.load_study("published", damaged="stop").facts == whole.facts != kept


def test_without_training_data_the_tests_remain_and_say_why(home):
    for split in SMALL:
        data._make_split(home / "vwsd" / split, split, {}, 0)
    its = study.study_at_hand("published", train="ie_semcor", limit=3)
    assert isinstance(its.missing, paper.TrainingDataMissing) and "195 GB" in str(its.missing)
    assert [len(d.items) for d in its.test_sets] == [3, 3, 3] and not its.test_records
    assert study.no_training(its, [42]) is its.missing is study.no_test(its)
    with pytest.raises(paper.TrainingDataMissing):
        study.data_of(its, Config(), None)
    folder = make_polclip(home / "polclip")
    study._study.cache_clear()
    (folder / FILES[0]).unlink()  # the textual test is there
    its = study.study_at_hand("published", train="ie_semcor")
    assert its.missing and its.test_records and study.no_test(its) is None
    whole = study.study_at_hand("rehearsal")
    assert whole.missing is None is study.no_training(whole, [42])
    assert "training_seeds" in study.no_training(whole, []).remedy


XML = """<corpus lang="en" source="all"><text id="d"><sentence id="s"><wf>a</wf>
<instance id="semeval2007.d000.s000.t000" lemma="bat" pos="NOUN">bat</instance>
<instance id="senseval2.d000.s000.t000" lemma="bat" pos="NOUN">bat</instance>
</sentence></text></corpus>"""


def test_the_unified_evaluation_framework_stands_in_for_the_textual_test(
    home, toy_dict, monkeypatch
):
    monkeypatch.setenv("VWSD_WORDNET", str(toy_dict(home / "dict")))
    folder = make_polclip(home / "polclip")
    (folder / FILES[2]).unlink()
    place = home / "wsd" / "any" / "ALL"
    place.mkdir(parents=True)
    (place / "ALL.data.xml").write_text(XML)
    assert paper.framework() is None  # no key beside it
    (place / "ALL.gold.key.txt").write_text(
        "".join(f"{name}.d000.s000.t000 bat%1:06:00::\n" for name in ("semeval2007", "senseval2"))
    )
    assert [(r.set, r.golds) for r in paper.textual_test(folder)] == [
        ("SE07", ("bat%1:06:00::",)),
        ("SE2", ("bat%1:06:00::",)),
    ]
    assert paper.training(folder).per_epoch(Config()) == 6


# ---------------------------------------------------------------- streaming


def test_the_rehearsal_replays_the_batches_exactly_and_mixes_two_files_by_the_seed(home):
    its, folder = study.load_study("rehearsal"), polclip_folder()
    roots = {kind: folder / name for kind, name in paper.PICTURES.items()}
    written = {
        kind: list(read_metadata(folder / name, roots)) for kind, name in paper.METADATA.items()
    }
    config = make_config("paper", senses=3, pictures=4)  # budgets change nothing
    batches = list(its.batches(config)(0))
    own = {
        kind: [b for b in batches if (b[0].set == "vwsd-kb") == (kind == "vwsd")]
        for kind in written
    }
    assert (
        own == written and its.per_epoch(config) == len(batches) == 6
    )  # the code's preset treats phrases in its own way
    assert list(its.batches(config)(0)) == batches
    orders = {
        tuple(b[0].set for b in its.batches(make_config(seed=seed))(epoch))
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) > 3


def test_batches_are_read_one_at_a_time_and_counted_once(home, monkeypatch):
    folder, read = make_polclip(home / "polclip"), []

    def counting(path, *args, **kwargs):
        for batch in read_metadata(path, *args, **kwargs):
            read.append(path.name)
            yield batch

    monkeypatch.setattr(sources, "read_metadata", counting)
    source = paper.training(folder)
    assert read == [] and source.per_epoch(Config()) == 6 and len(read) == 6
    assert source.per_epoch(Config()) == 6 and len(read) == 6
    stream = source.batches(Config())(0)
    next(stream)
    assert len(read) == 7
    written = json.loads((folder / FILES[0]).read_text())
    (folder / FILES[0]).write_text(json.dumps(written[:2]))
    assert paper.training(folder).per_epoch(Config()) == 5  # another size, counted again


def test_a_picture_that_is_missing_stops_the_count_or_is_left_out(home):
    folder = make_polclip(home / "polclip")
    next((folder / "image_pt").iterdir()).unlink()
    with pytest.raises(VwsdError, match="no picture file"):
        paper.training(folder).per_epoch(Config())
    source = paper.training(folder, missing="drop")
    with pytest.warns(UserWarning, match="1 pictures are missing"):
        assert source.per_epoch(Config()) == 6


# ---------------------------------------------------------------- plans and runs


def test_every_ablation_makes_a_valid_configuration_of_every_preset():
    idle = {
        "paper": {"temperature-1", "span"},
        "paper-day": {"temperature-1", "span"},
        "code": {"temperature-1", "borrow-2", "roles", "no-ema", "span"},
        "demo": set(),
    }  # would change nothing
    for preset, config in PRESETS.items():
        for name in idle[preset]:
            with pytest.raises(VwsdError, match="changes nothing"):
                runs.plans(config, [1], [name])
        names = [name for name in runs.ABLATIONS if name not in idle[preset]]
        plans = runs.plans(config, [1, 2], names)
        assert [p.config.seed for p in plans] == [1, 2] + [1] * len(names) and len(
            {p.name for p in plans}
        ) == len(plans)
        for plan in plans[2:]:
            changes = runs.ABLATIONS[plan.name][1]
            assert plan.group == "ablation" and plan.changed and json.loads(plan.config.to_json())
            assert plan.config == make_config(preset, seed=1, **changes)
    with pytest.raises(VwsdError, match="no-ema"):
        runs.plans(Config(), [1], ["no-emma"])


def test_a_study_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(VwsdError, match="published"):
        study.load_study("publishd")
    with pytest.raises(VwsdError, match="not one batch"):
        study.data_of(
            sources.Study("x", lambda config: packed([], config), [], None, [], []),
            Config(),
            None,
        )


def test_a_run_of_the_rehearsal_from_end_to_end_is_trained_once(home, monkeypatch):
    (plan,) = runs.plans(make_config("paper", **TINY), [3])
    result = runs.run_one("rehearsal", plan, {"limit": 2})
    assert (
        len(result.steps) == 6
        and [sorted(t["dev"]) for t in result.tests] == [["textual", "visual"]]
        and result.best["epoch"] == 0
    )
    assert (
        all(np.isfinite(step["loss"]) for step in result.steps)
        and result.checkpoint.name == "best.safetensors"
    )
    assert {name: len(rows) for name, rows in result.textual.items()} == {
        "plain": 2,
        "fused": 2,
        "sum": 2,
    }
    assert [scores["sum"].shape for scores in result.visual.values()] == [(2, 10)] * 3
    assert result.identity()["weights_sha256"] == tensors_sha256(
        read_checkpoint(result.checkpoint)[2]
    )
    before = result.checkpoint.stat().st_mtime_ns
    assert "trained_by" not in result.about()
    another_version(monkeypatch)
    again = runs.run_one("rehearsal", plan, {"limit": 2})
    assert again.about()["trained_by"] == result.trained_by != [training.trainer()]
    assert again.checkpoint == result.checkpoint and again.checkpoint.stat().st_mtime_ns == before
    assert all(np.array_equal(a, b) for a, b in zip(again.textual["sum"], result.textual["sum"]))


def another_version(monkeypatch):
    """As after an update of torch, of transformers and of this package."""
    identity = ClipBackbone.identity
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    monkeypatch.setattr(training, "code", lambda: "another")
    monkeypatch.setattr(
        ClipBackbone, "identity", lambda self: identity(self) | {"processor": "transformers 99"}
    )


def test_an_update_orphans_no_run_and_another_format_does(home, monkeypatch):
    its, model = study.load_study("rehearsal", limit=2), PolClip(make_config("paper", **TINY))
    (plan,) = runs.plans(model.config, [3])
    folder = runs.run_folder(its, plan, model)
    another_version(monkeypatch)
    assert runs.run_folder(its, plan, model) == folder
    monkeypatch.setattr(runs, "FORMAT", 99)
    assert runs.run_folder(its, plan, model) != folder


def test_a_run_whose_data_changed_is_another_run(home):
    its = study.load_study("rehearsal", limit=2)
    model = PolClip(make_config("paper", **TINY))
    (plan,) = runs.plans(model.config, [3])
    other = dataclasses.replace(its, facts=its.facts | {"train": "ie_semcor"})
    assert runs.run_folder(its, plan, model) != runs.run_folder(other, plan, model)
    states = PictureStates(model.backbone, its.keep_states)
    train(model, study.data_of(its, model.config, states), home / "run", save_every=1, stop_after=2)
    with pytest.raises(VwsdError, match="another configuration, backbone or data"):
        train(model, study.data_of(other, model.config, states), home / "run")
