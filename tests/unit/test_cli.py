"""The command line as a newcomer meets it: documented contracts, named errors, exit codes, nothing
half written.
"""

import json
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from vwsd_companion import cli, doctor
from vwsdlib.analysis.scoring import write_scores
from vwsdlib.data.items import read_items


def run(capsys, *arguments):
    code = cli.main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def scored(official, tmp_path):
    items = read_items(*official[:2])
    for seed, name in enumerate(("a.tsv", "b.tsv")):
        write_scores(tmp_path / name, items, np.random.default_rng(seed).random((6, 10)))
    return official, tmp_path


def test_score_json_keeps_its_contract(scored, capsys):
    (data, gold, _), folder = scored
    code, out, _ = run(
        capsys,
        "score",
        "--data",
        data,
        "--gold",
        gold,
        folder / "a.tsv",
        folder / "b.tsv",
        "--json",
    )
    found = json.loads(out)
    assert code == 0 and set(found) == {"systems", "pairs"}
    assert {"file", "n", "k", "hit1", "mrr", "ci_low", "ci_high"} <= set(
        found["systems"][0]
    ) and found["systems"][0]["n"] == 6
    assert (
        set(found["pairs"][0]) == {"a", "b", "only_a", "only_b", "p"} and len(found["pairs"]) == 1
    )


def test_score_prints_a_table(scored, capsys):
    (data, gold, _), folder = scored
    code, out, _ = run(
        capsys, "score", "--data", data, "--gold", gold, folder / "a.tsv", folder / "b.tsv"
    )
    assert code == 0 and "/6" in out and "McNemar p" in out


def test_three_systems_print_pairs_when_asked_and_json_keeps_them(scored, capsys):
    (data, gold, _), folder = scored
    files = [folder / "a.tsv", folder / "b.tsv", folder / "a.tsv"]
    plain = run(capsys, "score", "--data", data, "--gold", gold, *files)[1]
    assert "McNemar" not in plain and "3 pairs: --pairs prints their tests" in plain
    assert (
        run(capsys, "score", "--data", data, "--gold", gold, *files, "--pairs")[1].count(
            "exact McNemar p = "
        )
        == 3
    )
    found = json.loads(run(capsys, "score", "--data", data, "--gold", gold, *files, "--json")[1])
    assert set(found) == {"systems", "pairs"} and len(found["pairs"]) == 3


def test_score_against_a_baseline(scored, capsys):
    from vwsdlib.analysis.metrics import holm, paired_interval

    (data, gold, _), folder = scored
    write_scores(folder / "best.tsv", read_items(data, gold), np.eye(10)[:6])
    arguments = [
        "score",
        "--data",
        data,
        "--gold",
        gold,
        "--baseline",
        folder / "a.tsv",
        folder / "b.tsv",
        folder / "best.tsv",
    ]
    found = json.loads(run(capsys, *arguments, "--json")[1])
    assert [s["file"] for s in found["systems"]] == [
        str(folder / f) for f in ("a.tsv", "b.tsv", "best.tsv")
    ] and found["baseline"] == str(folder / "a.tsv")
    base, tests = found["systems"][0], found["against_baseline"]
    assert [t["file"] for t in tests] == [str(folder / f) for f in ("b.tsv", "best.tsv")] and [
        t["p_holm"] for t in tests
    ] == holm([t["p"] for t in tests])
    for test, system in zip(tests, found["systems"][1:]):
        assert (
            test["difference"] == pytest.approx(system["hit1"] - base["hit1"])
            and system["k"] - base["k"] == test["only_system"] - test["only_baseline"]
        )
        assert (test["ci_low"], test["ci_high"]) == paired_interval(
            test["only_baseline"], test["only_system"], 6
        )
    out = run(capsys, *arguments)[1]
    assert (
        out.splitlines()[1].startswith(str(folder / "best.tsv"))
        and "p (Holm)" in out
        and "against " + str(folder / "a.tsv") in out
    )
    code, _, err = run(
        capsys,
        "score",
        "--data",
        data,
        "--gold",
        gold,
        "--baseline",
        folder / "a.tsv",
        folder / "a.tsv",
    )
    assert code == 2 and "the baseline is the only system" in err


def test_score_sorts_when_asked(scored, capsys):
    (data, gold, _), folder = scored
    write_scores(folder / "best.tsv", read_items(data, gold), np.eye(10)[:6])
    files = [folder / "a.tsv", folder / "best.tsv"]
    first = [
        run(capsys, "score", "--data", data, "--gold", gold, *files, *more)[1]
        .splitlines()[1]
        .split()[0]
        for more in ((), ("--sort",))
    ]
    assert first == [str(folder / "a.tsv"), str(folder / "best.tsv")]


def test_ties_are_said_and_constant_scores_refused(scored, capsys):
    (data, gold, _), folder = scored
    its = read_items(data, gold)
    write_scores(folder / "same.tsv", its, np.full((6, 10), 0.25))
    code, out, err = run(capsys, "score", "--data", data, "--gold", gold, folder / "same.tsv")
    assert code == 2 and out == "" and "--allow-ties" in err
    code, out, err = run(
        capsys,
        "score",
        "--data",
        data,
        "--gold",
        gold,
        folder / "same.tsv",
        "--allow-ties",
        "--json",
    )
    found = json.loads(out)["systems"][0]
    assert code == 0 and (found["k"], found["ties"], found["k_low"], found["k_high"]) == (
        1,
        6,
        0,
        6,
    )
    assert (
        f"note: {folder / 'same.tsv'}: a tie decides 6 of 6 items (k between 0 and 6 by tie rule)"
        in err
    )
    write_scores(folder / "none.tsv", its, np.full((6, 10), -np.inf))
    found = json.loads(
        run(
            capsys,
            "score",
            "--data",
            data,
            "--gold",
            gold,
            folder / "none.tsv",
            "--allow-ties",
            "--json",
        )[1]
    )["systems"][0]
    assert (found["k"], found["k_high"], found["mrr"]) == (0, 0, 10.0)


def test_several_languages_and_their_mean(scored, capsys, tmp_path):
    import zipfile

    (data, gold, _), folder = scored
    others = folder / "it.toy.data.txt", folder / "it.toy.gold.txt"
    for path, copy in zip((data, gold), others):
        copy.write_bytes(path.read_bytes())
    its = read_items(data, gold)
    right = "".join(
        "\t".join((i.gold, *(c for c in i.candidates if c != i.gold))) + "\n" for i in its
    )
    wrong = "".join(
        "\t".join((*(c for c in i.candidates if c != i.gold), i.gold)) + "\n" for i in its
    )
    with zipfile.ZipFile(folder / "submission.zip", "w") as z:
        z.writestr("prediction.en.txt", right)
        z.writestr("prediction.it.txt", wrong)
    (folder / "plain").mkdir()
    for language in ("en", "it"):
        (folder / "plain" / f"prediction.{language}.txt").write_text(wrong)
    sets = ["--data", data, "--gold", gold, "--data", others[0], "--gold", others[1]]
    arguments = ["score", *sets, "--baseline", folder / "plain", folder / "submission.zip"]
    found = json.loads(run(capsys, *arguments, "--json")[1])
    assert [(s["language"], s["k"]) for s in found["systems"]] == [
        ("en", 0),
        ("en", 6),
        ("it", 0),
        ("it", 0),
    ]
    assert found["mean"][1] == {
        "file": str(folder / "submission.zip"),
        "sets": 2,
        "hit1": 50.0,
        "mrr": 55.0,
    }
    assert [(t["language"], t["p"], t["p_holm"]) for t in found["against_baseline"]] == [
        ("en", 2 / 64, 4 / 64),
        ("it", 1.0, 1.0),
    ]
    out = run(capsys, *arguments)[1]
    assert (
        "unweighted mean of 2 languages" in out
        and "  50.000   55.0000" in out
        and "all 2 comparisons in all languages" in out
    )
    assert "want a zip or a folder" in run(capsys, "score", *sets, folder / "a.tsv")[2]
    assert "1 --gold" in run(capsys, "score", *sets[:4], *sets[4:6], folder / "a.tsv")[2]
    code, _, err = run(
        capsys, "score", *sets, "--language", "en", "--language", "en", folder / "plain"
    )
    assert code == 2 and "two sets of one language" in err


def test_the_language_is_said_where_it_is_assumed(scored, capsys):
    (data, gold, _), folder = scored
    own = folder / "my.data.txt"
    own.write_bytes(data.read_bytes())
    assert (
        "note: language of my.data.txt taken as English"
        in run(capsys, "score", "--data", own, "--gold", gold, folder / "a.tsv")[2]
    )
    assert run(capsys, "audit", "--data", own, "--gold", gold, "--language", "en")[2] == ""
    code, _, err = run(capsys, "audit", "--data", own, "--gold", gold, "--language", "klingon")
    assert code == 2 and "no language code" in err


def test_whole_numbers_out_of_range_are_refused_where_they_are_typed():
    import argparse

    from vwsd_companion.cli.arguments import at_least

    assert [at_least(0)(text) for text in ("0", "12")] == [0, 12] and at_least(-2)("-2") == -2
    for text in ("-5", "1_000", "\uff15", "0x5", "5.0", "", "five", " 5", "9" * 30):
        with pytest.raises(argparse.ArgumentTypeError):
            at_least(0)(text)
    with pytest.raises(argparse.ArgumentTypeError):
        at_least(1)("0")


def test_an_empty_path_does_not_mean_the_working_folder(official, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as ended:
        run(capsys, "export", "x.jsonl", "--to", "submission", "--out", "")
    assert ended.value.code == 2 and "--out: the path is empty" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_audit_json_keeps_its_contract(official, capsys):
    code, out, _ = run(capsys, "audit", "--data", official[0], "--gold", official[1], "--json")
    assert code == 0 and {
        "rarest",
        "most_frequent",
        "chance",
        "gold_as_distractor",
        "position_counts",
    } <= set(json.loads(out))


def test_errors_are_one_sentence_on_stderr_with_exit_code_2(official, capsys):
    official[1].write_text("\n".join(official[1].read_text().split("\n")[1:]))
    code, out, err = run(capsys, "score", "--data", official[0], "--gold", official[1], "x.tsv")
    assert code == 2 and out == "" and "5 gold lines for 6 items" in err and err.count("\n") == 1


def test_evaluate_names_missing_pictures_and_scores_all_items(
    official, own_folders, capsys, tmp_path
):
    data, gold, images = official
    (images / "image.11.png").unlink()
    code, out, _ = run(
        capsys,
        "evaluate",
        "--data",
        data,
        "--gold",
        gold,
        "--images",
        images,
        "--encoder",
        "random",
        "--out",
        tmp_path / "out.tsv",
        "--json",
    )
    found = json.loads(out)
    assert (
        code == 0
        and found["systems"][0]["n"] == 6
        and found["missing"]["en.toy.2"] == ["image.11.png"]
        and found["complete"]["n"] == 2
    )
    code, out, _ = run(
        capsys, "score", "--data", data, "--gold", gold, tmp_path / "out.tsv", "--json"
    )
    again = json.loads(out)["systems"][0]
    assert {k: v for k, v in again.items() if k != "file"} == {
        k: v for k, v in found["systems"][0].items() if k != "file"
    }
    code, out, _ = run(
        capsys,
        "evaluate",
        "--data",
        data,
        "--gold",
        gold,
        "--images",
        images,
        "--encoder",
        "random",
    )
    assert (
        "missing  en.toy.2 (word2 thing): image.11.png" in out
        and "every item counts" in out
        and "complete items" in out
    )


def test_a_missing_gold_picture_counts_as_wrong(official, own_folders, capsys):
    data, gold, images = official
    (images / "image.0.png").unlink()  # the gold of item 0
    code, out, _ = run(
        capsys,
        "evaluate",
        "--data",
        data,
        "--gold",
        gold,
        "--images",
        images,
        "--encoder",
        "random",
    )
    assert code == 0 and "the item counts as wrong" in out


def test_a_truncated_picture_stops_by_name_and_writes_nothing(
    official, own_folders, capsys, tmp_path
):
    data, gold, images = official
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)).save(
        images / "image.4.png"
    )
    (images / "image.4.png").write_bytes((images / "image.4.png").read_bytes()[:50_000])
    arguments = [
        "evaluate",
        "--data",
        data,
        "--gold",
        gold,
        "--images",
        images,
        "--encoder",
        "random",
        "--out",
        tmp_path / "out.tsv",
    ]
    code, _out, err = run(capsys, *arguments)
    assert (
        code == 2
        and "truncated" in err
        and "image.4.png" in err
        and not (tmp_path / "out.tsv").exists()
    )
    assert (
        run(capsys, *arguments, "--truncated", "keep")[0] == 0 and (tmp_path / "out.tsv").exists()
    )


def test_the_wrong_folder_of_pictures(official, own_folders, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = run(
        capsys,
        "evaluate",
        "--data",
        official[0],
        "--gold",
        official[1],
        "--images",
        tmp_path / "empty",
        "--encoder",
        "random",
    )
    assert code == 2 and "none of the pictures" in err


def test_rank_json_keeps_its_contract(official, own_folders, capsys):
    pictures = sorted(official[2].iterdir())[:4]
    code, out, _ = run(capsys, "rank", "a phrase", *pictures, "--encoder", "random", "--json")
    found = json.loads(out)["ranking"]
    assert (
        code == 0
        and {e["image"] for e in found} == set(map(str, pictures))
        and [e["score"] for e in found] == sorted((e["score"] for e in found), reverse=True)
    )
    assert (
        run(capsys, "rank", "a phrase", *pictures, "--encoder", "random")[1]
        .splitlines()[0]
        .endswith(found[0]["image"])
    )


def test_rank_of_a_missing_picture_and_of_nothing(official, own_folders, capsys):
    code, _, err = run(capsys, "rank", "x", official[2] / "IMAGE.1.PNG", "--encoder", "random")
    assert code == 2 and "image.1.png is there" in err
    assert run(capsys, "rank", " ", official[2] / "image.1.png", "--encoder", "random")[0] == 2


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["run", "--profile", "dmeo"], "demo"),
        (["run", "--set", "encodr=lite"], "encoder"),
        (["run", "--set", "limit=many"], "limit"),
        (["run", "--only", "01_dat"], "01_data"),
        (["status", "--profile", "nope"], "demo"),
        (["rank", "x", "y.png", "--encoder", "lit"], "lite"),
    ],
    ids=lambda a: " ".join(a) if isinstance(a, list) else None,
)
def test_typos_are_answered_with_the_right_word(arguments, words, own_folders, capsys):
    code, _, err = run(capsys, *arguments)
    assert code == 2 and words in err


def test_every_command_has_help_with_an_example():
    for name in cli.COMMANDS:
        text = next(a for a in cli.parser()._subparsers._group_actions).choices[name].format_help()
        assert "example:" in text and f"vwsd {name}" in text.split("example:")[1], name


def test_help_and_score_import_no_heavy_package(scored):
    (data, gold, _), folder = scored
    script = (
        "import sys; from vwsd_companion.cli import main; main(sys.argv[1:])\n"
        "print(sorted({'torch', 'transformers', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", script, "score", "--data", data, "--gold", gold, folder / "a.tsv"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.splitlines()[-1] == "[]"


def test_doctor_reports_every_check(capsys, emojiwsd):
    code, out, _ = run(capsys, "doctor", "--json")
    found = {c["check"]: c for c in json.loads(out)}
    assert {"python", "packages", "weights", "kernel", "disk"} <= set(found) and (code == 1) == any(
        c["state"] == "FAIL" for c in found.values()
    )
    assert all(c["remedy"] for c in found.values() if c["state"] == "FAIL")


@pytest.fixture
def nothing_fetched(own_folders, monkeypatch, tmp_path):
    """No data, no checkpoint, and sockets that may not be opened."""
    import socket

    for variable in ("VWSD_DATA", "VWSD_MODELS", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setattr(
        socket.socket, "connect", lambda *_: pytest.fail("the doctor went to the network")
    )
    return tmp_path


def test_doctor_names_what_the_paper_profile_needs(nothing_fetched, capsys):
    from vwsdlib.encoders.checkpoints import CHECKPOINTS

    code, out, _ = run(capsys, "doctor", "--profile", "paper")
    line = next(line for line in out.splitlines() if "clip-vit-b32" in line)
    assert (
        code == 1
        and line
        == "[MISSING] clip-vit-b32 openai/clip-vit-base-patch32 608 MB  ->  vwsd fetch models"
        " --only clip-vit-b32"
    )
    assert (
        "[MISSING] en.test.data.v1.1.txt  ->  vwsd fetch vwsd --split test" in out
        and "[MISSING] pictures of en trial" in out
    )
    _, out, _ = run(capsys, "doctor", "--profile", "paper", "--json")
    found = [
        c for c in json.loads(out) if c["state"] == "MISSING" and c["check"] != "wordnet"
    ]  # which may be installed
    assert len(found) == len(doctor.needed("paper")) + 8 + 4 + 1 and all(
        set(c) == {"check", "state", "what", "remedy"} and c["remedy"] for c in found
    )
    its = nothing_fetched / "VWSD_MODELS" / CHECKPOINTS["clip-vit-b32"].repo
    its.mkdir(parents=True)
    (its / "model.safetensors").write_bytes(b"x" * 2_000_000)
    assert (
        "[OK] clip-vit-b32 openai/clip-vit-base-patch32 2.0 MB\n"
        in run(capsys, "doctor", "--profile", "paper")[1]
    )


def test_doctor_of_the_demo_wants_no_checkpoint(nothing_fetched, capsys):
    _, out, _ = run(capsys, "doctor")
    assert "MISSING" not in out and "vwsd fetch models" not in out
    code, _, err = run(capsys, "doctor", "--profile", "papre")
    assert code == 2 and "paper" in err


@pytest.mark.parametrize(
    "profile, expected",
    [
        ({"dataset": "emojiwsd", "encoder": "lite"}, []),
        ({"encoder": "clip-vit-b32"}, ["clip-vit-b32"]),
        (
            {
                "encoders": ["clip-vit-b16-352", "mclip", "clip-vit-b16@bf16"],
                "segmenter": "clipseg-rd64",
            },
            ["clip-vit-b16", "clipseg-rd64", "clip-vit-b32", "mclip"],
        ),
        ({"translators": ["opus-mt", "chat"], "encoder": "random"}, ["opus-mt-it-en"]),
        ({"dataset": "vwsd"}, None),
    ],
    ids=str,
)
def test_a_profiles_names_decide_which_checkpoints_it_needs(
    profile, expected, tmp_path, monkeypatch
):
    from vwsdlib.encoders.checkpoints import CHECKPOINTS

    (tmp_path / "pipeline.yml").write_text(
        json.dumps({"profiles": {"mine": profile}, "notebooks": {}})
    )
    monkeypatch.setenv("VWSD_NOTEBOOKS", str(tmp_path))
    assert set(doctor.needed("mine")) == set(CHECKPOINTS if expected is None else expected)


def test_doctor_of_the_rehearsal_looks_at_its_own_checkpoints(nothing_fetched, monkeypatch, capsys):
    (nothing_fetched / "pipeline.yml").write_text(
        json.dumps({"profiles": {"rehearsal": {"encoder": "clip-vit-b32"}}, "notebooks": {}})
    )
    monkeypatch.setenv("VWSD_NOTEBOOKS", str(nothing_fetched))
    out = run(capsys, "doctor", "--profile", "rehearsal")[1]
    assert (
        "[MISSING] clip-vit-b32" in out
        and "->  vwsd fetch rehearsal" in out
        and "[OK] rehearsal data: not built yet" in out
        and "en.test" not in out
    )
    its = (
        nothing_fetched / "VWSD_DATA" / "rehearsal" / "models" / "openai" / "clip-vit-base-patch32"
    )
    its.mkdir(parents=True)
    (its / "model.safetensors").write_bytes(b"x" * 600_000)
    assert (
        "[OK] clip-vit-b32 openai/clip-vit-base-patch32 0.6 MB"
        in run(capsys, "doctor", "--profile", "rehearsal")[1]
    )


def test_fetch_models_prints_a_line_each_and_stops_before_a_typo_costs_anything(
    own_folders, monkeypatch, capsys
):
    from vwsdlib.encoders import checkpoints

    asked = []
    monkeypatch.setattr(checkpoints, "fetch", lambda key: asked.append(key) or "folder")
    monkeypatch.setattr(checkpoints, "present", lambda key: (True, 605_000_000))
    code, out, _ = run(
        capsys, "fetch", "models", "--only", "clip-vit-b32", "--only", "clipseg-rd64"
    )
    assert (
        code == 0
        and asked == ["clip-vit-b32", "clipseg-rd64"]
        and out.splitlines()[0] == "clip-vit-b32  openai/clip-vit-base-patch32  605 MB  folder"
    )
    code, _, err = run(capsys, "fetch", "models", "--only", "clip-vit-b16", "--only", "clip-vit-b3")
    assert code == 2 and "clip-vit-b32" in err and len(asked) == 2
    assert run(capsys, "fetch", "models")[0] == 0 and asked[2:] == doctor.needed("paper")


@pytest.mark.parametrize(
    "profile, expected",
    [
        ({"encoder": "clip-vit-b16", "more_it": ["nllb-600m"]}, ["clip-vit-b16", "nllb-200-600m"]),
        ({"definers": ["hf"], "encoder": "random"}, ["qwen2.5-1.5b-instruct"]),
        ({"encoder": "lite"}, []),
    ],
    ids=["models", "definer", "none"],
)
def test_fetch_models_takes_what_a_profile_names_and_says_how_much(
    profile, expected, nothing_fetched, monkeypatch, capsys
):
    from vwsdlib.encoders import checkpoints

    asked = []
    (nothing_fetched / "pipeline.yml").write_text(
        json.dumps({"profiles": {"mine": profile}, "notebooks": {}})
    )
    monkeypatch.setenv("VWSD_NOTEBOOKS", str(nothing_fetched))
    monkeypatch.setattr(checkpoints, "fetch", lambda key: asked.append(key) or "folder")
    code, _, err = run(capsys, "fetch", "models", "--profile", "mine")
    size = sum(checkpoints.CHECKPOINTS[key].megabytes for key in expected) / 1000
    said = f"{len(expected)} of {len(expected)} checkpoints are to be fetched, {size:.1f} GB"
    assert code == 0 and asked == expected and (said in err) == bool(expected)
    code, _, err = run(capsys, "fetch", "models", "--profile", "mime")
    assert code == 2 and "'mine'" in err


def test_fetch_models_wants_no_more_than_the_disk_has(nothing_fetched, monkeypatch, capsys):
    from types import SimpleNamespace

    from vwsdlib.encoders import checkpoints, hub

    monkeypatch.setattr(checkpoints, "fetch", lambda key: pytest.fail("fetched"))
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: SimpleNamespace(free=300_000_000))
    code, _, err = run(capsys, "fetch", "models", "--only", "clip-vit-b32")
    assert code == 2 and "takes 0.6 GB and 0.3 GB are free: 0.3 GB are missing" in err
    assert "HF_HOME=FOLDER" in err
    (row,) = [row for row in doctor.examine("paper") if row["check"] == "hub_room"]
    assert row["state"] == "FAIL" and "GB are missing" in row["what"]


def test_doctor_says_which_commit_main_is_held_at(nothing_fetched, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(nothing_fetched / "hub"))
    line = "[MISSING] mclip M-CLIP/XLM-Roberta-Large-Vit-B-32 2,260 MB, "
    out = run(capsys, "doctor", "--profile", "paper")[1]
    assert line + "main is held once it is fetched  ->" in out
    refs = nothing_fetched / "hub" / "models--M-CLIP--XLM-Roberta-Large-Vit-B-32" / "refs"
    refs.mkdir(parents=True)
    (refs / "vwsd").write_text("d" * 40)
    assert (
        line + f"main is held at {'d' * 40}  ->" in run(capsys, "doctor", "--profile", "paper")[1]
    )
    rows = json.loads(run(capsys, "doctor", "--profile", "paper", "--json")[1])
    (row,) = [row for row in rows if row["check"] == "checkpoint mclip"]
    assert row["what"].endswith("held at " + "d" * 40)


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo", "--split", "test"),
        ("vwsd", "--only", "x"),
        ("models", "--from", "x"),
        ("rehearsal", "--force"),
    ],
    ids=" ".join,
)
def test_fetch_refuses_options_that_mean_nothing_here(arguments, own_folders, capsys):
    code, _, err = run(capsys, "fetch", *arguments)
    assert code == 2 and f"takes no {arguments[1]}" in err


def test_fetch_rehearsal_makes_data_and_checkpoints(own_folders, monkeypatch, capsys):
    from vwsd_standins.rehearsal import data, models, translators

    monkeypatch.setenv("VWSD_DATA", str(own_folders / "data"))
    monkeypatch.setattr(
        data,
        "SPLITS",
        {"test": {"en": (2, 2), "it": (1, 1), "fa": (1, 1)}, "trial": {"en": (1, 1)}},
    )
    made = []
    monkeypatch.setattr(models, "make_models", made.append)
    monkeypatch.setattr(translators, "make_translators", made.append)
    code, out, _ = run(capsys, "fetch", "rehearsal")
    assert (
        code == 0
        and "generated test text" in out
        and made == [own_folders / "data" / "rehearsal" / "models"] * 2
    )


def test_adding_a_model_page_works_as_printed(official, own_folders, capsys, monkeypatch):
    from vwsdlib import paths
    from vwsdlib.encoders import registry
    from vwsdlib.registry import read_entries

    page = (paths.PACKAGE.parent / "docs" / "adding-a-model.md").read_text()
    module = types.ModuleType("vwsdlib.encoders.grey")
    exec(page.split("```python\n")[1].split("```")[0], vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    lines = own_folders / "lines.yml"
    lines.write_text(page.split("line in the registry: `")[1].split("`")[0])
    [(name, entry)] = read_entries(lines, registry.Entry).items()
    monkeypatch.setitem(registry.ENCODERS, name, entry)
    code, out, _ = run(
        capsys,
        "rank",
        "dark",
        official[2] / "image.1.png",
        official[2] / "image.2.png",
        "--encoder",
        "grey",
    )
    assert code == 0 and len(out.splitlines()) == 2
