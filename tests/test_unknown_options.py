"""Unknown options of command lines: what the error says of them."""

from importlib import import_module

import pytest

TRAIN = ("train", "finetune", "--run-dir", "run")

MEANT = {
    (*TRAIN, "--epochs", "20"): "--epochs 20: did you mean --steps (number of optimiser steps)?",
    (*TRAIN, "--lr=0.1"): "--lr=0.1: did you mean --learning-rate (the highest learning rate)?",
    (*TRAIN, "-lr", "0.1"): "-lr 0.1: did you mean --learning-rate (the highest learning rate)?",
    (*TRAIN, "--Batch_Size", "2"): "did you mean --batch-size (images per optimiser step)?",
    (*TRAIN, "--lr", "1", "--epohcs", "2", "--num-epochs", "2"): (
        "--lr 1 --epohcs 2 --num-epochs 2: did you mean --learning-rate (the highest learning "
        "rate), --steps (number of optimiser steps)?"
    ),
    (*TRAIN, "--nothing"): "unrecognized arguments: --nothing: --help lists the options",
    (*TRAIN, "more"): "unrecognized arguments: more: --help lists the options",
    ("evaluate", "camvid", "--model", "x"): "did you mean --network (",
    ("pretrain", "x", "--run-dir", "y", "--model", "z"): "did you mean --backbone (",
    ("predict", "--flipp"): "--flipp: did you mean --flip (average with the flipped image)?",
    ("attention", "a.jpg", "--pixels", "1,2"): "--pixels 1,2: did you mean --pixel (",
    ("convert", "a.pth", "--output", "b", "--dryrun"): "did you mean --dry-run (check)?",
    ("publish", "a", "b", "--hlep"): "did you mean --help (show this help message and exit)?",
    ("predict", "a.jpg", "--gpu", "0"): "did you mean --device?",
}


@pytest.mark.parametrize(("given", "said"), MEANT.items(), ids=" ".join)
def test_unknown_options_name_the_nearest(capsys, given, said):
    command = import_module(f"ccnet.commands.{given[0]}")
    with pytest.raises(SystemExit, match=r"^2$"):
        command.parse_arguments(given[1:])
    assert said in capsys.readouterr().err.splitlines()[-1]
