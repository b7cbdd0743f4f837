# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""The page in headless Chromium, which MONAI_FEWSHOT_CHROMIUM may name."""

from __future__ import annotations

import csv
import io
import os
import shutil
import threading
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from monai_fewshot.apps.review.reviewed_scans import class_names_of, list_reviewed_scans
from monai_fewshot.apps.review.server import ReviewPages, make_server_app
from monai_fewshot.apps.review.serving import listen

pytest.importorskip("starlette")
uvicorn = pytest.importorskip("uvicorn")
playwright = pytest.importorskip("playwright.sync_api")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = os.environ.get("MONAI_FEWSHOT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
SOFTWARE_RENDERING = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
PATIENCE = 120_000

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: install one, or name it by MONAI_FEWSHOT_CHROMIUM"
)


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window, which cannot find anything but this machine."""
    words = [*SOFTWARE_RENDERING, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        words.append("--no-sandbox")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=words)
        yield chromium
        chromium.close()


@pytest.fixture
def address(folder):
    """Of a server in a thread of this process, which takes less time than another one."""
    pages = ReviewPages(folder, list_reviewed_scans(folder), class_names_of(folder))
    with listen(0) as listener:
        server = uvicorn.Server(uvicorn.Config(make_server_app(pages, "a-token"), log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/?token=a-token"
        server.should_exit = True
        thread.join()


@pytest.fixture
def page(browser, address):
    """The page with its first scan, the requests that it made, and its errors."""
    page = browser.new_page(viewport={"width": 900, "height": 600})
    page.set_default_timeout(PATIENCE)
    page.asked, page.failed = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.failed.append(str(error)))
    page.on("console", lambda line: page.failed.append(line.text) if line.type == "error" else None)
    page.goto(address)
    shown(page, 0)
    yield page
    page.close()


def shown(page, place):
    page.wait_for_selector(f'body[data-shown="{place}"]')


def kept(page, verdict, name):
    page.wait_for_function(
        "([verdict, name]) => [...document.querySelectorAll('#list tr')]"
        ".some((row) => row.cells[0].textContent === name && row.cells[2].textContent.startsWith(verdict))",
        arg=[verdict, name],
    )


def reviews(folder):
    with (folder / "review.csv").open(newline="", encoding="utf-8") as file:
        return {row["scan"]: (row["verdict"], row["note"]) for row in csv.DictReader(file)}


def colored_pixels(page):
    pixels = np.asarray(Image.open(io.BytesIO(page.locator("#volume").screenshot())).convert("RGB")).astype(int)
    return int((pixels.max(-1) - pixels.min(-1) > 60).sum())


def test_keys_step_through_scans_and_keep_verdicts_at_once(page, folder, address, hostile):
    names = page.locator("#list tr td:first-child").all_text_contents()
    assert names == ["phantom_2", "phantom_1", hostile]
    assert page.locator("#list tr td:nth-child(2)").all_text_contents() == ["55 %", "75 %", "\u2013"]
    page.keyboard.press("r")
    kept(page, "rejected", "phantom_2")
    assert reviews(folder) == {"phantom_2": ("rejected", "")}
    page.keyboard.press("n")
    shown(page, 1)
    page.keyboard.press("a")
    kept(page, "accepted", "phantom_1")
    page.locator("#note").fill("misses, ")
    page.locator("#note").press("End")
    page.keyboard.type('a "r" n')
    page.keyboard.press("Escape")
    kept(page, "accepted ✎", "phantom_1")
    page.keyboard.press("ArrowRight")
    shown(page, 2)
    page.keyboard.press("p")
    shown(page, 1)
    assert page.locator("#note").input_value() == 'misses, a "r" n'
    assert reviews(folder) == {"phantom_2": ("rejected", ""), "phantom_1": ("accepted", 'misses, a "r" n')}
    page.reload()
    shown(page, 0)
    assert page.locator("#list tr td:nth-child(3)").all_text_contents() == ["rejected", "accepted ✎", ""]
    own = urlsplit(address).netloc
    assert {urlsplit(url).netloc for url in page.asked if not url.startswith(("data:", "blob:"))} == {own}
    assert page.failed == []
    assert "token" not in page.url


def test_names_with_quotes_and_tags_are_text(page, folder, hostile):
    page.keyboard.press("ArrowLeft")
    page.locator("#list tr").nth(2).click()
    shown(page, 2)
    assert page.locator("#name").text_content() == hostile
    page.keyboard.press("r")
    kept(page, "rejected", hostile)
    assert reviews(folder) == {hostile: ("rejected", "")}
    assert page.title() == "Review of masks"
    assert page.locator("img").count() == 1, "the page's own, for pictures"
    assert page.locator("#classes").text_content() == "liver <b>right kidney"
    assert page.failed == []


def test_the_mask_is_drawn_as_contours_and_can_be_switched_off(page):
    assert "ocolor.a = isInside" in page.evaluate("CONTOURED")
    assert page.evaluate("fetch('/static/niivue.umd.js').then((a) => a.text()).then((t) => t.includes(FILLED))")
    with_mask = colored_pixels(page)
    page.keyboard.press("m")
    page.wait_for_selector("#mask[aria-pressed=false]")
    without = colored_pixels(page)
    page.keyboard.press("m")
    page.wait_for_selector("#mask[aria-pressed=true]")
    assert without < with_mask / 10
    assert colored_pixels(page) == with_mask
    before = page.evaluate("viewer.frac2vox(viewer.scene.crosshairPos)[2]")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    page.wait_for_function("(z) => viewer.frac2vox(viewer.scene.crosshairPos)[2] === z", arg=before + 2)


def test_a_decision_that_cannot_be_kept_is_told(page, folder):
    (folder / "review.csv").write_text("scan,verdict\n")
    page.keyboard.press("a")
    page.wait_for_selector("#saved.failed")
    assert "NOT KEPT" in page.locator("#saved").text_content()
    assert "line 1: lacks the column(s) note, time" in page.locator("#saved").text_content()
    assert (folder / "review.csv").read_text() == "scan,verdict\n"
    page.locator("#note").fill("not lost")
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    shown(page, 1)
    page.keyboard.press("p")
    shown(page, 0)
    assert page.locator("#note").input_value() == "not lost"
    (folder / "review.csv").unlink()
    page.keyboard.press("a")
    kept(page, "accepted", "phantom_2")
    assert reviews(folder) == {"phantom_2": ("accepted", "not lost")}
