"""What PolCLIP stands on: two towers whose last blocks can be borrowed. Any CLIP checkpoint, or a
backbone that another package adds (the stand-ins: the lite encoder).

A backbone gives tokens, not only vectors, and lets a sequence made elsewhere run through its last
blocks. Blocks are borrowed by reference: what trains them in the tower trains them in the
generators.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from vwsdlib.errors import VwsdError
from vwsdlib.registry import Line, Registry

from .blocks import Block, mean
from .config import Config


class Backbone(nn.Module):
    """What a backbone has to give. Shapes: B texts of L tokens, N pictures of P places; text width
    w, vision width v, joint width d.
    """

    width: int
    vision_width: int
    dim: int
    length: int  # tokens of a text at most
    # tokens that a picture's places become: as many as a text has, where a causal mask of that size
    # is in the way
    sequence: int
    places: int  # P
    start: int
    end: int  # ids around a text; padding is 0
    tokenizer: Any

    def words(self, words: Sequence[str]) -> list[list[int]]:
        """The ids of each word, without start and end."""
        return [self.tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]

    def read(self, ids: Tensor, pads: Tensor | None) -> Tensor:
        """ids [B, L], pads [B, L] True where padding -> tokens [B, L, w]."""
        raise NotImplementedError

    def text_vector(self, tokens: Tensor, inside: Tensor) -> Tensor:
        """tokens [B, L, w], inside [B, L] True at the places read out -> [B, d]."""
        raise NotImplementedError

    def whole(self, end: Tensor, length: int) -> Tensor:
        """Places that stand for the whole text: end [B], the end token's place -> [B, L]."""
        raise NotImplementedError

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB pictures -> [N, 3, h, w]."""
        raise NotImplementedError

    def frozen_look(self, pixels: Tensor) -> Tensor:
        """[N, 3, h, w] -> [N, P, v]: through everything that is never trained, so it can be
        kept."""
        raise NotImplementedError

    def look(self, states: Tensor) -> Tensor:
        """[N, P, v] -> [N, P, v]: through the vision blocks that are trained, if any."""
        return states

    def picture_vector(self, states: Tensor) -> Tensor:
        """[N, P, v] -> [N, d]."""
        raise NotImplementedError

    def picture_tokens(self, states: Tensor) -> Tensor:
        """[N, P, v] -> [N, P, d]."""
        raise NotImplementedError

    def through_vision(self, x: Tensor, last: int, pads: Tensor | None) -> tuple[Tensor, Tensor]:
        """x [G, L, v] through the last blocks of the vision tower -> vectors [G, d], tokens [G, L,
        d].
        """
        raise NotImplementedError

    def through_text(self, x: Tensor, last: int, causal: bool) -> tuple[Tensor, Tensor]:
        """x [N, L, w] through the last blocks of the text tower -> vectors [N, d], tokens [N, L,
        w].
        """
        raise NotImplementedError

    def identity(self) -> dict:
        """model, revision, weights_sha256, processor, dtype: all that decides the frozen states of
        a picture.
        """
        raise NotImplementedError


class ClipBackbone(Backbone):
    """CLIP's two towers, from a transformers `CLIPModel`. Notes on the released code at each line;
    text tokens are not projected, picture tokens are.

    Shapes as `Backbone` gives them: texts [B, L, w], pictures [N, P, v], vectors [., d].
    """

    def __init__(self, model, tokenizer, processor, identity: dict, config: Config):
        super().__init__()
        text, vision = model.config.text_config, model.config.vision_config
        self.width, self.vision_width = text.hidden_size, vision.hidden_size
        self.dim = model.config.projection_dim
        if self.width != self.dim:
            raise VwsdError(
                f"the text tower's width {self.width} is not that of the joint space, {self.dim}",
                where=identity["model"],
                remedy="PolCLIP's former reads tokens of both: choose a CLIP where they agree"
                " (OpenAI's ViTs do).",
            )
        self.length = self.sequence = text.max_position_embeddings
        self.places = (vision.image_size // vision.patch_size) ** 2 + 1
        self.tokenizer, self.processor, self._identity = tokenizer, processor, identity
        self.start = tokenizer.convert_tokens_to_ids("<|startoftext|>")
        self.end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
        self._add_text_tower(text)
        self._add_vision_tower(vision)
        self.load_state_dict(_weights(model.state_dict()))
        if config.train_text_projection:
            projection = self.text_projection.clone()
            del self.text_projection
            self.text_projection = nn.Parameter(projection)
        self._freeze(config)

    def _add_text_tower(self, text) -> None:
        self.token_embedding = nn.Embedding(text.vocab_size, self.width)
        self.position = nn.Embedding(self.length, self.width)
        self.text_blocks = nn.ModuleList(_block(text) for _ in range(text.num_hidden_layers))
        self.ln_final = nn.LayerNorm(self.width, text.layer_norm_eps)
        # constant, as released
        self.register_buffer("text_projection", torch.zeros(self.width, self.dim))

    def _add_vision_tower(self, vision) -> None:
        width, patch = self.vision_width, vision.patch_size
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.patches = nn.Conv2d(3, width, patch, patch, bias=False)
        self.vision_position = nn.Embedding(self.places, width)
        self.ln_pre = nn.LayerNorm(width, vision.layer_norm_eps)
        self.ln_post = nn.LayerNorm(width, vision.layer_norm_eps)
        self.vision_blocks = nn.ModuleList(_block(vision) for _ in range(vision.num_hidden_layers))
        self.vision_projection = nn.Parameter(torch.zeros(width, self.dim))

    def _freeze(self, config: Config) -> None:
        """By module: embeddings, LN before the blocks, and all blocks but the last `open_text` and
        `open_vision`.
        """
        closed_text = max(0, len(self.text_blocks) - config.open_text)
        self.frozen_blocks = max(0, len(self.vision_blocks) - config.open_vision)
        for part in (
            self.token_embedding,
            self.position,
            self.text_blocks[:closed_text],
            self.class_embedding,
            self.patches,
            self.vision_position,
            self.ln_pre,
            self.vision_blocks[: self.frozen_blocks],
        ):
            part.requires_grad_(False)

    def read(self, ids: Tensor, pads: Tensor | None) -> Tensor:
        """Tokens after the final LN; attention is causal, so padding behind a text changes nothing
        before it.
        """
        x = self.token_embedding(ids) + self.position.weight[: ids.shape[1]]  # [B, L, w]
        for block in self.text_blocks:
            x = block(x, causal=True)
        return self.ln_final(x)

    def text_vector(self, tokens: Tensor, inside: Tensor) -> Tensor:
        """Mean over the places inside (one: the end token; or the target's), projected: [B, d]."""
        return mean(tokens, ~inside) @ self.text_projection

    def whole(self, end: Tensor, length: int) -> Tensor:
        """The end token alone."""
        return F.one_hot(end, length).bool()

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """By the checkpoint's own processor."""
        return self.processor(list(images), return_tensors="pt")["pixel_values"]

    @torch.no_grad()
    def frozen_look(self, pixels: Tensor) -> Tensor:
        """Patches, class token, positions, LN and the blocks that are never trained."""
        x = self.patches(pixels.to(self.patches.weight.dtype))
        x = x.flatten(2).transpose(1, 2)  # [N, P-1, v]
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1)  # [N, P, v]
        x = self.ln_pre(x + self.vision_position.weight)
        for block in self.vision_blocks[: self.frozen_blocks]:
            x = block(x)
        return x

    def look(self, states: Tensor) -> Tensor:
        """The vision blocks that are trained: none by default."""
        for block in self.vision_blocks[self.frozen_blocks :]:
            states = block(states)
        return states

    def picture_vector(self, states: Tensor) -> Tensor:
        """LN of the class token, projected."""
        return self.ln_post(states[:, 0]) @ self.vision_projection

    def picture_tokens(self, states: Tensor) -> Tensor:
        """All block outputs, projected without the LN, as released."""
        return states @ self.vision_projection

    def through_vision(self, x: Tensor, last: int, pads: Tensor | None) -> tuple[Tensor, Tensor]:
        """Last blocks; the vector is LN of the mean over places, projected."""
        for block in self.vision_blocks[-last:]:
            x = block(x, pads=pads)
        return self.ln_post(mean(x, pads)) @ self.vision_projection, x @ self.vision_projection

    def through_text(self, x: Tensor, last: int, causal: bool) -> tuple[Tensor, Tensor]:
        """Last blocks and final LN; the vector is the mean over places, projected."""
        for block in self.text_blocks[-last:]:
            x = block(x, causal=causal)
        x = self.ln_final(x)
        return x.mean(1) @ self.text_projection, x

    def identity(self) -> dict:
        """The checkpoint's."""
        return self._identity


def _block(config) -> Block:
    return Block(
        config.hidden_size,
        config.num_attention_heads,
        config.intermediate_size,
        config.hidden_act,
        config.layer_norm_eps,
    )


# our names -> those of transformers' CLIPModel; a whole module's weight and bias, or one tensor
NAMES = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "position.weight": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "class_embedding": "vision_model.embeddings.class_embedding",
    "patches.weight": "vision_model.embeddings.patch_embedding.weight",
    "vision_position.weight": "vision_model.embeddings.position_embedding.weight",
    "ln_pre": "vision_model.pre_layrnorm",
    "ln_post": "vision_model.post_layernorm",
}
BLOCK = {
    "attention.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "inner": "mlp.fc1",
    "outer": "mlp.fc2",
}
LAYER = re.compile(r"(text|vision)_model\.encoder\.layers\.(\d+)\.")


def _weights(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """A transformers CLIPModel's state as ours; queries, keys and values are put into one
    matrix.
    """
    ours = {
        "text_projection": theirs["text_projection.weight"].T,
        "vision_projection": theirs["visual_projection.weight"].T,
    }
    names = dict(NAMES)
    for tower, number in {match.groups() for match in map(LAYER.match, theirs) if match}:
        block, layer = f"{tower}_blocks.{number}", f"{tower}_model.encoder.layers.{number}"
        names |= {f"{block}.{part}": f"{layer}.{other}" for part, other in BLOCK.items()}
        for name, tensor in _taken(theirs, layer).items():
            ours[f"{block}.{name}"] = tensor
    for name, other in names.items():
        for ending in ("", ".weight", ".bias"):
            if other + ending in theirs:
                ours[name + ending] = theirs[other + ending]
    return ours


def _taken(theirs: dict[str, Tensor], layer: str) -> dict[str, Tensor]:
    """Queries, keys and values of one of transformers' layers in one matrix, and one vector."""
    joined = {}
    for kind in ("weight", "bias"):
        parts = [theirs[f"{layer}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
        joined[f"attention.in_proj_{kind}"] = torch.cat(parts)
    return joined


# further backbones, each made of a configuration
BACKBONES = Registry(Line, "polclip.backbones", {})


def load_backbone(config: Config) -> Backbone:
    """The backbone that a configuration names: one of BACKBONES, or a CLIP checkpoint by its key
    (which may be fetched, or lie below VWSD_MODELS); VwsdError for any other.
    """
    if config.backbone in BACKBONES:
        return BACKBONES[config.backbone](config)
    from vwsdlib.encoders.pretrained import RECIPES, load_encoder_parts

    able = [
        key
        for key, recipe in RECIPES.items()
        if recipe.model == "CLIPModel" and not recipe.tower and not recipe.override
    ]  # positions for one size
    if config.backbone not in able:
        raise VwsdError(
            f"{config.backbone!r} is no backbone",
            where="PolCLIP's configuration",
            remedy=f"Choose {', '.join(BACKBONES)} or a CLIP: {', '.join(able)}.",
        )
    model, tokenizer, processor, identity = load_encoder_parts(config.backbone)
    return ClipBackbone(model, tokenizer, processor, identity, config)
