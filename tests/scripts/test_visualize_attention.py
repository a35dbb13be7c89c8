"""`ccnet attention`: attention maps of the composed loops, and the figure."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from reference import criss_cross_positions

from ccnet.visualization import capture_queries_and_keys, heat_overlay

MAP_SIZE = (5, 7)


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("attention")


def one_loop(query, key):
    """Weights (P, P) of all positions of a map over all others, one at a time."""
    _, height, width = query.shape
    weights = torch.zeros(height, width, height, width, dtype=torch.float64)
    for y, x in np.ndindex(height, width):
        cross = criss_cross_positions((y, x), (height, width))
        energies = torch.stack([query[:, y, x] @ key[:, i, j] for i, j in cross])
        for (i, j), weight in zip(cross, energies.softmax(dim=0), strict=True):
            weights[y, x, i, j] = weight
    return weights.flatten(2).flatten(0, 1)


@pytest.mark.parametrize(("pixel", "position"), [((8, 40), (1, 5)), ((32, 7), (4, 1))])
def test_maps_are_those_of_the_composed_loops(script, model, pixels, pixel, position):
    result, maps = script.look(model, pixels, pixel)
    assert torch.equal(result.labels, model.predict(pixels).labels)
    with capture_queries_and_keys(model.head.cca) as loops:
        model.predict(pixels)
    first, second = (one_loop(query[0], key[0]) for query, key in loops)
    row = position[0] * MAP_SIZE[1] + position[1]
    for weights, expected in zip(maps, (first[row], second[row] @ first), strict=True):
        assert weights.shape == MAP_SIZE
        assert weights.sum().item() == pytest.approx(1, abs=1e-12)
        torch.testing.assert_close(weights.flatten(), expected, rtol=1e-9, atol=1e-12)
    once, twice = maps
    cross = torch.zeros(MAP_SIZE, dtype=torch.bool)
    cross[position[0], :] = cross[:, position[1]] = True
    assert torch.equal(once > 0, cross)
    assert (twice > 0).all()


def test_maps_are_those_of_the_image_at_the_size_learnt_at(script, make_model, pixels):
    model = make_model(training_size=[24, 32])
    result, maps = script.look(model, pixels, (8, 40))
    assert {tuple(weights.shape) for weights in maps} == {(3, 5)}, "of 22x32 pixels"
    assert torch.equal(result.labels, model.predict(pixels).labels)


@pytest.mark.parametrize("recurrence", [1, 3])
def test_there_is_a_map_for_every_loop(script, make_model, pixels, recurrence):
    result, maps = script.look(make_model(recurrence=recurrence), pixels, (0, 0))
    assert len(maps) == recurrence
    figure = script.draw(result, maps, (0, 0), width=98)
    assert figure.width == (recurrence + 2) * 98 + (recurrence + 1) * script.GAP


def test_figure_shows_the_panels_in_order(script, model, pixels):
    result, maps = script.look(model, pixels, (8, 40))
    figure = np.array(script.draw(result, maps, (8, 40), width=49))
    line, step = round(49 / 14), 49 + script.GAP
    panels = [figure[line : line + 33, i * step : i * step + 49] for i in range(4)]
    left = slice(None), slice(0, 25)  # the ring is on the right
    heat = (heat_overlay(pixels, weights) for weights in maps)
    expected = map(np.asarray, (pixels.movedim(0, -1), *heat, result.overlay()))
    for panel, image, is_marked in zip(panels, expected, (1, 1, 1, 0), strict=True):
        assert np.array_equal(panel[left], image[left])
        assert (panel != image).any() == is_marked


def test_script_draws_a_rendered_street(repository, run_forked, weights_file, tmp_path):
    script = repository / "scripts" / "visualize_attention.py"
    arguments = ("--weights", weights_file, "--device", "cpu", "--panel-width", 120)
    output = tmp_path / "new" / "figure.png"
    result = run_forked(script, *arguments, "--output", output, cwd=tmp_path)
    assert result.stderr == ""
    assert "row 180, column 240" in result.stdout
    assert "loops 2: 90 % of the attention on" in result.stdout
    assert [path.name for path in output.parent.iterdir()] == ["figure.png"]
    with Image.open(output) as figure:
        assert figure.size[0] == 4 * 120 + 3 * 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pixel", "3", "49"], "row 3, column 49 .* 33 rows and 49 columns"),
        (["--recurrence", "0"], "no attention: its recurrence is 0"),
        (["--device", "warp"], "device 'warp' cannot be used"),
        (["--output", "figure.xyz"], "xyz"),
        (["--output", "street.png/figure.png"], "street.png"),
        (["--output", "."], "Is a directory|Permission|replace|unknown file extension"),
        (["--memory-limit", "1e-4"], "49 x 33 pixels .* memory limit of 0.0001 GiB: raise"),
        (["--memory-limit", "nan"], "memory_limit must be a positive number of GiB, not nan"),
    ],
)
def test_script_reports_errors(script, draw, weights_file, tmp_path, monkeypatch, options, message):
    draw(tmp_path / "street.png", size=(33, 49))
    monkeypatch.chdir(tmp_path)
    arguments = ["street.png", "--weights", str(weights_file), "--device", "cpu", *options]
    monkeypatch.setattr("sys.argv", ["visualize_attention.py", *arguments])
    with pytest.raises(SystemExit) as error:
        script.main()
    assert re.match(f"error: .*({message})", error.value.code)
    assert [path.name for path in tmp_path.iterdir()] == ["street.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "../in/street.png"], "--output ../in/street.png is the image itself"),
        (["--panel-width", "1000000000"], "--panel-width must be 16 to 4096, not 1000000000"),
        (["--panel-width", "-1"], "--panel-width must be 16 to 4096, not -1"),
    ],
)
def test_script_refuses_before_it_begins(
    script, draw, tmp_path, monkeypatch, capsys, options, message
):
    picture = draw(tmp_path / "in" / "street.png")
    before = picture.read_bytes()
    monkeypatch.chdir(tmp_path / "in")
    monkeypatch.setattr("sys.argv", ["visualize_attention.py", "street.png", *options])
    with pytest.raises(SystemExit) as error:
        script.main()
    assert error.value.code == 2
    assert message in capsys.readouterr().err
    assert picture.read_bytes() == before
