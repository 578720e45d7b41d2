"""Every line of a registry leads somewhere, and every name that a profile or a notebook gives is a
line of the right registry.
"""

import importlib
import inspect

import nbformat
import pytest
import yaml

from polclip.config import PRESETS
from polclip.runs import ABLATIONS
from polclip.study import STUDIES
from vwsd_companion import pipeline
from vwsd_standins.lite_twins import SIDES, VIEWS
from vwsdlib.analysis.masks import STATISTICS
from vwsdlib.data.sets import SETS
from vwsdlib.encoders import registry
from vwsdlib.encoders.pretrained import RECIPES
from vwsdlib.encoders.registry import (
    ENCODERS,
    SEGMENTERS,
    Entry,
    entry,
    load_encoder,
    load_segmenter,
)
from vwsdlib.errors import VwsdError
from vwsdlib.language.definitions import DEFINERS, INVENTORIES
from vwsdlib.language.translate import TRANSLATORS
from vwsdlib.paths import PACKAGE

LINES = {**ENCODERS, **{f"segmenter {name}": it for name, it in SEGMENTERS.items()}}
KINDS = {
    "encoder": ENCODERS,
    "dual": ENCODERS,
    "ladder": ENCODERS,
    "backbones": ENCODERS,
    "encoders": ENCODERS,
    "segmenter": SEGMENTERS,
    "further_segmenters": SEGMENTERS,
    "translator_it": TRANSLATORS,
    "translator_fa": TRANSLATORS,
    "more_it": TRANSLATORS,
    "more_fa": TRANSLATORS,
    "statistics": STATISTICS,
    "dataset": SETS,
    "zero_shot": ENCODERS,
    "study": STUDIES,
    "preset": PRESETS,
    "ablations": ABLATIONS,
    "definers": DEFINERS,
    "inventory": INVENTORIES,
}


@pytest.mark.parametrize("name", LINES)
def test_a_line_names_a_loader_that_takes_its_arguments(name):
    module, function, *arguments = LINES[name].loader.split(":")
    loader = getattr(importlib.import_module(module), function)
    inspect.signature(loader).bind(*arguments, *(["bf16"] if LINES[name].variants else []))
    assert not arguments or arguments == [name.removeprefix("segmenter ")]
    assert (
        LINES[name].about and LINES[name].languages and LINES[name].extra in {"", "demo", "paper"}
    )


def test_whatever_can_be_made_has_its_line():
    assert set(VIEWS) <= set(ENCODERS) and set(SIDES) <= set(SEGMENTERS)
    assert {name for name, it in ENCODERS.items() if "pretrained" in it.loader} == set(RECIPES)


def test_a_segmenter_that_is_none_is_answered_with_segmenters():
    with pytest.raises(
        VwsdError,
        match="no segmenter named 'lite-dens'. Did you mean 'lite-dense'.*Segmenters: lite-dense, ",
    ):
        load_segmenter("lite-dens")
    with pytest.raises(VwsdError, match="no encoder named 'lite-dense'.*Encoders: lite, "):
        load_encoder("lite-dense")


@pytest.mark.parametrize(
    "name, words",
    [
        ("lite@bf16", "'lite' has no variant 'bf16'. Variants: none"),
        ("clip-vit-b32@", "Variants: clip-vit-b32@quick, clip-vit-b32@bf16, clip-vit-b32@fp16"),
        ("clip-vit-b32@int8", "no variant 'int8'"),
    ],
)
def test_a_variant_that_is_none_is_answered_with_variants(name, words):
    with pytest.raises(VwsdError, match=words):
        entry(name)


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(
        registry.ENCODERS, "toy", Entry("no_such_package.models:load", "x", ("en",), "paper")
    )
    with pytest.raises(
        VwsdError,
        match=(
            r"'toy' needs the package no_such_package. Install it: pip install 'vwsdlib\[paper\]'"
        ),
    ):
        load_encoder("toy")


# ---------------------------------------------------------------- the names that profiles and
# notebooks give


def unknown(given):
    """(parameter, name) of each name that its registry does not have."""
    pairs = [
        (key, name)
        for key, value in given.items()
        if key in KINDS
        for name in (value if isinstance(value, list) else [value])
    ]
    return [(key, name) for key, name in pairs if str(name).partition("@")[0] not in KINDS[key]]


def notebooks():
    for path in sorted((PACKAGE.parent / "notebooks").glob("0*.ipynb")):
        yield path.stem, pipeline.read_parameters(nbformat.read(path, as_version=4), path)


PROFILES = yaml.safe_load(
    (PACKAGE.parent / "notebooks" / "pipeline.yml").read_text(encoding="utf-8")
)["profiles"]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_name_of_a_profile_is_a_line_of_its_registry(profile):
    for name, defaults in notebooks():
        given = {
            **defaults,
            **{key: value for key, value in PROFILES[profile].items() if key in defaults},
        }
        assert unknown(given) == [], name
        if "ladder" in given:
            assert (
                len(given["ladder"]) == len(given["changes"]) and given["dual"] in given["ladder"]
            )  # its run is what contrasts are held against
        assert (
            all(
                language in TRANSLATORS[t].languages
                for language in ("it", "fa")
                for t in [given[f"translator_{language}"], *given[f"more_{language}"]]
            )
            if "more_it" in given
            else True
        )
        assert all(
            f"{given['encoder']}@{dtype}" and dtype in ENCODERS[given["encoder"]].variants
            for dtype in given.get("dtypes", [])
        )


def test_a_misspelt_name_would_be_seen():
    assert unknown(
        {
            "encoder": "lit",
            "ladder": ["lite-352", "lite-353"],
            "segmenter": "lite",
            "seed": 3,
            "more_fa": ["nllb-600m", "nllb"],
        }
    ) == [("encoder", "lit"), ("ladder", "lite-353"), ("segmenter", "lite"), ("more_fa", "nllb")]
