"""HTML of notebooks made safe: what may stay is listed, and a well-kept sanitiser (nh3) holds to
it.

Text, tables and pictures of pixels look as they did. What runs, loads, asks or leads elsewhere
than to the web or to a page of the site goes; style sheets go too, after their rules were written
into the elements they meet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache

WEB = ("https://", "http://")
DEEPEST = 400  # elements inside each other; sanitising takes the square of it
LONGEST_SELECTOR = 500  # characters; Styler's own have some tens
VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())
PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]+")
NUMBER = re.compile(r"\d{1,4}%?")
# stay
TAGS = frozenset(
    """
    a abbr b bdi bdo blockquote br caption center cite code col colgroup dd del details dfn div
    dl dt em figcaption figure h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q rp rt ruby
    s samp small span strong sub summary sup table tbody td tfoot th thead time tr tt u ul var
    wbr
""".split()
)
# go with all that they hold; every other tag goes, and what it holds stays
GONE = frozenset(
    """
    applet area audio base basefont bgsound button canvas command datalist dialog embed fieldset
    form frame frameset head iframe input isindex keygen legend link map math menu meta noembed
    noframes noscript object optgroup option output param picture plaintext portal script select
    slot source style svg template textarea title track video xmp
""".split()
)
EVERYWHERE = {"class", "dir", "lang", "style", "title"}
OF_TAG = {
    "a": {"href"},
    "img": {"alt", "height", "src", "width"},
    "ol": {"start"},
    "th": {"colspan", "rowspan", "scope"},
    "td": {"colspan", "rowspan"},
    "col": {"span"},
    "colgroup": {"span"},
    "table": {"border"},
    # of the boxes that this module's callers put around what is wide
    "div": {"aria-label", "role", "tabindex"},
}
SIZES = {"border", "colspan", "height", "rowspan", "span", "start", "width"}
FIXED = {
    "role": {"group"},
    "tabindex": {"0"},
    "scope": {"col", "row"},
    "dir": {"auto", "ltr", "rtl"},
    "aria-label": {"Table", "Text"},
}
# properties of a style that stay
STYLES = frozenset(
    """
    background-color border border-bottom border-bottom-color border-bottom-style
    border-bottom-width border-collapse border-color border-left border-right border-spacing
    border-style border-top border-width caption-side color direction font-family font-size
    font-style font-variant font-weight height letter-spacing line-height list-style-type
    max-width min-width opacity padding padding-bottom padding-left padding-right padding-top
    text-align text-decoration text-indent text-transform unicode-bidi vertical-align
    white-space width word-break word-spacing
""".split()
)
# what a value of a style may not hold
LOADING = re.compile(r"[\\@<>{}]|url|image|expression|var\s*\(|attr\s*\(|env\s*\(|/\*", re.I)
# classes of nbconvert and pandas
BOXES = frozenset(
    """
    border-box-sizing cell code_cell highlight hl-ipython3 inner_cell input input_area
    input_prompt output output_area output_error output_execute_result output_html output_jpeg
    output_latex output_markdown output_png output_prompt output_stderr output_stdout
    output_stream output_subarea output_text output_wrapper prompt rendered rendered_html scroll
    text_cell text_cell_render dataframe unconfined
""".split()
)
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
    import nh3

    if _depth(html) > DEEPEST:
        return "<p>This output is nested too deeply to be shown here.</p>"
    attributes = {tag: EVERYWHERE | OF_TAG.get(tag, set()) for tag in TAGS}
    return nh3.clean(
        html,
        tags=set(TAGS),
        clean_content_tags=set(GONE),
        attributes=attributes,
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
        if name in FIXED:
            return value if value in FIXED[name] else None
        if name == "style":
            return _style(value)
        if name == "class":
            return " ".join(word for word in value.split() if _known(word)) or None
        return value

    return value_of


def _style(value: str) -> str | None:
    """A style without the declarations that could load something; nh3 then keeps only the
    properties of STYLES."""
    kept = [part.strip() for part in value.split(";") if part.strip() and not LOADING.search(part)]
    return "; ".join(kept) or None


def _known(word: str) -> bool:
    return word in BOXES or word in _code_classes() or bool(ANSI.fullmatch(word))


@cache
def _code_classes() -> frozenset[str]:
    """The classes by which Pygments tells the parts of code apart."""
    from pygments.token import STANDARD_TYPES

    return frozenset(name for name in STANDARD_TYPES.values() if name)


def inlined(html: str) -> str:
    """HTML whose style sheets are written into the elements that they meet, so that a table drawn
    with pandas' Styler keeps its looks.

    Plain rules alone: no conditions (@media), no states (:hover). The sheets themselves stay for
    `safe` to remove.
    """
    if "<style" not in html.casefold() or _depth(html) > DEEPEST:
        return html
    from bs4 import BeautifulSoup

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
    import tinycss2

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
    from soupsieve import SelectorSyntaxError

    if len(selector) > LONGEST_SELECTOR:
        return []
    # nearly all of Styler's, a thousand a table
    if re.fullmatch(r"#[\w-]+", selector):
        return soup(id=selector[1:])
    try:
        return soup.select(selector)
    except (SelectorSyntaxError, NotImplementedError, ValueError, RecursionError):
        return []
