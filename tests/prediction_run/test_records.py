"""Records of results: appended, cut, merged, and what is nobody's of this program."""

import errno
import json
import os
from dataclasses import replace

import pytest

from ccnet.inference.marked_png import Origin
from ccnet.prediction_run.records import NAME, Records, is_held, merge

ORIGIN = Origin("1" * 64, "2" * 64, '{"fit": [64, 64]}')


def line(name, picture=None, **more):
    return {"name": name, "picture": picture or f"in/{name}.png", **(more or {"seconds": 1.0})}


def record(folder, *lines, label="run"):
    with Records(folder, label) as records:
        for one in lines:
            records.add(one)


def merged(folder):
    merge(folder)
    return [json.loads(one) for one in (folder / NAME).read_text("utf-8").splitlines()]


def made(written, origin=ORIGIN):
    return {"made_by": origin.digest, "written": written}


OLD, NEW = {"seconds": 1.0}, {"seconds": 2.0}
BAD, WORSE = {"error": "bad"}, {"error": "worse"}

HISTORIES = {
    "by name": ([line("b"), line("a/c"), line("a")], [line("a"), line("a/c"), line("b")]),
    "made anew": ([line("a", **OLD), line("a", **NEW)], [line("a", **NEW)]),
    "failed again": ([line("a", **BAD), line("a", **WORSE)], [line("a", **WORSE)]),
    "then mended": ([line("a", **BAD), line("a", **NEW)], [line("a", **NEW)]),
    "changed": ([line("a", **OLD), line("a", **BAD)], [line("a", **BAD)]),
    "another picture of that name": (
        [line("a", **OLD), line("a", "q/a.png", **BAD)],
        [line("a", **OLD), line("a", "q/a.png", **BAD)],
    ),
    "in the place of another one": (
        [line("a", **OLD), line("a", "q/a.png", **BAD), line("a", "q/a.png", **NEW)],
        [line("a", "q/a.png", **NEW)],
    ),
}


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("history", HISTORIES)
def test_the_newest_line_of_each_picture_stays(tmp_path, history, together):
    lines, expected = HISTORIES[history]
    for part in [lines] if together else [[one] for one in lines]:
        record(tmp_path, *part)
        if not together:
            merge(tmp_path)
    assert merged(tmp_path) == expected
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_parts_that_are_written_stay_where_they_are(tmp_path):
    """And those of processes that were killed do not, whose last line may be cut."""
    with Records(tmp_path, "rank1-abc") as writing:
        writing.add(line("b"))
        assert is_held(writing.part)
        killed = tmp_path / "results.rank2-abc.12345678.jsonl"
        killed.write_text(f"{json.dumps(line('a'))}\n{json.dumps(line('cut'))[:-9]}")
        assert not is_held(killed)
        assert [one["name"] for one in merged(tmp_path)] == ["a"]
        assert {path.name for path in tmp_path.iterdir()} == {NAME, writing.part.name}
        writing.add(line("c"))
    assert [one["name"] for one in merged(tmp_path)] == ["a", "b", "c"]


def test_a_merge_that_is_cut_loses_nothing(tmp_path, monkeypatch):
    record(tmp_path, line("a"))
    merge(tmp_path)
    record(tmp_path, line("b"))

    def fail(*_):
        raise OSError(errno.ENOSPC, "no room")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, fail)
            with pytest.raises(OSError, match="no room"):
                merge(tmp_path)
        assert len(list(tmp_path.iterdir())) == 2
    assert [one["name"] for one in merged(tmp_path)] == ["a", "b"]


def test_a_line_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    real, room = os.write, [200]

    def write(file, data):
        if not room[0]:
            raise OSError(errno.ENOSPC, "no room")
        count = min(len(data), room[0])
        room[0] -= count
        return real(file, data[:count])

    with Records(tmp_path, "run") as records:
        monkeypatch.setattr(os, "write", write)
        records.add(line("a"))
        with pytest.raises(OSError, match="no room"):
            records.add(line("b", text="x" * 300))
        room[0] = 1000
        records.add(line("c"))
    assert [one["name"] for one in merged(tmp_path)] == ["a", "c"]


ODD = ["new\nline", 'quote " and \\', "\u9053\u8def", "bytes \udcff", "a\u2028b\x85c", ""]


def test_names_of_any_kind(tmp_path):
    record(tmp_path, *(line(name, **made(1.0, Origin(""))) for name in ODD))
    found = merged(tmp_path)
    assert sorted(one["name"] for one in found) == sorted(ODD)
    assert "\u9053\u8def" in (tmp_path / NAME).read_text("utf-8")
    with Records(tmp_path, "run") as records:
        assert all(records.has(name, Origin("")) for name in ODD)
        assert not records.has("new", Origin(""))


def test_failures_are_no_results(tmp_path):
    record(tmp_path, line("a", **BAD), line("b", **made(1.0)))
    merge(tmp_path)
    with Records(tmp_path, "run") as records:
        assert (records.has("a", ORIGIN), records.has("b", ORIGIN)) == (False, True)


@pytest.mark.parametrize("field", ["picture", "weights", "protocol"])
def test_results_of_another_origin_have_no_line(tmp_path, field):
    record(tmp_path, line("a", **made(1.0)), line("of no origin"))
    merge(tmp_path)
    with Records(tmp_path, "run") as records:
        assert records.has("a", ORIGIN)
        assert not records.has("a", replace(ORIGIN, **{field: "other"}))
        assert not records.has("of no origin", ORIGIN)


@pytest.mark.parametrize("older", [BAD, OLD])
@pytest.mark.parametrize("newer", [BAD, OLD])
def test_the_time_of_writing_decides_and_not_that_of_a_file(tmp_path, older, newer):
    """Two runs at once: the one that ends last may have written a picture first."""
    late, early = line("a", **made(20.5), **newer), line("a", **made(3.25), **older)
    record(tmp_path, late)
    record(tmp_path, line("b"), early)
    assert merged(tmp_path) == [late, line("b")]
    record(tmp_path, early)
    assert merged(tmp_path) == [late, line("b")]


FOREIGN = ["mine\n", '{"a": 1}\n', f"{json.dumps(line('a'))}\n\n", '{"mine": 1}', "mine", "[1]"]
FOREIGN += [f"{json.dumps(line('a'))}\nmine", '{"name": "Ann", "age": 3}']


@pytest.mark.parametrize("content", FOREIGN)
def test_a_file_of_ones_own_is_not_touched(tmp_path, content):
    (tmp_path / NAME).write_text(content)
    with pytest.raises(ValueError, match=r"results\.jsonl is no record of results of this"):
        Records(tmp_path, "run")
    record(tmp_path / "..", line("a"))
    assert (tmp_path / NAME).read_text() == content


def test_a_line_may_be_cut_anywhere(tmp_path):
    whole = json.dumps(line('a "quote" \\ and more', **made(1.5)))
    for end in range(len(whole)):
        (tmp_path / NAME).write_text(f"{json.dumps(line('b'))}\n{whole[:end]}")
        Records(tmp_path, "run").__exit__()
        record(tmp_path, line("c"))
        assert [one["name"] for one in merged(tmp_path)] == ["b", "c"]


@pytest.mark.parametrize("content", [*FOREIGN, f"{json.dumps(line('b'))}\nmine\n"])
def test_a_file_that_is_named_as_a_part_is_not_touched(tmp_path, content):
    mine = tmp_path / "results.train.detector.jsonl"
    mine.write_text(content)
    record(tmp_path, line("a"))
    assert merged(tmp_path) == [line("a")]
    assert mine.read_text() == content


@pytest.mark.skipif(os.name == "nt", reason="pipes with names are of POSIX")
@pytest.mark.parametrize(
    ("make", "said"), [(getattr(os, "mkfifo", None), "no regular"), (os.mkdir, "a folder")]
)
def test_what_is_no_file_is_not_opened(tmp_path, make, said):
    record(tmp_path, line("a"))
    make(tmp_path / NAME)
    for act in (merge, lambda folder: Records(folder, "run")):
        with pytest.raises(ValueError, match=rf"results\.jsonl: it is {said}.*: move it away"):
            act(tmp_path)
