"""Records: one question of word sense disambiguation with the glosses and pictures of its candidate
senses. What PolCLIP is trained on and tested with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import ConfigDict

from vwsdlib.data.wsd import WsdItem
from vwsdlib.errors import VwsdError
from vwsdlib.paths import atomic, refuse_special, sha256_bytes
from vwsdlib.schema import parse

LONGEST_LINE = 64 << 20  # characters; a record has some thousands
REWRITE = "Write the line as save_records does."
# of a line of JSON: these fields, of these types; no text is remembered
FORM = ConfigDict(strict=True, extra="forbid", cache_strings="none")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sense that the target may have: its id, its gloss, names of its pictures (files; none
    where there is no picture).
    """

    __pydantic_config__ = FORM
    id: str
    gloss: str
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """One question: in which sense are the words `span[0]` to `span[1]` (both included) used?

    `golds` holds the ids of the right candidates, none where the answer is not known; `definition`
    is text about the target from elsewhere (never the gold gloss), empty by default.
    """

    __pydantic_config__ = FORM
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
                item.id,
                "Leave out what data.wsd.unanswerable lists.",
            )
        candidates = []
        glosses = item.glosses or ("",) * len(item.candidates)
        for sense, gloss in zip(item.candidates, glosses, strict=True):
            candidates.append(Candidate(sense, gloss, tuple(pictures.get(sense, ()))))
        about = (item.id, item.language, item.tokens, item.span)
        yield sound(Record(*about, tuple(candidates), golds, item.pos, item.set), item.id)


def sound(record: Record, where: object) -> Record:
    """The record itself; VwsdError, naming `where`, for a span outside the words, a candidate that
    stands twice, a gold that is no candidate, a zero in a picture's name.
    """
    (first, last), ids = record.span, [c.id for c in record.candidates]
    if not 0 <= first <= last < len(record.words):
        what = f"the span {record.span} lies outside the {len(record.words)} words"
        raise VwsdError(what, where, "Both ends count, from 0.")
    for i, own in enumerate(ids):
        if own in ids[:i]:
            what = f"{own!r} stands twice among the candidates"
            raise VwsdError(what, where, "Each sense stands there once.")
    for gold in record.golds:
        if gold not in ids:
            what = f"the gold {gold!r} is not among the candidates"
            raise VwsdError(what, where, f"Candidates: {', '.join(ids[:8])}.")
    if any("\0" in "".join(c.pictures) for c in record.candidates):
        raise VwsdError("the name of a picture holds a zero", where, REWRITE)
    return record


def as_item(record: Record) -> WsdItem:
    """A record for those who know words alone; the target stands for its lemma."""
    ids = tuple(c.id for c in record.candidates)
    glosses = tuple(c.gloss for c in record.candidates)
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


def renamed(record: Record, name: Callable[[str], str]) -> Record:
    """The record with other names for its pictures: name(old) -> new."""
    candidates = []
    for candidate in record.candidates:
        candidates.append(replace(candidate, pictures=tuple(map(name, candidate.pictures))))
    return replace(record, candidates=tuple(candidates))


def to_json(record: Record) -> str:
    """A record as one line of JSON, without the line's end."""
    return json.dumps(asdict(record), ensure_ascii=False)


def from_json(line: str, where: object) -> Record:
    """The record in a line of JSON. VwsdError names `where` and what is wrong there."""
    return sound(parse(line.encode(), Record, where, "record", REWRITE), where)


def load_records(path: str | Path) -> Iterator[Record]:
    """Records of a JSONL file, one by one; relative picture names are taken from the file's folder.

    Raises VwsdError, naming file and line, for what `sound` names, a wrong type or field, and a
    last line that is cut off.
    """
    path, number = Path(path), 0
    refuse_special(path)
    try:
        with open(path, encoding="utf-8") as f:
            while line := f.readline(LONGEST_LINE):
                number += 1
                where = f"{path}:{number}"
                if len(line) == LONGEST_LINE:
                    what = f"a line of more than {LONGEST_LINE >> 20} million characters"
                    raise VwsdError(what, where, REWRITE)
                if _cut_off(line):
                    raise VwsdError("the last line is cut off", where, "Write the file again.")
                yield renamed(from_json(line, where), lambda name: os.path.join(path.parent, name))
    except (OSError, UnicodeError) as e:
        remedy = "Check the path; records are UTF-8 text, one a line."
        raise VwsdError(f"the records cannot be read: {e}", path, remedy) from None


def _cut_off(line: str) -> bool:
    """Did a kill end the file within its last line?"""
    if line.endswith("\n"):
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def save_records(path: str | Path, records: Iterable[Record]) -> int:
    """Write records as JSONL, one by one and atomically; returns how many.

    Pictures below the file's folder are named relative to it, so that the folder can move; other
    names stay as they are.
    """
    folder, count = os.path.join(Path(path).absolute().parent, ""), 0

    def name(picture: str) -> str:
        if picture.startswith(folder):
            return picture.removeprefix(folder).replace(os.sep, "/")
        return picture

    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as f:
        for count, record in enumerate(records, start=1):
            f.write(to_json(renamed(sound(record, record.id), name)) + "\n")
    return count


def records_sha256(records: Iterable[Record]) -> str:
    """Hash of records: words, candidates, glosses, golds and names of pictures without their
    folders.
    """
    lines = []
    for r in records:
        senses = []
        for c in r.candidates:
            senses.append((c.id, c.gloss, [Path(p).name for p in c.pictures]))
        lines.append(repr((r.id, r.words, r.span, r.golds, senses)))
    return sha256_bytes("\n".join(lines).encode())
