"""Answers of the explorer: those of the network, whoever asks, and refusals in words."""

import base64
import io
import os
import random
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ccnet
from ccnet.explorer import Explorer, answers
from ccnet.explorer.pictures import MOST_PIXELS, MOST_SIDE
from ccnet.visualization import heat_levels, record_attention
from ccnet.visualization.attention_paths import Path as Way

SCENE = "scene-0"


@pytest.fixture(scope="module")
def network(weights):
    return ccnet.ccnet_resnet18(weights=weights)


def as_png(size, color="red", mode="RGB"):
    content = io.BytesIO()
    Image.new(mode, size, color).save(content, "PNG")
    return content.getvalue()


def decoded(map_, scale, size):
    levels = np.frombuffer(base64.b64decode(map_["levels"][scale]), np.uint8)
    return levels.reshape(size) / 255


@pytest.mark.parametrize("training_size", [None, (24, 40)])
def test_probabilities_are_those_of_predict(make_model, picture_paths, tmp_path, training_size):
    model = make_model(11, label_set="camvid", training_size=training_size)
    weights = str(tmp_path / "model")
    model.save_pretrained(weights)
    explorer = Explorer(picture_paths, weights)
    for key, path in zip(("file-0", "file-1"), picture_paths, strict=True):
        expected = model.predict(path, return_probabilities=True)
        height, width = expected.labels.shape
        for pixel in [(0, 0), (height - 1, width - 1), (7, 20), (30, 3)]:
            answer = explorer.attention(key, weights, 2, *pixel)
            found = {one["name"]: one["probability"] for one in answer["probabilities"]}
            values = expected.probabilities[:, pixel[0], pixel[1]].tolist()
            assert found == pytest.approx(
                dict(zip(expected.categories, values, strict=True)), abs=1e-5
            )
            assert answer["class"] == expected.categories[expected.labels[pixel]]
            assert list(found.values()) == sorted(found.values(), reverse=True)


def test_maps_are_those_of_the_record(explorer, network, weights, picture_paths):
    record = record_attention(network, picture_paths[0])
    pixel = 20, 41
    answer = explorer.attention("file-0", weights, 2, *pixel)
    assert [one["loops"] for one in answer["maps"]] == [1, 2]
    for found, expected in zip(answer["maps"], record.maps(pixel), strict=True):
        assert found["sum"] == pytest.approx(1, abs=1e-9)
        top = float(expected.max())
        for scale, levels in (
            ("logarithmic", heat_levels(expected)),
            ("linear", heat_levels(expected, "linear", top)),
        ):
            assert np.abs(decoded(found, scale, record.map_size) - levels).max() < 0.003
        first = found["sources"][0]
        row, column = (int(at) for at in divmod(int(expected.argmax()), record.map_size[1]))
        assert list(record.pixel((row, column))) in [one["pixel"] for one in found["sources"]]
        assert first["class"] == record.category(first["pixel"])
        points = found["paths"][0]["points"]
        assert len(points) == found["loops"] + 1
        assert points[-1] == list(pixel)
        assert 0 < found["paths"][0]["share"] <= first["share"] + 1e-9
        for start, end in pairwise(points):
            assert start[0] == end[0] or start[1] == end[1], "a hop along a row or a column"


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        ([(4, 1), (4, 6)], "along the row"),
        ([(0, 1), (4, 1)], "along the column"),
        ([(0, 1), (4, 1), (4, 6)], "along the column, then along the row"),
        ([(4, 1), (4, 6), (4, 6)], "along the row in loop 1"),
        ([(4, 6), (4, 6), (0, 6)], "along the column in loop 2"),
        ([(4, 6), (4, 2), (4, 2), (4, 6)], "along the row in loop 1, then along the row in loop 3"),
        ([(4, 6), (4, 6), (4, 6)], "to itself"),
    ],
)
def test_path_from_the_source_in_words(positions, words):
    assert answers._words(Way(tuple(positions), 0.5)) == words


def test_number_of_loops_changes_labels_and_maps(explorer, network, weights, picture_paths):
    labels = {}
    for loops in range(4):
        view = explorer.view("file-0", weights, loops)
        assert (view["loops"], view["trained_loops"]) == (loops, 2)
        assert sum(one["share"] for one in view["classes"]) == pytest.approx(1)
        answer = explorer.attention("file-0", weights, loops, 5, 5)
        assert len(answer["maps"]) == loops
        labels[loops] = np.array(explorer.labels("file-0", weights, loops))
    for loops in (0, 3):
        other = ccnet.ccnet_resnet18(weights=weights, recurrence=loops)
        assert np.array_equal(labels[loops], other.predict(picture_paths[0]).labels)
    assert not np.array_equal(labels[0], labels[2])
    assert explorer.view("file-0", weights)["loops"] == 2, "those of the weights"
    assert network.head.recurrence == 2


def test_pictures_are_shown_as_they_are(explorer, picture_paths):
    shown = np.array(explorer.picture("file-1"))
    assert np.array_equal(shown, np.array(Image.open(picture_paths[1])))
    assert explorer.picture(SCENE).size == (480, 360)
    assert list(explorer.pictures.names)[:3] == ["file-0", "file-1", "scene-0"]


def test_uploads_are_pictures_of_their_content(explorer, weights):
    first, second = (explorer.pictures.add(as_png((50, 34), color)) for color in ("red", "blue"))
    assert first != second
    assert explorer.pictures.add(as_png((50, 34), "red")) == first
    assert explorer.picture(first).getpixel((0, 0)) == (255, 0, 0)
    assert explorer.view(second, weights)["size"] == [34, 50]
    large = explorer.pictures.add(as_png((2 * MOST_SIDE, MOST_SIDE)))
    assert explorer.picture(large).size == (MOST_SIDE, MOST_SIDE // 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"no picture at all", "the file cannot be read as a picture"),
        (as_png((40, 40))[:60], "cannot be read as an? (picture|image)"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "the file cannot be read as a picture"),
        (as_png((MOST_PIXELS // 1000 + 1, 1000), 0, "1"), "50 million, but may have 50 million"),
        (b"\0" * (32 * 2**20 + 1), "the file has 32 MiB, but may have 32"),
    ],
)
def test_uploads_are_refused_in_words(explorer, content, message):
    with pytest.raises(ValueError, match=message):
        explorer.pictures.add(content)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (("upload-0", None, 2, 0, 0), "this picture is no longer kept: choose it again"),
        (("file-7", None, 2, 0, 0), "this picture is no longer kept: choose it again"),
        (("file-0", None, 2, 33, 0), "row 33, column 0 is outside the picture of 33 rows and 49"),
        (("file-0", None, 2, 0, -1), "row 0, column -1 is outside the picture"),
        (("file-0", None, 0, 40, 0), "row 40, column 0 is outside the picture"),
        (("file-0", None, 9, 0, 0), "the number of loops must be 0 to 4, not 9"),
        (("file-0", "missing", 2, 0, 0), "there is no file of weights at missing"),
        (("file-0", "missing.pth", 2, 0, 0), "missing.pth"),
    ],
)
def test_questions_are_refused_in_words(explorer, weights, question, message):
    picture, given, *rest = question
    with pytest.raises((OSError, ValueError), match=message):
        explorer.attention(picture, given or weights, *rest)


def test_weights_without_attention_have_no_loops(make_model, picture_paths, tmp_path):
    make_model(3, recurrence=0).save_pretrained(tmp_path / "plain")
    explorer, weights = Explorer(picture_paths), str(tmp_path / "plain")
    view = explorer.view("file-0", weights)
    assert (view["loops"], view["has_attention"]) == (0, False)
    assert explorer.attention("file-0", weights, None, 1, 1)["maps"] == []
    with pytest.raises(ValueError, match="these weights have no attention"):
        explorer.view("file-0", weights, 1)


def test_files_are_chosen_on_the_own_machine_alone(picture_paths, weights):
    explorer = Explorer(picture_paths, allows_files=False)
    with pytest.raises(ValueError, match="only on the machine of the explorer"):
        explorer.view("file-0", weights)
    begun = Explorer(picture_paths, weights, allows_files=False)
    assert begun.view("file-0", weights)["loops"] == 2


def test_clicks_at_once_are_not_mixed_up(explorer, picture_paths, weights):
    """Of twenty clicks on two pictures with different loops, as of several sessions."""
    chance = random.Random(4)
    limits = (2, 2, 33, 40)
    choices = [[chance.randrange(limit) for limit in limits] for _ in range(20)]
    clicks = [(f"file-{key}", weights, 1 + more, *pixel) for key, more, *pixel in choices]
    expected = [explorer.attention(*click) for click in clicks]
    together = Explorer(picture_paths, weights)
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda click: together.attention(*click), clicks))
    for click, one, other in zip(clicks, found, expected, strict=True):
        assert one["pixel"] == list(click[3:])
        assert one["class"] == other["class"]
        assert [m["sources"] for m in one["maps"]] == [m["sources"] for m in other["maps"]]
        assert [m["levels"] for m in one["maps"]] == [m["levels"] for m in other["maps"]]


def test_network_runs_once_for_all_clicks_on_a_picture(picture_paths, weights, monkeypatch):
    explorer, runs = Explorer(picture_paths, weights), []
    monkeypatch.setattr(
        "ccnet.explorer.answers.look",
        lambda *given, look=ccnet.explorer.answers.look: runs.append(1) or look(*given),
    )
    for row in range(5):
        explorer.attention("file-0", weights, 2, row, 0)
    explorer.labels("file-0", weights, 2)
    explorer.view("file-0", weights)
    assert len(runs) == 1


def test_views_are_kept_within_a_bound(picture_paths, weights, monkeypatch):
    monkeypatch.setattr("ccnet.explorer.answers.KEPT", 1)
    explorer = Explorer(picture_paths, weights)
    before = explorer.attention("file-0", weights, 2, 3, 3)
    for key in ("file-1", "file-0", "file-1"):
        explorer.attention(key, weights, 2, 3, 3)
        assert len(explorer._views._values) == 1
    assert explorer.attention("file-0", weights, 2, 3, 3) == before


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_clicks(explorer, weights):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def click(times):
        for index in range(times):
            place = index * 7 % 33, index * 11 % 40
            explorer.attention(f"file-{index % 2}", weights, 1 + index % 3, *place)
        return resident()

    before = click(20)
    assert click(180) - before < 16 * 2**20


def test_files_that_are_written_again_are_read_again(make_model, tmp_path):
    path, weights = tmp_path / "picture.png", tmp_path / "model"
    path.write_bytes(as_png((40, 32), "red"))
    make_model(11, recurrence=2).save_pretrained(weights)
    explorer = Explorer([path], str(weights))
    assert explorer.view("file-0", str(weights))["trained_loops"] == 2
    path.write_bytes(as_png((48, 36), "blue"))
    make_model(11, recurrence=1).save_pretrained(weights)
    assert explorer.picture("file-0").getpixel((0, 0)) == (0, 0, 255)
    view = explorer.view("file-0", str(weights))
    assert (view["size"], view["trained_loops"], view["loops"]) == ([36, 48], 1, 1)
