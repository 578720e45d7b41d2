"""Answers that are made once: kept line by line under the hash of their text and of all that decided them, and found there ever after.

The file's name is the identity's hash, so another model, prompt or setting never finds them. Below a results folder a run's answers are
a durable fact, like predictions: `NAME.jsonl` holds a line an item, `NAME.meta.json` the identity.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from ..errors import VwsdError
from ..paths import quiet, sha256_bytes, write_text

AGAIN = "Run the notebook that makes them again with --force."
Pairs = Iterator[list[tuple[str, str]]]   # (text, answer), a batch at a time in any order


def replay(name: str, facts: Mapping, texts: Sequence[str], load: Callable[[], Callable[[list[str]], Pairs]], folder: str | Path, desc: str = "",
           note: Callable[[], Mapping] = dict) -> tuple[dict[str, str], int]:
    """(text -> answer, how many of `texts` were found); `load` is called only where one is missing, and each batch is stored as it comes.

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
                append(path, [{"key": keys[text], "in": text, "out": out, **note()} for text, out in pairs])
                known |= {keys[text]: out for text, out in pairs}
                bar.update(len(pairs))
    return {text: known[key] for text, key in keys.items()}, replayed


def read_store(path: Path) -> dict[str, str]:
    """Key -> answer; a line that a kill cut off is passed over, its text is asked again."""
    known = {}
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            stored = json.loads(line)
            known[stored["key"]] = stored["out"]
        except (ValueError, KeyError, TypeError):
            continue
    return known


def append(path: Path, lines: Iterable[Mapping]) -> None:
    """Add lines in one write, on a line of their own where the last one was cut off."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+") as f:
            f.seek(max(f.tell() - 1, 0))
            start = b"" if f.read() in (b"\n", b"") else b"\n"
            f.write(start + "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
    except OSError as e:
        raise VwsdError(f"cannot store the answers: {e.strerror or e}", where=path, remedy="Free some space or set VWSD_CACHE.") from e


def write_records(stem: str | Path, records: Sequence[Mapping], meta: Mapping) -> Path:
    """Write `<stem>.jsonl` and `<stem>.meta.json`, which holds `meta` and their number n; returns the path of the former."""
    path = write_text(f"{stem}.jsonl", "".join(json.dumps(dict(record), ensure_ascii=False) + "\n" for record in records))
    write_text(f"{stem}.meta.json", json.dumps({**meta, "n": len(records)}, indent=1, ensure_ascii=False) + "\n")
    return path


def read_records(path: str | Path, what: str) -> tuple[list[dict], dict]:
    """Records and meta as `write_records` wrote them; VwsdError, calling them `what`, where lines are missing."""
    path = Path(path)
    try:
        meta = json.loads(path.with_name(path.name.removesuffix(".jsonl") + ".meta.json").read_text(encoding="utf-8"))
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError) as e:
        raise VwsdError(f"the {what} cannot be read: {e}", where=path, remedy=AGAIN) from e
    if len(records) != meta.get("n"):
        raise VwsdError(f"{len(records)} {what}, {meta.get('n')} were written", where=path, remedy=AGAIN)
    return records, meta
