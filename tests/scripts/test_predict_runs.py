"""Runs of `ccnet predict` on many images: records, parts, kinds of results, several processes."""

import json
import os
import shutil
from contextlib import redirect_stdout

import pytest
import torch
from PIL import Image
from small_runs import finish, start

from ccnet.commands import predict as command
from ccnet.jobs.outputs import OUTPUTS
from ccnet.prediction_run.stages import Stages

NAMES = ["a", "b", "c/d", "e"]


@pytest.fixture
def pictures(draw, tmp_path):
    for seed, name in enumerate(NAMES):
        draw(tmp_path / "in" / f"{name}.png", seed, (9, 14 + seed))


def records(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.png")}


def test_each_picture_has_a_line(predict, pictures, tmp_path):
    (tmp_path / "in/f.png").write_text("no picture")
    assert predict("in", "--output", "out")[0] == 1
    *lines, failed = records(tmp_path / "out")
    assert [line["name"] for line in lines] == NAMES
    assert failed["name"] == "f"
    assert "f.png cannot be read as an image" in failed["error"]
    for line in lines:
        with Image.open(tmp_path / "out" / f"{line['name']}.labels.png") as labels:
            assert labels.size == (line["width"], line["height"]) == tuple(line["seen"])
        assert sum(line["shares"].values()) == pytest.approx(1, abs=1e-4)
        assert line["seconds"] > 0
        assert line["files"] == [f"{line['name']}.{kind}.png" for kind in ("overlay", "labels")]
        assert (tmp_path / line["picture"]).is_file()


def test_kept_results_have_their_line_once(predict, pictures, tmp_path):
    """One that is lost, as of a run that is killed after it wrote a picture, is made again."""
    assert predict("in", "--output", "out")[0] == 0
    before = (tmp_path / "out/results.jsonl").read_bytes()
    assert predict("in", "--output", "out")[0] == 0
    assert (tmp_path / "out/results.jsonl").read_bytes() == before
    made = records(tmp_path / "out")
    lost = before.splitlines(keepends=True)[0]
    (tmp_path / "out/results.jsonl").write_bytes(before.replace(lost, b"") + b'{"name": "cut')
    assert predict("in", "--output", "out")[0] == 0
    again = records(tmp_path / "out")
    assert again[0]["written"] > made[0]["written"]
    assert again == [made[0] | {"seconds": None, "written": again[0]["written"]}, *made[1:]]
    (tmp_path / "in/a.png").unlink()
    (tmp_path / "in/g.png").write_text("no picture")
    assert predict("in", "--output", "out", "--overwrite")[0] == 1
    assert [line["name"] for line in records(tmp_path / "out")] == [*NAMES, "g"]


def test_labels_that_cannot_be_read_again(predict, pictures, tmp_path):
    """They pass for whole, but their pixels are broken."""
    assert predict("in", "--output", "out")[0] == 0
    (tmp_path / "out/results.jsonl").unlink()
    labels = tmp_path / "out/a.labels.png"
    whole = labels.read_bytes()
    start = whole.index(b"IDAT") + 4
    labels.write_bytes(whole[:start] + bytes(8) + whole[start + 8 :])
    status, _, errors = predict("in", "--output", "out")
    assert status == 1
    assert "in/a.png: its labels out/a.labels.png cannot be read (" in errors
    assert errors.endswith("): make them anew by --overwrite\n")
    assert predict("in", "--output", "out", "--overwrite")[0] == 0


def test_a_single_picture_leaves_no_records(predict, pictures, tmp_path):
    assert predict("in/a.png", "--output", "out")[0] == 0
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_lines_are_of_the_results_that_are_there(predict, pictures, tmp_path):
    """Those of a single picture too, and those that were written before a run was killed."""

    def seen():
        return {line["name"]: line["seen"] for line in records(tmp_path / "out")}

    out = ("--output", "out", "--save", "labels")
    assert predict("in", *out, "--fit", "28")[0] == 0
    before = (tmp_path / "out/results.jsonl").read_bytes()
    assert predict("in/a.png", *out, "--fit", "14", "--overwrite")[0] == 0
    assert seen()["a"] == [14, 9]
    (tmp_path / "out/results.jsonl").write_bytes(before)  # the line is lost
    assert predict("in", *out, "--fit", "14")[0] == 0
    assert (seen()["a"], seen()["b"]) == ([14, 9], [28, 17])


@pytest.mark.parametrize("removed", ["results*", "results.jsonl", "*"])
def test_records_that_are_removed_meanwhile(predict, pictures, tmp_path, monkeypatch, removed):
    out = tmp_path / "out"
    assert predict("in", "--output", "out", "--limit", 1)[0] == 0
    segment = Stages.segment

    def segment_and_remove(*arguments):
        for path in out.glob(removed):
            path.unlink()
        if removed == "*":
            shutil.rmtree(out, ignore_errors=True)
        return segment(*arguments)

    monkeypatch.setattr(Stages, "segment", segment_and_remove)
    status, _, errors = predict("in", "--output", "out", "--save", "labels")
    assert status == 1
    assert errors.endswith(
        "error: records in out were removed while this ran: run again for what is missing\n"
    )


def test_records_of_ones_own_are_not_touched(predict, pictures, tmp_path):
    mine = tmp_path / "out/results.jsonl"
    mine.parent.mkdir()
    mine.write_text('{"mine": 1}\n')
    status, _, errors = predict("in", "--output", "out")
    assert status == 1
    assert "results.jsonl is no record of results of this version's: move it away" in errors
    assert [path.name for path in mine.parent.iterdir()] == [mine.name]


@pytest.mark.parametrize("kind", OUTPUTS)
def test_only_what_is_asked_for_is_written_and_looked_at(predict, pictures, tmp_path, kind):
    everything = ",".join(OUTPUTS)
    assert predict("in", "--output", "both", "--save", everything)[0] == 0
    assert predict("in", "--output", "out", "--save", kind)[0] == 0
    both, one = contents(tmp_path / "both"), contents(tmp_path / "out")
    suffix = OUTPUTS[kind].suffix
    assert one == {path: its for path, its in both.items() if path.name.endswith(suffix)}
    other = next(name for name in OUTPUTS if name != kind)
    (tmp_path / "out" / f"a{OUTPUTS[other].suffix}").write_text("mine")
    status, printed, _ = predict("in", "--output", "out", "--save", kind)
    assert (status, printed.startswith(f"{len(NAMES)} of {len(NAMES)} have")) == (0, True)
    status, _, errors = predict("in", "--output", "out", "--save", f"{kind},{other}")
    assert (status, len(errors.splitlines())) == (1, 2)
    (tmp_path / "out" / f"a{OUTPUTS[other].suffix}").unlink()
    assert predict("in", "--output", "out", "--save", everything)[0] == 0
    assert contents(tmp_path / "out") == both


def test_shards_make_up_what_one_process_makes(predict, pictures, tmp_path):
    assert predict("in", "--output", "one")[0] == 0
    for number in (2, 1, 3):
        assert predict("in", "--output", "parts", "--shard", f"{number}/3")[0] == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "one")
    lines = records(tmp_path / "parts")
    timeless = {"seconds": 0, "written": 0}
    assert [line | timeless for line in lines] == [
        line | timeless for line in records(tmp_path / "one")
    ]
    assert len(list((tmp_path / "parts").glob("*.jsonl"))) == 1


def test_a_limited_run_goes_on_the_next_time(predict, pictures, tmp_path):
    for count in (3, 4):
        assert predict("in", "--output", "out", "--limit", 3, "--save", "labels")[0] == 0
        assert len(contents(tmp_path / "out")) == len(records(tmp_path / "out")) == count


def test_batches_say_that_they_are(predict, pictures, tmp_path):
    assert predict("in", "--output", "out", "--batch-size", 3, "--fit", "32")[0] == 0
    with Image.open(tmp_path / "out/a.labels.png") as labels:
        assert labels.info["Inference"].endswith('"memory_limit": 8.5, "batch_size": 3}')
    _, printed, _ = predict("in", "--output", "out", "--fit", "32")
    assert printed.startswith("4 of 4 have results of other weights or options")


def test_batches_are_no_larger_than_all_pictures(predict, pictures, tmp_path):
    """Results in the folder of the pictures are none."""
    options = ("--output", "in", "--batch-size", 100_000, "--fit", "32")
    _, printed, _ = predict("in", *options)
    assert "batches were filled up, " in printed
    with Image.open(tmp_path / "in/a.labels.png") as labels:
        assert labels.info["Inference"].endswith('"batch_size": 4}')
    _, printed, _ = predict("in", *options)
    assert "4 of 4 have results already" in printed


INVALID = [
    *((f"--shard {text}", f"--shard: '{text}' is none of") for text in ("9/8", "0/8", "x")),
    *((f"--{name} 0", f"--{name} must be 1 or more, not 0") for name in ("limit", "workers")),
    ("--batch-size -1", "--batch-size must be 1 or more, not -1"),
    ("--batch-size x", "argument --batch-size: invalid int value"),
    ("--save ,", "--save: '' is none of overlay, legend, labels"),
    ("--save labels,mask", "--save: 'mask' is none of overlay, legend, labels"),
]


@pytest.mark.parametrize(("options", "said"), INVALID)
def test_invalid_options(predict, pictures, tmp_path, options, said):
    status, printed, errors = predict("in", "--output", "out", *options.split())
    assert (status, printed) == (2, "")
    assert said in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["0", "two", "-1"])
def test_numbers_of_launchers_are_checked(predict, pictures, monkeypatch, value):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", value)
    status, _, errors = predict("in", "--output", "out")
    assert status == 2
    assert "error: LOCAL_WORLD_SIZE is" in errors
    assert predict("in", "--output", "out", "--workers", 1, "--shard", "x")[0] == 2


def test_shards_need_pictures_and_no_other_processes(predict, pictures, monkeypatch):
    assert "--shard needs images to share out" in predict("--shard", "1/2")[2]
    monkeypatch.setenv("WORLD_SIZE", "4")
    _, _, errors = predict("in", "--shard", "1/2")
    assert "these 4 were started together and share the images out by themselves" in errors


def _predict(folder, arguments):
    os.chdir(folder)
    with open(f"told-{torch.distributed.get_rank()}", "w") as told, redirect_stdout(told):  # noqa: PTH123
        try:
            command.main(["--device", "cpu", *map(str, arguments)])
        except SystemExit as end:
            told.flush()
            os._exit(int(end.code or 0))


def test_ranks_share_the_pictures_out(predict, pictures, tmp_path, weights_file):
    """Results are those of one process, to the byte; rank 0 alone tells of failures, in the end."""
    for name in ("f", "g"):
        (tmp_path / f"in/{name}.png").write_text("no picture")
    assert predict("in", "--output", "one")[0] == 1
    arguments = ["in", "--output", "out", "--weights", weights_file]
    assert finish(start(_predict, tmp_path, arguments, ranks=2)) == [1, 0]
    assert contents(tmp_path / "out") == contents(tmp_path / "one")
    assert [line["name"] for line in records(tmp_path / "out")] == [*NAMES, "f", "g"]
    assert len(list((tmp_path / "out").glob("*.jsonl"))) == 1
    told = [(tmp_path / f"told-{rank}").read_text().splitlines() for rank in (0, 1)]
    assert told[0].pop().startswith("4 pictures in ")
    lines = [line.partition(":")[0] for part in told for line in part]
    assert sorted(lines) == NAMES
