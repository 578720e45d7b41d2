"""What the paper's model learns from and is asked: the published batches and pictures, and the
textual test.

The six sets of the test are the published file's; without it the five of the Unified Evaluation
Framework stand in, with WordNet's glosses and without SE10. SE07 is in both. The paper's test has
SE07 in its total and names no dev set; here epochs are chosen on SE07, so its own figure, and any
total that it is in, is of a set that was looked at.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vwsdlib.data.sets import load_set
from vwsdlib.data.wsd import read_uef
from vwsdlib.encoders.damage import look_for_damage
from vwsdlib.errors import VwsdError, known
from vwsdlib.paths import data_dir

from .cost import CORPORA, TRAIN, Corpus
from .published import read_textual_test
from .records import Record, from_wsd, records_sha256
from .sources import Source, Study, metadata_source

METADATA = {
    "semcor": "semcor_training_tokens.50.250.json",
    "vwsd": "vwsd_training_tokens.50.250.json",
}
PICTURES = {"semcor": "image_pt", "vwsd": "image_vecs"}
TEST, UEF = "all_twsd_test_data.json", "ALL.data.xml"


class TrainingDataMissing(VwsdError):
    """PolCLIP's published files are not here; what needs none of them can be done all the same."""


def published_study(
    train: str = "all",
    missing: str = "error",
    limit: int = 0,
    untrained: bool = False,
    damaged: str = "keep",
) -> Study:
    """The paper: published batches replayed ("all", or "ie_semcor" alone), tested on the textual
    sets and on V-WSD in three languages.

    Epochs are chosen on SE07 and on V-WSD's trial items. The paper's test includes SE07, so it is
    tested on all the same, though it is no longer unseen. missing="drop" leaves out pictures that
    are not there, of the batches; damaged: way with those of V-WSD. VwsdError names the files that
    are missing, their sizes and where they are to be had; with `untrained` the study has it in
    `missing`, and its tests alone as far as they are there.
    """
    folder = data_dir() / "polclip"
    study = paper_study("published", folder, train, missing, "vwsd", limit, untrained, damaged)
    return dataclasses.replace(study, keep_states=False)


def paper_study(
    name: str,
    folder: Path,
    train: str,
    missing: str,
    sets: str,
    limit: int,
    untrained: bool = False,
    damaged: str = "keep",
) -> Study:
    """The paper's study of published batches in `folder`, with V-WSD items of the set `sets`;
    `untrained` and VwsdError as `published_study` has them; damaged: way with the items' pictures
    (`vwsdlib.data.damage`).
    """
    lacking, trial = None, None
    try:
        source = training(folder, train, missing)
        trial = look_for_damage(load_set(sets, "en", "trial"), damaged)
    except TrainingDataMissing as e:
        if not untrained:
            raise
        source, lacking = Source(lambda config: lambda epoch: (), lambda config: 0, {}), e
    test = textual_test(folder)
    dev = [record for record in test if record.set == "SE07"]
    shown = [load_set(sets, language, "test").head(limit) for language in ("en", "it", "fa")]
    shown = [look_for_damage(data, damaged) for data in shown]
    chosen_on = {"textual": records_sha256(dev), "visual": trial and trial.sha256}
    if trial:
        chosen_on |= trial.damage.facts()  # another way with damage may choose another epoch
    facts = {"study": name, "train": train, **source.facts, "dev": chosen_on}
    return Study(
        name,
        source.batches,
        dev,
        trial,
        test[: limit or None],
        shown,
        facts,
        source.per_epoch,
        missing=lacking,
    )


def training(folder: Path, train: str = "all", missing: str = "error") -> Source:
    """The published batches: "all", or "ie_semcor" alone. VwsdError as `required` raises it."""
    required(folder, train)
    kinds = TRAIN[train]
    roots = {kind: folder / PICTURES[kind] for kind in kinds}
    return metadata_source([folder / METADATA[kind] for kind in kinds], roots, missing)


def required(folder: Path | None = None, train: str = "all") -> Path:
    """The folder of published files, by default `data/polclip`; VwsdError names whatever is not
    there, sizes and where it is to be had.
    """
    folder, lost = folder or data_dir() / "polclip", []
    kinds = TRAIN[known("training data", train, TRAIN)]
    for kind in kinds:
        for name in (METADATA[kind], f"{PICTURES[kind]}/"):
            if not (folder / name).exists():
                lost.append(name)
    if not (folder / TEST).exists() and framework() is None:
        lost.append(f"{TEST} (or {UEF} in {data_dir() / 'wsd'})")
    if lost:
        sizes = " and ".join(_said(CORPORA[kind]) for kind in kinds)
        raise TrainingDataMissing(
            f"PolCLIP's data are not here, missing: {', '.join(lost)}",
            folder,
            f"The paper's repository, github.com/CharlesYang030/PolCLIP, links {sizes}; make the"
            " pictures safetensors with `vwsd convert pictures SOURCE TARGET`.",
        )
    return folder


def _said(corpus: Corpus) -> str:
    parts = f"{corpus.metadata_gb} GB JSON, {corpus.pictures_gb} GB pictures"
    return f"{corpus.name} ({parts})"


def framework() -> Path | None:
    """ALL.data.xml of the Unified Evaluation Framework below `data/wsd`, with its key beside it;
    None where there is none.
    """
    for path in sorted((data_dir() / "wsd").rglob(UEF)):
        if _key(path).exists():
            return path
    return None


def _key(data: Path) -> Path:
    return data.with_name(data.name.replace(".data.xml", ".gold.key.txt"))


def textual_test(folder: Path) -> list[Record]:
    """The textual test: the published file, else the Unified Evaluation Framework."""
    if (folder / TEST).exists():
        return list(read_textual_test(folder / TEST))
    data = framework()
    return list(from_wsd(read_uef(data, _key(data)))) if data else []
