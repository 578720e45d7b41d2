"""PolCLIP's studies on the stand-ins: the demo on EmojiWSD, and the rehearsal of the paper's."""

from __future__ import annotations

import dataclasses

from polclip.packing import packed
from polclip.paper import paper_study
from polclip.records import records_sha256
from polclip.sources import Study
from vwsdlib.data.sets import load_set

from . import records
from .rehearsal.polclip import make_polclip, polclip_folder


def emojiwsd(unambiguous: int = 300, limit: int = 0) -> Study:
    """The demo: EmojiWSD's dev senses by their sentences, and unambiguous emoji; tested on lemmas
    that were never seen, nor their drawings.
    """
    kept, back = records.demo_records(unambiguous)
    dev = load_set("emojiwsd", "en", "dev")
    chosen = tuple(item for item in dev.items if records.held_back(item.target))
    test = [load_set("emojiwsd", language, "test").head(limit) for language in ("en", "it", "fa")]
    facts = {
        "study": "emojiwsd",
        "senses": len({r.golds for r in kept if r.set == "emojiwsd"}),
        "unambiguous": unambiguous,
        "records": records_sha256(kept),
        "dev": dev.sha256,
    }
    return Study(
        "emojiwsd",
        lambda config: packed(kept, config),
        back,
        dataclasses.replace(dev, items=chosen),
        records.sentence_records("test")[: limit or None],
        test,
        facts,
    )


def rehearsal(limit: int = 0) -> Study:
    """The paper's study in small: made-up batches in the published layout, and the rehearsal's
    sets.
    """
    folder = make_polclip(polclip_folder())
    return paper_study("rehearsal", folder, "all", "error", "rehearsal", limit)
