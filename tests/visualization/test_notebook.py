"""Results in a notebook, and in a window."""

import io
import re
import sys
from base64 import b64decode
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet.classes import CAMVID, LabelSet
from ccnet.inference import Segmentation
from ccnet.visualization import display_colors


def result_of(height=36, width=48, channels=3, label_set=CAMVID):
    labels = torch.zeros(height, width, dtype=torch.uint8)
    labels[: height // 4] = 2
    image = torch.randint(0, 256, (channels, height, width), dtype=torch.uint8)
    return Segmentation(labels, label_set, image)


def pictures_in(html):
    found = re.findall('src="data:image/jpeg;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(b64decode(text))) for text in found]


def test_image_overlay_and_legend():
    result = result_of()
    html = result._repr_html_()
    image, shown = pictures_in(html)
    smooth = [np.array(one).mean(axis=(0, 1)) for one in (image, shown, result.overlay())]
    assert image.size == shown.size == (48, 36)
    assert np.abs(smooth[0] - result.image.double().mean(dim=(1, 2)).numpy()).max() < 3
    assert np.abs(smooth[1] - smooth[2]).max() < 3
    sky, pole = (f"rgb{display_colors(CAMVID)[label]}" for label in (0, 2))
    assert re.search(rf"{re.escape(sky)}.*sky 75.0 %.*{re.escape(pole)}.*pole 25.0 %", html)
    assert "48 x 36 pixels" in html


def test_size_is_bounded():
    html = result_of(3000, 4000)._repr_html_()
    assert len(html) < 2**20
    assert [one.size for one in pictures_in(html)] == [(640, 480)] * 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1)])
@pytest.mark.parametrize(("channels", "pictures"), [(1, 2), (3, 2), (4, 1), (12, 1)])
def test_any_size_and_channels(shape, channels, pictures):
    assert len(pictures_in(result_of(*shape, channels)._repr_html_())) == pictures


def test_names_are_no_html():
    names = ("<script>alert(1)</script>", "a", '"&<b>')
    html = result_of(label_set=LabelSet.from_config({"categories": names}))._repr_html_()
    assert "&lt;script&gt;" in html
    assert "&quot;&amp;&lt;b&gt;" in html
    tags = set()
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.add(tag)
    parser.feed(html)
    assert tags == {"figure", "div", "img", "figcaption", "span"}


def test_shown_in_a_notebook(monkeypatch):
    shown = []
    ipython = SimpleNamespace(
        get_ipython=lambda: SimpleNamespace(kernel=None),
        display=SimpleNamespace(display=shown.append),
    )
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    result = result_of()
    result.show()
    assert shown == [result]


@pytest.mark.parametrize("ipython", [False, True])
def test_shown_in_a_window(monkeypatch, ipython):
    shown = []
    monkeypatch.setattr("PIL.ImageShow.show", lambda picture: shown.append(picture) or True)
    monkeypatch.setenv("DISPLAY", ":0")
    if ipython:  # in a terminal
        module = SimpleNamespace(get_ipython=lambda: None)
        monkeypatch.setitem(sys.modules, "IPython", module)
    result = result_of()
    result.show()
    assert shown == [result.overlay(legend=True)]


@pytest.mark.parametrize("missing", ["display", "viewer"])
def test_without_display_or_viewer(monkeypatch, missing):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("PIL.ImageShow.show", lambda picture: missing == "display")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    if missing == "viewer":
        monkeypatch.setenv("DISPLAY", ":0")
    with pytest.raises(OSError, match=r"no display to show it on: .*overlay\(legend=True\)\.save"):
        result_of().show()
