"""Networks as transformers reads them from a checkpoint's folder, and the text towers whose layout
is their own.

Nothing is left to chance: a tensor that is missing, or has no numbers, is an error, and so is a
configuration that asks for another model than the weight files hold.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import torch
import transformers
from safetensors import safe_open

from ..errors import VwsdError, first_line
from .checkpoints import FETCH_AGAIN, PARTS, read_part, stored_numbers, weight_files

# what it would report (weights that do not fit) is an error here; see load_part
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
MOST_LAYERS = 1000
# numbers that a model may have beside those of its files: buffers, tied and unused parts
MOST_TIMES = 4
# what a class's weights are called in its checkpoints, where some releases of transformers do not
# know it themselves (5.17 takes CLIPSeg's `clip.` for another model's)
STORED_AS = {"CLIPSegModel": {r"^clip\.": ""}}
QUICK = 1.702  # quick GELU is x * sigmoid(1.702 x)
# M-CLIP's base model, of which its own files have the name alone
XLM_R_LARGE = json.loads(Path(__file__).with_name("xlm_roberta_large.json").read_text())


def load_part(part: str, folder: Path, **options):
    """`transformers.<part>` from a folder; VwsdError where files are missing or damaged, or weights
    would be left to chance.

    A model is built only where its configuration asks for about as many numbers as the weight files
    hold (`check_size`).
    """
    cls = getattr(transformers, part)
    try:
        if not hasattr(cls, "forward"):
            return cls.from_pretrained(folder, local_files_only=True, **options)
        check_size(cls, folder)
        return _load_model(cls, folder, **options).eval().requires_grad_(False)
    except VwsdError:
        raise
    except Exception as e:
        # tokenizers raises bare Exceptions, transformers whatever a damaged file leads to
        raise VwsdError(
            f"{part} cannot be read: {first_line(e)}", where=folder, remedy=FETCH_AGAIN
        ) from e


def _load_model(cls: type, folder: Path, **options) -> torch.nn.Module:
    """A model all of whose tensors come from the files; ValueError where one does not."""
    options |= {"output_loading_info": True, "attn_implementation": "eager"}
    options["key_mapping"] = STORED_AS.get(cls.__name__)
    model, info = cls.from_pretrained(folder, local_files_only=True, **options)
    if info.get("missing_keys"):
        raise ValueError(f"no weights for {', '.join(sorted(info['missing_keys'])[:3])}")
    if info.get("mismatched_keys"):
        raise ValueError(f"weights of another shape for {min(info['mismatched_keys'])[0]}")
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError("some of its tensors have no numbers")
    return model


def check_size(cls: type, folder: Path) -> None:
    """VwsdError where a configuration asks for a far larger model than the weight files hold,
    before any of it is in memory.
    """
    config = cls.config_class.from_pretrained(folder, local_files_only=True)
    settings = config.to_dict()
    parts = [value for value in settings.values() if isinstance(value, dict)]
    if any(_too_deep(part) for part in (settings, *parts)):
        raise VwsdError(
            f"the configuration asks for more than {MOST_LAYERS:,} layers",
            where=folder / "config.json",
            remedy=FETCH_AGAIN,
        )
    with torch.device("meta"):
        empty = cls(config)
    asked = sum(tensor.numel() for tensor in empty.parameters())
    stored = stored_numbers(folder)
    if asked > MOST_TIMES * stored:
        _open_whole(folder)
        raise VwsdError(
            f"the configuration asks for {asked:,} numbers, the weight files hold {stored:,} at"
            " most",
            where=folder / "config.json",
            remedy=(
                "Configuration and weights are not of one model: fetch the checkpoint again: vwsd"
                " fetch models"
            ),
        )


def _too_deep(settings: dict) -> bool:
    layers = [value for key, value in settings.items() if str(key).endswith("layers")]
    return any(isinstance(count, int) and count > MOST_LAYERS for count in layers)


def _open_whole(folder: Path) -> None:
    """A file that was cut off is small too, and says so itself when it is opened."""
    for file in weight_files(folder):
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt"):
                pass


def two_products(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    **_,
) -> tuple[torch.Tensor, None]:
    """Attention without a mask as its two products, [n, heads, length, width] -> [n, length, heads,
    width].

    On processors with bf16 products, the fused kernel of torch 2.13 takes 1.6 times as long at 50
    to 500 tokens; in fp32 it is the faster one.
    """
    weights = torch.softmax((query * scaling) @ key.transpose(-1, -2), -1)
    return (weights @ value).transpose(1, 2).contiguous(), None


transformers.AttentionInterface.register("two products", two_products)


@torch.no_grad()
def fold_quick_gelu(tower: torch.nn.Module) -> None:
    """Turn a tower's quick GELU into SiLU, with its factor in the weights around it: one pass over
    the widest numbers in place of three.
    """
    for layer in cast(torch.nn.ModuleList, tower.encoder.layers):
        layer.mlp.fc1.weight.mul_(QUICK)
        layer.mlp.fc1.bias.mul_(QUICK)
        layer.mlp.fc2.weight.div_(QUICK)
        layer.mlp.activation_fn = torch.nn.SiLU()


class MeanTower(torch.nn.Module):
    """Mean of a transformer's token states, then a linear map into CLIP's space (Carlsson et al.
    2022; Reimers and Gurevych 2020).
    """

    def __init__(self, transformer: torch.nn.Module, weights: dict[str, torch.Tensor]):
        super().__init__()
        self.transformer = transformer
        self.linear = torch.nn.Linear(*weights["weight"].shape[::-1], bias="bias" in weights)
        self.linear.load_state_dict(weights)
        self.eval().requires_grad_(False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """ids and mask (1 where a token is) [n, length] -> [n, dim], not normalised."""
        read = self.transformer(input_ids=input_ids, attention_mask=attention_mask)
        states = read.last_hidden_state  # [n, length, width]
        weight = attention_mask[..., None].to(states.dtype)
        return self.linear((states * weight).sum(1) / weight.sum(1))  # [n, dim]


def load_mclip(folder: Path) -> MeanTower:
    """M-CLIP's own layout: tensors of XLM-R under `transformer.`, a linear map with bias; only the
    base model's name is in its configuration. VwsdError where tensors are missing.
    """
    tensors = read_part(folder)
    transformer = _empty_xlm_r(folder)
    shapes = {f"transformer.{name}": p.shape for name, p in transformer.named_parameters()}
    linear = {name: f"LinearTransformation.{name}" for name in ("weight", "bias")}
    check_shapes(tensors, shapes | dict.fromkeys(linear.values()), folder)
    transformer = transformer.to_empty(device="cpu")
    for name, buffer in transformer.named_buffers():  # positions and token types are not stored
        places = name.endswith("position_ids")
        buffer.copy_(torch.arange(buffer.shape[-1]) if places else torch.zeros_like(buffer))
    part = {
        name.removeprefix("transformer."): tensor
        for name, tensor in tensors.items()
        if name.startswith("transformer.")
    }
    transformer.load_state_dict(part, strict=False)  # the pooler is there and not used
    return MeanTower(transformer, {name: tensors[theirs] for name, theirs in linear.items()})


def _empty_xlm_r(folder: Path) -> torch.nn.Module:
    """XLM-R without numbers, so without time for random ones; VwsdError for a damaged
    configuration.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        shape = config.get("xlm_config", XLM_R_LARGE)
        with torch.device("meta"):
            config = transformers.XLMRobertaConfig(**shape, attn_implementation="eager")
            return transformers.XLMRobertaModel(config, add_pooling_layer=False)
    except Exception as e:  # whatever a damaged configuration leads to
        raise VwsdError(
            f"the configuration of M-CLIP cannot be used: {first_line(e)}",
            where=folder / "config.json",
            remedy="Fetch it again: vwsd fetch models --only mclip",
        ) from e


def load_sentence(folder: Path) -> MeanTower:
    """The layout of sentence-transformers: a transformer, mean pooling, and `2_Dense`, a linear map
    without bias.
    """
    dense = read_part(folder, PARTS[1])
    check_shapes(dense, {"linear.weight": None}, folder)
    return MeanTower(load_part("DistilBertModel", folder), {"weight": dense["linear.weight"]})


def check_shapes(
    tensors: dict[str, torch.Tensor], shapes: dict[str, torch.Size | None], folder: Path
) -> None:
    """VwsdError where a tensor is missing or has another shape than it must (None: any)."""
    missing = [name for name in shapes if name not in tensors]
    if missing:
        what = f"no weights for {', '.join(missing[:3])}"
        raise VwsdError(what, where=folder, remedy=FETCH_AGAIN)
    for name, shape in shapes.items():
        if shape is not None and tensors[name].shape != shape:
            raise VwsdError(
                f"{name} has the shape {tuple(tensors[name].shape)}, the configuration asks for"
                f" {tuple(shape)}",
                where=folder,
                remedy=FETCH_AGAIN,
            )


TOWERS = {"mclip": load_mclip, "clip-b32-multilingual": load_sentence}
