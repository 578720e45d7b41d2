"""The explorer's controls. Every handler answers in the widget: an error is a sentence there, never
a traceback.
"""

from __future__ import annotations

import base64
import html
import io
import json
import logging
from collections.abc import Callable
from functools import cached_property, wraps
from pathlib import Path

import ipywidgets as w
import yaml
from PIL import Image

from vwsdlib import paths
from vwsdlib.analysis.saliency import available
from vwsdlib.data.items import Item
from vwsdlib.data.pictures import from_bytes
from vwsdlib.data.sets import SETS, VwsdSet, load_set, profile_of
from vwsdlib.encoders.registry import load_encoder, load_segmenter
from vwsdlib.encoders.store import VectorStore
from vwsdlib.errors import VwsdError, known
from vwsdlib.kept import digest

from ..facts.collect import LANGUAGE_NAMES
from ..facts.predictions import Predictions
from ..views.saliency import METHOD_NAMES
from ..views.style import BLUE, RED
from . import work

NONE = "none"
HERE = Path(__file__).parent
STYLE = (
    f"<style>.vwsd {{ --gold: {BLUE}; --error: {RED}; }}\n"
    f"{(HERE / 'explore.css').read_text(encoding='utf-8')}</style>"
)
CONTROLS = yaml.safe_load((HERE / "controls.yml").read_text(encoding="utf-8"))
OPTIONS = {"keep": work.FILTERS, "order": work.ORDERS, "template": work.TEMPLATES}


def _guarded(handler: Callable) -> Callable:
    """A handler whose errors become a sentence in the widget."""

    @wraps(handler)
    def guarded(self, *_):
        try:
            self._say("")
            return handler(self)
        except VwsdError as e:
            self._say(str(e))
        except Exception as e:  # whatever an encoder of somebody's own may raise
            logging.getLogger(__name__).debug("a handler of the explorer failed", exc_info=True)
            self._say(
                f"{type(e).__name__}: {e}. This was not foreseen; what you typed is kept. Choose"
                " another item or encoder."
            )

    return guarded


def data_uri(picture: Image.Image) -> str:
    """A small copy of a picture as text for HTML."""
    out = io.BytesIO()
    work.thumbnail(picture).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


class Explorer:
    """A widget: choose an item, change its text, watch the ranking of its ten pictures; see
    `notebooks/explore.ipynb`.

    dataset, language, split: what is shown first. encoder: system A (default: the first that is at
    hand for the set). exports: folder of exported files (default `<root>/exports`).
    """

    def __init__(
        self,
        dataset: str = "emojiwsd",
        language: str = "en",
        split: str = "test",
        encoder: str | None = None,
        exports: Path | None = None,
    ):
        known(
            "part",
            f"{language} {split}",
            [" ".join(part) for part in SETS[known("set", dataset, SETS)].parts],
        )
        work.keep_apart(dataset)
        self.exports = Path(exports or paths.root() / "exports")
        # hash of an uploaded file -> its name and the picture
        self.own: dict[str, tuple[str, Image.Image]] = {}
        self.data: VwsdSet | None = None
        self.item: Item | None = None
        self.runs: dict[str, Predictions] = {}
        self.stores: dict[str, VectorStore] = {}
        self.translations: dict[str, str] = {}
        self.definitions: dict[str, str] = {}
        self._first, self._chosen, self._silent = (language, split), (None, NONE), False
        self._build()
        self._blank()
        self._fill(self.dataset, work.sets_beside(dataset), dataset)
        at_hand, segmenters = work.at_hand(), work.segmenters_at_hand()
        if encoder:
            known("encoder whose checkpoints are on disk", encoder, at_hand)
        self._fill(self.encoder_a, at_hand, encoder or self._default_encoder(dataset))
        self._fill(self.encoder_b, [NONE, *at_hand], NONE)
        self._fill(self.segmenter, [NONE, *segmenters], segmenters[0] if segmenters else NONE)
        self._new_set()

    def _default_encoder(self, dataset: str) -> str:
        wanted = SETS[dataset].encoders
        return next((name for name in wanted if name in work.at_hand()), work.at_hand()[0])

    # ------------------------------------------------------------ layout

    def _build(self) -> None:
        """Make the controls of controls.yml, arrange them, and say who answers to each."""
        for name, (kind, settings) in CONTROLS.items():
            offered = {"options": list(OPTIONS[name])} if name in OPTIONS else {}
            setattr(self, name, getattr(w, kind)(**settings, **offered))
        self.status, self.shown, self.map, self.note = w.HTML(), w.HTML(), w.HTML(), w.HTML()
        self._arrange()
        changed = {
            self._new_set: (self.dataset,),
            self._new_part: (self.part,),
            self._new_systems: (self.encoder_a, self.encoder_b),
            self._list: (self.word, self.keep, self.order),
            self._new_item: (self.items,),
            self._translate: (self.reading,),
            self.update: (self.phrase, self.template, self.definition),
            self._swap: (self.use_own,),
            self._receive: (self.upload,),
            self._new_methods: (self.segmenter,),
            self._drop_map: (self.picture, self.method),
        }
        for handler, widgets in changed.items():
            for widget in widgets:
                widget.observe(lambda change, h=handler: None if self._silent else h(), "value")
        for button, handler in (
            (self.reset, self._original),
            (self.forget, self._forget),
            (self.draw, self.draw_map),
            (self.export, self.save),
        ):
            button.on_click(lambda _, h=handler: h())

    def _arrange(self) -> None:
        """Choices on the left, the text and its ranking on the right; on half a screen one below
        the other.
        """
        wrapped = {"flex_flow": "row wrap"}
        systems = [self.dataset, self.part, self.encoder_a, self.encoder_b]
        left = w.VBox([*systems, self.word, self.keep, self.order, self.items])
        own = w.HBox([self.reset, self.upload, self.forget, self.use_own], layout=wrapped)
        text = w.VBox([self.phrase, self.reading, self.template, self.definition, own])
        drawing = [self.picture, self.method, self.segmenter, self.draw, self.export]
        below = w.VBox([w.HBox(drawing, layout=wrapped), self.map])
        wide = {"flex": "1 1 420px", "min_width": "360px"}
        right = w.VBox([text, self.shown, below, self.note], layout=wide)
        both = w.HBox([left, right], layout={**wrapped, "width": "100%"})
        self.box = w.VBox([w.HTML(STYLE), self.status, both])
        self.box.add_class("vwsd")

    def _fill(self, widget, options: list, value=None) -> None:
        """Give a control other options and a value without its handler running."""
        self._silent = True
        widget.options = options
        values = [o[1] if isinstance(o, tuple) else o for o in options]
        widget.value = value if value in values else (values[0] if values else None)
        self._silent = False

    def _set(self, widget, value) -> None:
        self._silent = True
        widget.value = value
        self._silent = False

    def _say(self, sentence: str) -> None:
        error = f'<div class="vwsd-error" role="alert">{html.escape(sentence)}</div>'
        self.status.value = error if sentence else ""

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.box)

    # ------------------------------------------------------------ what is chosen

    @_guarded
    def _new_set(self) -> None:
        parts = []
        for language, split in SETS[self.dataset.value].parts:
            parts.append((f"{LANGUAGE_NAMES[language]}, {split}", (language, split)))
        self._fill(self.part, parts, self._first if self.part.value is None else self.part.value)
        self._load()

    @_guarded
    def _new_part(self) -> None:
        self._load()

    def _load(self) -> None:
        """Open the chosen set; where that fails nothing of another one stays under its name."""
        self.data = self.item = None
        self._fill(self.items, [])
        self._blank()
        data = load_set(self.dataset.value, *self.part.value)
        self._systems()
        self.data = data
        self._set(self.word, "")
        self._list_all()

    def _open(self) -> VwsdSet:
        """The set that is open; VwsdError where none is."""
        if self.data is None:
            raise VwsdError(
                "no set is open", remedy="Choose a set and a part whose files are at hand."
            )
        return self.data

    def _run_of(self, name: str):
        """The stored result of an encoder under the plain phrase, None where there is none."""
        return self.runs.get(f"{name}.phrase.{self.data.language}.{self.data.split}")

    @_guarded
    def _new_systems(self) -> None:
        self._systems()
        if self.data is None:
            self._load()
            return
        if self.item is not None:
            self._look()  # the same item or pictures under the same text
        self._list_items()

    def _systems(self) -> None:
        """Load the chosen systems; one that cannot be loaded leaves those that were there."""
        names = (self.encoder_a.value, self.encoder_b.value)
        try:
            stores = {
                name: self.stores.get(name) or VectorStore(load_encoder(name), truncated="keep")
                for name in dict.fromkeys(names)
                if name != NONE
            }
        except Exception:
            if self.stores:
                self._set(self.encoder_a, self._chosen[0])
                self._set(self.encoder_b, self._chosen[1])
            raise
        work.forget(self.stores.keys() - stores.keys())
        self.stores, self._chosen = stores, names
        self._methods()

    @_guarded
    def _new_methods(self) -> None:
        self._methods()
        self._clear_map()

    def _methods(self) -> None:
        # the segmenter's name will do: it is loaded when it draws
        segmenter = None if self.segmenter.value == NONE else self.segmenter.value
        names = []
        if self.stores:
            names = available(self.stores[self.encoder_a.value].encoder, segmenter)
        self._fill(self.method, [(METHOD_NAMES[name], name) for name in names], self.method.value)

    @_guarded
    def _list(self) -> None:
        self._list_items()

    def _list_all(self) -> None:
        """List all items of the set, as it has them."""
        self._set(self.keep, "all items")
        self._set(self.order, "as in the set")
        self._list_items()

    def _list_items(self) -> None:
        """List what is searched for; the item that is shown stays where it is among them."""
        items, self.runs = self._open().items, work.stored_runs(self.data)
        a, b = self._run_of(self.encoder_a.value), self._run_of(self.encoder_b.value)
        wanted = (self.word.value, self.keep.value, self.order.value)
        try:
            profile = profile_of(self.data.name) or "demo"
            listed = work.chosen(items, *wanted, a, b, profile)
        except VwsdError:  # asked for what is not stored: say so, over the whole list
            self._list_all()
            raise
        labels = []
        for i in listed:
            mark = "" if a is None else "✓ " if a.ranks[i] == 1 else "✗ "
            labels.append((f"{mark}{items[i].target} — {items[i].phrase}", i))
        self._fill(self.items, labels, self.items.value)
        if not listed:
            raise VwsdError(
                "no item is like this", remedy="Search for another word or show all items."
            )
        if items[self.items.value] is not self.item:
            self._show_item()

    @_guarded
    def _new_item(self) -> None:
        self._show_item()

    def _show_item(self) -> None:
        self.item = self._open().items[self.items.value]
        with self.shown.hold_sync():
            self._blank()
            self._set(self.phrase, self.item.phrase)
            self._set(self.use_own, False)
            self.translations, self.definitions = (
                work.stored_text(self.data, kind, self.item.id) for kind in work.STORED_TEXT
            )
            self._fill(self.reading, [NONE, *self.translations], NONE)
            self._fill(self.definition, [NONE, *self.definitions], NONE)
            self._look()

    def _blank(self) -> None:
        """Show nothing: what an error interrupts must not leave one item's scores under another's
        name.
        """
        self.names, self.pictures, self._uris, self.gold = [], [], [], None
        self.vectors, self.answers = {}, []
        self._fill(self.picture, [])
        self.shown.value = self.note.value = self.map.value = ""

    def _look(self) -> None:
        """Pictures and their vectors, of the item or of one's own; they stay while the text
        changes.
        """
        with self.shown.hold_sync():  # one message to the page: no flicker
            self._blank()
            if self.use_own.value:
                names = [name for name, _ in self.own.values()]
                pictures = [picture for _, picture in self.own.values()]
                gold = None
                vectors = {name: store.pictures(pictures) for name, store in self.stores.items()}
            else:
                names = list(self.item.candidates)
                places = [self.data.path(name) for name in names]
                pictures = self._opened(names, places)
                gold = names.index(self.item.gold) if self.item.gold else None
                vectors = {name: store.images(places) for name, store in self.stores.items()}
            self.names, self.pictures, self.gold, self.vectors = names, pictures, gold, vectors
            self._uris = [data_uri(picture) for picture in pictures]
            labels = []
            for i, name in enumerate(names):
                labels.append((f"{i + 1} · {name}{' ★' if i == gold else ''}", i))
            self._fill(self.picture, labels, gold or 0)
            self._rank()

    def _opened(self, names: list[str], places: list) -> list[Image.Image]:
        """The pictures of an item; VwsdError where one of them cannot be shown."""
        pictures, reasons = zip(*(work.open_picture(place) for place in places))
        lost = [(name, why) for name, why in zip(names, reasons) if why]
        if lost:
            name, why = lost[0]
            raise VwsdError(f"{len(lost)} of the ten pictures cannot be shown, {name} first: {why}")
        return list(pictures)

    # ------------------------------------------------------------ the text, and what the systems
    # say to it

    @property
    def text(self) -> str:
        """The text that the controls make; what was scored last is `answers[0].text`."""
        definition = self.definitions.get(self.definition.value, "") if self.item else ""
        return work.full_text(self.phrase.value, self.template.value, definition)

    @_guarded
    def update(self) -> None:
        """Rank the pictures anew under the text as it is now."""
        self._rank()

    @_guarded
    def _translate(self) -> None:
        self._open()
        self._set(self.phrase, self.translations.get(self.reading.value, self.item.phrase))
        self._rank()

    @_guarded
    def _original(self) -> None:
        self._open()
        self._set(self.phrase, self.item.phrase)
        self._set(self.template, "as it is")
        self._set(self.reading, NONE)
        self._set(self.definition, NONE)
        self._rank()

    def _rank(self) -> None:
        """Score the text; where that fails the last ranking stays, under the text that it is of."""
        if not self.vectors:
            raise VwsdError(
                "no pictures are shown", remedy="Choose another item, or upload pictures."
            )
        leftwards = work.right_to_left(self.phrase.value)
        turn = self.phrase.add_class if leftwards else self.phrase.remove_class
        turn("vwsd-rtl")
        text = self.text
        self.answers = [
            work.answer(self.stores[name], text, vectors) for name, vectors in self.vectors.items()
        ]
        self._clear_map()
        self.shown.value = self._grid()
        credit = "your own pictures" if self.use_own.value else self.data.credit
        self.note.value = (
            '<p class="vwsd-note">Scored text: <span'
            f' dir="auto">“{html.escape(self.answers[0].text)}”</span>. Pictures:'
            f" {html.escape(credit)}</p>"
        )

    def _answered(self) -> str:
        """The text that the shown ranking is of; VwsdError where there is none."""
        if not self.answers:
            raise VwsdError("nothing is ranked yet", remedy="Choose an item, or upload pictures.")
        return self.answers[0].text

    def _grid(self) -> str:
        verdicts = [f"<p>{answer.encoder}: {self._verdict(answer)}</p>" for answer in self.answers]
        cells = [self._cell(i) for i in self.answers[0].order]
        return (
            f'<div class="vwsd">{"".join(verdicts)}'
            f'<ol class="vwsd-grid">{"".join(cells)}</ol></div>'
        )

    def _verdict(self, answer: work.Answer) -> str:
        margin = f"margin {answer.margin:.3f}"
        if self.gold is None:
            return f"chooses {html.escape(self.names[answer.order[0]])} ({margin})"
        rank = answer.ranks[self.gold]
        right = "right" if rank == 1 else "wrong"
        return f"<b>{right}</b>, the gold has rank {rank} of {len(self.names)} ({margin})"

    def _cell(self, i: int) -> str:
        says = []
        for letter, answer in zip("AB", self.answers):
            first = "first" if answer.ranks[i] == 1 else ""
            says.append(
                f'<span class="{first}">{letter} {answer.ranks[i]}.'
                f" &nbsp;{answer.scores[i]:.3f}</span>"
            )
        gold = i == self.gold
        name = html.escape(self.names[i])
        return (
            f'<li class="{"gold" if gold else ""}"><img src="{self._uris[i]}"'
            f' alt="{name}{", the gold" if gold else ""}">'
            f"{'★ gold ' if gold else ''}{name}<br>{'<br>'.join(says)}</li>"
        )

    # ------------------------------------------------------------ own pictures, maps, export

    @_guarded
    def _receive(self) -> None:
        """Take the uploaded files, each once; those that are no pictures are named, the others
        shown.
        """
        files, refused = self.upload.value, []
        self._set(self.upload, ())  # the bytes are let go, and the same file may be chosen again
        for file in files:
            content, name = bytes(file["content"]), file["name"]
            try:
                picture = from_bytes(content, name, "keep").image
                self.own[paths.sha256_bytes(content)] = (name, picture)
            except VwsdError as e:
                refused.append(str(e))
        if self.own:
            self._set(self.use_own, True)
            self._look()
        self._say(" ".join(refused))

    @_guarded
    def _forget(self) -> None:
        self.own.clear()
        if self.use_own.value:
            self._set(self.use_own, False)
            self._look()

    @_guarded
    def _swap(self) -> None:
        if self.use_own.value and not self.own:
            self._set(self.use_own, False)
            raise VwsdError(
                "there are no pictures of yours yet", remedy="Upload some with “Own pictures”."
            )
        self._open()
        self._look()

    @_guarded
    def _drop_map(self) -> None:
        self._clear_map()

    def _clear_map(self) -> None:
        self.map.value = ""

    @_guarded
    def draw_map(self) -> None:
        """Draw the chosen map over the chosen picture, for the text that was scored."""
        self._clear_map()
        text, method = self._answered(), self.method.value
        segmenter = load_segmenter(self.segmenter.value) if method == "mask" else None
        encoder, chosen = self.stores[self.encoder_a.value].encoder, self.picture.value
        made = work.overlaid(self.pictures[chosen], text, method, encoder, segmenter)
        about = html.escape(f"{METHOD_NAMES[method]} of {self.names[chosen]} for “{text}”")
        self.map.value = (
            f'<img alt="{about}" style="max-width: 100%; background: #fff"'
            f' src="data:image/png;base64,{base64.b64encode(made).decode()}">'
        )

    @cached_property
    def exported(self) -> list[Path]:
        """Files that were written."""
        return []

    def facts(self) -> dict:
        """The view as data: set, item, text, and of each system its identity, scores and ranks in
        the order of the pictures; VwsdError where nothing is shown.
        """
        text = self._answered()
        item = {
            "id": self.item.id,
            "language": self.item.language,
            "target": self.item.target,
            "phrase": self.item.phrase,
            "gold": self.item.gold,
        }
        systems = [
            {
                "encoder": answer.encoder,
                "scores": answer.scores.tolist(),
                "ranks": answer.ranks,
                **self.stores[answer.encoder].encoder.identity(),
            }
            for answer in self.answers
        ]
        return {
            "set": self.data.name,
            "split": self.data.split,
            "data_sha256": self.data.sha256,
            "item": None if self.use_own.value else item,
            "text": text,
            "pictures": self.names,
            "pictures_sha256": [*self.own] if self.use_own.value else None,
            "systems": systems,
            "credit": "the user's own pictures" if self.use_own.value else self.data.credit,
        }

    @_guarded
    def save(self) -> None:
        """Write the view as PNG and its facts as JSON into `exports`; the names are shown."""
        facts = self.facts()
        what = "own" if self.use_own.value else paths.safe_name(self.item.id, "item")
        stem = self.exports / f"{what}-{digest(facts)[:8]}"
        view = work.sheet(
            facts["text"], self.names, self.pictures, self.answers, self.gold, facts["credit"]
        )
        text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
        self.exported[:] = [
            paths.write_bytes(Path(f"{stem}.png"), view),
            paths.write_text(Path(f"{stem}.json"), text),
        ]
        for path in self.exported:
            self.note.value += f'<p class="vwsd-note">Written: {html.escape(str(path))}</p>'
