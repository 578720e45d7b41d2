"""The sound inputs that are mutated: small ones of every kind that a subcommand reads, made by the
library itself.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import sys
import tarfile
import zipfile
from pathlib import Path

from tests import toy_wordnet

ROOT = Path(__file__).resolve().parents[2]
XML = """<corpus lang="en" source="senseval2"><text id="d0"><sentence id="d0.s0">
<wf>He</wf><instance id="d0.s0.t0" lemma="bat" pos="VERB">batted</instance><wf>the</wf><wf>ball</wf>
<wf>with</wf><wf>a</wf>
<instance id="d0.s0.t1" lemma="bat" pos="NOUN">bat</instance><wf>or</wf><wf>club</wf>
</sentence></text></corpus>
"""
TINY = (
    "former_layers=1",
    "fusion_layers=1",
    "hidden=32",
    "heads=4",
    "senses=10",
    "pictures=20",
    "epochs=1",
    "rate=0.001",
)
PIPELINE = """profiles:
  demo: {}
notebooks:
  a_note:
    minutes: 2
    needs: []
    produces: [measured/seen.txt]
  b_note:
    needs: [a_note]
    produces: []
"""


def environment(folder: Path) -> dict[str, str]:
    """The environment of a call in `folder`: all that vwsd writes lands in it, nothing asks a
    network.
    """
    own = {
        "VWSD_HOME": folder,
        "VWSD_DATA": folder / "data",
        "VWSD_CACHE": folder / "cache",
        "VWSD_RESULTS": folder / "results",
        "VWSD_NOTEBOOKS": folder / "notebooks",
        "VWSD_MODELS": folder / "models",
        "VWSD_WORDNET": folder / "dict",
        "TMPDIR": folder / "tmp",
        "HOME": folder / "home",
        "HF_HOME": folder / "hub",
        "MPLCONFIGDIR": folder / "home",
        "XDG_CACHE_HOME": folder / "home",
    }
    fixed = {
        "CI": "1",
        "HF_HUB_OFFLINE": "1",
        "VWSD_CHAT_URL": "http://127.0.0.1:9/v1",
        "VWSD_CHAT_MODEL": "none",
        "VWSD_CHAT_KEY": "fuzz-secret-key",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
    }
    kept = {
        name: os.environ[name]
        for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT")
        if name in os.environ
    }
    return {**kept, **{name: str(path) for name, path in own.items()}, **fixed}


def make(folder: Path) -> None:
    """Write all inputs below `folder`, whose environment must be set, and the working folder be."""
    for name in ("tmp", "home", "data", "cache", "results"):
        (folder / name).mkdir(parents=True)
    for name in ("requirements.lock", "results/reported.yml", "docs/deviations.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    try:
        os.mknod(
            folder / "full", 0o666 | stat.S_IFCHR, os.makedev(1, 7)
        )  # an own one: as root a fault would replace the machine's
    except OSError:
        (folder / "full").symlink_to("/dev/full")
    _official_set(folder)
    _textual(folder)
    _stored(folder)
    _polclip(folder)
    _notebooks(folder)
    _to_fetch(folder)


def _official_set(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    from vwsdlib.analysis.scoring import write_scores
    from vwsdlib.data.items import read_items

    (folder / "images").mkdir()
    for number in range(12):
        kind = ("PNG", "JPEG", "GIF", "WEBP")[number % 4]
        Image.new("RGB", (32, 24), (number * 20, 255 - number * 20, 90)).save(
            folder / "images" / f"image.{number}.png", kind
        )
    lines, golds = [], []
    for number in range(6):
        names = [f"image.{(number + place) % 12}.png" for place in range(10)]
        lines.append("\t".join([f"bat{number}", f"bat{number} animal", *names]))
        golds.append(names[number])
    (folder / "en.toy.data.txt").write_text("".join(f"{line}\n" for line in lines))
    (folder / "en.toy.gold.txt").write_text("".join(f"{gold}\n" for gold in golds))
    items = read_items(folder / "en.toy.data.txt", folder / "en.toy.gold.txt")
    dice = np.random.default_rng(0)
    write_scores(folder / "a.tsv", items, dice.random((6, 10)))
    rankings = ["\t".join(dice.permutation(list(item.candidates))) for item in items]
    (folder / "b.txt").write_text("".join(f"{ranking}\n" for ranking in rankings))
    with tarfile.open(folder / "shard.tar", "w") as tar:
        for picture in sorted((folder / "images").iterdir())[:4]:
            tar.add(picture, picture.name)


def _textual(folder: Path) -> None:
    toy_wordnet.write_dict(folder / "dict")
    (folder / "x.data.xml").write_text(XML)
    (folder / "semcor.data.xml").write_text(XML.replace("senseval2", "semcor"))
    (folder / "x.key").write_text("d0.s0.t0 bat%2:35:00::\nd0.s0.t1 bat%1:06:00::\n")
    (folder / "answers.key").write_text("d0.s0.t0 bat%2:35:00::\nd0.s0.t1 bat%1:05:00::\n")
    (folder / "inventory").write_text("bat#n\tbn:2n\tbn:1n\nbat#v\tbn:3v\n")


def _stored(folder: Path) -> None:
    import numpy as np

    from vwsd_companion.facts.predictions import write_predictions
    from vwsdlib.data.sets import user_set
    from vwsdlib.encoders.control import RandomEncoder

    data = user_set(folder / "en.toy.data.txt", folder / "en.toy.gold.txt", folder / "images")
    for name in ("toy.phrase.en.toy", "toy.word.en.toy"):
        scores = np.random.default_rng(len(name)).random((6, 10)).astype(np.float32)
        write_predictions(
            folder / "stored",
            name,
            data,
            [item.phrase for item in data.items],
            scores,
            profile="mine",
            variant=name.split(".")[1],
            identity={**RandomEncoder().identity(), "image_variant": data.image_variant},
        )
    if (ROOT / "data" / "emojiwsd").is_dir():
        (folder / "data" / "emojiwsd").symlink_to(ROOT / "data" / "emojiwsd")
    else:
        from vwsd_standins.emojiwsd import build

        build.build()
    sys.path.insert(0, str(ROOT / "tests"))
    import site_tiny

    site_tiny.write_tiny(folder / "results")


def _polclip(folder: Path) -> None:
    import numpy as np
    import torch
    from PIL import Image

    from polclip.records import Candidate, Record, save_records
    from vwsd_companion import cli
    from vwsd_standins.rehearsal.models import CHECKPOINTS, MAKERS
    from vwsd_standins.rehearsal.polclip import make_polclip

    torch.set_num_threads(1)
    torch.manual_seed(0)
    target = folder / "models" / CHECKPOINTS["clip-vit-l14"].repo
    target.mkdir(parents=True)
    MAKERS["clip-vit-l14"](target)
    dice = np.random.default_rng(0)
    (folder / "seen").mkdir()
    for number in range(6):
        Image.fromarray(dice.integers(0, 255, (20, 20, 3), np.uint8)).save(
            folder / "seen" / f"{number}.png"
        )
    senses = [
        Candidate(f"s{number}", f"gloss {number}", (f"seen/{number}.png",)) for number in range(6)
    ]
    records = [
        Record(
            f"r{number}",
            "en",
            ("a", f"word{number % 3}", "here"),
            (1, 1),
            (senses[number % 3], senses[3 + number % 3]),
            (f"s{number % 3}",),
            "NOUN",
        )
        for number in range(12)
    ]
    save_records(folder / "train.jsonl", records)
    (folder / "published").mkdir()
    make_polclip(folder / "published")
    (folder / "raw").mkdir()
    for number in range(2):
        torch.save(torch.rand(3, 224, 224), folder / "raw" / f"bn00{number}_0.pt")
    settings = [part for setting in TINY for part in ("--set", setting)]
    calls = (
        ["train", "--records", "train.jsonl", "--out", "trained", *settings],
        ["define", "--data", "en.toy.data.txt", "--definer", "first-sense", "--out", "defs.jsonl"],
        ["convert", "shards", "train.jsonl", "shards"],
    )
    for call in calls:
        if code := cli.main(call):
            raise SystemExit(
                f"the sound input cannot be made: vwsd {' '.join(call)} ends with {code}"
            )


def _notebooks(folder: Path) -> None:
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "pipeline.yml").write_text(PIPELINE)
    bodies = {
        "a_note": "run.path('measured/seen.txt').write_text('seen')\nrun.finish(fine=True)",
        "b_note": "run.finish()",
    }
    for name, body in bodies.items():
        start = (
            f"from vwsd_companion.notebook import start\nrun = start('{name}', profile=profile,"
            " limit=limit)"
        )
        cells = [
            new_code_cell(
                'profile = "demo"\nlimit = 0\nencoder = "lite"\nseed = 0',
                metadata={"tags": ["parameters"]},
            ),
            new_code_cell(start),
            new_code_cell(body),
        ]
        for number, cell in enumerate(cells):
            cell["id"] = f"cell-{number}"
        nbformat.write(new_notebook(cells=cells), folder / "notebooks" / f"{name}.ipynb")
    stamps = folder / "results" / "demo" / ".stamps"
    stamps.mkdir()
    stamp = {
        "notebook": "a_note",
        "profile": "demo",
        "fingerprint": "0",
        "components": {"code": "0", "upstream": {}},
        "parameters": {},
        "outputs": {},
        "checks": [],
        "seconds": 1.5,
        "cells": [{"notebook": "a_note", "cell": 1, "line": "x", "seconds": 1.5}],
        "finished": "2026-01-01T00:00:00Z",
    }
    (stamps / "a_note.json").write_text(json.dumps(stamp))
    (stamps / "b_note.failed.json").write_text(
        json.dumps({"cell": 1, "error": "E", "message": "m", "log": "l"})
    )


def _to_fetch(folder: Path) -> None:
    """Archives that look like the organisers', with bytes that are none of theirs."""
    (folder / "given").mkdir()
    data = (folder / "en.toy.data.txt").read_bytes()
    with zipfile.ZipFile(folder / "given" / "trial.zip", "w") as archive:
        archive.writestr("semeval/trial.data.v1.txt", data)
        for picture in sorted((folder / "images").iterdir()):
            archive.write(picture, f"semeval/all_images/{picture.name}")
    with tarfile.open(folder / "given" / "more.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("all_images/image.1.png")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"\x89PNG"))


def copy(base: Path, sandbox: Path) -> None:
    """A sandbox with all inputs: files as further links to those of `base`, which every mutation
    replaces and never changes.
    """
    shutil.copytree(base, sandbox, symlinks=True, copy_function=os.link)
