"""The explorer's page in a real browser: choose, click, upload, switch, at both widths."""

import io
import re
import time

import numpy as np
import pytest
from browser import Browser, find_browser
from PIL import Image

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_browser() is None,
        reason="needs chromium and chromedriver: apt-get install chromium chromium-driver",
    ),
]

READY = "document.body.dataset.ready && document.querySelector('#busy').hidden"

PIXELS = """
const canvas = document.querySelector(arguments[0] + " canvas");
return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data].join();
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser, explorer, serving):
    """The browser with the page open and ready."""
    with serving(explorer) as server:
        browser.resize(1280, 1000)
        browser.open(server.url)
        browser.wait_for(READY)
        yield browser


def title(page):
    return page.text("#pixel-title")


def maps(page):
    return [page.run(PIXELS, f"#map-{loops}") for loops in (1, 2)]


def click(page, selector, across, down):
    before = title(page)
    page.click(selector, across, down)
    page.wait_for(f"document.querySelector('#pixel-title').innerText !== {before!r}")


def test_click_changes_both_maps(page):
    assert title(page).startswith("Row 16, column 24: ")
    before = maps(page)
    click(page, "#photo-stage", 0.9, 0.1)
    row, column = map(int, re.findall(r"\d+", title(page))[:2])
    assert (row, column) == (3, 44)
    assert all(old != new for old, new in zip(before, maps(page), strict=True))
    assert page.run("return document.querySelectorAll('#probabilities tr').length") == 6
    for loops in (1, 2):
        assert page.run(f"return document.querySelectorAll('#map-{loops} li').length") >= 1
        assert page.run(f"return document.querySelector('#map-{loops} .head') !== null"), "an arrow"
        assert "%" in page.text(f"#map-{loops} .sources")
    before = maps(page)
    click(page, "#map-2 .stage", 0.2, 0.7)
    assert all(old != new for old, new in zip(before, maps(page), strict=True))


def test_another_picture_is_chosen(page):
    page.choose("#picture", "file-1")
    page.wait_for("document.querySelector('#photo-stage .photo').naturalHeight === 48")
    page.wait_for(
        f"{READY} && document.querySelector('#pixel-title').innerText.startsWith('Row 24')"
    )
    assert title(page).startswith("Row 24, column 20: ")


def test_click_while_another_picture_is_on_its_way_is_of_that_picture(page):
    page.run(
        "const choice = document.querySelector('#picture'); choice.value = 'file-1';"
        "choice.dispatchEvent(new Event('change'));"
        "document.querySelector('#photo-stage').click();"
    )
    page.wait_for("document.querySelector('#photo-stage .photo').naturalHeight === 48")
    page.wait_for(
        f"{READY} && document.querySelector('#photo-stage svg').viewBox.baseVal.height === 48"
    )
    labels = page.run("return document.querySelector('#photo-stage .labels').src")
    assert "picture=file-1" in labels


def test_picture_that_is_abandoned_is_not_waited_for(page, explorer, monkeypatch):
    def labels(picture, *given, labels=explorer.labels):
        time.sleep(2 if picture == "file-1" else 0)
        return labels(picture, *given)

    explorer.view("file-1", explorer.options()["first_weights"])
    monkeypatch.setattr(explorer, "labels", labels)
    page.run(
        "const choice = document.querySelector('#picture');"
        "['file-1', 'file-0'].forEach((id, index) => setTimeout(() => {"
        "  choice.value = id; choice.dispatchEvent(new Event('change')); }, 200 * index));"
        "setTimeout(() => { document.body.dataset.waited = 'true'; }, 1200);"
    )
    page.wait_for("document.body.dataset.waited === 'true'")
    assert page.run("return document.querySelector('#busy').hidden")
    assert "picture=file-0" in page.run("return document.querySelector('#photo-stage .photo').src")


def test_number_of_loops_changes_labels_and_panels(page):
    labels = "return document.querySelector('#photo-stage .labels').src"
    count = "document.querySelectorAll('#maps section').length"
    before = page.run(labels)
    for loops in (3, 1, 0):
        page.choose("#loops", loops)
        page.wait_for(f"{count} === {loops}")
    assert page.run(labels) != before
    assert page.run("return document.querySelector('#message').hidden")


def test_scale_zoom_and_opacity_need_no_answer(page):
    before = maps(page)
    page.choose("#scale", "linear")
    assert maps(page) != before
    page.click("#zoom")
    transform = "return document.querySelector('#map-1 .content').style.transform"
    assert "scale(4)" in page.run(transform)
    page.choose("#opacity", "0")
    assert page.run("return document.querySelector('#photo-stage .labels').style.opacity") == "0"


def test_arrow_keys_move_the_pixel(page):
    before = title(page)
    page.type("#photo-stage", "\ue014")  # to the right
    page.wait_for(f"document.querySelector('#pixel-title').innerText !== {before!r}")
    assert title(page).startswith("Row 16, column 31: ")


def test_uploads_are_explored_or_refused_in_words(page, tmp_path):
    wrong, right = tmp_path / "letter.png", tmp_path / "mine.png"
    wrong.write_bytes(b"This is a letter.")
    Image.fromarray(np.arange(60 * 80 * 3, dtype=np.uint8).reshape(60, 80, 3)).save(right)
    before = title(page)
    page.type("#upload", wrong)
    page.wait_for("!document.querySelector('#message').hidden")
    assert page.text("#message").startswith("letter.png: the file cannot be read as a picture")
    assert title(page) == before, "what was there stays"
    page.type("#upload", right)
    page.wait_for("document.querySelector('#pixel-title').innerText.startsWith('Row 30')")
    assert page.run("return document.querySelector('#message').hidden")
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(40 * 2**20)
    page.type("#upload", large)
    page.wait_for("!document.querySelector('#message').hidden")
    assert page.text("#message") == "large.png has 40 MiB, but may have 32."


def test_upload_that_is_no_longer_kept_is_sent_again(page, explorer, tmp_path):
    path = tmp_path / "mine.png"
    Image.new("RGB", (70, 50), "white").save(path)
    page.type("#upload", path)
    page.wait_for("document.querySelector('#pixel-title').innerText.startsWith('Row 25')")
    for store in (explorer.pictures._kept, explorer._views):
        store._values.clear()
        store._size = 0
    click(page, "#photo-stage", 0.1, 0.1)
    assert page.run("return document.querySelector('#message').hidden")


def test_file_of_weights_is_chosen_or_refused_in_words(page, weights):
    page.choose("#weights", "a file…")
    page.wait_for("!document.querySelector('#file-field').hidden")
    page.choose("#file", "missing.safetensors")
    page.wait_for("!document.querySelector('#message').hidden")
    assert "missing.safetensors" in page.text("#message")
    page.choose("#file", weights)
    page.wait_for("document.querySelector('#message').hidden")


@pytest.mark.parametrize("width", [390, 320, 1280])
def test_page_fits_its_width(page, width):
    page.resize(width, 844)
    assert page.run("return document.documentElement.scrollWidth") <= width
    click(page, "#photo-stage", 0.7, 0.3)
    shown = Image.open(io.BytesIO(page.screenshot()))
    assert shown.width == width


def test_nothing_is_asked_of_other_machines(page):
    click(page, "#photo-stage", 0.5, 0.9)
    hosts = page.run(
        "return performance.getEntriesByType('resource').map(r => new URL(r.name).host)"
    )
    assert set(hosts) <= {page.run("return location.host"), ""}
