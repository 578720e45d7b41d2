"""Commands on files in the official layout: score, audit, export."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vwsdlib.errors import VwsdError, known

from .base import command, print_json
from .notes import note, notes


def read_set(o: argparse.Namespace):
    """Items of --data and --gold; a file by an official name with other bytes is read, and said to
    be another.
    """
    from vwsdlib.data.items import language_note, read_items
    from vwsdlib.data.official import is_official

    language = getattr(o, "language", None)
    with notes():
        items = read_items(o.data, o.gold, language)
    for path in (o.data, o.gold):
        if path is not None and path.is_file() and is_official(path) is False:
            note(f"{path.name} is not byte for byte the published file of that name")
    said = language_note(o.data, language)
    if said:
        note(said)
    return items


@command()
def score(o: argparse.Namespace) -> int:
    """Score prediction files: hit@1 and MRR with 95 % intervals, and exact McNemar tests.

    A prediction file is the official submission (a line an item: the ten names, best first,
    tab-separated), a table whose columns score_1 to score_10 follow the order of the candidates
    (TSV, CSV or JSON), or a submission zip, of which the file of the set's language is taken.
    Columns that name items, texts or golds are checked against the data. Ties go to the earlier
    candidate, a gold without a score (-inf) ranks last. Percentages; k and n are counts.

    Two files are tested against each other; more by --pairs, or each against one by --baseline,
    with p adjusted by Holm's rule. --data and --gold may be repeated, a pair a language: each PRED
    is then a zip or a folder of prediction.LANGUAGE.txt, and the unweighted mean over the
    languages follows.

    Example:
      vwsd score --data en.test.data.v1.1.txt --gold en.test.gold.v1.1.txt clip.tsv clipseg.tsv
    """
    sets = _sets(o)
    paths = list(o.predictions)
    if o.baseline is not None and o.baseline not in paths:
        paths.insert(0, o.baseline)
    by_set = [_scored(one, paths, o, several=len(sets) > 1) for one in sets]
    single = len(sets) == 1
    together = by_set[0] if single else _together(by_set, o)
    if o.json:
        print_json(together)
    elif single:
        _print_set(together, o)
    else:
        _print_sets(by_set, together, o)
    return 0


def _sets(o: argparse.Namespace) -> list[argparse.Namespace]:
    """--data, --gold and --language, one set each."""
    languages = o.language or [None] * len(o.data)
    if len(o.gold) != len(o.data) or len(languages) != len(o.data):
        raise VwsdError(
            f"{len(o.data)} --data, {len(o.gold)} --gold and {len(o.language or [])} --language",
            remedy=(
                "Give a --gold for each --data, in the same order, and a --language for each or"
                " none."
            ),
        )
    return [
        argparse.Namespace(data=data, gold=gold, language=language)
        for data, gold, language in zip(o.data, o.gold, languages)
    ]


def _scored(
    one: argparse.Namespace, paths: Sequence[Path], o: argparse.Namespace, several: bool
) -> dict:
    """What is found of the systems on one set."""
    from vwsdlib.analysis.reading import read_submission
    from vwsdlib.analysis.scoring import against_baseline, compare

    items = read_set(one)
    with notes():
        systems = [
            (str(path), read_submission(path, items, allow_ties=o.allow_ties, several=several))
            for path in paths
        ]
    scores = compare(systems, items)
    if o.json:
        note_ties(scores)
    if several:
        scores = {"language": items[0].language, "data": str(one.data), **scores}
    if o.baseline is not None:
        place = paths.index(o.baseline)
        others = [system for i, system in enumerate(systems) if i != place]
        if not others:
            raise VwsdError(
                "the baseline is the only system",
                where=o.baseline,
                remedy="Name another prediction file to compare with it.",
            )
        scores["baseline"] = str(o.baseline)
        scores["against_baseline"] = against_baseline(systems[place], others, items)
    return scores


def _together(by_set: Sequence[dict], o: argparse.Namespace) -> dict:
    """The scores of several sets in one: lines with their language, p adjusted for all of them, and
    the mean.
    """
    from vwsdlib.analysis.scoring import adjusted, mean_over_sets

    languages = [scores["language"] for scores in by_set]
    if len(set(languages)) < len(languages):
        raise VwsdError(
            f"two sets of one language: {', '.join(languages)}",
            remedy="Give one set a language, or say --language for each.",
        )
    together: dict = {"sets": [], "systems": [], "pairs": []}
    if o.baseline is not None:
        together["against_baseline"] = []
    for scores in by_set:
        language = {"language": scores["language"]}
        together["sets"].append({**language, "data": scores["data"]})
        for part in [*together][1:]:
            together[part] += [{**language, **line} for line in scores[part]]
    if o.baseline is not None:
        together["against_baseline"] = adjusted(together["against_baseline"])
        together["baseline"] = str(o.baseline)
        tests = iter(together["against_baseline"])
        for scores in by_set:
            scores["against_baseline"] = [next(tests) for _ in scores["against_baseline"]]
    together["mean"] = mean_over_sets(together["systems"])
    return together


def note_ties(scores: dict) -> None:
    """A note on stderr for each system of `compare` in which ties decide items."""
    for system in scores["systems"]:
        if system.get("ties"):
            note(
                f"{system['file']}: a tie decides {system['ties']} of {system['n']} items "
                f"(k between {system['k_low']} and {system['k_high']} by tie rule)"
            )


def print_scores(scores: dict) -> None:
    """What `compare` found, as tables for people, and a note on the items that a tie decides."""
    note_ties(scores)
    width = max(len(s["file"]) for s in scores["systems"])
    print(
        f"{'system':<{width}}  {'k/n':>11}  {'hit@1':>7}  {'95 % interval':>15}  "
        f"{'MRR':>8}  {'95 % interval':>15}"
    )
    for s in scores["systems"]:
        print(
            f"{s['file']:<{width}}  {str(s['k']) + '/' + str(s['n']):>11}  {s['hit1']:7.3f}  "
            f"{s['ci_low']:6.2f} - {s['ci_high']:6.2f}  "
            f"{s['mrr']:8.4f}  {s['mrr_ci_low']:6.2f} - {s['mrr_ci_high']:6.2f}"
        )
    for p in scores["pairs"]:
        print(
            f"\n{p['a']}  against  {p['b']}\n  right alone: {p['only_a']} and {p['only_b']}; "
            f"exact McNemar p = {p['p']:.4g}"
        )


def _print_set(scores: dict, o: argparse.Namespace) -> None:
    """The table of one set, its pairs where they are asked for or there is but one, and the
    comparison with the baseline.
    """
    systems, pairs = scores["systems"], scores["pairs"]
    if o.sort or o.baseline is not None:
        systems = sorted(systems, key=lambda s: -s["hit1"])
    shown = pairs if o.pairs or (len(pairs) == 1 and o.baseline is None) else []
    print_scores({"systems": systems, "pairs": shown})
    if len(shown) > 1:
        print(
            f"\n{len(shown)} tests; their p are not adjusted for that number "
            "(--baseline adjusts its own)"
        )
    if o.baseline is not None:
        _print_against(scores["baseline"], scores["against_baseline"], several="language" in scores)
    elif pairs and not shown:
        print(
            f"\n{len(pairs)} pairs: --pairs prints their tests, "
            "--baseline PRED compares each system with one"
        )


def _print_against(baseline: str, tests: Sequence[dict], several: bool) -> None:
    print(f"\nagainst {baseline}, hit@1 in points")
    width = max(len(t["file"]) for t in tests)
    many = several or len(tests) > 1
    adjusted_head = f"  {'p (Holm)':>9}" if many else ""
    print(
        f"{'system':<{width}}  {'difference':>10}  {'95 % interval':>18}  {'right alone':>13}  "
        f"{'exact p':>9}{adjusted_head}"
    )
    for t in sorted(tests, key=lambda t: -t["difference"]):
        alone = f"{t['only_baseline']} / {t['only_system']}"
        adjusted_p = f"  {t['p_holm']:9.4g}" if many else ""
        print(
            f"{t['file']:<{width}}  {t['difference']:+10.3f}  "
            f"{t['ci_low']:+7.2f} to {t['ci_high']:+7.2f}  {alone:>13}  "
            f"{t['p']:9.4g}{adjusted_p}"
        )
    print("right alone: items that the baseline / the system alone has right; exact McNemar p")


def _print_sets(by_set: Sequence[dict], together: dict, o: argparse.Namespace) -> None:
    for scores in by_set:
        print(f"{scores['language']}: {scores['data']}")
        _print_set(scores, o)
        print()
    if o.baseline is not None:
        print(
            f"p (Holm) is adjusted for all {len(together['against_baseline'])} comparisons "
            "in all languages\n"
        )
    mean = together["mean"]
    if o.sort or o.baseline is not None:
        mean = sorted(mean, key=lambda m: -m["hit1"])
    width = max(len(m["file"]) for m in mean)
    print(
        f"unweighted mean of {len(by_set)} languages\n{'system':<{width}}  {'hit@1':>7}  {'MRR':>8}"
    )
    for m in mean:
        print(f"{m['file']:<{width}}  {m['hit1']:7.3f}  {m['mrr']:8.4f}")


@command("audit")
def audit_set(o: argparse.Namespace) -> int:
    """Show what a set gives away without its text or its pictures.

    rarest / most_frequent: hit@1 (percent) of always taking the picture that fills the fewest /
    most candidate slots of this file, expected under a uniform choice among ties.
    gold_as_distractor: slots where some item's gold stands as another's distractor.

    Example:
      vwsd audit --data train.data.v1.txt --gold train.gold.v1.txt
    """
    from vwsdlib.analysis.audit import audit as run_audit

    audited = run_audit(read_set(o))
    if o.json:
        print_json(audited)
        return 0
    print(
        f"items               {audited['n']}"
        f"  ({audited['targets']} targets, {audited['images']} images)"
    )
    for rule in ("chance", "rarest", "most_frequent"):
        low, high = audited["intervals"][rule]
        print(f"{rule:<19} {audited[rule]:.2f}  ({low:.2f} - {high:.2f})")
    print(f"gold_as_distractor  {audited['gold_as_distractor']}")
    print(f"position_counts     {' '.join(map(str, audited['position_counts']))}")
    return 0


@command()
def export(o: argparse.Namespace) -> int:
    """Write stored predictions in another format: the task's official submission, a table of
    scores, Parquet or a `datasets` folder.

    A submission holds each item's ten names, best first; ties go to the earlier candidate, as
    everywhere. Parquet and dataset have a row an item of each run, with its text, scores, rank and
    what made it.

    Example:
      vwsd export results/demo/predictions/lite.phrase.*.test.jsonl --to submission --out submission
    """
    from ..facts.export import FORMATS
    from ..facts.predictions import read_predictions

    write = FORMATS[known("format", o.to, FORMATS)]
    print("\n".join(map(str, write([read_predictions(path) for path in o.runs], o.out))))
    return 0
