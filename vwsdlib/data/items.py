"""Items of visual word sense disambiguation, read from and written to the official SemEval-2023 Task 1 layout.

A data file holds a line an item: target TAB phrase TAB ten image names. A gold file holds the right name a line, in the same
order. The files in circulation carry traps (Windows line ends, invisible characters, names that differ in case only, gold
files a line short); each is either read through or stopped with a sentence that names file, line and remedy.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import VwsdError
from ..paths import sha256_bytes, write_text
from .sources import Pictures, pictures_at

CANDIDATES = 10
REFETCH = "Take the files again as they were published, data and gold of the same version."


@dataclass(frozen=True)
class Item:
    """One question: which of the ten `candidates` (image names) shows what `target` means in `phrase`?

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
        if self.gold is None:
            raise VwsdError("the item has no gold", where=self.id, remedy="Give the gold file that belongs to the data file.")
        return self.candidates.index(self.gold)


def normalise(text: str) -> str:
    """Text for comparing, never for scoring: NFC, invisible (Cf) characters out, spaces folded, case folded.

    The zero-width non-joiner goes too, as it is often left out in Farsi.
    """
    visible = "".join(c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c) != "Cf")
    return " ".join(visible.split()).casefold()


def read_lines(path: str | Path) -> list[str]:
    """Lines of a UTF-8 file without line ends (LF or CRLF), BOM and trailing blank lines.

    Splits at LF alone: U+2028 and its like may stand inside a phrase. Raises VwsdError for no file, a folder, or bytes that are not UTF-8.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise VwsdError("no such file", where=path, remedy=_nearby(path)) from None
    except IsADirectoryError:
        raise VwsdError("this is a folder, a text file is needed", where=path, remedy="Name a file in it.") from None
    except UnicodeDecodeError as e:
        line = path.read_bytes()[: e.start].count(b"\n") + 1
        raise VwsdError("not UTF-8 text", where=f"{path}:{line}", remedy=REFETCH) from None
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _nearby(path: Path) -> str:
    others = sorted(p.name for p in path.parent.glob("*.txt")) if path.parent.is_dir() else []
    return f"In that folder are: {', '.join(others[:6])}." if others else "Check the path."


def set_name(data_path: str | Path) -> str:
    """Name of a set from its data file: `en.test.data.v1.1.txt` -> `en.test`, `trial.data.txt` -> `trial`."""
    name = Path(data_path).name
    return re.sub(r"\.data\b.*$", "", name) or name


def language_of(data_path: str | Path) -> str:
    """Language code from a file name such as `fa.test.data.txt`; English where there is none (train, trial)."""
    found = re.match(r"([a-z]{2})\.", Path(data_path).name)
    return found.group(1) if found else "en"


def read_items(data: str | Path, gold: str | Path | None = None, language: str | None = None) -> list[Item]:
    """Items of an official data file, with their gold where a gold file is given.

    Ids are `<set name>.<0-based line>`. Raises VwsdError, naming file and line, on a line without twelve fields, an empty
    field, a name that stands twice among the candidates, and a gold file that is short, long, shifted or of another set.
    """
    name, language = set_name(data), language or language_of(data)
    lines = read_lines(data)
    if not lines:
        raise VwsdError("the data file is empty", where=data, remedy=REFETCH)
    golds: Sequence[str | None] = [None] * len(lines) if gold is None else [line.strip() for line in read_lines(gold)]
    if len(golds) != len(lines):
        raise VwsdError(f"{len(golds)} gold lines for {len(lines)} items", where=gold, remedy=REFETCH)
    items = [_parse(line, f"{data}:{i + 1}", f"{name}.{i}", language) for i, line in enumerate(lines)]
    if gold is None:
        return items
    _check_gold(items, golds, gold)
    return [Item(it.id, it.language, it.target, it.phrase, it.candidates, g) for it, g in zip(items, golds)]


def _parse(line: str, where: str, item_id: str, language: str) -> Item:
    fields = line.split("\t")
    if len(fields) != 2 + CANDIDATES:
        raise VwsdError(f"{len(fields)} tab-separated fields, {2 + CANDIDATES} expected (target, phrase, ten image names)",
                        where=where, remedy=REFETCH)
    target, phrase, *names = fields
    names = [n.strip() for n in names]
    if not target.strip() or not phrase.strip() or not all(names):
        raise VwsdError("an empty field", where=where, remedy=REFETCH)
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise VwsdError(f"{twice[0]} stands twice among the candidates", where=where, remedy=REFETCH)
    return Item(item_id, language, target, phrase, tuple(names))


def _check_gold(items: Sequence[Item], golds: Sequence[str], path: str | Path) -> None:
    wrong = [i for i, (item, g) in enumerate(zip(items, golds)) if g not in item.candidates]
    if not wrong:
        return
    first, item, g = wrong[0], items[wrong[0]], golds[wrong[0]]
    same = [c for c in item.candidates if c.casefold() == g.casefold()]
    what = f"the gold {g!r} is not among the candidates of {item.phrase!r}"
    if same:
        remedy = f"The candidate is spelled {same[0]!r}: names keep their case."
    elif 2 * len(wrong) > len(items) - first and (shift := _shift(items, golds, first)):
        remedy = f"From here on the gold file is shifted by {shift:+d} line{'s' if abs(shift) > 1 else ''} against the data file. {REFETCH}"
    else:
        remedy = f"{len(wrong)} of {len(items)} lines disagree. {REFETCH}"
    raise VwsdError(what, where=f"{path}:{first + 1}", remedy=remedy)


def _shift(items: Sequence[Item], golds: Sequence[str], start: int) -> int:
    """By how many lines the gold is off from `start` on (at most 3 either way), 0 where no shift explains it."""
    for shift in (1, -1, 2, -2, 3, -3):
        pairs = [(items[i], golds[i - shift]) for i in range(start, len(items)) if 0 <= i - shift < len(golds)]
        if len(pairs) >= 2 and sum(g in it.candidates for it, g in pairs) > 0.9 * len(pairs):
            return -shift
    return 0


def write_items(items: Iterable[Item], data: str | Path, gold: str | Path) -> None:
    """Write items and their gold in the official layout (UTF-8, LF, no header)."""
    items = list(items)
    write_text(data, "".join("\t".join((i.target, i.phrase, *i.candidates)) + "\n" for i in items))
    write_text(gold, "".join(f"{i.gold}\n" for i in items))


def items_sha256(items: Iterable[Item]) -> str:
    """Hash of everything that a score can depend on: ids, text, candidates, gold."""
    return sha256_bytes("".join(repr((i.id, i.target, i.phrase, i.candidates, i.gold)) for i in items).encode())


def image_names(items: Iterable[Item]) -> list[str]:
    """Distinct image names in order of first use."""
    return list(dict.fromkeys(name for item in items for name in item.candidates))


def missing_pictures(items: Iterable[Item], images: str | Path | Pictures) -> dict[str, list[str]]:
    """Item id -> the candidates that are nowhere at `images` (`sources.pictures_at`, whose rule decides).

    VwsdError where a name stands for different pictures.
    """
    at = pictures_at(images)
    missing = {item.id: [name for name in item.candidates if at.find(name) is None] for item in items}
    return {item_id: names for item_id, names in missing.items() if names}
