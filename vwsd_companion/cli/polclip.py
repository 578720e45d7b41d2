"""Commands of PolCLIP: train, polclip, define, corpus, convert."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from vwsdlib.errors import VwsdError, known
from vwsdlib.paths import sha256_file

from .base import command, print_json
from .files import print_scores, read_set
from .notes import note, notes

KINDS = "folders of the converted pictures: semcor=DIR vwsd=DIR (vwsd: names with pkl in them)"


def _roots(pairs: list[str] | None) -> dict[str, Path]:
    roots = {}
    for pair in pairs or ():
        kind, _, folder = pair.partition("=")
        if not folder:
            raise VwsdError(
                f"--pictures {kind} names no folder", remedy=f"Write KIND=DIR, {KINDS}."
            )
        roots[known("kind of pictures", kind, ("semcor", "vwsd"))] = Path(folder)
    return roots


def _no_stray(o: argparse.Namespace, names: tuple[str, ...], source: str) -> None:
    for name in names:
        if getattr(o, name):
            raise VwsdError(
                f"--{name.replace('_', '-')} does not go with {source}",
                remedy=f"See vwsd {o.command} --help.",
            )


@command("train")
def train_polclip(o: argparse.Namespace) -> int:
    """Train PolCLIP on your records, on published batches, on shards or on a study's data; go on
    where the folder's run stopped.

    DIR gets last.safetensors, best.safetensors (by the score on dev, where there is one),
    state.safetensors (to go on) and log.jsonl. Runs unchanged as `torchrun --nproc-per-node 4
    --no-python vwsd train ...` or `accelerate launch -m vwsdlib.cli train ...`: a step then takes a
    batch of each process, and as many times as --set accumulate=N says.

    Example:
      vwsd train --preset demo --records train.jsonl --dev-records dev.jsonl --out runs/mine
    """
    import torch

    from polclip.config import make_config
    from polclip.model import PolClip
    from polclip.states import PictureStates
    from polclip.study import data_of, dev_of
    from polclip.train import train
    from vwsdlib.encoders.streams import rank

    from ..pipeline import parse_settings

    process, _ = rank()
    config, study = make_config(o.preset, **parse_settings(o.settings)), _study(o)
    model = PolClip(config)
    states = PictureStates(model.backbone, study.keep_states, precision=config.precision)
    train(model, data_of(study, config, states), o.out, dev_of(study, states), o.save_every)
    if process == 0:  # of several processes one speaks
        _print_run(o.out)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 0


def _study(o: argparse.Namespace):
    """What is trained on, as a study without a test."""
    from polclip.packing import packed
    from polclip.records import load_records, records_sha256
    from polclip.sources import Study, metadata_source, shard_source
    from polclip.study import load_study

    stray = () if o.metadata else ("pictures",)
    _no_stray(o, (*stray, "dev_records") if o.study else stray, "this source")
    if o.study:
        return load_study(o.study)
    dev = list(load_records(o.dev_records)) if o.dev_records else []
    facts = {"dev": records_sha256(dev)}
    if o.records:
        records = list(load_records(o.records))
        facts = {"records": records_sha256(records)} | facts
        return Study("records", partial(packed, records), dev, None, [], [], facts)
    if o.shards:
        source = shard_source(o.shards)
    else:
        source = metadata_source([o.metadata], _roots(o.pictures))
    how = {"per_epoch": source.per_epoch, "keep_states": False}
    return Study("stream", source.batches, dev, None, [], [], source.facts | facts, **how)


def _print_run(folder: Path) -> None:
    from polclip.config import LOSSES
    from polclip.train import read_log

    steps, tests = read_log(folder)
    for step in steps[-1:]:  # none where the log of a finished run was deleted
        losses = [f"{name} {step[name]:.4f}" for name in ("loss", *LOSSES) if name in step]
        print(f"step {step['step']}, epoch {step['epoch'] + 1}: {'  '.join(losses)}")
    for test in tests:
        scores = [f"{name} {value:.2f}" for name, value in test["dev"].items()]
        print(f"dev, epoch {test['epoch'] + 1}: {'  '.join(scores)}")
    for name in ("best.safetensors", "last.safetensors"):
        if (folder / name).exists():
            print(folder / name)


@command()
def polclip(o: argparse.Namespace) -> int:
    """Test a trained PolCLIP: textual F1 over records, or hit@1 and MRR over a set in the official
    layout.

    Each is given three times: by the plain vectors, by the fused ones, and by the sum of both
    scores as in the released test.

    Example:
      vwsd polclip --checkpoint best.safetensors --data D.txt --images DIR --out scores.tsv
    """
    if o.records:
        _no_stray(o, ("gold", "images", "definitions", "language"), "--records")
        return _textual(o)
    if not (o.gold and o.images):
        raise VwsdError(
            "--data needs --gold and --images",
            remedy="Give the gold file and the folder of pictures of this set.",
        )
    return _visual(o)


def _textual(o: argparse.Namespace) -> int:
    from polclip.checkpoints import load_polclip
    from polclip.evaluate import textual_scores
    from polclip.records import as_item, load_records
    from vwsdlib.analysis.wsd_scoring import score_groups
    from vwsdlib.data.wsd import write_key
    from vwsdlib.language.wsd_baselines import choose

    records = list(load_records(o.records))
    if len({record.id for record in records}) < len(records):
        raise VwsdError(
            "an id stands twice",
            where=o.records,
            remedy="Give each record an id of its own: one answer would stand for both.",
        )
    scored = any(record.golds for record in records)
    if not (scored or (records and o.out)):
        raise VwsdError(
            "there is no record with a gold",
            where=o.records,
            remedy="Give records with golds, or a file to write answers to (--out).",
        )
    scores = textual_scores(load_polclip(o.checkpoint)[0], records)
    items = [as_item(record) for record in records]
    answers = {name: choose(items, rows) for name, rows in scores.items()}
    groups = {}
    if scored:
        groups = {name: score_groups(items, chosen) for name, chosen in answers.items()}
    if o.out:
        write_key(o.out, answers["sum"])
    if o.json:
        print_json(groups)
    elif groups:
        _print_row(["group", "n", *groups])
        for group in zip(*groups.values()):
            shares = [f"{own['f1']:.2f}" for own in group]
            _print_row([group[0]["group"], group[0]["total"], *shares])
    return 0


def _print_row(row: list) -> None:
    print(f"{row[0]:<6}" + "".join(f"  {cell:>6}" for cell in row[1:]))


def _visual(o: argparse.Namespace) -> int:
    from polclip.batches import photo_text
    from polclip.checkpoints import load_polclip
    from polclip.evaluate import visual_scores
    from polclip.states import PictureStates
    from polclip.study import paths_of
    from vwsdlib.analysis.scoring import compare, write_scores
    from vwsdlib.data.items import missing_pictures
    from vwsdlib.data.sets import user_set

    data = user_set(o.data, o.gold, o.images, items=read_set(o))
    missing = missing_pictures(data.items, o.images)
    if missing:
        raise VwsdError(
            f"pictures of {len(missing)} items are missing, {next(iter(missing.values()))[0]} the"
            " first",
            where=o.images,
            remedy="Give the folder of this very set; names keep their case.",
        )
    definitions = _definitions(o, data) if o.definitions else [""] * len(data.items)
    model = load_polclip(o.checkpoint)[0]
    texts = [photo_text(item.phrase, text) for item, text in zip(data.items, definitions)]
    states = PictureStates(model.backbone, precision=model.config.precision)
    scores = visual_scores(model, texts, paths_of(data), states)
    if o.out:
        write_scores(o.out, data.items, scores["sum"])
    compared = compare(list(scores.items()), data.items)
    print_json(compared) if o.json else print_scores(compared)
    return 0


def _definitions(o: argparse.Namespace, data) -> tuple[str, ...]:
    """The texts of --definitions, one an item."""
    from vwsdlib.language.definitions import stored_definitions

    with notes():
        definitions, meta = stored_definitions(o.definitions, data.items)
    if meta.get("data_sha256") not in (None, sha256_file(o.data)):
        note(
            f"{o.definitions.name} was made for another file than {o.data.name}, or it changed"
            " since"
        )
    return definitions.texts


@command("define")
def define_targets(o: argparse.Namespace) -> int:
    """Define the target of each item in its context; what a model wrote once is kept and not asked
    again. No definer sees a gold.

    Example:
      vwsd define --data en.test.data.v1.1.txt --definer lesk --out definitions.jsonl
    """
    from vwsdlib.language import definitions
    from vwsdlib.language.replay import write_records

    known("inventory", o.inventory, definitions.INVENTORIES)
    known("definer", o.definer, definitions.DEFINERS)
    known("ending of --out", o.out.suffix, (".jsonl",))
    if o.wsd and o.inventory != "wordnet":
        raise VwsdError(
            "--inventory does not go with --wsd, whose senses are WordNet's",
            remedy="See vwsd define --help.",
        )
    with notes():
        items, language = _sentences_to_define(o) if o.wsd else _phrases_to_define(o)
        made = definitions.define(o.definer, items)
    lines = [{"id": item_id, "definition": text} for item_id, text in zip(made.ids, made.texts)]
    blank = [line["id"] for line in lines if not line["definition"]]
    if blank:
        note(
            f"{len(blank)} of {len(lines)} items stay without a definition, {blank[0]!r} the first"
        )
    asked = {
        "inventory": o.inventory,
        "language": language,
        "refused": made.refused,
        "data_sha256": sha256_file(o.wsd or o.data),
    }
    print(write_records(o.out.with_suffix(""), lines, {**made.facts, **asked}))
    return 0


def _sentences_to_define(o: argparse.Namespace) -> tuple[list, str]:
    """(items, their language) of --wsd; VwsdError where there are none."""
    from vwsdlib.data.languages import language_code
    from vwsdlib.data.wsd import read_uef

    items = list(read_uef(o.wsd, language=language_code(o.language) if o.language else None))
    if not items:
        raise VwsdError(
            "the data file has no instances",
            where=o.wsd,
            remedy="Give a NAME.data.xml, whose targets are <instance> elements.",
        )
    return items, items[0].language


def _phrases_to_define(o: argparse.Namespace) -> tuple[list, str]:
    """(items, their language) of --data. The language decides: an English inventory knows nothing
    of words that are spelled alike elsewhere.
    """
    from vwsdlib.data.items import language_for, language_note, read_items
    from vwsdlib.data.languages import in_arabic_letters, language_name
    from vwsdlib.language.definitions import DEFINERS, INVENTORIES, as_wsd_items

    language, how = language_for(o.data, o.language)
    items = read_items(o.data, language=language)
    arabic = [item.id for item in items if in_arabic_letters(item.target)]
    if language == "en" and arabic:
        said = (
            f"{len(arabic)} of {len(items)} targets are written in Arabic letters, {arabic[0]!r}"
            " the first"
        )
        if how == "assumed" and 2 * len(arabic) > len(items):
            raise VwsdError(
                f"{said}, and nothing says which language it is",
                where=o.data,
                remedy="Name it: --language fa.",
            )
        note(f"{said}, and the language is English")
    said = language_note(o.data, o.language)
    if said:
        note(said)
    if language != "en" and DEFINERS[o.definer].kind == "chosen":
        note(
            f"{o.inventory} has no {language_name(language)}: no definition can be chosen from it;"
            " hf and chat write them"
        )
    return as_wsd_items(items, INVENTORIES[o.inventory]()), language


@command()
def corpus(o: argparse.Namespace) -> int:
    """Write the corpus that a definer is fine-tuned on (targets in context, answered by their
    glosses); print its lines and tokens.

    Example:
      vwsd corpus --data semcor.data.xml --gold semcor.gold.key.txt --out corpus.jsonl --limit 10000
    """
    from vwsdlib.data.languages import language_code
    from vwsdlib.data.wsd import read_uef
    from vwsdlib.language.corpus import finetune_facts, write_corpus

    with notes():
        language = language_code(o.language) if o.language else None
        write_corpus(o.out, read_uef(o.data, o.gold, language=language), o.limit)
    print_json(finetune_facts(o.out))
    return 0


@command()
def convert(o: argparse.Namespace) -> int:
    """Turn PolCLIP's published files into the project's own, and large pictures into small ones;
    nothing but tensors is unpickled, and a second run goes on.

    Example:
      vwsd convert records semcor.json semcor.jsonl --kind raw --pictures semcor=image_pt
    """
    from polclip.published import convert_json, convert_tensors
    from polclip.records import load_records
    from polclip.shrink import SIDE, shrink
    from polclip.streaming import to_shards

    if o.what != "small":
        _no_stray(o, ("side", "workers"), o.what)
    if o.what != "records":
        _no_stray(o, ("kind", "pictures", "missing"), o.what)
    elif not o.kind:
        raise VwsdError(
            "--kind is not given",
            remedy="raw for ..._training_data.json, metadata for ..._training_tokens.50.250.json.",
        )
    with notes():
        if o.what == "small":
            print(f"{o.target}: {shrink(o.source, o.target, o.side or SIDE, o.workers or 0)}")
            return 0
        if o.what == "pictures":
            count = convert_tensors(o.source, o.target)
        elif o.what == "shards":
            count = to_shards(load_records(o.source), o.target)
        else:
            roots, missing = _roots(o.pictures), o.missing or "error"
            count = convert_json(o.source, o.target, o.kind, roots, missing)
        print(f"{o.target}: {count} {o.what} written")
    return 0
