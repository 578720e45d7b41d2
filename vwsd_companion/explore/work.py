"""What the explorer computes: which items to show, what encoders answer to a text, maps over a
picture, and what is exported.
"""

from __future__ import annotations

import os
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from vwsdlib.analysis.metrics import margins
from vwsdlib.analysis.saliency import maps
from vwsdlib.data.items import Item, normalise
from vwsdlib.data.pictures import load_picture
from vwsdlib.data.sets import SETS, VwsdSet, prepare_profile, profile_of
from vwsdlib.encoders.checkpoints import present
from vwsdlib.encoders.registry import (
    ENCODERS,
    SEGMENTERS,
    Encoder,
    Entry,
    load_encoder,
    load_segmenter,
)
from vwsdlib.encoders.store import VectorStore
from vwsdlib.errors import VwsdError
from vwsdlib.language.replay import read_records
from vwsdlib.paths import results_dir
from vwsdlib.registry import resolve

from ..facts.collect import Collection
from ..facts.predictions import Predictions
from ..views.figures import plt, png
from ..views.saliency import overlay
from ..views.style import BLUE, DIVERGING, SEQUENTIAL, STYLE

TEMPLATES = {"as it is": "{}", "This is ….": "This is {}.", "A photo of “…”": 'A photo of "{}"'}
# maps about zero; the others are not negative
SIGNED = ("crops_sum", "crops_by_visits", "occlusion", "random")
# quick enough to wait for
MAP_SETTINGS = {"crops": {"n": 250}, "integrated_gradients": {"steps": 8}}
SHOWN = 160  # longest side of a picture in the explorer, pixels


@dataclass(frozen=True)
class Answer:
    """What one encoder says: cosines [k] of a text with k pictures, in the order of the
    pictures."""

    encoder: str
    text: str
    scores: np.ndarray

    @cached_property
    def order(self) -> list[int]:
        """Pictures best first; ties keep their order."""
        return np.argsort(-self.scores, kind="stable").tolist()

    @cached_property
    def ranks(self) -> list[int]:
        """Rank of each picture, from 1."""
        return (np.argsort(self.order) + 1).tolist()

    @property
    def margin(self) -> float:
        """Best minus second cosine; 0 for a single picture."""
        return float(margins(self.scores[None])[0]) if len(self.scores) > 1 else 0.0


def at_hand(table: Mapping[str, Entry] = ENCODERS) -> list[str]:
    """Names of a registry whose checkpoints are on disk (those that need none included)."""
    return [name for name in table if _on_disk(table[name])]


def _on_disk(entry: Entry) -> bool:
    return all(present(key)[0] for key in entry.checkpoints)


def sets_beside(dataset: str) -> list[str]:
    """Sets that may share a kernel with this one; one with models of its own stands alone."""
    if SETS[dataset].models:
        return [dataset]
    return [name for name, entry in SETS.items() if not entry.models]


def keep_apart(dataset: str) -> None:
    """Make a set's own models ready where it has such; VwsdError for another set after it, for
    its random weights go by the names of the real ones.
    """
    if SETS[dataset].models:
        prepare_profile(SETS[dataset].profile)
        load_encoder.cache_clear()
        load_segmenter.cache_clear()
        return
    for name, entry in SETS.items():
        own = resolve(entry.models)() if entry.models else None
        if own and os.environ.get("VWSD_MODELS") == str(own):
            raise VwsdError(
                f"this kernel has taken up the {name}'s models, whose weights are random",
                remedy="Restart the kernel (Kernel, Restart), then run the cell again.",
            )


def forget(names: Iterable[str]) -> None:
    """Let the encoders go that are no longer looked at, where one is of those that take
    gigabytes."""
    if any(ENCODERS[name].checkpoints for name in names):
        load_encoder.cache_clear()


def right_to_left(text: str) -> bool:
    """Whether the first letter that has a direction runs from right to left."""
    for character in text:
        direction = unicodedata.bidirectional(character)
        if direction in ("L", "R", "AL"):
            return direction != "L"
    return False


def segmenters_at_hand() -> list[str]:
    """Names of the models that give masks and whose checkpoints are on disk."""
    return at_hand(SEGMENTERS)


def full_text(phrase: str, template: str = "as it is", definition: str = "") -> str:
    """The text that is scored: a phrase in a template of TEMPLATES, a definition behind it where
    there is one.
    """
    text = TEMPLATES[template].format(phrase.strip())
    return f"{text}, {definition.strip().lower()}" if definition.strip() else text


def answer(store: VectorStore, text: str, vectors: np.ndarray) -> Answer:
    """The answer of the store's encoder to a text over pictures with these vectors [k, d]. The
    text's vector is not stored: it is typed letter by letter.

    Raises VwsdError for an empty text, and where the encoder gives values that are no numbers.
    """
    if not text.strip():
        raise VwsdError("the text is empty", remedy="Type a word or a phrase.")
    scores = vectors.astype(np.float64) @ store.encoder.encode_texts([text])[0].astype(np.float64)
    if not np.isfinite(scores).all():
        raise VwsdError(
            "the encoder gave values that are no numbers",
            where=store.encoder.name,
            remedy="Choose another system.",
        )
    return Answer(store.encoder.name, text, scores)


# ---------------------------------------------------------------- which items


def stored_runs(data: VwsdSet) -> dict[str, Predictions]:
    """Run name -> predictions that were made on exactly this set, from the results of its profile;
    empty where there are none.
    """
    profile = profile_of(data.name)
    if not profile:
        return {}
    runs, digest = Collection(profile, results_dir(profile)).predictions, data.sha256
    return {name: run for name, run in runs.items() if run.meta["data_sha256"] == digest}


def _first(run: Predictions) -> np.ndarray:
    return run.scores.argmax(1)


def _right(run: Predictions) -> np.ndarray:
    return run.ranks == 1


# how many systems a filter needs, and which items [n] it keeps
FILTERS: dict[str, tuple[int, Callable[..., np.ndarray | np.bool_]]] = {
    "all items": (0, lambda: np.True_),
    "A right": (1, _right),
    "A wrong": (1, lambda a: ~_right(a)),
    "only A right": (2, lambda a, b: _right(a) & ~_right(b)),
    "only B right": (2, lambda a, b: ~_right(a) & _right(b)),
    "A and B choose differently": (2, lambda a, b: _first(a) != _first(b)),
}
ORDERS: dict[str, Callable[[Predictions], np.ndarray] | None] = {  # what items are sorted by
    "as in the set": None,
    "A least certain first": lambda a: margins(a.scores),
    "A most certain first": lambda a: -margins(a.scores),
}


def chosen(
    items: Sequence[Item],
    word: str = "",
    keep: str = "all items",
    order: str = "as in the set",
    a: Predictions | None = None,
    b: Predictions | None = None,
    profile: str = "demo",
) -> list[int]:
    """Numbers of the items to list: those that hold `word` in target or phrase (or whose id it is),
    under a filter and in an order.

    Raises VwsdError where the filter or the order needs a stored run that is not given; profile:
    whose results it looked at.
    """
    needs, mask = FILTERS[keep]
    systems = (a, b)[:needs]
    lacking = [name for name, run in zip("AB", systems) if run is None]
    asked = keep if lacking else order
    sort_key = ORDERS[order]
    if sort_key and a is None and not lacking:
        lacking = ["A"]
    if lacking:
        raise VwsdError(
            f"“{asked}” needs stored results of system {' and '.join(lacking)} on this part",
            remedy=(
                "Choose a system and a part that are scored, or score it: vwsd run --profile"
                f" {profile} --only 02_clip_baseline --set encoder=NAME"
            ),
        )
    kept = np.broadcast_to(mask(*systems), len(items))
    wanted = normalise(word)
    listed = [i for i, item in enumerate(items) if kept[i] and _holds(item, wanted)]
    if sort_key:
        keys = sort_key(a)
        listed.sort(key=lambda i: keys[i])
    return listed


def _holds(item: Item, wanted: str) -> bool:
    """Does the item's target or phrase hold the word, or is it its id? All hold an empty word."""
    return wanted in normalise(f"{item.target} {item.phrase}") or wanted == normalise(item.id)


# kind of file -> key of its text
STORED_TEXT = {"translations": "phrase_en", "definitions": "definition"}


def stored_text(data: VwsdSet, kind: str, item_id: str) -> dict[str, str]:
    """Translator or definer -> its stored text for an item; kind: of STORED_TEXT, from the results
    of the set's profile.
    """
    folder, key = results_dir(profile_of(data.name) or data.name) / kind, STORED_TEXT[kind]
    texts = {}
    for path in sorted(folder.glob(f"*.{data.language}.{data.split}.jsonl")):
        records, _ = read_records(path, kind, ("id", key))
        for record in records:
            if record["id"] == item_id and record[key]:
                texts[path.name.split(".")[0]] = record[key]
    return texts


# ---------------------------------------------------------------- pictures


def thumbnail(picture: Image.Image, longest: int = SHOWN) -> Image.Image:
    """A small copy."""
    small = picture.copy()
    small.thumbnail((longest, longest))
    return small


def open_picture(place: object) -> tuple[Image.Image | None, str]:
    """(the picture at a place, what decodes of it, or None; why there is none)."""
    try:
        return load_picture(place, truncated="keep").image, ""
    except VwsdError as e:
        return None, str(e)


def overlaid(
    picture: Image.Image, text: str, method: str, encoder: Encoder, segmenter: object | None
) -> bytes:
    """PNG of a picture under its map for a text by a method of `analysis.saliency.METHODS`, with
    the scale it is drawn at.

    Maps about zero get one scale about zero, masks 0 to 1, others 0 to their greatest value.
    """
    settings = {name: MAP_SETTINGS[name] for name in MAP_SETTINGS if method.startswith(name)}
    drawn = maps(encoder, segmenter, picture, [text], [method], settings)[method][0]
    top = 1.0 if method == "mask" else float(np.abs(drawn).max()) or 1.0
    norm, colours = Normalize(0, top), SEQUENTIAL
    if method in SIGNED:
        norm, colours = Normalize(-top, top), DIVERGING
    model = segmenter if method == "mask" else encoder
    title = textwrap.shorten(f"{model.name}: “{text}”", 160, placeholder=" …")
    with plt.rc_context(STYLE):
        fig = Figure(figsize=(4.2, 3.9), layout="constrained")
        ax = fig.add_subplot()
        overlay(ax, picture, drawn, norm, colours)
        ax.set_axis_off()
        ax.set_title(title, fontsize=10, loc="left", wrap=True, parse_math=False)
        bar = {"location": "bottom", "shrink": 0.9, "aspect": 30}
        bar["label"] = UNITS.get(method, "relevance (the map's own units)")
        fig.colorbar(ScalarMappable(norm, colours), ax=ax, **bar)
    return png(fig, 100)


UNITS = {
    "mask": "probability of the text",
    "crops_sum": "sum of changes in cosine",
    "crops_by_visits": "mean change in cosine",
    "occlusion": "fall of the cosine when hidden",
    "centre": "control: knows no text",
    "random": "control: noise",
}


def sheet(
    heading: str,
    names: Sequence[str],
    pictures: Sequence[Image.Image | None],
    answers: Sequence[Answer],
    gold: int | None,
    credit: str,
) -> bytes:
    """PNG of a view: a row an encoder, its pictures best first under their scores, the gold framed
    and starred.
    """
    columns = max(1, len(pictures))
    size = (max(6.0, 1.25 * columns), 1.9 * len(answers) + 1.0)
    with plt.rc_context(STYLE):
        fig = Figure(figsize=size, layout="constrained")
        axes = fig.subplots(len(answers), columns, squeeze=False)
        for row, answer in zip(axes, answers):
            for ax, i in zip(row, answer.order):
                _draw_cell(ax, pictures[i], i == gold)
                star = "★ " if i == gold else ""
                ax.set_xlabel(f"{star}{answer.scores[i]:.3f}", fontsize=8)
                ax.set_title(names[i], fontsize=6, loc="center", parse_math=False)
            row[0].set_ylabel(answer.encoder, fontsize=9)
        wide = round(8 * fig.get_figwidth())  # letters of this size in a line
        left = {"x": 0.01, "ha": "left"}
        title = {"fontsize": 12, "fontweight": "bold", "parse_math": False}
        fig.suptitle(textwrap.fill(heading, wide), **left, **title)
        fig.supxlabel(textwrap.fill(credit, 2 * wide), **left, fontsize=7, color="#555555")
    return png(fig, 100)


def _draw_cell(ax: Axes, picture: Image.Image | None, gold: bool) -> None:
    """One picture, grey where there is none, the gold framed."""
    ax.imshow(np.full((8, 8, 3), 230, np.uint8) if picture is None else thumbnail(picture))
    ax.set(xticks=(), yticks=())
    ax.grid(visible=False)
    frame = {"color": BLUE, "linewidth": 3} if gold else {"color": "#DDDDDD", "linewidth": 0.6}
    ax.spines[:].set(visible=True, **frame)
