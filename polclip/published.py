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
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from vwsdlib.data.items import REFETCH
from vwsdlib.data.wsd import SETS
from vwsdlib.errors import VwsdError, known
from vwsdlib.paths import quiet, refuse_special, sha256_bytes, write_bytes
from vwsdlib.progress import tqdm

from .pickles import NO_PICTURE, dense, load_torch, read_whole, unpickle
from .records import Candidate, Record, save_records, sound

T = TypeVar("T")
# the first that is there is taken
SUFFIXES = (".safetensors", ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
SHAPE = (3, 224, 224)
# a whole text, or the beginning of one that goes on
STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"|(").*+', re.DOTALL)
MOST_DEEP, MOST_TEXT = 64, 1 << 24  # brackets within one another; bytes of one text
CONVERT = (
    "Convert the pictures (vwsd convert pictures), or read without them (--missing drop; in Python"
    ' missing="drop").'
)
# "02" -> SE2, ..., "15" -> SE15
CLASSES = {re.sub(r"\D", "", name).zfill(2)[-2:]: short for name, short in SETS.items()}


class PictureFiles:
    """Finds the picture file that a published name stands for, by stem, in the folder of its kind;
    counts those that are missing.

    roots: kind -> folder; a name with "pkl" in it is of kind "vwsd", any other "semcor". missing:
    "error" (at the first) or "drop".
    """

    def __init__(self, roots: Mapping[str, str | Path], missing: str = "error"):
        known("way with missing pictures", missing, ("error", "drop"))
        self.roots, self.drop = roots, missing == "drop"
        self.lost, self._names = {}, cache(_names_of)

    def paths(self, names: Sequence[str], where: str) -> tuple[str, ...]:
        """Paths of the files that are there."""
        paths = [self._path(name, where) for name in names]
        return tuple(path for path in paths if path)

    def _path(self, name: str, where: str) -> str | None:
        kind = "vwsd" if "pkl" in name else "semcor"
        bare = re.split(r"[\\/]", name)[-1]  # published paths are Windows' or others'
        if kind not in self.roots:
            raise VwsdError(
                f"no folder is given for pictures of kind {kind!r}, as {bare}",
                where,
                f"Name its folder: --pictures {kind}=DIR (in Python roots={{{kind!r}: folder}}).",
            )
        files = self._names(self.roots[kind])
        file = files.get(bare) or files.get(Path(bare).stem)
        if file:
            return os.path.join(self.roots[kind], file)
        if not self.drop:
            raise VwsdError(f"no picture file for {bare} in {self.roots[kind]}", where, CONVERT)
        self.lost.setdefault(name, where)
        return None

    def report(self) -> None:
        """Warn, once and with their number, of pictures that were left out."""
        if self.lost:
            name, where = next(iter(self.lost.items()))
            what = f"{len(self.lost)} pictures are missing and were left out, the first is {name}"
            warnings.warn(str(VwsdError(what, where, CONVERT)), stacklevel=3)


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
    # what comes last wins
    names.sort(key=lambda n: (SUFFIXES.index(Path(n).suffix.lower()), n), reverse=True)
    return {Path(n).stem: n for n in names} | dict(zip(names, names))


def _read(path: str | Path, parse: Callable[[dict, str], T]) -> Iterator[T]:
    """Each object of a JSON list, parsed; streamed, since the files have up to 3 GB. VwsdError
    names the object that is not as published.
    """
    import ijson

    number = 0
    refuse_special(path)
    try:
        with open(path, "rb") as f:
            items = ijson.items(_Shallow(f, path), "item", use_float=True)
            for number, item in enumerate(items, start=1):
                yield _parsed(parse, item, f"{path}: item {number}")
    except (ijson.JSONError, UnicodeDecodeError) as e:
        raise VwsdError(f"not whole JSON after item {number}", path, REFETCH) from e
    except OSError as e:
        raise VwsdError(f"the file cannot be read: {e.strerror}", path, "Check the path.") from None
    if not number:
        what = "there is nothing in the file, a JSON list of objects is expected"
        raise VwsdError(what, path, REFETCH)


def _parsed(parse: Callable[[dict, str], T], item: dict, where: str) -> T:
    try:
        return parse(item, where)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as e:
        what = f"not the fields of the published layout ({type(e).__name__}: {e})"
        raise VwsdError(what, where, REFETCH) from None


class _Shallow:
    """A JSON file to be read in parts: VwsdError where its brackets are nested deeper than any
    published file's, before they are built.
    """

    def __init__(self, file: BinaryIO, path: str | Path):
        self.file, self.path, self.depth = file, path, 0
        # the beginning of a text that goes on, and how much of it was read
        self.inside, self.text_bytes = b"", 0

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
            what = f"brackets nested more than {MOST_DEEP} deep, or a text without an end"
            raise VwsdError(what, self.path, REFETCH)
        return data


def read_raw(
    path: str | Path, roots: Mapping[str, str | Path], missing: str = "error"
) -> Iterator[Record]:
    """Records of a raw training file (`semcor_training_data.json` and the like), one by one.

    The file does not say where the target stands: where its word is there twice, the last counts,
    as in the released code. roots, missing: see `PictureFiles`. A gold that is no candidate is
    taken by its gloss's text. Raises VwsdError, naming the item, for fields that are missing or do
    not match, pictures in another order than the candidates, a first gold or a target that is not
    found.
    """
    pictures = PictureFiles(roots, missing)

    def parse(item: dict, where: str) -> Record:
        ids, files = item["candidate_labels"], item["candidate_image_path"]
        if list(files) != ids:
            what = "candidate_image_path does not have the candidates in the order of"
            raise VwsdError(f"{what} candidate_labels", where, REFETCH)
        by_gloss = dict(zip(reversed(item["candidate_gloss"]), reversed(ids)))
        repaired = [by_gloss.get(text) for text in item.get("gold_gloss", ())]
        golds = _golds(item["gold_labels"], repaired, ids, where)
        paths = [pictures.paths(files[i], where) for i in ids]
        return _record(item, where, paths, golds, set=_corpus(chain(*files.values())))

    yield from _read(path, parse)
    pictures.report()


def read_textual_test(path: str | Path) -> Iterator[Record]:
    """Records of `all_twsd_test_data.json`, one by one, with part of speech and set (SE2 ... SE15),
    without pictures; errors as in `read_raw`.
    """

    def parse(item: dict, where: str) -> Record:
        ids = item["candidate_labels"]
        places = item.get("sentence2gloss_labels", ())
        repaired = [ids[_within(n, len(ids), where)] for n in places]
        golds = _golds(item["gold_labels"], repaired, ids, where)
        more = {"pos": item["pos"], "set": CLASSES[item["class"]]}
        return _record(item, where, [()] * len(ids), golds, **more)

    return _read(path, parse)


def _record(
    item: dict,
    where: str,
    pictures: Iterable[tuple[str, ...]],
    golds: tuple[str, ...],
    **more: str,
) -> Record:
    ids, glosses, words = item["candidate_labels"], item["candidate_gloss"], item.get("words")
    words = tuple(words if isinstance(words, list) else item["sentence"].split())
    if not all(type(t) is str for t in (item["token_id"], *words, *ids, *glosses)):
        raise TypeError("an id, word, label or gloss is no text")
    candidates = tuple(Candidate(*c) for c in zip(ids, glosses, pictures, strict=True))
    span = _span(words, item["word"], where)
    return sound(Record(item["token_id"], "en", words, span, candidates, golds, **more), where)


def _golds(
    labels: Sequence[str], repaired: Sequence[str | None], ids: Sequence[str], where: str
) -> tuple[str, ...]:
    """Golds that are candidates, by label or else by what `repaired` has in their place; the first
    must be one: training uses it alone.
    """
    repaired = [*repaired, *[None] * len(labels)]
    golds = [label if label in ids else other for label, other in zip(labels, repaired)]
    if not golds or golds[0] is None:
        what = f"the gold {labels[:1]} is not among the candidates, neither by id nor by gloss"
        raise VwsdError(what, where, REFETCH)
    return tuple(dict.fromkeys(gold for gold in golds if gold is not None))


def _span(words: Sequence[str], word: str, where: str) -> tuple[int, int]:
    """First and last index of the target, the last time that it is there: one word as it stands,
    else several, else either in other case.
    """
    for form in (str, str.casefold):
        tokens = [form(w) for w in words]
        for target in ([form(word)], form(word).split() or [""]):
            for first in reversed(range(len(tokens))):
                if tokens[first : first + len(target)] == target:
                    return first, first + len(target) - 1
    what = f"the target {word!r} is not among the words {' '.join(words)!r}"
    raise VwsdError(what, where, REFETCH)


def read_metadata(
    path: str | Path, roots: Mapping[str, str | Path], missing: str = "error"
) -> Iterator[list[Record]]:
    """Pre-built batches (`semcor_training_tokens.50.250.json` and the like): a list of records
    each, in the file's order throughout.

    The files hold no sense ids: a candidate's id is a hash of its gloss, so that equal senses are
    equal in the whole file. Token ids are left alone. Raises VwsdError, naming the item, for an
    index or a range that is wrong and for lists that contradict each other.
    """
    pictures = PictureFiles(roots, missing)

    def parse(item: dict, where: str) -> list[Record]:
        own, shown = _checked_ranges(item, where)
        names = ("word", "word_list", "sentence", "sentence2gloss_labels")
        rows = zip(own, *(item[name] for name in names), strict=True)
        records, files = [], item["total_candidate_image"]
        for i, ((begin, end), word, words, sentence, gold) in enumerate(rows):
            glosses = item["total_candidate_gloss"][begin:end]
            ids = _ids_of(glosses)
            fields = {
                "token_id": f"{item['id']}.{i}",
                "word": word,
                "words": words,
                "sentence": sentence,
                "candidate_labels": ids,
                "candidate_gloss": glosses,
            }
            paths = [pictures.paths(files[b:e], where) for b, e in shown[begin:end]]
            golds = (ids[_within(gold, len(ids), where)],)
            records.append(_record(fields, where, paths, golds, set=_corpus(files)))
        return records

    yield from _read(path, parse)
    pictures.report()


def _corpus(names: Iterable[str]) -> str:
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
        what = f"the index of a gold is {index!r}, there are {size} candidates"
        raise VwsdError(what, where, REFETCH)
    return index


def _checked_ranges(item: dict, where: str) -> tuple[list, list]:
    """(range of senses of each instance, range of pictures of each sense), half open, after every
    list was held against the others.
    """
    glosses, files = item["total_candidate_gloss"], item["total_candidate_image"]
    own, shown = item["candidate_gloss_labels"], item["gloss2image_labels"]
    _cover(own, len(glosses), "candidate_gloss_labels", where)
    _cover(shown, len(files), "gloss2image_labels", where)
    owners = [[g] * (e - b) for g, (b, e) in enumerate(shown)]
    expected = {
        "candidate_gloss": [glosses[b:e] for b, e in own],
        "candidate_image": [files[b:e] for b, e in shown],
        "image2gloss_labels": list(chain.from_iterable(owners)),
    }
    wrong = [name for name, value in expected.items() if item.get(name, value) != value]
    if not all(0 <= b <= e <= len(files) for b, e in item.get("sentence2image_labels", ())):
        wrong.append("sentence2image_labels")
    if len(shown) != len(glosses):
        wrong.append("gloss2image_labels")
    if wrong:
        raise VwsdError(f"{wrong[0]} contradicts the other lists", where, REFETCH)
    return own, shown


def _cover(ranges: list, size: int, name: str, where: str) -> None:
    """VwsdError where ranges, the empty ones left out, do not cover `size` entries one after
    another.
    """
    reached = 0
    for begin, end in [*ranges, (size, size + 1)]:
        if begin != end:
            if begin != reached or begin > end:
                what = f"the ranges of {name} do not cover their {size} entries one after another"
                raise VwsdError(what, where, REFETCH)
            reached = end


def convert_json(
    source: str | Path,
    target: str | Path,
    kind: str,
    roots: Mapping[str, str | Path],
    missing: str = "error",
) -> int:
    """Turn a published file into the project's JSONL; returns the number of records. kind: "raw" or
    "metadata" (batches are dissolved).
    """
    known("kind", kind, ("raw", "metadata"))
    if kind == "raw":
        records = read_raw(source, roots, missing)
    else:
        records = chain.from_iterable(read_metadata(source, roots, missing))
    bar = tqdm(records, desc=Path(source).name, unit=" records", disable=quiet())
    return save_records(target, bar)


def load_pixels(path: str | Path, data: bytes | None = None) -> np.ndarray:
    """[3, 224, 224] float32: a picture as CLIP's preprocessing leaves it, from a safetensors file
    with one tensor; VwsdError where it is not that.

    data: the file's bytes, where it is no file of its own; `path` then only names it.
    """
    try:
        tensors = load(read_whole(path) if data is None else data)
    except (SafetensorError, TypeError, KeyError, ValueError) as e:  # some for types numpy lacks
        what = f"the tensor cannot be read: {e}"
        raise VwsdError(what, path, "Delete the file and convert it again.") from None
    return _pixels(tensors, path).astype(np.float32)


def _pixels(tensors: Mapping[str, np.ndarray], where: object) -> np.ndarray:
    """The one tensor; VwsdError where it is not one of finite fractions in a picture's shape."""
    shapes = [t.shape for t in tensors.values()]
    if shapes == [SHAPE]:
        (tensor,) = tensors.values()
        if tensor.dtype.kind == "f" and np.isfinite(tensor).all():
            return tensor
    what = f"one tensor {SHAPE} of finite fractions is expected, shapes are {shapes}"
    raise VwsdError(what, where, NO_PICTURE)


def convert_tensors(source: str | Path, target: str | Path) -> int:
    """Turn the `.pt` and `.pkl` pictures in a folder into safetensors of the same stem, precision
    as it is; returns how many were written.

    Whole files that are there are skipped, so that a second run goes on. A file that asks for
    anything but tensors is refused by name.
    """
    loaders = {".pt": load_torch, ".pkl": unpickle}
    files = [p for p in sorted(Path(source).glob("*")) if p.suffix in loaders]
    goals = [Path(target) / f"{p.stem}.safetensors" for p in files]
    if not goals or len(set(goals)) < len(goals):
        what = "no .pt or .pkl files, or two of the same stem"
        raise VwsdError(what, source, "Convert each published folder of pictures by itself.")
    todo = [(p, goal) for p, goal in zip(files, goals) if not _whole(goal)]
    for p, goal in tqdm(todo, desc="Pictures", unit=" files", disable=quiet()):
        value = loaders[p.suffix](read_whole(p), p)
        tensors = value if isinstance(value, dict) else {"pixels": value}
        arrays = {name: _array(tensor, p) for name, tensor in tensors.items()}
        write_bytes(goal, save({"pixels": _pixels(arrays, p)}))
    return len(todo)


def _whole(path: Path) -> bool:
    try:
        with safe_open(path, "np"):  # compares the header with the file's size
            return True
    except (SafetensorError, OSError):
        return False


def _array(tensor: object, where: Path) -> np.ndarray:
    import torch

    tensor = dense(tensor, where).contiguous()
    if tensor.is_floating_point() and tensor.dtype != torch.float16:
        tensor = tensor.float()
    return tensor.numpy()
