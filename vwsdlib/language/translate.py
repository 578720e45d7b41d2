"""Translators by name, and translations that are made once (`replay`).

A translator's identity (model, revision, weights, generation settings, languages, package versions)
names its file in the cache; a second run finds all texts there and loads no model. Below a results
folder a run's translations are `translations/<translator>.<language>.<split>.jsonl`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .. import device
from ..data.items import Item, read_lines
from ..encoders import checkpoints
from ..errors import VwsdError, entry_of
from ..paths import cache_dir
from ..registry import Registry, resolve
from . import endpoint, quality
from .local import load_generator, local_facts, settings_of, tell
from .replay import (
    Answerer,
    Answering,
    Pairs,
    read_records,
    refuse_twice,
    replay,
    write_records,
)

BATCH = 16  # rows of every batch, filled up: shapes must not tell how many texts were asked for
LENGTHS = (16, 32, 64, 128)  # padded token counts
LANGUAGES = {"it": "Italian", "fa": "Persian (Farsi)", "en": "English"}  # as `chat` is told
TRANSLATORS = Registry(Answerer, "vwsdlib.translators", Path(__file__).with_name("translators.yml"))


@dataclass(frozen=True)
class Translations:
    """texts_out[i] translates texts_in[i]; `identity` is all that decided it; `replayed` texts were
    there, the others made.
    """

    texts_in: tuple[str, ...]
    texts_out: tuple[str, ...]
    identity: dict
    replayed: int


def local_translator(
    entry: Answerer, source: str, target: str
) -> tuple[dict, Callable[[], Answering]]:
    """Identity and loader of a sequence-to-sequence checkpoint on this machine."""
    checkpoint = checkpoints.find(entry.model)
    settings = settings_of(entry.settings, checkpoint.folder)
    if entry.codes:
        settings["codes"] = [entry.codes[source], entry.codes[target]]
    packages = ("transformers", "tokenizers", "sentencepiece", "torch")
    shapes = f"batch {BATCH}, tokens padded to {LENGTHS}"
    facts = local_facts(entry.model, checkpoint, settings, packages, shapes)
    return facts, lambda: load_seq2seq(checkpoint.folder, settings, device.choose())


def load_seq2seq(folder: Path, settings: Mapping, place: str = "cpu") -> Answering:
    """A checkpoint as texts -> Pairs, told exactly `settings`; VwsdError where tokenizer or weights
    cannot be read.
    """
    asked = dict(settings)
    source, target = asked.pop("codes", (None, None))
    told = {"src_lang": source} if source else {}
    tokenizer, model = load_generator(folder, "AutoModelForSeq2SeqLM", place, **told)
    if target:
        first, last = map(tokenizer.convert_tokens_to_ids, (source, target))
        if {first, last} & {None, tokenizer.unk_token_id}:
            raise VwsdError(
                f"the tokenizer does not know {source} or {target}",
                where=folder,
                remedy="Fetch the checkpoint again.",
            )
        asked["forced_bos_token_id"] = last
    tell(model, asked)
    return partial(_generate, tokenizer, model, device.Room(BATCH, "texts", place))


def _generate(tokenizer, model, room: device.Room, texts: list[str]) -> Pairs:
    """Batches of constant shape, so that a translation does not depend on its neighbours."""
    counts = [len(ids) for ids in tokenizer(texts)["input_ids"]]
    too_long = [i for i, count in enumerate(counts) if count > LENGTHS[-1]]
    if too_long:
        raise VwsdError(
            f"{len(too_long)} of {len(texts)} texts are too long to be translated: the first has"
            f" {counts[too_long[0]]} tokens, at most {LENGTHS[-1]} are read",
            where=f"{texts[too_long[0]][:60]}...",
            remedy="Give phrases, not documents.",
        )
    padded = [next(length for length in LENGTHS if length >= count) for count in counts]
    for length in sorted(set(padded)):
        some = [text for text, own in zip(texts, padded) if own == length]
        for start in range(0, len(some), BATCH):
            batch = some[start : start + BATCH]
            translated = room.use(partial(_translated, tokenizer, model, batch, length))
            yield list(zip(batch, translated))


def _translated(tokenizer, model, batch: list[str], length: int, size: int) -> list[str]:
    """Translations of some texts, `size` at once."""
    translations = []
    for start in range(0, len(batch), size):
        translations += _rows(tokenizer, model, batch[start : start + size], length, size)
    return translations


def _rows(tokenizer, model, batch: list[str], length: int, size: int) -> list[str]:
    """Translations of at most `size` texts, and of the last one for each that is missing."""
    import torch

    rows = batch + batch[-1:] * (size - len(batch))
    tokens = tokenizer(rows, padding="max_length", max_length=length, return_tensors="pt")
    tokens = tokens.to(model.device)  # [size, length]
    with torch.inference_mode():
        out = model.generate(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        )  # [size, at most max_new_tokens + 1]
    written = out[: len(batch)]
    return tokenizer.batch_decode(
        written, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


def chat_translator(
    entry: Answerer, source: str, target: str
) -> tuple[dict, Callable[[], Answering]]:
    """Identity and loader of the chat endpoint, asked with the entry's prompt."""
    names = {"source": LANGUAGES[source], "target": LANGUAGES[target]}

    def asked(text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": entry.settings["prompt"].format(text=text, **names)}]

    return endpoint.chat(entry.settings, asked)


def _prepared(name: str, source: str, target: str) -> tuple[dict, Callable[[], Answering]]:
    entry = entry_of("translator", name, TRANSLATORS)
    able = [other for other, it in TRANSLATORS.items() if source in it.languages]
    if name not in able or target != "en":
        raise VwsdError(
            f"{name} does not translate {source} to {target}",
            remedy=f"Into English, {source} is translated by: {', '.join(able) or 'none'}.",
        )
    facts, load = entry(entry, source, target)
    return {"translator": name, **facts, "source": source, "target": target}, load


def identity(name: str, source: str, target: str = "en") -> dict:
    """All that decides a translation (translator, model, revision, weights_sha256, settings,
    source, target, ...); loads no model.
    """
    return _prepared(name, source, target)[0]


def translate(
    name: str,
    texts: Sequence[str],
    source: str,
    target: str = "en",
    store: str | Path | None = None,
) -> Translations:
    """Translate texts, or replay what is stored; a model is loaded only where a text is missing.

    store: folder of the stored translations, by default `<cache>/translations`. Raises VwsdError
    naming the translators of a language, a missing checkpoint, or the variable to set for `chat`.
    """
    facts, load = _prepared(name, source, target)
    folder = store or cache_dir() / "translations"
    known, replayed = replay(name, facts, texts, load, folder, f"{name} {source}")
    return Translations(tuple(texts), tuple(known[text] for text in texts), facts, replayed)


def translate_items(
    name: str, items: Sequence[Item], language: str, store: str | Path | None = None
) -> list[dict]:
    """A record an item: id, language, target, phrase, phrase_en, target_en (the target translated
    alone), flags (quality.RULES).
    """
    phrases = translate(name, [item.phrase for item in items], language, store=store).texts_out
    if TRANSLATORS[name].targets:  # a target alone has several senses, and this one knows which
        target_of = resolve(TRANSLATORS[name].targets)
        targets = tuple(target_of(item.phrase, language) for item in items)
    else:
        targets = translate(name, [item.target for item in items], language, store=store).texts_out
    return [
        _record(item.id, language, item.target, item.phrase, *english)
        for item, *english in zip(items, phrases, targets)
    ]


def _record(
    item_id: str, language: str, target: str, phrase: str, phrase_en: str, target_en: str
) -> dict:
    record = {
        "id": item_id,
        "language": language,
        "target": target,
        "phrase": phrase,
        "phrase_en": phrase_en,
        "target_en": target_en,
    }
    return {**record, "flags": quality.flags(record)}


def write_translations(
    folder: str | Path, records: Sequence[Mapping], facts: Mapping, split: str
) -> Path:
    """Write `<folder>/translations/<translator>.<language>.<split>.jsonl` and its `.meta.json`
    (identity `facts`, split, n); returns the path.
    """
    stem = Path(folder) / "translations" / f"{facts['translator']}.{facts['source']}.{split}"
    return write_records(stem, records, {**facts, "split": split})


def read_translations(path: str | Path) -> tuple[list[dict], dict]:
    """Records and meta of a translations file; VwsdError where lines are missing or not of this
    form.
    """
    texts = ("id", "language", "target", "phrase", "phrase_en", "target_en")
    return read_records(path, "translations", texts)


def load_stored(path: str | Path, language: str) -> list[dict]:
    """Records of a user's own table: tab-separated with the columns index, target, context,
    target_en, context_en; VwsdError where one is missing.
    """
    rows = csv.DictReader(read_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE, restkey="more")
    columns = ("index", "target", "context", "context_en", "target_en")
    absent = [c for c in columns if c not in (rows.fieldnames or ())]
    if absent:
        raise VwsdError(
            f"no column {', '.join(absent)}",
            where=path,
            remedy=f"The first line names the columns: {', '.join(columns)}.",
        )
    records = []
    for number, row in enumerate(rows, start=2):
        if row.get("more") or None in row.values():
            raise VwsdError(
                "not as many fields as the first line has names",
                where=f"{path}:{number}",
                remedy="Separate them by tabs, all in one line.",
            )
        records.append(_record(row["index"], language, *(row[column] for column in columns[1:])))
    refuse_twice([record["id"] for record in records], path, "Give each item one line.")
    return records
