"""Answers that are made once: kept line by line under the hash of their text and of all that
decided them, and found there ever after.

Translators and definers are the two kinds of those who answer, and share the entry of a registry,
the store, and the form of a durable file. The store's file is named by the identity's hash, so
another model, prompt or setting never finds it. Below a results folder a run's answers are a fact,
like predictions: `NAME.jsonl` holds a line an item, `NAME.meta.json` the identity.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import VwsdError
from ..kept import digest
from ..paths import quiet, refuse_special, sha256_bytes, write_text
from ..progress import tqdm
from ..registry import Line

AGAIN = "Make them again: the notebook with --force, or the command that wrote them."
Pairs = Iterator[list[tuple[str, str]]]  # (text, answer), a batch at a time in any order
Answering = Callable[[list[str]], Pairs]


@dataclass(frozen=True)
class Answerer(Line):
    """A translator or a definer. `loader` takes the entry itself and the languages in question
    (source, target; none for a definer), and gives all that decides an answer (a dict) and a
    function that loads the model: () -> texts -> Pairs. A definer of the kind "chosen" takes items
    in place of texts and gives a gloss for each.
    """

    languages: tuple[str, ...] = ()  # that a translator reads
    kind: str = "generated"  # or "chosen"
    model: str = ""  # key of encoders.checkpoints
    settings: Mapping = field(default_factory=dict)
    codes: Mapping[str, str] = field(default_factory=dict)  # language -> the tokenizer's code
    # "module:callable": (phrase, language) -> its target in English, where the phrase tells which
    # sense is meant; other translators are given the target alone
    targets: str = ""


def one_by_one(answer: Callable[[str], str]) -> Answering:
    """texts -> Pairs, by a function that answers one text."""
    return lambda texts: ([(text, answer(text))] for text in texts)


def replay(
    name: str,
    facts: Mapping,
    texts: Sequence[str],
    load: Callable[[], Answering],
    folder: str | Path,
    desc: str = "",
    note: Callable[[], Mapping] = dict,
) -> tuple[dict[str, str], int]:
    """(text -> answer, how many of `texts` were there); `load` is called only where one is
    missing, and each batch is stored as it comes.

    facts: the identity, all that decides an answer. note: what else a new line holds.
    """
    identity = digest(facts)
    path = Path(folder) / f"{name}-{identity[:16]}.jsonl"
    keys = {text: sha256_bytes(f"{text}\0{identity}".encode()) for text in texts}
    known = read_store(path)
    missing = [text for text, key in keys.items() if key not in known]
    replayed = sum(keys[text] in known for text in texts)
    if missing:
        with tqdm(total=len(missing), desc=desc or name, unit="text", disable=quiet()) as bar:
            for pairs in load()(missing):
                lines = [{"key": keys[t], "in": t, "out": out, **note()} for t, out in pairs]
                append(path, lines)
                known |= {line["key"]: line["out"] for line in lines}
                bar.update(len(lines))
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
            start = "" if f.read() in (b"\n", b"") else "\n"
            f.write((start + _json_lines(lines)).encode())
    except OSError as e:
        raise VwsdError(
            f"cannot store the answers: {e.strerror or e}",
            where=path,
            remedy="Free some space or set VWSD_CACHE.",
        ) from e


def _json_lines(records: Iterable[Mapping]) -> str:
    lines = [json.dumps(dict(it), ensure_ascii=False, allow_nan=False) + "\n" for it in records]
    return "".join(lines)


def write_records(stem: str | Path, records: Sequence[Mapping], meta: Mapping) -> Path:
    """Write `<stem>.jsonl` and `<stem>.meta.json`, which holds `meta` and their number n; returns
    the path of the former.
    """
    path = write_text(f"{stem}.jsonl", _json_lines(records))
    whole = {**meta, "n": len(records)}
    text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(f"{stem}.meta.json", text + "\n")
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
    refuse_twice([record["id"] for record in records], path, AGAIN)
    return records, meta


def refuse_twice(ids: Sequence[str], where: object, remedy: str) -> None:
    """VwsdError where an id stands twice."""
    twice = [item_id for item_id, count in Counter(ids).items() if count > 1]
    if twice:
        raise VwsdError(f"{len(twice)} ids stand twice, {twice[0]!r} the first", where, remedy)
