"""Every way into a network, driven on the second device (`other_device`) and compared with the
processor.

    python -m tests.on_other_device [--json]

prints a line each: "ok" where the numbers are the processor's, else how far off they are or what
was raised. Then three faults that stopped a card once are put in again, to see that they are seen.
Exit code 1 where an entry point is not ok, or a fault is. Tiny checkpoints, generated here; half a
minute.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from polclip import model as polclip_model
from polclip.backbone import load_backbone
from polclip.batches import Texts, collate, pictures_of
from polclip.checkpoints import load_polclip, write_checkpoint
from polclip.config import make_config
from polclip.evaluate import multimodal_record, textual_scores, visual_scores
from polclip.look import attention_maps, sense_points
from polclip.model import PolClip
from polclip.states import PictureStates
from polclip.train import make_optimizer
from vwsd_standins import lite, lite_backbone
from vwsd_standins.rehearsal import models, translators
from vwsdlib import device
from vwsdlib.analysis import saliency
from vwsdlib.analysis.masks import MaskStore
from vwsdlib.data.wsd import WsdItem
from vwsdlib.encoders import crops as crops_module
from vwsdlib.encoders.clipseg import ClipSegSegmenter
from vwsdlib.encoders.networks import Network
from vwsdlib.encoders.pretrained import load_pretrained
from vwsdlib.encoders.store import VectorStore
from vwsdlib.language import definitions, translate

from .other_device import NAME, register

sys.path.insert(0, str(Path(__file__).with_name("unit")))
import polclip_tiny as tiny

HALF = 3e-2  # the CPU takes other steps in half precision, on purpose
EXACT = 1e-4
TEXTS = ["fruit bat", "a wooden club"]
ENCODERS = ["clip-vit-b32", "clip-vit-b16-352", "clip-vit-b32@bf16", "siglip2-base", "mclip"]
ENCODERS += ["clip-b32-multilingual", "clipseg-rd64"]
EXPLAINED = ["clip-vit-b32", "clip-vit-b32@bf16", "siglip2-base"]


class Ground:
    """What is driven on one device: its files are made in `folder`, one set for both devices."""

    def __init__(self, folder: Path, here: str):
        self.folder, self.here = folder, here
        rng = np.random.default_rng(0)
        shapes = [(90, 120), (130, 70), (64, 64)]
        noise = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
        self.pictures = [Image.fromarray(pixels) for pixels in noise]
        self.files = [folder / f"{i}.png" for i in range(len(noise))]
        for picture, file in zip(self.pictures, self.files):
            picture.save(file)
        self.encoder = cache(self._encoder)
        self.segmenter = cache(lambda: ClipSegSegmenter("clipseg-rd64"))

    def _encoder(self, name: str):
        return load_pretrained(*name.split("@"))

    def check(self, network: torch.nn.Module) -> None:
        """RuntimeError where a network's weights lie elsewhere."""
        elsewhere = {p.device.type for p in network.parameters()} - {self.here.partition(":")[0]}
        if elsewhere:
            raise RuntimeError(f"weights stay on {', '.join(elsewhere)}")

    def rows(self, name: str) -> Path:
        return self.folder / self.here.partition(":")[0] / name


def pictures(name: str, ground: Ground):
    """Vectors of pictures in memory."""
    encoder = ground.encoder(name)
    rows = encoder.encode_images(ground.pictures)
    ground.check(encoder.model)
    return rows


def store(name: str, ground: Ground):
    """Vectors of picture files, of pictures and of texts through the store."""
    kept = VectorStore(ground.encoder(name), ground.rows("vectors"))
    return kept.images(ground.files), kept.pictures(ground.pictures), kept.texts(TEXTS)


def relevance(name: str, ground: Ground):
    """The encoder's own map, after it has encoded."""
    encoder = ground.encoder(name)
    return saliency.relevance(encoder, ground.pictures[0], encoder.encode_texts(TEXTS))


def covered(name: str, ground: Ground):
    """Occlusion."""
    encoder = ground.encoder(name)
    return saliency.occlusion(encoder, ground.pictures[0], encoder.encode_texts(TEXTS))


def gradients(name: str, ground: Ground):
    """Integrated gradients."""
    encoder = ground.encoder(name)
    vector = encoder.encode_texts(TEXTS)[0]
    return saliency.integrated_gradients(encoder, ground.pictures[0], vector, steps=4)


def crops(name: str, ground: Ground):
    """Random crops."""
    encoder = ground.encoder(name)
    vectors = encoder.encode_texts(TEXTS)
    made = saliency.random_crop(encoder.encode_images, ground.pictures[0], vectors, n=20)
    return made.published, made.by_visits


def masks(ground: Ground):
    """The segmenter's masks."""
    made = ground.segmenter().masks(ground.pictures[0], TEXTS)
    ground.check(ground.segmenter()._decoder())
    return made


def mask_store(ground: Ground):
    """Numbers of masks through their store."""
    pairs = [(file, text) for file in ground.files for text in TEXTS]
    return MaskStore(ground.segmenter(), ground.rows("masks")).statistics(pairs)


def translated(name: str, ground: Ground):
    """Translations by a checkpoint, identity and loading as `translate` has them."""
    entry = translate.TRANSLATORS[name]
    short = dataclasses.replace(entry, settings={**entry.settings, "max_new_tokens": 3})
    _, load = short(short, "it", "en")
    return [pairs for batch in load()(["gomma", "pipistrello"]) for pairs in batch]


def defined(ground: Ground):
    """A definition by an instruct model."""
    entry = definitions.DEFINERS["hf"]
    short = dataclasses.replace(entry, settings={"max_new_tokens": 3})
    _, load = short(short)
    item = WsdItem("1", "en", "bat", "n", ("the", "bat", "flew"), (1, 1), (), (), ())
    return [pairs for batch in load()([definitions.question(item)]) for pairs in batch]


def step(ground: Ground):
    """One step of PolCLIP's training: losses, gradients, weights and following towers."""
    model = tiny.make().to(ground.here).train()
    records = tiny.BATCHES[0]
    shown = tiny.states(pictures_of(records))
    losses = model(collate(records, model.coder, shown).to(ground.here))
    losses["loss"].backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    make_optimizer(model).step()
    model.follow()
    weights = [p.detach().double().sum().item() for p in model.parameters()]
    return [value.item() for value in losses.values()], norm.item(), weights


def answers(model: PolClip, states: Callable) -> list:
    """All that a trained PolCLIP answers."""
    records = [tiny.record(i) for i in range(3)]
    names = pictures_of(records)
    ten = [(names * 10)[:10]] * len(TEXTS)
    made = [textual_scores(model, records), visual_scores(model, TEXTS, ten, states)]
    made += [multimodal_record(model, records[0], states)]
    made += [sense_points(model, records[0].candidates, states)]
    return made


def loaded(ground: Ground) -> PolClip:
    """A trained PolCLIP from its checkpoint."""
    polclip_model.load_backbone = tiny.backbone
    config = make_config("paper", **tiny.SMALL)
    path = ground.folder / f"{ground.here.partition(':')[0]}.safetensors"
    facts = {"facts": {"backbone": {"weights_sha256": "[]"}}, "step": 1}
    write_checkpoint(path, PolClip(config), facts)
    try:
        model, _ = load_polclip(path)
    finally:
        polclip_model.load_backbone = load_backbone
    ground.check(model)
    return model


def loaded_answers(ground: Ground):
    """Answers of a PolCLIP from its checkpoint."""
    return answers(loaded(ground), tiny.states)


def attention(ground: Ground):
    """A trained PolCLIP's maps of attention."""
    model = tiny.make().to(ground.here).eval()
    model.backbone.tokenizer.convert_ids_to_tokens = lambda ids: [str(i) for i in ids]
    return attention_maps(model, tiny.record(0).candidates)


def on_clip(ground: Ground):
    """PolCLIP on a CLIP checkpoint: states of picture files, then answers."""
    config = make_config("paper", **{**tiny.SMALL, "borrowed": 1, "heads": 4})
    model = PolClip(config, load_backbone(config)).to(ground.here).eval()
    states = PictureStates(model.backbone, folder=ground.rows("states"))
    return states(ground.files), answers(model, lambda names: states(_files(ground, names)))


def on_lite(ground: Ground):
    """PolCLIP on the lite encoder, whose towers stay on the processor, as the demo has it."""
    lite_backbone.load_encoder = lambda name: lite.load_lite()
    model = PolClip(make_config("demo")).to(ground.here).eval()
    states = PictureStates(model.backbone, folder=ground.rows("states"))
    return answers(model, lambda names: states(_files(ground, names)))


def _files(ground: Ground, names) -> list[Path]:
    return [ground.files[sum(map(ord, name)) % len(ground.files)] for name in names]


def entry_points() -> dict[str, tuple[Callable, float]]:
    """Name -> (what is called with a Ground, how far its numbers may lie from the CPU's)."""
    driven = {}
    for kind, names in ((pictures, ENCODERS), (store, ENCODERS)):
        driven |= {f"{kind.__name__}, {name}": partial(kind, name) for name in names}
    for kind in (relevance, covered, gradients):
        driven |= {f"{kind.__name__}, {name}": partial(kind, name) for name in EXPLAINED}
    driven["crops, clip-vit-b32"] = partial(crops, "clip-vit-b32")
    driven["translated, opus-mt"] = partial(translated, "opus-mt")
    for kind in (masks, mask_store, defined, step, loaded_answers, attention, on_clip, on_lite):
        driven[kind.__name__] = kind
    halved = [name for name in driven if "bf16" in name] + ["on_clip"]  # its states are kept so
    return {name: (call, HALF if name in halved else EXACT) for name, call in driven.items()}


def numbers_of(made) -> list:
    """What came out as numbers and words in a row."""
    if isinstance(made, dict):
        made = list(made.values())
    if isinstance(made, (list, tuple)):
        return [x for part in made for x in numbers_of(part)]
    if isinstance(made, (np.ndarray, torch.Tensor)):
        return np.asarray(made, np.float64).ravel().tolist()
    return [made]


def compared(ours: list, theirs: list, tolerance: float) -> str:
    """ "ok", or what differs between the two devices."""
    if len(ours) != len(theirs):
        return f"{len(ours)} values, the processor gives {len(theirs)}"
    largest = 0.0
    for one, other in zip(ours, theirs):
        if isinstance(one, (int, float)) and isinstance(other, (int, float)):
            largest = max(largest, abs(one - other))
        elif one != other:
            return f"{one!r} in place of {other!r}"
    return "ok" if largest <= tolerance else f"off by {largest:.2g}"


def outcome(grounds: list[Ground], call: Callable, tolerance: float) -> str:
    """ "ok", or what differs, or what was raised."""
    made = []
    try:
        for ground in grounds:
            device.choose = lambda here=ground.here: here
            made.append(numbers_of(call(ground)))
    except Exception as e:
        return f"{type(e).__name__} on {ground.here}: {str(e)[:300]}"
    return compared(made[1], made[0], tolerance)


def grounds_in(folder: Path) -> list[Ground]:
    return [Ground(folder, "cpu"), Ground(folder, f"{NAME}:0")]


def drive(folder: Path) -> dict[str, str]:
    """Entry point -> outcome."""
    grounds = grounds_in(folder)
    return {name: outcome(grounds, *driven) for name, driven in entry_points().items()}


# what is put out of order -> (whose method, which, what it does instead, the entry point that shows
# it)
FAULTS = {
    "weights loaded in inference mode": (
        Network,
        "_loaded",
        lambda self: self._load(),
        "relevance, clip-vit-b32",
    ),
    "a text's ids left on the processor": (Texts, "to", lambda self, place: self, "attention"),
    "a trained PolCLIP left on the processor": (
        PolClip,
        "to",
        lambda self, place: self,
        "loaded_answers",
    ),
}


def with_faults(folder: Path) -> dict[str, str]:
    """Fault -> outcome of the entry point that shows it."""
    outcomes = {}
    for fault, (owner, method, instead, shown_by) in FAULTS.items():
        with mock.patch.object(owner, method, instead):
            outcomes[fault] = outcome(grounds_in(folder), *entry_points()[shown_by])
    return outcomes


def main() -> int:
    """Drive all and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"VWSD_MODELS": name, "VWSD_CACHE": f"{name}/cache"}
        models.make_models(folder)
        kept = ("opus-mt-it-en", "qwen2.5-1.5b-instruct")
        translators.MAKERS = {key: translators.MAKERS[key] for key in kept}
        translators.make_translators(folder)
        register()
        crops_module.PILLOWS = ()  # torch resizes on both; Pillow's values are another's by one
        driven, faults = drive(folder), with_faults(folder)
    wrong = sum(came != "ok" for came in driven.values())
    unseen = sum(came == "ok" for came in faults.values())
    if "--json" in sys.argv:
        print(json.dumps({"driven": driven, "faults": faults}))
        return 1 if wrong or unseen else 0
    for name, came in (driven | faults).items():
        print(f"{name:40} {came}")
    print(f"{len(driven)} entry points driven, {wrong} mismatches; {unseen} faults not seen")
    return 1 if wrong or unseen else 0


if __name__ == "__main__":
    sys.exit(main())
