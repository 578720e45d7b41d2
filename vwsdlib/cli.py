"""The `vwsd` command. Each subcommand is one function; heavy parts are imported where they are needed.

Exit codes: 0 done; 1 a notebook failed or a check did not hold; 2 the command could not be carried out (bad input, missing file).
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from . import __version__, paths
from .errors import VwsdError

COMMANDS: dict[str, tuple[Callable, Callable]] = {}


def command(configure: Callable[[argparse.ArgumentParser], None], name: str = "") -> Callable:
    """Register a subcommand under its function's name, or `name`; its docstring is its help, the part after `Example:` its epilog."""

    def register(function: Callable[[argparse.Namespace], int]) -> Callable:
        COMMANDS[name or function.__name__] = (function, configure)
        return function

    return register


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="vwsd", description="Visual word sense disambiguation: find the picture that a phrase means.",
                                  epilog="`vwsd COMMAND --help` explains each with an example. Start with `vwsd doctor` and `vwsd run --profile demo`.")
    top.add_argument("--version", action="version", version=f"vwsd {__version__}")
    subcommands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (function, configure) in COMMANDS.items():
        text, _, example = inspect.cleandoc(function.__doc__).replace("%", "%%").partition("Example:")
        sub = subcommands.add_parser(name, help=text.splitlines()[0], description=text.strip(), epilog=f"example:{example.rstrip()}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
        configure(sub)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        return COMMANDS[options.command][0](options)
    except VwsdError as e:
        if options.debug:
            traceback.print_exc()
        print(f"vwsd {options.command}: {e}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `vwsd ... | head` is no fault
        sys.stdout = open(os.devnull, "w")
        return 0
    except KeyboardInterrupt:
        print(f"vwsd {options.command}: interrupted; what was finished is kept, run it again to go on.", file=sys.stderr)
        return 130


def _say(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=1))


# ---------------------------------------------------------------------------- files in the official layout


def _files(p: argparse.ArgumentParser) -> None:
    p.add_argument("--data", type=Path, required=True, help="data file: target, phrase, ten image names a line, tab-separated")
    p.add_argument("--gold", type=Path, required=True, help="gold file: the right image name a line, same order")
    p.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _items(o: argparse.Namespace):
    """Items of --data and --gold; a file by an official name with other bytes is read, and said to be another."""
    from .data.items import read_items
    from .data.sets import is_official

    for path in (o.data, o.gold):
        if path.is_file() and is_official(path) is False:
            print(f"note: {path.name} is not byte for byte the published file of that name", file=sys.stderr)
    return read_items(o.data, o.gold)


def _score_arguments(p: argparse.ArgumentParser) -> None:
    _files(p)
    p.add_argument("predictions", nargs="+", type=Path, metavar="PRED", help="official submission, or a TSV with columns score_1 to score_10")


@command(_score_arguments)
def score(o: argparse.Namespace) -> int:
    """Score prediction files: hit@1 and MRR with 95 % intervals, and the exact McNemar p of every pair.

    A prediction file is the official submission (a line an item: the ten names, best first, tab-separated) or a TSV whose columns
    score_1 to score_10 follow the order of the candidates. Ties go to the earlier candidate. Percentages; k and n are counts.

    Example:
      vwsd score --data en.test.data.v1.1.txt --gold en.test.gold.v1.1.txt clip.tsv clipseg.tsv
    """
    from .analysis.scoring import compare, read_predictions

    items = _items(o)
    found = compare([(str(path), read_predictions(path, items)) for path in o.predictions], items)
    _say(found) if o.json else _print_scores(found)
    return 0


def _print_scores(found: dict) -> None:
    width = max(len(s["file"]) for s in found["systems"])
    print(f"{'system':<{width}}  {'k/n':>11}  {'hit@1':>7}  {'95 % interval':>15}  {'MRR':>8}  {'95 % interval':>15}")
    for s in found["systems"]:
        print(f"{s['file']:<{width}}  {str(s['k']) + '/' + str(s['n']):>11}  {s['hit1']:7.3f}  {s['ci_low']:6.2f} - {s['ci_high']:6.2f}  "
              f"{s['mrr']:8.4f}  {s['mrr_ci_low']:6.2f} - {s['mrr_ci_high']:6.2f}")
    for p in found["pairs"]:
        print(f"\n{p['a']}  against  {p['b']}\n  right alone: {p['only_a']} and {p['only_b']}; exact McNemar p = {p['p']:.4g}")


@command(_files)
def audit(o: argparse.Namespace) -> int:
    """Show what a set gives away without its text or its pictures.

    rarest / most_frequent: hit@1 (percent) of always taking the picture that fills the fewest / most candidate slots of this file,
    expected under a uniform choice among ties. gold_as_distractor: slots where some item's gold stands as another's distractor.

    Example:
      vwsd audit --data train.data.v1.txt --gold train.gold.v1.txt
    """
    from .analysis.audit import audit as run_audit

    found = run_audit(_items(o))
    if o.json:
        _say(found)
        return 0
    print(f"items               {found['n']}  ({found['targets']} targets, {found['images']} images)")
    for rule in ("chance", "rarest", "most_frequent"):
        low, high = found["intervals"][rule]
        print(f"{rule:<19} {found[rule]:.2f}  ({low:.2f} - {high:.2f})")
    print(f"gold_as_distractor  {found['gold_as_distractor']}")
    print(f"position_counts     {' '.join(map(str, found['position_counts']))}")
    return 0


def _wsd_score_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--gold", type=Path, required=True, metavar="KEY", help="gold key: a line an item, its id and its senses, spaces between")
    p.add_argument("--pred", type=Path, required=True, metavar="KEY", help="a system's answers in the same layout, items in any order")
    p.add_argument("--json", action="store_true", help="print JSON instead of a table")


@command(_wsd_score_arguments, "wsd-score")
def wsd_score(o: argparse.Namespace) -> int:
    """Score answers of textual WSD: precision, recall and F1 in percent, as the scorer of the Unified Evaluation Framework does.

    Of several answers to an item each right one counts one over their number. An item without an answer lowers recall alone; answers to
    items that the gold does not list are left out, and said to be.

    Example:
      vwsd wsd-score --gold ALL.gold.key.txt --pred mine.key.txt
    """
    from dataclasses import asdict

    from .analysis.wsd_scoring import score_answers
    from .data.wsd import read_key

    gold, answers = read_key(o.gold), read_key(o.pred)
    found = asdict(score_answers(gold, answers))
    if strange := [item_id for item_id in answers if item_id not in gold]:
        print(f"note: {len(strange)} answered ids are not in the gold and are left out, {strange[0]!r} the first", file=sys.stderr)
    _say(found) if o.json else print("\n".join(f"{name:<9}  {value:>7{'d' if isinstance(value, int) else '.2f'}}" for name, value in found.items()))
    return 0


# ---------------------------------------------------------------------------- encoders on a user's own files


def _encoder(p: argparse.ArgumentParser) -> None:
    p.add_argument("--encoder", default="lite", help="name in the registry (default: lite)")
    p.add_argument("--truncated", choices=("error", "keep"), default="error", help="a picture file that is cut short: stop, or use what decodes (default: error)")


def _evaluate_arguments(p: argparse.ArgumentParser) -> None:
    _files(p)
    p.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the image files")
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
    from .analysis.scorers import cosine_scores, texts_of
    from .analysis.scoring import compare, write_scores
    from .data.items import missing_pictures
    from .data.sets import user_set
    from .encoders.registry import load_encoder
    from .encoders.store import VectorStore

    _items(o)
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
    _print_scores({"systems": [s for s in (*found["systems"], found["complete"]) if s], "pairs": []})


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

    from .analysis.scoring import ranking
    from .encoders.registry import load_encoder
    from .encoders.store import VectorStore

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


# ---------------------------------------------------------------------------- the companion's own work


def _fetch_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("what", choices=FETCHED, help="; ".join(f"{name}: {inspect.getdoc(function)}" for name, (function, _) in FETCHED.items()))
    p.add_argument("--from", dest="source", type=Path, metavar="DIR", help="vwsd, rehearsal: take official files from here, unpacked or in archives")
    p.add_argument("--images", choices=("original", "resized"), help="vwsd: which test pictures (default: as recorded or found, else resized)")
    p.add_argument("--split", choices=("test", "trial", "train"), help="vwsd: which split (default: test)")
    p.add_argument("--only", action="append", metavar="NAME", help="models: just this checkpoint (may be repeated)")
    p.add_argument("--force", action="store_true", help="demo: build again even where nothing changed")


def _fetch_demo(o: argparse.Namespace) -> int:
    """EmojiWSD, drawn from installed packages, and the lite encoder's head"""
    from .data.emojiwsd import build
    from .encoders.registry import load_encoder

    folder = build.build(force=o.force)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    print(f"EmojiWSD {manifest['version']} in {folder} ({len(manifest['files'])} files)\n{manifest['credit']}")
    if different := build.differs_from_reference(folder):
        print(f"note: {' and '.join(different)} differ from the reference build; other package versions than requirements.lock draw other pixels.")
    print(f"lite encoder ready, weights {load_encoder('lite').identity()['weights_sha256'][:12]}")
    return 0


def _fetch_vwsd(o: argparse.Namespace) -> int:
    """the official text and pictures of SemEval-2023 Task 1"""
    from .data.fetch import fetch_vwsd

    found = fetch_vwsd(o.split or "test", o.source, o.images)
    _print_checks(found)
    return 1 if any(row["state"] != "OK" for row in found) else 0


def _fetch_models(o: argparse.Namespace) -> int:
    """published checkpoints, into the Hugging Face cache"""
    from .encoders.checkpoints import CHECKPOINTS, checkpoint, fetch, present

    for key in [key for key in o.only or CHECKPOINTS if checkpoint(key)]:   # a typo stops before anything is fetched
        folder = fetch(key)
        print(f"{key}  {checkpoint(key).repo}  {present(key)[1] / 1e6:,.0f} MB  {folder}", flush=True)
    return 0


def _fetch_rehearsal(o: argparse.Namespace) -> int:
    """generated pictures and tiny random checkpoints in the real formats"""
    from .data.sets import make_rehearsal, rehearsal_record
    from .rehearsal.data import models_folder
    from .rehearsal.models import make_models
    from .rehearsal.translators import make_translators

    print(f"{make_rehearsal(o.source)}: " + ", ".join(f"{kind} {split} text" for split, kind in rehearsal_record()["text"].items()))
    make_models(models_folder())
    make_translators(models_folder())
    print(f"{models_folder()}: tiny random checkpoints (set VWSD_MODELS to this folder to use them)")
    return 0


FETCHED = {"demo": (_fetch_demo, {"force"}), "vwsd": (_fetch_vwsd, {"source", "images", "split"}), "models": (_fetch_models, {"only"}),
           "rehearsal": (_fetch_rehearsal, {"source"})}   # and the options that each takes


@command(_fetch_arguments)
def fetch(o: argparse.Namespace) -> int:
    """Put data and models where the notebooks look for them. `demo` downloads nothing: pictures and weights come with installed packages.

    `vwsd` checks what there is, fetches what is missing (or takes it from --from DIR) and prints what is missing still, with exit code 1.
    A broken download goes on where it stopped. Original and resized pictures are never mixed in one folder.

    Example:
      vwsd fetch vwsd --split trial
    """
    function, options = FETCHED[o.what]
    if stray := [name for name in ("source", "images", "split", "only", "force") if getattr(o, name) and name not in options]:
        raise VwsdError(f"`vwsd fetch {o.what}` takes no --{stray[0].replace('source', 'from')}", remedy="See vwsd fetch --help.")
    return function(o)


def _print_checks(found: list[dict]) -> None:
    print("\n".join(f"[{c['state']}] {c['what']}" + (f"  ->  {c['remedy']}" if c["state"] != "OK" else "") for c in found))


def _profile(p: argparse.ArgumentParser) -> None:
    p.add_argument("--profile", default="demo",
                   help="demo (built in, offline), paper (real checkpoints and data) or rehearsal (the same, tiny and random); default: demo")


def _run_arguments(p: argparse.ArgumentParser) -> None:
    _profile(p)
    p.add_argument("--only", action="append", default=[], metavar="NOTEBOOK", help="just this one and what it needs (may be repeated)")
    p.add_argument("--from", dest="start_from", metavar="NOTEBOOK", help="this one and all after it, again")
    p.add_argument("--force", action="store_true", help="run even what is up to date")
    p.add_argument("--keep-going", action=argparse.BooleanOptionalAction, default=True, help="after a failure, go on with what does not depend on it (default)")
    p.add_argument("--limit", type=int, default=0, metavar="N", help="only the first N items of each set; such results are never compared with a paper")
    p.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE", help="set a notebook parameter (may be repeated)")


@command(_run_arguments)
def run(o: argparse.Namespace) -> int:
    """Run a profile's notebooks through papermill, skipping those whose inputs and outputs are unchanged, then write the report.

    Exit code 0: all done or up to date; 1: a notebook failed or is blocked; 2: nothing was run (a bad option).

    Example:
      vwsd run --profile demo --only 02_clip_baseline --set seed=1
    """
    from . import pipeline

    done = pipeline.run(o.profile, only=o.only, start_from=o.start_from, force=o.force, keep_going=o.keep_going, limit=o.limit,
                        settings=pipeline.parse_settings(o.settings))
    _report_after(o.profile)
    return done.exit_code


MAIN_TABLES = ("baseline", "ladder", "multilingual", "saliency_truth")  # printed after a run; the report has all


def _report_after(profile: str) -> None:
    """The report is written whatever failed; then the main tables, for the eye, where there is something new to see."""
    from .results.collect import Collection
    from .results.report import refresh_report
    from .results.tables import TABLES

    try:
        folder, written = refresh_report(profile)
    except VwsdError as e:
        print(f"no report: {e}", file=sys.stderr)
        return
    facts = Collection(profile, folder)
    for name in MAIN_TABLES if written else ():
        if table := TABLES[name](facts):
            print(f"\n{table}")
    print(f"report: {folder / 'report.md'}")


def _status_arguments(p: argparse.ArgumentParser) -> None:
    _profile(p)
    p.add_argument("--json", action="store_true", help="print JSON instead of a table")


@command(_status_arguments)
def status(o: argparse.Namespace) -> int:
    """Say of each notebook: done, stale (which input changed), failed (where and why), blocked (by whom) or never run.

    Example:
      vwsd status --profile demo
    """
    from . import pipeline

    found = pipeline.status(o.profile)
    if o.json:
        _say([{"notebook": name, "state": state, "detail": detail} for name, state, detail in found])
    else:
        print("\n".join(f"{name:<18} {state:<10} {detail}".rstrip() for name, state, detail in found))
    return 0


def _report_arguments(p: argparse.ArgumentParser) -> None:
    _profile(p)
    p.add_argument("--check", action="store_true", help="write nothing; fail (exit 1) where files on disk are not what the stored predictions give")


@command(_report_arguments)
def report(o: argparse.Namespace) -> int:
    """Make rows, tables, figures and the report again from stored predictions, without loading a model.

    Example:
      vwsd report --profile demo --check
    """
    from .results.report import check_report, write_report

    if not o.check:
        print(write_report(o.profile) / "report.md")
        return 0
    found = check_report(o.profile)
    print("\n".join(found) or f"results/{o.profile} agrees with its predictions and with this code")
    return 1 if found else 0


def _doctor_arguments(p: argparse.ArgumentParser) -> None:
    _profile(p)
    p.add_argument("--json", action="store_true", help="print JSON instead of lines")


@command(_doctor_arguments)
def doctor(o: argparse.Namespace) -> int:
    """Check this machine: Python, packages, weights, kernel, disk, device, and what a profile needs. Each failure comes with its remedy.

    Nothing is fetched: a missing checkpoint or file is named with its size and the command that gets it. Exit code 1 where one is missing.

    Example:
      vwsd doctor --profile paper
    """
    from .doctor import examine

    found = examine(o.profile)
    _say(found) if o.json else _print_checks(found)
    return 1 if any(c["state"] != "OK" for c in found) else 0


if __name__ == "__main__":
    sys.exit(main())
