"""A tiny CLIP, records and a run for PolCLIP's tests; as a program, one run of training in a
process of its own (to be killed, or one of two).

    python polclip_tiny.py FOLDER [field=value ...]

The CLIP has the names and shapes of transformers' weights but not its code, which takes seconds to
import.
"""

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from polclip.backbone import ClipBackbone
from polclip.config import Config, make_config
from polclip.model import PolClip
from polclip.records import Candidate, Record
from polclip.train import Data, train

START, END, LENGTH, PLACES, WIDTH, VISION = 298, 299, 20, 5, 32, 48
SMALL = {
    "former_layers": 1,
    "fusion_layers": 1,
    "hidden": 32,
    "heads": 4,
    "mlp": 2,
    "borrowed": 1,
    "rate": 1e-3,
    "open_text": 1,
}


@pytest.fixture(autouse=True)
def one_thread():
    """For every test of a file that imports it: last bits depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Letters:
    """A tokenizer: one token for each of a word's first five letters."""

    def convert_tokens_to_ids(self, token):
        return {"<|startoftext|>": START, "<|endoftext|>": END}[token]

    def __call__(self, word, add_special_tokens):
        return {"input_ids": [1 + ord(letter) % 250 for letter in word[:5]]}


def _tower(width, layers, heads, act):
    return SimpleNamespace(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        hidden_act=act,
        layer_norm_eps=1e-5,
    )


def _layer(name, width):
    """Names and shapes of one block's weights in transformers."""
    shapes = {f"self_attn.{p}_proj": (width, width) for p in ("q", "k", "v", "out")} | {
        "mlp.fc1": (2 * width, width),
        "mlp.fc2": (width, 2 * width),
    }
    shapes |= {"layer_norm1": (width,), "layer_norm2": (width,)}
    return {
        f"{name}.{part}.{kind}": shape if kind == "weight" else shape[:1]
        for part, shape in shapes.items()
        for kind in ("weight", "bias")
    }


def clip(layers=2, act="quick_gelu", seed=1):
    """What ClipBackbone asks of a CLIPModel: pictures of 28 px in patches of 14, texts of 20
    tokens.
    """
    text, vision = _tower(WIDTH, layers, 4, act), _tower(VISION, layers, 4, act)
    text.vocab_size, text.max_position_embeddings, vision.image_size, vision.patch_size = (
        300,
        LENGTH,
        28,
        14,
    )
    shapes = {
        "text_model.embeddings.token_embedding.weight": (300, WIDTH),
        "text_model.embeddings.position_embedding.weight": (LENGTH, WIDTH),
        "vision_model.embeddings.class_embedding": (VISION,),
        "vision_model.embeddings.patch_embedding.weight": (VISION, 3, 14, 14),
        "vision_model.embeddings.position_embedding.weight": (PLACES, VISION),
        "text_projection.weight": (WIDTH, WIDTH),
        "visual_projection.weight": (WIDTH, VISION),
    }
    for name, width in (
        ("text_model.final_layer_norm", WIDTH),
        ("vision_model.pre_layrnorm", VISION),
        ("vision_model.post_layernorm", VISION),
    ):
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    for i in range(layers):
        shapes |= _layer(f"text_model.encoder.layers.{i}", WIDTH) | _layer(
            f"vision_model.encoder.layers.{i}", VISION
        )
    g = torch.Generator().manual_seed(seed)
    loud = {
        name: 0.5 if "embedding" in name else 1.5 * shape[-1] ** -0.5 if len(shape) > 1 else 0.1
        for name, shape in shapes.items()
    }
    weights = {
        name: (
            torch.randn(shape, generator=g) * loud[name]
            + ("norm.weight" in name or "norm1.weight" in name or "norm2.weight" in name)
        )
        for name, shape in shapes.items()
    }
    return SimpleNamespace(
        config=SimpleNamespace(text_config=text, vision_config=vision, projection_dim=WIDTH),
        state_dict=lambda: weights,
    )


def backbone(config: Config, **how) -> ClipBackbone:
    return ClipBackbone(
        clip(**how),
        Letters(),
        None,
        {"model": "tiny", "weights_sha256": str(sorted(how.items()))},
        config,
    )


def make(preset="paper", layers=2, **changes) -> PolClip:
    config = make_config(preset, **{**SMALL, **changes})
    return PolClip(config, backbone(config, layers=layers))


def record(i, pictures=True, golds=None, words=("the", "bat", "flew"), span=(1, 1), set=""):
    """Two candidates, the first one right; three pictures."""
    mammal = Candidate(f"m{i}", f"small mammal {i}", ("a", f"b{i % 3}") if pictures else ())
    club = Candidate(f"c{i}", f"wooden club {i}", (f"c{i % 3}",) if pictures else ())
    return Record(
        f"r{i}",
        "en",
        (*words, str(i)),
        span,
        (mammal, club),
        (f"m{i}",) if golds is None else golds,
        set=set,
    )


def states(names):
    """[N, places, v]: a picture's frozen states follow from its name."""
    seeds = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) for name in names]
    rows = [
        torch.randn(PLACES, VISION, generator=torch.Generator().manual_seed(seed)) for seed in seeds
    ]
    return torch.stack(rows) if rows else torch.zeros(0, PLACES, VISION)


BATCHES = [[record(i) for i in range(k, k + 2)] for k in range(5)]
PARTLY = [*BATCHES[:3], [record(8, pictures=False)], BATCHES[4]]


def data(batches=BATCHES, **facts):
    """Batches in another order each epoch."""
    return Data(
        lambda epoch: batches[epoch % len(batches) :] + batches[: epoch % len(batches)],
        len(batches),
        states,
        {"set": "toy", **facts},
    )


def digest(model) -> str:
    """Of all parameters, targets included."""
    return hashlib.sha256(
        b"".join(p.detach().numpy().tobytes() for p in model.parameters())
    ).hexdigest()


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, changes = (
        Path(sys.argv[1]),
        {k: json.loads(v) for k, v in (pair.split("=") for pair in sys.argv[2:])},
    )
    batches = PARTLY if changes.pop("partly", False) else BATCHES
    train(make(**changes), data(batches), folder, lambda model: {"textual": 50.0}, save_every=1)
