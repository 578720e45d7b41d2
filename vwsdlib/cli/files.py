"""Commands on files in the official layout: score, audit, export."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import known
from . import _say, command


def set_arguments(p: argparse.ArgumentParser) -> None:
    """--data, --gold and --json, as every command on a set takes them."""
    p.add_argument("--data", type=Path, required=True, help="data file: target, phrase, ten image names a line, tab-separated")
    p.add_argument("--gold", type=Path, required=True, help="gold file: the right image name a line, same order")
    p.add_argument("--json", action="store_true", help="print JSON instead of a table")


def read_set(o: argparse.Namespace):
    """Items of --data and --gold; a file by an official name with other bytes is read, and said to be another."""
    from ..data.items import read_items
    from ..data.sets import is_official

    for path in (o.data, o.gold):
        if path is not None and path.is_file() and is_official(path) is False:
            print(f"note: {path.name} is not byte for byte the published file of that name", file=sys.stderr)
    return read_items(o.data, o.gold, getattr(o, "language", None))


def _score_arguments(p: argparse.ArgumentParser) -> None:
    set_arguments(p)
    p.add_argument("predictions", nargs="+", type=Path, metavar="PRED", help="official submission, or a TSV with columns score_1 to score_10")


@command(_score_arguments)
def score(o: argparse.Namespace) -> int:
    """Score prediction files: hit@1 and MRR with 95 % intervals, and the exact McNemar p of every pair.

    A prediction file is the official submission (a line an item: the ten names, best first, tab-separated) or a TSV whose columns
    score_1 to score_10 follow the order of the candidates. Ties go to the earlier candidate. Percentages; k and n are counts.

    Example:
      vwsd score --data en.test.data.v1.1.txt --gold en.test.gold.v1.1.txt clip.tsv clipseg.tsv
    """
    from ..analysis.scoring import compare, read_predictions

    items = read_set(o)
    found = compare([(str(path), read_predictions(path, items)) for path in o.predictions], items)
    _say(found) if o.json else print_scores(found)
    return 0


def print_scores(found: dict) -> None:
    """What `compare` found, as tables for people."""
    width = max(len(s["file"]) for s in found["systems"])
    print(f"{'system':<{width}}  {'k/n':>11}  {'hit@1':>7}  {'95 % interval':>15}  {'MRR':>8}  {'95 % interval':>15}")
    for s in found["systems"]:
        print(f"{s['file']:<{width}}  {str(s['k']) + '/' + str(s['n']):>11}  {s['hit1']:7.3f}  {s['ci_low']:6.2f} - {s['ci_high']:6.2f}  "
              f"{s['mrr']:8.4f}  {s['mrr_ci_low']:6.2f} - {s['mrr_ci_high']:6.2f}")
    for p in found["pairs"]:
        print(f"\n{p['a']}  against  {p['b']}\n  right alone: {p['only_a']} and {p['only_b']}; exact McNemar p = {p['p']:.4g}")


@command(set_arguments)
def audit(o: argparse.Namespace) -> int:
    """Show what a set gives away without its text or its pictures.

    rarest / most_frequent: hit@1 (percent) of always taking the picture that fills the fewest / most candidate slots of this file,
    expected under a uniform choice among ties. gold_as_distractor: slots where some item's gold stands as another's distractor.

    Example:
      vwsd audit --data train.data.v1.txt --gold train.gold.v1.txt
    """
    from ..analysis.audit import audit as run_audit

    found = run_audit(read_set(o))
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


def _export_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN.jsonl", help="stored predictions: results/PROFILE/predictions/NAME.jsonl")
    p.add_argument("--to", required=True, metavar="FORMAT", help="submission (prediction.LANGUAGE.txt and a zip of them, one run a language), scores (TSV for `vwsd score`), "
                                                                 "parquet, or dataset (for datasets.load_from_disk)")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of what is written")


@command(_export_arguments)
def export(o: argparse.Namespace) -> int:
    """Write stored predictions in another format: the task's official submission, a table of scores, Parquet or a `datasets` folder.

    A submission holds each item's ten names, best first; ties go to the earlier candidate, as everywhere. Parquet and dataset have a row
    an item of each run, with its text, scores, rank and what made it.

    Example:
      vwsd export results/demo/predictions/lite.phrase.*.test.jsonl --to submission --out submission
    """
    from ..results.export import FORMATS
    from ..results.predictions import read_predictions

    write = FORMATS[known("format", o.to, FORMATS)]
    print("\n".join(map(str, write([read_predictions(path) for path in o.runs], o.out))))
    return 0
