"""A newcomer's walk, timed: clone, `make demo`, open the report, find out why an item failed, add a
toy encoder by its page, see its row.

    python3 tests/newcomer.py [DIR]

Whatever is typed stands on a page that a newcomer reads: README.md, or one it links to; what stands
on none of them stops the walk. Code is taken from the pages as printed. Pages are opened in a
Chromium where there is one. Exit code 1: a step failed, or all of it took longer than LIMIT.
Nothing but Python's own library is needed to start; DIR (default: a temporary folder) gets the
clone and stays.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
LIMIT = 20 * 60  # seconds
RUN = "lite.phrase.en.test"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


class Walk:
    """One walk through a clone: what was typed, where it stands, how long it took."""

    def __init__(self, folder: Path):
        self.clone, self.steps = folder / "clone", []

    def page(self, name: str) -> str:
        """Text of a page; every one but the README must be linked from it."""
        assert name == "README.md" or f"]({name}" in self.page("README.md"), (
            f"README.md leads nobody to {name}"
        )
        return (self.clone / name).read_text(encoding="utf-8")

    def type(self, command: str, page: str) -> str:
        """Run a command that stands on a page; returns what it printed."""
        assert command in self.page(page), f"`{command}` does not stand on {page}"
        words = re.sub(
            r"^vwsd ", ".venv/bin/vwsd ", command
        )  # README: `make demo` puts the command at .venv/bin/vwsd
        return self.time(f"{command}   ({page})", lambda: run(words, self.clone))

    def time(self, what: str, do):
        """Do something and note how long it takes."""
        print(f"... {what}", flush=True)
        start = time.monotonic()
        found = do()
        self.steps.append((what, time.monotonic() - start))
        return found


def run(command: str, folder: Path) -> str:
    """Output of a shell command; its errors end the walk."""
    clean = {
        k: v
        for k, v in os.environ.items()
        if k == "VWSD_CHROMIUM" or not k.startswith(("VWSD_", "VIRTUAL_ENV", "PYTHON"))
    }
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=clean,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, f"`{command}` ended with {done.returncode}:\n{done.stdout[-3000:]}"
    return done.stdout


def why_it_failed(walk: Walk) -> str:
    """The first English item that the baseline gets wrong, and what it took for the answer, as the
    pages tell it.
    """
    run("make tools", walk.clone)  # the newcomer has a browser; the walk drives one
    return (
        run(
            f".venv/bin/python {shlex.quote(str(Path(__file__).resolve()))} --open"
            " runs/demo/site/index.html",
            walk.clone,
        )
        .strip()
        .splitlines()[-1]
    )


def open_pages(index: Path) -> str:
    """From the site's first page by its links to an item of RUN that is wrong: its phrase, the
    gold, the pick and both scores.
    """
    import shutil

    from playwright.sync_api import sync_playwright

    chromium = (
        os.environ.get("VWSD_CHROMIUM")
        or shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if not chromium:
        return "not opened: there is no Chromium here (Debian: apt install chromium)"
    with sync_playwright() as p:
        page = p.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        ).new_page(viewport={"width": 1280, "height": 900})
        page.goto(index.resolve().as_uri())
        page.get_by_role("link", name=re.compile(r"items")).first.click()
        page.locator("main a", has_text=re.compile("English test")).first.click()
        run_of = page.get_by_label("Run", exact=True)
        run_of.select_option(
            index=next(
                n
                for n, text in enumerate(run_of.locator("option").all_text_contents())
                if text.startswith(f"{RUN} ")
            )
        )
        page.get_by_label("wrong", exact=True).check()
        page.locator("#items tbody tr:visible a").first.click()
        its = [
            cell.strip()
            for cell in (
                page.locator("#table-answers tbody tr", has=page.get_by_text(RUN, exact=True))
                .first.locator("th, td")
                .all_text_contents()
            )
        ]
        heads = [
            head.strip() for head in page.locator("#table-answers thead th").all_text_contents()
        ]
        row, shown = dict(zip(heads, its)), page.locator("ol.candidates li")
        gold, pick = (
            int(next(head for head in heads if head.endswith("✓")).split()[0]),
            int(row["Pick"]),
        )
        says = {
            n: shown.nth(n - 1).locator(".name").inner_text().replace("\n", ", ")
            for n in (gold, pick)
        }
        return (
            f"“{page.locator('h1').inner_text()}”: {RUN} took {says[pick]} ({row[str(pick)]}) for"
            f" {says[gold]} ({row[f'{gold} ✓']}), which stands at rank {row['Rank of gold']}"
        )


def add_encoder(walk: Walk, page: str) -> str:
    """Do what the page says: save its class where it says, put its line into the registry; returns
    the encoder's name.
    """
    text = walk.page(page)
    code = next(block for kind, block in FENCE.findall(text) if kind == "python")
    place, line = (
        re.search(r"Save it as `([\w/]+\.py)`", text)[1],
        re.search(r"The line in the registry: `((\w+): {.+?})`", text),
    )
    assert sum(bool(row.strip()) for row in code.splitlines()) < 20, (
        "an encoder is meant to be short"
    )
    (walk.clone / place).write_text(code, encoding="utf-8")
    registry = walk.clone / re.search(r"at the end of `([\w/]+\.yml)`", text)[1]
    with open(registry, "a", encoding="utf-8") as f:
        f.write(f"{line[1]}\n")
    return line[2]


def main() -> int:
    """Walk, and print the times."""
    parser = argparse.ArgumentParser("tests/newcomer.py", description=__doc__.splitlines()[0])
    parser.add_argument(
        "folder", nargs="?", type=Path, help="where the clone goes (default: a temporary folder)"
    )
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        print(open_pages(options.open))
        return 0
    walk = Walk((options.folder or Path(tempfile.mkdtemp(prefix="newcomer-"))).resolve())
    if run("git status --porcelain", HERE):
        print("note: the clone is of the last commit; what is not committed here is not in it")
    walk.clone.parent.mkdir(parents=True, exist_ok=True)
    walk.time(
        "git clone",
        lambda: run(
            shlex.join(["git", "clone", "-q", str(HERE), str(walk.clone)]), walk.clone.parent
        ),
    )
    first = (
        next(block for kind, block in FENCE.findall(walk.page("README.md")) if not kind)
        .splitlines()[0]
        .split("#")[0]
        .strip()
    )
    assert first == "make demo", f"the README begins with `{first}`"
    walk.type(first, "README.md")
    assert len(list((walk.clone / "runs/demo/.stamps").glob("0*.json"))) == 6, (
        "not all notebooks ran"
    )
    assert (walk.clone / "runs/demo/report.md").exists() and "`runs/demo/report.md`" in walk.page(
        "README.md"
    )
    walk.type(".venv/bin/vwsd report --html", "README.md")
    what = "open the pages, find an item that failed and why"
    print(f"    {walk.time(what, lambda: why_it_failed(walk))}")
    page = "docs/adding-a-model.md"
    name = walk.time(f"add the toy encoder   ({page})", lambda: add_encoder(walk, page))
    walk.type(f"vwsd run --profile demo --only 02_clip_baseline --set encoder={name}", page)
    rows = [
        line
        for line in (
            (walk.clone / "runs/demo/tables/baseline.md").read_text(encoding="utf-8").splitlines()
        )
        if f"| {name} " in line
    ]
    assert rows and "`runs/demo/tables/baseline.md`" in walk.page(page), (
        f"the table has no row of {name}"
    )
    print("\n".join(f"    {row}" for row in rows[:3]))
    total = sum(seconds for _, seconds in walk.steps)
    print(
        "\n"
        + "\n".join(f"{seconds:8.1f} s  {what}" for what, seconds in walk.steps)
        + f"\n{total:8.1f} s  in all ({total / 60:.1f} of {LIMIT // 60} minutes)\n{walk.clone}"
    )
    return int(total > LIMIT)


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except AssertionError as e:
        print(f"The walk ends here: {e}")
        raise SystemExit(1) from None
