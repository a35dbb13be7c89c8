"""The inference options of predict.py and evaluate.py: the same command line, the same protocol."""

import re

import pytest

from ccnet.inference import InferenceProtocol


@pytest.fixture(params=["predict", "evaluate"])
def parse(request, load_script, monkeypatch, tmp_path):
    """Returns the protocol that a command line of one of the scripts describes."""
    script = load_script(request.param)

    def parse_options(*options):
        if request.param == "evaluate":
            return InferenceProtocol().replace(**script.parse_arguments(["camvid", *options])[1])
        monkeypatch.setattr("sys.argv", ["predict.py", "--output", str(tmp_path), *options])
        return InferenceProtocol(**script.parse_arguments()[1])

    return parse_options


SLIDE = "--mode slide --crop 24,32"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", {}),
        ("--mode whole --no-flip --scales 1 --precision float32", {}),
        ("--flip", {"flip": True}),
        ("--flip --no-flip", {"flip": False}),
        ("--scales 0.5,1,1.75", {"scales": (0.5, 1.0, 1.75)}),
        ("--fit 2048,512", {"fit": (2048, 512)}),
        ("--fit 512 --scales 2", {"fit": 512, "scales": (2.0,)}),
        ("--fit none", {}),
        ("--fit 512 --antialias", {"fit": 512, "antialias": True}),
        ("--no-antialias", {}),
        ("--average probabilities", {"average": "probabilities"}),
        ("--precision bfloat16", {"precision": "bfloat16"}),
        ("--mode slide", {"mode": "slide", "crop": 769, "stride": 513}),
        ("--mode slide --crop 32", {"mode": "slide", "crop": (32, 32)}),
        (SLIDE, {"mode": "slide", "crop": (24, 32)}),
        (f"{SLIDE} --stride 20", {"mode": "slide", "crop": (24, 32), "stride": (20, 20)}),
        (f"{SLIDE} --stride 20,30", {"mode": "slide", "crop": (24, 32), "stride": (20, 30)}),
        (f"{SLIDE} --overlap 0.5", {"mode": "slide", "crop": (24, 32), "overlap": 0.5}),
        (f"{SLIDE} --window-batch 3", {"mode": "slide", "crop": (24, 32), "window_batch": 3}),
    ],
)
def test_options_describe_a_protocol(parse, options, expected):
    assert parse(*options.split()) == InferenceProtocol(**expected)
    assert parse(*options.split()).window_batch == expected.get("window_batch", 4)


MALFORMED = ["--mode tiles", "--crop big", "--stride 9;9", "--overlap half", "--scales 1,"]
MALFORMED += ["--average labels", "--window-batch 2.5", "--precision float16", "--fit wide"]


@pytest.mark.parametrize("options", MALFORMED)
def test_malformed_options_are_named(parse, capsys, options):
    with pytest.raises(SystemExit) as error:
        parse(*options.split())
    assert error.value.code == 2
    assert re.search(f"argument {options.split()[0]}: (must be|invalid)", capsys.readouterr().err)
