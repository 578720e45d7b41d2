"""`vwsd train`, `polclip`, `define`, `corpus`, `convert`: on tiny checkpoints and made-up data, in
one process and in two.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors

from polclip.published import read_textual_test
from polclip.records import Candidate, Record, load_records, save_records
from polclip.train import read_log
from vwsd_companion import cli
from vwsd_standins.rehearsal.polclip import FILES, make_polclip
from vwsdlib.errors import VwsdError
from vwsdlib.language.definitions import DEFINERS

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    part
    for field in (
        "former_layers=1",
        "fusion_layers=1",
        "hidden=32",
        "heads=4",
        "senses=10",
        "pictures=20",
        "epochs=2",
        "rate=0.001",
    )
    for part in ("--set", field)
]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return make_polclip(tmp_path_factory.mktemp("published"))


@pytest.fixture
def home(own_folders, tiny_clip, monkeypatch):
    """tmp_path, with the tiny checkpoint and twelve records with pictures in train.jsonl."""
    monkeypatch.setenv("VWSD_MODELS", str(tiny_clip))
    monkeypatch.chdir(own_folders)
    dice = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(dice.integers(0, 255, (20, 20, 3), np.uint8)).save(own_folders / f"{i}.png")
    senses = [Candidate(f"s{i}", f"gloss {i}", (str(own_folders / f"{i}.png"),)) for i in range(6)]
    records = [
        Record(
            f"r{i}",
            "en",
            ("a", f"word{i % 3}", "here"),
            (1, 1),
            (senses[i % 3], senses[3 + i % 3]),
            (f"s{i % 3}",),
            "NOUN",
        )
        for i in range(12)
    ]
    save_records(own_folders / "train.jsonl", records)
    return own_folders


def vwsd(capsys, *arguments):
    code = cli.main(list(map(str, arguments)))
    return code, *capsys.readouterr()


def by_metadata(published, out, *more):
    return [
        "train",
        "--metadata",
        published / FILES[0],
        "--pictures",
        f"semcor={published / 'image_pt'}",
        "--out",
        out,
        *TINY,
        *more,
    ]


# ---------------------------------------------------------------- train


def test_training_prints_its_losses_and_goes_on_where_it_stopped(home, capsys):
    arguments = [
        "train",
        "--records",
        "train.jsonl",
        "--dev-records",
        "train.jsonl",
        *TINY,
        "--out",
    ]
    code, out, err = vwsd(capsys, *arguments, "run")
    lines, (steps, tests) = out.splitlines(), read_log("run")
    assert (
        code == 0
        and lines[0].startswith(f"step {len(steps)}, epoch 2: loss {steps[-1]['loss']:.4f}  sig ")
        and len(steps) == 6
    )
    assert [re.sub(r"[\d.]+$", "", line) for line in lines[1:3]] == [
        "dev, epoch 1: textual ",
        "dev, epoch 2: textual ",
    ] and len(tests) == 2
    assert lines[3:] == ["run/best.safetensors", "run/last.safetensors"]
    before = Path("run/last.safetensors").read_bytes()
    code, again, _ = vwsd(capsys, *arguments, "run")
    assert code == 0 and again == out and Path("run/last.safetensors").read_bytes() == before
    code, _, err = vwsd(capsys, *arguments, "run", "--set", "temperature=0.5")
    assert code == 2 and "another configuration" in err


def test_two_processes_train_what_one_does_that_takes_two_batches(home, published, capsys):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "vwsd_companion.cli",
        *by_metadata(published, "two"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with open("err", "w+") as said:  # torchrun's processes write to its own stderr
        found = subprocess.run(
            list(map(str, command)),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            timeout=120,
        )
    assert found.returncode == 0, Path("err").read_text()
    assert (
        vwsd(capsys, *by_metadata(published, "one", "--set", "accumulate=2"))[0] == 0
        and vwsd(capsys, *by_metadata(published, "other"))[0] == 0
    )
    two, one, other = (
        load_tensors(Path(name) / "last.safetensors") for name in ("two", "one", "other")
    )
    assert all(torch.allclose(two[k], one[k], atol=1e-5) for k in one) and two.keys() == one.keys()
    assert not all(
        torch.allclose(two[k], other[k], atol=1e-5) for k in one
    )  # a batch a step trains something else
    steps, alone = read_log("two")[0], read_log("one")[0]
    assert len(steps) == len(alone) == 4 and all(
        abs(a["loss"] - b["loss"]) < 1e-5 for a, b in zip(steps, alone)
    )
    assert found.stdout.count("step 4, epoch 2") == 1  # one of them speaks


def test_shards_are_trained_on_with_pictures_and_prepared_pixels(home, published, capsys):
    assert (
        vwsd(capsys, "convert", "shards", "train.jsonl", "shards")[1]
        == "shards: 1 shards written\n"
    )
    code, out, _err = vwsd(
        capsys, "train", "--shards", "shards", *TINY, "--set", "epochs=1", "--out", "run"
    )
    assert code == 0 and "step 3, epoch 1" in out
    vwsd(
        capsys,
        "convert",
        "records",
        published / FILES[1],
        "kb.jsonl",
        "--kind",
        "metadata",
        "--pictures",
        f"vwsd={published / 'image_vecs'}",
    )
    vwsd(capsys, "convert", "shards", "kb.jsonl", "kb")
    for _i, png in enumerate(Path(".").glob("*.png")):
        png.unlink()  # shards need no files
    code, out, _err = vwsd(
        capsys, "train", "--shards", "kb", *TINY, "--set", "epochs=1", "--out", "run2"
    )
    assert code == 0 and "epoch 1: loss" in out
    assert (
        vwsd(
            capsys,
            "train",
            "--shards",
            "kb",
            "--out",
            "run2",
            *TINY,
            "--set",
            "epochs=1",
            "--set",
            "seed=1",
        )[0]
        == 2
    )


@pytest.mark.parametrize(
    "change, words",
    [
        ({"--preset": "papr"}, "Did you mean 'paper'"),
        ({"--set": "rats=1"}, "Did you mean 'rate'"),
        ({"--set": "rate"}, "name=value"),
        ({"--records": "no.jsonl"}, "no.jsonl"),
        ({"--records": None, "--study": "emojiwds"}, "'emojiwsd'"),
        (
            {"--records": None, "--study": "emojiwsd", "--dev-records": "train.jsonl"},
            "--dev-records",
        ),
        ({"--pictures": "semcor=x"}, "--pictures"),
        ({"--records": None, "--shards": "no"}, "no shards"),
        ({"--records": None, "--metadata": "no.json"}, "no.json"),
        ({"--records": "empty.jsonl"}, "not one batch"),
        ({"--set": "heads=0"}, "out of range"),
        ({"--set": "hidden=-1"}, "out of range"),
        ({"--set": "hidden=2000000"}, "hidden is 2000000"),
        ({"--set": "former_layers=1000000000"}, "out of range"),
        ({"--set": "rate=.inf"}, "the number inf"),
        ({"--set": "rate=.nan"}, "the number nan"),
        ({"--set": "epochs=true"}, "epochs takes int"),
        ({"--set": "epochs=2.5"}, "epochs takes int"),
        ({"--set": "clip=-1"}, "clip is -1"),
        ({"--set": "losses=[1]"}, "losses takes names"),
        ({"--set": "weight_decay=.inf"}, "weight_decay"),
        ({"--records": None, "--metadata": "no.json", "--pictures": "semcr=x"}, "'semcor'"),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_bad_input_of_train_is_named(change, words, home, capsys):
    Path("empty.jsonl").write_text("")
    chosen = {"--records": "train.jsonl", "--out": "run", **change}
    code, out, err = vwsd(
        capsys,
        "train",
        *TINY,
        *(part for name, value in chosen.items() if value for part in (name, value)),
    )
    assert code == 2 and out == "" and words in err and err.count("\n") == 1


# ---------------------------------------------------------------- polclip


@pytest.fixture
def trained(home, capsys):
    assert (
        vwsd(
            capsys, "train", "--records", "train.jsonl", *TINY, "--set", "epochs=1", "--out", "run"
        )[0]
        == 0
    )
    return Path("run/last.safetensors")


def test_textual_scores_agree_with_the_answers_that_are_written(trained, published, capsys):
    save_records("test.jsonl", read_textual_test(published / FILES[2]))
    arguments = [
        "polclip",
        "--checkpoint",
        trained,
        "--records",
        "test.jsonl",
        "--out",
        "answers.key.txt",
    ]
    code, out, _err = vwsd(capsys, *arguments, "--json")
    found = json.loads(out)
    assert code == 0 and list(found) == ["plain", "fused", "sum"]
    assert [g["group"] for g in found["sum"]] == [
        "SE2",
        "SE3",
        "SE07",
        "SE10",
        "SE13",
        "SE15",
        "ALL",
        "ALL6",
        "NOUN",
        "VERB",
        "ADJ",
        "ADV",
        "items",
    ]
    golds = {r.id: r.golds for r in load_records("test.jsonl")}
    answers = dict(line.split() for line in Path("answers.key.txt").read_text().splitlines())
    right = sum(answers[i] in golds[i] for i in golds)
    assert (
        len(answers) == 48
        and 0 < right < 48
        and found["sum"][-1]["f1"] == pytest.approx(100 * right / 48)
    )
    code, out, _ = vwsd(capsys, *arguments)
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["group", "n", "plain", "fused", "sum"] and lines[-1] == [
        "items",
        "48",
        *(f"{found[name][-1]['f1']:.2f}" for name in found),
    ]


def test_a_record_without_candidates_stays_unanswered(trained, capsys):
    first, *others = load_records("train.jsonl")
    save_records(
        "holed.jsonl",
        [replace(r, golds=()) for r in (replace(first, candidates=(), golds=()), *others)],
    )
    assert (
        vwsd(
            capsys,
            "polclip",
            "--checkpoint",
            trained,
            "--records",
            "holed.jsonl",
            "--out",
            "a.key.txt",
        )[0]
        == 0
    )
    assert [line.split()[0] for line in Path("a.key.txt").read_text().splitlines()] == [
        r.id for r in others
    ]


def test_a_finished_run_whose_log_was_deleted_is_still_done(trained, capsys):
    Path("run/log.jsonl").unlink()
    code, out, _ = vwsd(
        capsys, "train", "--records", "train.jsonl", *TINY, "--set", "epochs=1", "--out", "run"
    )
    assert code == 0 and out.splitlines() == ["run/last.safetensors"]


def test_records_without_golds_are_answered_and_not_scored(trained, capsys):
    record, *_ = load_records("train.jsonl")
    save_records(
        "blind.jsonl", [Record(record.id, "en", record.words, record.span, record.candidates, ())]
    )
    code, out, err = vwsd(
        capsys, "polclip", "--checkpoint", trained, "--records", "blind.jsonl", "--out", "key"
    )
    assert code == 0 and out == "" and Path("key").read_text().split()[0] == record.id
    code, out, err = vwsd(capsys, "polclip", "--checkpoint", trained, "--records", "blind.jsonl")
    assert code == 2 and "no record with a gold" in err


def test_visual_scores_are_those_that_score_reads_back(trained, official, capsys):
    data, gold, images = official
    arguments = [
        "polclip",
        "--checkpoint",
        trained,
        "--data",
        data,
        "--gold",
        gold,
        "--images",
        images,
    ]
    code, out, _err = vwsd(capsys, *arguments, "--out", "scores.tsv", "--json")
    found = json.loads(out)
    assert (
        code == 0
        and [s["file"] for s in found["systems"]] == ["plain", "fused", "sum"]
        and len(found["pairs"]) == 3
    )
    code, out, _ = vwsd(capsys, "score", "--data", data, "--gold", gold, "scores.tsv", "--json")
    back = json.loads(out)["systems"][0]
    assert {k: v for k, v in back.items() if k != "file"} == {
        k: v for k, v in found["systems"][2].items() if k != "file"
    }
    code, out, _ = vwsd(capsys, *arguments)
    assert code == 0 and out.splitlines()[3].split()[0] == "sum"


def test_definitions_change_the_scores_and_must_be_of_these_items(
    trained, official, monkeypatch, toy_dict, capsys
):
    data, gold, images = official
    monkeypatch.setenv("VWSD_WORDNET", str(toy_dict(Path("dict"))))
    data.write_text(data.read_text().replace("word0\tword0 thing", "bat\tbat thing"))
    arguments = [
        "polclip",
        "--checkpoint",
        trained,
        "--data",
        data,
        "--gold",
        gold,
        "--images",
        images,
        "--out",
    ]
    assert (
        vwsd(capsys, "define", "--data", data, "--definer", "first-sense", "--out", "defs.jsonl")[0]
        == 0
    )
    assert (
        vwsd(capsys, *arguments, "plain.tsv")[0] == 0
        and vwsd(capsys, *arguments, "told.tsv", "--definitions", "defs.jsonl")[0] == 0
    )
    plain, told = (Path(name).read_text().splitlines() for name in ("plain.tsv", "told.tsv"))
    assert plain[1] != told[1] and plain[2:] == told[2:]  # only the first has a definition
    for harm, words in (
        (("nocturnal", "a leaked"), "a chosen definition is no gloss"),
        (('"definition"', '"defintion"'), "defs.jsonl:1"),
        (("en.toy.4", "en.toy.5"), "stand twice"),
    ):
        whole = Path("defs.jsonl").read_text()
        Path("defs.jsonl").write_text(whole.replace(*harm))
        code, _out, err = vwsd(capsys, *arguments, "x.tsv", "--definitions", "defs.jsonl")
        assert code == 2 and words in err and not Path("x.tsv").exists()
        Path("defs.jsonl").write_text(whole)
    Path("defs.meta.json").write_text(
        Path("defs.meta.json").read_text().replace('"chosen"', '"generated"')
    )  # a gloss that a model "wrote" is refused
    code, _out, err = vwsd(capsys, *arguments, "refused.tsv", "--definitions", "defs.jsonl")
    assert code == 0 and "1 of 6 definitions of defs.jsonl were refused and emptied" in err
    assert Path("refused.tsv").read_bytes() == Path("plain.tsv").read_bytes()
    Path("defs.jsonl").write_text(Path("defs.jsonl").read_text().replace("en.toy.3", "en.toy.9"))
    code, _out, err = vwsd(capsys, *arguments, "x.tsv", "--definitions", "defs.jsonl")
    assert code == 2 and "'en.toy.3'" in err and not Path("x.tsv").exists()


@pytest.fixture
def diverged(trained):
    """The checkpoint with one weight that is no number, as an overflow leaves it, in the way of a
    model that is loaded whole.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(trained, "pt") as f:
        header, tensors = f.metadata(), {name: f.get_tensor(name) for name in f.keys()}
    name = next(name for name in tensors if "fusion" in name and name.endswith("weight"))
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, "diverged.safetensors", header)
    return Path("diverged.safetensors")


def test_a_diverged_checkpoint_answers_nothing(diverged, official, capsys):
    data, gold, images = official
    for source in (
        ["--records", "train.jsonl"],
        ["--data", data, "--gold", gold, "--images", images],
    ):
        code, out, err = vwsd(
            capsys, "polclip", "--checkpoint", diverged, *source, "--out", "answers", "--json"
        )
        assert (
            code == 2
            and out == ""
            and "not numbers" in err
            and "has diverged" in err
            and err.count("\n") == 1
            and not Path("answers").exists()
        )


ODD_CONFIGURATIONS = [
    {"hidden": 2_000_000},
    {"hidden": "wide"},
    {"hidden": True},
    {"former_layers": 10**9},
    {"epochs": 1.5},
    {"losses": [1]},
    {"colour": 1},
    {"rate": float("inf")},
    "[" * 100_000,
    "[]",
    "null",
]
ODD_PROVENANCE = [
    "{}",
    "[]",
    "[" * 100_000,
    '{"facts": 1, "step": 1}',
    '{"facts": {"backbone": {"weights_sha256": 1}}, "step": 1}',
    '{"step": NaN}',
]


def test_an_odd_header_of_a_checkpoint_is_named(home, capsys):
    from safetensors.torch import save_file

    from polclip.config import Config

    whole = {
        "config": Config().to_json(),
        "about": json.dumps({"facts": {"backbone": {"weights_sha256": "0"}}, "step": 1}),
    }
    changed = [
        json.dumps(json.loads(whole["config"]) | odd) if isinstance(odd, dict) else odd
        for odd in ODD_CONFIGURATIONS
    ]
    headers = [whole | {"config": odd} for odd in changed] + [
        whole | {"about": odd} for odd in ODD_PROVENANCE
    ]
    for header in headers:
        save_file({"model/x": torch.zeros(1)}, "odd.safetensors", header)
        code, out, err = vwsd(
            capsys, "polclip", "--checkpoint", "odd.safetensors", "--records", "train.jsonl"
        )
        assert (
            code == 2
            and out == ""
            and "not a whole checkpoint of PolCLIP" in err
            and "odd.safetensors" in err
            and err.count("\n") == 1
        ), header
    save_file({"model/x": torch.zeros(1)}, "whole.safetensors", whole)
    assert (
        "trained on other weights"
        in vwsd(capsys, "polclip", "--checkpoint", "whole.safetensors", "--records", "train.jsonl")[
            2
        ]
    )


def test_records_of_one_id_are_not_answered(trained, capsys):
    first, *_ = load_records("train.jsonl")
    save_records("twice.jsonl", [replace(first, golds=())] * 2)
    code, _, err = vwsd(
        capsys, "polclip", "--checkpoint", trained, "--records", "twice.jsonl", "--out", "key"
    )
    assert code == 2 and "an id stands twice" in err and not Path("key").exists()


def test_a_damaged_log_is_named(trained, capsys):
    damage = [
        '{"step": "1", "epoch": 0}',
        "[" * 100_000,
        "[1]",
        '{"step": 1, "epoch": 0, "dev": {"textual": NaN}}',
    ]
    for line in damage:
        Path("run/log.jsonl").write_text(line + "\n")
        with pytest.raises(VwsdError, match=r"log does not have its form.*log.jsonl:1"):
            read_log("run")
    Path("run/log.jsonl").write_text("\n".join(damage) + "\n")
    assert (
        vwsd(
            capsys, "train", "--records", "train.jsonl", *TINY, "--set", "epochs=1", "--out", "run"
        )[0]
        == 0
    )  # and left out where a run goes on


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--records", "no.jsonl"], "no.jsonl"),
        (["--data", "d.txt"], "--gold and --images"),
        (["--records", "train.jsonl", "--images", "."], "--images"),
        (["--records", "train.jsonl", "--checkpoint", "no.safetensors"], "vwsd train"),
        (["--records", "train.jsonl", "--checkpoint", "train.jsonl"], "not a whole checkpoint"),
    ],
)
def test_bad_input_of_polclip_is_named(arguments, words, home, capsys):
    code, out, err = vwsd(capsys, "polclip", "--checkpoint", "x.safetensors", *arguments)
    assert code == 2 and out == "" and words in err and err.count("\n") == 1


def test_missing_pictures_are_counted(trained, official, capsys):
    data, gold, images = official
    (images / "image.3.png").unlink()
    code, _, err = vwsd(
        capsys,
        "polclip",
        "--checkpoint",
        trained,
        "--data",
        data,
        "--gold",
        gold,
        "--images",
        images,
    )
    assert code == 2 and "pictures of 4 items are missing, image.3.png the first" in err


# ---------------------------------------------------------------- define, corpus


XML = """<corpus lang="en" source="{source}"><text id="d"><sentence id="s">
<wf>the</wf><instance id="{id}.0" lemma="bat" pos="NOUN">bat</instance>
<wf>flies</wf><instance id="{id}.1" lemma="zorb" pos="NOUN">zorb</instance>
</sentence></text></corpus>"""


@pytest.fixture
def sentences(own_folders, toy_dict, monkeypatch):
    monkeypatch.setenv("VWSD_WORDNET", str(toy_dict(own_folders / "dict")))
    monkeypatch.chdir(own_folders)
    Path("x.data.xml").write_text(XML.format(source="semcor", id="d"))
    Path("x.key").write_text("d.0 bat%1:05:00::\nd.1 zorb%1:00:00::\n")
    Path("trial.data.txt").write_text(
        "\t".join(["bat", "fruit bat", *(f"{i}.jpg" for i in range(10))]) + "\n"
    )
    return own_folders


def test_definitions_of_both_kinds_of_data(sentences, capsys):
    code, out, err = vwsd(
        capsys, "define", "--wsd", "x.data.xml", "--definer", "first-sense", "--out", "a.jsonl"
    )
    lines = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    assert (
        code == 0
        and out == "a.jsonl\n"
        and lines
        == [
            {"id": "d.0", "definition": "nocturnal mammal that flies; lives in a cave"},
            {"id": "d.1", "definition": ""},
        ]
    )
    assert err == "note: 1 of 2 items stay without a definition, 'd.1' the first\n"
    assert json.loads(Path("a.meta.json").read_text()) | {
        "definer": "first-sense",
        "n": 2,
    } == json.loads(Path("a.meta.json").read_text())
    assert (
        json.loads(Path("a.meta.json").read_text()).items()
        >= {
            "inventory": "wordnet",
            "language": "en",
            "refused": 0,
        }.items()
    )
    code, _, err = vwsd(
        capsys, "define", "--data", "trial.data.txt", "--definer", "lesk", "--out", "b.jsonl"
    )
    assert code == 0 and err == "" and json.loads(Path("b.jsonl").read_text())["id"] == "trial.0"
    vwsd(
        capsys,
        "define",
        "--data",
        "trial.data.txt",
        "--definer",
        "lesk",
        "--inventory",
        "emojiwsd",
        "--out",
        "c.jsonl",
    )
    assert json.loads(Path("c.jsonl").read_text())["definition"] not in (
        "",
        json.loads(Path("b.jsonl").read_text())["definition"],
    )


@pytest.mark.parametrize(
    "change, words",
    [
        ({"--definer": "leks"}, "'lesk'"),
        ({"--inventory": "wordnt"}, "'wordnet'"),
        ({"--out": "x.txt"}, "'.txt'"),
        ({"--data": "no.txt"}, "no such file"),
        ({"--definer": "chat"}, "VWSD_CHAT"),
    ],
)
def test_bad_input_of_define_is_named(change, words, sentences, capsys, monkeypatch):
    monkeypatch.delenv("VWSD_CHAT_URL", raising=False)
    chosen = {"--data": "trial.data.txt", "--definer": "lesk", "--out": "x.jsonl", **change}
    code, out, err = vwsd(capsys, "define", *(part for pair in chosen.items() for part in pair))
    assert code == 2 and words in err and out == "" and not Path("x.jsonl").exists()


@pytest.mark.parametrize(
    "name, given, language, said",
    [
        ("en.own.data.txt", None, "en", ""),
        ("my.data.txt", None, "en", "language of my.data.txt taken as English"),
        ("bat.txt", None, "en", "language of bat.txt"),
        ("it.own.data.txt", None, "it", "wordnet has no Italian"),
        ("IT.own.data.txt", None, "it", "wordnet has no Italian"),
        ("fa.data.txt", None, "fa", "wordnet has no Farsi"),
        ("my.data.txt", "it", "it", "wordnet has no Italian"),
        ("own-it.txt", "Italian", "it", "wordnet has no Italian"),
        ("it.own.data.txt", "en", "en", ""),
        ("it.own.data.txt", "EN-us", "en", ""),
        ("x.txt", "de", "de", "wordnet has no German"),
    ],
)
def test_the_language_decides_the_glosses(name, given, language, said, sentences, capsys):
    Path(name).write_text(Path("trial.data.txt").read_text())
    code, _, err = vwsd(
        capsys,
        "define",
        "--data",
        name,
        "--definer",
        "lesk",
        "--out",
        "x.jsonl",
        *(("--language", given) if given else ()),
    )
    assert code == 0 and json.loads(Path("x.meta.json").read_text())["language"] == language
    assert bool(json.loads(Path("x.jsonl").read_text())["definition"]) == (language == "en") and (
        said in err if said else err == ""
    )


def test_arabic_letters_are_no_english(sentences, capsys):
    lines = [
        Path("trial.data.txt").read_text(),
        *(
            Path("trial.data.txt").read_text().replace("bat", "\u0634\u06cc\u0631")
            for _ in range(2)
        ),
    ]
    Path("own.txt").write_text("".join(lines))
    arguments = ["define", "--data", "own.txt", "--definer", "lesk", "--out", "x.jsonl"]
    code, _, err = vwsd(capsys, *arguments)
    assert (
        code == 2
        and "2 of 3 targets are written in Arabic letters" in err
        and "--language fa" in err
        and not Path("x.jsonl").exists()
    )
    code, _, err = vwsd(capsys, *arguments, "--language", "en")
    assert code == 0 and "2 of 3 targets are written in Arabic letters" in err
    assert vwsd(capsys, *arguments, "--language", "fa")[0] == 0
    code, _, err = vwsd(capsys, *arguments, "--language", "x!")
    assert code == 2 and "is no language code" in err


def test_sentences_of_another_language_get_no_english_glosses(sentences, capsys):
    Path("it.data.xml").write_text(Path("x.data.xml").read_text().replace('lang="en"', 'lang="it"'))
    code, _, err = vwsd(
        capsys, "define", "--wsd", "it.data.xml", "--definer", "first-sense", "--out", "a.jsonl"
    )
    assert (
        code == 0
        and "WordNet has no Italian: 2 of 2 instances" in err
        and not any(json.loads(x)["definition"] for x in Path("a.jsonl").read_text().splitlines())
    )
    code, _, err = vwsd(
        capsys,
        "define",
        "--wsd",
        "it.data.xml",
        "--language",
        "en",
        "--definer",
        "first-sense",
        "--out",
        "a.jsonl",
    )
    assert (
        code == 0
        and "Italian" not in err
        and json.loads(Path("a.jsonl").read_text().splitlines()[0])["definition"]
    )
    code, _, err = vwsd(
        capsys, "corpus", "--data", "it.data.xml", "--gold", "x.key", "--out", "c.jsonl"
    )
    assert "WordNet has no Italian" in err and Path("c.jsonl").read_text() == ""


def test_a_target_that_is_not_in_its_phrase_is_counted(sentences, capsys):
    Path("en.own.data.txt").write_text(
        Path("trial.data.txt").read_text()
        + Path("trial.data.txt").read_text().replace("fruit bat", "cave mammal")
    )
    code, _, err = vwsd(
        capsys, "define", "--data", "en.own.data.txt", "--definer", "lesk", "--out", "x.jsonl"
    )
    assert code == 0 and err.startswith(
        "note: 1 of 2 targets do not stand in their phrases, 'bat' of 'en.own.1' the first"
    )


def test_tagged_sentences_take_no_inventory(sentences, capsys):
    code, _, err = vwsd(
        capsys,
        "define",
        "--wsd",
        "x.data.xml",
        "--inventory",
        "emojiwsd",
        "--definer",
        "lesk",
        "--out",
        "a.jsonl",
    )
    assert (
        code == 2 and "--inventory does not go with --wsd" in err and not Path("a.jsonl").exists()
    )


def test_every_definer_is_named_in_the_help(capsys):
    with pytest.raises(SystemExit):
        cli.main(["define", "--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in DEFINERS)


def test_the_corpus_and_its_size(sentences, capsys):
    code, out, err = vwsd(
        capsys, "corpus", "--data", "x.data.xml", "--gold", "x.key", "--out", "corpus.jsonl"
    )
    (line,) = Path("corpus.jsonl").read_text().splitlines()
    assert code == 0 and json.loads(out) == {
        "lines": 1,
        "tokens": round(sum(len(m["content"]) for m in json.loads(line)["messages"]) / 4),
    }
    assert (
        json.loads(line)["messages"][-1]["content"].startswith("nocturnal mammal")
        and err == "note: 1 items have no gold gloss and are not in the corpus (1 are)\n"
    )
    Path("y.data.xml").write_text(XML.format(source="senseval2", id="d"))
    code, _, err = vwsd(
        capsys, "corpus", "--data", "y.data.xml", "--gold", "x.key", "--out", "y.jsonl"
    )
    assert code == 2 and "SE2" in err and not Path("y.jsonl").exists()


# ---------------------------------------------------------------- convert


def test_pictures_are_converted_once(own_folders, monkeypatch, capsys):
    monkeypatch.chdir(own_folders)
    Path("pt").mkdir()
    torch.save(torch.full((3, 224, 224), 0.5), "pt/a_0.pt")
    assert vwsd(capsys, "convert", "pictures", "pt", "out")[:2] == (0, "out: 1 pictures written\n")
    assert load_file("out/a_0.safetensors")["pixels"].mean() == 0.5
    assert vwsd(capsys, "convert", "pictures", "pt", "out")[1] == "out: 0 pictures written\n"


def test_records_are_converted_and_what_is_missing_stops_or_is_noted(
    own_folders, published, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(own_folders)
    arguments = [
        "convert",
        "records",
        published / FILES[0],
        "out.jsonl",
        "--kind",
        "metadata",
        "--pictures",
    ]
    assert vwsd(capsys, *arguments, f"semcor={published / 'image_pt'}")[:2] == (
        0,
        "out.jsonl: 12 records written\n",
    )
    assert len(list(load_records("out.jsonl"))) == 12 and any(
        c.pictures for r in load_records("out.jsonl") for c in r.candidates
    )
    Path("none").mkdir()
    Path("out.jsonl").unlink()
    code, _, err = vwsd(capsys, *arguments, "semcor=none")
    assert code == 2 and "no picture file" in err and not Path("out.jsonl").exists()
    code, _, err = vwsd(capsys, *arguments, "semcor=none", "--missing", "drop")
    assert code == 0 and err.startswith("note: 19 pictures are missing") and err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["records", "x.json", "y.jsonl"], "--kind"),
        (["shards", "x.jsonl", "y", "--kind", "raw"], "--kind"),
        (["pictures", "x", "y", "--missing", "drop"], "--missing"),
        (["shards", "x.jsonl", "y"], "x.jsonl"),
        (["pictures", "x", "y"], "no .pt"),
        (["records", "x.json", "y.jsonl", "--kind", "raw"], "cannot be read"),
    ],
)
def test_bad_input_of_convert_is_named(arguments, words, own_folders, monkeypatch, capsys):
    monkeypatch.chdir(own_folders)
    code, out, err = vwsd(capsys, "convert", *arguments)
    assert code == 2 and out == "" and words in err and err.count("\n") == 1
