"""What the papers print, and the verdict on ours beside it.

A percentage over n items stands for a count; a printed value is attainable when some count prints
it, rounded or cut off.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from functools import cache

import yaml

from vwsdlib import paths, schema
from vwsdlib.analysis.metrics import mcnemar, paired_interval, percent, wilson
from vwsdlib.data.sets import SETS, set_of
from vwsdlib.errors import VwsdError

from .collect import Collection
from .predictions import Predictions

MEND = "Mend the entry, or take the file back from git."
VERDICTS = {
    "EXACT": "the same count",
    "CLOSE": "off by at most max(2, 1 % of n) items",
    "CONSISTENT": "inside the 95 % interval of the reported value; not a reproduction",
    "DIFFERS": "outside it; see docs/deviations.md",
    "DIFFERS, unexplained": "outside it, and docs/deviations.md has no entry",
    "PARTIAL": "run on a part of the items (--limit)",
    "SUPPORTED": "the exact McNemar test on our predictions gives p < 0.05",
    "NOT SUPPORTED": "it does not",
    "REHEARSAL": "random weights on generated pictures: the path was walked, nothing was measured",
    "NOT RUN": "no stored predictions of this profile answer it",
    "NO REFERENCE": "the paper gives no value that could be compared (system, split or n unknown)",
}


@cache
def entries() -> tuple[dict, ...]:
    """All entries of results/reported.yml, in file order; VwsdError where there is no such file or
    an entry of it is not as it must be."""
    from .shapes import shape

    path = paths.root() / "results" / "reported.yml"
    if not path.exists():
        raise VwsdError(
            "the reported values are missing",
            where=path,
            remedy="Run from a checkout of the project, or set VWSD_HOME to one.",
        )
    what = "file of reported values"
    try:
        stored = yaml.safe_load(schema.read_bytes(path, what, MEND))
    except (yaml.YAMLError, UnicodeError, ValueError, RecursionError) as e:
        raise VwsdError(
            f"the file of reported values is no YAML: {e}", where=path, remedy=MEND
        ) from None
    known = schema.validate(stored, list[shape("reported")], path, what, MEND)
    ids = [entry.id for entry in known]
    twice = [name for number, name in enumerate(ids) if name in ids[:number]]
    if twice:
        raise VwsdError(f"the {what} has the id {twice[0]} twice", where=path, remedy=MEND)
    return tuple(stored)


def reported() -> tuple[dict, ...]:
    """What the papers report: the entries that are not there for context."""
    return tuple(entry for entry in entries() if entry["paper"] != "context")


def published(group: str, n: int) -> list[tuple[dict, float]]:
    """(entry, F1) of other published systems on a set of textual WSD, where it has as many items as
    theirs had.
    """
    scores = []
    for entry in entries():
        if entry["paper"] == "context":
            values = zip(entry["sets"], entry["n"], entry["value"].split())
            scores += [
                (entry, float(f1)) for name, size, f1 in values if (name, size) == (group, n)
            ]
    return scores


def attainable(value: str, n: int, decimals: int) -> list[int]:
    """Counts k whose 100 k / n prints as `value`, rounded (either way at a half) or cut off to
    `decimals`, zeros at the end dropped.
    """
    step, printed = Decimal(1).scaleb(-decimals), Decimal(value)
    near = int(printed * n / 100)
    counts = []
    for k in range(max(0, near - 2), min(n, near + 3) + 1):
        exact = Decimal(100 * k) / n
        ways = (ROUND_HALF_UP, ROUND_HALF_EVEN, ROUND_DOWN)
        if printed in [exact.quantize(step, rounding=way) for way in ways]:
            counts.append(k)
    return counts


def verdict(
    count: int, n: int, ours: dict | None, explained: bool = False, difference: bool = False
) -> str:
    """One of VERDICTS for our row `ours` (keys k, n, limit; None where there is none) against
    `count` of n.

    `difference`: count is a difference of counts, whose interval is taken from the paired test
    elsewhere, so only EXACT, CLOSE and DIFFERS apply.
    """
    if ours is None:
        return "NOT RUN"
    if ours["limit"] or ours["n"] != n:
        return "PARTIAL"
    off = abs(ours["k"] - count)
    if off == 0:
        return "EXACT"
    if off <= max(2, 0.01 * n):
        return "CLOSE"
    if not difference:
        low, high = wilson(count, n)
        if low <= percent(ours["k"], n) <= high:
            return "CONSISTENT"
    return "DIFFERS" if explained else "DIFFERS, unexplained"


def claims(c: Collection, explained: str = "") -> list[dict]:
    """Each reported entry with ours and the verdict.

    c: the stored facts; explained: text of docs/deviations.md, which answers a difference by naming
    the claim's id. Which profile can answer a paper, its set says (`SetEntry.verdict`); under the
    rehearsal all is computed alike and every verdict says so.
    """
    name = set_of(c.profile)
    verdict = SETS[name].verdict if name else None
    if verdict is None:
        return [{**_blank(entry), "verdict": "NOT RUN"} for entry in reported()]
    made = []
    for entry in reported():
        of_task = entry["paper"] == "task"
        claim = _size_claim(entry, c.audits) if of_task else _claim(entry, c, explained)
        if verdict and claim["ours"] is not None:
            claim["verdict"] = verdict
        made.append(claim)
    return made


def _blank(entry: dict) -> dict:
    stated = {key: entry[key] for key in ("id", "about")} | {"reported": entry["value"]}
    stated |= {key: entry.get(key) for key in ("unit", "count", "n", "notebook")}
    ours = ("ours", "ours_k", "ours_n", "ci_low", "ci_high", "off_by", "p")
    return stated | dict.fromkeys(ours)


def _size_claim(entry: dict, sizes: dict[str, dict]) -> dict:
    of = sizes.get(entry.get("set", ""))
    if of is None:
        return {**_blank(entry), "verdict": "NOT RUN"}
    off = of["n"] - int(entry["value"])
    return {
        **_blank(entry),
        "ours": float(of["n"]),
        "off_by": off,
        "verdict": "PARTIAL" if of["limit"] else "EXACT" if off == 0 else "DIFFERS, unexplained",
    }


def _claim(entry: dict, c: Collection, explained: str) -> dict:
    if "run" not in entry:
        return {**_blank(entry), "verdict": "NO REFERENCE" if "metric" in entry else "NOT RUN"}
    if "against" in entry:
        runs = c.predictions.get(entry["run"]), c.predictions.get(entry["against"])
        return _paired_claim(entry, *runs, entry["id"] in explained)
    row = c.rows.get(f"{entry['run']}/{entry['metric']}")
    claim = _blank(entry)
    claim["verdict"] = verdict(entry["count"], entry["n"], row, entry["id"] in explained)
    if row:
        claim |= {"ours": row["value"], "ours_k": row["k"], "ours_n": row["n"]}
        claim |= {"ci_low": row["ci_low"], "ci_high": row["ci_high"]}
        claim["off_by"] = row["k"] - entry["count"]
    return claim


def _paired_claim(
    entry: dict, a: Predictions | None, b: Predictions | None, explained: bool
) -> dict:
    """A claim of difference: ours in points with the interval of the paired difference and the
    exact McNemar p.
    """
    claim = _blank(entry)
    if a is None or b is None or a.meta["data_sha256"] != b.meta["data_sha256"]:
        return {**claim, "verdict": "NOT RUN"}
    worse, better, p = mcnemar(b.ranks == 1, a.ranks == 1)
    n, limit = len(a.ranks), a.meta["limit"] or b.meta["limit"]
    low, high = paired_interval(worse, better, n)
    claim |= {"ours": percent(better - worse, n), "ours_k": better - worse, "ours_n": n}
    claim |= {"ci_low": low, "ci_high": high, "p": p}
    if "test" in entry:
        supported = p < 0.05 and better > worse
        claim["verdict"] = "SUPPORTED" if supported else "NOT SUPPORTED"
        if limit:
            claim["verdict"] = "PARTIAL"
        return claim
    ours = {"k": better - worse, "n": n, "limit": limit}
    claim["off_by"] = better - worse - entry["count"]
    claim["verdict"] = verdict(entry["count"], entry["n"], ours, explained, True)
    return claim
