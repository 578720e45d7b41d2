"""Measurements on disk: facts that are no ranking of ten pictures (a map's hit on a scene, a mask's
contrast, a compared tensor).

`results/<profile>/measured/<name>.jsonl` holds a record a line, `<name>.meta.json` what made them;
`<name>.safetensors` beside them holds pictures' maps where a figure shows some. Like predictions
they are durable: tables and figures are made from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vwsdlib import paths, schema
from vwsdlib.errors import VwsdError

from .predictions import code_sha256, versions, write_lines

AGAIN = "Run the notebook that makes it again with --force."


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
    made = {
        "name": name,
        "records": len(records),
        "code_sha256": code_sha256(),
        "versions": versions(),
        **meta,
    }
    made["lines_sha256"] = write_lines(f"{stem}.jsonl", records)
    Path(f"{stem}.safetensors").unlink(missing_ok=True)
    if maps is not None:
        from safetensors.numpy import save

        halved = {
            key: np.ascontiguousarray(value, np.float16) for key, value in sorted(maps.items())
        }
        stored = save(halved)
        made["maps_sha256"] = paths.sha256_bytes(stored)
        paths.write_bytes(f"{stem}.safetensors", stored)
    text = json.dumps(made, indent=1, ensure_ascii=False, allow_nan=False)
    paths.write_text(f"{stem}.meta.json", f"{text}\n")
    return Measurement(name, made, records, maps or {})


def read_measurement(path: str | Path) -> Measurement:
    """Read `<name>.jsonl` back with its meta and maps; VwsdError with file, line and key where
    anything is not as it was written.

    Measurements that the report is made from have their forms in `shapes.MEASURED`; of others,
    numbers must be finite and none missing.
    """
    from .shapes import MEASURED, MeasurementMeta

    path = Path(path)
    stem = str(path).removesuffix(".jsonl")
    shape, meta_shape = MEASURED.get(Path(stem).name, (dict, MeasurementMeta))
    where, what = f"{stem}.meta.json", f"meta of {path.name}"
    raw = schema.read_bytes(where, what, AGAIN)
    known = schema.parse(raw, meta_shape, where, what, AGAIN)
    data = schema.read_bytes(path, "measurement", AGAIN)
    schema.parse_lines(data, shape, path, "measurement", AGAIN)
    records = [json.loads(line) for line in schema.lines_of(data)]
    if known.records != len(records):
        raise VwsdError(
            f"{len(records)} records where {known.records} were written", where=path, remedy=AGAIN
        )
    if known.lines_sha256 not in (None, paths.sha256_bytes(data)):
        raise VwsdError(
            "the records are not those that were written (lines_sha256)", where=path, remedy=AGAIN
        )
    maps = _read_maps(Path(f"{stem}.safetensors"), known.maps_sha256, path)
    return Measurement(known.name, json.loads(raw), records, maps)


def _read_maps(file: Path, expected: str | None, path: Path) -> dict[str, np.ndarray]:
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
