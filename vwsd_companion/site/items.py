"""Pages of items: each with its ten pictures and what every stored run answered; an overview of
each set to search and to filter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from vwsdlib import paths
from vwsdlib.data.items import CANDIDATES, Item, image_names
from vwsdlib.data.pictures import load_picture
from vwsdlib.data.sets import VwsdSet, key
from vwsdlib.errors import VwsdError

from ..facts.collect import LANGUAGE_NAMES, Collection, language_place
from ..facts.predictions import Predictions
from ..views.tables import Column, Table

if TYPE_CHECKING:
    from . import Site

SIDE = 160  # pixels of a thumbnail's longer side
COLUMNS = (
    Column("run", "Run"),
    Column("text", "Text as scored"),
    Column("answer", "Answer"),
    Column("rank", "Rank of gold", "d"),
    Column("pick", "Pick", "d"),
)


@dataclass(frozen=True)
class ItemSet:
    """Items of one data set, language and split that a stored run answered; `data` is None where
    the set is not at hand; `why` its pictures are not.
    """

    dataset: str
    language: str
    split: str
    runs: tuple[Predictions, ...]
    data: VwsdSet | None
    why: str

    @property
    def name(self) -> str:
        """Name of the set's folder of pages."""
        return paths.safe_name(f"{self.dataset}.{self.language}.{self.split}", "set")

    @property
    def language_name(self) -> str:
        """For people."""
        return LANGUAGE_NAMES[self.language]

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.dataset}, {self.language_name} {self.split}"

    @property
    def size(self) -> int:
        """How many items."""
        return len(self.items)

    @cached_property
    def items(self) -> dict[str, Item]:
        """Item id -> item, in the set's order; VwsdError where two runs know an id by different
        texts or pictures.
        """
        found: dict[str, Item] = {}
        for p in sorted(self.runs, key=lambda p: -len(p.items)):
            for item in p.items:
                if found.setdefault(item.id, item) != item:
                    raise VwsdError(
                        f"two runs differ in what the item {item.id} is",
                        where=p.run,
                        remedy="Run the notebooks again on one version of the set.",
                    )
        return found

    @cached_property
    def lines(self) -> list[dict[str, int]]:
        """Of each run: item id -> its line."""
        return [{item.id: n for n, item in enumerate(p.items)} for p in self.runs]

    def marks(self, item_id: str) -> str:
        """A letter a run: 1 right, 0 wrong, - not asked."""
        return "".join(
            "-" if (n := lines.get(item_id)) is None else str(int(p.ranks[n] == 1))
            for p, lines in zip(self.runs, self.lines)
        )

    def answers(self, item: Item) -> Table:
        """What each run answered: text as scored, rank of the gold, its pick (of equals the
        earlier, as in the metrics) and ten scores.
        """
        rows = []
        for p, lines in zip(self.runs, self.lines):
            if (n := lines.get(item.id)) is not None:
                scores = p.scores[n].tolist()
                rows.append(
                    {
                        "run": p.run,
                        "text": p.texts[n],
                        "rank": int(p.ranks[n]),
                        "answer": "✓ right" if p.ranks[n] == 1 else "✗ wrong",
                        "pick": scores.index(max(scores)) + 1,
                        **{str(i): score for i, score in enumerate(scores, 1)},
                    }
                )
        gold = item.candidates.index(item.gold) + 1
        columns = (
            *COLUMNS,
            *(
                Column(str(i), f"{i} ✓" if i == gold else str(i), ".3f")
                for i in range(1, CANDIDATES + 1)
            ),
        )
        return Table(
            "answers",
            "Every stored run of this item; pick and scores by the candidates' numbers, the gold"
            " marked ✓",
            columns,
            rows,
        )


def sets_of(c: Collection) -> list[ItemSet]:
    """The sets that the stored predictions speak of: test before the others, English first."""
    groups: dict[tuple[str, str, str], list[Predictions]] = {}
    for p in c.predictions.values():
        groups.setdefault((p.meta["dataset"], p.meta["language"], p.meta["split"]), []).append(p)
    ordered = sorted(groups, key=lambda g: (g[2] != "test", g[2], language_place(g[1]), g[0]))
    return [ItemSet(*group, tuple(groups[group]), *_data(c, groups[group])) for group in ordered]


def _data(c: Collection, runs: list[Predictions]) -> tuple[VwsdSet | None, str]:
    """(set behind the largest of `runs` or None, why its pictures cannot be shown or "")."""
    largest = max(runs, key=lambda p: len(p.items))
    try:
        data = c.data(largest.meta)
    except VwsdError as e:
        return None, f"{e.what}. {e.remedy}"
    here = any(Path(data.path(name)).is_file() for name in image_names(largest.items))
    return data, (
        ""
        if here
        else f"none of them is here. `vwsd doctor --profile {c.profile}` says how to get them."
    )


def write_items(site: Site, sets: list[ItemSet]) -> None:
    """items/index.html, an overview a set and a page an item, with the thumbnails that these show;
    VwsdError for an item whose id is no name of a page.
    """
    site.page("items/index.html", "sets", "Items", sets=sets)
    with tqdm(
        total=sum(len(s.items) for s in sets),
        desc="pages of items",
        unit="page",
        disable=paths.quiet(),
    ) as bar:
        for s in sets:
            shown = thumbnails(s, site.folder / "pictures")
            site.page(
                f"items/{s.name}/index.html",
                "items",
                f"Items: {s.title}",
                its=s,
                right=[int((p.ranks == 1).sum()) for p in s.runs],
            )
            senses, ids = key(s.data.images) if s.data else {}, list(s.items)
            for n, item in enumerate(s.items.values()):
                candidates = [
                    {
                        "name": name,
                        "gold": name == item.gold,
                        "file": shown.get(name),
                        "sense": senses.get(name, {}).get("sense", ""),
                    }
                    for name in item.candidates
                ]
                if item.id.casefold() == "index":
                    raise VwsdError(
                        "an item is called 'index', as the page that lists the items is",
                        where=s.name,
                        remedy="Give the item another id.",
                    )
                name = f"items/{s.name}/{paths.safe_name(item.id, s.name)}.html"
                site.page(
                    name,
                    "item",
                    f"{item.phrase} ({item.id})",
                    its=s,
                    item=item,
                    candidates=candidates,
                    answers=s.answers(item),
                    before=ids[n - 1] if n else None,
                    after=ids[n + 1] if n + 1 < len(ids) else None,
                )
                bar.update()


def thumbnails(s: ItemSet, folder: Path) -> dict[str, str]:
    """Image name -> name of its thumbnail in `folder`, one file a distinct picture; without those
    that are missing or cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown = {}
    for name in tqdm(
        image_names(s.items.values()) if s.data else (),
        desc=f"pictures of {s.name}",
        unit="picture",
        leave=False,
        disable=paths.quiet(),
    ):
        if not (path := Path(s.data.path(name))).is_file():
            continue
        shown[name] = f"{paths.sha256_file(path)[:20]}.webp"
        if not (folder / shown[name]).exists() and not _shrunk(path, folder / shown[name]):
            del shown[name]
    return shown


def _shrunk(path: Path, target: Path) -> bool:
    """Write the thumbnail; False where the picture cannot be read."""
    try:
        image = load_picture(path, truncated="keep").image
    except VwsdError:
        return False
    image.thumbnail((SIDE, SIDE))
    image.save(target, "WEBP", quality=80, method=4)
    return True
