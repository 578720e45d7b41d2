"""Answers that are made once: kept line by line under the hash of their text and of all that
decided them, and found there ever after.

The file's name is the identity's hash, so another model, prompt or setting never finds them; a
local checkpoint's identity has every setting that generate() is told with its value, hashes of its
files, versions. Below a results folder a run's answers are a durable fact, like predictions:
`NAME.jsonl` holds a line an item, `NAME.meta.json` the identity.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..errors import VwsdError
from ..paths import quiet, refuse_special, sha256_bytes, sha256_file, write_text

# a setting that is read from the checkpoint's own files; its value stands in the identity
SHIPPED = "as shipped"
# All that generate() can be told and that could move an answer, with the library's default; the
# token ids are the checkpoint's.
DEFAULTS = {
    "num_beams": 1,
    "do_sample": False,
    "early_stopping": False,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
    "renormalize_logits": False,
    "bad_words_ids": None,
    "forced_eos_token_id": None,
}
GREEDY = DEFAULTS | dict.fromkeys(
    ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"), SHIPPED
)
INSTALL = (
    "Install what it needs: pip install 'vwsdlib[paper]' sentencepiece protobuf. If that is there,"
    " fetch the checkpoint again."
)
AGAIN = "Make them again: the notebook with --force, or the command that wrote them."
Pairs = Iterator[list[tuple[str, str]]]  # (text, answer), a batch at a time in any order


def settings_of(asked: Mapping, folder: Path) -> dict:
    """Every generation setting with its value; `SHIPPED` ones from generation_config.json, else
    config.json, else the library's default.
    """
    files = [
        folder / name
        for name in ("config.json", "generation_config.json")
        if (folder / name).exists()
    ]
    from ..schema import read_json

    shipped: dict[str, Any] = {}
    for path in files:
        shipped |= read_json(
            path, dict[str, Any], "checkpoint's settings", "Fetch the checkpoint again."
        )
    return {
        name: shipped.get(name, DEFAULTS.get(name)) if value == SHIPPED else value
        for name, value in {**GREEDY, **asked}.items()
    }


def local_facts(key: str, found, settings: Mapping, packages: Sequence[str], shapes: str) -> dict:
    """Identity of what a checkpoint (`checkpoints.find`) writes in float32; VwsdError names a
    package that is missing.
    """
    from ..encoders import checkpoints

    try:
        import torch

        versions = {name: version(name) for name in packages}
    except ImportError as e:
        raise VwsdError(f"generating text needs the package {e.name}", remedy=INSTALL) from e
    files = [
        p for p in sorted(found.folder.iterdir()) if p.suffix in (".json", ".model", ".spm", ".txt")
    ]  # tokenizer and configuration
    return {
        "model": checkpoints.checkpoint(key).repo,
        "revision": found.revision,
        "weights_sha256": found.weights_sha256,
        "files_sha256": sha256_bytes("".join(p.name + sha256_file(p) for p in files).encode()),
        "settings": dict(settings),
        "versions": versions,
        "dtype": "float32",
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "shapes": shapes,
    }


def replay(
    name: str,
    facts: Mapping,
    texts: Sequence[str],
    load: Callable[[], Callable[[list[str]], Pairs]],
    folder: str | Path,
    desc: str = "",
    note: Callable[[], Mapping] = dict,
) -> tuple[dict[str, str], int]:
    """(text -> answer, how many of `texts` were found); `load` is called only where one is missing,
    and each batch is stored as it comes.

    facts: the identity, all that decides an answer. note: what else a new line holds.
    """
    digest = sha256_bytes(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode())
    path = Path(folder) / f"{name}-{digest[:16]}.jsonl"
    keys = {text: sha256_bytes(f"{text}\0{digest}".encode()) for text in texts}
    known = read_store(path)
    missing = [text for text, key in keys.items() if key not in known]
    replayed = sum(keys[text] in known for text in texts)
    if missing:
        with tqdm(total=len(missing), desc=desc or name, unit="text", disable=quiet()) as bar:
            for pairs in load()(missing):
                append(
                    path,
                    [{"key": keys[text], "in": text, "out": out, **note()} for text, out in pairs],
                )
                known |= {keys[text]: out for text, out in pairs}
                bar.update(len(pairs))
    return {text: known[key] for text, key in keys.items()}, replayed


def read_store(path: Path) -> dict[str, str]:
    """Key -> answer; a line that a kill cut off is passed over, its text is asked again."""
    known = {}
    refuse_special(path, "store of answers", "Remove it.")
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            stored = json.loads(line)
            key, out = stored["key"], stored["out"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if isinstance(key, str) and isinstance(out, str):
            known[key] = out
    return known


def append(path: Path, lines: Iterable[Mapping]) -> None:
    """Add lines in one write, on a line of their own where the last one was cut off; VwsdError
    where the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+") as f:
            f.seek(max(f.tell() - 1, 0))
            start = b"" if f.read() in (b"\n", b"") else b"\n"
            f.write(
                start
                + "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
            )
    except OSError as e:
        raise VwsdError(
            f"cannot store the answers: {e.strerror or e}",
            where=path,
            remedy="Free some space or set VWSD_CACHE.",
        ) from e


def write_records(stem: str | Path, records: Sequence[Mapping], meta: Mapping) -> Path:
    """Write `<stem>.jsonl` and `<stem>.meta.json`, which holds `meta` and their number n; returns
    the path of the former.
    """
    path = write_text(
        f"{stem}.jsonl",
        "".join(
            json.dumps(dict(record), ensure_ascii=False, allow_nan=False) + "\n"
            for record in records
        ),
    )
    write_text(
        f"{stem}.meta.json",
        json.dumps({**meta, "n": len(records)}, indent=1, ensure_ascii=False, allow_nan=False)
        + "\n",
    )
    return path


def read_records(
    path: str | Path, what: str, texts: Sequence[str] = ("id",)
) -> tuple[list[dict], dict]:
    """Records and meta as `write_records` wrote them; `texts` are the keys of a record that hold
    text.

    VwsdError, calling them `what`, where lines are missing or not of this form, or an id stands
    twice.
    """
    from pydantic import create_model

    from ..schema import Stored, read_json, read_jsonl

    path = Path(path)
    meta_path = path.with_name(path.name.removesuffix(".jsonl") + ".meta.json")
    record_shape = create_model("Record", __base__=Stored, **dict.fromkeys(texts, (str, ...)))
    meta_shape = create_model("Meta", __base__=Stored, n=(int, ...))
    meta = read_json(meta_path, meta_shape, f"{what}' meta", AGAIN).model_dump()
    records = [record.model_dump() for record in read_jsonl(path, record_shape, what, AGAIN)]
    if len(records) != meta["n"]:
        raise VwsdError(
            f"{len(records)} {what}, {meta['n']} were written", where=path, remedy=AGAIN
        )
    twice = [
        item_id
        for item_id, count in Counter(record["id"] for record in records).items()
        if count > 1
    ]
    if twice:
        raise VwsdError(
            f"{len(twice)} ids stand twice, {twice[0]!r} the first", where=path, remedy=AGAIN
        )
    return records, meta
