"""Commands that run an encoder on a user's own files: evaluate, rank, encode."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import VwsdError
from . import _say, command
from .files import print_scores, read_set, set_arguments


def _encoder(p: argparse.ArgumentParser) -> None:
    p.add_argument("--encoder", default="lite", help="lite (default), random, clip-vit-b32, siglip2-base ...; a name that is none lists all")
    p.add_argument("--truncated", choices=("error", "keep"), default="error", help="a picture file that is cut short: stop, or use what decodes (default: error)")


def _evaluate_arguments(p: argparse.ArgumentParser) -> None:
    set_arguments(p)
    p.add_argument("--images", required=True, metavar="DIR", help="folder of the image files, or a URL, or tar shards: 'train-*.tar'")
    _encoder(p)
    p.add_argument("--text", default="phrase", help="what is given to the encoder: word, phrase or this_is (default: phrase)")
    p.add_argument("--out", type=Path, metavar="SCORES.tsv", help="write the ten scores of each item here")


@command(_evaluate_arguments)
def evaluate(o: argparse.Namespace) -> int:
    """Run an encoder over any set in the official layout and print what `score` prints.

    Pictures that are not in the folder are named, never dropped silently: they score -inf, so they rank last (an item whose gold is
    missing counts as wrong), every item stays in n, and a second line gives the figures of the complete items alone.

    Example:
      vwsd evaluate --data trial.data.txt --gold trial.gold.txt --images all_images --out scores.tsv
    """
    from ..analysis.scorers import cosine_scores, texts_of
    from ..analysis.scoring import compare, write_scores
    from ..data.items import missing_pictures
    from ..data.sets import user_set
    from ..encoders.registry import load_encoder
    from ..encoders.store import VectorStore

    read_set(o)
    data = user_set(o.data, o.gold, o.images)
    missing = missing_pictures(data.items, o.images)
    if sum(map(len, missing.values())) == sum(len(i.candidates) for i in data.items):
        raise VwsdError("none of the pictures is in the folder", where=o.images, remedy="Give the folder of this very set; names keep their case.")
    texts = texts_of(data.items, o.text)
    scores = cosine_scores(data, VectorStore(load_encoder(o.encoder), truncated=o.truncated), texts, missing)
    if o.out:
        write_scores(o.out, data.items, scores)
    found = compare([(o.encoder, scores)], data.items)
    whole = [i for i, item in enumerate(data.items) if item.id not in missing]
    found["missing"] = missing
    found["complete"] = compare([(f"{o.encoder}, complete items", scores[whole])], [data.items[i] for i in whole])["systems"][0] if missing and whole else None
    _say(found) if o.json else _print_evaluation(found, data.items)
    return 0


def _print_evaluation(found: dict, items) -> None:
    by_id = {i.id: i for i in items}
    for item_id, names in found["missing"].items():
        gold = " - the gold is among them, so the item counts as wrong" if by_id[item_id].gold in names else ""
        print(f"missing  {item_id} ({by_id[item_id].phrase}): {', '.join(names)}{gold}")
    if found["missing"]:
        print(f"{sum(map(len, found['missing'].values()))} pictures of {len(found['missing'])} items are missing; they rank last (score -inf) and every item counts.\n")
    print_scores({"systems": [s for s in (*found["systems"], found["complete"]) if s], "pairs": []})


def _rank_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("phrase", metavar="PHRASE", help="what is looked for, e.g. \"fruit bat\"")
    p.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="picture files")
    _encoder(p)
    p.add_argument("--json", action="store_true", help="print JSON instead of a table")


@command(_rank_arguments)
def rank(o: argparse.Namespace) -> int:
    """Rank your own pictures for a phrase, best first, by the cosine of an encoder.

    Example:
      vwsd rank "fruit bat" cave.jpg stadium.png market.webp
    """
    import numpy as np

    from ..analysis.scoring import ranking
    from ..encoders.registry import load_encoder
    from ..encoders.store import VectorStore

    if not o.phrase.strip():
        raise VwsdError("the phrase is empty", remedy='Give a word or a phrase, e.g. vwsd rank "fruit bat" a.jpg b.jpg.')
    store = VectorStore(load_encoder(o.encoder), truncated=o.truncated)
    cosines = store.images(o.images).astype(np.float64) @ store.texts([o.phrase])[0].astype(np.float64)  # [n]
    order = [{"image": str(o.images[i]), "score": float(cosines[i])} for i in ranking(range(len(o.images)), cosines)]
    if o.json:
        _say({"ranking": order})
    else:
        print("\n".join(f"{place:>3}  {entry['score']:7.4f}  {entry['image']}" for place, entry in enumerate(order, start=1)))
    return 0


def _encode_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("images", metavar="PLACE", help="folder of picture files, or a URL, or tar shards: 'train-*.tar'")
    p.add_argument("--drift", type=int, default=0, metavar="N", help="compare the first N vectors of a variant (NAME@bf16) with the reference's")
    _encoder(p)
    p.add_argument("--json", action="store_true", help="print JSON instead of a line")


@command(_encode_arguments)
def encode(o: argparse.Namespace) -> int:
    """Encode all pictures of a place ahead of time, so that whatever asks for them later finds their vectors.

    Pictures that were encoded before are passed over; stop it at any time and run it again. Under torchrun or accelerate launch
    each process takes its share and writes a shard of its own; the vectors are those that one process would have written.

    Example:
      vwsd encode data/vwsd/train/train_images_v1 --encoder clip-vit-b32
      torchrun --nproc-per-node 8 -m vwsdlib.cli encode 's3://bucket/train-*.tar' --encoder clip-vit-l14@bf16
    """
    import time

    from ..data.sources import PICTURES, picture_names, pictures_at
    from ..encoders.registry import load_encoder
    from ..encoders.store import VectorStore, drift
    from ..encoders.streams import rank

    at = pictures_at(o.images)
    names = [n for n in (at.index if hasattr(at, "index") else sorted(picture_names(at))) if n.lower().endswith(PICTURES)]
    if not names:
        raise VwsdError("there are no pictures", where=o.images, remedy=f"Their names end in {', '.join(PICTURES)}.")
    number, processes = rank()
    places = [at / n for n in names[number * len(names) // processes:(number + 1) * len(names) // processes]]
    store, started = VectorStore(load_encoder(o.encoder), truncated=o.truncated), time.monotonic()
    encoded = store.fill_images(places)
    seconds = time.monotonic() - started
    found = {"process": number, "processes": processes, "pictures": len(places), "encoded": encoded, "seconds": round(seconds, 2),
             "pictures_per_second": round(encoded / seconds, 2), "store": str(store.path)}
    if o.drift and "@" in o.encoder and not number:
        found["drift"] = drift(store, VectorStore(load_encoder(o.encoder.partition("@")[0]), truncated=o.truncated), places[:o.drift])
    share = f"process {number + 1} of {processes}: " if processes > 1 else ""
    line = f"{share}{len(places)} pictures, {encoded} of them encoded now in {seconds:.1f} s ({encoded / seconds:.1f} pictures/s): {store.path}"
    _say(found) if o.json else print("\n".join([line, *(f"drift  {k}: {v:.3g}" for k, v in found.get("drift", {}).items())]))
    return 0
