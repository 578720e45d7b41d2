"""HTML of notebooks made safe: what may stay is listed in safe_html.yml, and a well-kept sanitiser
(nh3) holds to it.

Text, tables and pictures of pixels look as they did. What runs, loads, asks or leads elsewhere
than to the web or to a page of the site goes; style sheets go too, after their rules were written
into the elements they meet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import nh3
import tinycss2
import yaml
from bs4 import BeautifulSoup
from pygments.token import STANDARD_TYPES
from soupsieve import SelectorSyntaxError

KEPT = yaml.safe_load(Path(__file__).with_suffix(".yml").read_text(encoding="utf-8"))
TAGS, GONE, VOID, SIZES, STYLES, BOXES = (
    frozenset(KEPT[name].split()) for name in ("tags", "gone", "void", "sizes", "styles", "boxes")
)
ATTRIBUTES = {
    tag: {*KEPT["everywhere"].split(), *KEPT["attributes"].get(tag, "").split()} for tag in TAGS
}
WEB = ("https://", "http://")
DEEPEST = 400  # elements inside each other; sanitising takes the square of it
LONGEST_SELECTOR = 500  # characters; Styler's own have some tens
PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]+")
NUMBER = re.compile(r"\d{1,4}%?")
# what a value of a style may not hold
LOADING = re.compile(r"[\\@<>{}]|url|image|expression|var\s*\(|attr\s*\(|env\s*\(|/\*", re.I)
# classes that stay: of nbconvert and pandas, and those by which Pygments tells parts of code apart
CLASSES = BOXES | {name for name in STANDARD_TYPES.values() if name}
ANSI = re.compile(r"ansi-[a-z0-9-]+")


def _depth(html: str) -> int:
    """At most how deeply the elements of HTML are nested: tags that open less those that close, at
    the highest. Void elements count as open, so this is never too low."""
    level = deepest = 0
    for tag in re.finditer(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)", html):
        if tag[2].lower() in VOID:
            continue
        level = max(0, level - 1) if tag[1] else level + 1
        deepest = max(deepest, level)
    return deepest


def safe(html: str, pages: Mapping[str, str]) -> str:
    """HTML reduced to what may stay; links lead to the web or, by the last part of their address,
    to one of `pages` (name -> page)."""
    if _depth(html) > DEEPEST:
        return "<p>This output is nested too deeply to be shown here.</p>"
    return nh3.clean(
        html,
        tags=set(TAGS),
        clean_content_tags=set(GONE),
        attributes=ATTRIBUTES,
        attribute_filter=_filter(pages),
        strip_comments=True,
        link_rel="noopener noreferrer",
        url_schemes={"http", "https", "data"},
        filter_style_properties=set(STYLES),
    )


def _filter(pages: Mapping[str, str]) -> Callable[[str, str, str], str | None]:
    """What nh3 asks of each attribute that may stay: its value, mended, or None."""
    leads = set(pages.values())

    def value_of(tag: str, name: str, value: str) -> str | None:
        if name == "href":
            known = value in leads or value.startswith(WEB)
            return value if known else pages.get(value.rsplit("/", 1)[-1])
        if name == "src":
            return value if PICTURE.fullmatch(value) else None
        if name in SIZES:
            return value if NUMBER.fullmatch(value) else None
        if name in KEPT["fixed"]:
            return value if value in KEPT["fixed"][name] else None
        if name == "style":
            return _style(value)
        if name == "class":
            return " ".join(word for word in value.split() if _known(word)) or None
        return value

    return value_of


def _style(value: str) -> str | None:
    """A style without what could load something; nh3 then keeps the properties of STYLES alone."""
    kept = [part.strip() for part in value.split(";") if part.strip() and not LOADING.search(part)]
    return "; ".join(kept) or None


def _known(word: str) -> bool:
    return word in CLASSES or bool(ANSI.fullmatch(word))


def inlined(html: str) -> str:
    """HTML whose style sheets are written into the elements that they meet, so that a table drawn
    with pandas' Styler keeps its looks.

    Plain rules alone: no conditions (@media), no states (:hover). The sheets themselves stay for
    `safe` to remove.
    """
    if "<style" not in html.casefold() or _depth(html) > DEEPEST:
        return html
    soup = BeautifulSoup(html, "html.parser")
    for sheet in soup("style"):
        for selector, declared in _rules(sheet.string or ""):
            for tag in _met(soup, selector):
                own = tag.get("style", "")
                tag["style"] = f"{declared}; {own}" if own else declared
    return str(soup)


def _rules(sheet: str) -> Iterator[tuple[str, str]]:
    """(selector, declarations) of the plain rules of a style sheet; the last goes first, for what
    stands later in a style wins."""
    rules = tinycss2.parse_stylesheet(sheet, skip_comments=True, skip_whitespace=True)
    for rule in reversed(rules):
        if rule.type == "qualified-rule":
            try:
                declared = tinycss2.serialize(rule.content)
                selectors = tinycss2.serialize(rule.prelude)
            except RecursionError:  # brackets nested without end
                continue
            for selector in selectors.split(","):
                yield selector.strip(), " ".join(declared.split())


def _met(soup, selector: str) -> list:
    """The elements that a selector meets; none where it cannot be read or tells a state."""
    if len(selector) > LONGEST_SELECTOR:
        return []
    # nearly all of Styler's, a thousand a table
    if re.fullmatch(r"#[\w-]+", selector):
        return soup(id=selector[1:])
    try:
        return soup.select(selector)
    except (SelectorSyntaxError, NotImplementedError, ValueError, RecursionError):
        return []
