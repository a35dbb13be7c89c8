"""`ccnet attention`: the figure as a file, what it prints, and what it refuses."""

import re

import pytest
from PIL import Image


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("attention")


def test_script_draws_a_rendered_street(repository, run_forked, weights_file, tmp_path):
    script = repository / "scripts" / "visualize_attention.py"
    arguments = ("--weights", weights_file, "--device", "cpu", "--panel-width", 120)
    output = tmp_path / "new" / "figure.png"
    result = run_forked(script, *arguments, "--output", output, cwd=tmp_path)
    assert result.stderr == ""
    assert "row 180, column 240" in result.stdout
    assert "loops 2: 90 % of the attention on" in result.stdout
    assert re.search(r"\d% from near row \d+, column \d+: [a-z]", result.stdout)
    assert [path.name for path in output.parent.iterdir()] == ["figure.png"]
    with Image.open(output) as figure:
        assert figure.size[0] == 2 * 120 + 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pixel", "3", "49"], "row 3, column 49 .* 33 rows and 49 columns"),
        (["--recurrence", "0"], "no attention: its recurrence is 0"),
        (["--device", "warp"], "device 'warp' cannot be used"),
        (["--output", "figure.xyz"], "--output must be a file that ends in .*, not figure.xyz"),
        (["--output", "street.png/figure.png"], "street.png"),
        (["--output", "."], "--output must be a file that ends in .png"),
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
