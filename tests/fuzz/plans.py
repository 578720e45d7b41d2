"""Which calls are made: of each subcommand one or more, with the files that they read, what they
may leave, and how their numbers are checked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz import base, twin

SET = ("--data", "en.toy.data.txt", "--gold", "en.toy.gold.txt")
SET_FILES = {"en.toy.data.txt": "table", "en.toy.gold.txt": "table+gold"}
TINY = tuple(part for setting in base.TINY for part in ("--set", setting))
PICTURES = {"images/image.0.png": "picture", "images/image.1.png": "picture"}
STORED = "stored/predictions/toy.phrase.en.toy"


@dataclass(frozen=True)
class Plan:
    """One call with sound input."""

    command: str
    arguments: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)  # path -> kind of each file that it reads
    leaves: tuple[
        str, ...
    ] = ()  # what it may write, besides cache and results: paths or their beginnings
    weight: float = 1.0  # how often, beside the others
    seconds: float = 20.0
    codes: tuple[int, ...] = (0,)  # exit codes of the sound call
    numbers: Callable[[str], object] | None = None  # what is compared of its output
    twin: Callable[[Path], object] | None = (
        None  # the same, computed a second time from the mutated files
    )
    odd: tuple[tuple[str, ...], ...] = ()  # further arguments that are odd


def _systems(out: str) -> object:
    return [(s["k"], s["n"], round(s["mrr"], 4)) for s in json.loads(out)["systems"]]


def _audit(out: str) -> object:
    found = json.loads(out)
    return found["n"], found["targets"], found["images"], list(found["position_counts"])


def _f1(out: str) -> object:
    return round(json.loads(out)["f1"], 4)


def _groups(out: str) -> object:
    return [(g["group"], round(g["f1"], 4), g["total"]) for g in json.loads(out)]


ODD_OUT = (
    ("--out", "full"),
    ("--out", "images"),
    ("--out", "a.tsv/below"),
    ("--out", "../" * 40 + "proc/none"),
    ("--out", "x" * 300),
    ("--out", ""),
    ("--out", "images/image.0.png/x"),
)
ODD_ENCODER = (
    ("--encoder", ""),
    ("--encoder", "random@bf16"),
    ("--encoder", "../random"),
    ("--encoder", "clip-vit-b32"),
    ("--truncated", "keep"),
)

PLANS = (
    Plan(
        "score",
        (*SET, "a.tsv", "b.txt", "--json"),
        {**SET_FILES, "a.tsv": "scores", "b.txt": "table+ranking"},
        weight=6,
        numbers=_systems,
        twin=twin.score,
        odd=(("a.tsv",), ("nowhere",), ("",), ("--data", "a.tsv"), ("\udcff.tsv",), ("a" * 5000,)),
    ),
    Plan(
        "score",
        (*SET, "a.tsv", "b.txt"),
        {**SET_FILES, "a.tsv": "scores", "b.txt": "table+ranking"},
    ),
    Plan(
        "audit",
        (*SET, "--json"),
        SET_FILES,
        weight=3,
        numbers=_audit,
        twin=twin.audit,
        odd=(("--gold", "en.toy.data.txt"),),
    ),
    Plan(
        "export",
        (f"{STORED}.jsonl", "--to", "submission", "--out", "out"),
        {f"{STORED}.jsonl": "jsonl", f"{STORED}.meta.json": "json"},
        ("out",),
        weight=2,
        odd=(
            *ODD_OUT,
            ("--to", "nothing"),
            ("stored/predictions/toy.word.en.toy.jsonl",),
            ("a.tsv",),
        ),
    ),
    Plan(
        "export",
        (f"{STORED}.jsonl", "--to", "scores", "--out", "out"),
        {f"{STORED}.jsonl": "jsonl", f"{STORED}.meta.json": "json"},
        ("out",),
        weight=2,
        odd=ODD_OUT,
    ),
    Plan(
        "export",
        (f"{STORED}.jsonl", "--to", "parquet", "--out", "out"),
        {f"{STORED}.jsonl": "jsonl", f"{STORED}.meta.json": "json"},
        ("out",),
        odd=ODD_OUT,
    ),
    Plan(
        "export",
        (f"{STORED}.jsonl", "--to", "dataset", "--out", "out"),
        {f"{STORED}.jsonl": "jsonl", f"{STORED}.meta.json": "json"},
        ("out",),
        weight=0.5,
        odd=ODD_OUT,
    ),
    Plan(
        "evaluate",
        (*SET, "--images", "images", "--encoder", "random", "--json", "--out", "out.tsv"),
        {**SET_FILES, **PICTURES},
        ("out.tsv",),
        weight=3,
        numbers=_systems,
        odd=(
            *ODD_OUT,
            *ODD_ENCODER,
            ("--text", "nothing"),
            ("--images", "nowhere"),
            ("--images", "a.tsv"),
            ("--images", "*.tar"),
            ("--images", "http://127.0.0.1:9/x"),
        ),
    ),
    Plan(
        "rank",
        ("fruit bat", "images/image.0.png", "images/image.1.png", "--encoder", "random", "--json"),
        PICTURES,
        weight=3,
        odd=(
            *ODD_ENCODER,
            ("images",),
            ("nowhere.png",),
            ("",),
            ("\udcff.png",),
            ("images/[a]*.png",),
            ("http://127.0.0.1:9/x.png",),
        ),
    ),
    Plan(
        "encode",
        ("images", "--encoder", "random", "--json"),
        PICTURES,
        weight=2,
        odd=(*ODD_ENCODER, ("--drift", "-5"), ("--drift", "3")),
    ),
    Plan(
        "encode",
        ("shard.tar", "--encoder", "random"),
        {"shard.tar": "tar"},
        weight=2,
        odd=ODD_ENCODER,
    ),
    Plan(
        "wsd",
        (
            "--data",
            "x.data.xml",
            "--gold",
            "x.key",
            "--method",
            "lesk",
            "--out",
            "out.key",
            "--json",
        ),
        {
            "x.data.xml": "xml",
            "x.key": "key",
            "dict/data.noun": "bytes",
            "dict/index.sense": "bytes",
        },
        ("out.key",),
        weight=2,
        numbers=_groups,
        odd=(
            *ODD_OUT,
            ("--method", "nothing"),
            ("--method", "encoder", "--encoder", "random"),
            ("--inventory", "x.key"),
        ),
    ),
    Plan(
        "wsd",
        (
            "--data",
            "x.data.xml",
            "--gold",
            "x.key",
            "--method",
            "first-sense",
            "--inventory",
            "inventory",
            "--out",
            "out.key",
        ),
        {"x.data.xml": "xml", "inventory": "key"},
        ("out.key",),
    ),
    Plan(
        "wsd-score",
        ("--gold", "x.key", "--pred", "answers.key", "--json"),
        {"x.key": "key", "answers.key": "key"},
        weight=3,
        numbers=_f1,
        twin=twin.wsd_score,
    ),
    Plan(
        "define",
        ("--data", "en.toy.data.txt", "--definer", "lesk", "--out", "out.jsonl"),
        {"en.toy.data.txt": "table", "dict/data.noun": "bytes"},
        ("out.",),
        weight=2,
        odd=(
            *ODD_OUT,
            ("--definer", "nothing"),
            ("--definer", "chat"),
            ("--definer", "hf"),
            ("--inventory", "emojiwsd"),
        ),
    ),
    Plan(
        "define",
        ("--wsd", "x.data.xml", "--definer", "first-sense", "--out", "out.jsonl"),
        {"x.data.xml": "xml"},
        ("out.",),
    ),
    Plan(
        "corpus",
        ("--data", "semcor.data.xml", "--gold", "x.key", "--out", "out.jsonl"),
        {"semcor.data.xml": "xml", "x.key": "key"},
        ("out.",),
        weight=2,
        odd=(*ODD_OUT, ("--limit", "-5"), ("--limit", "1"), ("--limit", "x")),
    ),
    Plan(
        "convert",
        ("shards", "train.jsonl", "out"),
        {"train.jsonl": "jsonl", "seen/0.png": "picture"},
        ("out",),
        weight=2,
        odd=(("--kind", "raw"),),
    ),
    Plan("convert", ("pictures", "raw", "out"), {"raw/*": "pickle"}, ("out",), weight=2),
    Plan(
        "convert",
        (
            "records",
            "published/semcor_training_tokens.50.250.json",
            "out.jsonl",
            "--kind",
            "metadata",
            "--pictures",
            "semcor=published/image_pt",
        ),
        {
            "published/image_pt/*": "safetensors",
            "published/semcor_training_tokens.50.250.json": "json",
        },
        ("out.",),
        weight=2,
        odd=(("--missing", "drop"), ("--kind", "raw"), ("--pictures", "semcor")),
    ),
    Plan(
        "polclip",
        ("--checkpoint", "trained/last.safetensors", "--records", "train.jsonl", "--json"),
        {
            "trained/last.safetensors": "safetensors",
            "train.jsonl": "jsonl",
            "models/openai/clip-vit-large-patch14/config.json": "json",
            "models/openai/clip-vit-large-patch14/vocab.json": "json",
            "models/openai/clip-vit-large-patch14/model.safetensors": "safetensors",
        },
        weight=1.5,
    ),
    Plan(
        "polclip",
        (
            "--checkpoint",
            "trained/last.safetensors",
            *SET,
            "--images",
            "images",
            "--definitions",
            "defs.jsonl",
            "--out",
            "out.tsv",
            "--json",
        ),
        {**SET_FILES, **PICTURES, "defs.jsonl": "jsonl", "defs.meta.json": "json"},
        ("out.tsv",),
        numbers=_systems,
        odd=ODD_OUT,
    ),
    Plan(
        "train",
        ("--records", "train.jsonl", "--out", "out", *TINY),
        {"train.jsonl": "jsonl", "seen/0.png": "picture"},
        ("out",),
        weight=0.5,
        odd=(
            ("--set", "epochs=-1"),
            ("--set", "rate=nan"),
            ("--set", "hidden=2000000"),
            ("--set", "nothing=1"),
            ("--set", "epochs=2024-01-01"),
            ("--save-every", "-5"),
            ("--preset", "nothing"),
            *ODD_OUT,
        ),
    ),
    Plan(
        "train",
        ("--records", "train.jsonl", "--out", "trained", *TINY),
        {"trained/state.safetensors": "safetensors", "trained/log.jsonl": "jsonl"},
        ("trained",),
        weight=0.5,
    ),
    Plan(
        "train",
        ("--shards", "shards", "--out", "out", *TINY),
        {"shards/*": "bytes"},
        ("out",),
        weight=0.5,
    ),
    Plan(
        "fetch",
        ("vwsd", "--split", "trial", "--from", "given"),
        {"given/trial.zip": "zip", "given/more.tar.gz": "tar"},
        ("data",),
        weight=2,
        codes=(1,),
        odd=(
            ("--from", "nowhere"),
            ("--from", "given/trial.zip"),
            ("--images", "resized"),
            ("--force",),
            ("--only", "x"),
        ),
    ),
    Plan(
        "fetch",
        ("models", "--only", "clip-vit-b32"),
        {},
        ("hub",),
        weight=0.3,
        codes=(2,),
        odd=(("--only", "nothing"),),
    ),
    Plan(
        "run",
        ("--profile", "demo", "--parameters"),
        {"notebooks/pipeline.yml": "yaml", "notebooks/a_note.ipynb": "json"},
        weight=2,
        odd=(
            ("--set", "seed=x"),
            ("--set", "seed"),
            ("--set", "seed=2024-01-01"),
            ("--set", "seed=!!python/object/apply:os.getcwd []"),
            ("--limit", "-5"),
            ("--only", "nothing"),
            ("--only", ""),
            ("--from", "b_note", "--force"),
            ("--set", "limit=1e400"),
            ("--profile", "../demo"),
        ),
    ),
    Plan(
        "run",
        ("--profile", "demo"),
        {"results/demo/.stamps/a_note.json": "json"},
        weight=0.15,
        seconds=60,
        codes=(0, 1),
    ),
    Plan(
        "status",
        ("--profile", "demo", "--json"),
        {
            "results/demo/.stamps/a_note.json": "json",
            "results/demo/.stamps/b_note.failed.json": "json",
            "notebooks/pipeline.yml": "yaml",
            "notebooks/b_note.ipynb": "json",
        },
        weight=3,
        odd=(("--profile", ""),),
    ),
    Plan(
        "report",
        ("--profile", "demo", "--check"),
        {
            "results/demo/predictions/lite.word.fa.test.jsonl": "jsonl",
            "results/demo/predictions/lite.word.fa.test.meta.json": "json",
            "results/demo/audit/fa.test.json": "json",
            "results/demo/report.json": "json",
        },
        weight=0.7,
        seconds=60,
        codes=(0, 1),
    ),
    Plan(
        "report",
        ("--profile", "demo", "--html", "--out", "out"),
        {"results/demo/report.json": "json", "results/demo/notebooks/01_data.ipynb": "json"},
        ("out",),
        weight=0.3,
        seconds=60,
        odd=ODD_OUT,
    ),
    Plan(
        "compare",
        ("results/demo", "results/demo", "--rows", "--json"),
        {
            "results/demo/rows.jsonl": "jsonl",
            "results/demo/predictions/lite.word.fa.test.jsonl": "jsonl",
        },
        weight=0.7,
        seconds=60,
        codes=(0, 1),
        odd=(("--measure", "--out", "a.tsv"), ("--profile", "nothing")),
    ),
    Plan(
        "why",
        ("baseline", "1", "Hit@1", "--json"),
        {
            "results/demo/predictions/lite.word.en.test.jsonl": "jsonl",
            "results/demo/predictions/lite.word.en.test.meta.json": "json",
        },
        weight=0.2,
        seconds=120,
        odd=(("nothing",), ("--profile", "nothing"), ("",)),
    ),
    Plan(
        "refresh",
        ("--profile", "demo"),
        {"results/demo/rows.jsonl": "jsonl"},
        weight=0.15,
        seconds=60,
        codes=(2,),  # the run stands where the reference is
    ),
    Plan(
        "doctor",
        ("--profile", "demo", "--json"),
        {"notebooks/pipeline.yml": "yaml"},
        weight=0.5,
        codes=(0, 1),
        odd=(("--profile", "nothing"),),
    ),
)

ENVIRONMENTS = (  # what is odd about the surroundings of a call
    {"RANK": "x", "WORLD_SIZE": "2"},
    {"RANK": "-1", "WORLD_SIZE": "-1"},
    {"RANK": "3", "WORLD_SIZE": "1"},
    {"LOCAL_RANK": "y"},
    {"HOME": ""},
    {"HOME": "/nowhere/at/all"},
    {"VWSD_TIME_FACTOR": "often"},
    {"VWSD_TIME_FACTOR": "-1"},
    {"VWSD_TIME_FACTOR": "nan"},
    {"VWSD_CACHE": "a.tsv"},
    {"VWSD_CACHE": "/proc/none"},
    {"VWSD_RESULTS": "a.tsv"},
    {"VWSD_RESULTS": "/proc/none"},
    {"VWSD_DATA": "a.tsv"},
    {"VWSD_DATA": "/proc/none"},
    {"VWSD_MODELS": "a.tsv"},
    {"VWSD_WORDNET": "a.tsv"},
    {"VWSD_WORDNET": "~nobody-here/x"},
    {"VWSD_NOTEBOOKS": "a.tsv"},
    {"VWSD_NOTEBOOKS": "/proc/none"},
    {"VWSD_HOME": "~nobody-here/x"},
    {"VWSD_HOME": "/nowhere"},
    {"TMPDIR": "/nowhere"},
    {"HF_HOME": "a.tsv"},
    {"VWSD_CHAT_URL": "ftp://x"},
    {"VWSD_CHAT_URL": "http://[::1"},
    {"LANG": "C", "LC_ALL": "C"},
    {"VWSD_CACHE": "cache/" + "x" * 300},
)
