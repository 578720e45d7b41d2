"""Translators by name, and translations that are made once: every one is kept under the hash of its
text and of all that decided it.

A translator's identity (model, revision, weights, generation settings, languages, package versions)
names its file in the cache; a second run finds all texts there and loads no model. Below a results
folder a run's translations are a durable fact, like predictions:
`translations/<translator>.<language>.<split>.jsonl` holds a line an item, `.meta.json` the
identity.
"""

from __future__ import annotations

import csv
import difflib
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from vwsd_standins.emojiwsd.senses import SENSES_FILE, Sense, senses

from ..data.items import Item, read_lines
from ..errors import VwsdError
from ..paths import cache_dir, sha256_file
from . import endpoint, quality
from .replay import (
    INSTALL,
    SHIPPED,
    Pairs,
    local_facts,
    read_records,
    replay,
    settings_of,
    write_records,
)

BATCH = 16  # rows of every batch, filled up: shapes must not tell how many texts were asked for
LENGTHS = (16, 32, 64, 128)  # padded token counts
CODES = {"it": "ita_Latn", "fa": "pes_Arab", "en": "eng_Latn"}
PROMPT = (
    "Translate this {source} phrase into {target}. It is not a sentence. Answer with the"
    " translation alone, without quotes or remarks.\n\n{text}"
)
LANGUAGES = {"it": "Italian", "fa": "Persian (Farsi)", "en": "English"}


@dataclass(frozen=True)
class Entry:
    """One line of the registry: `prepare(entry, source, target)` -> what decides a translation, and
    a loader of texts -> Pairs.
    """

    about: str
    languages: tuple[str, ...]
    prepare: Callable[[Entry, str, str], tuple[dict, Callable[[], Callable[[list[str]], Pairs]]]]
    model: str = ""  # key of encoders.checkpoints
    settings: Mapping = field(default_factory=dict)
    codes: Mapping[str, str] = field(
        default_factory=dict
    )  # language -> the tokenizer's code, where it needs one


@dataclass(frozen=True)
class Translations:
    """texts_out[i] translates texts_in[i]; `identity` is all that decided it; `replayed` texts were
    found, the others made.
    """

    texts_in: tuple[str, ...]
    texts_out: tuple[str, ...]
    identity: dict
    replayed: int


def _seq2seq(entry: Entry, source: str, target: str) -> tuple[dict, Callable]:
    from ..encoders import checkpoints

    found = checkpoints.find(entry.model)
    settings = {
        **settings_of(entry.settings, found.folder),
        **({"codes": [entry.codes[source], entry.codes[target]]} if entry.codes else {}),
    }
    facts = local_facts(
        entry.model,
        found,
        settings,
        ("transformers", "tokenizers", "sentencepiece", "torch"),
        f"batch {BATCH}, tokens padded to {LENGTHS}",
    )
    return facts, lambda: load_seq2seq(found.folder, settings, facts["device"])


def load_seq2seq(
    folder: Path, settings: Mapping, device: str = "cpu"
) -> Callable[[list[str]], Pairs]:
    """A checkpoint as texts -> Pairs, told exactly `settings`; VwsdError where tokenizer or weights
    cannot be read.
    """
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    asked = dict(settings)
    source, target = asked.pop("codes", (None, None))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Recommended: pip install sacremoses"
            )  # Marian's tokenizer does not call it
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, **({"src_lang": source} if source else {})
            )
        model = (
            AutoModelForSeq2SeqLM.from_pretrained(folder, local_files_only=True, dtype="float32")
            .to(device)
            .eval()
        )
    except (
        ImportError,
        OSError,
        ValueError,
    ) as e:  # without protobuf the tokenizer of mT5 asks, wrongly, for tiktoken
        raise VwsdError(
            f"the checkpoint cannot be loaded: {str(e).strip().splitlines()[0]}",
            where=folder,
            remedy=INSTALL,
        ) from e
    if target:
        asked["forced_bos_token_id"] = tokenizer.convert_tokens_to_ids(target)
        if {tokenizer.convert_tokens_to_ids(source), asked["forced_bos_token_id"]} & {
            None,
            tokenizer.unk_token_id,
        }:
            raise VwsdError(
                f"the tokenizer does not know {source} or {target}",
                where=folder,
                remedy="Fetch the checkpoint again.",
            )
    model.generation_config = GenerationConfig(
        **asked
    )  # replaced, not passed: generate() fills gaps from the checkpoint's own
    return lambda texts: _generate(tokenizer, model, texts)


def _generate(tokenizer, model, texts: list[str]) -> Pairs:
    """Batches of constant shape, so that a translation does not depend on its neighbours."""
    import torch

    counts = [len(ids) for ids in tokenizer(texts)["input_ids"]]
    if too_long := [(text, count) for text, count in zip(texts, counts) if count > LENGTHS[-1]]:
        text, count = too_long[0]
        raise VwsdError(
            f"{len(too_long)} of {len(texts)} texts are too long to be translated: the first has"
            f" {count} tokens, at most {LENGTHS[-1]} are read",
            where=f"{text[:60]}...",
            remedy="Give phrases, not documents.",
        )
    padded = [next(length for length in LENGTHS if length >= count) for count in counts]
    for length in sorted(set(padded)):
        some = [text for text, its in zip(texts, padded) if its == length]
        for batch in (some[start : start + BATCH] for start in range(0, len(some), BATCH)):
            rows = batch + batch[-1:] * (BATCH - len(batch))
            tokens = tokenizer(
                rows, padding="max_length", max_length=length, return_tensors="pt"
            ).to(model.device)  # [16, length]
            with torch.inference_mode():
                out = model.generate(
                    input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
                )  # [16, at most max_new_tokens + 1]
            decoded = tokenizer.batch_decode(
                out, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            yield list(zip(batch, decoded))


def _chat(entry: Entry, source: str, target: str) -> tuple[dict, Callable]:
    its = endpoint.chat_facts()
    facts = {
        "model": its["model"],
        "revision": "",
        "weights_sha256": "",
        "settings": {**entry.settings, "endpoint": its["endpoint"]},
    }
    fill = partial(PROMPT.format, source=LANGUAGES[source], target=LANGUAGES[target])
    ask = lambda text: endpoint.ask(
        [{"role": "user", "content": fill(text=text)}], entry.settings["temperature"]
    )  # noqa: E731
    return facts, lambda: lambda texts: ([(text, ask(text))] for text in texts)


def _reference(entry: Entry, source: str, target: str) -> tuple[dict, Callable]:
    facts = {
        "model": "EmojiWSD",
        "revision": SENSES_FILE.name,
        "weights_sha256": sha256_file(SENSES_FILE),
        "settings": dict(entry.settings),
    }
    return (
        facts,
        lambda: (
            lambda texts: ([(text, reference_sense(text, source).phrases[0])] for text in texts)
        ),
    )


def reference_sense(phrase: str, language: str) -> Sense:
    """EmojiWSD's sense of a phrase: each Italian and Farsi phrase has one; VwsdError for any
    other."""
    for sense in senses():
        if getattr(sense, language)[1] == phrase:
            return sense
    raise VwsdError(
        f"no reference translation of {phrase!r}",
        remedy="The reference knows EmojiWSD's phrases alone; choose another translator.",
    )


TRANSLATORS: dict[str, Entry] = {
    # The study took what the checkpoint ships, a beam; its limit of 512 tokens is cut to 64, which
    # phrases of five words never reach.
    "opus-mt": Entry(
        "OPUS-MT Italian to English (Tiedemann and Thottingal 2020), as in the study",
        ("it",),
        _seq2seq,
        "opus-mt-it-en",
        {
            "num_beams": SHIPPED,
            "early_stopping": SHIPPED,
            "length_penalty": SHIPPED,
            "renormalize_logits": SHIPPED,
            "bad_words_ids": SHIPPED,
            "forced_eos_token_id": SHIPPED,
            "max_new_tokens": 64,
        },
    ),
    # The checkpoint shipped no generation config, so the study had the library's default: greedy,
    # 20 tokens with the start token, so 19 new.
    # Tokens through the fast tokenizer without byte fallback, as in the study: rare characters
    # become <unk>.
    "mt5-parsinlu": Entry(
        "mT5 base of ParsiNLU, Farsi to English (Khashabi et al. 2021), as in the study",
        ("fa",),
        _seq2seq,
        "mt5-fa-en",
        {"max_new_tokens": 19},
    ),
    "nllb-600m": Entry(
        "NLLB-200 distilled 600M (NLLB Team 2022), beam 4",
        ("it", "fa"),
        _seq2seq,
        "nllb-200-600m",
        {"num_beams": 4, "max_new_tokens": 64},
        CODES,
    ),
    "nllb-1.3b": Entry(
        "NLLB-200 1.3B (NLLB Team 2022), beam 4",
        ("it", "fa"),
        _seq2seq,
        "nllb-200-1.3b",
        {"num_beams": 4, "max_new_tokens": 64},
        CODES,
    ),
    "chat": Entry(
        "any OpenAI-compatible endpoint (VWSD_CHAT_URL, VWSD_CHAT_MODEL, VWSD_CHAT_KEY)",
        ("it", "fa"),
        _chat,
        settings={"temperature": 0, "prompt": PROMPT},
    ),
    "reference": Entry(
        "upper bound: EmojiWSD's own first English phrase of the sense",
        ("it", "fa"),
        _reference,
        settings={"phrase": "first English phrase of the sense", "upper_bound": True},
    ),
}


def _prepare(name: str, source: str, target: str) -> tuple[dict, Callable]:
    if name not in TRANSLATORS:
        near = difflib.get_close_matches(name, TRANSLATORS, 1)
        raise VwsdError(
            f"no translator named {name!r}",
            remedy=(
                f"{f'Did you mean {near[0]!r}? ' if near else ''}Translators:"
                f" {', '.join(TRANSLATORS)}."
            ),
        )
    entry = TRANSLATORS[name]
    if source not in entry.languages or target != "en":
        able = [other for other, its in TRANSLATORS.items() if source in its.languages]
        raise VwsdError(
            f"{name} does not translate {source} to {target}",
            remedy=f"Into English, {source} is translated by: {', '.join(able) or 'none'}.",
        )
    facts, load = entry.prepare(entry, source, target)
    return {"translator": name, **facts, "source": source, "target": target}, load


def identity(name: str, source: str, target: str = "en") -> dict:
    """All that decides a translation (translator, model, revision, weights_sha256, settings,
    source, target, ...); loads no model.
    """
    return _prepare(name, source, target)[0]


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
    facts, load = _prepare(name, source, target)
    known, replayed = replay(
        name, facts, texts, load, store or cache_dir() / "translations", f"{name} {source}"
    )
    return Translations(tuple(texts), tuple(known[text] for text in texts), facts, replayed)


def translate_items(
    name: str, items: Sequence[Item], language: str, store: str | Path | None = None
) -> list[dict]:
    """A record an item: id, language, target, phrase, phrase_en, target_en (the target translated
    alone), flags (quality.RULES).
    """
    phrases = translate(name, [item.phrase for item in items], language, store=store).texts_out
    if name == "reference":  # a target alone has several senses; the reference knows which is meant
        targets = tuple(reference_sense(item.phrase, language).lemma for item in items)
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
    return read_records(
        path, "translations", ("id", "language", "target", "phrase", "phrase_en", "target_en")
    )


def load_stored(path: str | Path, language: str) -> list[dict]:
    """Records of a user's own table: tab-separated with the columns index, target, context,
    target_en, context_en; VwsdError where one is missing.
    """
    rows = csv.DictReader(read_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE, restkey="more")
    columns = ("index", "target", "context", "context_en", "target_en")
    if absent := [c for c in columns if c not in (rows.fieldnames or ())]:
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
    _unique([record["id"] for record in records], path)
    return records


def _unique(ids: Sequence[str], where: object) -> None:
    twice = [item_id for item_id, count in Counter(ids).items() if count > 1]
    if twice:
        raise VwsdError(
            f"{len(twice)} ids stand twice, {twice[0]!r} the first",
            where=where,
            remedy="Give each item one line.",
        )
