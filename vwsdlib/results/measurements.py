"""Measurements on disk: facts that are no ranking of ten pictures (a map's hit on a scene, a mask's contrast, a compared tensor).

`results/<profile>/measured/<name>.jsonl` holds a record a line, `<name>.meta.json` what made them; `<name>.safetensors` beside them
holds pictures' maps where a figure shows some. Like predictions they are durable: tables and figures are made from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .. import paths
from ..errors import VwsdError
from .predictions import code_sha256, versions


@dataclass(frozen=True)
class Measurement:
    """Records of one kind with what made them; `maps` name -> array."""

    name: str
    meta: dict
    records: list[dict]
    maps: dict[str, np.ndarray] = field(default_factory=dict)


def write_measurement(folder: Path, name: str, records: Iterable[dict], maps: dict[str, np.ndarray] | None = None, **meta: object) -> Measurement:
    """Write records (and maps, as float16) below `folder`/measured; `meta` says what made them (profile, dataset, encoder identity ...)."""
    records, stem = list(records), Path(folder) / "measured" / name
    made = {"name": name, "records": len(records), "code_sha256": code_sha256(), "versions": versions(), **meta}
    paths.write_text(f"{stem}.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
    Path(f"{stem}.safetensors").unlink(missing_ok=True)
    if maps is not None:
        from safetensors.numpy import save

        halved = {key: np.ascontiguousarray(value, np.float16) for key, value in sorted(maps.items())}
        paths.write_bytes(f"{stem}.safetensors", save(halved))
    paths.write_text(f"{stem}.meta.json", json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    return Measurement(name, made, records, maps or {})


def read_measurement(path: str | Path) -> Measurement:
    """Read `<name>.jsonl` back with its meta and maps; VwsdError where a line is missing or damaged."""
    path = Path(path)
    stem = str(path).removesuffix(".jsonl")
    try:
        meta = json.loads(Path(f"{stem}.meta.json").read_text(encoding="utf-8"))
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]  # texts may hold U+2028
        maps = _read_maps(Path(f"{stem}.safetensors"))
    except (OSError, ValueError) as e:
        raise VwsdError(f"the measurement cannot be read: {e}", where=path, remedy="Run the notebook that makes it again with --force.") from e
    if meta.get("records") != len(records):
        raise VwsdError(f"{len(records)} records where {meta.get('records')} were written", where=path, remedy="Run the notebook that makes it again with --force.")
    return Measurement(meta["name"], meta, records, maps)


def _read_maps(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return {key: value.astype(np.float32) for key, value in load_file(path).items()}
    except SafetensorError as e:
        raise ValueError(str(e)) from e
