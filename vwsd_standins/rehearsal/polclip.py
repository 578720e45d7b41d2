"""PolCLIP's published files, tiny: made-up words, glosses and pictures in the layout and under the
names that the authors' files have.

    <folder>/semcor_training_tokens.50.250.json   batches of sentences, pictures in image_pt/
    <folder>/vwsd_training_tokens.50.250.json     batches of phrases, pictures in image_vecs/
    <folder>/all_twsd_test_data.json              sentences of the six test sets, no pictures
    <folder>/polclip.stamp                        what all this was made from, written last

The JSON names pictures by paths of another machine, as the authors' does; the files have the same
stems and hold what CLIP's preprocessing leaves.
"""

from __future__ import annotations

import json
import random
from itertools import accumulate, chain, pairwise, product
from pathlib import Path

import numpy as np

from vwsdlib.data.wsd import SETS
from vwsdlib.paths import data_dir, sha256_bytes, sha256_file, write_bytes, write_text

from .data import _words

FILES = (
    "semcor_training_tokens.50.250.json",
    "vwsd_training_tokens.50.250.json",
    "all_twsd_test_data.json",
)
# what the readers tell the kinds apart by
PLACES = {"semcor": "D:\\PolCLIP\\image_pt\\{}.pt", "vwsd": "E:\\L-VWSD\\image_pkl\\{}.pkl"}
FOLDERS = {"semcor": "image_pt", "vwsd": "image_vecs"}
POS = ("NOUN", "VERB", "ADJ", "ADV")
LEMMAS = {"semcor": 8, "vwsd": 6}  # of each kind
BATCHES, ITEMS = 3, 2  # of each kind; a set and part of speech
LENGTH = 77  # tokens of a text
START, END = 49406, 49407  # CLIP's ids around a text, padding is 0


def polclip_folder() -> Path:
    """Where the rehearsal keeps them."""
    return data_dir() / "rehearsal" / "polclip"


def make_polclip(folder: str | Path, seed: int = 0) -> Path:
    """Write the files (in under five seconds; again where a build was killed), or return at once
    where they are; returns the folder.
    """
    folder = Path(folder)
    words_of = Path(__file__).with_name("data.py")
    stamp = f"seed {seed}, code {sha256_file(__file__)}, words {sha256_file(words_of)}\n"
    note = folder / "polclip.stamp"
    whole = all((folder / name).exists() for name in FILES)
    if whole and note.exists() and note.read_text(encoding="utf-8") == stamp:
        return folder
    dice = random.Random(f"polclip:{seed}")
    words = sorted(_words(dice, "en", 80))
    for name, kind in zip(FILES, FOLDERS):
        lemmas = [_lemma(dice, words, kind, i) for i in range(LEMMAS[kind])]
        batches = [_batch(dice, words, kind, lemmas, number) for number in range(BATCHES)]
        write_text(folder / name, json.dumps(batches))
        for sense in chain.from_iterable(lemma["senses"] for lemma in lemmas):
            for picture in sense["pictures"]:
                path = folder / FOLDERS[kind] / f"{picture}.safetensors"
                write_bytes(path, _pixels(picture, seed))
    lemmas = [_lemma(dice, words, "semcor", 20 + i) for i in range(len(POS))]
    asked = product(SETS.items(), lemmas, range(ITEMS))
    questions = [_question(dice, words, *what, number) for number, what in enumerate(asked)]
    write_text(folder / FILES[2], json.dumps(questions))
    write_text(note, stamp)
    return folder


def _lemma(dice: random.Random, words: list[str], kind: str, number: int) -> dict:
    """A word with its senses: two or three with up to two pictures each (phrases: two senses, one
    picture and two); every eighth is two words.
    """
    word = f"{words[number]} {words[-1]}" if number % 8 == 7 else words[number]
    senses = []
    for n in range(2 + number % 2 if kind == "semcor" else 2):
        shown = (number + n) % 3 if kind == "semcor" else 1 + n
        name = f"bn{number:02d}{n}_{{}}" if kind == "semcor" else f"image.{number:02d}{n}{{}}"
        gloss = " ".join(dice.sample(words[30:70], 6))
        pictures = [name.format(i) for i in range(shown)]
        senses.append({"id": f"bn:{number:06d}{n}n", "gloss": gloss, "pictures": pictures})
    return {"word": word, "pos": POS[number % 4], "senses": senses}


def _context(dice: random.Random, words: list[str], lemma: dict, kind: str) -> list[str]:
    """The target among other words, two of a phrase or eight of a sentence."""
    context = dice.sample(words[30:70], 1 if kind == "vwsd" else 7)
    context.insert(dice.randrange(len(context) + 1), lemma["word"])
    return context


def _batch(
    dice: random.Random, words: list[str], kind: str, lemmas: list[dict], number: int
) -> dict:
    """One published batch: four questions, their senses and those senses' pictures in flat lists,
    ranges half open.
    """
    own = [lemmas[(2 * number + i) % len(lemmas)] for i in range(4)]
    contexts = [_context(dice, words, lemma, kind) for lemma in own]
    golds = [dice.randrange(len(lemma["senses"])) for lemma in own]
    senses = list(chain.from_iterable(lemma["senses"] for lemma in own))
    files = [list(map(PLACES[kind].format, sense["pictures"])) for sense in senses]
    spans, shown = _ranges([len(lemma["senses"]) for lemma in own]), _ranges(list(map(len, files)))
    glosses = [sense["gloss"] for sense in senses]
    owners = []
    for g, names in enumerate(files):
        owners += [g] * len(names)
    return {
        "id": number,
        "word": [lemma["word"] for lemma in own],
        "word_list": contexts,
        "sentence": list(map(" ".join, contexts)),
        "sentence2gloss_labels": golds,
        "gold_gloss": [glosses[begin + gold] for (begin, _), gold in zip(spans, golds)],
        "candidate_gloss_labels": spans,
        "candidate_gloss": [glosses[b:e] for b, e in spans],
        "total_candidate_gloss": glosses,
        "gloss2image_labels": shown,
        "candidate_image": files,
        "total_candidate_image": list(chain(*files)),
        "image2gloss_labels": owners,
        "sentence2image_labels": [shown[begin + gold] for (begin, _), gold in zip(spans, golds)],
        "sentence_tokens": list(map(_tokens, contexts)),
        "sentence_mask": list(map(_mask, contexts, own)),
        "gloss_tokens": [_tokens(gloss.split()) for gloss in glosses],
    }


def _ranges(sizes: list[int]) -> list[list[int]]:
    return [list(pair) for pair in pairwise(accumulate(sizes, initial=0))]


def _tokens(words: list[str]) -> list[int]:
    """Ids as CLIP's tokenizer lays them out, one a word; the numbers in between mean nothing."""
    ids = [START, *(int(sha256_bytes(word.encode())[:8], 16) % START for word in words), END]
    return ids + [0] * (LENGTH - len(ids))


def _mask(words: list[str], lemma: dict) -> list[int]:
    return [1 + words.index(lemma["word"]), 2 + words.index(lemma["word"])]


def _question(
    dice: random.Random, words: list[str], own: tuple[str, str], lemma: dict, i: int, number: int
) -> dict:
    """One question of the textual test, of a set's long and short name; what stands in one list too
    many does so in the published file.
    """
    source, short = own
    context, gold = _context(dice, words, lemma, "semcor"), dice.randrange(len(lemma["senses"]))
    ids = [sense["id"] for sense in lemma["senses"]]
    glosses = [sense["gloss"] for sense in lemma["senses"]]
    return {
        "token_id": f"{source}.d000.s{number:03d}.t{i:03d}",
        "word": lemma["word"],
        "words": context,
        "sentence": " ".join(context),
        "gold_labels": [ids[gold]],
        "gold_gloss": [glosses[gold]],
        "candidate_labels": ids,
        "candidate_gloss": glosses,
        "pos": lemma["pos"],
        "class": short[2:].zfill(2),
        "sentence2gloss_labels": [gold],
        "candidate_gloss_labels": [[0, len(ids)]],
        "total_candidate_gloss": glosses,
        "sentence_tokens": [[_tokens(context)]],
        "sentence_mask": [[_mask(context, lemma)]],
        "gloss_tokens": [[_tokens(gloss.split()) for gloss in glosses]],
    }


def _pixels(name: str, seed: int) -> bytes:
    """A safetensors file of [3, 224, 224] half-precision values around 0: coarse noise, the same
    for the same name and seed.
    """
    from safetensors.numpy import save

    number = int(sha256_bytes(f"{seed}:{name}".encode())[:16], 16)
    noise = np.random.default_rng(number).standard_normal((3, 14, 14))
    return save({"pixels": noise.repeat(16, 1).repeat(16, 2).astype(np.float16)})
