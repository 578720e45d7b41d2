"""Tiny checkpoints of translators and of a definer, random weights in the published ones' formats
(`translators.yml`): they run like the real ones and say nothing.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import yaml

from vwsdlib.encoders.checkpoints import checkpoint

from ..emojiwsd.senses import senses

SHAPES = yaml.safe_load(Path(__file__).with_suffix(".yml").read_text(encoding="utf-8"))


def make_translators(folder: str | Path, seed: int = 0) -> list[Path]:
    """Save every tiny checkpoint as `<folder>/<org>/<name>`, as `$VWSD_MODELS` has them; those that
    are there stay. Returns the folders.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    folders = [Path(folder) / checkpoint(key).repo for key in MAKERS]
    for number, (target, make) in enumerate(zip(folders, MAKERS.values())):
        if not (target / "model.safetensors").exists():
            staging = target.with_name(f".{target.name}.building")  # moved into place whole
            for old in (staging, target):
                shutil.rmtree(old, ignore_errors=True)
            staging.mkdir(parents=True)
            _randomise(make(staging), seed + number).save_pretrained(staging)
            if make is _mt5:
                (staging / "generation_config.json").unlink()  # none was published
            staging.rename(target)
    return folders


def _randomise(model, seed: int):
    """Seeded weights, the attention's wide enough that different texts have different
    translations."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                width = 0.1 if name.endswith("shared.weight") else 0.5
                parameter.normal_(0, width, generator=generator)
    return model


def _lines(*languages: str) -> list[str]:
    """EmojiWSD's own text in these languages; "en" are its phrases and sentences."""
    lines = []
    for sense in senses():
        for language in languages:
            english = (*sense.phrases, *sense.sentences)
            lines += english if language == "en" else getattr(sense, language)
    return lines


def _sentencepiece(lines: Iterable[str], size: int, **options) -> bytes:
    """A SentencePiece model: one thread, no sampling, so the same text gives the same bytes."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=out,
        vocab_size=size,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    return out.getvalue()


def _pieces(model: bytes) -> list[str]:
    from sentencepiece import SentencePieceProcessor

    tokens = SentencePieceProcessor(model_proto=model)
    return [tokens.id_to_piece(i) for i in range(tokens.get_piece_size())]


def _marian(folder: Path):
    from transformers import GenerationConfig, MarianConfig, MarianMTModel

    pieces = []
    for side, language in (("source", "it"), ("target", "en")):
        model = _sentencepiece(_lines(language), 400)
        (folder / f"{side}.spm").write_bytes(model)
        pieces += _pieces(model)
    inside = [piece for piece in pieces if piece != "<s>"]
    tokens = dict.fromkeys(["</s>", "<unk>", *inside, "<pad>"])
    vocabulary = {piece: i for i, piece in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    languages = {"source_lang": "it", "target_lang": "en"}
    (folder / "tokenizer_config.json").write_text(json.dumps(languages))
    pad = vocabulary["<pad>"]
    starts = {"pad_token_id": pad, "decoder_start_token_id": pad}
    shape = SHAPES["marian"]
    model = MarianMTModel(MarianConfig(vocab_size=len(vocabulary), **shape["config"], **starts))
    model.generation_config = GenerationConfig(
        bad_words_ids=[[pad]], **shape["generation"], **starts
    )
    return model


def _mt5(folder: Path):
    from transformers import MT5Config, MT5ForConditionalGeneration

    model = _sentencepiece(
        _lines("fa", "en"), 900, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, byte_fallback=True
    )
    shape = SHAPES["mt5"]
    (folder / "spiece.model").write_bytes(model)  # and no tokenizer.json, as published
    (folder / "special_tokens_map.json").write_text(json.dumps(shape["special"]))
    (folder / "tokenizer_config.json").write_text(json.dumps(shape["tokenizer"]))
    return MT5ForConditionalGeneration(MT5Config(**shape["config"]))


def _nllb(folder: Path):
    from transformers import (
        GenerationConfig,
        M2M100Config,
        M2M100ForConditionalGeneration,
        NllbTokenizer,
    )

    tokenizer = NllbTokenizer().train_new_from_iterator(
        _lines("it", "fa", "en"), 900, show_progress=False
    )
    tokenizer.save_pretrained(folder)
    shape = SHAPES["nllb"]
    config = M2M100Config(vocab_size=len(tokenizer), **shape["config"])
    model = M2M100ForConditionalGeneration(config)
    model.generation_config = GenerationConfig(**shape["generation"])
    return model


def _qwen2(folder: Path):
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

    marks, shape = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], SHAPES["qwen2"]
    tokenizer = Qwen2Tokenizer().train_new_from_iterator(
        _lines("it", "fa", "en"), 600, new_special_tokens=marks[1:], show_progress=False
    )
    tokenizer.eos_token, tokenizer.chat_template = marks[2], shape["chat"]
    # as published: the template stands in tokenizer_config.json
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    pad, _, end = tokenizer.convert_tokens_to_ids(marks)
    tokens = {"vocab_size": len(tokenizer), "bos_token_id": pad, "eos_token_id": end}
    model = Qwen2ForCausalLM(Qwen2Config(**shape["config"], **tokens))
    model.generation_config = GenerationConfig(
        bos_token_id=pad, pad_token_id=pad, eos_token_id=[end, pad], **shape["generation"]
    )
    return model


MAKERS: dict[str, Callable] = {
    "opus-mt-it-en": _marian,
    "mt5-fa-en": _mt5,
    "nllb-200-600m": _nllb,
    "nllb-200-1.3b": _nllb,
    "qwen2.5-1.5b-instruct": _qwen2,
}
