"""SemEval-2023 Task 1 as published: names and hashes of its files, and how they lie in a folder."""

from __future__ import annotations

import json
from collections.abc import Container
from pathlib import Path

from ..errors import VwsdError
from ..paths import sha256_bytes, sha256_file
from .sources import picture_names

# SHA-256 of the official files as published; the train files are the copy in circulation, with
# Windows line ends.
OFFICIAL = {
    "en.test.data.v1.1.txt": "0799d8aa7b14b05c275116b364f772c9858035a09135fd5c2cdfce814d4cc59b",
    "en.test.gold.v1.1.txt": "1e183ecfdcc02e73b4887df141ec287fbf5075c7ef43cde867bf0326918d5db8",
    "it.test.data.v1.1.txt": "a8fa0d2f28fbb32a47cac0846b52da4be148c96425412233da575d5de9860983",
    "it.test.gold.v1.1.txt": "bcd4b7a0da2df12ea3f4f5702a9312626e10d582dec16094aacc013f74fcb6c1",
    "fa.test.data.txt": "959c9be7cc32b8887c34ddff0917c8f5da20da9451ef38cb15736774e0143d8e",
    "fa.test.gold.txt": "4875b660173d3d2f5956f038b94420c63abd1b18c0a3830aff48ef13d3d77bf7",
    "train.data.v1.txt": "7569b4044f9b339aaf099c12688389341581370f45defd21fc3e45938a073f6c",
    "train.gold.v1.txt": "e3d01d115cc94f0223be0f6249c4000f83b03e222d734ffb12680aae2f0562c6",
    "trial.data.txt": "448d794554e89a6157cd08914012c731d3ee4cfd31c035209a37d8a7ade3d02f",
    "trial.gold.txt": "338416b08d8e7074560cd2d354dcbe3dfb7d75b0740166a231a9b74cb221e8d5",
}
# (language, split) -> data file, gold file, folder of the pictures
OFFICIAL_FILES = {
    ("en", "test"): ("en.test.data.v1.1.txt", "en.test.gold.v1.1.txt", "test_images"),
    ("it", "test"): ("it.test.data.v1.1.txt", "it.test.gold.v1.1.txt", "test_images"),
    ("fa", "test"): ("fa.test.data.txt", "fa.test.gold.txt", "test_images"),
    ("en", "trial"): ("trial.data.txt", "trial.gold.txt", "all_images"),
    ("en", "train"): ("train.data.v1.txt", "train.gold.v1.txt", "train_images_v1"),
}
PAGE = "https://raganato.github.io/vwsd/"
# the test set's gold is no part of the released archives: a package of its own, with the text
GOLD_APART = {gold for (_, split), (_, gold, _) in OFFICIAL_FILES.items() if split == "test"}
GOLD_PACKAGE = "the test data with gold keys (a package of its own)"
# names in the package of train and trial -> those of the older package of trial alone
RENAMED = {"trial.data.v1.txt": "trial.data.txt", "trial.gold.v1.txt": "trial.gold.txt"}
RENAMED_PICTURES = "trial_images_v1"
OFFICIAL_CREDIT = (
    "SemEval-2023 Task 1 (Raganato et al. 2023), CC BY-NC 4.0; the pictures keep their own"
    " licences."
)
# beside a split's folder of pictures: {"variant": original, resized or generated, ...}
VARIANT_RECORD = "images.json"


def is_official(path: str | Path) -> bool | None:
    """Is the file the published one of its name? None where no such name was published."""
    expected = OFFICIAL.get(Path(path).name)
    return None if expected is None else sha256_file(path) == expected


def published_bytes(data: bytes, hashes: Container[str]) -> bytes | None:
    """`data` as it was published under one of the SHA-256 sums, with these line ends or those of
    another system; None where it is none of them.
    """
    unix = data.replace(b"\r\n", b"\n")
    for written in (data, unix, unix.replace(b"\n", b"\r\n")):
        if sha256_bytes(written) in hashes:
            return written
    return None


def image_variant(folder: str | Path) -> str | None:
    """Which copy of the pictures a split's folder holds, as recorded by whoever put them there;
    None without a record, VwsdError where the record is damaged.
    """
    path = Path(folder) / VARIANT_RECORD
    try:
        return json.loads(path.read_text(encoding="utf-8"))["variant"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as e:
        raise VwsdError(
            "the record of the pictures' variant cannot be read",
            where=path,
            remedy="Remove it with the folder of pictures and fetch them again.",
        ) from e


def layout_fingerprint(folder: Path) -> str:
    """Hash of what lies below `folder`, a folder a split: the text, which variant of the pictures
    and how many; "" where there is none yet. Hashing 10 GB at each start would take minutes.
    """
    splits = dict.fromkeys(split for _, split in OFFICIAL_FILES)
    there = [split for split in splits if (folder / split).is_dir()]
    states = [f"{split} {split_state(folder, split)}" for split in there]
    return sha256_bytes("\n".join(states).encode()) if states else ""


def split_state(folder: Path, split: str) -> list[str]:
    """Hashes of a split's text files, the record of its pictures (variant and, where generated, by
    what) and their number.
    """
    names: list[str] = []
    for (_, part), files in OFFICIAL_FILES.items():
        names += files if part == split else ()
    paths = [folder / split / name for name in dict.fromkeys([*names, VARIANT_RECORD])]
    return [
        f"{p.name} {len(picture_names(p)) if p.is_dir() else sha256_file(p)}"
        for p in paths
        if p.exists()
    ]
