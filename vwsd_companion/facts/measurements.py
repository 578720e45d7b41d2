"""Measurements: facts that are no ranking of ten pictures (a map's hit on a scene, a mask's
contrast, a compared tensor).

`results/<profile>/measured/<name>.jsonl` holds a record a line, `<name>.meta.json` what made them;
`<name>.safetensors` beside them holds pictures' maps where a figure shows some.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vwsdlib import paths, schema
from vwsdlib.errors import VwsdError

from .fact import FactKind, provenance, read_fact, write_fact

AGAIN = "Run the notebook that makes it again with --force."
MEASUREMENT = FactKind(
    what="measurement",
    meta="meta of {}",
    again=AGAIN,
    counter="records",
    counted="{} records where {} were written",
    hashed="the records are not those that were written (lines_sha256)",
)


@dataclass(frozen=True)
class Measurement:
    """Records of one kind with what made them; `maps` name -> array."""

    name: str
    meta: dict
    records: list[dict]
    maps: dict[str, np.ndarray] = field(default_factory=dict)


def write_measurement(
    folder: Path,
    name: str,
    records: Iterable[dict],
    maps: dict[str, np.ndarray] | None = None,
    **meta: object,
) -> Measurement:
    """Write records (and maps, as float16) below `folder`/measured; `meta` says what made them
    (profile, dataset, encoder identity ...).

    VwsdError for a name that cannot be a file's, and for a number that is not finite.
    """
    records, stem = list(records), Path(folder) / "measured" / paths.safe_name(name, "measurement")
    made = {"name": name, "records": len(records), **provenance(), **meta}
    stored = None if maps is None else _packed(maps)
    if stored is not None:
        made["maps_sha256"] = paths.sha256_bytes(stored)
    made = write_fact(stem, records, made)
    file = Path(f"{stem}.safetensors")
    file.unlink(missing_ok=True)
    if stored is not None:
        paths.write_bytes(file, stored)
    return Measurement(name, made, records, maps or {})


def _packed(maps: dict[str, np.ndarray]) -> bytes:
    from safetensors.numpy import save

    halved = {}
    for key, value in sorted(maps.items()):
        halved[key] = np.ascontiguousarray(value, np.float16)
    return save(halved)


def read_measurement(path: str | Path) -> Measurement:
    """Read `<name>.jsonl` back with its meta and maps; VwsdError with file, line and key where
    anything is not as it was written.

    Measurements that the report is made from have their forms in shapes.yml; of others, numbers
    must be finite and none missing.
    """
    from .shapes import measured

    path = Path(path)

    def make(_lines: list, known: Any, meta: dict, data: bytes) -> Measurement:
        records = [json.loads(line) for line in schema.lines_of(data)]
        return Measurement(known.name, meta, records)

    made = read_fact(path, MEASUREMENT, measured(path.name.removesuffix(".jsonl")), make)
    return replace(made, maps=_read_maps(path, made.meta.get("maps_sha256")))


def _read_maps(path: Path, expected: str | None) -> dict[str, np.ndarray]:
    file = path.with_name(path.name.removesuffix(".jsonl") + ".safetensors")
    if expected is None and not file.exists():
        return {}
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = schema.read_bytes(file, f"file of maps beside {path.name}", AGAIN)
    if expected not in (None, paths.sha256_bytes(data)):
        raise VwsdError(
            f"the maps of {path.name} are not those that were written (maps_sha256)",
            where=file,
            remedy=AGAIN,
        )
    try:
        maps = {key: value.astype(np.float32) for key, value in load(data).items()}
    except (SafetensorError, ValueError, TypeError, KeyError) as e:
        raise VwsdError(
            f"the maps beside {path.name} cannot be read: {e}", where=file, remedy=AGAIN
        ) from e
    for name, values in maps.items():
        if not np.isfinite(values).all():
            raise VwsdError(
                f"the map {name!r} beside {path.name} holds a value that is not finite",
                where=file,
                remedy=AGAIN,
            )
    return maps
