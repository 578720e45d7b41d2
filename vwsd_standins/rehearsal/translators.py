"""Tiny checkpoints of translators and of a definer, random weights in the published ones' formats:
they run like the real ones and say nothing.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from vwsdlib.encoders.checkpoints import checkpoint

from ..emojiwsd.senses import senses

WIDTH = 32
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


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
                parameter.normal_(
                    0, 0.1 if name.endswith("shared.weight") else 0.5, generator=generator
                )
    return model


def _lines(*languages: str) -> list[str]:
    """EmojiWSD's own text in these languages; "en" are its phrases and sentences."""
    return [
        text
        for s in senses()
        for language in languages
        for text in ((*s.phrases, *s.sentences) if language == "en" else getattr(s, language))
    ]


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


def _marian(folder: Path):
    from sentencepiece import SentencePieceProcessor
    from transformers import GenerationConfig, MarianConfig, MarianMTModel

    models = {
        side: _sentencepiece(_lines(language), 400)
        for side, language in (("source", "it"), ("target", "en"))
    }
    pieces = [
        sp.id_to_piece(i)
        for sp in (SentencePieceProcessor(model_proto=m) for m in models.values())
        for i in range(sp.get_piece_size())
    ]
    vocabulary = {
        piece: i
        for i, piece in enumerate(
            dict.fromkeys(["</s>", "<unk>", *(p for p in pieces if p != "<s>"), "<pad>"])
        )
    }
    for side, model in models.items():
        (folder / f"{side}.spm").write_bytes(model)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"source_lang": "it", "target_lang": "en"})
    )
    pad = vocabulary["<pad>"]
    model = MarianMTModel(
        MarianConfig(
            vocab_size=len(vocabulary),
            d_model=WIDTH,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=WIDTH,
            decoder_ffn_dim=WIDTH,
            scale_embedding=True,
            pad_token_id=pad,
            eos_token_id=0,
            bos_token_id=0,
            decoder_start_token_id=pad,
            forced_eos_token_id=0,
        )
    )
    model.generation_config = GenerationConfig(
        num_beams=6,
        max_length=512,
        bad_words_ids=[[pad]],
        renormalize_logits=True,
        forced_eos_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=pad,
        decoder_start_token_id=pad,
    )
    return model


def _mt5(folder: Path):
    from transformers import MT5Config, MT5ForConditionalGeneration

    model = _sentencepiece(
        _lines("fa", "en"), 900, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, byte_fallback=True
    )
    (folder / "spiece.model").write_bytes(model)  # and no tokenizer.json, as published
    special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    settings = {
        **special,
        "extra_ids": 0,
        "additional_special_tokens": None,
        "tokenizer_class": "T5Tokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return MT5ForConditionalGeneration(
        MT5Config(
            vocab_size=1024,
            d_model=WIDTH,
            d_kv=16,
            d_ff=WIDTH,
            num_layers=1,
            num_decoder_layers=1,
            num_heads=2,
            decoder_start_token_id=0,
            pad_token_id=0,
            eos_token_id=1,
            tie_word_embeddings=False,
        )
    )


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
    model = M2M100ForConditionalGeneration(
        M2M100Config(
            vocab_size=len(tokenizer),
            d_model=WIDTH,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=WIDTH,
            decoder_ffn_dim=WIDTH,
            scale_embedding=True,
            decoder_start_token_id=2,
        )
    )
    model.generation_config = GenerationConfig(
        max_length=200, bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2
    )
    return model


def _qwen2(folder: Path):
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Qwen2Tokenizer().train_new_from_iterator(
        _lines("it", "fa", "en"), 600, new_special_tokens=marks[1:], show_progress=False
    )
    tokenizer.eos_token, tokenizer.chat_template = marks[2], CHAT
    tokenizer.save_pretrained(
        folder, save_jinja_files=False
    )  # as published: the template stands in tokenizer_config.json
    pad, _, end = tokenizer.convert_tokens_to_ids(marks)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
            bos_token_id=pad,
            eos_token_id=end,
        )
    )
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.7,
        top_p=0.8,
        top_k=20,
        repetition_penalty=1.1,
        bos_token_id=pad,
        pad_token_id=pad,
        eos_token_id=[end, pad],
    )  # what must not reach a greedy answer
    return model


MAKERS: dict[str, Callable] = {
    "opus-mt-it-en": _marian,
    "mt5-fa-en": _mt5,
    "nllb-200-600m": _nllb,
    "nllb-200-1.3b": _nllb,
    "qwen2.5-1.5b-instruct": _qwen2,
}
