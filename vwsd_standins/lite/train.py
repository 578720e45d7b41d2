"""Trains the lite encoder's head: `python -m vwsd_standins.lite.train --sources FOLDER`.

For maintainers (docs/lite-encoder.md): the head is shipped. FOLDER holds the packages that
sources.yml names; how to get a missing one is said. About half an hour on two cores, most of it
looking at the drawings, which is kept in the cache: a second training takes ten minutes. The same
packages, recipe and machine give the same bits.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import product
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vwsdlib import paths
from vwsdlib.analysis.scorers import texts_of
from vwsdlib.data.pictures import load_picture
from vwsdlib.data.sets import load_set
from vwsdlib.encoders.streams import side_by_side
from vwsdlib.errors import VwsdError
from vwsdlib.kept import digest, kept
from vwsdlib.progress import tqdm

from ..emojiwsd.drawings import STYLES
from ..text_tower import DIM, fixed_threads
from . import drawings
from .drawings import MARGINS, Named, named_drawings, render, strict, varied
from .encoder import HEAD, PACKAGES, TOOLS, Head, LiteEncoder, conse, versions
from .towers import BACKBONE_SHA256, FEATURES, IMAGE_BATCH, SIDE, SUMMARY, Towers, class_names

TRIED = Path(__file__).with_name("tried.jsonl")
PART = 1000  # drawings whose summaries are kept together
ALIKE = 0.98  # cosine of two names from which on either is right for the other's drawing


@dataclass(frozen=True)
class Recipe:
    """How the head is trained; every field is an option of the command."""

    strict: int = 0  # 1: leave out drawings whose name has a sense's name in it, too
    share: float = 1.0  # of the drawings that are taken
    views: int = 2  # of each drawing: as it is, and varied
    width: int = 1536  # of the hidden layer
    steps: int = 2000
    rate: float = 1e-3  # the highest; it rises for a twentieth of the steps and falls by a cosine
    batch: int = 384  # drawings; a class of the classifier comes along for every twelve
    temperature: float = 0.07
    dropout: float = 0.5
    decay: float = 0.01
    more: float = 0.3  # how often a drawing goes by its name with keywords
    own: float = 4.0  # how often emoji in EmojiWSD's styles are drawn, others: once
    average: float = 0.998  # what is kept of the averaged weights at each step
    strange: float = 8.0  # c of the formula; drawings cannot teach it
    seed: int = 0


class Pairs(NamedTuple):
    """What the two locked networks make of drawings and of their names."""

    summaries: torch.Tensor  # [views, n, SUMMARY] float16
    names: torch.Tensor  # [n, 384]: text vectors of the names
    more: torch.Tensor  # [n, 384]: of the names with keywords
    number: torch.Tensor  # [n] integers: the same for the same name
    weight: torch.Tensor  # [n]: how often a drawing is taken


# ---------------------------------------------------------------- what the networks make of it


def look(towers: Towers, named: Sequence[Named], view: int = 0) -> torch.Tensor:
    """[n, SUMMARY] float16, not a number where a drawing cannot be drawn. view: 0 as it is, others
    varied (`drawings.varied`), each otherwise. Kept in the cache in parts, so that a killed run
    goes on where it was.
    """
    how = [BACKBONE_SHA256, versions((*PACKAGES, *TOOLS, "resvg-py")), view, MARGINS]
    if view:
        how += [drawings.TURN, drawings.SMALLEST, drawings.COLOURS]
    rows = []
    for start in tqdm(range(0, len(named), PART), desc=f"view {view}", unit="thousand"):
        part = named[start : start + PART]
        key = digest([*how, [list(one) for one in part]])[:16]
        path = paths.cache_dir() / "lite" / "drawings" / f"{key}.npy"
        make = partial(_look, towers, part, view)
        rows.append(kept(path, _read, make, _write, (OSError, ValueError)))
    return torch.from_numpy(np.concatenate(rows))


def _read(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def _write(rows: np.ndarray, path: Path) -> None:
    with open(path, "wb") as file:
        np.save(file, rows)


def _look(towers: Towers, part: Sequence[Named], view: int) -> np.ndarray:
    """float16 [n, SUMMARY]; not a number where a drawing cannot be drawn."""

    def batch(start: int) -> np.ndarray:
        pictures = [_shown(one, view) for one in part[start : start + IMAGE_BATCH]]
        squares = [np.asarray(picture or blank) for picture in pictures]
        rows = towers.summaries(np.stack(squares))[: len(pictures)].numpy()
        rows[[picture is None for picture in pictures]] = np.nan
        return rows.astype(np.float16)

    blank = np.full((SIDE, SIDE, 3), 255, np.uint8)
    with fixed_threads():
        return np.concatenate(list(side_by_side(batch, range(0, len(part), IMAGE_BATCH))))


def _shown(one: Named, view: int) -> Image.Image | None:
    picture = render(one, SIDE)
    if view and picture:
        return varied(picture, Random(f"{one.source}:{one.id}:{view}"))
    return picture


def pairs_of(towers: Towers, named: Sequence[Named], recipe: Recipe) -> Pairs:
    """Of all drawings that can be drawn and that the recipe takes, with all views."""
    seen = torch.stack([look(towers, named, view) for view in range(recipe.views)])
    allowed = set(strict(named)) if recipe.strict else set(named)
    dice = Random(recipe.seed)
    taken = torch.tensor([one in allowed and dice.random() < recipe.share for one in named])
    there = taken & ~seen[:, :, 0].isnan().any(0)
    shown = [one for one, take in zip(named, there.tolist()) if take]
    texts = sorted({text for one in shown for text in (one.name, one.more)})
    row = {text: i for i, text in enumerate(texts)}
    vectors = towers.texts(texts)
    number = torch.tensor([row[one.name] for one in shown])
    more = torch.tensor([row[one.more] for one in shown])
    weight = torch.tensor([recipe.own if one.source in STYLES else 1.0 for one in shown])
    return Pairs(seen[:, there], vectors[number], vectors[more], number, weight)


# ---------------------------------------------------------------- training


class Network(torch.nn.Module):
    """The head while it is trained: `encoder.apply_head` with dropout, products in bfloat16."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.LayerNorm(SUMMARY, elementwise_affine=False),
            torch.nn.Dropout(dropout),
            torch.nn.Linear(SUMMARY, width),
            torch.nn.GELU(),
            torch.nn.Dropout(dropout),
            torch.nn.Linear(width, DIM),
        )
        self.gate = torch.nn.Parameter(torch.tensor([0.3, 0.3]))

    def forward(
        self, standardised: torch.Tensor, named: torch.Tensor, sure: torch.Tensor
    ) -> torch.Tensor:
        """[b, SUMMARY], [b, 384], [b, 1] -> [b, 384] unit rows."""
        with torch.autocast("cpu", torch.bfloat16):
            learnt = self.layers(standardised)
        gate = self.gate[0] + self.gate[1] * sure
        return F.normalize(gate * named + learnt.float(), dim=-1)


def train(pairs: Pairs, towers: Towers, recipe: Recipe) -> Head:
    """The head, by the contrastive loss in both directions; the same pairs and recipe give the same
    bits. The classifier's rows come along as pictures of their classes.
    """
    dice = torch.Generator().manual_seed(recipe.seed)
    whole = pairs.summaries[0].float()
    mean, deviation = whole.mean(0), whole.std(0) + 1e-3
    length = whole[:, :FEATURES].norm(dim=1).mean()
    del whole
    distinct = torch.unique(pairs.number, return_inverse=True)[1]
    centre = torch.zeros(int(distinct.max()) + 1, DIM).index_copy(0, distinct, pairs.names).mean(0)
    texts = towers.texts(class_names())
    texts = texts - texts.mean(0)  # [1000, 384]
    classes = F.normalize(texts, dim=-1)
    rows = torch.zeros(len(classes), SUMMARY)
    rows[:, :FEATURES] = F.normalize(towers.backbone._fc.weight, dim=-1) * length
    rows[:, :FEATURES] = (rows[:, :FEATURES] - mean[:FEATURES]) / deviation[:FEATURES]
    torch.manual_seed(recipe.seed)  # here: networks that are loaded draw numbers, too
    network, average = _networks(recipe)
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    falling = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.rate, total_steps=recipe.steps, pct_start=0.05, cycle_momentum=False
    )
    views, extra = len(pairs.summaries), recipe.batch // 12
    with fixed_threads():
        for _ in tqdm(range(recipe.steps), desc="head", unit="step", disable=paths.quiet()):
            some = torch.multinomial(pairs.weight, recipe.batch, True, generator=dice)
            view = torch.randint(views, some.shape, generator=dice)
            keyed = torch.rand(len(some), 1, generator=dice) < recipe.more
            kinds = torch.randint(len(classes), (extra,), generator=dice)
            features = pairs.summaries[view, some].float()
            p = towers.classify(features[:, :FEATURES])
            named = torch.where(keyed, pairs.more[some], pairs.names[some]) - centre
            v = network(
                torch.cat([(features - mean) / deviation, rows[kinds]]),
                torch.cat([conse(texts, p), classes[kinds]]),
                torch.cat([p.amax(1, keepdim=True), torch.ones(extra, 1)]),
            )
            t = torch.cat([F.normalize(named, dim=-1), classes[kinds]])
            number = torch.cat([pairs.number[some], -1 - kinds])
            loss = contrastive(v, t, number, recipe.temperature)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            falling.step()
            average.update_parameters(network)
    kept = average.module
    gate = torch.cat([kept.gate.detach(), torch.tensor([recipe.strange])])
    parts = {"centre": centre, "classes": texts, "mean": mean, "deviation": deviation, "gate": gate}
    for name, layer in (("first", kept.layers[2]), ("second", kept.layers[5])):
        parts |= {f"{name}.weight": layer.weight.detach(), f"{name}.bias": layer.bias.detach()}
    return {name: tensor.half().float().contiguous() for name, tensor in parts.items()}


def _networks(recipe: Recipe) -> tuple[Network, AveragedModel]:
    network = Network(recipe.width, recipe.dropout)
    follow = get_ema_multi_avg_fn(recipe.average)
    return network, AveragedModel(network, multi_avg_fn=follow)


def contrastive(
    v: torch.Tensor, t: torch.Tensor, number: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Cross-entropy of pictures to texts and of texts to pictures; all drawings of a name, or of a
    name ALIKE, are right. v, t: [b, 384] unit rows; number: [b].
    """
    logits = v @ t.T / temperature
    same = (number[:, None] == number) | (t @ t.T > ALIKE)
    gold = same.float() / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, gold) + F.cross_entropy(logits.T, gold)) / 2


# ---------------------------------------------------------------- how good it is


def ranks(encoder: LiteEncoder, split: str, variant: str) -> list[int]:
    """Rank of each English item's gold picture, 1 to 10: how many candidates score at least as
    high.
    """
    data = load_set("emojiwsd", "en", split)
    files = sorted({data.path(name) for item in data.items for name in item.candidates})
    vectors = encoder.encode_images([load_picture(file).image for file in files])
    row = dict(zip(files, vectors))
    made = []
    for item, text in zip(data.items, encoder.encode_texts(texts_of(data.items, variant))):
        scores = np.stack([row[data.path(name)] for name in item.candidates]) @ text
        made.append(int((scores >= scores[item.gold_index]).sum()))
    return made


def tried(encoder: LiteEncoder, recipe: Recipe, drawn: int, splits: Sequence[str]) -> dict:
    """A line of tried.jsonl: what was trained how, and the ranks that its figures are made of."""
    line: dict[str, object] = {"drawings": drawn, "recipe": asdict(recipe)}
    for split, variant in product(splits, ("phrase", "word")):
        line[f"{split} {variant}"] = ranks(encoder, split, variant)
    return line


def hit(ranked: Sequence[int]) -> str:
    """ "52.1 % of 240" """
    return f"{100 * np.mean(np.array(ranked) == 1):.1f} % of {len(ranked)}"


# ---------------------------------------------------------------- the command


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m vwsd_standins.lite.train", description=__doc__)
    parser.add_argument("--sources", type=Path, required=True, help="where the packages lie")
    parser.add_argument(
        "--out", type=Path, default=HEAD, help="the head (default: what is shipped)"
    )
    parser.add_argument("--test", action="store_true", help="rank the test half, too")
    for field in fields(Recipe):
        kind = type(field.default)
        parser.add_argument(f"--{field.name}", type=kind, default=field.default, metavar="N")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, write, say what dev says; 2 where a package is missing."""
    options = parse(arguments)
    recipe = Recipe(**{field.name: getattr(options, field.name) for field in fields(Recipe)})
    splits = ("dev", "test") if options.test else ("dev",)
    try:
        for split in splits:  # what is ranked at the end is there before the long work
            load_set("emojiwsd", "en", split)
        named = named_drawings(options.sources)
        towers = Towers()
    except VwsdError as e:
        print(e, file=sys.stderr)
        return 2
    pairs = pairs_of(towers, named, recipe)
    head = train(pairs, towers, recipe)
    with paths.atomic(options.out) as temporary:
        save_file({name: tensor.half() for name, tensor in head.items()}, temporary)
    line = tried(LiteEncoder(towers, head), recipe, len(pairs.number), splits)
    with open(TRIED, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(f"{options.out}: SHA-256 {paths.sha256_file(options.out)}")
    for split in splits:
        phrase, word = (hit(line[f"{split} {variant}"]) for variant in ("phrase", "word"))
        print(f"{split}, phrase: {phrase}; bare word: {word}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
