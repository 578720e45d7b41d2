"""What the stand-ins add to the registries; pyproject.toml names each mapping as an entry point."""

from __future__ import annotations

from vwsdlib.data.official import OFFICIAL_FILES
from vwsdlib.data.sets import SetEntry
from vwsdlib.encoders.registry import Entry
from vwsdlib.language.replay import Answerer
from vwsdlib.registry import Line

EN = ("en",)
# of the sixteen that the sentence encoder reads; traditional Chinese is the sixteenth
USE_16 = tuple("en ar zh nl fr de it ja ko pl pt ru es th tr".split())
# multilingual E5 reads about a hundred; those that this project knows to be among them
E5_LANGUAGES = (*USE_16, "fa")

SETS = {
    "emojiwsd": SetEntry(
        "vwsd_standins.reference:emojiwsd_set",
        "EmojiWSD",
        tuple((language, split) for language in ("en", "it", "fa") for split in ("dev", "test")),
        "vwsd_standins.reference:emojiwsd_fingerprint",
        senses="vwsd_standins.reference:emojiwsd_glosses",
        profile="demo",
        encoders=("lite",),
        place=0,
    ),
    "rehearsal": SetEntry(
        "vwsd_standins.rehearsal:rehearsal_set",
        "random weights, generated pictures",
        tuple(part for part in OFFICIAL_FILES if part[1] != "train"),
        "vwsd_standins.rehearsal:rehearsal_fingerprint",
        "vwsd_standins.rehearsal:prepare",
        "vwsd_standins.rehearsal.data:models_folder",
        state="vwsd_standins.rehearsal:state",
        profile="rehearsal",
        scope=(
            "A rehearsal: tiny checkpoints with **random weights** in the real formats, on"
            " generated pictures. It walks the papers' whole path without a download; its numbers"
            " are those of a guesser and measure nothing. The papers' numbers stand beside them so"
            " that the report can be seen at work.\n"
        ),
        verdict="REHEARSAL",
    ),
}
ENCODERS = {
    "lite": Entry(
        "vwsd_standins.lite:load_lite",
        "EfficientNet-Lite0 + MiniLM with a small trained head; runs anywhere",
        EN,
        "demo",
        place=0,
    ),
    "lite-352": Entry(
        "vwsd_standins.lite_twins:load_view:lite-352",
        "the lite encoder at 352 px, CLIPSeg's input size",
        EN,
        "demo",
        place=2,
    ),
    "lite-352-imagenet": Entry(
        "vwsd_standins.lite_twins:load_view:lite-352-imagenet",
        "the same with ImageNet's mean and deviation",
        EN,
        "demo",
        place=2,
    ),
    "lite-multilingual": Entry(
        "vwsd_standins.lite_twins:load_multilingual",
        "the lite encoder's pictures, texts of 16 languages (not Farsi)",
        USE_16,
        "demo",
        place=2,
    ),
    "lite-e5": Entry(
        "vwsd_standins.lite_e5:load_e5",
        "the lite encoder's pictures, texts of some hundred languages, Farsi among them",
        E5_LANGUAGES,
        "demo",
        fault="vwsd_standins.lite_e5:fault",
        place=2,
    ),
}
SEGMENTERS = {
    "lite-dense": Entry(
        "vwsd_standins.lite_twins:load_dense:lite-dense",
        "the lite encoder at every place of its 11x11 feature map (352 px)",
        EN,
        "demo",
        place=0,
    ),
    "lite-dense-704": Entry(
        "vwsd_standins.lite_twins:load_dense:lite-dense-704",
        "the same at 704 px, 22x22 places",
        EN,
        "demo",
        place=0,
    ),
}
INVENTORIES = {
    "emojiwsd": Line("vwsd_standins.reference:emojiwsd_inventory", "EmojiWSD's senses", place=0)
}
TRANSLATORS = {
    "reference": Answerer(
        "vwsd_standins.reference:reference_translator",
        "upper bound: EmojiWSD's own first English phrase of the sense",
        ("it", "fa"),
        settings={"phrase": "first English phrase of the sense", "upper_bound": True},
        targets="vwsd_standins.reference:reference_target",
    ),
    "literal": Answerer(
        "vwsd_standins.literal:literal_translator",
        "deliberately poor: word by word, each by its likeliest English word; others are copied",
        ("it", "fa"),
        settings={"words": "EmojiWSD's targets and CLDR's names of emoji", "rounds": 8},
    ),
}
STUDIES = {
    "emojiwsd": Line("vwsd_standins.studies:emojiwsd", "EmojiWSD's dev senses", place=0),
    "rehearsal": Line("vwsd_standins.studies:rehearsal", "the paper's study in small"),
}
BACKBONES = {"lite": Line("vwsd_standins.lite_backbone:LiteBackbone", "the lite encoder's towers")}
