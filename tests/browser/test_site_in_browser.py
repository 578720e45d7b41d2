"""The site in a browser, from disk: nothing is asked of a server, nothing is complained of, all
works by keyboard, and axe finds nothing serious.

Screenshots go to test-artefacts/. Needs playwright, axe-playwright-python and a chromium
(`VWSD_CHROMIUM`, else one on the path); skips with the reason.
"""

import json
import shutil
import time
from pathlib import Path

import hostile_outputs
import nbformat
import pytest
import site_tiny

from vwsd_companion.facts.predictions import read_predictions
from vwsd_companion.site import documents, write_site

ARTEFACTS = Path(__file__).resolve().parents[2] / "test-artefacts"
KINDS = {
    "index": "index.html",
    "claims": "claims.html",
    "tables": "tables/index.html",
    "table": "tables/baseline.html",
    "figures": "figures.html",
    "sets": "items/index.html",
    "items": "items/emojiwsd.fa.test/index.html",
    "item-en": "items/emojiwsd.en.test/en.test.0.html",
    "item-fa": "items/emojiwsd.fa.test/fa.test.0.html",
    "notebooks": "notebooks/index.html",
    "notebook": "notebooks/01_data.html",
    "deviations": "deviations.html",
    "provenance": "provenance.html",
    "again": "again.html",
}
QUIET = {
    "preload": False,
    "resultTypes": ["violations"],
}  # else axe itself asks for the style sheet, which a page on disk may not read
ENGLISH = "items/emojiwsd.en.test/index.html"
TABLE = """() => [...document.querySelectorAll("main table tbody tr")]
    .filter(row => !row.hidden).map(row => [...row.cells].map(cell => cell.textContent))"""


@pytest.fixture(scope="module")
def axe():
    return pytest.importorskip(
        "axe_playwright_python.sync_playwright",
        reason="axe-playwright-python is not installed (pip install 'vwsdlib[dev]')",
    ).Axe()


class Visit:
    """Opens pages of the site and keeps what they asked for and complained of."""

    def __init__(self, browser, site, **options):
        self.site, self.context, self.asked, self.said = (
            site,
            browser.new_context(**options),
            [],
            [],
        )
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.context.on(
            "console",
            lambda message: (
                self.said.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        self.context.on("weberror", lambda error: self.said.append(str(error.error)))

    def open(self, name):
        page = self.context.new_page()
        page.goto((self.site / name).as_uri())
        return page

    @property
    def strangers(self):
        return [url for url in self.asked if not url.startswith(("file:", "data:"))]


@pytest.fixture
def visit(chromium, tiny_site):
    """`visit(**options)` is a Visit; after the test all of them must have stayed on disk without a
    complaint.
    """
    made = []

    def start(**options):
        made.append(Visit(chromium, tiny_site, **options))
        return made[-1]

    yield start
    for each in made:
        each.context.close()
    assert [(v.strangers, v.said) for v in made] == [([], [])] * len(made)


def until(page, expression, seconds=10):
    """Wait until an expression holds; the page's policy forbids what `wait_for_function` does,
    which is to evaluate text in it.
    """
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


def findings(axe, page):
    """What axe calls serious or critical: (rule, first place)."""
    return [
        (v["id"], v["nodes"][0]["html"][:120])
        for v in axe.run(page, options=QUIET).response["violations"]
        if v["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_page(visit, axe, kind, scheme):
    page = visit(color_scheme=scheme, viewport={"width": 1280, "height": 900}).open(KINDS[kind])
    assert page.locator("h1").count() == 1 and findings(axe, page) == []
    for width in (1600, 1280, 640, 400):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        ), f"wider than {width} px"
        if width in (1280, 640):
            ARTEFACTS.mkdir(exist_ok=True)
            page.screenshot(path=ARTEFACTS / f"site-{kind}-{scheme}-{width}.png")


def test_a_page_that_asks_a_server_or_cannot_be_read_would_be_seen(chromium, axe, tiny_site):
    own = Visit(chromium, tiny_site)
    page = own.open("index.html")
    page.evaluate(
        "html => document.querySelector('main').insertAdjacentHTML('beforeend', html)",
        "<p style='color: #999; background: #aaa'>faint</p><img src='https://127.0.0.1:9/x.png'>",
    )
    until(page, "document.querySelector('main img').complete")
    assert {rule for rule, _ in findings(axe, page)} == {"color-contrast", "image-alt"}
    assert own.strangers == ["https://127.0.0.1:9/x.png"] and own.said
    own.context.close()


def test_dark_is_dark_and_print_is_paper(visit, tiny_site):
    page = visit(color_scheme="dark").open("index.html")
    back = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(back) == "rgb(20, 23, 26)" and page.locator("header nav").is_visible()
    page.emulate_media(media="print")
    assert (
        page.evaluate(back) == "rgb(255, 255, 255)" and not page.locator("header nav").is_visible()
    )
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 with margins
    for kind in ("claims", "item-en", "table", "notebook"):
        page.goto((tiny_site / KINDS[kind]).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 718, kind


def test_a_heading_sorts_by_keyboard(visit):
    page = visit().open("tables/baseline.html")
    button = page.get_by_role("button", name="MRR")
    column = [b.strip() for b in page.locator("thead th").all_text_contents()].index("MRR")
    numbers = sorted(float(row[column]) for row in page.evaluate(TABLE) if row[column] != "–")
    assert len(set(numbers)) > 2
    for key, order, expected in (
        ("Enter", "ascending", numbers),
        ("Space", "descending", numbers[::-1]),
    ):
        button.focus()
        page.keyboard.press(key)
        shown = [row[column] for row in page.evaluate(TABLE)]
        assert [float(text) for text in shown[: len(numbers)]] == expected and set(
            shown[len(numbers) :]
        ) == {"–"}
        assert [th.get_attribute("aria-sort") for th in page.locator("thead th").all()].index(
            order
        ) == column


def test_a_sort_knows_numbers_from_words(visit):
    page = visit().open(ENGLISH)
    page.get_by_role("button", name="Item").click()
    assert [row[0] for row in page.evaluate(TABLE)] == [
        f"en.test.{n}" for n in range(site_tiny.SIZES["en"])
    ]
    page.get_by_role("button", name="Phrase").click()
    phrases = [row[2] for row in page.evaluate(TABLE)]
    assert phrases == sorted(phrases, key=str.casefold)


def test_a_figure_enlarges_and_closes_by_keyboard(visit):
    page = visit().open("figures.html")
    link = page.locator("a.enlarge").first
    for close in ("Escape", "Enter"):
        link.focus()
        page.keyboard.press("Enter")
        assert page.locator("dialog").get_attribute("open") is not None and page.url.endswith(
            "figures.html"
        )
        until(page, "document.querySelector('dialog img').naturalWidth > 400")
        assert page.evaluate(
            "document.querySelector('dialog').contains(document.activeElement)"
        )  # on Close, so Enter closes it
        page.keyboard.press(close)
        assert page.locator("dialog").get_attribute("open") is None
        assert page.evaluate("document.activeElement === document.querySelector('a.enlarge')")


def test_items_are_found_by_word_and_by_run(visit, tiny_results):
    runs = [
        read_predictions(path)
        for path in sorted((tiny_results / "demo" / "predictions").glob("*.en.test.jsonl"))
    ]
    page = visit().open(ENGLISH)
    page.get_by_label("Word", exact=True).focus()
    page.keyboard.type(runs[0].items[2].phrase.upper())
    assert [row[0] for row in page.evaluate(TABLE)] == ["en.test.2"] and page.get_by_role(
        "status"
    ).text_content() == f"1 of {len(runs[0].items)} shown"
    page.get_by_label("Word", exact=True).fill("")
    ids = [i.id for i in runs[0].items]
    for n, p in enumerate(runs):
        page.get_by_label("Run", exact=True).select_option(index=n)
        page.get_by_label("all", exact=True).focus()
        page.keyboard.press("Space")
        assert [row[0] for row in page.evaluate(TABLE)] == ids
        for wanted in (True, False):
            page.keyboard.press("ArrowRight")
            assert [row[0] for row in page.evaluate(TABLE)] == [
                i for i, rank in zip(ids, p.ranks) if (rank == 1) == wanted
            ]


@pytest.mark.parametrize("clipboard", [True, False])
def test_a_table_is_copied_with_and_without_a_clipboard(visit, tiny_site, clipboard):
    own = visit(permissions=["clipboard-read", "clipboard-write"] if clipboard else [])
    if not clipboard:
        own.context.add_init_script(
            "Object.defineProperty(navigator, 'clipboard', {value: undefined})"
        )
    page = own.open("tables/baseline.html")
    page.evaluate(
        "document.addEventListener('copy', () => { window.copied = document.activeElement.value; })"
    )
    for name, suffix in (("Copy as LaTeX", "tex"), ("Copy as CSV", "csv")):
        page.get_by_role("button", name=name).focus()
        page.keyboard.press("Enter")
        until(page, "document.querySelector('.said').textContent !== ''")
        copied = (
            page.evaluate("navigator.clipboard.readText()")
            if clipboard
            else page.evaluate("window.copied")
        )
        assert (
            copied == (tiny_site / "tables" / f"baseline.{suffix}").read_text()
            and page.locator(".said").text_content() == "Copied."
        )
        assert not page.locator("textarea:visible").count()
        page.evaluate("document.querySelector('.said').textContent = ''")


def test_every_page_can_be_read_without_scripts(visit, tiny_results):
    own = visit(java_script_enabled=False)
    page = own.open(ENGLISH)
    assert (
        page.locator("#items tbody tr:visible").count() == site_tiny.SIZES["en"]
        and not page.locator("form:visible").count()
    )
    claims = json.loads((tiny_results / "demo" / "report.json").read_text())["claims"]
    page = own.open("claims.html")
    assert (
        page.locator("#table-claims tbody tr:visible").count() == len(claims)
        and not page.locator("button:visible").count()
    )


def test_the_first_tab_skips_to_the_content(visit):
    page = visit().open("index.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


# ---------------------------------------------------------------- hostile outputs


@pytest.fixture(scope="module")
def hostile_site(tiny_results, tmp_path_factory):
    """The tiny site whose first notebook holds all of hostile_outputs.py."""
    folder = tmp_path_factory.mktemp("hostile")
    shutil.copytree(tiny_results, folder / "results")
    nbformat.write(
        hostile_outputs.notebook(), folder / "results" / "demo" / "notebooks" / "01_data.ipynb"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VWSD_RESULTS", str(folder / "results"))
        return write_site("demo", folder / "pages")


class Watch(Visit):
    """A visit that also keeps dialogs and new pages; each dialog is dismissed."""

    def __init__(self, browser, site, **options):
        super().__init__(browser, site, **options)
        self.dialogs, self.opened, self.reached = (
            [],
            [],
            [],
        )  # reached: asked of the network, after the page's policy
        self.context.on(
            "dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss())
        )
        self.context.on("page", lambda page: self.opened.append(page))
        self.context.route(lambda url: not url.startswith(("file:///", "data:")), self._reach)

    def _reach(self, route):
        self.reached.append(route.request.url)
        route.abort()


def test_hostile_outputs_do_nothing(chromium, hostile_site):
    own = Watch(chromium, hostile_site)
    page = own.open("notebooks/01_data.html")
    address = page.url
    page.wait_for_timeout(500)  # what begins late: a refresh, an animation
    text = page.inner_text("article")
    assert [n for n in range(len(hostile_outputs.PAYLOADS)) if f"still here {n}" not in text] == []
    for number in range(
        page.locator("article *:not(a *):is(details, summary, img, p, td, span, pre)").count()
    ):
        if number % 7 == 0:
            page.locator("article *:not(a *):is(details, summary, img, p, td, span, pre)").nth(
                number
            ).dispatch_event("click")
    assert (own.dialogs, own.strangers, own.said, page.url, len(own.opened)) == (
        [],
        [],
        [],
        address,
        1,
    )
    links = page.locator("article a")
    leads = [links.nth(n).get_attribute("href") for n in range(links.count())]
    assert leads and all(lead.startswith("https://") for lead in leads)
    for n in range(len(leads)):
        links.nth(n).click(
            force=True, modifiers=["Control"]
        )  # opens beside, where the route stops it
    page.wait_for_timeout(300)
    assert own.dialogs == [] and page.url == address and set(own.strangers) <= set(leads)
    own.context.close()


def test_without_the_sanitiser_the_policy_still_holds(chromium, hostile_site):
    """Each payload as it stands in a page of the site: what a hole in the sanitiser would leave
    runs nothing and asks nobody.
    """
    own = Watch(chromium, hostile_site)
    honest = (hostile_site / "notebooks" / "01_data.html").read_text(encoding="utf-8")
    head, tail = honest.split('<article class="document">')[0], "</article></main></body></html>"
    own.context.set_default_timeout(5000)
    refused = (
        "refresh",
        "link",
        "frame",
        "form",
    )  # leave the page, which no policy in the page forbids
    for number, (kind, html) in enumerate(hostile_outputs.PAYLOADS):
        if kind.startswith(refused):
            continue
        path = hostile_site / "notebooks" / f"raw{number}.html"
        path.write_text(f'{head}<article class="document">{html}{tail}', encoding="utf-8")
        page = own.open(f"notebooks/raw{number}.html")
        page.close()
        path.unlink()
    # a page on disk must be let its own files, and no policy tells those of another host from them:
    # that one the sanitiser holds alone
    assert own.dialogs == [] and [url for url in own.reached if not url.startswith("file:")] == []
    own.context.close()


def test_the_corpus_would_be_seen_where_nothing_held_it(chromium, tmp_path):
    """The same outputs in a bare page: dialogs come and the other host is asked, so the tests above
    can fail.
    """
    own = Watch(chromium, tmp_path)
    for number, (_, html) in enumerate(
        hostile_outputs.PAYLOADS[:15] + hostile_outputs.PAYLOADS[33:36]
    ):
        (tmp_path / f"{number}.html").write_text(
            f"<meta charset=utf-8><body>{html}", encoding="utf-8"
        )
        own.open(f"{number}.html")
    assert len(own.dialogs) > 5 and any("evil.invalid" in url for url in own.reached)
    own.context.close()


def test_honest_notebooks_look_as_they_did(chromium, tiny_site, tmp_path):
    """The committed notebooks: each picture and table of the outputs is there, shown, with its
    text, and the policy complains of nothing.
    """
    stored = Path(__file__).resolve().parents[2] / "results" / "demo" / "notebooks"
    shutil.copytree(tiny_site, tmp_path / "pages")
    head = (
        (tmp_path / "pages" / "notebooks" / "01_data.html")
        .read_text(encoding="utf-8")
        .split('<article class="document">')[0]
    )
    own = Watch(chromium, tmp_path / "pages")
    for path in sorted(stored.glob("*.ipynb")):
        outputs = [
            output
            for cell in nbformat.read(path, as_version=4).cells
            for output in cell.get("outputs", ())
        ]
        data = [output["data"] for output in outputs if "data" in output]
        tables = [each["text/html"] for each in data if "<table" in each.get("text/html", "")]
        pictures = [each for each in data if "image/png" in each and "text/html" not in each]
        (tmp_path / "pages" / "notebooks" / "x.html").write_text(
            f"{head}<article"
            f' class="document">{documents.rendered(path, {})[1]}</article></main></body></html>',
            encoding="utf-8",
        )
        page = own.open("notebooks/x.html")
        assert page.locator("article table").count() == len(tables) and page.locator(
            "article img"
        ).count() == len(pictures), path.name
        assert page.evaluate(
            "[...document.querySelectorAll('article img')].every(image => image.naturalWidth > 100)"
        ), path.name
        raw = own.context.new_page()
        for n, html in enumerate(tables):
            raw.set_content(html)
            measure = (
                "table => [table.textContent, ...[...table.querySelectorAll('td, th')].map(cell =>"
                " getComputedStyle(cell).textAlign)]"
            )
            assert page.locator("article table").nth(n).evaluate(measure) == raw.locator(
                "table"
            ).evaluate(measure), (path.name, n)
        raw.close()
        page.close()
    assert (own.said, own.strangers, own.dialogs) == ([], [], [])
    own.context.close()
