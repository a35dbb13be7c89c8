"""The command `ccnet`: its subcommands, what it says of itself, and that it is quick to say it."""

import re
import runpy
import sys
from importlib import import_module

import pytest
from forked_python import TORCHRUN

import ccnet
from ccnet.__main__ import main
from ccnet.commands import COMMANDS

SCRIPTS = {
    "attention": "visualize_attention",
    "convert": "convert_checkpoint",
    "pretrain": "pretrain_backbone",
    "publish": "publish_weights",
}
"""The scripts whose name is not that of the command."""

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["numpy"] = None
sys.argv = ["/usr/bin/ccnet", *sys.argv[1:]]
from ccnet.__main__ import main
main()
"""


@pytest.fixture
def refused(capsys):
    """What a command line is refused with, in its last line."""

    def run(*argv):
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert end.value.code == 2
        return capsys.readouterr().err.splitlines()[-1]

    return run


def test_listing_takes_no_pytorch(run_python, tmp_path):
    listing = run_python("-c", WITHOUT_TORCH, "--help", cwd=tmp_path).stdout
    assert listing.startswith("usage: ccnet COMMAND [arguments]\n")
    for name, text in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(text)}$", listing, re.MULTILINE)
    assert max(map(len, listing.splitlines())) <= 80
    assert re.search(r"^ccnet predict --help$|: ccnet predict --help$", listing, re.MULTILINE)


def test_without_arguments_it_lists_the_commands(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/ccnet/__main__.py"])
    main()
    listing = capsys.readouterr().out
    assert listing.startswith("usage: python -m ccnet COMMAND")
    assert all(text in listing for text in COMMANDS.values())


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"ccnet {ccnet.__version__}\n"


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("predikt", "did you mean 'predict'?"),
        ("Train", "did you mean 'train'?"),
        ("eval", "did you mean 'evaluate'?"),
        ("photo.jpg", f"there are {', '.join(COMMANDS)}"),
        ("new\nline", "there are predict"),
    ],
)
def test_unknown_command_names_the_nearest(refused, name, advice):
    assert f"error: no command {name!r}: {advice}" in refused(name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("predcit", "a.jpg"), "no command 'predcit': did you mean 'predict'"),
        (("Train", "finetune", "--root", "x"), "no command 'Train': did you mean 'train'"),
        (("help", "predcit"), "no command 'predcit': did you mean 'predict'"),
        (("--", "predcit", "--help"), "no command 'predcit': did you mean 'predict'"),
        (
            ("--device", "cpu", "predict", "x"),
            "unrecognized arguments: --device cpu predict x "
            r"\(a command comes first: \S+( -m ccnet)? predict --device \.\.\.\)$",
        ),
        (("--nothing",), r"unrecognized arguments: --nothing \(a command comes first: .*COMMAND"),
    ],
)
def test_commands_are_sought_before_their_arguments(refused, words, message):
    assert re.search(f"error: {message}", refused(*words))


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("help",), "usage: ccnet COMMAND [arguments]\n"),
        (("--", "--help"), "usage: ccnet COMMAND [arguments]\n"),
        (("help", "publish"), "usage: ccnet publish "),
        (("--", "publish", "--help"), "usage: ccnet publish "),
    ],
)
def test_help_is_had_in_other_ways(capsys, monkeypatch, words, shown):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/ccnet"])
    with pytest.raises(SystemExit, match=r"^0$"):
        main(words)
    assert capsys.readouterr().out.startswith(shown)


@pytest.mark.parametrize("name", COMMANDS)
def test_usage_names_the_command_or_the_script(repository, capsys, monkeypatch, name):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/ccnet"])
    with pytest.raises(SystemExit, match=r"^0$"):
        main([name, "--help"])
    text = capsys.readouterr().out
    assert text.startswith(f"usage: ccnet {name} ")
    path = repository / "scripts" / f"{SCRIPTS.get(name, name)}.py"
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit, match=r"^0$"):
        runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.startswith(f"usage: {path.name} ")


@pytest.mark.parametrize("name", ccnet.__all__)
def test_public_names_are_had_at_their_first_use(name):
    assert name in dir(ccnet)
    assert getattr(ccnet, name).__name__ == name


def test_modules_are_attributes_and_others_are_not():
    assert ccnet.training is import_module("ccnet.training")
    with pytest.raises(AttributeError, match="module 'ccnet' has no attribute 'trainings'"):
        _ = ccnet.trainings


@pytest.mark.slow
def test_torchrun_starts_a_command(run_python, tmp_path):
    torchrun = (*TORCHRUN[:2], "--standalone", "--nproc-per-node", 2, "-m", "ccnet")
    options = ("street-scenes", "--limit", 3, "--device", "cpu")
    result = run_python(*torchrun, "evaluate", *options, cwd=tmp_path, OMP_NUM_THREADS="1")
    assert result.stdout.count("mean (mIoU)") == 1
