"""Pages of items: each with its ten pictures and what every stored run answered; an overview of
each set to search and to filter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vwsdlib import paths
from vwsdlib.data.items import Item, image_names
from vwsdlib.data.pictures import load_picture
from vwsdlib.data.sets import VwsdSet, key
from vwsdlib.errors import VwsdError
from vwsdlib.progress import tqdm

from ..facts.collect import LANGUAGE_NAMES, Collection, language_place
from ..facts.predictions import Predictions
from ..views.tables import TOLD, Column, Table, columns_of
from .pages import Site

SIDE = 160  # pixels of a thumbnail's longer side


@dataclass(frozen=True)
class ItemSet:
    """Items of one data set, language and split that a stored run answered; `data` is None where
    the set is not at hand; `why` its pictures are not."""

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
    def senses(self) -> dict[str, dict]:
        """Image name -> what it shows, where an answer key of the set says so."""
        return key(self.data.images) if self.data else {}

    @cached_property
    def items(self) -> dict[str, Item]:
        """Item id -> item, in the set's order; VwsdError where two runs know an id by different
        texts or pictures."""
        items: dict[str, Item] = {}
        for p in sorted(self.runs, key=lambda p: -len(p.items)):
            for item in p.items:
                if items.setdefault(item.id, item) != item:
                    raise VwsdError(
                        f"two runs differ in what the item {item.id} is",
                        where=p.run,
                        remedy="Run the notebooks again on one version of the set.",
                    )
        return items

    @cached_property
    def lines(self) -> list[dict[str, int]]:
        """Of each run: item id -> its line."""
        lines = []
        for p in self.runs:
            lines.append({item.id: line for line, item in enumerate(p.items)})
        return lines

    def marks(self, item_id: str) -> str:
        """A letter a run: 1 right, 0 wrong, - not asked."""
        marks = ""
        for p, lines in zip(self.runs, self.lines):
            line = lines.get(item_id)
            marks += "-" if line is None else str(int(p.ranks[line] == 1))
        return marks

    def answers(self, item: Item) -> Table:
        """What each run answered: text as scored, rank of the gold, its pick (of equals the
        earlier, as in the metrics) and ten scores."""
        rows = []
        for p, lines in zip(self.runs, self.lines):
            if item.id not in lines:
                continue
            line = lines[item.id]
            scores, rank = p.scores[line].tolist(), int(p.ranks[line])
            row = {"run": p.run, "text": p.texts[line], "rank": rank}
            row["answer"] = "✓ right" if rank == 1 else "✗ wrong"
            row["pick"] = scores.index(max(scores)) + 1
            rows.append(row | {str(i): score for i, score in enumerate(scores, 1)})
        columns = list(columns_of(TOLD["answers"]["columns"]))
        for i, name in enumerate(item.candidates, 1):
            columns.append(Column(str(i), f"{i} ✓" if name == item.gold else str(i), ".3f"))
        return Table("answers", TOLD["answers"]["caption"], tuple(columns), rows)


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
    if any(Path(data.path(name)).is_file() for name in image_names(largest.items)):
        return data, ""
    remedy = f"`vwsd doctor --profile {c.profile}` says how to get them."
    return data, f"none of them is here. {remedy}"


def write_item_pages(site: Site, sets: list[ItemSet]) -> None:
    """items/index.html, an overview a set and a page an item, with the thumbnails that these show;
    VwsdError for an item whose id is no name of a page."""
    site.page("items/index.html", "sets", "Items", sets=sets)
    total = sum(len(shown.items) for shown in sets)
    with tqdm(total=total, desc="pages of items", unit="page", disable=paths.quiet()) as bar:
        for shown in sets:
            files = thumbnails(shown, site.folder / "pictures")
            right = [int((p.ranks == 1).sum()) for p in shown.runs]
            name, title = f"items/{shown.name}/index.html", f"Items: {shown.title}"
            site.page(name, "items", title, shown=shown, right=right)
            ids = [None, *shown.items, None]
            for before, item, after in zip(ids, shown.items.values(), ids[2:]):
                _write_item(site, shown, item, files, before=before, after=after)
                bar.update()


def _write_item(
    site: Site, shown: ItemSet, item: Item, files: dict[str, str], **neighbours: str | None
) -> None:
    """The page of an item; files: image name -> name of its thumbnail."""
    if item.id.casefold() == "index":
        raise VwsdError(
            "an item is called 'index', as the page that lists the items is",
            where=shown.name,
            remedy="Give the item another id.",
        )
    senses = shown.senses
    candidates = [
        {
            "name": name,
            "gold": name == item.gold,
            "file": files.get(name),
            "sense": senses.get(name, {}).get("sense", ""),
        }
        for name in item.candidates
    ]
    name = f"items/{shown.name}/{paths.safe_name(item.id, shown.name)}.html"
    given = {"shown": shown, "item": item, "candidates": candidates, **neighbours}
    title = f"{item.phrase} ({item.id})"
    site.page(name, "item", title, answers=shown.answers(item), **given)


def thumbnails(shown: ItemSet, folder: Path) -> dict[str, str]:
    """Image name -> name of its thumbnail in `folder`, one file a distinct picture; without those
    that are missing or cannot be read."""
    folder.mkdir(parents=True, exist_ok=True)
    names, files = image_names(shown.items.values()) if shown.data else (), {}
    told = {"desc": f"pictures of {shown.name}", "unit": "picture", "leave": False}
    for name in tqdm(names, disable=paths.quiet(), **told):
        path = Path(shown.data.path(name))
        if path.is_file():
            target = folder / f"{paths.sha256_file(path)[:20]}.webp"
            if target.exists() or _shrunk(path, target):
                files[name] = target.name
    return files


def _shrunk(path: Path, target: Path) -> bool:
    """Write the thumbnail; False where the picture cannot be read."""
    try:
        image = load_picture(path, truncated="keep").image
    except VwsdError:
        return False
    image.thumbnail((SIDE, SIDE))
    image.save(target, "WEBP", quality=80, method=4)
    return True
