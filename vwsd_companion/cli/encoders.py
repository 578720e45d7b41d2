"""Commands that run an encoder on a user's own files: evaluate, rank, encode."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from vwsdlib.errors import VwsdError, entry_of

from .base import command, print_json
from .files import note_ties, print_scores, read_set
from .notes import note

PLACE = "a folder (subfolders too), tar, tar.gz or zip archives ('train-*.tar'), or a URL of either"
TEXT = (
    'what is given to the encoder: word, phrase, this_is, or a template as "a photo of {phrase}"'
    " (fields: phrase, word, target)"
)
SHOWN = 3  # names behind a decision


def _say_decisions(places: Sequence, truncated: str) -> None:
    """The loader's decisions on stderr, counted by kind, with the names of the first few
    pictures."""
    from vwsdlib.data.pictures import DECISIONS
    from vwsdlib.encoders.streams import decisions

    places, met = list(dict.fromkeys(places)), defaultdict(list)
    for picture, taken in zip(places, decisions(places, truncated)):
        for name in taken:
            met[name].append(str(picture))
    for name in sorted(met, key=list(DECISIONS).index):
        more = ", ..." if len(met[name]) > SHOWN else ""
        note(
            f"{len(met[name])} of {len(places)} pictures: {name}. {DECISIONS[name]}"
            f" ({', '.join(met[name][:SHOWN])}{more})"
        )
    if not met:
        note(f"{len(places)} pictures, taken as they are stored")


@command()
def evaluate(o: argparse.Namespace) -> int:
    """Run an encoder over any set in the official layout and print what `score` prints; without
    gold, write scores or a submission.

    The set is given by its files, or by its name where the project or another package has it.

    A name is looked for as it stands ("0/p0.png"), else anywhere below the place. Pictures that are
    nowhere are named, never dropped silently: they score -inf, so they rank last (an item whose
    gold is missing counts as wrong), every item stays in n, and a second line gives the figures of
    the complete items alone.

    Example:
      vwsd evaluate --data trial.data.txt --gold trial.gold.txt --images all_images --out scores.tsv
      vwsd evaluate --data it.own.data.txt --images it.zip --encoder mclip --submission out
      vwsd evaluate --set emojiwsd:en.dev --encoder lite
    """
    from vwsdlib.analysis.reading import refuse_constant
    from vwsdlib.analysis.scorers import SCORERS, score_with, text_maker, texts_of
    from vwsdlib.analysis.scoring import compare
    from vwsdlib.data.items import missing_pictures
    from vwsdlib.encoders.readable import language_notes
    from vwsdlib.encoders.registry import entry, load_encoder
    from vwsdlib.encoders.store import VectorStore

    if not (o.set or o.gold or o.out or o.submission):
        raise VwsdError(
            "without --gold there is nothing to print",
            remedy=(
                "Give --gold, or write what was found with --out SCORES.tsv or --submission DIR."
            ),
        )
    # slips of the pen come to light before a file is read
    text_maker(o.text), entry(o.encoder), entry_of("scorer", o.scorer, SCORERS)
    data = _evaluated_set(o)
    judged = bool(o.gold or o.set and all(item.gold for item in data.items))
    if not (judged or o.out or o.submission):
        raise VwsdError(
            "the set has no golds, so there is nothing to print",
            where=o.set,
            remedy="Write what was found with --out SCORES.tsv or --submission DIR.",
        )
    texts = _texts(o, data, texts_of)
    missing = missing_pictures(data.items, data.images)
    if sum(map(len, missing.values())) == sum(len(i.candidates) for i in data.items):
        raise VwsdError(
            "none of the pictures is in the folder",
            where=o.images or o.set,
            remedy="Give the folder of this very set; names keep their case.",
        )
    if not o.set:
        _say_shadowed(data.images)
    language = "en" if o.translations else data.items[0].language
    for said in language_notes(o.encoder, language, texts):
        note(said)
    if o.verbose:
        _say_decisions(_places(data), o.truncated)
    store = VectorStore(load_encoder(o.encoder), truncated=o.truncated)
    scores = score_with(o.scorer, data, store, texts, missing)
    system = o.encoder if o.scorer == "cosine" else f"{o.encoder}, {o.scorer}"
    if not o.allow_ties:
        refuse_constant(scores, o.encoder)
    written = _write_answers(o, data, scores)
    evaluated: dict = {"systems": [], "pairs": []}
    if judged:
        evaluated = compare([(system, scores)], data.items)
    evaluated["missing"], evaluated["complete"] = missing, None
    if judged and missing:
        evaluated["complete"] = _complete_items(system, scores, data.items, missing)
    evaluated["written"] = [str(path) for path in written]
    if o.json:
        note_ties(evaluated)
        print_json(evaluated)
    else:
        _print_evaluation(evaluated, data.items)
    return 0


def _write_answers(o: argparse.Namespace, data, scores) -> list[Path]:
    """The files of --out and --submission, where they are asked for."""
    from vwsdlib.analysis.scoring import write_scores

    written = []
    if o.out:
        write_scores(o.out, data.items, scores)
        written.append(o.out)
    if o.submission:
        written += _write_submission(o, data, scores)
    return written


def _places(data) -> list:
    """Where the set's pictures lie, item by item; those that are nowhere are left out."""
    places = []
    for item in data.items:
        places += [data.find(name) for name in item.candidates]
    return [place for place in places if place is not None]


def _complete_items(system: str, scores, items, missing) -> dict | None:
    """The line of the items of which no picture is missing; None where each lacks one."""
    from vwsdlib.analysis.scoring import compare

    whole = [i for i, item in enumerate(items) if item.id not in missing]
    if not whole:
        return None
    complete = [(f"{system}, complete items", scores[whole])]
    return compare(complete, [items[i] for i in whole])["systems"][0]


def _evaluated_set(o: argparse.Namespace):
    """The set of --set, else that of the files; VwsdError where both are given."""
    from vwsdlib.data.sets import named_set, user_set

    if not o.set:
        return user_set(o.data, o.gold, o.images, o.language, read_set(o))
    given = [name for name in ("data", "gold", "images", "language") if getattr(o, name)]
    if given:
        raise VwsdError(
            f"--{given[0]} does not go with --set, which names a set with all its files",
            remedy="See vwsd evaluate --help.",
        )
    return named_set(o.set)


def _texts(o: argparse.Namespace, data, texts_of) -> list[str]:
    """The texts of the items, translated and defined as asked; how many have a definition is
    said."""
    from vwsdlib.analysis.text_files import definitions_of, translations_of

    translations = translations_of(o.translations, data.items) if o.translations else None
    definitions = definitions_of(o.definitions, data) if o.definitions else None
    if definitions is not None:
        defined = sum(bool(text.strip()) for text in definitions.values())
        note(f"{defined} of {len(data.items)} texts have a definition behind them")
    if translations is not None:
        note(f"{len(translations)} of {len(data.items)} phrases are given in translation")
    return texts_of(data.items, o.text, translations, definitions)


def _say_shadowed(images) -> None:
    """Names that stand for one picture right at the place and for another one further below."""
    shadowed = images.shadowed
    if shadowed:
        name = next(iter(shadowed))
        note(
            f"{len(shadowed)} names stand for other pictures further below as well ({name} for"
            f" {shadowed[name]} ...); those right at {images.name} are taken"
        )


def _write_submission(o: argparse.Namespace, data, scores) -> list[Path]:
    from ..facts.export import submission

    run = SimpleNamespace(
        run=o.encoder, meta={"language": data.language}, items=data.items, scores=scores
    )
    return submission([run], o.submission)


def _print_evaluation(evaluated: dict, items) -> None:
    by_id = {i.id: i for i in items}
    for item_id, names in evaluated["missing"].items():
        gold = ""
        if by_id[item_id].gold in names:
            gold = " - the gold is among them, so the item counts as wrong"
        print(f"missing  {item_id} ({by_id[item_id].phrase}): {', '.join(names)}{gold}")
    if evaluated["missing"]:
        lost = sum(map(len, evaluated["missing"].values()))
        print(
            f"{lost} pictures of {len(evaluated['missing'])} items"
            " are missing; they rank last (score -inf) and every item counts.\n"
        )
    if evaluated["systems"]:
        print_scores(
            {
                "systems": [s for s in (*evaluated["systems"], evaluated["complete"]) if s],
                "pairs": [],
            }
        )
    else:
        print("\n".join(f"written  {path}" for path in evaluated["written"]))


@command("rank")
def rank_pictures(o: argparse.Namespace) -> int:
    """Rank your own pictures for a phrase, best first, by the cosine of an encoder.

    Example:
      vwsd rank "fruit bat" cave.jpg stadium.png market.webp
      vwsd rank --phrases phrases.txt photos/ more.zip --text "a photo of {phrase}"
    """
    from vwsdlib.analysis.scorers import text_maker, texts_of
    from vwsdlib.data.sources import pictures_named
    from vwsdlib.encoders.readable import language_notes
    from vwsdlib.encoders.registry import entry, load_encoder
    from vwsdlib.encoders.store import VectorStore

    phrases, given = _phrases_and_pictures(o)
    text_maker(o.text), entry(o.encoder)
    items = [SimpleNamespace(id=phrase, phrase=phrase, target=phrase) for phrase in phrases]
    texts = texts_of(items, o.text, None, dict.fromkeys(phrases, o.definition))
    for said in language_notes(o.encoder, o.language, texts):
        note(said)
    pictures, left_out = pictures_named(given)
    for said in left_out:
        note(said)
    if o.verbose:
        _say_decisions([place for _, place in pictures], o.truncated)
    rankings = _rankings(
        VectorStore(load_encoder(o.encoder), truncated=o.truncated), pictures, texts
    )
    if o.json and o.phrases:
        print_json(
            {
                "rankings": [
                    {"phrase": phrase, "ranking": order} for phrase, order in zip(phrases, rankings)
                ]
            }
        )
    elif o.json:
        print_json({"ranking": rankings[0]})
    else:
        print(
            "\n\n".join(
                _table(phrase if o.phrases else "", order)
                for phrase, order in zip(phrases, rankings)
            )
        )
    return 0


def _phrases_and_pictures(o: argparse.Namespace) -> tuple[list[str], list[str]]:
    """What is looked for, and the places: with --phrases the first word of the command line is a
    place too.
    """
    from vwsdlib.analysis.text_files import read_phrases

    if o.phrases:
        return read_phrases(o.phrases), [o.phrase, *(o.images or [])]
    if not o.phrase.strip():
        raise VwsdError(
            "the phrase is empty",
            remedy=(
                'Give a word or a phrase, e.g. vwsd rank "fruit bat" a.jpg b.jpg; or --phrases'
                " FILE."
            ),
        )
    return [o.phrase], o.images


def _rankings(
    store, pictures: Sequence[tuple[str, object]], texts: Sequence[str]
) -> list[list[dict]]:
    """For each text the pictures, best first: name and cosine."""
    import numpy as np

    from vwsdlib.analysis.scoring import ranking
    from vwsdlib.finite import all_numbers

    vectors = store.images([place for _, place in pictures]).astype(np.float64)  # [n, d]
    ranked = []
    for text in store.texts(texts).astype(np.float64):
        cosines = all_numbers(vectors @ text, store.encoder.name)  # [n]
        order = ranking(range(len(pictures)), cosines)
        ranked.append([{"image": pictures[i][0], "score": float(cosines[i])} for i in order])
    return ranked


def _table(phrase: str, order: Sequence[dict]) -> str:
    lines = [
        f"{place:>3}  {entry['score']:7.4f}  {entry['image']}"
        for place, entry in enumerate(order, start=1)
    ]
    return "\n".join([phrase, *lines] if phrase else lines)


@command()
def encode(o: argparse.Namespace) -> int:
    """Encode all pictures of a place ahead of time, so that whatever asks for them later finds
    their vectors.

    A file is a picture by its first bytes, whatever its name; what is left out is counted and
    named. Pictures that were encoded before are passed over; stop it at any time and run it again.
    Under torchrun or accelerate launch each process takes its share and writes a shard of its own;
    the vectors are those that one process would have written.

    Example:
      vwsd encode data/vwsd/train/train_images_v1 --encoder clip-vit-b32
      torchrun --nproc-per-node 8 -m vwsdlib.cli encode 'train-*.tar' --encoder clip-vit-l14@bf16
    """
    import time

    from vwsdlib.data.sources import pictures_at
    from vwsdlib.encoders.registry import load_encoder
    from vwsdlib.encoders.store import VectorStore, drift
    from vwsdlib.encoders.streams import rank

    number, processes = rank()
    at = pictures_at(o.images)
    if not at.pictures:
        raise at.none_here()
    if not number:
        left_out = at.note()
        if left_out:
            note(left_out)
    share = at.pictures[
        number * len(at.pictures) // processes : (number + 1) * len(at.pictures) // processes
    ]
    places = [entry.place for entry in share]
    if o.verbose:
        _say_decisions(places, o.truncated)
    store, started = VectorStore(load_encoder(o.encoder), truncated=o.truncated), time.monotonic()
    encoded = store.fill_images(places)
    seconds = time.monotonic() - started
    counts = {
        "process": number,
        "processes": processes,
        "pictures": len(places),
        "encoded": encoded,
        "seconds": round(seconds, 2),
        "pictures_per_second": round(encoded / seconds, 2),
        "store": str(store.path),
        "left_out": sum(map(len, at.left_out.values())),
    }
    if o.drift and "@" in o.encoder and not number:
        counts["drift"] = drift(
            store,
            VectorStore(load_encoder(o.encoder.partition("@")[0]), truncated=o.truncated),
            places[: o.drift],
        )
    mine = f"process {number + 1} of {processes}: " if processes > 1 else ""
    line = (
        f"{mine}{len(places)} pictures, {encoded} of them encoded now in {seconds:.1f} s"
        f" ({encoded / seconds:.1f} pictures/s): {store.path}"
    )
    if o.json:
        print_json(counts)
        return 0
    print(line)
    for name, value in counts.get("drift", {}).items():
        print(f"drift  {name}: {value:.3g}")
    return 0
