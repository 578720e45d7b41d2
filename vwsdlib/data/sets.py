"""The sets by name: where each lies, how it is obtained, whether it is what was published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import VwsdError, entry_of
from ..paths import data_dir
from ..registry import Line, Registry, resolve
from .damage import Damage, blank
from .items import Item, items_sha256, read_items
from .official import (
    GOLD_APART,
    GOLD_PACKAGE,
    OFFICIAL_CREDIT,
    OFFICIAL_FILES,
    PAGE,
    image_variant,
    is_official,
    layout_fingerprint,
)
from .places import CutShort
from .sources import Pictures, Place, pictures_at


@dataclass(frozen=True)
class VwsdSet:
    """Items of one language and split with the folder of their pictures.

    `official` says whether the text is the published one: True (hash known and equal), False (hash
    known and different), None (no published hash: EmojiWSD, a user's own file). `image_variant` is
    original, resized or generated, "as stored" where nobody recorded it. `damage`: what
    `encoders.damage.look_for_damage` saw of the pictures.
    """

    name: str
    language: str
    split: str
    items: tuple[Item, ...]
    images: Path | Pictures
    credit: str
    official: bool | None = None
    image_variant: str = "as stored"
    damage: Damage = field(default_factory=Damage)

    @property
    def sha256(self) -> str:
        """Hash of ids, text, candidates and gold."""
        return items_sha256(self.items)

    def path(self, image: str) -> Place:
        """Where the picture of an image name lies: a path, or a string that `data.pictures` reads;
        a blank one's for those that `damage` misses. VwsdError where a user's place lacks it.
        """
        if image in self.damage.missed:
            return blank()
        place = self.images / image
        return CutShort(place) if image in self.damage.kinds else place

    def find(self, image: str) -> Place | None:
        """The same, or None where there is no such picture."""
        if isinstance(self.images, Pictures):
            return self.images.find(image)
        path = self.images / image
        return path if path.is_file() else None

    def shown(self, place: int) -> int:
        """The place of an item, or of the next one whose gold's picture is not missed."""
        missed, n = self.damage.missed, len(self.items)
        places = (at % n for at in range(place, place + n))
        return next((at for at in places if self.items[at].gold not in missed), place)

    def head(self, limit: int) -> VwsdSet:
        """The first `limit` items (all where it is 0)."""
        return replace(self, items=self.items[:limit]) if limit else self


@dataclass(frozen=True)
class SetEntry(Line):
    """A set: all that is asked of it by name. `loader` makes of (language, split) a VwsdSet,
    `about` is how captions call it. Functions are callables or "module:callable".

    fingerprint: () -> hash of its text and pictures, "" where they are not on disk yet.
    prepare: (whole) -> None, makes what a run of its profile stands on (with whole=False only
    where there is some of it); such a set has models of its own, and no other set is loaded beside
    it. models: () -> the folder of these. senses: () -> sense id -> gloss, of the senses that
    its answer key names. state: () -> what there is of it on this machine, for `vwsd doctor`.
    profile: whose stored results are of it; scope: what these are and are not, in Markdown.
    encoders: those to be asked first, best first. verdict: a word that stands for every verdict
    against a paper; "" where its numbers may be compared with a paper's, None where they may not
    stand beside them.
    """

    parts: Sequence[tuple[str, str]] = ()  # (language, split), in the set's order
    fingerprint: str | Callable[[], str] = ""
    prepare: str | Callable[[bool], None] = ""
    models: str | Callable[[], Path] = ""
    senses: str | Callable[[], dict[str, str]] = ""
    state: str | Callable[[], str] = ""
    profile: str = ""
    scope: str = ""
    encoders: Sequence[str] = ("clip-vit-b32", "lite")
    verdict: str | None = None


def read_layout(name: str, folder: Path, language: str, split: str, credit: str) -> VwsdSet:
    """A set from a split's folder in the official layout; VwsdError names the files that are not
    there.
    """
    data, gold, images = OFFICIAL_FILES[language, split]
    missing = [file for file in (data, gold) if not (folder / file).exists()]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise VwsdError(
            f"{' and '.join(missing)} of SemEval-2023 Task 1 {are} not here",
            where=folder,
            remedy=_source_of(missing, split),
        )
    official = all(is_official(folder / file) for file in (data, gold))
    items = tuple(read_items(folder / data, folder / gold, language))
    variant = image_variant(folder) or "as stored"
    return VwsdSet(name, language, split, items, folder / images, credit, official, variant)


def _source_of(missing: Sequence[str], split: str) -> str:
    """Where official text is to be had."""
    command = f"vwsd fetch vwsd --split {split}"
    if GOLD_APART.issuperset(missing):
        return f"Download {GOLD_PACKAGE} from {PAGE}, then run `{command} --from DIR`."
    return f"Run `{command}`; with --from DIR it takes files that you have."


def _official(language: str, split: str) -> VwsdSet:
    return read_layout("vwsd", data_dir() / "vwsd" / split, language, split, OFFICIAL_CREDIT)


SETS = Registry(
    SetEntry,
    "vwsdlib.sets",
    {
        "vwsd": SetEntry(
            _official,
            "SemEval-2023 V-WSD",
            tuple(OFFICIAL_FILES),
            lambda: layout_fingerprint(data_dir() / "vwsd"),
            profile="paper",
            scope=(
                "The papers' models on the official data. A verdict compares counts of items;"
                " CONSISTENT is not a reproduction.\n"
            ),
            verdict="",
        )
    },
)


def load_set(name: str, language: str = "en", split: str = "test") -> VwsdSet:
    """A set by name, language and split; EmojiWSD and the rehearsal are built on first use.

    Raises VwsdError naming the alternatives, or what is missing and how to get it.
    """
    entry = entry_of("set", name, SETS)
    if (language, split) not in entry.parts:
        parts = ", ".join(" ".join(part) for part in entry.parts)
        raise VwsdError(f"{name} has no {language} {split}", remedy=f"It has {parts}.")
    return entry(language, split)


def named_set(text: str) -> VwsdSet:
    """A set by "NAME", "NAME:LANGUAGE" or "NAME:LANGUAGE.SPLIT": where nothing is said English and
    test, else the first part that fits. VwsdError as of `load_set`.
    """
    name, _, part = text.partition(":")
    language, _, split = part.partition(".")
    parts = entry_of("set", name, SETS).parts
    wanted = (language or "en", split or "test")
    fitting = [it for it in parts if language in ("", it[0]) and split in ("", it[1])]
    if fitting and wanted not in fitting:
        wanted = fitting[0]
    return load_set(name, *wanted)


def languages(name: str, split: str = "test") -> list[str]:
    """Languages of a set's split, in its own order."""
    return [language for language, part in SETS[name].parts if part == split]


def fingerprint(name: str) -> str:
    """Hash of a set's text and of its pictures; "" where its files are not on disk yet."""
    return resolve(SETS[name].fingerprint)()


def set_of(profile: str) -> str:
    """Name of the set whose stored results a profile holds; "" where no set has such."""
    return next((name for name, it in SETS.items() if profile and it.profile == profile), "")


def profile_of(name: str) -> str:
    """The profile that holds a set's stored results; "" for a set without such and for a user's."""
    return SETS[name].profile if name in SETS else ""


def prepare_profile(profile: str, whole: bool = True) -> None:
    """Make what a run of the profile stands on, where its set has models of its own; from then on
    this process loads those alone. whole=False: only where there is some of it.
    """
    name = set_of(profile)
    if name and SETS[name].prepare:
        resolve(SETS[name].prepare)(whole)


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
    lines = path.read_text(encoding="utf-8").splitlines()
    (_, *fields), *rows = [line.split("\t") for line in lines]
    return {name: dict(zip(fields, shown)) for name, *shown in rows}


def gold_glosses(data: VwsdSet) -> dict[str, tuple[str, ...]]:
    """Item id -> the gloss of the sense that its gold's picture shows, where a set has an answer
    key; else nothing. For guarding against leaks, never for scoring.
    """
    if not (shown := key(data.images)):
        return {}
    glosses: dict[str, str] = {}
    for entry in SETS.values():
        glosses |= resolve(entry.senses)() if entry.senses else {}
    senses = {item.id: shown.get(item.gold or "", {}).get("sense", "") for item in data.items}
    return {item_id: (glosses[it],) for item_id, it in senses.items() if it in glosses}
