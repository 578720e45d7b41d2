"""Markdown and executed notebooks as pages of the site: nothing in them loads, runs or leads to a
file that is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from markdown_it import MarkdownIt
from markupsafe import Markup
from nbconvert import HTMLExporter
from traitlets.config import Config

from vwsdlib import paths, schema
from vwsdlib.errors import VwsdError
from vwsdlib.progress import tqdm

from .pages import Site
from .safe_html import inlined, safe

MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
AGAIN = "Run it again with --force."
FORMS = ("text/html", "text/markdown", "image/png", "image/jpeg", "text/latex", "text/plain")
# what may be wider than a small screen scrolls by itself, by keyboard too
WIDE = {"table": "Table", "pre": "Text"}


def inline(text: str) -> Markup:
    """A sentence of Markdown as HTML."""
    return Markup(MARKDOWN.renderInline(text.strip()))


def markdown(text: str) -> Markup:
    """A Markdown document as HTML fit for a page."""
    return Markup(tame(MARKDOWN.render(text), {}))


def tame(html: str, pages: Mapping[str, str]) -> str:
    """HTML without anything that runs or loads; links to `pages` (name -> page) lead there, other
    links to files become plain text.

    Pictures stay where they are part of the page (data:), else their text stands for them.
    """
    soup = BeautifulSoup(safe(html, pages), "html.parser")
    for image in soup("img", src=False):
        image.replace_with(image.get("alt", ""))
    for link in soup("a", href=False):
        link.unwrap()
    scrolling = {"class": "scroll", "tabindex": "0", "role": "group"}
    for tag in soup(list(WIDE)):
        tag.wrap(soup.new_tag("div", attrs={**scrolling, "aria-label": WIDE[tag.name]}))
    for cell in soup("th"):
        cell.attrs.setdefault("scope", "col" if cell.find_parent("thead") else "row")
    return safe(str(soup), pages)


def rendered(path: Path, pages: Mapping[str, str]) -> tuple[str, str]:
    """(title, HTML) of an executed notebook; VwsdError where it cannot be read.

    Of an output's forms those are shown that can be made safe: HTML, Markdown, pictures of pixels,
    text.
    """
    notebook = _read(path)
    forms = Config({"NbConvertBase": {"display_data_priority": list(FORMS)}})
    plain = {"template_name": "basic", "exclude_anchor_links": True, "sanitize_html": True}
    exporter = HTMLExporter(config=forms, **plain)
    # each part by itself, so that none opens into the next
    exporter.register_filter("clean_html", lambda html: safe(inlined(html), pages))
    try:
        html, _ = exporter.from_notebook_node(notebook)
    except Exception as e:  # whatever nbconvert raises over outputs of another shape
        what = f"the executed notebook cannot be shown: {e!r}"
        raise VwsdError(what, where=path, remedy=AGAIN) from e
    title = _heading(notebook)
    if title is None:
        title, html = path.stem, f"<h1>{escape(path.stem)}</h1>{html}"
    return title, tame(html, pages)


def _heading(notebook) -> str | None:
    """The first heading in a notebook's Markdown."""
    for cell in notebook.cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
            if line.startswith("# "):
                return line[2:].strip()
    return None


def _read(path: Path):
    """An executed notebook; VwsdError where it is none."""
    try:
        text = schema.read_bytes(path, "executed notebook", AGAIN).decode("utf-8")
        return nbformat.reads(text, as_version=4)
    except Exception as e:  # whatever nbformat raises over JSON of another shape
        what = "the executed notebook is missing or broken"
        raise VwsdError(what, where=path, remedy=AGAIN) from e


def write_notebooks(site: Site, folder: Path, about: Mapping[str, str]) -> list[dict]:
    """A page for each executed notebook of `folder` and notebooks/index.html; returns what the
    index shows of each: name, title, about."""
    files, shown = sorted(folder.glob("*.ipynb")), []
    pages = {path.name: f"{path.stem}.html" for path in files}
    for path in tqdm(files, desc="notebooks", disable=paths.quiet()):
        title, body = rendered(path, pages)
        shown.append({"name": path.stem, "title": title, "about": about.get(path.stem, "")})
        site.page(f"notebooks/{path.stem}.html", "document", title, body=Markup(body))
    site.page("notebooks/index.html", "notebooks", "Notebooks", notebooks=shown)
    return shown
