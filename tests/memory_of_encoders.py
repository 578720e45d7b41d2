"""How much memory notebook 03 takes when it walks from one large encoder to the next.

    python -m tests.memory_of_encoders [CHECKPOINT ...]

writes checkpoints of the published sizes with random weights (by default CLIP ViT-L/14 in both of
its sizes, 1.7 GB each), runs the notebook's own cell that scores with one encoder after the other
on one item, in a process of its own, and prints the peak. Exit code 1 where it is more than the
larger network and 2 GB. Some minutes and 4 GB of disk; no download.
"""

from __future__ import annotations

import ast
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "03_clipseg.ipynb"
GB = 1e9
ALLOWED = 2.0  # GB beside the larger network: Python, torch, activations
# text width, heads, layers; vision width, heads, layers; of the joint space
SIZES = {
    "clip-vit-b32": ((512, 8, 12), (768, 12, 12), 512),
    "clip-vit-l14": ((768, 12, 12), (1024, 16, 24), 768),
    "clip-vit-l14-336": ((768, 12, 12), (1024, 16, 24), 768),
    "openclip-h14": ((1024, 16, 24), (1280, 16, 32), 1024),
}


def write_checkpoint(folder: Path, name: str) -> float:
    """Write a checkpoint of the published size with random weights below `folder`; its GB."""
    import torch
    import transformers

    from vwsd_standins.rehearsal.models import CHECKPOINTS, MAKERS

    target = folder / CHECKPOINTS[name].repo
    target.mkdir(parents=True)
    MAKERS[name](target)  # tokenizer, processor and the tiny network, which is replaced
    config = transformers.CLIPConfig.from_pretrained(target)
    text, vision, config.projection_dim = SIZES[name]
    for part, shape in ((config.text_config, text), (config.vision_config, vision)):
        part.hidden_size, part.num_attention_heads, part.num_hidden_layers = shape
        part.intermediate_size, part.projection_dim = 4 * shape[0], config.projection_dim
    config.text_config.vocab_size = 49408
    for old in target.glob("*.safetensors"):
        old.unlink()
    with torch.device("meta"):
        model = transformers.CLIPModel(config)
    model = model.to_empty(device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.02, 0.02)
    model.save_pretrained(target)
    return sum(parameter.nbytes for parameter in model.parameters()) / GB


def scoring(names: list[str]) -> None:
    """Run the notebook's function `score` and its loop over encoders; print the peak after each, in
    GB.
    """
    from vwsdlib.analysis.scorers import cosine_scores, texts_of
    from vwsdlib.data.sets import load_set
    from vwsdlib.encoders.registry import load_encoder
    from vwsdlib.encoders.store import VectorStore

    data = load_set("emojiwsd", "en", "test").head(1)

    def predictions(data, name, *_):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GB
        print(json.dumps({"encoder": name, "peak": peak}), flush=True)

    given = {
        "VectorStore": VectorStore,
        "load_encoder": load_encoder,
        "cosine_scores": cosine_scores,
        "english": {"test": data},
        "phrases": {"test": texts_of(data.items, "phrase")},
        "run": SimpleNamespace(predictions=predictions),
        "split": "test",
        "ladder": names,
        "backbones": [],
        "dtypes": [],
        "encoder": "",
    }
    exec(the_cell(), given)


def the_cell() -> str:
    """The notebook's `score` and the statement after it."""
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if source.startswith("def score("):
            return "\n".join(map(ast.unparse, ast.parse(source).body[:2]))
    raise SystemExit(f"{NOTEBOOK} has no function score")


def main(names: list[str]) -> int:
    """Make, run, judge."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = {name: write_checkpoint(Path(folder), name) for name in names}
        places = {"VWSD_MODELS": folder, "VWSD_CACHE": f"{folder}/cache", "VWSD_DEVICE": "cpu"}
        command = [sys.executable, "-m", "tests.memory_of_encoders", "--score", *names]
        environment = os.environ | places
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return done.returncode
    for line in done.stdout.splitlines():
        told = json.loads(line)
        name = told["encoder"]
        print(f"{name}: network {sizes[name]:.2f} GB, peak so far {told['peak']:.2f} GB")
    most = max(sizes.values()) + ALLOWED
    fits = told["peak"] <= most
    verdict = "is at most" if fits else "is more than"
    print(f"peak {told['peak']:.2f} GB {verdict} the larger network and {ALLOWED:g} GB: {most:.2f}")
    return 0 if fits else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--score"]:
        scoring(sys.argv[2:])
    else:
        sys.exit(main(sys.argv[1:] or ["clip-vit-l14", "clip-vit-l14-336"]))
