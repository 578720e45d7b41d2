"""Textual word sense disambiguation: items with their candidate senses, read from three layouts, and keys of answers.

- Unified Evaluation Framework (Raganato et al. 2017), SemCor included: `NAME.data.xml` and `NAME.gold.key.txt` with WordNet 3.0 sense keys.
- XL-WSD (Pasini et al. 2021): the same files with BabelNet ids, candidates from an inventory file.
- EmojiWSD: `en.<split>.wsd.jsonl`, tagged sentences written for this project.

A key file holds a line an item: id, then one or more senses, separated by single spaces. A system's answers have the same layout.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

from ..errors import VwsdError
from ..paths import write_text
from .items import REFETCH, read_lines
from .wordnet import WordNet, lemma_form, load_wordnet, pos_letter

SETS = {"senseval2": "SE2", "senseval3": "SE3", "semeval2007": "SE07", "semeval2010": "SE10", "semeval2013": "SE13", "semeval2015": "SE15"}
Inventory = Callable[[str, str], tuple[tuple[str, ...], tuple[str, ...]]]  # (lemma, part of speech) -> (candidates, glosses)


@dataclass(frozen=True, slots=True)
class WsdItem:
    """One question: in which of the `candidates` is the target, tokens `span[0]` to `span[1]` (both included), used in this sentence?

    `glosses` follow the candidates, or are none at all where the inventory has none; any of `golds` is right; there are none without a key.
    Ids are unique in one data file only: the files of single sets all begin with d000.s000.t000.
    """

    id: str
    language: str
    lemma: str
    pos: str
    tokens: tuple[str, ...]
    span: tuple[int, int]
    candidates: tuple[str, ...]
    glosses: tuple[str, ...]
    golds: tuple[str, ...]
    source: str = ""

    @property
    def sentence(self) -> str:
        """The tokens with a space between them."""
        return " ".join(self.tokens)

    @property
    def set(self) -> str:
        """SE2, SE3, SE07, SE10, SE13 or SE15, by the id's beginning (ALL) or the corpus's source (files of one set); empty for other sets."""
        return SETS.get(self.id.partition(".")[0]) or SETS.get(self.source, "")


def read_key(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Item id -> its senses, each once, as the authors' Scorer.java reads them: lines of one id join, an id alone is no answer.

    Raises VwsdError, naming the line, where tabs separate: to the authors' scorer such a line would be no answer at all.
    """
    senses: dict[str, dict[str, None]] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if "\t" in line:
            raise VwsdError("a tab in a key file", where=f"{path}:{number}", remedy="Single spaces separate: `d000.s000.t000 art%1:09:00::`.")
        item_id, *answers = line.rstrip(" ").split(" ")
        if answers:
            senses.setdefault(item_id, {}).update(dict.fromkeys(answers))
    return {item_id: tuple(found) for item_id, found in senses.items()}


def write_key(path: str | Path, answers: Mapping[str, Iterable[str]]) -> Path:
    """Write answers as a key file, atomically; an item without an answer has no line."""
    lines = (" ".join((item_id, *found)) for item_id, found in answers.items() if found)
    return write_text(path, "".join(f"{line}\n" for line in lines))


def read_uef(data: str | Path, key: str | Path | None = None, wordnet: WordNet | None = None) -> Iterator[WsdItem]:
    """Items of a data file of the Unified Evaluation Framework, one by one (SemCor streams); candidates in WordNet's order.

    Raises VwsdError for an instance that the key does not list, or lists and the data do not have, and for XML that is cut short.
    """
    wordnet = wordnet or load_wordnet()

    @cache
    def inventory(lemma: str, pos: str):
        senses = wordnet.candidates(lemma, pos)
        return tuple(s.key for s in senses), tuple(s.gloss for s in senses)

    return _items(data, key, inventory)


def read_xlwsd(data: str | Path, key: str | Path | None, inventory: str | Path, glosses: Mapping[str, str] | None = None) -> Iterator[WsdItem]:
    """Items of an XL-WSD data file, one by one; candidates in the order of the inventory file, none where it lacks the lemma.

    glosses: BabelNet id -> gloss where the user has them (the inventories do not). Raises VwsdError as `read_uef` does.
    """
    known = read_inventory(inventory)

    @cache
    def candidates(lemma: str, pos: str):
        ids = known.get((lemma_form(lemma), pos_letter(pos)), ())
        return ids, tuple(glosses.get(i, "") for i in ids) if glosses is not None else ()

    return _items(data, key, candidates)


def read_inventory(path: str | Path) -> dict[tuple[str, str], tuple[str, ...]]:
    """(lemma, n/v/a/r) -> sense ids of an XL-WSD inventory, lines `lemma#pos TAB id TAB id ...`; lines of one lemma join. VwsdError names a line that is none."""
    known: dict[tuple[str, str], dict[str, None]] = {}
    for number, line in enumerate(read_lines(path), start=1):
        name, *ids = line.strip().split("\t")
        lemma, mark, pos = name.rpartition("#")
        if name and not mark:
            raise VwsdError("not a line of an inventory", where=f"{path}:{number}", remedy="Lines are `lemma#pos` TAB id TAB id ...")
        if ids:
            known.setdefault((lemma_form(lemma), pos_letter(pos)), {}).update(dict.fromkeys(ids))
    return {name: tuple(ids) for name, ids in known.items()}


def _items(data: str | Path, key: str | Path | None, inventory: Inventory) -> Iterator[WsdItem]:
    """An item for each instance; `golds` is emptied as the data are read, so what is left over or asked for twice is a fault."""
    golds = None if key is None else read_key(key)
    for (language, source), words in _sentences(data):
        tokens = tuple((word.text or "").strip() for word in words)
        for at, word in ((at, word) for at, word in enumerate(words) if word.tag == "instance"):
            item_id, lemma, pos = (word.get(name, "") for name in ("id", "lemma", "pos"))
            if golds is not None and item_id not in golds:
                raise VwsdError(f"the key has no answer for {item_id!r}, or the data have it twice", where=key, remedy=f"Data: {data}. {REFETCH}")
            own = golds.pop(item_id) if golds is not None else ()
            yield WsdItem(item_id, language, lemma, pos, tokens, (at, at), *inventory(lemma, pos), own, source)
    if golds:
        raise VwsdError(f"{len(golds)} ids of the key are not in the data, as {next(iter(golds))!r}", where=key, remedy=f"Data: {data}. {REFETCH}")


def _sentences(path: str | Path) -> Iterator[tuple[tuple[str, str], list[ElementTree.Element]]]:
    """((language, source), words) of each sentence, English where the file does not say; what was read is let go."""
    corpus = "en", ""
    try:
        for event, element in ElementTree.iterparse(path, events=("start", "end")):
            if (event, element.tag) == ("start", "corpus"):
                corpus = element.get("lang", "en"), element.get("source", "")
            elif event == "end" and element.tag in ("sentence", "text"):
                if element.tag == "sentence":
                    yield corpus, list(element)
                element.clear()
    except ElementTree.ParseError as e:
        raise VwsdError(f"not whole XML: {e}", where=path, remedy=REFETCH) from None
    except OSError as e:
        raise VwsdError(f"the data file cannot be read: {e.strerror}", where=path, remedy="Check the path.") from None


def read_emojiwsd(path: str | Path) -> list[WsdItem]:
    """Items of EmojiWSD's tagged sentences, all of them nouns; VwsdError names a line that is not as the set is built."""
    return [_tagged(line, f"{path}:{number}") for number, line in enumerate(read_lines(path), start=1)]


def _tagged(line: str, where: str) -> WsdItem:
    try:
        r = json.loads(line)
        parts = r["text"][:r["start"]], r["text"][r["start"]:r["end"]], r["text"][r["end"]:]
        before, target, after = (re.findall(r"\w+(?:['’-]\w+)*|[^\w\s]", part) for part in parts)
        sound = bool(target) and r["gold"] in r["candidates"] and len(r["candidates"]) == len(r["glosses"])
        item = WsdItem(r["id"], "en", r["lemma"], "NOUN", (*before, *target, *after), (len(before), len(before) + len(target) - 1),
                       tuple(r["candidates"]), tuple(r["glosses"]), (r["gold"],))
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise VwsdError("not a tagged sentence with its target, a gloss for each candidate and the gold among them", where=where,
                        remedy="Build the set again: vwsd fetch demo --force.")
    return item


def unanswerable(items: Iterable[WsdItem]) -> list[WsdItem]:
    """Items none of whose golds is among their candidates: no system that chooses among them can be right there."""
    return [item for item in items if item.golds and not set(item.golds) & set(item.candidates)]
