"""Records: one question of word sense disambiguation with the glosses and pictures of its candidate
senses. What PolCLIP is trained on and tested with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vwsdlib.data.wsd import WsdItem
from vwsdlib.errors import VwsdError
from vwsdlib.paths import atomic, refuse_special

NEEDED = {
    "id": str,
    "language": str,
    "words": list,
    "span": list,
    "candidates": list,
    "golds": list,
}
OPTIONAL = {"pos": str, "set": str, "definition": str}
CANDIDATE = {"id": str, "gloss": str, "pictures": list}
LONGEST_LINE = 64 << 20  # characters; a record has some thousands
REWRITE = "Write the line as write_records does."


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sense that the target may have: its id, its gloss, names of its pictures (files; none
    where there is no picture).
    """

    id: str
    gloss: str
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """One question: in which sense are the words `span[0]` to `span[1]` (both included) used?

    `golds` holds the ids of the right candidates, none where the answer is not known; `definition`
    is text about the target from elsewhere (never the gold gloss), empty by default.
    """

    id: str
    language: str
    words: tuple[str, ...]
    span: tuple[int, int]
    candidates: tuple[Candidate, ...]
    golds: tuple[str, ...]
    pos: str = ""
    set: str = ""
    definition: str = ""

    @property
    def target(self) -> str:
        """The target as it stands in the context."""
        return " ".join(self.words[self.span[0] : self.span[1] + 1])

    @property
    def sentence(self) -> str:
        """The words with a space between them."""
        return " ".join(self.words)


def from_wsd(
    items: Iterable[WsdItem], pictures: Mapping[str, Sequence[str]] = {}
) -> Iterator[Record]:
    """Records of textual WSD items, one by one; glosses are the items' own (empty where they have
    none).

    pictures: sense id -> picture files. Golds that are no candidates are left out; VwsdError where
    an item has no other gold.
    """
    for item in items:
        golds = tuple(gold for gold in item.golds if gold in item.candidates)
        if item.golds and not golds:
            raise VwsdError(
                "none of the golds is among the candidates",
                where=item.id,
                remedy="Leave out what data.wsd.unanswerable lists.",
            )
        glosses = item.glosses or ("",) * len(item.candidates)
        candidates = tuple(
            Candidate(sense, gloss, tuple(pictures.get(sense, ())))
            for sense, gloss in zip(item.candidates, glosses, strict=True)
        )
        yield checked(
            Record(
                item.id,
                item.language,
                item.tokens,
                item.span,
                candidates,
                golds,
                item.pos,
                item.set,
            ),
            item.id,
        )


def checked(record: Record, where: object) -> Record:
    """The record itself; VwsdError, naming `where`, for a span outside the words, a candidate that
    stands twice, a gold that is no candidate.
    """
    (first, last), ids = record.span, [c.id for c in record.candidates]
    if not 0 <= first <= last < len(record.words):
        raise VwsdError(
            f"the span {record.span} lies outside the {len(record.words)} words",
            where,
            "Both ends count, from 0.",
        )
    if len(set(ids)) < len(ids):
        raise VwsdError(
            f"{next(i for i in ids if ids.count(i) > 1)!r} stands twice among the candidates",
            where,
            "Each sense stands there once.",
        )
    if strange := [gold for gold in record.golds if gold not in ids]:
        raise VwsdError(
            f"the gold {strange[0]!r} is not among the candidates",
            where,
            f"Candidates: {', '.join(ids[:8])}.",
        )
    return record


def as_item(record: Record) -> WsdItem:
    """A record for those who know words alone; the target stands for its lemma."""
    ids, glosses = tuple(c.id for c in record.candidates), tuple(c.gloss for c in record.candidates)
    return WsdItem(
        record.id,
        record.language,
        record.target.lower(),
        record.pos,
        record.words,
        record.span,
        ids,
        glosses,
        record.golds,
        record.set,
    )


def to_json(record: Record, pictures: Mapping[str, str] = {}) -> dict:
    """A record as one line of JSON holds it; pictures: file -> name to write instead."""
    candidates = [
        {"id": c.id, "gloss": c.gloss, "pictures": [pictures.get(p, p) for p in c.pictures]}
        for c in record.candidates
    ]
    return {
        "id": record.id,
        "language": record.language,
        "words": list(record.words),
        "span": list(record.span),
        "candidates": candidates,
        "golds": list(record.golds),
        "pos": record.pos,
        "set": record.set,
        "definition": record.definition,
    }


def from_json(line: str, where: object, folder: str | Path = "") -> Record:
    """The record in a line of JSON; picture names that are relative are taken from `folder`.
    VwsdError names `where` and what is wrong there.
    """
    try:
        r = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise VwsdError(
            f"not JSON: {e}" if line.endswith("\n") else "the last line is cut off",
            where,
            "Write the file again.",
        ) from None
    _typed(r, NEEDED, OPTIONAL, where)
    for c in r["candidates"]:
        _typed(c, CANDIDATE, {}, where)
    pictures = [p for c in r["candidates"] for p in c["pictures"]]
    texts = [*r["words"], *r["golds"], *pictures]
    if not all(type(t) is str for t in texts) or [type(n) for n in r["span"]] != [int, int]:
        raise VwsdError(
            "a wrong type: words, golds and pictures are text, span is two whole numbers",
            where,
            REWRITE,
        )
    if any("\0" in picture for picture in pictures) or not _can_be_written(line):
        raise VwsdError(
            "a text holds half a character, or the name of a picture a zero", where, REWRITE
        )
    candidates = tuple(
        Candidate(c["id"], c["gloss"], tuple(os.path.join(folder, p) for p in c["pictures"]))
        for c in r["candidates"]
    )
    more = {name: r[name] for name in OPTIONAL if name in r}
    return checked(
        Record(
            r["id"],
            r["language"],
            tuple(r["words"]),
            tuple(r["span"]),
            candidates,
            tuple(r["golds"]),
            **more,
        ),
        where,
    )


def _can_be_written(line: str) -> bool:
    """Does a line spell no half of a surrogate pair? Such a text can be read, and neither printed
    nor stored.
    """
    if "\\ud" not in line.lower():
        return True
    try:
        json.dumps(json.loads(line), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _typed(
    value: object, needed: Mapping[str, type], optional: Mapping[str, type], where: object
) -> None:
    if (
        not isinstance(value, dict)
        or not needed.keys() <= value.keys() <= needed.keys() | optional.keys()
    ):
        names = f"{', '.join(needed)}{' and perhaps ' if optional else ''}{', '.join(optional)}"
        raise VwsdError(f"not the fields of a record: {names} expected", where, REWRITE)
    for name, kind in {**needed, **optional}.items():
        if name in value and type(value[name]) is not kind:
            raise VwsdError(
                f"{name} has a wrong type: {type(value[name]).__name__}, {kind.__name__} expected",
                where,
                REWRITE,
            )


def read_records(path: str | Path) -> Iterator[Record]:
    """Records of a JSONL file, one by one; relative picture names are taken from the file's folder.

    Raises VwsdError, naming file and line, for what `checked` names, a wrong type or field, and a
    last line that is cut off.
    """
    path = Path(path)
    refuse_special(path)
    try:
        with open(path, encoding="utf-8") as f:
            number = 0
            while line := f.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE:
                    raise VwsdError(
                        f"a line of more than {LONGEST_LINE >> 20} million characters",
                        f"{path}:{number}",
                        REWRITE,
                    )
                yield from_json(line, f"{path}:{number}", path.parent)
    except (OSError, UnicodeDecodeError) as e:
        raise VwsdError(
            f"the records cannot be read: {e}",
            path,
            "Check the path; records are UTF-8 text, one a line.",
        ) from None


def write_records(path: str | Path, records: Iterable[Record]) -> int:
    """Write records as JSONL, one by one and atomically; returns how many.

    Pictures below the file's folder are named relative to it, so that the folder can move; other
    names stay as they are.
    """
    folder, count = os.path.join(Path(path).absolute().parent, ""), 0
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as f:
        for count, record in enumerate(records, start=1):
            pictures = {p for c in checked(record, record.id).candidates for p in c.pictures}
            inside = {
                p: p.removeprefix(folder).replace(os.sep, "/")
                for p in pictures
                if p.startswith(folder)
            }
            f.write(json.dumps(to_json(record, inside), ensure_ascii=False) + "\n")
    return count
