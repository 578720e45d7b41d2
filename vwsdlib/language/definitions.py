"""Definitions of a target in its context ("D-GPT" in PolCLIP's paper): chosen among an inventory's
glosses, or written by a language model.

What a model writes is kept like translations (`replay`); what is chosen is chosen again each time.
The paper gives neither its prompt's wording nor its temperature, so both are our own. No definer
ever sees a gold.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from .. import device
from ..data.items import Item
from ..data.wsd import WsdItem, joined
from ..encoders import checkpoints
from ..errors import VwsdError, entry_of
from ..finite import best
from ..paths import cache_dir
from ..registry import Registry
from . import endpoint
from .inventories import INVENTORIES, as_wsd_items
from .local import load_generator, local_facts, settings_of, tell
from .quality import words
from .replay import Answerer, Answering, one_by_one, read_records, replay, write_records
from .wsd_baselines import BASELINES, glosses_of

SYSTEM = (
    "You write dictionary definitions: plain, true, and of the one sense that the context calls"
    " for."
)
PROMPT = (
    "What does the expression between <t> and </t> mean in this context? Define this one meaning in"
    " a single sentence, in the language of the context ({language}). Answer with the definition"
    " alone.\n\n{context}"
)
WRITING = {"system": SYSTEM, "prompt": PROMPT, "kept": "first sentence"}
# of a definitions file's meta, what decided a text
IDENTITY = ("definer", "kind", "model", "revision", "weights_sha256", "files_sha256", "settings")
IDENTITY += ("versions", "dtype", "device", "tf32", "shapes")
SENTENCE_END = re.compile(r"(?<=[.!?\u061f])\s+(?![a-z])|(?<=[\u3002\uff01\uff1f])")
DEFINERS = Registry(Answerer, "vwsdlib.definers", Path(__file__).with_name("definers.yml"))


@dataclass(frozen=True)
class Definitions:
    """texts[i] defines the target of the item ids[i], empty where there is none; `facts` is all
    that decided it, `kind` "chosen" or "generated".

    `options` are each item's candidate glosses, `replayed` counts texts that were there, `refused`
    those that `guard` emptied.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    facts: dict
    kind: str
    options: tuple[tuple[str, ...], ...] = ()
    replayed: int = 0
    refused: int = 0


def question(item: WsdItem) -> str:
    """What a language model is asked about an item: the prompt with the target marked in its
    context; candidates are not named.
    """
    first, last = item.span
    marked = list(item.tokens)
    marked[first] = f"<t>{marked[first]}"
    marked[last] = f"{marked[last]}</t>"
    return PROMPT.format(language=item.language, context=joined(marked, item.glued))


def messages(asked: str) -> list[dict[str, str]]:
    """A question as a chat: system line and user line."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}]


def first_sentence(text: str) -> str:
    """The first sentence, white space folded; a full stop before a small letter ("e.g. a bank")
    ends none.
    """
    return SENTENCE_END.split(" ".join(text.split()), maxsplit=1)[0].strip()


def choosing_definer(method: str, entry: Answerer) -> tuple[dict, Callable]:
    """Identity and loader of a definer that takes the gloss which a method of BASELINES scores
    highest: items -> glosses, "" where an item has no candidates.
    """

    def choose(items: Sequence[WsdItem]) -> list[str]:
        chosen = []
        for item, scores in zip(items, BASELINES[method](items, None, "lite")):
            if item.candidates:
                chosen.append(glosses_of(item)[best(scores, where=item.id)])
            else:
                chosen.append("")
        return chosen

    settings = dict(entry.settings)
    facts = {"model": "", "revision": "", "weights_sha256": "", "settings": settings}
    return facts, lambda: choose


def local_definer(entry: Answerer) -> tuple[dict, Callable[[], Answering]]:
    """Identity and loader of an instruct model on this machine."""
    checkpoint = checkpoints.find(entry.model)
    told = settings_of(entry.settings, checkpoint.folder)
    packages = ("transformers", "tokenizers", "torch")
    shapes = "a text a batch, no padding"
    facts = local_facts(entry.model, checkpoint, {**told, **WRITING}, packages, shapes)
    return facts, lambda: load_instruct(checkpoint.folder, told, device.choose())


def load_instruct(folder: Path, settings: Mapping, place: str = "cpu") -> Answering:
    """An instruct checkpoint as questions -> Pairs, told exactly `settings`; VwsdError where it
    cannot be read or has no chat template.
    """
    tokenizer, model = load_generator(folder, "AutoModelForCausalLM", place)
    if not tokenizer.chat_template:
        raise VwsdError(
            "the tokenizer has no chat template",
            where=folder,
            remedy="Take an instruct model, and fetch all of its files.",
        )
    tell(model, settings)
    room = device.Room(1, "texts", place)
    return one_by_one(lambda text: room.use(lambda _: _write(tokenizer, model, text)))


def _write(tokenizer, model, text: str) -> str:
    import torch

    tokens = tokenizer.apply_chat_template(
        messages(text), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )  # [1, t]
    with torch.inference_mode():
        out = model.generate(**tokens.to(model.device))  # [1, t + at most max_new_tokens]
    answer = out[0, tokens["input_ids"].shape[1] :]
    return first_sentence(
        tokenizer.decode(answer, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    )


def chat_definer(entry: Answerer) -> tuple[dict, Callable[[], Answering]]:
    """Identity and loader of the chat endpoint."""
    return endpoint.chat({**entry.settings, **WRITING}, messages, first_sentence)


def define(name: str, items: Sequence[WsdItem], store: str | Path | None = None) -> Definitions:
    """Define the target of each item, or replay what is stored; a model is asked only where a
    definition is missing.

    store: folder of the stored answers, by default `<cache>/definitions`; each line of `chat` and
    `hf` holds also model, prompt, temperature and date. What comes back went through `guard`: a
    written text that equals a gloss of its item is emptied and counted in `refused`, and a
    warning says so. Raises VwsdError for a missing checkpoint or variable, candidates without
    glosses, and what `endpoint.ask` raises.
    """
    entry = entry_of("definer", name, DEFINERS)
    identity, load = entry(entry)
    facts = {"definer": name, "kind": entry.kind, **identity}
    ids, options = tuple(item.id for item in items), tuple(item.glosses for item in items)
    if entry.kind == "chosen":
        return guard(Definitions(ids, tuple(load()(items)), facts, entry.kind, options), {})
    asked = [question(item) for item in items]
    told = {
        "model": facts["model"],
        "system": SYSTEM,
        "prompt": PROMPT,
        "temperature": entry.settings.get("temperature", 0),
    }

    def note() -> dict:
        return {**told, "date": datetime.now(UTC).isoformat(timespec="seconds")}

    folder = store or cache_dir() / "definitions"
    known, replayed = replay(name, facts, asked, load, folder, f"{name} definitions", note)
    texts = tuple(known[text] for text in asked)
    definitions = Definitions(ids, texts, facts, entry.kind, options, replayed)
    return _guarded(definitions, items)


def define_or_replay(name: str, items: Sequence[WsdItem], path: str | Path) -> Definitions:
    """What a definitions file holds, where a definer that writes made it for these very items and
    was asked as here; else `define`. VwsdError as there, and for a damaged file.

    So definitions that were written once, on this machine or another, need no model any more.
    """
    before = written_before(name, [item.id for item in items], path)
    if before is None:
        return define(name, items)
    texts, meta = before
    facts = {key: meta[key] for key in IDENTITY if key in meta}
    made = Definitions(tuple(texts), tuple(texts.values()), facts, "generated", (), len(texts))
    made = replace(made, refused=meta.get("refused", 0))
    return _guarded(made, items, f" of {Path(path).name}")


def written_before(
    name: str, ids: Sequence[str], path: str | Path
) -> tuple[dict[str, str], dict] | None:
    """(id -> definition, meta) of a definitions file that a definer which writes made for these
    very items, asked as here; None where there is no such file. VwsdError for a damaged one.
    """
    if entry_of("definer", name, DEFINERS).kind == "chosen" or not Path(path).exists():
        return None
    records, meta = read_definitions(path)
    texts = {record["id"]: record["definition"] for record in records}
    asked_so = WRITING.items() <= (meta.get("settings") or {}).items()
    if meta.get("definer") != name or not asked_so or list(texts) != list(ids):
        return None
    return texts, meta


def _guarded(definitions: Definitions, items: Sequence[WsdItem], where: str = "") -> Definitions:
    """Definitions, those emptied that equal a gloss of their item: of its golds, of any candidate
    where the gold is not known. A warning counts them.
    """
    glosses = {}
    for item in items:
        pairs = zip(item.candidates, item.glosses)
        gold = tuple(gloss for candidate, gloss in pairs if candidate in item.golds)
        glosses[item.id] = gold if item.golds else item.glosses
    guarded = guard(definitions, glosses, drop=True)
    if guarded.refused:
        warnings.warn(
            f"{guarded.refused} of {len(guarded.ids)} definitions{where} were refused and emptied:"
            " each is word for word a gloss of its target",
            stacklevel=3,
        )
    return guarded


def guard(
    definitions: Definitions, golds: Mapping[str, Sequence[str]], drop: bool = False
) -> Definitions:
    """Refuse definitions that give the answer away; returns them, with `drop` those that do emptied
    and counted in `refused`.

    A generated text that equals a gold gloss (item id -> its glosses; but for case, punctuation,
    spaces and Unicode form) was learnt by heart or leaked: a system that compares it with the
    candidates would find the answer without disambiguating. It raises VwsdError with the first item
    and their number. A chosen text equal to the gold gloss is a right choice made without the gold,
    no leak, and dropping it would punish being right; there it is checked instead that each text is
    empty or a gloss of the item's own candidates, so came from nowhere else.
    """
    if definitions.kind == "chosen":
        return _no_strays(definitions)
    if definitions.kind != "generated":
        raise VwsdError(
            f"definitions of an unknown kind: {definitions.kind!r}",
            remedy="They are chosen or generated.",
        )
    ids = definitions.ids
    if golds and ids and golds.keys().isdisjoint(ids):
        raise VwsdError(
            "the gold glosses belong to other items",
            where=ids[0],
            remedy="Give the glosses of the items that were defined.",
        )
    texts, leaks = [], []
    for item_id, text in zip(ids, definitions.texts):
        leaking = words(text) and words(text) in map(words, golds.get(item_id, ()))
        leaks += [item_id] if leaking else []
        texts.append("" if leaking else text)
    if leaks and not drop:
        raise VwsdError(
            f"the definition of {leaks[0]!r} is its gold gloss: {len(leaks)} of {len(ids)} are",
            remedy=(
                "Empty them with drop=True and report their number, or take a definer that does not"
                " know these glosses."
            ),
        )
    return replace(definitions, texts=tuple(texts), refused=definitions.refused + len(leaks))


def _no_strays(chosen: Definitions) -> Definitions:
    """The definitions; VwsdError where one is no gloss of its item's candidates."""
    strays = [
        item_id
        for item_id, text, own in zip(chosen.ids, chosen.texts, chosen.options, strict=True)
        if text and text not in own
    ]
    if strays:
        raise VwsdError(
            f"a chosen definition is no gloss of its item's candidates: {strays[0]!r},"
            f" {len(strays)} of {len(chosen.ids)}",
            remedy="Choose again from the same items.",
        )
    return chosen


def write_definitions(
    folder: str | Path, definitions: Definitions, language: str, split: str
) -> Path:
    """Write `<folder>/definitions/<definer>.<language>.<split>.jsonl` (id, definition) and
    `.meta.json` (identity, refused, n); returns the path.
    """
    made = guard(definitions, {})
    stem = Path(folder) / "definitions" / f"{made.facts['definer']}.{language}.{split}"
    about = {"language": language, "split": split, "refused": made.refused}
    records = [{"id": item_id, "definition": text} for item_id, text in zip(made.ids, made.texts)]
    return write_records(stem, records, {**made.facts, **about})


def read_definitions(path: str | Path) -> tuple[list[dict], dict]:
    """Records (id, definition) and meta of a definitions file; VwsdError where lines are missing or
    not of this form.
    """
    return read_records(path, "definitions", ("id", "definition"))


def stored_definitions(path: str | Path, items: Sequence[Item]) -> tuple[Definitions, dict]:
    """What a definitions file says of these V-WSD items, in their order, having gone through
    `guard`; and its meta.

    The senses are looked up again in the inventory that the meta names. Where it names none,
    nothing can be compared, and a warning says so. VwsdError for an item without a line, and for
    chosen definitions that are no glosses of their targets.
    """
    records, meta = read_definitions(path)
    defined = {record["id"]: record["definition"] for record in records}
    lost = [item.id for item in items if item.id not in defined]
    if lost:
        raise VwsdError(
            f"{len(lost)} items have no line, {lost[0]!r} the first",
            where=path,
            remedy="Define the items of this very file.",
        )
    ids, texts = tuple(item.id for item in items), tuple(defined[item.id] for item in items)
    kind, inventory = meta.get("kind"), meta.get("inventory")
    if kind not in ("chosen", "generated") or inventory not in INVENTORIES:
        warnings.warn(
            f"{Path(path).name} names no inventory and kind: whether its definitions give answers"
            " away is not checked",
            stacklevel=2,
        )
        return Definitions(ids, texts, meta, str(kind)), meta
    language = meta.get("language") or items[0].language
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # where the targets stand is not asked here
        spoken = [replace(item, language=language) for item in items]
        asked = as_wsd_items(spoken, INVENTORIES[inventory]())
    options = tuple(item.glosses for item in asked)
    stored = Definitions(ids, texts, meta, kind, options)
    return _guarded(stored, asked, f" of {Path(path).name}"), meta
