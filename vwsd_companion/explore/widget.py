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
from PIL import Image

from vwsdlib import paths
from vwsdlib.analysis.saliency import available
from vwsdlib.data.items import Item
from vwsdlib.data.pictures import from_bytes
from vwsdlib.data.sets import SETS, VwsdSet, load_set, profile_of
from vwsdlib.encoders.registry import load_encoder, load_segmenter
from vwsdlib.encoders.store import VectorStore
from vwsdlib.errors import VwsdError, known

from ..facts.collect import LANGUAGE_NAMES
from ..facts.predictions import Predictions
from ..views.saliency import METHOD_NAMES
from ..views.style import BLUE, RED
from . import work

NONE = "none"
STYLE = f"""<style>
.vwsd {{ --line: var(--jp-border-color1, #bbb); --text: var(--jp-ui-font-color1, #222);
  --soft: var(--jp-ui-font-color2, #555); color: var(--text); }}
.vwsd-grid {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(116px, 1fr)); gap: 8px;
  padding: 0; margin: 4px 0; list-style: none; max-width: 720px; }}
.vwsd-grid li {{ border: 1px solid var(--line); border-radius: 4px; padding: 4px;
  text-align: center; font-size: 12px; line-height: 1.35; }}
.vwsd-grid li.gold {{ border: 3px solid {BLUE}; padding: 2px; }}
.vwsd-grid img {{ width: 100%; height: 104px; object-fit: contain; background: #fff; }}
.vwsd-grid .first {{ font-weight: bold; }}
.vwsd .widget-box, .vwsd .widget-html {{ margin: 0; box-sizing: border-box; }}
.vwsd .widget-html, .vwsd .widget-html-content {{ min-width: 0; width: 100%; }}
.vwsd .widget-hbox {{ gap: 4px; }}
.vwsd p {{ margin: 4px 0; line-height: 1.4; }}
.vwsd-rtl input {{ direction: rtl; }}
.vwsd select option {{ unicode-bidi: plaintext; }}
.vwsd-error {{ border-left: 4px solid {RED}; padding: 6px 10px; margin: 4px 0; }}
.vwsd-note {{ color: var(--soft); font-size: 12px; }}
</style>"""


CONTROLS = {  # attribute of the explorer -> kind, label, what it does, further settings
    "dataset": (
        w.Dropdown,
        "Set",
        "EmojiWSD is built in; vwsd is SemEval-2023 Task 1, where its files are at hand",
    ),
    "part": (w.Dropdown, "Part", "Language and split of the set"),
    "encoder_a": (
        w.Dropdown,
        "System A",
        "The encoder that ranks the pictures; those whose checkpoints are on disk",
    ),
    "encoder_b": (w.Dropdown, "System B", "A second encoder to compare with A, or none"),
    "word": (
        w.Text,
        "Search",
        "Lists only items whose word or phrase holds this, or the one with this very id",
        {"placeholder": "a word, or an id"},
    ),
    "keep": (
        w.Dropdown,
        "Show",
        "Which items to list; right and wrong are those of stored results under the plain phrase",
        {"options": list(work.FILTERS)},
    ),
    "order": (
        w.Dropdown,
        "Order",
        "The order of the list; certainty is the margin between A's first and second picture",
        {"options": list(work.ORDERS)},
    ),
    "phrase": (
        w.Text,
        "Phrase",
        "Edit it: the ranking follows as you type",
        {"continuous_update": True},
    ),
    "reading": (
        w.Dropdown,
        "Translation",
        "Put a stored English translation in the phrase's place (none is stored for English)",
    ),
    "template": (
        w.Dropdown,
        "Template",
        "Words around the phrase",
        {"options": list(work.TEMPLATES)},
    ),
    "definition": (
        w.Dropdown,
        "Definition",
        "Put a stored definition of the word behind the phrase (where notebook 6 has stored some)",
    ),
    "picture": (w.Dropdown, "Picture", "The picture that is explained below"),
    "method": (
        w.Dropdown,
        "Map",
        (
            "Where in the picture the match with the text comes from, by system A; or a mask by the"
            " segmenter. Controls know no text"
        ),
    ),
    "segmenter": (w.Dropdown, "Segmenter", "The model that draws masks"),
}
BUTTONS = {  # attribute -> label, what it does
    "forget": ("Forget uploads", "Remove your own pictures"),
    "reset": (
        "Original phrase",
        "Put back the item's own phrase, without template, translation and definition",
    ),
    "draw": (
        "Draw the map",
        (
            "Draw the chosen map over the chosen picture; random crops and gradients take a few"
            " seconds"
        ),
    ),
    "export": ("Export", "Write the view as PNG and the item with all scores as JSON"),
}


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
        self.own: dict[
            str, tuple[str, Image.Image]
        ] = {}  # hash of the file -> its name and the picture
        self.data: VwsdSet | None = None
        self.item: Item | None = None
        self.runs: dict[str, Predictions] = {}
        self.stores: dict[str, VectorStore] = {}
        self.translations: dict[str, str] = {}
        self.definitions: dict[str, str] = {}
        self._first, self._chosen, self._silent = (language, split), (None, NONE), False
        self._build()
        self._blank()
        at_hand, segmenters = work.at_hand(), work.segmenters_at_hand()
        self._fill(
            self.dataset,
            (
                [dataset]
                if SETS[dataset].models
                else [name for name, it in SETS.items() if not it.models]
            ),
            dataset,
        )
        self._fill(
            self.encoder_a,
            at_hand,
            (
                known("encoder whose checkpoints are on disk", encoder, at_hand)
                if encoder
                else self._default_encoder(dataset)
            ),
        )
        self._fill(self.encoder_b, [NONE, *at_hand], NONE)
        self._fill(self.segmenter, [NONE, *segmenters], segmenters[0] if segmenters else NONE)
        self._new_set()

    def _default_encoder(self, dataset: str) -> str:
        wanted = SETS[dataset].encoders
        return next((name for name in wanted if name in work.at_hand()), work.at_hand()[0])

    # ------------------------------------------------------------ layout

    def _build(self) -> None:
        """Make the controls of CONTROLS and BUTTONS, arrange them, and say who answers to each."""
        for name, (kind, label, explains, *more) in CONTROLS.items():
            setattr(
                self,
                name,
                kind(
                    description=label,
                    tooltip=explains,
                    style={"description_width": "86px"},
                    layout={"width": "340px"},
                    **dict(*more),
                ),
            )
        for name, (label, explains) in BUTTONS.items():
            setattr(self, name, w.Button(description=label, tooltip=explains))
        self.items = w.Select(
            rows=9, tooltip="The items; arrow keys go up and down", layout={"width": "340px"}
        )
        self.upload = w.FileUpload(
            accept="image/*",
            multiple=True,
            description="Own pictures",
            tooltip=(
                "Rank your own picture files under your own phrase; at most 10 MB at once, 200 MB"
                " where `make lab` started JupyterLab"
            ),
        )
        self.use_own = w.Checkbox(
            description="rank my own pictures",
            indent=False,
            tooltip="Show the uploaded pictures in place of the item's",
            layout={"width": "200px"},
        )
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
        left = w.VBox(
            [
                self.dataset,
                self.part,
                self.encoder_a,
                self.encoder_b,
                self.word,
                self.keep,
                self.order,
                self.items,
            ]
        )
        text = w.VBox(
            [
                self.phrase,
                self.reading,
                self.template,
                self.definition,
                w.HBox([self.reset, self.upload, self.forget, self.use_own], layout=wrapped),
            ]
        )
        below = w.VBox(
            [
                w.HBox(
                    [self.picture, self.method, self.segmenter, self.draw, self.export],
                    layout=wrapped,
                ),
                self.map,
            ]
        )
        right = w.VBox(
            [text, self.shown, below, self.note], layout={"flex": "1 1 420px", "min_width": "360px"}
        )
        self.box = w.VBox(
            [w.HTML(STYLE), self.status, w.HBox([left, right], layout={**wrapped, "width": "100%"})]
        )
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
        self.status.value = (
            f'<div class="vwsd-error" role="alert">{html.escape(sentence)}</div>'
            if sentence
            else ""
        )

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.box)

    # ------------------------------------------------------------ what is chosen

    @_guarded
    def _new_set(self) -> None:
        parts = [
            (f"{LANGUAGE_NAMES[language]}, {split}", (language, split))
            for language, split in SETS[self.dataset.value].parts
        ]
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
        for widget, value in (
            (self.word, ""),
            (self.keep, "all items"),
            (self.order, "as in the set"),
        ):
            self._set(widget, value)
        self._list_items()

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
                (
                    self._set(self.encoder_a, self._chosen[0]),
                    self._set(self.encoder_b, self._chosen[1]),
                )
            raise
        work.forget(self.stores.keys() - stores.keys())
        self.stores, self._chosen = stores, names
        self._methods()

    @_guarded
    def _new_methods(self) -> None:
        self._methods()
        self._clear_map()

    def _methods(self) -> None:
        segmenter = (
            None if self.segmenter.value == NONE else self.segmenter.value
        )  # its name will do: it is loaded when it draws
        names = (
            available(self.stores[self.encoder_a.value].encoder, segmenter) if self.stores else []
        )
        self._fill(self.method, [(METHOD_NAMES[name], name) for name in names], self.method.value)

    @_guarded
    def _list(self) -> None:
        self._list_items()

    def _list_items(self) -> None:
        """List what is searched for; the item that is shown stays where it is among them."""
        items, self.runs = self._open().items, work.stored_runs(self.data)
        a, b = self._run_of(self.encoder_a.value), self._run_of(self.encoder_b.value)
        try:
            found = work.chosen(
                items,
                self.word.value,
                self.keep.value,
                self.order.value,
                a,
                b,
                profile_of(self.data.name) or "demo",
            )
        except VwsdError:  # asked for what is not stored: say so, over the whole list
            self._set(self.keep, "all items"), self._set(self.order, "as in the set")
            self._list_items()
            raise
        mark = {True: "✓", False: "✗"}
        labels = [
            (
                (
                    f"{mark[bool(a.ranks[i] == 1)] + ' ' if a else ''}{items[i].target} —"
                    f" {items[i].phrase}"
                ),
                i,
            )
            for i in found
        ]
        self._fill(self.items, labels, self.items.value)
        if not found:
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
        self.names, self.pictures, self.gold, self.vectors, self.answers, self._uris = (
            [],
            [],
            None,
            {},
            [],
            [],
        )
        self._fill(self.picture, [])
        self.shown.value = self.note.value = self.map.value = ""

    def _look(self) -> None:
        """Pictures and their vectors, of the item or of one's own; they stay while the text
        changes.
        """
        with self.shown.hold_sync():  # one message to the page: no flicker
            self._blank()
            if self.use_own.value:
                names, pictures, gold = (
                    [name for name, _ in self.own.values()],
                    [picture for _, picture in self.own.values()],
                    None,
                )
                vectors = {name: store.pictures(pictures) for name, store in self.stores.items()}
            else:
                names, places = (
                    list(self.item.candidates),
                    [self.data.path(c) for c in self.item.candidates],
                )
                pictures, reasons = zip(*(work.open_picture(place) for place in places))
                gold = names.index(self.item.gold) if self.item.gold else None
                if lost := [name for name, why in zip(names, reasons) if why]:
                    raise VwsdError(
                        f"{len(lost)} of the ten pictures cannot be shown, {lost[0]} first:"
                        f" {next(filter(None, reasons))}"
                    )
                vectors = {name: store.images(places) for name, store in self.stores.items()}
            self.names, self.pictures, self.gold, self.vectors, self._uris = (
                names,
                list(pictures),
                gold,
                vectors,
                [data_uri(picture) for picture in pictures],
            )
            labels = [
                (f"{i + 1} · {name}{' ★' if i == gold else ''}", i) for i, name in enumerate(names)
            ]
            self._fill(self.picture, labels, gold or 0)
            self._rank()

    # ------------------------------------------------------------ the text, and what the systems
    # say to it

    @property
    def text(self) -> str:
        """The text that the controls make; what was scored last is `answers[0].text`."""
        return work.full_text(
            self.phrase.value,
            self.template.value,
            self.definitions.get(self.definition.value, "") if self.item else "",
        )

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
        for widget, value in (
            (self.phrase, self.item.phrase),
            (self.template, "as it is"),
            (self.reading, NONE),
            (self.definition, NONE),
        ):
            self._set(widget, value)
        self._rank()

    def _rank(self) -> None:
        """Score the text; where that fails the last ranking stays, under the text that it is of."""
        if not self.vectors:
            raise VwsdError(
                "no pictures are shown", remedy="Choose another item, or upload pictures."
            )
        (
            self.phrase.add_class
            if work.right_to_left(self.phrase.value)
            else self.phrase.remove_class
        )("vwsd-rtl")
        self.answers = [
            work.answer(self.stores[name], self.text, vectors)
            for name, vectors in self.vectors.items()
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
        verdict = "".join(f"<p>{its.encoder}: {self._verdict(its)}</p>" for its in self.answers)
        order = self.answers[0].order
        return (
            f'<div class="vwsd">{verdict}<ol'
            f' class="vwsd-grid">{"".join(self._cell(i) for i in order)}</ol></div>'
        )

    def _verdict(self, its: work.Answer) -> str:
        first = f"margin {its.margin:.3f}"
        if self.gold is None:
            return f"chooses {html.escape(self.names[its.order[0]])} ({first})"
        rank = its.ranks[self.gold]
        return (
            f"<b>{'right' if rank == 1 else 'wrong'}</b>, the gold has rank {rank} of"
            f" {len(self.names)} ({first})"
        )

    def _cell(self, i: int) -> str:
        says = "<br>".join(
            f'<span class="{"first" if its.ranks[i] == 1 else ""}">{"AB"[n]} {its.ranks[i]}.'
            f" &nbsp;{its.scores[i]:.3f}</span>"
            for n, its in enumerate(self.answers)
        )
        gold = i == self.gold
        name = html.escape(self.names[i])
        return (
            f'<li class="{"gold" if gold else ""}"><img src="{self._uris[i]}"'
            f' alt="{name}{", the gold" if gold else ""}">'
            f"{'★ gold ' if gold else ''}{name}<br>{says}</li>"
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
            content = bytes(file["content"])
            try:
                self.own[paths.sha256_bytes(content)] = (
                    file["name"],
                    from_bytes(content, file["name"], "keep").image,
                )
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
        made = work.overlaid(
            self.pictures[self.picture.value],
            text,
            method,
            self.stores[self.encoder_a.value].encoder,
            segmenter,
        )
        about = html.escape(
            f"{METHOD_NAMES[method]} of {self.names[self.picture.value]} for “{text}”"
        )
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
                "encoder": its.encoder,
                "scores": [float(s) for s in its.scores],
                "ranks": its.ranks,
                **self.stores[its.encoder].encoder.identity(),
            }
            for its in self.answers
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
        stem = (
            ("own" if self.use_own.value else paths.safe_name(self.item.id, "item"))
            + "-"
            + paths.sha256_bytes(json.dumps(facts, sort_keys=True).encode())[:8]
        )
        view = work.sheet(
            facts["text"], self.names, self.pictures, self.answers, self.gold, facts["credit"]
        )
        self.exported[:] = [
            paths.write_bytes(self.exports / f"{stem}.png", view),
            paths.write_text(
                self.exports / f"{stem}.json",
                json.dumps(facts, indent=1, ensure_ascii=False) + "\n",
            ),
        ]
        self.note.value += "".join(
            f'<p class="vwsd-note">Written: {html.escape(str(path))}</p>' for path in self.exported
        )
