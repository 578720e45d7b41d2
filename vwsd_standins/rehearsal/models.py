"""Tiny vision checkpoints with random weights in the published ones' formats: they are loaded and
run like the real ones and know nothing.

What a picture or a text goes through is the real thing: sides, patches, preprocessing files
(`models.yml`), activations, kinds of tokenizer, layout of the folders. Only the widths and depths
are small.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from zlib import crc32

import torch
import transformers
import yaml
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from vwsdlib.encoders.checkpoints import CHECKPOINTS
from vwsdlib.kept import made_once
from vwsdlib.paths import quiet, sha256_file, write_text
from vwsdlib.progress import tqdm

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
DATA = Path(__file__).with_suffix(".yml")
TABLE = yaml.safe_load(DATA.read_text(encoding="utf-8"))
TINY = TABLE["tiny"]
CLIP_STATISTICS, IMAGENET_STATISTICS = TABLE["statistics"]["clip"], TABLE["statistics"]["imagenet"]
LATIN, FARSI = range(0x21, 0x7F), range(0x600, 0x700)
LETTERS = [chr(code) for code in chain(LATIN, range(0xA1, 0x250), FARSI, range(0x200C, 0x2010))]
WORDS = ("th", "an", "in", "er", "on", "ti")  # the few merges of the byte-pair tokenizers


def make_models(folder: str | Path, seed: int = 0) -> Path:
    """Save every tiny checkpoint as `<folder>/<org>/<name>`, as in `$VWSD_MODELS`; the same seed
    gives the same bytes. Returns the folder.
    """
    folder = Path(folder)
    note, stamp = folder / "vision.stamp", _stamp(seed)

    def make() -> None:
        with torch.random.fork_rng(devices=[]):
            for key, maker in tqdm(MAKERS.items(), desc="tiny checkpoints", disable=quiet()):
                target = folder / CHECKPOINTS[key].repo
                target.mkdir(parents=True, exist_ok=True)
                torch.manual_seed(seed + crc32(key.encode()))
                maker(target)
        write_text(note, stamp)

    made_once(lambda: note.exists() and note.read_text() == stamp, make, folder / "vision.lock")
    return folder


def _stamp(seed: int) -> str:
    code = " ".join(sha256_file(file) for file in (__file__, DATA))
    tools = f"transformers {transformers.__version__}, torch {torch.__version__}"
    return f"seed {seed}, code {code}, {tools}\n"


def _json(path: Path, content: dict | list) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def _files(folder: Path, layout: str, **filled: dict) -> None:
    """Write a layout's files of `models.yml`; `filled`: what is filled in, by a file's stem."""
    for name, content in TABLE["files"][layout].items():
        path = folder / name
        _json(path, content | filled[path.stem] if path.stem in filled else content)


def _loud(model: torch.nn.Module, gain: float = 2) -> torch.nn.Module:
    """Weights so wide that pictures and texts differ in their vectors, and activations in what they
    do.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, gain * parameter[0].numel() ** -0.5)
    return model.eval()


def _clip_tokenizer(folder: Path) -> int:
    """CLIP's byte-level byte-pair encoding: any Unicode; the end token has the highest number, as
    CLIP's pooling expects.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ends = [f"{letter}</w>" for letter in letters]
    tokens = [*letters, *ends, *WORDS, "<|startoftext|>", "<|endoftext|>"]
    merges = ["#version: 0.2", *(" ".join(word) for word in WORDS)]
    _json(folder / "vocab.json", {token: i for i, token in enumerate(tokens)})
    write_text(folder / "merges.txt", "\n".join(merges) + "\n")
    return len(tokens)


def _clip_config(vocabulary: int, side: int, patch: int, act: str, dim: int = 24) -> dict:
    return {
        "text_config": TABLE["clip_text"] | {"vocab_size": vocabulary, "hidden_act": act},
        "vision_config": TINY | {"image_size": side, "patch_size": patch, "hidden_act": act},
        "projection_dim": dim,
    }


def _clip(side: int, patch: int, act: str = "quick_gelu", dim: int = 24) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        shape = _clip_config(_clip_tokenizer(folder), side, patch, act, dim)
        model = transformers.CLIPModel(transformers.CLIPConfig(**shape))
        _loud(model).save_pretrained(folder)
        _files(folder, "clip", preprocessor_config={"crop_size": side, "size": side})

    return make


def _clipseg(folder: Path) -> None:
    """The inner CLIP is the tiny B/16, as the published one's should be; a louder decoder would
    blow float32's last bits up to 1e-3.
    """
    shape = _clip_config(_clip_tokenizer(folder), 224, 16, "quick_gelu")
    config = transformers.CLIPSegConfig(**shape, **TABLE["clipseg_decoder"])
    model = transformers.CLIPSegForImageSegmentation(config)
    inner = folder.parents[1] / CHECKPOINTS["clip-vit-b16"].repo / "model.safetensors"
    _loud(model, 0.7).clip.load_state_dict(load_file(inner))
    model.save_pretrained(folder)
    _files(folder, "clipseg")


def _siglip(pad: str, eos: str, lower: bool) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        vocabulary = _siglip_tokenizer(folder, pad, eos, lower)
        config = transformers.SiglipConfig(
            text_config=TABLE["siglip_text"] | {"vocab_size": vocabulary},
            vision_config=TABLE["siglip_vision"],
        )
        _loud(transformers.SiglipModel(config)).save_pretrained(folder)
        _files(folder, "siglip", tokenizer_config={"pad_token": pad, "eos_token": eos})

    return make


def _siglip_tokenizer(folder: Path, pad: str, eos: str, lower: bool) -> int:
    """Byte-pair encoding that falls back on bytes; how many tokens there are."""
    special = list(dict.fromkeys([pad, eos, "<unk>"]))
    octets = [f"<0x{octet:02X}>" for octet in range(256)]
    tokens = [*special, *octets, "▁", *map(chr, range(0x21, 0x7F)), *WORDS]
    numbers = {token: i for i, token in enumerate(tokens)}
    merges = [tuple(word) for word in WORDS]
    tokenizer = Tokenizer(models.BPE(numbers, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase()] * lower + [normalizers.Replace(" ", "▁")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {eos}", special_tokens=[(eos, tokens.index(eos))]
    )
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    return len(tokens)


def _mclip(folder: Path) -> None:
    """M-CLIP's layout: XLM-R under `transformer.` and a linear map in one pickled file."""
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    letters = [(token, -4.0) for token in ("▁", *LETTERS)]
    vocabulary = [*special, *letters, ("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = TABLE["mclip"] | {"vocab_size": len(vocabulary)}
    transformer = transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**config))
    parts = torch.nn.ModuleDict({"transformer": _loud(transformer)})
    parts["LinearTransformation"] = _loud(torch.nn.Linear(32, 24))
    torch.save(parts.state_dict(), folder / "pytorch_model.bin")
    _files(folder, "mclip", config={"xlm_config": config})


def _sentence(folder: Path) -> None:
    """sentence-transformers' layout: DistilBERT, mean pooling, a linear map without bias in
    `2_Dense`.
    """
    inside = [f"##{letter}" for letter in LETTERS]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *inside]
    write_text(folder / "vocab.txt", "\n".join(tokens) + "\n")
    config = transformers.DistilBertConfig(
        vocab_size=len(tokens), dim=32, hidden_dim=64, n_layers=2, n_heads=4
    )
    _loud(transformers.DistilBertModel(config)).save_pretrained(folder)
    _files(folder, "sentence")
    dense = _loud(torch.nn.Linear(32, 24, bias=False)).weight.detach()
    torch.save({"linear.weight": dense}, folder / "2_Dense/pytorch_model.bin")


# the joint space is narrower than the towers, so that no width passes for another; L/14 alone has
# them equal, as PolCLIP needs it
MAKERS: dict[str, Callable[[Path], None]] = {
    "clip-vit-b32": _clip(224, 32),
    "clip-vit-b16": _clip(224, 16),
    "clip-vit-l14": _clip(224, 14, dim=32),
    "clip-vit-l14-336": _clip(336, 14),
    "openclip-h14": _clip(224, 14, "gelu"),
    "clipseg-rd64": _clipseg,
    "siglip-multilingual": _siglip("</s>", "</s>", True),
    "siglip2-base": _siglip("<pad>", "<eos>", False),
    "siglip2-large": _siglip("<pad>", "<eos>", False),
    "siglip2-so400m": _siglip("<pad>", "<eos>", False),
    "mclip": _mclip,
    "clip-b32-multilingual": _sentence,
}
REPOS = tuple(CHECKPOINTS[key].repo for key in MAKERS)
