"""Checkpoints to measure with: the published architectures at their true sizes, with random
weights, in the published layout; and tiny ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from zlib import crc32

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from vwsd_standins.emojiwsd.senses import senses
from vwsd_standins.rehearsal import models as rehearsal
from vwsdlib.encoders.checkpoints import CHECKPOINTS
from vwsdlib.encoders.registry import Encoder, load_encoder
from vwsdlib.paths import cache_dir, quiet, sha256_file, write_text

GAIN = 1.0  # of the random weights
VOCABULARY = 49408
TEXT = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "vocab_size": VOCABULARY,
}
VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
# what L/14 has otherwise
LARGE_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
LARGE_VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
}
LARGE = "clip-vit-l14"
PATCH = {"clip-vit-b32": 32, "clip-vit-b16": 16, "clipseg-rd64": 16, LARGE: 14}
SIDE = {"clip-vit-b32": 224, "clip-vit-b16": 224, "clipseg-rd64": 352, LARGE: 224}
MEASURED = ("clip-vit-b32", "clip-vit-b16", "clipseg-rd64")  # by the scenarios


def config(key: str) -> transformers.PretrainedConfig:
    """Configuration of a checkpoint at its true size."""
    width = 768 if key == LARGE else 512  # of the joint space
    shape = rehearsal._clip_config(VOCABULARY, 224, PATCH[key], "quick_gelu", width)
    shape["text_config"] |= TEXT | (LARGE_TEXT if key == LARGE else {})
    shape["vision_config"] |= VISION | (LARGE_VISION if key == LARGE else {})
    if key != "clipseg-rd64":
        return transformers.CLIPConfig(**shape)
    return transformers.CLIPSegConfig(
        **shape, reduce_dim=64, use_complex_transposed_convolution=True
    )


def _save(key: str, target: Path) -> None:
    """The tiny checkpoint's small files, with true-size weights and whole words for tokens."""
    for name in ("preprocessor_config.json", "tokenizer_config.json"):
        write_text(target / name, (folder(tiny=True) / CHECKPOINTS[key].repo / name).read_text())
    _learn_words(target)
    cls = (
        transformers.CLIPSegForImageSegmentation
        if key == "clipseg-rd64"
        else transformers.CLIPModel
    )
    rehearsal._loud(cls(config(key)), GAIN).save_pretrained(target)


def _learn_words(folder: Path) -> None:
    """Merges learnt from the English phrases: CLIP reads common words as one token and other
    languages in pieces.
    """
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=5000, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    bpe.train_from_iterator(
        [word for s in senses() for phrase in s.phrases for word in phrase.lower().split()], trainer
    )
    merges = [
        pair if isinstance(pair, str) else " ".join(pair)
        for pair in json.loads(bpe.to_str())["model"]["merges"]
    ]
    words = dict.fromkeys("".join(pair.split(" ")) for pair in merges)
    tokens = dict.fromkeys(
        [*letters, *(f"{c}</w>" for c in letters), *words, "<|startoftext|>", "<|endoftext|>"]
    )
    write_text(
        folder / "vocab.json", json.dumps({token: i for i, token in enumerate(tokens)}) + "\n"
    )
    write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *merges]) + "\n")


@torch.inference_mode()
def gflop(key: str) -> float:
    """GFLOP of one picture through a checkpoint's picture tower at its true size: products and
    convolutions, counted without computing them.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        settings = config(key)
        cls = transformers.CLIPSegModel if key == "clipseg-rd64" else transformers.CLIPModel
        pixels = torch.empty(1, 3, SIDE[key], SIDE[key])
        cls(settings).eval().get_image_features(pixels)
    return counter.get_total_flops() / 1e9


def folder(tiny: bool = False, keys: Sequence[str] = MEASURED) -> Path:
    """Folder of the true-size checkpoints (1.8 GB; L/14 another 1.7), or of the tiny ones, as in
    `$VWSD_MODELS`; made where they are not.
    """
    target = cache_dir() / "benchmarks" / ("tiny" if tiny else "models")
    if tiny:
        return rehearsal.make_models(target)
    stamp = f"{sha256_file(__file__)} {transformers.__version__} {torch.__version__}\n"
    for key in tqdm(keys, desc="checkpoints at true size", disable=quiet()):
        note = target / CHECKPOINTS[key].repo / "stamp"
        if note.exists() and note.read_text() == stamp:
            continue
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(crc32(key.encode()))
            _save(key, note.parent)
        write_text(note, stamp)
    return target


@cache
def encoder(name: str, tiny: bool = False) -> Encoder:
    """An encoder of the library, of the true-size or the tiny checkpoints."""
    key = name.partition("@")[0]
    use(tiny, [key])
    load_encoder.cache_clear()  # it knows encoders by name only
    loaded = load_encoder(name)
    _ = loaded.model  # weights are read when first asked for: not while the clock runs
    return loaded


def use(tiny: bool, keys: Sequence[str] = MEASURED) -> Path:
    """Have the library take these checkpoints, without a network; their folder."""
    target = folder(tiny, keys)
    os.environ["VWSD_MODELS"], os.environ["HF_HUB_OFFLINE"] = str(target), "1"
    return target
