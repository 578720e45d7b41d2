"""What the paper's model learns from and is asked: the published batches and pictures, and the
textual test.

The six sets of the test are the published file's; without it the five of the Unified Evaluation
Framework stand in, with WordNet's glosses and without SE10. SE07 is in both. The paper's test has
SE07 in its total and names no dev set; here epochs are chosen on SE07, so its own figure, and any
total that it is in, is of a set that was looked at.
"""

from __future__ import annotations

from pathlib import Path

from vwsdlib.data.wsd import read_uef
from vwsdlib.errors import VwsdError, known
from vwsdlib.paths import data_dir

from .published import read_textual_test
from .records import Record, from_wsd
from .sources import Source, metadata_source

METADATA = {
    "semcor": "semcor_training_tokens.50.250.json",
    "vwsd": "vwsd_training_tokens.50.250.json",
}
PICTURES = {"semcor": "image_pt", "vwsd": "image_vecs"}
SIZES = {
    "semcor": "IE-SemCor (3.06 GB JSON, 195 GB pictures)",
    "vwsd": "IE-VWSD-KB (0.97 GB JSON, 108 GB pictures)",
}
TRAIN = {"all": ("semcor", "vwsd"), "ie_semcor": ("semcor",)}
TEST, UEF = "all_twsd_test_data.json", "ALL.data.xml"


def training(folder: Path, train: str = "all", missing: str = "error") -> Source:
    """The published batches: "all", or "ie_semcor" alone. VwsdError as `required` raises it."""
    required(folder, train)
    kinds = TRAIN[train]
    return metadata_source(
        [folder / METADATA[kind] for kind in kinds],
        {kind: folder / PICTURES[kind] for kind in kinds},
        missing,
    )


def required(folder: Path | None = None, train: str = "all") -> Path:
    """The folder of published files, by default `data/polclip`; VwsdError names whatever is not
    there, sizes and where it is to be had.
    """
    kinds, folder = TRAIN[known("training data", train, TRAIN)], folder or data_dir() / "polclip"
    needed = [name for kind in kinds for name in (METADATA[kind], f"{PICTURES[kind]}/")]
    lost = [name for name in needed if not (folder / name).exists()]
    lost += (
        [f"{TEST} (or {UEF} in {data_dir() / 'wsd'})"]
        if not (folder / TEST).exists() and framework() is None
        else []
    )
    if lost:
        raise VwsdError(
            f"PolCLIP's data are not here, missing: {', '.join(lost)}",
            where=folder,
            remedy=(
                "The paper's repository, github.com/CharlesYang030/PolCLIP, links"
                f" {' and '.join(SIZES[kind] for kind in kinds)}; make the pictures safetensors"
                " with `vwsd convert pictures SOURCE TARGET`."
            ),
        )
    return folder


def framework() -> Path | None:
    """ALL.data.xml of the Unified Evaluation Framework below `data/wsd`, with its key beside it;
    None where there is none.
    """
    return next(
        (path for path in sorted((data_dir() / "wsd").rglob(UEF)) if _key(path).exists()), None
    )


def _key(data: Path) -> Path:
    return data.with_name(data.name.replace(".data.xml", ".gold.key.txt"))


def textual(folder: Path) -> list[Record]:
    """The textual test: the published file, else the Unified Evaluation Framework."""
    if (folder / TEST).exists():
        return list(read_textual_test(folder / TEST))
    return list(from_wsd(read_uef(framework(), _key(framework()))))
