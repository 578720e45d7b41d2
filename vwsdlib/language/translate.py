"""Translators by name, and translations that are made once: every one is kept under the hash of its text and of all that decided it.

A translator's identity (model, revision, weights, generation settings, languages, package versions) names its file in the cache; a second
run finds all texts there and loads no model. Below a results folder a run's translations are a durable fact, like predictions:
`translations/<translator>.<language>.<split>.jsonl` holds a line an item, `.meta.json` the identity.
"""

from __future__ import annotations

import csv
import difflib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from ..data.emojiwsd.senses import SENSES_FILE, Sense, senses
from ..data.items import Item, read_lines
from ..errors import VwsdError
from ..paths import cache_dir, quiet, sha256_bytes, sha256_file, write_text
from . import quality

SHIPPED = "as shipped"    # a setting that is read from the checkpoint's own files; its value stands in the identity
# All that generate() can be told and that could move a translation, with the library's default; the token ids are the checkpoint's.
DEFAULTS = {"num_beams": 1, "do_sample": False, "early_stopping": False, "length_penalty": 1.0, "no_repeat_ngram_size": 0, "repetition_penalty": 1.0,
            "renormalize_logits": False, "bad_words_ids": None, "forced_eos_token_id": None}
GREEDY = DEFAULTS | dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"), SHIPPED)
BATCH = 16                      # rows of every batch, filled up: shapes must not tell how many texts were asked for
LENGTHS = (16, 32, 64, 128)     # padded token counts
CODES = {"it": "ita_Latn", "fa": "pes_Arab", "en": "eng_Latn"}
PROMPT = "Translate this {source} phrase into {target}. It is not a sentence. Answer with the translation alone, without quotes or remarks.\n\n{text}"
LANGUAGES = {"it": "Italian", "fa": "Persian (Farsi)", "en": "English"}
TIMEOUT, PAUSES = 60.0, (0.0, 2.0, 8.0)   # seconds: of a request, before each attempt
REFUSALS = {401: "Set VWSD_CHAT_KEY to a valid key.", 403: "Set VWSD_CHAT_KEY to a key that may use this model.", 400: "Check VWSD_CHAT_MODEL.",
            404: "Check VWSD_CHAT_URL and VWSD_CHAT_MODEL."}
INSTALL = "Install what it needs: pip install 'vwsdlib[paper]' sentencepiece protobuf. If that is there, fetch the checkpoint again."
AGAIN = "Run the notebook that makes them again with --force."

Pairs = Iterator[list[tuple[str, str]]]   # (text, translation), a batch at a time in any order


@dataclass(frozen=True)
class Entry:
    """One line of the registry: `prepare(entry, source, target)` -> what decides a translation, and a loader of texts -> Pairs."""

    about: str
    languages: tuple[str, ...]
    prepare: Callable[[Entry, str, str], tuple[dict, Callable[[], Callable[[list[str]], Pairs]]]]
    model: str = ""                                        # key of encoders.checkpoints
    settings: Mapping = field(default_factory=dict)
    codes: Mapping[str, str] = field(default_factory=dict)  # language -> the tokenizer's code, where it needs one


@dataclass(frozen=True)
class Translations:
    """texts_out[i] translates texts_in[i]; `identity` is all that decided it; `replayed` texts were found, the others made."""

    texts_in: tuple[str, ...]
    texts_out: tuple[str, ...]
    identity: dict
    replayed: int


def _seq2seq(entry: Entry, source: str, target: str) -> tuple[dict, Callable]:
    from ..encoders import checkpoints

    found = checkpoints.find(entry.model)
    settings = {**_settings(entry, found.folder), **({"codes": [entry.codes[source], entry.codes[target]]} if entry.codes else {})}
    try:
        import torch

        versions = {name: version(name) for name in ("transformers", "tokenizers", "sentencepiece", "torch")}
    except ImportError as e:
        raise VwsdError(f"translating needs the package {e.name}", remedy=INSTALL) from e
    files = [p for p in sorted(found.folder.iterdir()) if p.suffix in (".json", ".model", ".spm", ".txt")]   # tokenizer and configuration
    facts = {"model": checkpoints.checkpoint(entry.model).repo, "revision": found.revision, "weights_sha256": found.weights_sha256,
             "files_sha256": sha256_bytes("".join(p.name + sha256_file(p) for p in files).encode()), "settings": settings, "versions": versions,
             "dtype": "float32", "device": "cuda" if torch.cuda.is_available() else "cpu", "shapes": f"batch {BATCH}, tokens padded to {LENGTHS}"}
    return facts, lambda: load_seq2seq(found.folder, settings, facts["device"])


def _settings(entry: Entry, folder: Path) -> dict:
    """Every generation setting with its value; `SHIPPED` ones from generation_config.json, else config.json, else the library's default."""
    files = [folder / name for name in ("config.json", "generation_config.json") if (folder / name).exists()]
    shipped = {name: value for path in files for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
    asked = {**GREEDY, **entry.settings}
    return {name: shipped.get(name, DEFAULTS.get(name)) if value == SHIPPED else value for name, value in asked.items()}


def load_seq2seq(folder: Path, settings: Mapping, device: str = "cpu") -> Callable[[list[str]], Pairs]:
    """A checkpoint as texts -> Pairs, told exactly `settings`; VwsdError where tokenizer or weights cannot be read."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    asked = dict(settings)
    source, target = asked.pop("codes", (None, None))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Recommended: pip install sacremoses")   # Marian's tokenizer does not call it
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, **({"src_lang": source} if source else {}))
        model = AutoModelForSeq2SeqLM.from_pretrained(folder, local_files_only=True, dtype="float32").to(device).eval()
    except (ImportError, OSError, ValueError) as e:   # without protobuf the tokenizer of mT5 asks, wrongly, for tiktoken
        raise VwsdError(f"the checkpoint cannot be loaded: {str(e).strip().splitlines()[0]}", where=folder, remedy=INSTALL) from e
    if target:
        asked["forced_bos_token_id"] = tokenizer.convert_tokens_to_ids(target)
        if {tokenizer.convert_tokens_to_ids(source), asked["forced_bos_token_id"]} & {None, tokenizer.unk_token_id}:
            raise VwsdError(f"the tokenizer does not know {source} or {target}", where=folder, remedy="Fetch the checkpoint again.")
    model.generation_config = GenerationConfig(**asked)   # replaced, not passed: generate() fills gaps from the checkpoint's own
    return lambda texts: _generate(tokenizer, model, texts)


def _generate(tokenizer, model, texts: list[str]) -> Pairs:
    """Batches of constant shape, so that a translation does not depend on its neighbours."""
    import torch

    counts = [len(ids) for ids in tokenizer(texts)["input_ids"]]
    if max(counts) > LENGTHS[-1]:
        raise VwsdError(f"a text of {max(counts)} tokens, at most {LENGTHS[-1]} can be translated", remedy="Give phrases, not documents.")
    padded = [next(length for length in LENGTHS if length >= count) for count in counts]
    for length in sorted(set(padded)):
        some = [text for text, its in zip(texts, padded) if its == length]
        for batch in (some[start:start + BATCH] for start in range(0, len(some), BATCH)):
            rows = batch + batch[-1:] * (BATCH - len(batch))
            tokens = tokenizer(rows, padding="max_length", max_length=length, return_tensors="pt").to(model.device)   # [16, length]
            with torch.inference_mode():
                out = model.generate(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])   # [16, at most max_new_tokens + 1]
            decoded = tokenizer.batch_decode(out, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            yield list(zip(batch, decoded))


def _chat(entry: Entry, source: str, target: str) -> tuple[dict, Callable]:
    url, model = (os.environ.get(name, "").strip() for name in ("VWSD_CHAT_URL", "VWSD_CHAT_MODEL"))
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.username or parts.query:
        raise VwsdError("VWSD_CHAT_URL is no plain http(s) address", remedy="Set VWSD_CHAT_URL to an endpoint such as http://localhost:8000/v1.")
    if not model:
        raise VwsdError("the chat model is not named", remedy="Set VWSD_CHAT_MODEL to the name the endpoint gives it.")
    facts = {"model": model, "revision": "", "weights_sha256": "", "settings": {**entry.settings, "endpoint": parts.netloc + parts.path.rstrip("/")}}
    words = {"source": LANGUAGES[source], "target": LANGUAGES[target]}
    ask = partial(_ask, url, model, entry.settings["temperature"])
    return facts, lambda: lambda texts: ([(text, ask(PROMPT.format(**words, text=text)))] for text in texts)


def _ask(url: str, model: str, temperature: float, prompt: str) -> str:
    """One answer of an OpenAI-compatible endpoint, asked again where it is busy; no error repeats the server's words, the key may be in them."""
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": temperature}
    address = url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    if secret := os.environ.get("VWSD_CHAT_KEY", "").strip():
        request.add_unredirected_header("Authorization", f"Bearer {secret}")   # a redirect to another host must not carry it along
    for pause in PAUSES:
        time.sleep(pause)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                return " ".join(json.load(answer)["choices"][0]["message"]["content"].split())
        except urllib.error.HTTPError as e:
            what, remedy = f"the chat endpoint answers with HTTP {e.code}", REFUSALS.get(e.code, "Try again later; what was translated is kept.")
            if e.code != 429 and e.code < 500:
                break
        except (ValueError, LookupError, TypeError, AttributeError):
            what, remedy = "the chat endpoint's answer is no chat completion", "Check that VWSD_CHAT_URL speaks the OpenAI chat format."
            break
        except (OSError, http.client.HTTPException) as e:   # no such host, refused, timed out, hung up
            what, remedy = f"the chat endpoint cannot be reached ({type(e).__name__})", "Check VWSD_CHAT_URL, and that the server is up."
    raise VwsdError(what, where=urlsplit(url).netloc, remedy=remedy)


def _reference(entry: Entry, source: str, target: str) -> tuple[dict, Callable]:
    facts = {"model": "EmojiWSD", "revision": SENSES_FILE.name, "weights_sha256": sha256_file(SENSES_FILE), "settings": dict(entry.settings)}
    return facts, lambda: lambda texts: ([(text, reference_sense(text, source).phrases[0])] for text in texts)


def reference_sense(phrase: str, language: str) -> Sense:
    """EmojiWSD's sense of a phrase: each Italian and Farsi phrase has one."""
    for sense in senses():
        if getattr(sense, language)[1] == phrase:
            return sense
    raise VwsdError(f"no reference translation of {phrase!r}", remedy="The reference knows EmojiWSD's phrases alone; choose another translator.")


TRANSLATORS: dict[str, Entry] = {
    # The study took what the checkpoint ships, a beam; its limit of 512 tokens is cut to 64, which phrases of five words never reach.
    "opus-mt": Entry("OPUS-MT Italian to English (Tiedemann and Thottingal 2020), as in the study", ("it",), _seq2seq, "opus-mt-it-en",
                     {"num_beams": SHIPPED, "early_stopping": SHIPPED, "length_penalty": SHIPPED, "renormalize_logits": SHIPPED,
                      "bad_words_ids": SHIPPED, "forced_eos_token_id": SHIPPED, "max_new_tokens": 64}),
    # The checkpoint shipped no generation config, so the study had the library's default: greedy, 20 tokens with the start token, so 19 new.
    # Tokens through the fast tokenizer without byte fallback, as in the study: rare characters become <unk>.
    "mt5-parsinlu": Entry("mT5 base of ParsiNLU, Farsi to English (Khashabi et al. 2021), as in the study", ("fa",), _seq2seq, "mt5-fa-en",
                          {"max_new_tokens": 19}),
    "nllb-600m": Entry("NLLB-200 distilled 600M (NLLB Team 2022), beam 4", ("it", "fa"), _seq2seq, "nllb-200-600m",
                       {"num_beams": 4, "max_new_tokens": 64}, CODES),
    "nllb-1.3b": Entry("NLLB-200 1.3B (NLLB Team 2022), beam 4", ("it", "fa"), _seq2seq, "nllb-200-1.3b",
                       {"num_beams": 4, "max_new_tokens": 64}, CODES),
    "chat": Entry("any OpenAI-compatible endpoint (VWSD_CHAT_URL, VWSD_CHAT_MODEL, VWSD_CHAT_KEY)", ("it", "fa"), _chat,
                  settings={"temperature": 0, "prompt": PROMPT}),
    "reference": Entry("upper bound: EmojiWSD's own first English phrase of the sense", ("it", "fa"), _reference,
                       settings={"phrase": "first English phrase of the sense", "upper_bound": True}),
}


def _prepare(name: str, source: str, target: str) -> tuple[dict, Callable]:
    if name not in TRANSLATORS:
        near = difflib.get_close_matches(name, TRANSLATORS, 1)
        raise VwsdError(f"no translator named {name!r}",
                        remedy=f"{f'Did you mean {near[0]!r}? ' if near else ''}Translators: {', '.join(TRANSLATORS)}.")
    entry = TRANSLATORS[name]
    if source not in entry.languages or target != "en":
        able = [other for other, its in TRANSLATORS.items() if source in its.languages]
        raise VwsdError(f"{name} does not translate {source} to {target}",
                        remedy=f"Into English, {source} is translated by: {', '.join(able) or 'none'}.")
    facts, load = entry.prepare(entry, source, target)
    return {"translator": name, **facts, "source": source, "target": target}, load


def identity(name: str, source: str, target: str = "en") -> dict:
    """All that decides a translation (translator, model, revision, weights_sha256, settings, source, target, ...); loads no model."""
    return _prepare(name, source, target)[0]


def translate(name: str, texts: Sequence[str], source: str, target: str = "en", store: str | Path | None = None) -> Translations:
    """Translate texts, or replay what is stored; a model is loaded only where a text is missing.

    store: folder of the stored translations, by default `<cache>/translations`. Raises VwsdError naming the translators of a language,
    a missing checkpoint, or the variable to set for `chat`.
    """
    facts, load = _prepare(name, source, target)
    digest = sha256_bytes(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode())
    path = Path(store or cache_dir() / "translations") / f"{name}-{digest[:16]}.jsonl"
    keys = {text: sha256_bytes(f"{text}\0{digest}".encode()) for text in texts}
    known = _read_store(path)
    missing = [text for text, key in keys.items() if key not in known]
    replayed = sum(keys[text] in known for text in texts)
    if missing:
        with tqdm(total=len(missing), desc=f"{name} {source}", unit="text", disable=quiet()) as bar:
            for pairs in load()(missing):
                _append(path, [{"key": keys[text], "in": text, "out": out} for text, out in pairs])
                known |= {keys[text]: out for text, out in pairs}
                bar.update(len(pairs))
    return Translations(tuple(texts), tuple(known[keys[text]] for text in texts), facts, replayed)


def _read_store(path: Path) -> dict[str, str]:
    """Key -> translation; a line that a kill cut off is passed over, its text is translated again."""
    known = {}
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            stored = json.loads(line)
            known[stored["key"]] = stored["out"]
        except (ValueError, KeyError, TypeError):
            continue
    return known


def _append(path: Path, lines: list[dict]) -> None:
    """Add lines in one write, on a line of their own where the last one was cut off."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+") as f:
            f.seek(max(f.tell() - 1, 0))
            start = b"" if f.read() in (b"\n", b"") else b"\n"
            f.write(start + "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
    except OSError as e:
        raise VwsdError(f"cannot store the translations: {e.strerror or e}", where=path, remedy="Free some space or set VWSD_CACHE.") from e


def translate_items(name: str, items: Sequence[Item], language: str, store: str | Path | None = None) -> list[dict]:
    """A record an item: id, language, target, phrase, phrase_en, target_en (the target translated alone), flags (quality.RULES)."""
    phrases = translate(name, [item.phrase for item in items], language, store=store).texts_out
    if name == "reference":   # a target alone has several senses; the reference knows which is meant
        targets = tuple(reference_sense(item.phrase, language).lemma for item in items)
    else:
        targets = translate(name, [item.target for item in items], language, store=store).texts_out
    return [_record(item.id, language, item.target, item.phrase, *english) for item, *english in zip(items, phrases, targets)]


def _record(item_id: str, language: str, target: str, phrase: str, phrase_en: str, target_en: str) -> dict:
    record = {"id": item_id, "language": language, "target": target, "phrase": phrase, "phrase_en": phrase_en, "target_en": target_en}
    return {**record, "flags": quality.flags(record)}


def write_translations(folder: str | Path, records: Sequence[Mapping], facts: Mapping, split: str) -> Path:
    """Write `<folder>/translations/<translator>.<language>.<split>.jsonl` and its `.meta.json` (identity `facts`, split, n); returns the path."""
    stem = Path(folder) / "translations" / f"{facts['translator']}.{facts['source']}.{split}"
    path = write_text(f"{stem}.jsonl", "".join(json.dumps(dict(record), ensure_ascii=False) + "\n" for record in records))
    write_text(f"{stem}.meta.json", json.dumps({**facts, "split": split, "n": len(records)}, indent=1, ensure_ascii=False) + "\n")
    return path


def read_translations(path: str | Path) -> tuple[list[dict], dict]:
    """Records and meta of a translations file; VwsdError where lines are missing."""
    path = Path(path)
    try:
        meta = json.loads(path.with_name(path.name.removesuffix(".jsonl") + ".meta.json").read_text(encoding="utf-8"))
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError) as e:
        raise VwsdError(f"the translations cannot be read: {e}", where=path, remedy=AGAIN) from e
    if len(records) != meta.get("n"):
        raise VwsdError(f"{len(records)} translations, {meta.get('n')} were written", where=path, remedy=AGAIN)
    return records, meta


def load_stored(path: str | Path, language: str) -> list[dict]:
    """Records of a user's own table: tab-separated with the columns index, target, context, target_en, context_en."""
    rows = csv.DictReader(read_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)
    columns = ("index", "target", "context", "context_en", "target_en")
    if absent := [c for c in columns if c not in (rows.fieldnames or ())]:
        raise VwsdError(f"no column {', '.join(absent)}", where=path, remedy=f"The first line names the columns: {', '.join(columns)}.")
    return [_record(row["index"], language, *(row[c] or "" for c in columns[1:])) for row in rows]
