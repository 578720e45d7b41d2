"""Definitions of a target in its context ("D-GPT" in PolCLIP's paper): chosen among an inventory's
glosses, or written by a language model.

What a model writes is kept like translations, under the hash of the question and of all that
decided the answer; what is chosen is chosen again each time. The paper gives neither its prompt's
wording nor its temperature, so both are our own. No definer ever sees a gold.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from vwsd_standins.emojiwsd.senses import senses

from ..data.items import Item
from ..data.wordnet import WordNet, lemma_form, load_wordnet
from ..data.wsd import WsdItem, joined
from ..errors import VwsdError
from ..finite import best
from ..paths import cache_dir
from . import endpoint, wsd_baselines
from .quality import words
from .replay import INSTALL, Pairs, local_facts, read_records, replay, settings_of, write_records

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
ENDINGS = (("s", ""), ("es", ""), ("ies", "y"), ("\u06cc", ""))  # plurals; Persian ye of the ezafe

# language -> where a word that lost its vowel ends and the next begins: l'ancora, dell\u2019aquila,
# un'altra
ELISIONS = {"it": re.compile("(?<=[^\\W\\d_]['\u2019\u02bc\u2032\u00b4`\uff07])(?=[^\\W\\d_])")}

Inventory = Callable[
    [str, str], tuple[tuple[str, ...], tuple[str, ...]]
]  # (lemma, language) -> (sense ids, glosses)


@dataclass(frozen=True)
class Entry:
    """One line of the registry: `prepare(entry)` -> identity, and a loader of items -> glosses
    ("chosen") or questions -> Pairs ("generated").
    """

    about: str
    kind: str
    prepare: Callable[[Entry], tuple[dict, Callable[[], Callable]]]
    model: str = ""  # key of encoders.checkpoints
    settings: Mapping = field(default_factory=dict)


@dataclass(frozen=True)
class Definitions:
    """texts[i] defines the target of the item ids[i], empty where there is none; `facts` is all
    that decided it, `kind` "chosen" or "generated".

    `options` are each item's candidate glosses, `replayed` counts texts that were found, `refused`
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
    return re.split(
        r"(?<=[.!?\u061f])\s+(?![a-z])|(?<=[\u3002\uff01\uff1f])",
        " ".join(text.split()),
        maxsplit=1,
    )[0].strip()


def _choosing(
    score: Callable[[Sequence[WsdItem]], wsd_baselines.Scores],
) -> Callable[[Entry], tuple[dict, Callable]]:
    def choose(items: Sequence[WsdItem]) -> list[str]:
        chosen = []
        for item, own in zip(items, score(items)):
            chosen.append(
                wsd_baselines.glosses_of(item)[best(own, where=item.id)] if item.candidates else ""
            )
        return chosen

    return lambda entry: (
        {"model": "", "revision": "", "weights_sha256": "", "settings": dict(entry.settings)},
        lambda: choose,
    )


def _local(entry: Entry) -> tuple[dict, Callable]:
    from ..encoders import checkpoints

    found = checkpoints.find(entry.model)
    told = settings_of(entry.settings, found.folder)
    facts = local_facts(
        entry.model,
        found,
        {**told, **WRITING},
        ("transformers", "tokenizers", "torch"),
        "a text a batch, no padding",
    )
    return facts, lambda: load_instruct(found.folder, told, facts["device"])


def load_instruct(
    folder: Path, settings: Mapping, device: str = "cpu"
) -> Callable[[list[str]], Pairs]:
    """An instruct checkpoint as questions -> Pairs, told exactly `settings`; VwsdError where it
    cannot be read or has no chat template.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = (
            AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype="float32")
            .to(device)
            .eval()
        )
    except (ImportError, OSError, ValueError) as e:
        raise VwsdError(
            f"the checkpoint cannot be loaded: {str(e).strip().splitlines()[0]}",
            where=folder,
            remedy=INSTALL,
        ) from e
    if not tokenizer.chat_template:
        raise VwsdError(
            "the tokenizer has no chat template",
            where=folder,
            remedy="Take an instruct model, and fetch all of its files.",
        )
    model.generation_config = GenerationConfig(
        **settings
    )  # replaced, not passed: generate() fills gaps from the checkpoint's own
    return lambda texts: ([(text, _write(tokenizer, model, text))] for text in texts)


def _write(tokenizer, model, text: str) -> str:
    import torch

    tokens = tokenizer.apply_chat_template(
        messages(text), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )  # [1, t]
    with torch.inference_mode():
        out = model.generate(**tokens.to(model.device))  # [1, t + at most max_new_tokens]
    return first_sentence(
        tokenizer.decode(
            out[0, tokens["input_ids"].shape[1] :],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
    )


def _chat(entry: Entry) -> tuple[dict, Callable]:
    its = endpoint.chat_facts()
    facts = {
        "model": its["model"],
        "revision": "",
        "weights_sha256": "",
        "settings": {**entry.settings, **WRITING, "endpoint": its["endpoint"]},
    }
    return (
        facts,
        lambda: (
            lambda texts: (
                [
                    (
                        text,
                        first_sentence(endpoint.ask(messages(text), entry.settings["temperature"])),
                    )
                ]
                for text in texts
            )
        ),
    )


DEFINERS: dict[str, Entry] = {
    "first-sense": Entry(
        "the first candidate's gloss, in WordNet the most frequent sense",
        "chosen",
        _choosing(wsd_baselines.first_sense_scores),
    ),
    "lesk": Entry(
        "the gloss that shares most words with the context (simplified Lesk)",
        "chosen",
        _choosing(wsd_baselines.lesk_scores),
        settings={"examples": False},
    ),
    "sentence-encoder": Entry(
        "the gloss nearest to the context under the lite encoder's text tower",
        "chosen",
        _choosing(wsd_baselines.encoder_scores),
        settings={"encoder": "lite"},
    ),
    # greedy, without the repetition penalty that the checkpoint ships
    "hf": Entry(
        "Qwen2.5 1.5B Instruct (Qwen Team 2024) on this machine, greedy",
        "generated",
        _local,
        "qwen2.5-1.5b-instruct",
        {"max_new_tokens": 64},
    ),
    "chat": Entry(
        "any OpenAI-compatible endpoint (VWSD_CHAT_URL, VWSD_CHAT_MODEL, VWSD_CHAT_KEY), a"
        " fine-tuned model too",
        "generated",
        _chat,
        settings={"temperature": 0},
    ),
}


def _prepare(name: str) -> tuple[Entry, dict, Callable]:
    if name not in DEFINERS:
        near = difflib.get_close_matches(name, DEFINERS, 1)
        raise VwsdError(
            f"no definer named {name!r}",
            remedy=(
                f"{f'Did you mean {near[0]!r}? ' if near else ''}Definers: {', '.join(DEFINERS)}."
            ),
        )
    facts, load = DEFINERS[name].prepare(DEFINERS[name])
    return DEFINERS[name], {"definer": name, "kind": DEFINERS[name].kind, **facts}, load


def identity(name: str) -> dict:
    """All that decides a definition (definer, kind, model, revision, weights_sha256, settings with
    the prompt, ...); loads no model.
    """
    return _prepare(name)[1]


def define(name: str, items: Sequence[WsdItem], store: str | Path | None = None) -> Definitions:
    """Define the target of each item, or replay what is stored; a model is asked only where a
    definition is missing.

    store: folder of the stored answers, by default `<cache>/definitions`; each line of `chat` and
    `hf` holds also model, prompt, temperature and date. What comes back went through `guard`: a
    written text that equals a gloss (`known_glosses`) is emptied and counted in `refused`, and a
    warning says so. Raises VwsdError for a missing checkpoint or variable, candidates without
    glosses, and what `endpoint.ask` raises.
    """
    entry, facts, load = _prepare(name)
    ids, options = tuple(item.id for item in items), tuple(item.glosses for item in items)
    if entry.kind == "chosen":
        return guard(Definitions(ids, tuple(load()(items)), facts, entry.kind, options), {})
    its = {
        "model": facts["model"],
        "system": SYSTEM,
        "prompt": PROMPT,
        "temperature": entry.settings.get("temperature", 0),
    }
    asked = [question(item) for item in items]
    known, replayed = replay(
        name,
        facts,
        asked,
        load,
        store or cache_dir() / "definitions",
        f"{name} definitions",
        lambda: {**its, "date": datetime.now(UTC).isoformat(timespec="seconds")},
    )
    found = guard(
        Definitions(
            ids, tuple(known[text] for text in asked), facts, entry.kind, options, replayed
        ),
        known_glosses(items),
        drop=True,
    )
    if found.refused:
        warnings.warn(
            f"{found.refused} of {len(ids)} definitions were refused and emptied: each is word for"
            " word a gloss of its target",
            stacklevel=2,
        )
    return found


def known_glosses(items: Sequence[WsdItem]) -> dict[str, tuple[str, ...]]:
    """Item id -> the glosses that no written definition may equal: those of its golds, of all
    candidates where the gold is not known.
    """
    glosses = {}
    for item in items:
        gold = tuple(
            gloss
            for candidate, gloss in zip(item.candidates, item.glosses)
            if candidate in item.golds
        )
        glosses[item.id] = gold if item.golds else item.glosses
    return glosses


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
    pairs = list(zip(definitions.ids, definitions.texts))
    if definitions.kind == "chosen":
        strays = [
            item_id
            for (item_id, text), own in zip(pairs, definitions.options, strict=True)
            if text and text not in own
        ]
        if strays:
            raise VwsdError(
                f"a chosen definition is no gloss of its item's candidates: {strays[0]!r},"
                f" {len(strays)} of {len(pairs)}",
                remedy="Choose again from the same items.",
            )
        return definitions
    if definitions.kind != "generated":
        raise VwsdError(
            f"definitions of an unknown kind: {definitions.kind!r}",
            remedy="They are chosen or generated.",
        )
    if golds and pairs and not golds.keys() & set(definitions.ids):
        raise VwsdError(
            "the gold glosses belong to other items",
            where=pairs[0][0],
            remedy="Give the glosses of the items that were defined.",
        )
    leaks = {
        i
        for i, (item_id, text) in enumerate(pairs)
        if words(text) and words(text) in [words(gloss) for gloss in golds.get(item_id, ())]
    }
    if leaks and not drop:
        raise VwsdError(
            f"the definition of {pairs[min(leaks)][0]!r} is its gold gloss: {len(leaks)} of"
            f" {len(pairs)} are",
            remedy=(
                "Empty them with drop=True and report their number, or take a definer that does not"
                " know these glosses."
            ),
        )
    texts = tuple("" if i in leaks else text for i, text in enumerate(definitions.texts))
    return replace(definitions, texts=texts, refused=definitions.refused + len(leaks))


def write_definitions(
    folder: str | Path, definitions: Definitions, language: str, split: str
) -> Path:
    """Write `<folder>/definitions/<definer>.<language>.<split>.jsonl` (id, definition) and
    `.meta.json` (identity, refused, n); returns the path.
    """
    definitions = guard(definitions, {})
    stem = Path(folder) / "definitions" / f"{definitions.facts['definer']}.{language}.{split}"
    records = [
        {"id": item_id, "definition": text}
        for item_id, text in zip(definitions.ids, definitions.texts)
    ]
    return write_records(
        stem,
        records,
        {**definitions.facts, "language": language, "split": split, "refused": definitions.refused},
    )


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
    if lost := [item.id for item in items if item.id not in defined]:
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
        asked = as_wsd_items(
            [replace(item, language=language) for item in items], INVENTORIES[inventory]()
        )
    found = guard(
        Definitions(ids, texts, meta, kind, tuple(item.glosses for item in asked)),
        known_glosses(asked),
        drop=True,
    )
    if found.refused:
        warnings.warn(
            f"{found.refused} of {len(ids)} definitions of {Path(path).name} were refused and"
            " emptied: each is word for word a gloss of its target",
            stacklevel=2,
        )
    return found, meta


def as_wsd_items(items: Sequence[Item], inventory: Inventory) -> list[WsdItem]:
    """V-WSD questions as WSD items: the phrase as tokens, the target's span in it (all of it where
    it is not found), the target's senses.

    Words that an apostrophe joins in Italian are tokens of their own (`l'ancora`), glued so that
    the phrase stays as it is. There are no golds: the gold of a V-WSD question is a picture. A
    warning counts the targets that do not stand in their phrases.
    """
    asked, lost = [], []
    for item in items:
        tokens, glued = _tokens(item.phrase, item.language)
        span = _locate(_tokens(item.target, item.language)[0], tokens)
        if span is None:
            lost.append(item)
        whole = (0, len(tokens) - 1)
        asked.append(
            WsdItem(
                item.id,
                item.language,
                item.target,
                "",
                tokens,
                span or whole,
                *inventory(item.target, item.language),
                (),
                glued=glued,
            )
        )
    if lost:
        warnings.warn(
            f"{len(lost)} of {len(asked)} targets do not stand in their phrases, {lost[0].target!r}"
            f" of {lost[0].id!r} the first; there the whole phrase is marked as the target",
            stacklevel=2,
        )
    return asked


def _tokens(text: str, language: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Words of a text, and the places of those that follow the one before without a space."""
    elided = ELISIONS.get(language)
    tokens: list[str] = []
    glued: list[int] = []
    for word in text.split():
        parts = elided.split(word) if elided else [word]
        glued += range(len(tokens) + 1, len(tokens) + len(parts))
        tokens += parts
    return tuple(tokens), tuple(glued)


def _locate(target: Sequence[str], tokens: Sequence[str]) -> tuple[int, int] | None:
    """Where the target's words stand: as they are, else inflected; None where they do not."""
    wanted, there = (["".join(words(word)) for word in some] for some in (target, tokens))
    if not any(wanted):
        return None
    n = len(wanted)
    for alike in (lambda a, b: a == b, lambda a, b: bool(_forms(a) & _forms(b))):
        for start in range(len(there) - n + 1):
            if all(map(alike, wanted, there[start : start + n])):
                return start, start + n - 1
    return None


def _forms(word: str) -> set[str]:
    return {
        word,
        *(
            word.removesuffix(end) + instead
            for end, instead in ENDINGS
            if word.endswith(end) and len(word) > len(end) + 1
        ),
    }


def wordnet_inventory(wordnet: WordNet) -> Inventory:
    """Senses of an English lemma under all parts of speech in WordNet's order: nouns, verbs,
    adjectives, adverbs; other languages have none.
    """
    return _english(
        lambda lemma: [
            (sense.key, sense.gloss) for pos in "nvar" for sense in wordnet.candidates(lemma, pos)
        ]
    )


def emojiwsd_inventory() -> Inventory:
    """EmojiWSD's own senses of an English lemma in file order; other languages have none."""
    return _english(
        lambda lemma: [
            (sense.id, sense.gloss)
            for sense in senses()
            if lemma_form(sense.lemma) == lemma_form(lemma)
        ]
    )


def _english(look_up: Callable[[str], list[tuple[str, str]]]) -> Inventory:
    return lambda lemma, language: (
        tuple(zip(*(look_up(lemma) if language == "en" else ())))
        or (
            (),
            (),
        )
    )


INVENTORIES: dict[str, Callable[[], Inventory]] = {
    "emojiwsd": emojiwsd_inventory,
    "wordnet": lambda: wordnet_inventory(load_wordnet()),
}
