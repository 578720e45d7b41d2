"""Pages: jinja2 templates, filled and written below the folder of the site."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..views.tables import Table

HERE = Path(__file__).parent
ARABIC = re.compile(r"[\u0600-\u06ff]")


def cells(made: Table) -> list[list[dict]]:
    """Cells row by row: `text` as in every other form of the table, `number` of a column of
    numbers, `raw` to sort those by, `farsi` from right to left."""
    lines = []
    for row, texts in zip(made.rows, made.cells()):
        line = []
        for column, text in zip(made.columns, texts):
            number, farsi = bool(column.format), bool(ARABIC.search(text))
            raw = row.get(column.key) if number else None
            line.append({"text": text, "number": number, "raw": raw, "farsi": farsi})
        lines.append(line)
    return lines


TEMPLATES = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.globals["cells"] = cells


@dataclass(frozen=True)
class Site:
    """Pages being written below `folder`; `common` is what every template may use."""

    folder: Path
    common: dict

    def page(self, name: str, template: str, title: str, **given: object) -> None:
        """Write the page `name` (a path below the folder) from templates/<template>.html.j2."""
        place = {"title": title, "page": name, "root": "../" * name.count("/")}
        made = TEMPLATES.get_template(f"{template}.html.j2")
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made.render(**self.common, **given, **place).encode("utf-8"))
