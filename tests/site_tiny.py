"""A small profile with a report and two notebooks, from which tests build the site: a few items in
English and Farsi, two runs each, no model.
"""

import json
from pathlib import Path

import nbformat
import numpy as np
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from vwsd_companion.facts.audits import write_audit
from vwsd_companion.facts.predictions import write_predictions
from vwsd_companion.report import write_report
from vwsdlib.data.sets import load_set
from vwsdlib.encoders.control import RandomEncoder

SIZES = {"en": 6, "fa": 4}
CLAIM = {
    "ours": 58.315334773,
    "ours_k": 270,
    "ours_n": 463,
    "ci_low": 53.7777,
    "ci_high": 62.7222,
    "off_by": 2,
    "p": 0.0000312345,
    "verdict": "CLOSE",
}
HOSTILE = (
    '<script src="https://example.org/x.js"></script><link rel="stylesheet"'
    ' href="https://example.org/x.css">'
    '<style>@import url(https://example.org/y.css);</style><table onclick="alert(1)"'
    ' style="background: url(https://example.org/z.png)">'
    "<thead><tr><th>a</th></tr></thead><tbody><tr><th>1</th></tr></tbody></table>"
)
STORY = (
    "# 1 · The data\n\nSee [the next](02_clip_baseline.ipynb), [a page](https://example.org/page),"
    " [a file](../docs/nowhere.md) and ![a picture](https://example.org/p.png)."
)


def scored(items, seed: int) -> np.ndarray:
    """Random scores [n, 10] that put the gold first, second and third in turns."""
    scores = np.random.default_rng(seed).random((len(items), 10))
    for n, (item, row) in enumerate(zip(items, scores)):
        gold, there = item.gold_index, np.argsort(-row)[(n + seed) % 3]
        row[[gold, there]] = row[[there, gold]]
    return scores


def write_tiny(folder: Path, profile: str = "demo") -> None:
    """Facts, report and executed notebooks of `profile` below `folder` (VWSD_RESULTS must name it);
    one claim gets values, which a demo's never has.
    """
    for n, (language, size) in enumerate(SIZES.items()):
        data = load_set("emojiwsd", language, "test").head(size)
        write_audit(folder / profile, data, profile=profile, limit=size)
        for variant, part in (("word", "target"), ("phrase", "phrase")):
            scores = scored(data.items, n + len(variant))
            write_predictions(
                folder / profile,
                f"lite.{variant}.{language}.test",
                data,
                [getattr(item, part) for item in data.items],
                scores,
                profile=profile,
                variant=variant,
                identity=RandomEncoder().identity(),
                limit=size,
            )
    write_report(profile)
    report = folder / profile / "report.json"
    facts = json.loads(report.read_text(encoding="utf-8"))
    facts["claims"][0].update(CLAIM)
    report.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / profile / "notebooks").mkdir()
    shown = new_code_cell(
        "x = 1\nx",
        execution_count=1,
        outputs=[
            new_output(
                "execute_result", {"text/html": HOSTILE, "text/plain": "1"}, execution_count=1
            )
        ],
    )
    for name, cells in (
        ("01_data", [new_markdown_cell(STORY), shown]),
        ("02_clip_baseline", [shown]),
    ):
        for place, cell in enumerate(cells):
            cell["id"] = f"cell-{place}"
        nbformat.write(new_notebook(cells=cells), folder / profile / "notebooks" / f"{name}.ipynb")
