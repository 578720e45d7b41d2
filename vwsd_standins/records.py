"""What PolCLIP learns from in the demo: EmojiWSD's dev senses, and emoji that stand in no sense;
never a test lemma or its drawings.
"""

from __future__ import annotations

import csv
import dataclasses
from collections import defaultdict
from hashlib import sha256
from pathlib import Path

from polclip.records import Candidate, Record, from_wsd
from vwsdlib.data.wsd import WsdItem, read_emojiwsd
from vwsdlib.paths import atomic, data_dir, quiet
from vwsdlib.progress import tqdm

from .emojiwsd import build
from .emojiwsd.drawings import STYLES, draw, drawable
from .emojiwsd.senses import sense_emoji, senses
from .lite.names import training_emoji


def held_back(lemma: str) -> bool:
    """Is a dev lemma kept from training, to choose the best epoch on? One in five, by the lemma's
    own hash.
    """
    return int(sha256(f"polclip-dev:{lemma}".encode()).hexdigest(), 16) % 5 == 0


def sense_pictures() -> dict[str, list[str]]:
    """Sense id -> its two drawings as files of the built set."""
    folder, pictures = build.folder(), defaultdict(list)
    with open(folder / "key.tsv", encoding="utf-8", newline="") as f:
        for row in csv.DictReader(f, delimiter="\t"):
            pictures[row["sense"]].append(str(folder / "images" / row["image"]))
    return dict(pictures)


def tagged(split: str) -> list[WsdItem]:
    """The tagged sentences of a split."""
    return read_emojiwsd(build.folder() / f"en.{split}.wsd.jsonl")


def sentence_records(split: str) -> list[Record]:
    """Tagged sentences with glosses and drawings of each sense."""
    pictures = sense_pictures()
    records = from_wsd(tagged(split), pictures)
    return [dataclasses.replace(record, set="emojiwsd") for record in records]


def unambiguous_records(count: int) -> list[Record]:
    """Emoji that stand in no sense (nor look or sound like one that does): the name is word and
    phrase; every so-manieth of them all.
    """
    emoji, records = training_emoji(sense_emoji()), []
    chosen = emoji[:: max(1, len(emoji) // max(count, 1))][:count]
    folder = data_dir() / "emojiwsd-unambiguous"
    folder.mkdir(parents=True, exist_ok=True)
    for e in tqdm(chosen, desc="unambiguous emoji", unit="emoji", disable=quiet()):
        about = drawable()[e]
        pictures = tuple(str(_drawn(e, style, folder)) for style in STYLES)
        gloss = f"{about.name}, {about.subgroup.replace('-', ' ')}"
        only = Candidate(f"emoji.{about.name}", gloss, pictures)
        words = tuple(about.name.split())
        span = (0, len(words) - 1)
        records.append(Record(only.id, "en", words, span, (only,), (only.id,), "NOUN", "emoji"))
    return records


def _drawn(emoji: str, style: str, folder: Path) -> Path:
    path = folder / f"{'-'.join(f'{ord(c):x}' for c in emoji)}.{style}.png"
    if not path.exists():
        with atomic(path) as temporary:
            draw(emoji, style, build.SIZE).save(temporary, format="PNG")
    return path


def demo_records(unambiguous: int) -> tuple[list[Record], list[Record]]:
    """(to train on, to choose on): dev senses by their sentences, and unambiguous emoji; one dev
    lemma in five is held back to choose on.

    The senses' phrases stay out: with them twice the steps were taken, and what had been learnt of
    new words was less (on dev words).
    """
    lemma, kept, back = {s.id: s.lemma for s in senses()}, [], []
    for record in sentence_records("dev"):
        part = back if held_back(lemma[record.golds[0]]) else kept
        part.append(record)
    return kept + unambiguous_records(unambiguous), back
