"""The explorer in a real JupyterLab and a real browser. Screenshots are kept in test-artefacts/ to
be looked at.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from PIL import Image

from vwsdlib.encoders.registry import load_encoder
from vwsdlib.paths import PACKAGE

ROOT = PACKAGE.parent
ARTEFACTS = ROOT / "test-artefacts"
SETTING = r'--ServerApp\.tornado_settings="(.+)"'  # of `make lab`
CONNECTED = """() => {
    const kernel = window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel;
    return kernel && kernel.connectionStatus === "connected" && kernel.status === "idle"; }"""
SLOW = 90_000  # milliseconds: the first start may draw EmojiWSD


def start(folder):
    """(server, address) of a JupyterLab that serves `folder`, or None where it did not answer
    within a minute.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--expose-app-in-browser",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.token=test",
        f"--ServerApp.root_dir={folder}",
        f"--ServerApp.tornado_settings={re.search(SETTING, (ROOT / 'Makefile').read_text())[1]}",
    ]
    settings = folder / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "notification.jupyterlab-settings").write_text(
        '{"fetchNews": "false", "checkForUpdates": false}'
    )  # nobody is asked for news, nothing covers a button
    folders = {
        "VWSD_HOME": ROOT,
        "JUPYTER_CONFIG_DIR": folder / "config",
        "JUPYTER_RUNTIME_DIR": folder / "runtime",
        "PYTHONPATH": ROOT,
    }
    with open(folder / "lab.log", "w") as log:
        server = subprocess.Popen(
            command,
            env=os.environ | {k: str(v) for k, v in folders.items()},
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    for _ in range(80):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status?token=test", timeout=2)
            return server, f"http://127.0.0.1:{port}/lab/tree/explore.ipynb?token=test"
        except OSError:
            if server.poll() is not None:
                return None
            time.sleep(0.5)
    server.kill()
    return None


@pytest.fixture(scope="module")
def lab(tmp_path_factory, emojiwsd):
    """Address of a JupyterLab that serves a copy of the notebook; exports go where its kernel
    stands.
    """
    load_encoder("lite").identity()  # trained before the clock of the page runs
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(ROOT / "notebooks" / "explore.ipynb", folder)
    if not (started := start(folder) or start(folder)):
        pytest.skip(
            f"JupyterLab did not start here: {(folder / 'lab.log').read_text().strip()[-200:]}"
        )
    yield started[1]
    started[0].terminate()
    started[0].wait(30)


@pytest.fixture(scope="module")
def opened(lab, chromium):
    """The notebook open at 1280 pixels, all cells run."""
    from playwright.sync_api import TimeoutError

    page = chromium.new_page(viewport={"width": 1280, "height": 1400})
    page.goto(lab)
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=SLOW)
    page.wait_for_function(
        "window.jupyterapp && window.jupyterapp.commands.hasCommand('notebook:run-all-cells')",
        timeout=SLOW,
    )
    for _ in range(
        2
    ):  # what is sent while the kernel connects may be lost, and then JupyterLab waits for ever
        page.wait_for_function(CONNECTED, timeout=SLOW)
        page.evaluate(
            "() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }"
        )  # not waited for
        try:
            page.wait_for_selector(".vwsd-grid li", timeout=45_000)
            break
        except TimeoutError:
            page.wait_for_timeout(1000)
    else:
        if page.locator(".jp-InputPrompt", has_text="[1]:").count():
            raise AssertionError("the cell ran, and there is no explorer")
        pytest.skip(
            "JupyterLab did not run the cell: what was sent while its kernel connected was lost"
        )
    yield page
    page.close()


def shot(page, name):
    ARTEFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"explore-{name}.png")


def order(page):
    return [
        re.search(r"image\.\d+\.\w+|\w+\.png", text).group()
        for text in page.locator(".vwsd-grid li").all_inner_texts()
    ]


def control(page, label):
    """The control of a widget by the label beside it."""
    return (
        page.locator(".widget-inline-hbox", has=page.locator(f"label:text-is('{label}')"))
        .locator("input, select")
        .first
    )


def test_an_item_is_chosen_and_its_phrase_edited(opened):
    page = opened
    shot(page, "first")
    right = page.evaluate(
        "[...document.querySelectorAll('.vwsd-grid li')].map(e => e.getBoundingClientRect().right)"
    )
    assert max(right) <= page.evaluate(
        "document.querySelector('.jp-OutputArea-output').getBoundingClientRect().right"
    )
    before = order(page)
    control(page, "Search").fill("fruit bat")
    page.wait_for_function("document.body.innerText.includes('“fruit bat”')", timeout=20_000)
    chosen = order(page)
    assert chosen != before and len(chosen) == 10
    phrase = control(page, "Phrase")
    started = time.perf_counter()
    phrase.fill("wooden bat for baseball")
    page.wait_for_function("document.body.innerText.includes('“wooden bat for baseball”')")
    assert order(page) != chosen
    print(f"edit to ranking: {time.perf_counter() - started:.2f} s")
    shot(page, "edited")


def test_a_map_and_a_mask_are_drawn(opened):
    page = opened
    control(page, "Map").select_option("segmentation mask")
    page.get_by_role("button", name="Draw the map").click()
    page.wait_for_selector("img[alt^='segmentation mask of image.']", timeout=SLOW)
    shot(page, "mask")


def test_two_systems_stand_side_by_side(opened):
    page = opened
    control(page, "System B").select_option("lite-352")
    page.wait_for_function(
        "document.querySelector('.vwsd-grid li').innerText.includes('B ')", timeout=SLOW
    )
    page.wait_for_function(CONNECTED, timeout=SLOW)  # on a busy machine the list follows the grid
    control(page, "Search").fill("")
    page.wait_for_function(
        "document.querySelectorAll('.widget-select option').length === 502", timeout=SLOW
    )
    page.wait_for_function(CONNECTED, timeout=SLOW)
    control(page, "Show").select_option("A and B choose differently")
    page.wait_for_function(
        "document.querySelectorAll('.widget-select option').length > 10 &&"
        " document.querySelectorAll('.widget-select option').length < 502",
        timeout=SLOW,
    )
    page.wait_for_function(
        """() => {
            const chosen = document.querySelector(".widget-select select").selectedOptions[0];
            const label = chosen.textContent.replaceAll("\\u00a0", " ").split(" — ")[1];
            return document.body.innerText.includes(`Scored text: “${label}”`); }""",
        timeout=SLOW,
    )
    shot(page, "two")


def test_own_pictures_are_uploaded_and_exported(opened, tmp_path):
    page = opened
    for colour in ("red", "navy", "green"):
        Image.new("RGB", (120, 90), colour).save(tmp_path / f"{colour}.png")
    Image.effect_noise((4000, 4000), 90).save(tmp_path / "large.png")
    assert (
        tmp_path / "large.png"
    ).stat().st_size > 10 * 2**20  # more than the server takes in one message unless it is told to
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=re.compile("Own pictures")).click()
    chooser.value.set_files([str(tmp_path / f"{c}.png") for c in ("red", "navy", "green", "large")])
    page.wait_for_function("document.querySelectorAll('.vwsd-grid li').length === 4", timeout=SLOW)
    control(page, "Phrase").fill("something green")
    page.wait_for_function("document.body.innerText.includes('“something green”')")
    page.get_by_role("button", name="Export").click()
    page.wait_for_function("document.body.innerText.includes('Written: ')", timeout=SLOW)
    shot(page, "own")
    written = re.findall(r"Written: (\S+)", page.locator("body").inner_text())
    assert [os.path.splitext(path)[1] for path in written] == [".png", ".json"] and all(
        os.path.exists(path) for path in written
    )
    for path in written:
        os.remove(path)


def test_farsi_runs_from_right_to_left_and_half_a_screen_is_enough(opened):
    page = opened
    control(page, "Part").select_option("Farsi, test")
    page.wait_for_selector(".vwsd-rtl input", timeout=SLOW)
    page.wait_for_function("document.querySelectorAll('.vwsd-grid li').length === 10", timeout=SLOW)
    assert page.locator(".vwsd-rtl input").evaluate("e => getComputedStyle(e).direction") == "rtl"
    page.set_viewport_size({"width": 760, "height": 1600})
    page.wait_for_timeout(500)
    shot(page, "farsi-half")
    right = page.evaluate(
        "[...document.querySelectorAll('.vwsd-grid li, .vwsd-note')].map(e =>"
        " e.getBoundingClientRect().right)"
    )
    assert max(right) <= page.evaluate(
        "document.querySelector('.jp-OutputArea-output').getBoundingClientRect().right"
    )
