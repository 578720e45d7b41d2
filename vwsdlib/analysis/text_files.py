"""What a user puts around or in place of phrases: files of phrases, definitions and translations, a
line an item or JSON lines by id.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from ..data.items import Item, read_lines, read_text
from ..data.sets import VwsdSet, gold_glosses
from ..errors import VwsdError
from ..language.definitions import Definitions, guard
from ..language.replay import read_records

# of a record; the first must be there
KEYS = {"definitions": ("definition",), "translations": ("phrase_en", "target_en")}


def read_phrases(path: str | Path) -> list[str]:
    """Phrases, one a line; VwsdError for an empty file and for an empty line between others."""
    lines = [line.strip() for line in read_lines(path)]
    if not lines:
        raise VwsdError("there is no phrase in the file", where=path, remedy="Write one a line.")
    if "" in lines:
        raise VwsdError(
            "an empty line",
            where=f"{path}:{lines.index('') + 1}",
            remedy="Write one phrase a line.",
        )
    return lines


def read_texts(
    path: str | Path, items: Sequence[Item], kind: str
) -> tuple[dict[str, dict[str, str]], dict]:
    """Item id -> its texts by key (KEYS) and what the file's meta says, {} where it has none.

    A `.jsonl` file has an object with `id` a line, as `vwsd define` and the notebooks write them;
    where a `.meta.json` lies beside it, the two must agree. Any other file is plain text, a line an
    item in the data file's order. VwsdError where items have no line, lines belong to no item, or
    an id stands twice.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        records, meta = _records(path, kind)
    else:
        records, meta = _plain(path, items, kind), {}
    by_id = {}
    for record in records:
        by_id[record["id"]] = {name: record[name] for name in KEYS[kind] if name in record}
    ids = [item.id for item in items]
    lost = [item_id for item_id in ids if item_id not in by_id]
    foreign = by_id.keys() - set(ids)
    what = ""
    if lost:
        what = f"{len(lost)} of {len(ids)} items have no line, {lost[0]!r} the first"
    elif foreign:
        count = f"{len(foreign)} of {len(by_id)}"
        what = f"{count} lines belong to no item, {min(foreign)!r} among them"
    if what:
        raise VwsdError(what, where=path, remedy="Give the file made of this very data file.")
    return by_id, meta


def _plain(path: Path, items: Sequence[Item], kind: str) -> list[dict]:
    lines = [line.strip() for line in _lines(path)]
    if kind == "definitions":  # the last items' empty lines count where they stand in the file
        blank = _physical_lines(path) - len(lines)
        lines += [""] * min(blank, len(items) - len(lines))
    if len(lines) != len(items):
        raise VwsdError(
            f"{len(lines)} lines for {len(items)} items",
            where=path,
            remedy="Write one line an item, in the data file's order.",
        )
    return [{"id": item.id, KEYS[kind][0]: line} for item, line in zip(items, lines)]


def _physical_lines(path: Path) -> int:
    """How many lines a text file has, blank ones at its end included."""
    text = read_text(path)
    return text.count("\n") + (not text.endswith("\n"))


def _lines(path: Path) -> list[str]:
    """Lines of a text file; VwsdError where there is none."""
    lines = read_lines(path)
    if not lines:
        raise VwsdError(
            "the file is empty",
            where=path,
            remedy="Write one line an item, in the data file's order.",
        )
    return lines


def _records(path: Path, kind: str) -> tuple[list[dict], dict]:
    if path.with_name(path.name.removesuffix(".jsonl") + ".meta.json").exists():
        records, meta = read_records(path, kind)
    else:
        numbered = enumerate(_lines(path), start=1)
        meta = {}
        records = [_parsed(line, f"{path}:{number}") for number, line in numbered]
    known: set[str] = set()
    for number, record in enumerate(records, start=1):
        _check(record, kind, known, f"{path}:{number}")
        known.add(record["id"])
    return cast(list[dict], records), meta  # `_check` saw each


def _check(record: object, kind: str, known: set[str], where: str) -> None:
    """VwsdError where a record has no id and first text, has an id that is known, or another type
    of text.
    """
    first, *_ = KEYS[kind]
    texts = record if isinstance(record, dict) else {}
    if not isinstance(texts.get("id"), str) or not isinstance(texts.get(first), str):
        raise VwsdError(
            f"no object with id and {first}, both texts",
            where=where,
            remedy='Write as {"id": "en.own.0", "' + first + '": "..."}.',
        )
    if texts["id"] in known:
        raise VwsdError(
            f"the id {texts['id']!r} stands twice", where=where, remedy="Keep one line an item."
        )
    if any(not isinstance(texts[name], str) for name in KEYS[kind] if name in texts):
        raise VwsdError(
            f"{' and '.join(KEYS[kind])} must be texts",
            where=where,
            remedy="Put them in quotation marks.",
        )


def _parsed(line: str, where: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as e:
        raise VwsdError(
            f"no line of JSON: {e}",
            where=where,
            remedy="Write an object a line, or give a plain text file that does not end in .jsonl.",
        ) from None


def definitions_of(path: str | Path, data: VwsdSet) -> dict[str, str]:
    """Item id -> definition of a file (`read_texts`), after `guard`: where the gold senses' glosses
    are known, none may be repeated.
    """
    by_id, meta = read_texts(path, data.items, "definitions")
    texts = {item_id: each["definition"] for item_id, each in by_id.items()}
    if meta.get("kind") != "chosen":  # a chosen gloss that is the gold's is a right choice
        definitions = Definitions(tuple(texts), tuple(texts.values()), meta, "generated")
        guard(definitions, gold_glosses(data))
    return texts


def translations_of(path: str | Path, items: Sequence[Item]) -> dict[str, dict[str, str]]:
    """Item id -> its translation, `phrase_en` and perhaps `target_en` (`read_texts`); VwsdError for
    an empty phrase.
    """
    by_id, _ = read_texts(path, items, "translations")
    empty = [item_id for item_id, each in by_id.items() if not each["phrase_en"].strip()]
    if empty:
        raise VwsdError(
            f"{len(empty)} of {len(items)} translations are empty, that of {empty[0]!r} the first",
            where=path,
            remedy="Translate each phrase.",
        )
    return by_id
