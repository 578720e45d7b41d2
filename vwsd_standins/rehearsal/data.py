"""The rehearsal's data: the official text where it is at hand, else a stand-in of the same size,
and a generated picture for every image name; five of them damaged.

<folder>/rehearsal.json             what it was made from, and whose text it is
<folder>/vwsd/<split>/...           files, names and formats as in the official layout; pictures are
noise and shapes, and mean nothing
"""

from __future__ import annotations

import io
import json
import random
import shutil
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageDraw

from vwsdlib.data.damage import MISSING, TRUNCATED, UNDECODED
from vwsdlib.data.items import Item, image_names, read_items, write_items
from vwsdlib.data.official import OFFICIAL_CREDIT, OFFICIAL_FILES, VARIANT_RECORD, is_official
from vwsdlib.data.sources import picture_names
from vwsdlib.errors import VwsdError
from vwsdlib.kept import made_once
from vwsdlib.paths import data_dir, quiet, sha256_bytes, sha256_file, write_bytes, write_text
from vwsdlib.progress import tqdm

# items and distinct targets, as published
SPLITS = {
    "test": {"en": (463, 259), "it": (305, 208), "fa": (200, 154)},
    "trial": {"en": (16, 16)},
}
# of the official test set's 8,100
SUFFIXES = {".jpg": 7809, ".png": 256, ".jpeg": 18, ".JPG": 12, ".PNG": 5}
LETTERS = {
    "en": ("bdfglmnprst", "aeiou"),
    "it": ("bcdflmnprtv", "aeio"),
    "fa": ("بپتدرسشفکگلمن", "اوی"),
}
PHRASES = {"en": "{other} {target}", "it": "{target} di {other}", "fa": "{target} {other}"}
CREDIT = {
    "official": f"generated pictures (this project); text: {OFFICIAL_CREDIT.partition(';')[0]}",
    "generated": "generated pictures and made-up text (this project)",
}
SIDES, LARGE, EXIF_ORIENTATION = (60, 321), 1200, 0x0112  # pixels
# as in a real set a few pictures are damaged: kind -> golds of these English test items (1 and 3
# for runs of the first items, 81 and 434 are shown in notebook 05), and a distractor of item 5
DAMAGED_GOLDS = {TRUNCATED: (1, 81), MISSING: (3, 434)}
NO_PICTURE_OF = 5
PAGE = b"<html><body>Not Found</body></html>\n"


def make_data(folder: str | Path, texts: Path | None = None, seed: int = 0) -> Path:
    """Build the rehearsal's sets (about a minute, going on where a killed build stopped), or return
    at once where they are; returns `folder`.

    Official text is looked for below `texts`, in `data/vwsd/` and in `folder` itself; a split takes
    it whole or not at all. Raises VwsdError where the disk is full.
    """
    folder = Path(folder)
    files = {split: _official_text(split, folder, texts) for split in SPLITS}
    kinds = {split: "official" if some else "generated" for split, some in files.items()}
    credit = {split: CREDIT[kind] for split, kind in kinds.items()}
    record = {"made_by": _made_by(seed), "text": kinds, "credit": credit}

    def make() -> None:
        for split, some in files.items():
            _make_split(folder / "vwsd" / split, split, some, seed)
        made = json.dumps(record | {"pictures": _counts(folder)}, indent=1) + "\n"
        write_text(folder / "rehearsal.json", made)

    try:
        made_once(lambda: _is_whole(folder, record), make, folder / ".lock")
    except OSError as e:
        raise VwsdError(
            f"the rehearsal's data could not be written: {e.strerror or e}",
            where=folder,
            remedy="Free some space (it takes 100 MB) and run it again.",
        ) from e
    return folder


def models_folder() -> Path:
    """Where the rehearsal's tiny checkpoints stand, as in `$VWSD_MODELS`."""
    return data_dir() / "rehearsal" / "models"


def _made_by(seed: int) -> str:
    """Hash of all that decides a generated picture or text."""
    return sha256_bytes(
        f"{sha256_file(__file__)} {seed} pillow {PIL.__version__} numpy {np.__version__}".encode()
    )


def _is_whole(folder: Path, record: dict) -> bool:
    try:
        stored = json.loads((folder / "rehearsal.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return stored == record | {"pictures": _counts(folder)}


def _counts(folder: Path) -> dict[str, int]:
    return {
        split: len(picture_names(folder / "vwsd" / split / OFFICIAL_FILES["en", split][2]))
        for split in SPLITS
    }


def _official_text(split: str, folder: Path, texts: Path | None) -> dict[str, Path]:
    """File name -> published file, of every language of a split; empty where one is nowhere to be
    found.
    """
    files = {}
    for language in SPLITS[split]:
        for name in OFFICIAL_FILES[language, split][:2]:
            given = sorted(texts.rglob(name)) if texts else []
            usual = [home / "vwsd" / split / name for home in (folder, data_dir())]
            published = [p for p in (*given, *usual) if p.is_file() and is_official(p)]
            if not published:
                return {}
            files[name] = published[0]
    return files


def _make_split(folder: Path, split: str, texts: dict[str, Path], seed: int) -> None:
    images = folder / OFFICIAL_FILES["en", split][2]
    note = folder / VARIANT_RECORD
    record = json.dumps({"variant": "generated", "made_by": _made_by(seed)}) + "\n"
    if not note.exists() or note.read_text(encoding="utf-8") != record:
        shutil.rmtree(images, ignore_errors=True)
        write_text(note, record)
    for name, path in texts.items():
        write_bytes(folder / name, path.read_bytes())
    if not texts:
        for language, items in stand_in(split, seed).items():
            write_items(items, *(folder / name for name in OFFICIAL_FILES[language, split][:2]))
    needed = set()
    for language in SPLITS[split]:
        needed |= set(image_names(read_items(folder / OFFICIAL_FILES[language, split][0])))
    damaged = _damaged(folder) if split == "test" else {}
    lost = {name for name, kind in damaged.items() if kind == MISSING}
    _draw(images, needed - lost, split, seed, damaged)


def _damaged(folder: Path) -> dict[str, str]:
    """Image name -> what is damaged of it (`vwsdlib.data.damage`), by the text of English test."""
    items = read_items(*(folder / name for name in OFFICIAL_FILES["en", "test"][:2]))
    kinds = {}
    for kind, places in DAMAGED_GOLDS.items():
        kinds |= {items[place % len(items)].gold: kind for place in places}
    item = items[NO_PICTURE_OF % len(items)]
    others = [name for name in item.candidates if name != item.gold and name not in kinds]
    kinds[others[0]] = UNDECODED
    return kinds


def _draw(images: Path, needed: set[str], split: str, seed: int, damaged: dict[str, str]) -> None:
    """Those of the pictures that are not there; others, of another text, go."""
    there = picture_names(images)
    images.mkdir(parents=True, exist_ok=True)
    for name in there - needed:
        (images / name).unlink()
    missing, title = sorted(needed - there), f"rehearsal pictures, {split}"
    for name in tqdm(missing, desc=title, unit=" pictures", disable=quiet()):
        # without paths.atomic, whose flush to disk would double the time: a lost picture is drawn
        # again
        temporary = images / f".{name}"
        file = picture(name, f"{split}:{seed}")
        if damaged.get(name) == TRUNCATED:
            file = file[: 2 * len(file) // 3]
        temporary.write_bytes(PAGE if damaged.get(name) == UNDECODED else file)
        temporary.replace(images / name)


# ---------------------------------------------------------------------------- made-up text


def stand_in(split: str, seed: int = 0) -> dict[str, list[Item]]:
    """Language -> made-up items of the official counts; as in the official set, targets and
    distractors are shared and golds are not.
    """
    dice = random.Random(f"rehearsal:{split}:{seed}")
    numbers, pictures = dice.sample(range(10_000), 10_000), {}

    def name(*shown) -> str:
        suffix = dice.choices(list(SUFFIXES), list(SUFFIXES.values()))[0]
        return pictures.setdefault(shown, f"image.{numbers[len(pictures)]}{suffix}")

    def item(language: str, i: int, targets: list[str]) -> Item:
        shared = max(2 * len(targets) // 3, 1)  # the targets that come again
        turn, which = divmod(i - len(targets), shared) if i >= len(targets) else (-1, i)
        gold, window = name(language, "gold", i), range(4 * (turn + 1), 4 * (turn + 1) + 9)
        ten = [gold, *(name(language, which, k) for k in window)]
        target = targets[which]
        phrase = PHRASES[language].format(target=target, other=_word(dice, language))
        chosen = tuple(dice.sample(ten, 10))
        return Item(f"{language}.{split}.{i}", language, target, phrase, chosen, gold)

    made = {}
    for language, (n, distinct) in SPLITS[split].items():
        targets = sorted(_words(dice, language, distinct))
        made[language] = dice.sample([item(language, i, targets) for i in range(n)], n)
    return made


def _word(dice: random.Random, language: str) -> str:
    consonants, vowels = LETTERS[language]
    syllables = range(dice.choice((2, 3)))
    return "".join(dice.choice(consonants) + dice.choice(vowels) for _ in syllables)


def _words(dice: random.Random, language: str, n: int) -> set[str]:
    words: set[str] = set()
    while len(words) < n:
        words.add(_word(dice, language))
    return words


# ---------------------------------------------------------------------------- made-up pictures


def picture(name: str, seed: object = 0) -> bytes:
    """File of a made-up picture in the format of the name's suffix: smooth noise and three shapes,
    the same for the same name and seed.
    """
    dice = np.random.default_rng(int(sha256_bytes(f"{seed}:{name}".encode())[:16], 16))
    if dice.random() < 0.004:
        size = (LARGE, LARGE * 3 // 4)
    else:
        size = tuple(map(int, dice.integers(*SIDES, 2)))
    noise = Image.fromarray(dice.integers(0, 256, (6, 8, 3), np.uint8))
    image = noise.resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for shape in (pen.ellipse, pen.rectangle, pen.ellipse):
        left, top, right, bottom = np.sort(dice.random((2, 2)), axis=0).ravel() * np.tile(size, 2)
        shape((left, top, right, bottom), fill=tuple(map(int, dice.integers(0, 256, 3))))
    return _png(image, dice) if name.lower().endswith(".png") else _jpeg(image, dice)


def _png(image: Image.Image, dice: np.random.Generator) -> bytes:
    kind = dice.choice(["RGB", "P", "RGBA"])
    if kind == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    return _file(image.quantize(64) if kind == "P" else image, "PNG", compress_level=1)


def _jpeg(image: Image.Image, dice: np.random.Generator) -> bytes:
    kind = dice.choice(["RGB", "L", "CMYK", "turned"], p=[0.9, 0.04, 0.02, 0.04])
    if kind != "turned":
        return _file(image.convert(kind), "JPEG", quality=80)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = int(dice.integers(2, 9))
    return _file(image, "JPEG", quality=80, exif=exif)


def _file(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()
