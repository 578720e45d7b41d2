"""The audit of a set on disk: `results/<profile>/audit/<language>.<split>.json`, the durable fact
behind notebook 01's tables.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from vwsdlib import paths, schema
from vwsdlib.analysis.audit import audit
from vwsdlib.data.items import Item, normalise
from vwsdlib.data.sets import VwsdSet, key
from vwsdlib.errors import VwsdError

from .fact import provenance, write_meta

AGAIN = "Run 01_data again with --force."


def meanings(items: Sequence[Item], shown: dict[str, dict]) -> Counter[int]:
    """Number of meanings -> number of targets that have so many.

    A meaning is a distinct gold: the sense it shows where an answer key says (EmojiWSD has two
    drawings a sense), else the image.
    """
    golds = defaultdict(set)
    for item in items:
        golds[normalise(item.target)].add(shown.get(item.gold, {}).get("sense", item.gold))
    return Counter(len(g) for g in golds.values())


def write_audit(folder: Path, data: VwsdSet, *, profile: str, limit: int = 0) -> dict:
    """Audit a set and write it below `folder`/audit; returns what was written."""
    paths.safe_name(data.language, "language")
    paths.safe_name(data.split, "split")
    counts = meanings(data.items, key(data.images))
    made = {
        "dataset": data.name,
        "language": data.language,
        "split": data.split,
        "profile": profile,
        "limit": limit,
        "data_sha256": data.sha256,
        "official": data.official,
        **provenance(),
        **audit(data.items),
        "mean_words": sum(len(i.phrase.split()) for i in data.items) / len(data.items),
        "meanings": {str(k): counts[k] for k in sorted(counts)},
        "mean_meanings": sum(k * v for k, v in counts.items()) / sum(counts.values()),
    }
    made["facts_sha256"] = _digest(made)
    path = Path(folder) / "audit" / f"{data.language}.{data.split}.json"
    write_meta(path, made)
    return made


def read_audit(path: str | Path) -> dict:
    """Read an audit back; VwsdError with file and key where it is not as it was written or stands
    under another set's name."""
    from .shapes import shape

    path = Path(path)
    raw = schema.read_bytes(path, "audit", AGAIN)
    known = schema.parse(raw, shape("audit"), path, "audit", AGAIN)
    if path.stem != f"{known.language}.{known.split}":
        raise VwsdError(
            f"the audit is of {known.language} {known.split}, not what its name says",
            where=path,
            remedy=AGAIN,
        )
    stored = json.loads(raw)
    if known.facts_sha256 not in (None, _digest(stored)):
        raise VwsdError(
            "the audit is not the one that was written (facts_sha256)", where=path, remedy=AGAIN
        )
    return stored


def _digest(made: dict) -> str:
    """Hash of all that an audit says, but for the hash itself."""
    said = {key: value for key, value in made.items() if key != "facts_sha256"}
    return paths.sha256_bytes(json.dumps(said, sort_keys=True).encode())
