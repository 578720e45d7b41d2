"""The published files of PolCLIP (Image-Enhanced SemCor and VWSD-KB): readers that stream and never
unpickle, and a converter.

The authors' pictures are torch files and pickles. `convert_tensors` makes safetensors of them once,
with an unpickler that builds tensors and nothing else; the readers look for files by stem (`x.pt`,
`x.pkl` -> `x.safetensors`, `x.jpg`, ...) and open none of them.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from tqdm.auto import tqdm

from vwsdlib.data.items import CANDIDATES, REFETCH, Item
from vwsdlib.data.wsd import SETS
from vwsdlib.errors import VwsdError
from vwsdlib.paths import quiet, refuse_special, sha256_bytes, write_bytes

from .pickles import dense, load_torch, read_whole, unpickle
from .records import Candidate, Record, checked, write_records

T = TypeVar("T")
SUFFIXES = (
    ".safetensors",
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".gif",
    ".bmp",
)  # the first that is there is taken
SHAPE = (3, 224, 224)
STRING = re.compile(
    rb'"(?:[^"\\]++|\\.)*+"|(").*+', re.DOTALL
)  # a whole text, or the beginning of one that goes on
MOST_DEEP, MOST_TEXT = 64, 1 << 24  # brackets within one another; bytes of one text
CONVERT = (
    "Convert the pictures (vwsd convert pictures), or read without them (--missing drop; in Python"
    ' missing="drop").'
)
CLASSES = {
    re.sub(r"\D", "", name).zfill(2)[-2:]: short for name, short in SETS.items()
}  # "02" -> SE2, ..., "15" -> SE15


class Pictures:
    """Finds the picture file that a published name stands for, by stem, in the folder of its kind;
    counts those that are missing.

    roots: kind -> folder; a name with "pkl" in it is of kind "vwsd", any other "semcor". missing:
    "error" (at the first) or "drop".
    """

    def __init__(self, roots: Mapping[str, str | Path], missing: str = "error"):
        self.roots, self.drop, self.lost, self._names = (
            roots,
            _choice(missing, {"error": False, "drop": True}),
            {},
            cache(_names_of),
        )

    def paths(self, names: Sequence[str], where: str) -> tuple[str, ...]:
        """Paths of the files that are there."""
        return tuple(path for name in names if (path := self._find(name, where)))

    def _find(self, name: str, where: str) -> str | None:
        kind, bare = (
            "vwsd" if "pkl" in name else "semcor",
            re.split(r"[\\/]", name)[-1],
        )  # published paths are Windows' or others'
        if kind not in self.roots:
            raise VwsdError(
                f"no folder is given for pictures of kind {kind!r}, as {bare}",
                where,
                f"Name its folder: --pictures {kind}=DIR (in Python roots={{{kind!r}: folder}}).",
            )
        present = self._names(self.roots[kind])
        if found := present.get(bare) or present.get(Path(bare).stem):
            return os.path.join(self.roots[kind], found)
        if not self.drop:
            raise VwsdError(f"no picture file for {bare} in {self.roots[kind]}", where, CONVERT)
        self.lost.setdefault(name, where)
        return None

    def report(self) -> None:
        """Warn, once and with their number, of pictures that were left out."""
        if self.lost:
            name, where = next(iter(self.lost.items()))
            said = VwsdError(
                f"{len(self.lost)} pictures are missing and were left out, the first is {name}",
                where,
                CONVERT,
            )
            warnings.warn(str(said), stacklevel=3)


def _names_of(root: str | Path) -> dict[str, str]:
    """File names in a folder by name and by stem."""
    if not Path(root).is_dir():
        raise VwsdError(
            "no such folder of pictures",
            root,
            "Name the folder that holds the converted pictures: --pictures KIND=DIR (in Python"
            " `roots`).",
        )
    names = [n for n in os.listdir(root) if n.lower().endswith(SUFFIXES)]
    names.sort(
        key=lambda n: (SUFFIXES.index(Path(n).suffix.lower()), n), reverse=True
    )  # what comes last wins
    return {Path(n).stem: n for n in names} | {n: n for n in names}


def _choice(value: str, choices: Mapping[str, T]) -> T:
    if value not in choices:
        raise VwsdError(f"no such choice: {value!r}", remedy=f"Choose one of {', '.join(choices)}.")
    return choices[value]


def _read(path: str | Path, parse: Callable[[dict, str], T]) -> Iterator[T]:
    """Each object of a JSON list, parsed; streamed, since the files have up to 3 GB. VwsdError
    names the object that is not as published.
    """
    import ijson

    number = 0
    refuse_special(path)
    try:
        with open(path, "rb") as f:
            for number, item in enumerate(
                ijson.items(_Shallow(f, path), "item", use_float=True), start=1
            ):
                where = f"{path}: item {number}"
                try:
                    parsed = parse(item, where)
                except (KeyError, TypeError, ValueError, AttributeError, IndexError) as e:
                    raise VwsdError(
                        f"not the fields of the published layout ({type(e).__name__}: {e})",
                        where,
                        REFETCH,
                    ) from None
                yield parsed
    except (ijson.JSONError, UnicodeDecodeError) as e:
        raise VwsdError(f"not whole JSON after item {number}", path, REFETCH) from e
    except OSError as e:
        raise VwsdError(f"the file cannot be read: {e.strerror}", path, "Check the path.") from None
    if not number:
        raise VwsdError(
            "there is nothing in the file, a JSON list of objects is expected", path, REFETCH
        )


class _Shallow:
    """A JSON file to be read in parts: VwsdError where its brackets are nested deeper than any
    published file's, before they are built.
    """

    def __init__(self, file: BinaryIO, path: str | Path):
        self.file, self.path, self.depth = file, path, 0
        self.inside, self.text_bytes = (
            b"",
            0,
        )  # the beginning of a text that goes on, and how much of it was read

    def read(self, size: int = -1) -> bytes:
        """The next bytes, as a file gives them."""
        data = self.file.read(size)
        went_on, text = bool(self.inside), self.inside + data
        bare = STRING.sub(rb"\1", text)
        self.inside = b""
        if bare.endswith(b'"'):
            backslashes = len(text) - len(text.rstrip(b"\\"))
            self.inside = b'"\\' if backslashes % 2 else b'"'
        self.text_bytes = len(data) + self.text_bytes * went_on if self.inside else 0
        self.depth += bare.count(b"[") + bare.count(b"{") - bare.count(b"]") - bare.count(b"}")
        if self.depth > MOST_DEEP or self.text_bytes > MOST_TEXT:
            raise VwsdError(
                f"brackets nested more than {MOST_DEEP} deep, or a text without an end",
                self.path,
                REFETCH,
            )
        return data


def read_raw(
    path: str | Path,
    roots: Mapping[str, str | Path],
    occurrence: str = "last",
    missing: str = "error",
    language: str = "en",
) -> Iterator[Record]:
    """Records of a raw training file (`semcor_training_data.json` and the like), one by one.

    The file does not say where the target stands: `occurrence` ("last", as in the released code, or
    "first") decides where its word is there twice. roots, missing: see `Pictures`. A gold that is
    no candidate is taken by its gloss's text. Raises VwsdError, naming the item, for fields that
    are missing or do not match, pictures in another order than the candidates, a first gold or a
    target that is not found.
    """
    pictures = Pictures(roots, missing)

    def parse(item: dict, where: str) -> Record:
        ids, glosses, files = (
            item["candidate_labels"],
            item["candidate_gloss"],
            item["candidate_image_path"],
        )
        if list(files) != ids:
            raise VwsdError(
                "candidate_image_path does not have the candidates in the order of"
                " candidate_labels",
                where,
                REFETCH,
            )
        by_gloss = dict(zip(reversed(glosses), reversed(ids)))
        golds = _golds(
            item["gold_labels"],
            [by_gloss.get(text) for text in item.get("gold_gloss", ())],
            ids,
            where,
        )
        return _record(
            item,
            where,
            (pictures.paths(files[i], where) for i in ids),
            golds,
            occurrence,
            language,
            set=_source(chain(*files.values())),
        )

    yield from _read(path, parse)
    pictures.report()


def read_textual_test(
    path: str | Path, occurrence: str = "last", language: str = "en"
) -> Iterator[Record]:
    """Records of `all_twsd_test_data.json`, one by one, with part of speech and set (SE2 ... SE15),
    without pictures; errors as in `read_raw`.
    """

    def parse(item: dict, where: str) -> Record:
        ids = item["candidate_labels"]
        golds = _golds(
            item["gold_labels"],
            [ids[_within(n, len(ids), where)] for n in item.get("sentence2gloss_labels", ())],
            ids,
            where,
        )
        return _record(
            item,
            where,
            (() for _ in ids),
            golds,
            occurrence,
            language,
            pos=item["pos"],
            set=CLASSES[item["class"]],
        )

    return _read(path, parse)


def _record(
    item: dict,
    where: str,
    pictures: Iterable[tuple[str, ...]],
    golds: tuple[str, ...],
    occurrence: str,
    language: str,
    **more: str,
) -> Record:
    ids, glosses, words = item["candidate_labels"], item["candidate_gloss"], item.get("words")
    words = tuple(words if isinstance(words, list) else item["sentence"].split())
    if not all(type(t) is str for t in (item["token_id"], *words, *ids, *glosses)):
        raise TypeError("an id, word, label or gloss is no text")
    candidates = tuple(Candidate(*c) for c in zip(ids, glosses, pictures, strict=True))
    return checked(
        Record(
            item["token_id"],
            language,
            words,
            _span(words, item["word"], occurrence, where),
            candidates,
            golds,
            **more,
        ),
        where,
    )


def _golds(
    labels: Sequence[str], repaired: Sequence[str | None], ids: Sequence[str], where: str
) -> tuple[str, ...]:
    """Golds that are candidates, by label or else by what `repaired` has in their place; the first
    must be one: training uses it alone.
    """
    repaired = [*repaired, *[None] * len(labels)]
    found = [label if label in ids else other for label, other in zip(labels, repaired)]
    if not found or found[0] is None:
        raise VwsdError(
            f"the gold {labels[:1]} is not among the candidates, neither by id nor by gloss",
            where,
            REFETCH,
        )
    return tuple(dict.fromkeys(gold for gold in found if gold is not None))


def _span(words: Sequence[str], word: str, occurrence: str, where: str) -> tuple[int, int]:
    """First and last index of the target: one word as it stands, else several, else either in other
    case.
    """
    at = _choice(occurrence, {"first": 0, "last": -1})
    for form in (str, str.casefold):
        tokens = [form(w) for w in words]
        for target in ([form(word)], form(word).split() or [""]):
            if found := [i for i in range(len(tokens)) if tokens[i : i + len(target)] == target]:
                return found[at], found[at] + len(target) - 1
    raise VwsdError(
        f"the target {word!r} is not among the words {' '.join(words)!r}", where, REFETCH
    )


def read_metadata(
    path: str | Path,
    roots: Mapping[str, str | Path],
    occurrence: str = "last",
    missing: str = "error",
    language: str = "en",
) -> Iterator[list[Record]]:
    """Pre-built batches (`semcor_training_tokens.50.250.json` and the like): a list of records
    each, in the file's order throughout.

    The files hold no sense ids: a candidate's id is a hash of its gloss, so that equal senses are
    equal in the whole file. Token ids are left alone. Raises VwsdError, naming the item, for an
    index or a range that is wrong and for lists that contradict each other.
    """
    pictures = Pictures(roots, missing)

    def parse(item: dict, where: str) -> list[Record]:
        own, shown = _checked_ranges(item, where)
        rows = zip(
            item["word"],
            item["word_list"],
            item["sentence"],
            item["sentence2gloss_labels"],
            own,
            strict=True,
        )
        return [instance(item, where, i, shown, *row) for i, row in enumerate(rows)]

    def instance(
        item: dict,
        where: str,
        i: int,
        shown: list,
        word: str,
        words: list,
        sentence: str,
        gold: int,
        own: list,
    ) -> Record:
        glosses = item["total_candidate_gloss"][slice(*own)]
        ids = _ids_of(glosses)
        files = (
            pictures.paths(item["total_candidate_image"][slice(*shown[g])], where)
            for g in range(*own)
        )
        fields = {
            "token_id": f"{item['id']}.{i}",
            "word": word,
            "words": words,
            "sentence": sentence,
        }
        fields |= {"candidate_labels": ids, "candidate_gloss": glosses}
        return _record(
            fields,
            where,
            files,
            (ids[_within(gold, len(ids), where)],),
            occurrence,
            language,
            set=_source(item["total_candidate_image"]),
        )

    yield from _read(path, parse)
    pictures.report()


def _source(names: Iterable[str]) -> str:
    """Which of the two corpora, told by its pictures' names: phrases of VWSD-KB were prepared in
    another way than SemCor's sentences.
    """
    return "vwsd-kb" if any("pkl" in name for name in names) else "semcor"


def _ids_of(glosses: Sequence[str]) -> list[str]:
    """An id for each gloss, from its text; a second sense with the same gloss gets a mark."""
    hashes = [f"gloss:{sha256_bytes(gloss.encode())[:16]}" for gloss in glosses]
    return [h + "+" * hashes[:n].count(h) for n, h in enumerate(hashes)]


def _within(index: int, size: int, where: str) -> int:
    if type(index) is not int or not 0 <= index < size:
        raise VwsdError(
            f"the index of a gold is {index!r}, there are {size} candidates", where, REFETCH
        )
    return index


def _checked_ranges(item: dict, where: str) -> tuple[list, list]:
    """(range of senses of each instance, range of pictures of each sense), half open, after every
    list was held against the others.
    """
    glosses, files = item["total_candidate_gloss"], item["total_candidate_image"]
    own, shown = item["candidate_gloss_labels"], item["gloss2image_labels"]
    for name, pairs, flat in (
        ("candidate_gloss_labels", own, glosses),
        ("gloss2image_labels", shown, files),
    ):
        ends = list(
            chain.from_iterable(pair for pair in pairs if pair[0] != pair[1])
        )  # 0, a, a, b, b, ..., size
        if (
            ends != sorted(ends)
            or [0, *ends[1:-1:2]] != ends[::2]
            or (ends or [0])[-1] != len(flat)
            or len(ends) % 2
        ):
            raise VwsdError(
                f"the ranges of {name} do not cover their {len(flat)} entries one after another",
                where,
                REFETCH,
            )
    expected = {
        "candidate_gloss": [glosses[b:e] for b, e in own],
        "candidate_image": [files[b:e] for b, e in shown],
        "image2gloss_labels": [g for g, (b, e) in enumerate(shown) for _ in range(e - b)],
    }
    wrong = [name for name, value in expected.items() if item.get(name, value) != value]
    if not all(0 <= b <= e <= len(files) for b, e in item.get("sentence2image_labels", ())):
        wrong.append("sentence2image_labels")
    if wrong or len(shown) != len(glosses):
        raise VwsdError(
            f"{(wrong or ['gloss2image_labels'])[0]} contradicts the other lists", where, REFETCH
        )
    return own, shown


def read_visual_test(
    path: str | Path, images: str | Path, language: str = "en"
) -> list[tuple[Item, str]]:
    """(item, definition) of each question in `VWSD_testdata.json`; candidates are the names of
    files in the folder `images`.

    The file does not say the language. VwsdError, naming the item, for a missing picture, other
    than ten candidates, a gold that is none.
    """
    pictures, ids = (
        Pictures({"semcor": images, "vwsd": images}),
        (f"{Path(path).stem}.{n}" for n in count()),
    )

    def parse(item: dict, where: str) -> tuple[Item, str]:
        names, gold = item["candidate_imgs"], item["gold_img"]
        if len(set(names)) != CANDIDATES or len(names) != CANDIDATES or gold not in names:
            raise VwsdError(
                f"{CANDIDATES} different candidates, the gold among them, are expected",
                where,
                REFETCH,
            )
        files = [Path(p).name for p in pictures.paths(names, where)]
        return (
            Item(
                next(ids),
                language,
                item["amb"],
                item["phrase"],
                tuple(files),
                files[names.index(gold)],
            ),
            item.get("sense") or "",
        )

    return list(_read(path, parse))


def convert_json(
    source: str | Path,
    target: str | Path,
    kind: str,
    roots: Mapping[str, str | Path],
    **options: str,
) -> int:
    """Turn a published file into the project's JSONL; returns the number of records. kind: "raw" or
    "metadata" (batches are dissolved).
    """
    readers = {
        "raw": read_raw,
        "metadata": lambda *a, **o: chain.from_iterable(read_metadata(*a, **o)),
    }
    records = _choice(kind, readers)(source, roots, **options)
    return write_records(
        target, tqdm(records, desc=Path(source).name, unit=" records", disable=quiet())
    )


def load_pixels(path: str | Path, data: bytes | None = None) -> np.ndarray:
    """[3, 224, 224] float32: a picture as CLIP's preprocessing leaves it, from a safetensors file
    with one tensor; VwsdError where it is not that.

    data: the file's bytes, where it is no file of its own; `path` then only names it.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(read_whole(path) if data is None else data)
    except (
        SafetensorError,
        TypeError,
        KeyError,
        ValueError,
    ) as e:  # the last three for types that numpy lacks
        raise VwsdError(
            f"the tensor cannot be read: {e}", path, "Delete the file and convert it again."
        ) from None
    return _pixels(tensors, path).astype(np.float32)


def _pixels(tensors: Mapping[str, np.ndarray], where: object) -> np.ndarray:
    shapes = [t.shape for t in tensors.values()]
    if shapes != [SHAPE] or not all(
        t.dtype.kind == "f" and np.isfinite(t).all() for t in tensors.values()
    ):
        raise VwsdError(
            f"one tensor {SHAPE} of finite fractions is expected, shapes are {shapes}",
            where,
            "This is no preprocessed picture.",
        )
    return next(iter(tensors.values()))


def convert_tensors(source: str | Path, target: str | Path) -> int:
    """Turn the `.pt` and `.pkl` pictures in a folder into safetensors of the same stem, precision
    as found; returns how many were written.

    Whole files that are there are skipped, so that a second run goes on. A file that asks for
    anything but tensors is refused by name.
    """
    from safetensors.numpy import save

    loaders = {".pt": load_torch, ".pkl": unpickle}
    goals = {
        p: Path(target) / f"{p.stem}.safetensors"
        for p in sorted(Path(source).glob("*"))
        if p.suffix in loaders
    }
    if not goals or len(set(goals.values())) < len(goals):
        raise VwsdError(
            "no .pt or .pkl files, or two of the same stem",
            source,
            "Convert each published folder of pictures by itself.",
        )
    todo = {p: goal for p, goal in goals.items() if not _whole(goal)}
    for p, goal in tqdm(todo.items(), desc="Pictures", unit=" files", disable=quiet()):
        value = loaders[p.suffix](read_whole(p), p)
        tensors = value if isinstance(value, dict) else {"pixels": value}
        write_bytes(
            goal, save({"pixels": _pixels({name: _array(t, p) for name, t in tensors.items()}, p)})
        )
    return len(todo)


def _whole(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np"):  # compares the header with the file's size
            return True
    except (SafetensorError, OSError):
        return False


def _array(tensor: object, where: Path) -> np.ndarray:
    import torch

    tensor = dense(tensor, where).contiguous()
    return (
        tensor
        if tensor.dtype == torch.float16 or not tensor.is_floating_point()
        else tensor.float()
    ).numpy()
