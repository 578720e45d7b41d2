"""Things by name: a registry holds the library's own entries and those that other packages add.

An entry says what a thing is and names what makes it as "module:callable" (or with an argument
behind it, "module:callable:argument"). That is imported when the thing is asked for and not
before, so a list of names costs no model.

Somebody else's package adds entries through entry points, without a change here. Its
pyproject.toml names a mapping of entries, each of the class that the registry's module defines:

    [project.entry-points."vwsdlib.encoders"]
    mine = "my_package.entries:ENCODERS"

The groups are vwsdlib.sets, .encoders, .segmenters, .translators, .definers, .inventories and
.scorers, polclip.studies and polclip.backbones. They are read at a registry's first use.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module, metadata
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Generic, TypeVar

from .errors import VwsdError, first_line, one_line
from .paths import PACKAGE

PROJECT = "vwsdlib"  # the name that pip knows all four packages by
LAST = 100  # place of an entry that names none


@dataclass(frozen=True)
class Line:
    """What every entry has; registries add to it what else is asked of their things.

    loader: "module:callable", the same with ":argument" behind it, or a callable itself. Calling
    an entry calls it. about: what a reader is told. place: where the entry stands in lists and in
    tables, lower first; of equal ones the library's own go first.
    """

    loader: str | Callable
    about: str
    place: int = field(default=LAST, kw_only=True)

    def __call__(self, *arguments, **options):
        """What the loader makes of the arguments."""
        return resolve(self.loader)(*arguments, **options)


Entry = TypeVar("Entry", bound=Line)


class Registry(MutableMapping[str, Entry], Generic[Entry]):
    """Name -> entry, in the order of their places. An assignment adds an entry to this process.

    shape: the class of its entries. own: the library's entries by name, or the .yml that holds
    them (`read_entries`). group: of the entry points that add further ones. Raises VwsdError at
    use where two packages give one name. A package that cannot be read is told of in one sentence
    on stderr, and the others are taken.
    """

    def __init__(self, shape: type[Entry], group: str, own: Mapping[str, Entry] | Path):
        self.shape, self.group, self.own = shape, group, own
        self._entries: dict[str, Entry] | None = None

    def _all(self) -> dict[str, Entry]:
        if self._entries is None:
            self._entries = self._gathered()
        return self._entries

    def _gathered(self) -> dict[str, Entry]:
        own = read_entries(self.own, self.shape) if isinstance(self.own, Path) else self.own
        entries = dict(own)
        givers = dict.fromkeys(own, self.group.partition(".")[0])
        for point in entry_points(self.group):
            package = point.module.partition(".")[0]
            for name, entry in self._added(point, package).items():
                if name in entries:
                    raise VwsdError(
                        f"the name {name!r} is given twice, by {givers[name]} and by {package}",
                        where=self.group,
                        remedy="Uninstall one of the two, or have its entry renamed.",
                    )
                entries[name], givers[name] = entry, package
        return dict(sorted(entries.items(), key=lambda pair: pair[1].place))

    def _added(self, point: EntryPoint, package: str) -> dict[str, Entry]:
        """The entries that an entry point names, none where they cannot be had."""
        try:
            entries = dict(point.load())
            for name, entry in entries.items():
                if not isinstance(entry, self.shape):
                    raise TypeError(f"{name!r} is no {self.shape.__module__}.{self.shape.__name__}")
            return entries
        except Exception as e:  # whatever another package's code may raise
            said = one_line(f"{type(e).__name__}: {first_line(e)}")
            print(f"note: {self.group} of {package} are left out ({said})", file=sys.stderr)
            return {}

    def __getitem__(self, name: str) -> Entry:
        return self._all()[name]

    def __setitem__(self, name: str, entry: Entry) -> None:
        self._all()[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


def resolve(loader: str | Callable) -> Callable:
    """The callable that a "module:callable" names, its arguments bound to it; a callable itself.
    ImportError where the module cannot be had.
    """
    if not isinstance(loader, str):
        return loader
    module, name, *arguments = loader.split(":")
    function = getattr(import_module(module), name)
    return partial(function, *arguments) if arguments else function


def read_entries(path: Path, shape: type[Entry]) -> dict[str, Entry]:
    """The entries of a .yml: name -> fields of `shape`. "{name}" in them stands for the name;
    names with a leading dot hold what several entries share (YAML's anchors) and are no entries.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    lines = yaml.load(path.read_text(encoding="utf-8"), loader)
    entries = {}
    for name, fields in lines.items():
        if not name.startswith("."):
            entries[name] = shape(**{key: _value(it, name) for key, it in fields.items()})
    return entries


def _value(value: Any, name: str) -> Any:
    if isinstance(value, list):
        return tuple(_value(each, name) for each in value)
    return value.replace("{name}", name) if isinstance(value, str) else value


def entry_points(group: str) -> list[EntryPoint]:
    """The entry points of a group: those of this project first, then other packages'.

    In a checkout this project's are those of its pyproject.toml: there need be no metadata
    (nothing was installed), and those of an editable install are as old as the installation.
    """
    checkout = _checkout()
    if checkout is None:
        return list(metadata.entry_points(group=group))
    own = [EntryPoint(name, value, group) for name, value in checkout.get(group, {}).items()]
    others = metadata.entry_points(group=group)
    return own + [point for point in others if point.dist.name != PROJECT]


@cache
def _checkout() -> dict[str, dict[str, str]] | None:
    """Group -> name -> value, of the pyproject.toml that these sources lie beside; None where
    there is none, or that of another project.
    """
    try:
        text = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
        project = tomllib.loads(text)["project"]
    except (OSError, ValueError, KeyError):
        return None
    return project.get("entry-points", {}) if project.get("name") == PROJECT else None
