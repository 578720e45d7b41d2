"""WordNet 3.0 from its own dict files: the senses of a lemma in order, with gloss, examples and
lemmas.

Looked for in `VWSD_WORDNET` (a dict folder, or an NLTK data folder) and nowhere else where that is
set; otherwise where Debian's packages put it, then in NLTK's usual folders. Nothing is read before
the first question. Formats: WordNet's manual pages senseidx(5) and wndb(5).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from ..errors import VwsdError
from ..paths import refuse_special

FILES = {"n": "data.noun", "v": "data.verb", "a": "data.adj", "r": "data.adv"}
# names of the parts of speech, by letter
NAMES_OF_LETTER = {"n": "n noun propn", "v": "v verb", "a": "a s j adj", "r": "r adv"}
# the tags of the Penn Treebank, and two spellings of the satellites
TAGS_OF_LETTER = {
    "n": "nn nns nnp nnps",
    "v": "vb vbd vbg vbn vbp vbz",
    "a": "jj jjr jjs adj_sat adjsat",
    "r": "rb rbr rbs",
}
POS_NAMES = {"n": "NOUN", "v": "VERB", "a": "ADJ", "r": "ADV"}
# after the % of a sense key; 5: adjective satellite
TYPES = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}
# where they begin: a word quoted inside the definition stays in it
EXAMPLES = re.compile(r'[;:]\s*(?=")|,\s*(?="[^"]*"\s*(?:;|$))')
DEBIAN = Path("/usr/share/wordnet")
REMEDY = (
    "On Debian or Ubuntu: apt install wordnet-base wordnet-sense-index; elsewhere set VWSD_WORDNET"
    " to the dict folder of WordNet 3.0 or to an NLTK data folder with corpora/wordnet unpacked."
)


def _by_word(words_of_letter: dict[str, str]) -> dict[str, str]:
    letters = {}
    for letter, words in words_of_letter.items():
        letters |= dict.fromkeys(words.split(), letter)
    return letters


LETTERS = _by_word(NAMES_OF_LETTER)
LETTER_OF_TAG = _by_word(TAGS_OF_LETTER)


@dataclass(frozen=True, slots=True)
class Sense:
    """One sense of a lemma: `number` is its place among the lemma's senses (from 1), `synset` such
    as "02139199-n", `lemmas` those of its synset.

    `gloss` is the definition alone, without `examples`.
    """

    key: str
    lemma: str
    pos: str
    number: int
    synset: str
    gloss: str
    examples: tuple[str, ...]
    lemmas: tuple[str, ...]


def find_pos(pos: str) -> str:
    """n, v, a or r from "NOUN", "ADJ", "n", "s" and their like, or from a tag of the Penn Treebank;
    "" for what WordNet does not have (AUX, X).
    """
    return LETTERS.get(pos.lower()) or LETTER_OF_TAG.get(pos.lower(), "")


def pos_letter(pos: str) -> str:
    """`find_pos`; VwsdError for a part of speech that WordNet does not have."""
    letter = find_pos(pos)
    if not letter:
        remedy = "NOUN, VERB, ADJ and ADV are known, and n, v, a, s, r."
        raise VwsdError(f"no part of speech {pos!r} in WordNet", remedy=remedy)
    return letter


def lemma_form(lemma: str) -> str:
    """A lemma as inventories list it: lower case, underscores for spaces."""
    return lemma.lower().replace(" ", "_")


class WordNet:
    """The dict files of one folder.

    >>> load_wordnet().candidates("bat", "NOUN")[0].gloss            # doctest: +SKIP
    'nocturnal mouselike mammal with forelimbs modified to form membranous wings and anatomical
    adaptations for echolocation by which they navigate'
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._data: dict[str, bytes] = {}
        if b"WordNet 3.0 " not in self._read("data.noun")[:2000]:
            what = "these dict files are not WordNet 3.0"
            raise VwsdError(what, self.folder, f"Sense keys differ between versions. {REMEDY}")

    def candidates(self, lemma: str, pos: str) -> tuple[Sense, ...]:
        """The senses of a lemma under a part of speech, the first sense first; none where WordNet
        does not list it.
        """
        entries = self._index.get((lemma_form(lemma), pos_letter(pos)), ())
        return tuple(self._sense(*entry) for entry in entries)

    def sense(self, key: str) -> Sense:
        """The sense of a sense key such as "bat%1:05:00::"; VwsdError where there is none."""
        lemma, _, rest = key.partition("%")
        for entry in self._index.get((lemma, TYPES.get(rest[:1], "")), ()):
            if entry[1] == key:
                return self._sense(*entry)
        what = f"no sense key {key!r} in WordNet 3.0"
        raise VwsdError(what, self.folder, "Keys of other versions must be mapped first.")

    @cached_property
    def _index(self) -> dict[tuple[str, str], list[tuple[int, str, str]]]:
        """(lemma, letter) -> (sense number, sense key, offset) in sense order; adjectives and
        satellites are numbered together.
        """
        index: dict[tuple[str, str], list[tuple[int, str, str]]] = {}
        lines = [line for line in self._read("index.sense").split(b"\n") if line.strip()]
        reached = 0
        try:
            for reached, line in enumerate(lines, start=1):
                key, offset, number, _ = line.decode().split()
                lemma, _, rest = key.partition("%")
                index.setdefault((lemma, TYPES[rest[0]]), []).append((int(number), key, offset))
        except (ValueError, LookupError) as e:
            raise self._damaged("index.sense", f"line {reached}") from e
        return {name: sorted(entries) for name, entries in index.items()}

    def _sense(self, number: int, key: str, offset: str) -> Sense:
        """The sense with what stands in its synset's line, which begins at a byte offset."""
        name, start = FILES[_letter(key)], int(offset)
        data = self._read(name)
        try:
            return self._parsed(data[start : data.find(b"\n", start)].decode(), number, key, offset)
        except (ValueError, LookupError) as e:
            raise self._damaged(name, f"the synset at offset {offset}") from e

    def _parsed(self, line: str, number: int, key: str, offset: str) -> Sense:
        lemma, pos = key.partition("%")[0], _letter(key)
        fields, _, text = line.partition(" | ")
        if not fields.startswith(f"{offset} "):
            remedy = f"The dict files do not belong together. {REMEDY}"
            raise VwsdError(f"no synset at offset {offset}", self.folder / FILES[pos], remedy)
        words = fields.split()[4 : 4 + 2 * int(fields.split()[3], 16) : 2]
        lemmas = tuple(re.sub(r"\((a|p|ip)\)$", "", word) for word in words)
        gloss, *rest = EXAMPLES.split(text.strip(), maxsplit=1)
        examples = tuple(re.findall(r'"([^"]+)"', "".join(rest)))
        synset = f"{offset}-{pos}"
        return Sense(key, lemma, pos, number, synset, gloss.rstrip("; "), examples, lemmas)

    def _damaged(self, name: str, place: str) -> VwsdError:
        return VwsdError(
            f"{place} of WordNet's {name} is not as it was published",
            self.folder / name,
            f"The file is damaged. {REMEDY}",
        )

    def _read(self, name: str) -> bytes:
        refuse_special(self.folder / name)
        if name not in self._data:
            try:
                self._data[name] = (self.folder / name).read_bytes()
            except OSError as e:
                what = f"{name} of WordNet cannot be read: {e.strerror}"
                raise VwsdError(what, self.folder, REMEDY) from None
        return self._data[name]


def _letter(key: str) -> str:
    """n, v, a or r of a sense key."""
    return TYPES[key.partition("%")[2][0]]


def wordnet_folder() -> Path:
    """The dict folder in use; VwsdError, with what to install, where there is none."""
    named, nltk = os.environ.get("VWSD_WORDNET"), os.environ.get("NLTK_DATA", "")
    places = [DEBIAN, *(Path(p) for p in nltk.split(os.pathsep) if p), Path.home() / "nltk_data"]
    if named:
        places = [Path(named).expanduser()]
    for place in places:
        for folder in (place, place / "dict", place / "corpora" / "wordnet"):
            if (folder / "index.sense").is_file() and (folder / "data.noun").is_file():
                return folder
    what = "no WordNet 3.0 (index.sense and data.noun, .verb, .adj, .adv)"
    raise VwsdError(what, os.pathsep.join(map(str, places)), REMEDY)


def load_wordnet(folder: str | Path | None = None) -> WordNet:
    """WordNet of a dict folder, by default of the one in use; each folder is read once a
    process."""
    return _load(Path(folder or wordnet_folder()))


_load = cache(WordNet)
