"""Items of visual word sense disambiguation, read from and written to the official SemEval-2023
Task 1 layout.

A data file holds a line an item: target TAB phrase TAB ten image names. A gold file holds the
right name a line, in the same order. The files in circulation carry traps (Windows line ends,
invisible characters, names that differ in case only, gold files a line short); each is either read
through or stopped with a sentence that names file, line and a remedy that fits it.
"""

from __future__ import annotations

import json
import re
import unicodedata
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from ..errors import VwsdError
from ..paths import sha256_bytes, write_text
from .languages import NAMES, language_code
from .letters import normalise  # noqa: F401  (users know it, read_lines and REFETCH from here)
from .sources import Pictures, pictures_at
from .textfile import (  # noqa: F401
    MOST_TABLE,
    OFFICIAL_NAME,
    REFETCH,
    blank_lines,
    parse_json,
    read_lines,
    read_text,
    remedy_for,
    split_lines,
)

CANDIDATES = 10
FIELDS = 2 + CANDIDATES
# what people call the parts of an item, in headers and as keys
TARGET_WORDS = frozenset("target word ambiguous_word lemma".split())
PHRASE_WORDS = frozenset("phrase context text sentence full_phrase limited_context".split())
CANDIDATE_WORDS = frozenset("candidates candidate images image_names".split())
GOLD_WORDS = frozenset("gold label answer gold_image gold_label correct_image".split())
NUMBERED_COLUMN = re.compile(r"(?:image|img|candidate|cand|picture|option|name)[ _.-]?\d+")

# endings that a gold may lack; what a file holds is told by its bytes, never by these
NAME_ENDINGS = frozenset(
    ".jpg .jpeg .jpe .jfif .pjpeg .png .gif .webp .avif .bmp .tif .tiff .ppm".split()
)


@dataclass(frozen=True)
class Item:
    """One question: which of the ten `candidates` (image names) shows what `target` means in
    `phrase`?

    Text is kept exactly as it stands in the file; `gold` is None where the answer is not known.
    """

    id: str
    language: str
    target: str
    phrase: str
    candidates: tuple[str, ...]
    gold: str | None = None

    @property
    def gold_index(self) -> int:
        """Position of the gold among the candidates, 0 to 9; VwsdError where there is no gold."""
        return self.candidates.index(self.known_gold)

    @property
    def known_gold(self) -> str:
        """The gold; VwsdError where there is none."""
        if self.gold is None:
            raise VwsdError(
                "the item has no gold", self.id, "Give the gold file that belongs to the data file."
            )
        return self.gold


def set_name(data_path: str | Path) -> str:
    """Name of a set from its data file: `en.test.data.v1.1.txt` -> `en.test`, `trial.data.txt` ->
    `trial`.
    """
    name = Path(data_path).name
    return re.sub(r"\.data\b.*$", "", name) or name


def language_for(data_path: str | Path, given: str | None = None) -> tuple[str, str]:
    """Language code of a data file, and how it is known: "given", "named", "stated" or "assumed".

    given: what the user said, which wins. Else the name counts where it is an official one (train
    and trial are English) or begins with a known language (`languages.NAMES`) and a dot, in either
    case (`it.mine.data.txt`, `IT.mine.data.txt`); else what a JSON file says itself; else English
    is assumed. Raises VwsdError for a `given` that is no language code.
    """
    if given is not None:
        return language_code(given), "given"
    name = Path(data_path).name
    if OFFICIAL_NAME.fullmatch(name):
        return (OFFICIAL_NAME.fullmatch(name)[1] or "en").lower(), "named"
    first, dot, _ = name.partition(".")
    if dot and first.lower() in NAMES:
        return first.lower(), "named"
    stated = _stated_language(data_path)
    return (stated, "stated") if stated else ("en", "assumed")


def _stated_language(path: str | Path) -> str:
    """The one language that all objects of a JSON file name; "" where the file is no such file or
    they name none or several.
    """
    if Path(path).suffix.lower() != ".json":
        return ""
    rows = parse_json(read_text(path, MOST_TABLE), path)
    objects = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    stated = {_first_of(row, ("language", "lang")) for row in objects}
    only = stated.pop() if len(stated) == 1 else None
    return language_code(only) if isinstance(only, str) else ""


def language_note(data_path: str | Path, given: str | None = None) -> str:
    """A sentence for the user where the language of a file is only assumed, else ""."""
    how = language_for(data_path, given)[1]
    if how != "assumed":
        return ""
    return f"language of {Path(data_path).name} taken as English; name it with --language"


def read_items(
    data: str | Path, gold: str | Path | None = None, language: str | None = None
) -> list[Item]:
    """Items of an official data file, or of a JSON list of objects, with their gold where a gold
    file is given.

    Ids are `<set name>.<0-based line>`. Raises VwsdError, naming file and line, on a header, a
    line without twelve fields, an empty field, a name that stands twice among the candidates, and
    a gold file that is short, long, shifted or of another set. A gold that differs from its
    candidate in nothing but the suffix is read, with a warning that counts them.
    """
    language = language_for(data, language)[0]
    text = read_text(data, MOST_TABLE)
    if looks_like_json(text):
        items, labels = _items_of_json(text, data, language)
    else:
        items, labels = _items_of_lines(split_lines(text), data, language), None
    if gold is None:
        return items
    golds = _checked_golds(items, _gold_names(gold), gold)
    if labels is not None:
        _check_labels(items, labels, golds, data)
    return [replace(item, gold=name) for item, name in zip(items, golds)]


def _items_of_lines(lines: Sequence[str], data: str | Path, language: str) -> list[Item]:
    if not lines:
        raise VwsdError(
            "the data file is empty", data, remedy_for(data, "Give the file with the items.")
        )
    _no_blank_line(lines, data)
    rows = [line.split("\t") for line in lines]
    rows = [row[:-1] if len(row) == FIELDS + 1 and not row[-1].strip() else row for row in rows]
    if _is_header(rows[0]):
        raise VwsdError(
            "the first line is a header, the layout has none", f"{data}:1", "Remove that line."
        )
    _check_counts(rows, data)
    name = set_name(data)
    return [
        _parse(row, f"{data}:{i + 1}", f"{name}.{i}", language, data) for i, row in enumerate(rows)
    ]


def _no_blank_line(lines: Sequence[str], path: str | Path) -> None:
    blank = blank_lines(lines)
    if blank:
        what = "an empty line" if len(blank) == 1 else f"{len(blank)} empty lines, the first here"
        remedy = remedy_for(path, "Remove it, or put back what belongs there.")
        raise VwsdError(what, f"{path}:{blank[0]}", remedy)


def _is_header(row: Sequence[str]) -> bool:
    """Names of columns: a word for the target and one for the phrase, or ten numbered words that
    are no file names.
    """
    words = [cell.strip().strip('"').casefold() for cell in row]
    numbered = sum(NUMBERED_COLUMN.fullmatch(word) is not None for word in words)
    if TARGET_WORDS.intersection(words) and PHRASE_WORDS.intersection(words):
        if len(words) < FIELDS or numbered >= CANDIDATES:
            return True
    return numbered > 3 and len(words) - numbered <= 3


def _check_counts(rows: Sequence[Sequence[str]], data: str | Path) -> None:
    """Each line has twelve fields; what it has instead decides the remedy."""
    wrong = [i for i, row in enumerate(rows) if len(row) != FIELDS]
    if not wrong:
        return
    first = rows[wrong[0]]
    if len(first) == 1 and first[0].count(",") >= CANDIDATES:
        otherwise = "The line is separated by commas: write it with tabs."
    elif len(first) == 1 and len(first[0].split()) >= FIELDS:
        otherwise = "The line is separated by spaces: write it with tabs."
    elif len(set(map(len, rows))) == 1 and len(first) > 3:
        otherwise = (
            f"Every line has {len(first) - 2} candidates; sets of exactly ten are supported."
        )
    else:
        otherwise = (
            f"{len(wrong)} of {len(rows)} lines are so: each holds a target, a phrase "
            "and exactly ten candidates, with tabs between."
        )
    what = f"{len(first)} tab-separated fields, {FIELDS} expected (target, phrase, ten image names)"
    raise VwsdError(what, f"{data}:{wrong[0] + 1}", remedy_for(data, otherwise))


def _parse(
    fields: Sequence[str], where: str, item_id: str, language: str, data: str | Path
) -> Item:
    target, phrase, *names = fields
    names = [n.strip() for n in names]
    if not target.strip() or not phrase.strip() or not all(names):
        remedy = remedy_for(data, "Fill it in: target, phrase and ten image names.")
        raise VwsdError("an empty field", where, remedy)
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        remedy = remedy_for(data, "Ten different pictures are needed.")
        raise VwsdError(f"{twice[0]} stands twice among the candidates", where, remedy)
    return Item(item_id, language, target, phrase, tuple(names))


def looks_like_json(text: str) -> bool:
    """Does a file's text begin as a JSON list of names or of objects does? A first line with tabs
    between its fields does not.
    """
    start = text[:10_000].strip()
    line = start.partition("\n")[0]
    return bool(re.match(r"[\[{]\s*[\[{\"\]}]", start)) and line.count("\t") < FIELDS - 1


JSON_LAYOUT = (
    "JSON data are a list of objects with the keys target (or word), phrase (or text, context), "
    "candidates (or images: a list of ten names), and label (or gold) if known."
)


def _items_of_json(
    text: str, data: str | Path, language: str
) -> tuple[list[Item], list[str] | None]:
    """Items of a JSON list of objects, and the golds that it names itself (None where it names
    none).
    """
    rows = parse_json(text, data)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise VwsdError("the file is JSON, but no list of items", data, JSON_LAYOUT)
    name, items = set_name(data), []
    for i, row in enumerate(rows):
        items.append(_item_of_json(row, f"{data}: item {i}", f"{name}.{i}", language, data))
    ids = [json.dumps(row["id"]) for row in rows if "id" in row]
    if len(set(ids)) < len(ids):
        raise VwsdError("an id stands twice", data, "Give each item an id of its own, or none.")
    labels = [_first_of(row, GOLD_WORDS) for row in rows]
    if labels.count(None) == len(labels):
        return items, None
    if not all(isinstance(label, str) for label in labels):
        raise VwsdError("some labels are missing or no name of an image", data, JSON_LAYOUT)
    return items, labels


def _item_of_json(row: dict, where: str, item_id: str, language: str, data: str | Path) -> Item:
    target, phrase = _first_of(row, TARGET_WORDS), _first_of(row, PHRASE_WORDS)
    names = _first_of(row, CANDIDATE_WORDS)
    fields = [target, phrase, *names] if isinstance(names, list) else [None]
    if not all(isinstance(field, str) for field in fields):
        raise VwsdError("an item without target, phrase or candidates", where, JSON_LAYOUT)
    if len(names) != CANDIDATES:
        what = f"{len(names)} candidates, {CANDIDATES} expected"
        raise VwsdError(what, where, "Sets of exactly ten are supported.")
    _one_line_each(fields, where)
    return _parse(fields, where, item_id, language, data)


def _one_line_each(fields: Sequence[str], where: str) -> None:
    """VwsdError for a field that a line of the layout cannot hold."""
    if any(re.search(r"[\t\r\n]", field) for field in fields):
        raise VwsdError("a tab or a line break inside a text", where, "Write a space in its place.")


def _first_of(row: dict, words: Collection[str]) -> Any:
    """The value of the first of a row's keys that is one of `words`; None where there is none."""
    return next((value for key, value in row.items() if key.strip().casefold() in words), None)


def _gold_names(path: str | Path) -> list[str]:
    """Names of a gold file, a line an item, or of a JSON list of names or of objects with a
    label."""
    text = read_text(path, MOST_TABLE)
    if not looks_like_json(text):
        lines = split_lines(text)
        _no_blank_line(lines, path)
        return [line.strip() for line in lines]
    rows = parse_json(text, path)
    if isinstance(rows, list):
        names = [_first_of(row, GOLD_WORDS) if isinstance(row, dict) else row for row in rows]
        if all(isinstance(name, str) for name in names):
            return [name.strip() for name in names]
    what = "the gold file is JSON, but neither a list of names nor of objects with a label"
    raise VwsdError(what, path, "Give one image name a line, in the data file's order.")


def _checked_golds(items: Sequence[Item], golds: Sequence[str], path: str | Path) -> list[str]:
    """The candidate that each gold means; VwsdError with what is most likely wrong."""
    first = golds[0] if golds else ""
    if first.strip('"').casefold() in GOLD_WORDS and first not in items[0].candidates:
        what = f"the first line ({first!r}) is a header, the layout has none"
        raise VwsdError(what, f"{path}:1", "Remove that line.")
    pairs = list(zip(items, golds))
    several = [i for i, (item, gold) in enumerate(pairs) if _several(gold, item.candidates)]
    if several:
        raise VwsdError(
            "this set has several golds an item; one is supported",
            f"{path}:{several[0] + 1}",
            f"{len(several)} of {len(golds)} lines are so. Keep one image name a line.",
        )
    if len(golds) != len(items):
        otherwise = (
            "Give data and gold of the same version: one image name for each line of the data, "
            "in their order."
        )
        what = f"{len(golds)} gold lines for {len(items)} items"
        raise VwsdError(what, path, remedy_for(path, otherwise))
    meant = [find_candidate(gold, item.candidates) for item, gold in pairs]
    _check_gold(items, golds, meant, path)
    other = [(gold, name) for gold, name in zip(golds, meant) if gold != name]
    if other:
        warnings.warn(
            f"{Path(path).name}: {len(other)} of {len(golds)} golds are spelled otherwise than "
            f"their candidate ({other[0][0]!r} for {other[0][1]!r}) and were read as it",
            stacklevel=3,
        )
    return cast(list[str], meant)  # `_check_gold` refused a gold that is no candidate


def _several(gold: str, candidates: Sequence[str]) -> bool:
    names = [name for name in re.split(r"[\t,;| ]+", gold) if name]
    return len(names) > 1 and all(find_candidate(name, candidates) for name in names)


def find_candidate(name: str, candidates: Sequence[str]) -> str | None:
    """The candidate that a name means: the same, or, where it is exactly one, the same in quotes,
    composed otherwise, or without suffix.

    Letter case counts. None where there is no such candidate, or more than one.

    >>> find_candidate("0_3", ["0_3.jpg", "0_4.jpg"])
    '0_3.jpg'
    """
    if name in candidates:
        return name
    bare = unicodedata.normalize("NFC", name.strip().strip("\"'"))
    composed = [unicodedata.normalize("NFC", candidate) for candidate in candidates]
    same = [c == bare for c in composed]
    if sum(same) != 1:
        same = [_stem(c) == bare or c == _stem(bare) for c in composed]
    return candidates[same.index(True)] if sum(same) == 1 else None


def _stem(name: str) -> str:
    """A name without the suffix of a picture."""
    stem, _, suffix = name.rpartition(".")
    return stem if f".{suffix}".lower() in NAME_ENDINGS and stem else name


def _check_labels(
    items: Sequence[Item], labels: Sequence[str], golds: Sequence[str], data: str | Path
) -> None:
    for i, (item, label, gold) in enumerate(zip(items, labels, golds)):
        if find_candidate(label, item.candidates) != gold:
            raise VwsdError(
                f"the label is {label!r} and the gold file has {gold!r}",
                f"{data}: item {i}",
                "Give the gold file that belongs to the data.",
            )


def _check_gold(
    items: Sequence[Item], golds: Sequence[str], meant: Sequence[str | None], path: str | Path
) -> None:
    wrong = [i for i, name in enumerate(meant) if name is None]
    if not wrong:
        return
    first, item, gold = wrong[0], items[wrong[0]], golds[wrong[0]]
    same = [c for c in item.candidates if c.casefold() == gold.casefold()]
    stems = [c for c in item.candidates if _stem(c) in (gold, _stem(gold))]
    shift = _shift(items, golds, first) if 2 * len(wrong) > len(items) - first else 0
    again = remedy_for(path, "Give data and gold of the same version.")
    if same:
        remedy = f"The candidate is spelled {same[0]!r}: names keep their case."
    elif len(stems) > 1:
        remedy = f"It could be {stems[0]!r} or {stems[1]!r}: write the whole name."
    elif len(stems) == 1:
        remedy = f"The candidate is {stems[0]!r}: write its suffix."
    elif all(name.isdigit() for name in golds):
        remedy = "The gold file holds numbers; image names are needed."
    elif shift:
        lines = f"{shift:+d} {'lines' if abs(shift) > 1 else 'line'}"
        remedy = f"From here on the gold file is shifted by {lines} against the data file. {again}"
    else:
        remedy = f"{len(wrong)} of {len(items)} lines disagree. {again}"
    what = f"the gold {gold!r} is not among the candidates of {item.phrase!r}"
    raise VwsdError(what, f"{path}:{first + 1}", remedy)


def _shift(items: Sequence[Item], golds: Sequence[str], start: int) -> int:
    """By how many lines the gold is off from `start` on (at most 3 either way), 0 where no shift
    explains it.
    """
    for shift in (1, -1, 2, -2, 3, -3):
        places = range(max(start, shift), min(len(items), len(golds) + shift))
        fitting = sum(golds[i - shift] in items[i].candidates for i in places)
        if len(places) >= 2 and fitting > 0.9 * len(places):
            return -shift
    return 0


def write_items(items: Iterable[Item], data: str | Path, gold: str | Path) -> None:
    """Write items and their gold in the official layout (UTF-8, LF, no header); VwsdError for an
    item that a line cannot hold, or without gold.
    """
    lines, golds = [], []
    for item in items:
        fields = (item.target, item.phrase, *item.candidates)
        _one_line_each(fields, item.id)
        lines.append("\t".join(fields) + "\n")
        golds.append(f"{item.known_gold}\n")
    write_text(data, "".join(lines))
    write_text(gold, "".join(golds))


def items_sha256(items: Iterable[Item]) -> str:
    """Hash of everything that a score can depend on: ids, text, candidates, gold."""
    parts = [repr((i.id, i.target, i.phrase, i.candidates, i.gold)) for i in items]
    return sha256_bytes("".join(parts).encode())


def image_names(items: Iterable[Item]) -> list[str]:
    """Distinct image names in order of first use."""
    return list(dict.fromkeys(slots(items)))


def slots(items: Iterable[Item]) -> Iterator[str]:
    """The image name of each candidate slot, item by item."""
    for item in items:
        yield from item.candidates


def missing_pictures(items: Iterable[Item], images: str | Path | Pictures) -> dict[str, list[str]]:
    """Item id -> the candidates that are nowhere at `images` (`sources.pictures_at`, whose rule
    decides).

    VwsdError where a name stands for different pictures.
    """
    at, missing = pictures_at(images), {}
    for item in items:
        names = [name for name in item.candidates if at.find(name) is None]
        if names:
            missing[item.id] = names
    return missing
