"""The sets by name: where each lies, how it is obtained, whether it is what was published."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from ..errors import VwsdError
from ..paths import data_dir, sha256_bytes, sha256_file
from .items import Item, items_sha256, read_items
from .sources import Pictures, Place, picture_names, pictures_at

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


@dataclass(frozen=True)
class VwsdSet:
    """Items of one language and split with the folder of their pictures.

    `official` says whether the text is the published one: True (hash known and equal), False (hash
    known and different), None (no published hash: EmojiWSD, a user's own file). `image_variant` is
    original, resized or generated, "as stored" where nobody recorded it.
    """

    name: str
    language: str
    split: str
    items: tuple[Item, ...]
    images: Path | Pictures
    credit: str
    official: bool | None = None
    image_variant: str = "as stored"

    @property
    def sha256(self) -> str:
        """Hash of ids, text, candidates and gold."""
        return items_sha256(self.items)

    def path(self, image: str) -> Place:
        """Where the picture of an image name lies: a path, or a string that `data.pictures` reads.
        VwsdError where a user's place lacks it.
        """
        return self.images / image

    def find(self, image: str) -> Place | None:
        """The same, or None where there is no such picture."""
        if isinstance(self.images, Pictures):
            return self.images.find(image)
        path = self.images / image
        return path if path.is_file() else None

    def head(self, limit: int) -> VwsdSet:
        """The first `limit` items (all where it is 0)."""
        return replace(self, items=self.items[:limit]) if limit else self


def is_official(path: str | Path) -> bool | None:
    """Is the file the published one of its name? None where no such name was published."""
    expected = OFFICIAL.get(Path(path).name)
    return None if expected is None else sha256_file(path) == expected


def _emojiwsd(language: str, split: str) -> VwsdSet:
    from vwsd_standins.emojiwsd import build

    folder = build.build()
    items = read_items(
        folder / f"{language}.{split}.data.txt", folder / f"{language}.{split}.gold.txt"
    )
    return VwsdSet("emojiwsd", language, split, tuple(items), folder / "images", build.CREDIT)


OFFICIAL_FILES = {
    ("en", "test"): ("en.test.data.v1.1.txt", "en.test.gold.v1.1.txt", "test_images"),
    ("it", "test"): ("it.test.data.v1.1.txt", "it.test.gold.v1.1.txt", "test_images"),
    ("fa", "test"): ("fa.test.data.txt", "fa.test.gold.txt", "test_images"),
    ("en", "trial"): ("trial.data.txt", "trial.gold.txt", "all_images"),
    ("en", "train"): ("train.data.v1.txt", "train.gold.v1.txt", "train_images_v1"),
}
OFFICIAL_CREDIT = (
    "SemEval-2023 Task 1 (Raganato et al. 2023), CC BY-NC 4.0; the pictures keep their own"
    " licences."
)


# beside a split's folder of pictures: {"variant": original, resized or generated, ...}
VARIANT_RECORD = "images.json"


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


def _official_layout(name: str, folder: Path, language: str, split: str, credit: str) -> VwsdSet:
    data, gold, images = OFFICIAL_FILES[language, split]
    if missing := [file for file in (data, gold) if not (folder / file).exists()]:
        raise VwsdError(
            f"{' and '.join(missing)} of SemEval-2023 Task 1 {'is' if len(missing) == 1 else 'are'}"
            " not here",
            where=folder,
            remedy=(
                f"Run `vwsd fetch vwsd --split {split}`; with --from DIR it takes files that you"
                " have."
            ),
        )
    official = all([is_official(folder / file) for file in (data, gold)])
    items = tuple(read_items(folder / data, folder / gold, language))
    return VwsdSet(
        name,
        language,
        split,
        items,
        folder / images,
        credit,
        official,
        image_variant(folder) or "as stored",
    )


def _official(language: str, split: str) -> VwsdSet:
    return _official_layout("vwsd", data_dir() / "vwsd" / split, language, split, OFFICIAL_CREDIT)


def make_rehearsal(texts: Path | None = None) -> Path:
    """Folder of the rehearsal's sets, built where they are not; official text is also looked for
    below `texts`.
    """
    # by name, as the registry does with encoders: the rehearsal stands above the data in the order
    # of imports
    return import_module("vwsd_standins.rehearsal.data").make_data(data_dir() / "rehearsal", texts)


def rehearsal_record() -> dict:
    """What the rehearsal's sets were made from (`made_by`, `text` and `credit` of each split);
    empty where there are none yet.
    """
    path = data_dir() / "rehearsal" / "rehearsal.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _rehearsal(language: str, split: str) -> VwsdSet:
    folder = make_rehearsal() / "vwsd" / split
    return _official_layout(
        "rehearsal", folder, language, split, rehearsal_record()["credit"][split]
    )


SETS: dict[str, tuple[Callable[[str, str], VwsdSet], Sequence[tuple[str, str]]]] = {
    "emojiwsd": (
        _emojiwsd,
        [(language, split) for language in ("en", "it", "fa") for split in ("dev", "test")],
    ),
    "vwsd": (_official, list(OFFICIAL_FILES)),
    "rehearsal": (_rehearsal, [part for part in OFFICIAL_FILES if part[1] != "train"]),
}


def load_set(name: str, language: str = "en", split: str = "test") -> VwsdSet:
    """A set by name, language and split; EmojiWSD and the rehearsal are built on first use.

    Raises VwsdError naming the alternatives, or what is missing and how to get it.
    """
    if name not in SETS:
        near = difflib.get_close_matches(name, SETS, 1)
        raise VwsdError(
            f"no set named {name!r}",
            remedy=f"{f'Did you mean {near[0]!r}? ' if near else ''}Sets: {', '.join(SETS)}.",
        )
    loader, parts = SETS[name]
    if (language, split) not in parts:
        raise VwsdError(
            f"{name} has no {language} {split}",
            remedy="It has " + ", ".join(f"{lang} {part}" for lang, part in parts) + ".",
        )
    return loader(language, split)


def languages(name: str, split: str = "test") -> list[str]:
    """Languages of a set's split, in its own order."""
    return [lang for lang, part in SETS[name][1] if part == split]


def user_set(
    data: str | Path,
    gold: str | Path | None,
    images: str | Path,
    language: str | None = None,
    items: Sequence[Item] | None = None,
) -> VwsdSet:
    """A user's files in the official layout as a set; images: a folder, archives or a URL
    (`sources.pictures_at`).

    language: its code, else as the data file's name has it. items: those of the files, where they
    were read already.
    """
    items = tuple(items or read_items(data, gold, language))
    known = [same for p in (data, gold) if p and (same := is_official(p)) is not None]
    return VwsdSet(
        Path(data).name,
        items[0].language,
        "user",
        items,
        pictures_at(images),
        "the user's own files",
        all(known) if known else None,
    )


def key(images: Path | Pictures) -> dict[str, dict]:
    """EmojiWSD's answer key, image name -> {emoji, style, sense}; empty for sets that have none.
    For analysis, never for scoring.
    """
    folder = images.folder if isinstance(images, Pictures) else images
    path = folder.parent / "key.tsv" if folder else None
    if not path or not path.exists():
        return {}
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    return {
        row.split("\t")[0]: dict(zip(header.split("\t")[1:], row.split("\t")[1:])) for row in rows
    }


def fingerprint(name: str) -> str:
    """Hash of a set's text and of its pictures; "" where the official files are not on disk yet.

    EmojiWSD: of the pixels too. Official layout: which variant and how many pictures, as hashing 10
    GB at each start would take minutes.
    """
    from vwsd_standins.emojiwsd import build

    if name == "emojiwsd":
        manifest = json.loads((build.build() / "manifest.json").read_text())
        return manifest["text"] + manifest["pixels"]
    folder = make_rehearsal() / "vwsd" if name == "rehearsal" else data_dir() / name
    found = [
        f"{part} {_split_state(folder, part)}"
        for part in dict.fromkeys(split for _, split in OFFICIAL_FILES)
        if (folder / part).is_dir()
    ]
    return sha256_bytes("\n".join(found).encode()) if found else ""


def _split_state(folder: Path, split: str) -> list:
    """Hashes of a split's text files, the record of its pictures (variant and, where generated, by
    what) and their number.
    """
    names = dict.fromkeys(
        name for (_, part), files in OFFICIAL_FILES.items() if part == split for name in files
    )
    paths = [folder / split / name for name in (*names, VARIANT_RECORD)]
    return [
        f"{p.name} {len(picture_names(p)) if p.is_dir() else sha256_file(p)}"
        for p in paths
        if p.exists()
    ]
