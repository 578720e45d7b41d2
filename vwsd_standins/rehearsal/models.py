"""Tiny vision checkpoints with random weights in the published ones' formats: they are loaded and
run like the real ones and know nothing.

What a picture or a text goes through is the real thing: sides, patches, preprocessing files,
activations, kinds of tokenizer, layout of the folders. Only the widths and depths are small.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tqdm.auto import tqdm

from vwsdlib.encoders.checkpoints import CHECKPOINTS
from vwsdlib.encoders.pretrained import CLIP_STATISTICS, IMAGENET_STATISTICS
from vwsdlib.paths import quiet, sha256_file, write_text

TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
LETTERS = [
    chr(c)
    for block in ((0x21, 0x7F), (0xA1, 0x250), (0x600, 0x700), (0x200C, 0x2010))
    for c in range(*block)
]  # Latin, Farsi
WORDS = ("th", "an", "in", "er", "on", "ti")  # the few merges of the byte-pair tokenizers
RESCALED = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def make_models(folder: str | Path, seed: int = 0) -> Path:
    """Save every tiny checkpoint as `<folder>/<org>/<name>`, as in `$VWSD_MODELS`; the same seed
    gives the same bytes. Returns the folder.
    """
    folder, stamp = (
        Path(folder),
        (
            f"seed {seed}, code {sha256_file(__file__)}, transformers {transformers.__version__},"
            f" torch {torch.__version__}\n"
        ),
    )
    note = folder / "vision.stamp"
    if note.exists() and note.read_text() == stamp:
        return folder
    with torch.random.fork_rng(devices=[]):
        for key, make in tqdm(MAKERS.items(), desc="tiny checkpoints", disable=quiet()):
            target = folder / CHECKPOINTS[key].repo
            target.mkdir(parents=True, exist_ok=True)
            torch.manual_seed(seed + crc32(key.encode()))
            make(target)
    write_text(note, stamp)
    return folder


def _json(path: Path, content: dict) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


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
    tokens = [*letters, *(f"{c}</w>" for c in letters), *WORDS, "<|startoftext|>", "<|endoftext|>"]
    _json(folder / "vocab.json", {token: i for i, token in enumerate(tokens)})
    write_text(
        folder / "merges.txt",
        "\n".join(["#version: 0.2", *(" ".join(word) for word in WORDS)]) + "\n",
    )
    _json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": 77,
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
        },
    )
    return len(tokens)


def _clip_config(vocabulary: int, side: int, patch: int, act: str, dim: int = 24) -> dict:
    text = TINY | {
        "vocab_size": vocabulary,
        "max_position_embeddings": 77,
        "hidden_act": act,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }  # as published
    return {
        "text_config": text,
        "vision_config": TINY | {"image_size": side, "patch_size": patch, "hidden_act": act},
        "projection_dim": dim,
    }


def _clip(side: int, patch: int, act: str = "quick_gelu", dim: int = 24) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        config = transformers.CLIPConfig(
            **_clip_config(_clip_tokenizer(folder), side, patch, act, dim)
        )
        _loud(transformers.CLIPModel(config)).save_pretrained(folder)
        _json(
            folder / "preprocessor_config.json",
            {
                "crop_size": side,
                "do_center_crop": True,
                "do_normalize": True,
                "do_resize": True,
                "feature_extractor_type": "CLIPFeatureExtractor",
                **CLIP_STATISTICS,
                "resample": 3,
                "size": side,
            },
        )

    return make


def _clipseg(folder: Path) -> None:
    """The inner CLIP is the tiny B/16, as the published one's should be; a louder decoder would
    blow float32's last bits up to 1e-3.
    """
    shape = _clip_config(_clip_tokenizer(folder), 224, 16, "quick_gelu")
    decoder = {
        "extract_layers": [0, 1],
        "reduce_dim": 16,
        "decoder_num_attention_heads": 4,
        "decoder_intermediate_size": 32,
    }
    model = transformers.CLIPSegForImageSegmentation(
        transformers.CLIPSegConfig(**shape, **decoder, use_complex_transposed_convolution=True)
    )
    _loud(model, 0.7).clip.load_state_dict(
        load_file(folder.parents[1] / CHECKPOINTS["clip-vit-b16"].repo / "model.safetensors")
    )
    model.save_pretrained(folder)
    _json(
        folder / "preprocessor_config.json",
        RESCALED
        | IMAGENET_STATISTICS
        | {
            "image_processor_type": "ViTFeatureExtractor",
            "resample": 2,
            "size": {"height": 352, "width": 352},
        },
    )


def _siglip(pad: str, eos: str, lower: bool) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        tokens = list(
            dict.fromkeys(
                [
                    pad,
                    eos,
                    "<unk>",
                    *(f"<0x{b:02X}>" for b in range(256)),
                    "▁",
                    *map(chr, range(0x21, 0x7F)),
                    *WORDS,
                ]
            )
        )
        bpe = models.BPE(
            {token: i for i, token in enumerate(tokens)},
            [tuple(word) for word in WORDS],
            unk_token="<unk>",
            byte_fallback=True,
        )
        tokenizer = Tokenizer(bpe)
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Lowercase()] * lower + [normalizers.Replace(" ", "▁")]
        )
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {eos}", special_tokens=[(eos, tokens.index(eos))]
        )
        tokenizer.add_special_tokens(list(dict.fromkeys([pad, eos, "<unk>"])))
        tokenizer.save(str(folder / "tokenizer.json"))
        _json(
            folder / "tokenizer_config.json",
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_max_length": 64,
                "pad_token": pad,
                "eos_token": eos,
                "unk_token": "<unk>",
                "model_input_names": ["input_ids"],
            },
        )
        text = TINY | {
            "vocab_size": len(tokens),
            "max_position_embeddings": 64,
            "pad_token_id": 0,
            "bos_token_id": 0,
            "eos_token_id": 1,
        }
        config = transformers.SiglipConfig(
            text_config=text, vision_config=TINY | {"image_size": 256, "patch_size": 16}
        )
        _loud(transformers.SiglipModel(config)).save_pretrained(folder)
        _json(
            folder / "preprocessor_config.json",
            RESCALED
            | HALF
            | {
                "image_processor_type": "SiglipImageProcessor",
                "resample": 2,
                "size": {"height": 256, "width": 256},
            },
        )

    return make


def _mclip(folder: Path) -> None:
    """M-CLIP's layout: XLM-R under `transformer.` and a linear map in one pickled file."""
    vocabulary = (
        [(t, 0.0) for t in ("<s>", "<pad>", "</s>", "<unk>")]
        + [(t, -4.0) for t in ("▁", *LETTERS)]
        + [("<mask>", 0.0)]
    )
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    _json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 512},
    )
    config = TINY | {
        "vocab_size": len(vocabulary),
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
    }
    parts = torch.nn.ModuleDict(
        {
            "transformer": _loud(
                transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**config))
            ),
            "LinearTransformation": _loud(torch.nn.Linear(32, 24)),
        }
    )
    torch.save(parts.state_dict(), folder / "pytorch_model.bin")
    _json(
        folder / "config.json",
        {
            "architectures": ["MultilingualCLIP"],
            "modelBase": "xlm-roberta-large",
            "model_type": "M-CLIP",
            "numDims": 24,
            "transformerDimensions": 32,
            "xlm_config": config,
        },
    )


def _sentence(folder: Path) -> None:
    """sentence-transformers' layout: DistilBERT, mean pooling, a linear map without bias in
    `2_Dense`.
    """
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS)]
    write_text(folder / "vocab.txt", "\n".join(tokens) + "\n")
    _json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": False, "model_max_length": 512},
    )
    config = transformers.DistilBertConfig(
        vocab_size=len(tokens), dim=32, hidden_dim=64, n_layers=2, n_heads=4
    )
    _loud(transformers.DistilBertModel(config)).save_pretrained(folder)
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]
    _json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(kinds)
        ],
    )
    _json(
        folder / "1_Pooling/config.json",
        {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True},
    )
    _json(
        folder / "2_Dense/config.json",
        {
            "in_features": 32,
            "out_features": 24,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    )
    torch.save(
        {"linear.weight": _loud(torch.nn.Linear(32, 24, bias=False)).weight.detach()},
        folder / "2_Dense/pytorch_model.bin",
    )


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
    **{
        key: _siglip("<pad>", "<eos>", False)
        for key in ("siglip2-base", "siglip2-large", "siglip2-so400m")
    },
    "mclip": _mclip,
    "clip-b32-multilingual": _sentence,
}
REPOS = tuple(CHECKPOINTS[key].repo for key in MAKERS)
