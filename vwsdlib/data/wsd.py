"""Textual word sense disambiguation: items with their candidate senses, read from three layouts,
and keys of answers.

- Unified Evaluation Framework (Raganato et al. 2017), SemCor included: `NAME.data.xml` and
  `NAME.gold.key.txt` with WordNet 3.0 sense keys.
- XL-WSD (Pasini et al. 2021): the same files with BabelNet ids, candidates from an inventory file.
- EmojiWSD: `en.<split>.wsd.jsonl`, tagged sentences written for this project.

A key file holds a line an item: id, then one or more senses, separated by single spaces. A system's
answers have the same layout.
"""

from __future__ import annotations

import json
import re
import unicodedata
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from xml.etree.ElementTree import Element

from ..errors import VwsdError
from ..paths import write_text
from .items import read_lines
from .languages import language_code, language_name
from .wordnet import LETTER_OF_TAG, POS_NAMES, WordNet, find_pos, lemma_form, load_wordnet

SCORER = "the framework's scorer"
SPACES = "Single spaces separate: `d000.s000.t000 art%1:09:00::`."
DATA_FILE = (
    "Give a data file NAME.data.xml of the Unified Evaluation Framework or of XL-WSD, whole:"
    " <corpus>, <text>, <sentence>, <instance>."
)
# elements within one another; elements in the memory at once (a sentence has some dozens)
MOST_DEEP, MOST_HELD = 32, 200_000
SETS = {
    "senseval2": "SE2",
    "senseval3": "SE3",
    "semeval2007": "SE07",
    "semeval2010": "SE10",
    "semeval2013": "SE13",
    "semeval2015": "SE15",
}
# (lemma, part of speech, language) -> (candidates, glosses)
Inventory = Callable[[str, str, str], tuple[tuple[str, ...], tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class WsdItem:
    """One question: in which of the `candidates` is the target, tokens `span[0]` to `span[1]` (both
    included), used in this sentence?

    `glosses` follow the candidates, or are none at all where the inventory has none; any of `golds`
    is right; there are none without a key. `glued` are the places of tokens that follow their
    predecessor without a space (l'ancora). Ids are unique in one data file only: the files of
    single sets all begin with d000.s000.t000.
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
    glued: tuple[int, ...] = ()

    @property
    def sentence(self) -> str:
        """The tokens with a space between them, but none before those that are glued to their
        predecessor.
        """
        return joined(self.tokens, self.glued)

    @property
    def set(self) -> str:
        """SE2, SE3, SE07, SE10, SE13 or SE15, by the id's beginning (ALL) or the corpus's source
        (files of one set); empty for other sets.
        """
        return SETS.get(self.id.partition(".")[0]) or SETS.get(self.source, "")


def joined(tokens: Sequence[str], glued: Collection[int] = ()) -> str:
    """Tokens as a text: a space before each but the first and those whose places are in `glued`."""
    spaced = [
        token if place in glued or place == 0 else f" {token}" for place, token in enumerate(tokens)
    ]
    return "".join(spaced)


def read_key(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Item id -> its senses, each once, as the authors' Scorer.java reads them: lines of one id
    join, an id alone is no answer.

    Warns of what that scorer reads in a way that few mean: two spaces (an empty answer between
    them), a line that begins with a space (an empty id), an id alone, an id on several lines.
    Raises VwsdError, naming the line, where tabs or other white space separate, or a character that
    nobody sees stands in it: to the authors' scorer such a line would be no answer at all.
    """
    senses: dict[str, dict[str, None]] = {}
    odd: dict[str, list[int]] = {"alone": [], "doubled": [], "begun": []}
    repeated: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        _only_spaces(line, f"{path}:{number}")
        item_id, *answers = line.rstrip(" ").split(" ")
        if not answers:
            if item_id:
                odd["alone"].append(number)
            continue
        if "" in answers:
            odd["doubled"].append(number)
        if not item_id:
            odd["begun"].append(number)
        if item_id in senses:
            repeated.setdefault(item_id, number)
        senses.setdefault(item_id, {}).update(dict.fromkeys(answers))
    name = Path(path).name
    for how, numbers in odd.items():
        if numbers:
            warnings.warn(_odd_lines(how, numbers, name), stacklevel=2)
    if repeated:
        item_id, number = next(iter(repeated.items()))
        warnings.warn(
            f"{len(repeated)} of {len(senses)} ids stand on several lines of {name}, {item_id!r}"
            f" the first (line {number}); their answers are joined, as {SCORER} does",
            stacklevel=2,
        )
    return {item_id: tuple(given) for item_id, given in senses.items()}


def _odd_lines(how: str, numbers: Sequence[int], name: str) -> str:
    """What is said of lines that the scorer reads in a way that few mean."""
    one, more, said = {
        "alone": ("has", "have", "an id and nothing behind it, which is no answer"),
        "doubled": ("has", "have", f"two spaces in a row, which {SCORER} reads as an empty answer"),
        "begun": ("begins", "begin", f"with a space, which {SCORER} reads as an empty id"),
    }[how]
    if len(numbers) == 1:
        return f"line {numbers[0]} of {name} {one} {said}"
    return f"{len(numbers)} lines (the first is {numbers[0]}) of {name} {more} {said}"


def _only_spaces(line: str, where: str) -> None:
    """VwsdError for white space other than the space, and for what is not seen; joiners stay, Farsi
    is written with them.
    """
    if "\t" in line:
        raise VwsdError("a tab in a key file", where, SPACES)
    if line.isascii() and line.isprintable():
        return
    for character in line:
        hidden = character.isspace() or unicodedata.category(character) in ("Cf", "Cc")
        if hidden and character not in " \u200c\u200d":
            name = unicodedata.name(character, "a control character")
            what = f"U+{ord(character):04X} ({name}) in a key file, which is no space to {SCORER}"
            raise VwsdError(what, where, SPACES)


def write_key(path: str | Path, answers: Mapping[str, Iterable[str]]) -> Path:
    """Write answers as a key file, atomically; an item without an answer has no line.

    VwsdError for an id or a sense that is empty or holds white space: it could not be read back.
    """
    lines = []
    for item_id, senses in answers.items():
        broken = _spaced((item_id, *senses))
        if broken:
            what = f"{broken[0]!r} cannot stand in a key file, whose parts are separated by spaces"
            raise VwsdError(what, item_id, "Give ids and senses without white space.")
        if senses:
            lines.append(" ".join((item_id, *senses)) + "\n")
    return write_text(path, "".join(lines))


def _spaced(texts: Iterable[str]) -> list[str]:
    """Those that are empty or hold white space."""
    return [text for text in texts if text.split() != [text]]


def read_uef(
    data: str | Path,
    key: str | Path | None = None,
    wordnet: WordNet | None = None,
    language: str | None = None,
) -> Iterator[WsdItem]:
    """Items of a data file of the Unified Evaluation Framework, one by one (SemCor streams);
    candidates in WordNet's order.

    WordNet is English: items of another language (`language`, else as the file says) have no
    candidates. So have those whose part of speech it lacks (AUX). Items that the key does not list
    have no golds. Each of these is counted in a warning after the last item. Raises VwsdError for a
    key whose ids the data lack, an id that stands twice, and what is not whole XML of this layout.
    """
    wordnet = wordnet or load_wordnet()

    @cache
    def inventory(lemma: str, pos: str, code: str):
        senses = wordnet.candidates(lemma, pos) if code == "en" and find_pos(pos) else ()
        glosses = tuple(sense.gloss for sense in senses)
        return tuple(sense.key for sense in senses), glosses

    return _items(data, key, inventory, language, only="en")


def read_xlwsd(
    data: str | Path,
    key: str | Path | None,
    inventory: str | Path,
    glosses: Mapping[str, str] | None = None,
    language: str | None = None,
) -> Iterator[WsdItem]:
    """Items of an XL-WSD data file, one by one; candidates in the order of the inventory file, none
    where it lacks the lemma.

    glosses: BabelNet id -> gloss where the user has them (the inventories do not). Warns and raises
    VwsdError as `read_uef` does.
    """
    known = read_inventory(inventory)

    @cache
    def candidates(lemma: str, pos: str, code: str):
        ids = known.get((lemma_form(lemma), find_pos(pos)), ())
        return ids, tuple(glosses.get(i, "") for i in ids) if glosses is not None else ()

    return _items(data, key, candidates, language)


def read_inventory(path: str | Path) -> dict[tuple[str, str], tuple[str, ...]]:
    """(lemma, n/v/a/r) -> sense ids of an XL-WSD inventory, lines `lemma#pos TAB id TAB id ...`;
    lines of one lemma join.

    VwsdError names a line that is none; lines of a part of speech that WordNet lacks are left out,
    and a warning counts them.
    """
    known: dict[tuple[str, str], dict[str, None]] = {}
    unread: list[str] = []
    for number, line in enumerate(read_lines(path), start=1):
        name, *ids = line.strip().split("\t")
        lemma, mark, pos = name.rpartition("#")
        where, layout = f"{path}:{number}", "Lines are `lemma#pos` TAB id TAB id ..."
        if name and (not mark or not lemma or not pos):
            raise VwsdError("not a line of an inventory", where, layout)
        broken = _spaced(ids)
        if broken:
            raise VwsdError(f"{broken[0]!r} is no sense id", where, layout)
        if ids and not find_pos(pos):
            unread.append(f"{pos!r} in line {number}")
        elif ids:
            known.setdefault((lemma_form(lemma), find_pos(pos)), {}).update(dict.fromkeys(ids))
    if unread:
        warnings.warn(
            f"{len(unread)} lines of {Path(path).name} have a part of speech that is none of"
            f" WordNet's and are left out, {unread[0]} the first",
            stacklevel=2,
        )
    return {name: tuple(ids) for name, ids in known.items()}


def _items(
    data: str | Path,
    key: str | Path | None,
    inventory: Inventory,
    language: str | None,
    only: str = "",
) -> Iterator[WsdItem]:
    """An item for each instance; `golds` is emptied as the data are read, so what is left over is a
    fault. only: the inventory's one language.
    """
    golds = None if key is None else read_key(key)
    counted = _Counted(Path(data).name)
    for (stated, source), words in _sentences(data):
        code = language or stated
        tokens = tuple((word.text or "").strip() for word in words)
        for at, word in enumerate(words):
            if word.tag != "instance":
                continue
            item_id, lemma, pos = (word.get(name, "") for name in ("id", "lemma", "pos"))
            counted.instance(item_id, pos, data)
            own = golds.pop(item_id, ()) if golds is not None else ()
            if golds is not None and not own:
                counted.without_gold.append(item_id)
            if only and code != only:
                counted.foreign.append(item_id)
            senses, glosses = inventory(lemma, pos, code)
            spanned = (item_id, code, lemma, pos, tokens, (at, at))
            yield WsdItem(*spanned, senses, glosses, own, source)
    _check_key(golds, counted, key, data)
    if counted.ids:
        counted.warn(key, code)


def _check_key(
    left: Mapping | None, counted: _Counted, key: str | Path | None, data: str | Path
) -> None:
    """VwsdError for a key that has no answer for the data, or more of them; left: its ids that the
    data lack."""
    n, blind = len(counted.ids), counted.without_gold
    if left is not None and n and len(blind) == n:
        what = f"the key has no answer for any of the {n} instances, {blind[0]!r} the first"
        raise VwsdError(what, key, f"Give the key of these very data: {data}.")
    if left:
        raise VwsdError(
            f"{len(left)} ids of the key are not in the data, as {next(iter(left))!r}",
            key,
            f"Give the key of these very data ({data}), or write answers (--out) and score them"
            " with vwsd wsd-score.",
        )


class _Counted:
    """What is noted about the instances of one data file while they stream by."""

    def __init__(self, name: str):
        self.name = name
        self.ids: set[str] = set()
        self.without_gold: list[str] = []
        self.foreign: list[str] = []
        self.unread: dict[str, list[str]] = {}  # part of speech -> ids
        self.read_as: dict[str, list[str]] = {}

    def instance(self, item_id: str, pos: str, data: str | Path) -> None:
        """Count one; VwsdError for an id that is missing, stands twice or could not stand in a
        key."""
        if not item_id or len(item_id.split()) != 1:
            raise VwsdError(
                f"an instance has the id {item_id!r} (instance {len(self.ids) + 1})",
                data,
                "Each <instance> needs an id of its own without white space.",
            )
        if item_id in self.ids:
            remedy = "Give the sets one by one, or the file ALL, whose ids tell the sets apart."
            raise VwsdError(f"an id stands twice: {item_id!r}", data, remedy)
        self.ids.add(item_id)
        if not find_pos(pos):
            self.unread.setdefault(pos, []).append(item_id)
        elif pos.lower() in LETTER_OF_TAG:
            self.read_as.setdefault(pos, []).append(item_id)

    def warn(self, key: str | Path | None, code: str) -> None:
        """A warning for each kind; code: the language of the data."""
        total, blind, foreign = f"{len(self.ids)} instances", self.without_gold, self.foreign
        if blind:
            warnings.warn(
                f"{len(blind)} of {total} of {self.name} have no answer in {Path(key).name},"
                f" {blind[0]!r} the first; only the others can be scored",
                stacklevel=3,
            )
        if foreign:
            warnings.warn(
                f"WordNet has no {language_name(code)}: {len(foreign)} of {total} of {self.name}"
                f" get no candidates, {foreign[0]!r} the first; give an inventory of this"
                " language, or name another with --language",
                stacklevel=3,
            )
        for tags, said in (
            (self.unread, "that WordNet does not have and get no candidates"),
            (self.read_as, "of the Penn Treebank or the like"),
        ):
            if tags:
                count, first = sum(map(len, tags.values())), next(iter(tags.values()))[0]
                each = ", ".join(_tag(pos, len(some)) for pos, some in tags.items())
                warnings.warn(
                    f"{count} of {total} of {self.name} have parts of speech {said}: {each};"
                    f" {first!r} the first",
                    stacklevel=3,
                )


def _tag(pos: str, count: int) -> str:
    read_as = f" read as {POS_NAMES[find_pos(pos)]}" if find_pos(pos) else ""
    return f"{pos or 'none at all'}{read_as} ({count})"


def _sentences(path: str | Path) -> Iterator[tuple[tuple[str, str], list[Element]]]:
    """((language, source), words) of each sentence, English where the file does not say; what was
    read is let go.

    No entity is defined by a file (a few lines of them would fill the memory), and no sentence or
    text grows without an end.
    """
    from defusedxml.ElementTree import ParseError, iterparse

    corpus, depth, held = ("en", ""), 0, 0
    try:
        for event, element in iterparse(path, events=("start", "end")):
            if event == "start":
                depth, held = depth + 1, held + 1
                if depth == 1:
                    corpus = _corpus(element, path)
                if depth > MOST_DEEP or held > MOST_HELD:
                    raise VwsdError(
                        "no sentence of the layout: elements are nested too deep or without an end",
                        path,
                        DATA_FILE,
                    )
                continue
            depth -= 1
            if element.tag == "sentence":
                yield corpus, list(element)
            if element.tag in ("sentence", "text"):
                held = 0
                element.clear()
    except ParseError as e:
        raise VwsdError(f"not whole XML: {e}", path, DATA_FILE) from None
    except OSError as e:
        what = f"the data file cannot be read: {e.strerror}"
        raise VwsdError(what, path, "Check the path.") from None
    # an encoding that nobody knows; entities that the file defines
    except (LookupError, ValueError) as e:
        reason = str(e)
        if "Entit" in type(e).__name__:
            reason = "it defines entities, no data file needs them"
        raise VwsdError(f"the XML cannot be read: {reason}", path, DATA_FILE) from None


def _corpus(root: Element, path: str | Path) -> tuple[str, str]:
    """(language, source) of the root element; VwsdError where it is none of this layout."""
    if root.tag != "corpus":
        what = f"the XML holds <{root.tag}>, not the <corpus> of the Unified Evaluation Framework"
        raise VwsdError(what, path, DATA_FILE)
    return language_code(root.get("lang", "en")), root.get("source", "")


def read_emojiwsd(path: str | Path) -> list[WsdItem]:
    """Items of EmojiWSD's tagged sentences, all of them nouns; VwsdError names a line that is not
    as the set is built.
    """
    lines = enumerate(read_lines(path), start=1)
    return [_tagged(line, f"{path}:{number}") for number, line in lines]


def _tagged(line: str, where: str) -> WsdItem:
    try:
        r = json.loads(line)
        parts = r["text"][: r["start"]], r["text"][r["start"] : r["end"]], r["text"][r["end"] :]
        before, target, after = (re.findall(r"\w+(?:['’-]\w+)*|[^\w\s]", part) for part in parts)
        senses, glosses, first = tuple(r["candidates"]), tuple(r["glosses"]), len(before)
        span = (first, first + len(target) - 1)
        words = (*before, *target, *after)
        item = WsdItem(
            r["id"], "en", r["lemma"], "NOUN", words, span, senses, glosses, (r["gold"],)
        )
        if target and r["gold"] in r["candidates"] and len(senses) == len(glosses):
            return item
    except (ValueError, KeyError, TypeError):
        pass
    raise VwsdError(
        "not a tagged sentence with its target, a gloss for each candidate and the gold among them",
        where,
        "Build the set again: vwsd fetch demo --force.",
    )


def unanswerable(items: Iterable[WsdItem]) -> list[WsdItem]:
    """Items none of whose golds is among their candidates: no system that chooses among them can be
    right there.
    """
    return [item for item in items if item.golds and not set(item.golds) & set(item.candidates)]
