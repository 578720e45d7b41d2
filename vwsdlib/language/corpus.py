"""The corpus that a definer is fine-tuned on, as PolCLIP's paper describes it: SemCor's targets in
context, answered by their WordNet glosses.

A line is a chat in OpenAI's fine-tuning format, with the very messages that `definitions` asks
later. A model tuned on it is served by any OpenAI-compatible endpoint and used as definer `chat`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path

from ..data.items import read_lines
from ..data.wsd import WsdItem
from ..errors import VwsdError
from ..paths import atomic, quiet
from ..progress import tqdm
from .definitions import messages, question


def write_corpus(path: str | Path, items: Iterable[WsdItem], limit: int = 0) -> int:
    """Write a chat a line for the items (streamed, at most `limit` lines where it is not 0), whole
    or not at all; returns the number of lines.

    The answer is the gloss of the first gold that is a candidate. Items without one are passed
    over, and a warning tells how many. Raises VwsdError for an item of an evaluation set
    (`WsdItem.set`): its glosses are the test's answers.
    """
    written = passed = 0
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as f:
        for item in tqdm(items, desc="fine-tuning corpus", unit="item", disable=quiet()):
            if item.set:
                raise VwsdError(
                    f"{item.id!r} belongs to the evaluation set {item.set}: its gloss is an answer"
                    " of the test",
                    where=path,
                    remedy="Build the corpus from SemCor.",
                )
            gloss = gold_gloss(item)
            if not gloss:
                passed += 1
            else:
                chat = [*messages(question(item)), {"role": "assistant", "content": gloss}]
                f.write(json.dumps({"messages": chat}, ensure_ascii=False) + "\n")
                written += 1
            if written == limit > 0:
                break
    if passed:
        warnings.warn(
            f"{passed} items have no gold gloss and are not in the corpus ({written} are)",
            stacklevel=2,
        )
    return written


def gold_gloss(item: WsdItem) -> str:
    """The gloss of the first gold among the item's candidates, empty where there is none."""
    glosses = dict(zip(item.candidates, item.glosses))
    return next((glosses[gold] for gold in item.golds if glosses.get(gold)), "")


def finetune_facts(path: str | Path) -> dict:
    """`lines` and `tokens` (about: a quarter of the messages' characters) of a corpus, to reckon
    costs with; tokens are billed once an epoch.
    """
    sizes = [
        sum(len(message["content"]) for message in json.loads(line)["messages"])
        for line in read_lines(path)
    ]
    return {"lines": len(sizes), "tokens": round(sum(sizes) / 4)}
