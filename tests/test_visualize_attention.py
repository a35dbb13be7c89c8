"""From where a pixel gathers: the capture of the loops, the maps, and the figure of the script."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet.visualization import capture_queries_and_keys, heat_overlay

SIZE, MAP_SIZE = (33, 49), (5, 7)


@pytest.fixture(scope="module")
def script(repository):
    path = repository / "scripts" / "visualize_attention.py"
    spec = importlib.util.spec_from_file_location("visualize_attention", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def one_loop(query, key):
    """Weights (P, P) of all positions of a map over all others, one at a time."""
    _, height, width = query.shape
    weights = torch.zeros(height, width, height, width, dtype=torch.float64)
    for y, x in np.ndindex(height, width):
        cross = [(y, other) for other in range(width)]
        cross += [(other, x) for other in range(height) if other != y]
        energies = torch.stack([query[:, y, x] @ key[:, i, j] for i, j in cross])
        for (i, j), weight in zip(cross, energies.softmax(dim=0), strict=True):
            weights[y, x, i, j] = weight
    return weights.flatten(2).flatten(0, 1)


@pytest.mark.parametrize(("pixel", "position"), [((8, 40), (1, 5)), ((32, 7), (4, 1))])
def test_maps_are_those_of_the_loops_composed(script, model, pixels, pixel, position):
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


def test_one_loop_reaches_the_row_and_the_column_two_everything(script, model, pixels):
    once, twice = script.look(model, pixels, (8, 40))[1]
    cross = torch.zeros(MAP_SIZE, dtype=torch.bool)
    cross[1, :] = cross[:, 5] = True
    assert torch.equal(once > 0, cross)
    assert (twice > 0).all()


@pytest.mark.parametrize("recurrence", [1, 3])
def test_there_is_a_map_for_every_loop(script, make_model, pixels, recurrence):
    result, maps = script.look(make_model(recurrence=recurrence), pixels, (0, 0))
    assert len(maps) == recurrence
    figure = script.draw(result, maps, (0, 0), width=98)
    assert figure.width == (recurrence + 2) * 98 + (recurrence + 1) * script.GAP


def test_the_capture_ends_with_the_block(model, pixels):
    cca, inputs = model.head.cca, []
    with (
        cca.register_forward_pre_hook(lambda module, given: inputs.append(given[0].clone())),
        capture_queries_and_keys(cca) as loops,
    ):
        model.predict(pixels)
    model.predict(pixels)
    assert len(loops) == len(inputs) == 2
    with torch.inference_mode():
        for x, (query, key) in zip(inputs, loops, strict=True):
            torch.testing.assert_close(query, cca.query_conv(x).double(), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(key, cca.key_conv(x).double(), rtol=1e-4, atol=1e-5)
    assert {x.dtype for loop in loops for x in loop} == {torch.float64}

    def fail():
        with capture_queries_and_keys(model.head.cca):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not model.head.cca.query_conv._forward_hooks
    assert not model.head.cca.key_conv._forward_hooks


def test_a_network_without_attention(script, make_model, pixels):
    with pytest.raises(ValueError, match="no attention: its recurrence is 0"):
        script.look(make_model(recurrence=0), pixels, (0, 0))


@pytest.mark.parametrize("pixel", [(33, 0), (0, 49), (-1, 3), (40, 20)])
def test_a_pixel_off_the_picture(script, model, pixels, pixel):
    message = f"row {pixel[0]}, column {pixel[1]} is not on a picture of 33 rows and 49 columns"
    with pytest.raises(ValueError, match=message):
        script.look(model, pixels, pixel)


def test_the_figure_shows_the_panels_in_order(script, model, pixels):
    result, maps = script.look(model, pixels, (8, 40))
    figure = np.array(script.draw(result, maps, (8, 40), width=49))
    line = round(49 / 14)
    step = 49 + script.GAP
    panels = [figure[line : line + 33, i * step : i * step + 49] for i in range(4)]
    left = slice(None), slice(0, 25)  # the ring is on the right
    expected = [
        pixels.movedim(0, -1).numpy(),
        *(np.array(heat_overlay(pixels, weights)) for weights in maps),
        np.array(result.overlay()),
    ]
    for panel, picture in zip(panels, expected, strict=True):
        assert np.array_equal(panel[left], picture[left])
    for panel, picture, is_marked in zip(panels, expected, (1, 1, 1, 0), strict=True):
        assert (panel != picture).any() == is_marked


def test_the_script_draws_a_rendered_street(repository, run_python, weights_file, tmp_path):
    script = repository / "scripts" / "visualize_attention.py"
    arguments = ("--weights", weights_file, "--device", "cpu", "--panel-width", 120)
    output = tmp_path / "new" / "figure.png"
    result = run_python(script, *arguments, "--output", output, cwd=tmp_path)
    assert result.stderr == ""
    assert "row 180, column 240" in result.stdout
    assert "loops 2: 90 % of the attention on" in result.stdout
    assert [path.name for path in output.parent.iterdir()] == ["figure.png"]
    with Image.open(output) as figure:
        assert figure.size[0] == 4 * 120 + 3 * 12


def test_the_script_says_what_is_wrong(script, pixels, weights_file, tmp_path, monkeypatch):
    Image.fromarray(pixels.movedim(0, -1).numpy()).save(tmp_path / "street.png")
    monkeypatch.chdir(tmp_path)
    arguments = ["street.png", "--weights", str(weights_file), "--device", "cpu"]
    message = "row 3, column 49 is not on a picture of 33 rows and 49 columns, counted from 0"
    for options, problem in (
        (["--pixel", "3", "49"], message),
        (["--recurrence", "0"], "its recurrence is 0"),
        (["--device", "warp"], "device 'warp' cannot be used"),
        (["--output", "figure.xyz"], "xyz"),
    ):
        monkeypatch.setattr("sys.argv", ["visualize_attention.py", *arguments, *options])
        with pytest.raises(SystemExit, match=f"error: .*{problem}"):
            script.main()
    assert [path.name for path in tmp_path.iterdir()] == ["street.png"]
