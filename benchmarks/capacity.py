"""How long a set takes and what it costs: `python -m benchmarks.capacity results.json` prints the
tables of docs/large-sets.md.

What can be measured here is (decoding and resizing a picture on one core, the share of the
matrix-product peak that the encoder reaches); what a GPU does is reckoned from the assumptions
below, none of which was measured.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

PATCH_GFLOP = {
    "CLIP B/32": 8.8,
    "CLIP L/14": 162.0,
    "CLIPSeg, 352 px": 91.6,
}  # of one picture; `gflop` counts the first and the last
SETS = {
    "test": (8_100, 10.4),
    "train": (12_999, 16.8),
    "PolCLIP": (292_698, 303.0),
}  # pictures, GB in original size
# assumed: TFLOP/s of a data sheet in half precision, share of it that an encoder reaches, US
# dollars an hour of one GPU with its cores
GPUS = {"T4": (65, 0.35, 0.50), "A100": (312, 0.40, 2.50)}
CORES = 8  # beside each GPU, assumed as fast as a core of the measured machine
STORAGE = 0.5  # GB/s that disk or network brings to one machine, assumed
VECTOR_KB, STATE_KB = (
    2,
    526,
)  # one row of the store: 512 numbers fp32; PolCLIP's frozen state of ViT-L/14, half precision


def rates(results: dict) -> dict[str, float]:
    """What a results file says: milliseconds a picture of decoding and resizing on one core, and
    pictures/s of each precision, cold.
    """
    facts = {**results["stages"]["facts"], **results["cold"]["facts"]}
    found = {
        name: facts[f"{name} (ms/picture)"]["median"] for name in ("decode", "resize", "encode")
    }
    return found | {
        v: facts[f"pictures decoded/s, {v}"]["median"]
        for v in ("plain", "fp32", "bf16", "bf16-draft")
    }


def hours(
    pictures: int, gigabytes: float, model: str, gpu: str, gpus: int, preparation: float
) -> tuple[float, str]:
    """(hours, what they are spent on): the slowest of reading, preparing (ms a picture on one core)
    and the network; all run at once.
    """
    peak, share, _ = GPUS[gpu]
    spent = {
        "reading": gigabytes / STORAGE,
        "decoding": pictures * preparation / 1000 / (CORES * gpus),
        "the network": pictures * PATCH_GFLOP[model] / (1000 * peak * share * gpus),
    }
    slowest = max(spent, key=spent.get)
    return spent[slowest] / 3600, slowest


def tables(record: dict) -> str:
    """Both tables as Markdown: this machine as measured, GPUs as reckoned."""
    its, cores = rates(record["results"]), record["machine"]["cores"]
    lines = [
        (
            "| set | pictures | original size | vectors | plain loop | ours, fp32 | ours, bf16 |"
            " ours, bf16 and draft |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, (n, size) in SETS.items():
        times = [_time(n / its[side] / 3600) for side in ("plain", "fp32", "bf16", "bf16-draft")]
        lines.append(
            f"| {name} | {n:,} | {size:,} GB | {n * VECTOR_KB / 1e6:.2f} GB | {' | '.join(times)} |"
        )
    preparation = its["decode"] + its["resize"]
    lines += [
        "",
        (
            f"CLIP B/32, {cores} cores, at the measured rates: {its['plain']:.1f},"
            f" {its['fp32']:.1f}, {its['bf16']:.1f} and {its['bf16-draft']:.1f} pictures/s."
        ),
        "",
        f"| set | model | {' | '.join(f'{count} {gpu}' for gpu in GPUS for count in (1, 8))} |",
        "|---|---" + "|---" * 2 * len(GPUS) + "|",
    ]
    for name, (n, size) in SETS.items():
        for model in PATCH_GFLOP:
            lines.append(
                f"| {name} | {model} | "
                + " | ".join(
                    _cell(n, size, model, gpu, count, preparation)
                    for gpu in GPUS
                    for count in (1, 8)
                )
                + " |"
            )
    return "\n".join(
        [
            *lines,
            "",
            (
                f"Reckoned with {preparation:.0f} ms a picture of decoding and resizing on one"
                " core, as measured."
            ),
        ]
    )


def _cell(n: int, size: float, model: str, gpu: str, count: int, preparation: float) -> str:
    time, on = hours(n, size, model, gpu, count, preparation)
    return f"{_time(time)} ({on}), ${max(0.01, time * count * GPUS[gpu][2]):.2f}"


def _time(hours: float) -> str:
    return (
        f"{hours:.1f} h"
        if hours >= 1
        else f"{60 * hours:.0f} min"
        if hours >= 1 / 60
        else f"{3600 * hours:.0f} s"
    )


if __name__ == "__main__":
    print(tables(json.loads(Path(sys.argv[1]).read_text())))
