"""Rows: one measured number a line, with everything that made it. Long form,
`results/<profile>/rows.jsonl`.

No clock and no rounding: the same inputs give the same bytes. `vwsd report` makes all rows again
from predictions and audits.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

from vwsdlib.analysis.faithfulness import summary
from vwsdlib.analysis.metrics import bootstrap_mrr, hits, mrr, percent, wilson
from vwsdlib.analysis.wsd_scoring import groups, score_groups
from vwsdlib.data.wsd import SETS, WsdItem
from vwsdlib.errors import VwsdError
from vwsdlib.language.wsd_baselines import choose

from .measurements import Measurement
from .predictions import Predictions

KEYS = {
    "id": (
        "run / metric: unique in the file; of textual WSD the run is wsd.<system>[.<score>].<set,"
        " ALL, part of speech or items>.<split>"
    ),
    "metric": (
        "hit@1, mrr; of textual WSD f1; of saliency maps pointing, rival, energy, iou (percent)"
    ),
    "value": "full precision",
    "k": "items right; fractional for a rule that guesses among ties; null for mrr",
    "n": "items",
    "ci_low": (
        "lower end of the 95 % interval (Wilson for hit@1, percentile bootstrap for mrr and f1,"
        " binomial range for chance)"
    ),
    "ci_high": "upper end",
    "dataset": "name of the set",
    "language": "en, it, fa",
    "split": "test, dev, trial",
    "variant": (
        "which text or technique; of textual WSD which score of a trained model, else the system"
    ),
    "model": "checkpoint; none for rules that use no model",
    "revision": "of the checkpoint",
    "weights_sha256": "of the weights",
    "processor": "how pictures become tensors",
    "image_variant": "original or resized pictures",
    "dtype": "of the arithmetic",
    "device": "cpu, cuda, mps",
    "seed": "of whatever is random",
    "profile": "demo, paper, rehearsal",
    "limit": "0: the whole set; else only the first so many items, never compared with a paper",
    "data_sha256": "of ids, text, candidates and gold",
    "code_sha256": "of the library's sources when the predictions were made",
    "versions": "of Python and the packages that can move a score",
}
FROM_META = tuple(KEYS)[7:]
NO_MODEL = {
    "model": "none",
    "revision": "",
    "weights_sha256": "",
    "processor": "none",
    "image_variant": "",
    "dtype": "",
    "device": "",
    "seed": 0,
}


def check(row: dict) -> dict:
    """The row itself, or VwsdError where a key is missing, n is none, a value is no number or
    outside its own interval.
    """
    wrong = set(KEYS) ^ set(row)
    if wrong:
        raise VwsdError(
            f"a row must have exactly the known keys; look at {sorted(wrong)}",
            where=row.get("id", "?"),
        )
    if not isinstance(row["n"], int) or row["n"] <= 0:
        raise VwsdError("a row without n is refused", where=row["id"])
    numbers = [row[k] for k in ("value", "ci_low", "ci_high")]
    if (
        not all(isinstance(x, float) and math.isfinite(x) for x in numbers)
        or not numbers[1] - 1e-9 <= numbers[0] <= numbers[2] + 1e-9
    ):
        raise VwsdError(f"value and interval are not in order: {numbers}", where=row["id"])
    return row


def _row(
    run: str,
    metric: str,
    value: float,
    k: float | None,
    n: int,
    ends: tuple[float, float],
    made: dict,
) -> dict:
    """A checked row; `made` holds FROM_META, and what else it holds is left out."""
    row = {"id": f"{run}/{metric}", "metric": metric, "value": float(value), "k": k, "n": n}
    row |= {"ci_low": float(ends[0]), "ci_high": float(ends[1])}
    return check(row | {key: made[key] for key in FROM_META if key in made})


def prediction_rows(p: Predictions) -> list[dict]:
    """hit@1 and MRR of one run; VwsdError where its meta does not say what made it."""
    n, k = len(p.items), hits(p.ranks)
    absent = [key for key in FROM_META if key not in p.meta]
    if absent:
        raise VwsdError(
            f"the meta of the predictions says no {absent[0]}",
            where=p.run,
            remedy="Run the notebook that makes them again with --force.",
        )
    return [
        _row(p.run, "hit@1", percent(k, n), k, n, wilson(k, n), p.meta),
        _row(p.run, "mrr", mrr(p.ranks), None, n, bootstrap_mrr(p.ranks), p.meta),
    ]


def audit_rows(a: dict) -> list[dict]:
    """Chance and the no-text rules of one audited set (expected hit@1)."""
    rows = []
    for rule in ("chance", "rarest", "most_frequent"):
        run, k = f"{rule}.{a['language']}.{a['split']}", a[rule] * a["n"] / 100
        made = NO_MODEL | a | {"variant": rule}
        rows.append(_row(run, "hit@1", a[rule], k, a["n"], a["intervals"][rule], made))
    return rows


TRUTH = {
    "pointing": ("pointing", 1),
    "rival": ("pointing", 1),
    "energy": ("mean", 100),
    "iou": ("mean", 100),
}  # metric -> kind of mean, to percent


def truth_rows(m: Measurement) -> list[dict]:
    """Pointing game, maximum on another object, energy and IoU (percent) of each model and method
    of the measurement `saliency_truth`.
    """
    groups = defaultdict(list)
    for r in m.records:
        groups[r["model"], r["method"]].append(r)
    rows = []
    for (model, method), records in groups.items():
        run = f"saliency.{model}.{method}.{m.meta['split']}"
        made = _made(m, model, method)
        for metric, (kind, scale) in TRUTH.items():
            mean = summary([r[metric] for r in records], kind)
            low, value, high = (scale * mean[key] for key in ("ci_low", "value", "ci_high"))
            rows.append(_row(run, metric, value, mean["k"], mean["n"], (low, high), made))
    return rows


def _made(m: Measurement, model: str, variant: str) -> dict:
    """What made the rows of one of a measurement's models."""
    identity = m.meta.get("identities", {}).get(model, {})
    meta = {key: m.meta.get(key, "") for key in FROM_META}
    return meta | NO_MODEL | {"seed": m.meta["seed"]} | identity | {"variant": variant}


def answers_of(
    m: Measurement,
) -> dict[tuple[str, str], tuple[list[WsdItem], dict[str, tuple[str, ...]]]]:
    """(system, score) -> (items, item id -> its answer) of the measurement `wsd_answers`; a
    baseline's score is "", of equals the earlier wins.
    """
    answered: dict[tuple[str, str], tuple[list, list]] = defaultdict(lambda: ([], []))
    for r in m.records:
        item = _wsd_item(r, m.meta)
        for score, values in r["scores"].items():
            items, scores = answered[r["system"], score]
            items.append(item)
            scores.append(values)
    return {key: (items, choose(items, scores)) for key, (items, scores) in answered.items()}


def _wsd_item(r: dict, meta: dict) -> WsdItem:
    """The item of a record of `wsd_answers`, without its sentence."""
    source = {name: corpus for corpus, name in SETS.items()}.get(r["set"], r["set"])
    candidates, golds = tuple(r["candidates"]), tuple(r["golds"])
    place: tuple[int, int] = (0, 0)
    lemma, pos, language = r["lemma"], r["pos"], meta["language"]
    return WsdItem(r["id"], language, lemma, pos, (), place, candidates, (), golds, source)


def wsd_id(system: str, score: str, group: str, split: str) -> str:
    """Id of a row of textual WSD."""
    return f"{'.'.join(filter(None, ('wsd', system, score, group, split)))}/f1"


def wsd_rows(m: Measurement) -> list[dict]:
    """F1 of every system, score and group (score_groups) of the measurement `wsd_answers`; its meta
    may name each system's model in `identities`.
    """
    rows = []
    for (system, score), (items, answers) in answers_of(m).items():
        made = _made(m, system, score or system)
        for g in score_groups(items, answers):
            run = wsd_id(system, score, g["group"], m.meta["split"]).removesuffix("/f1")
            k, ends = round(g["recall"] * g["total"] / 100), (g["ci_low"], g["ci_high"])
            row = _row(run, "f1", g["f1"], k, g["total"], ends, made)
            # n before k, as figures have stored these rows ever since
            rows.append(dict.fromkeys(("id", "metric", "value", "n")) | row)
    return rows


def lines_behind(row_id: str, m: Measurement) -> list[int]:
    """Lines, from 1, of a measurement that a row of that id was made from; none where it was made
    from another fact.
    """
    run = row_id.rpartition("/")[0]
    lines = []
    for number, r in enumerate(m.records, start=1):
        if m.name == "saliency_truth":
            behind = run == f"saliency.{r['model']}.{r['method']}.{m.meta['split']}"
        elif m.name == "wsd_answers":
            ends = [f".{group}.{m.meta['split']}" for group in groups([_wsd_item(r, m.meta)])]
            behind = run.startswith(f"wsd.{r['system']}.") and run.endswith(tuple(ends))
        else:
            return []
        if behind:
            lines.append(number)
    return lines


def to_jsonl(rows: Iterable[dict]) -> str:
    """Rows as JSON lines, ordered by id; two rows of one id are refused."""
    ordered = sorted(rows, key=lambda r: r["id"])
    for a, b in pairwise(ordered):
        if a["id"] == b["id"]:
            raise VwsdError(
                "two rows of one id",
                where=a["id"],
                remedy="Two notebooks own the same run; rename one.",
            )
    lines = []
    for row in ordered:
        known = {key: row[key] for key in KEYS}
        lines.append(json.dumps(known, ensure_ascii=False, allow_nan=False) + "\n")
    return "".join(lines)
