"""Items of visual word sense disambiguation, read from and written to the official SemEval-2023 Task 1 layout.

A data file holds a line an item: target TAB phrase TAB ten image names. A gold file holds the right name a line, in the same
order. The files in circulation carry traps (Windows line ends, invisible characters, names that differ in case only, gold
files a line short); each is either read through or stopped with a sentence that names file, line and remedy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import VwsdError
from ..paths import sha256_bytes, write_text
from .letters import normalise  # noqa: F401  (its users know it as of this module)
from .sources import picture_names, pictures_at

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


OFFICIAL_NAME = re.compile(r"(?:(en|it|fa)\.test|train|trial)\.(?:data|gold)(?:\.v[\d.]+)?\.txt", re.I)
# en, it and fa are the project's own; with the others, the languages that the lite encoder's multilingual twin reads.
KNOWN_LANGUAGES = frozenset("en it fa ar de es fr ja ko nl pl pt ru th tr zh".split())
LANGUAGE_WORDS = {"english": "en", "italian": "it", "farsi": "fa", "persian": "fa", "german": "de", "french": "fr", "spanish": "es"}


def language_of(data_path: str | Path) -> str:
    """Language of a data file by its name; English where the name says none. `language_for` also says which of the two it was."""
    return language_for(data_path)[0]


def language_for(data_path: str | Path, given: str | None = None) -> tuple[str, str]:
    """Language code of a data file, and how it is known: "given", "named", "stated" or "assumed".

    given: what the user said, which wins. Else the name counts where it is an official one (train and trial are English) or begins
    with a language of KNOWN_LANGUAGES and a dot, in either case (`it.mine.data.txt`, `IT.mine.data.txt`); else what a JSON file says
    itself; else English is assumed. Raises VwsdError for a `given` that is no language code.
    """
    if given is not None:
        return language_code(given), "given"
    name = Path(data_path).name
    if OFFICIAL_NAME.fullmatch(name):
        return (OFFICIAL_NAME.fullmatch(name)[1] or "en").lower(), "named"
    first, dot, _ = name.partition(".")
    if dot and first.lower() in KNOWN_LANGUAGES:
        return first.lower(), "named"
    return "en", "assumed"


def language_code(text: str) -> str:
    """The code of a language as people write it: `it`, `IT`, `Italian`; VwsdError for what is neither a code nor a known word."""
    word = text.strip().lower()
    word = LANGUAGE_WORDS.get(word, word)
    if not re.fullmatch(r"[a-z]{2,3}", word):
        raise VwsdError(f"{text!r} is no language code", where="--language", remedy="Give two letters, as en, it or fa.")
    return word


def language_note(data_path: str | Path, given: str | None = None) -> str:
    """A sentence for the user where the language of a file is only assumed, else ""."""
    language, how = language_for(data_path, given)
    if how != "assumed":
        return ""
    return f"language of {Path(data_path).name} taken as English ({language}); name it with --language"


def read_items(data: str | Path, gold: str | Path | None = None, language: str | None = None) -> list[Item]:
    """Items of an official data file, with their gold where a gold file is given.

    Ids are `<set name>.<0-based line>`. Raises VwsdError, naming file and line, on a line without twelve fields, an empty
    field, a name that stands twice among the candidates, and a gold file that is short, long, shifted or of another set.
    """
    name, language = set_name(data), language_for(data, language)[0]
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


def missing_pictures(items: Iterable[Item], images: str | Path) -> dict[str, list[str]]:
    """Item id -> the candidates whose file is not at `images` (`sources.pictures_at`); names are compared with their case."""
    present = picture_names(pictures_at(images))
    missing = {item.id: [c for c in item.candidates if c not in present] for item in items}
    return {key: names for key, names in missing.items() if names}
