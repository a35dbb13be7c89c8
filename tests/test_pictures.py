"""Which pictures a command line means, and that no two share a result."""

from pathlib import Path

import pytest

from ccnet.pictures import find_jobs


@pytest.fixture
def touch(tmp_path, monkeypatch):
    """Makes empty files in the current folder."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()

    return make


def names(arguments, output="out"):
    jobs, failures = find_jobs(arguments, Path(output))
    assert failures == []
    return {job.picture.as_posix(): Path(job.name).as_posix() for job in jobs}


def test_a_file_gives_its_stem_wherever_it_lies(touch):
    touch("a/b/my street.v2.jpg", "plain")
    assert names(["a/b/my street.v2.jpg"]) == {"a/b/my street.v2.jpg": "my street.v2"}
    assert names([f"{Path.cwd()}/plain"]) == {f"{Path.cwd()}/plain": "plain"}
    (job,), _ = find_jobs(["a/b/my street.v2.jpg"], Path("out"))
    assert job.overlay == Path("out/my street.v2.overlay.png")
    assert job.labels == Path("out/my street.v2.labels.png")


def test_folders_are_searched_to_the_bottom_and_mirrored(touch):
    touch("in/x/1.jpg", "in/x/deep/1.PNG", "in/y/1.jpeg", "in/0.tiff", "in/notes.txt")
    touch("in/.hidden.png", "in/.thumbnails/1.png", "other.png")
    assert names(["in"]) == {
        "in/0.tiff": "0",
        "in/x/1.jpg": "x/1",
        "in/x/deep/1.PNG": "x/deep/1",
        "in/y/1.jpeg": "y/1",
    }
    assert names(["in/x"]) == {"in/x/1.jpg": "1", "in/x/deep/1.PNG": "deep/1"}


def test_names_follow_from_the_arguments_not_from_what_is_found(touch):
    touch("in/deep/1.jpg")
    assert names(["in"]) == {"in/deep/1.jpg": "deep/1"}


def test_equal_stems_of_several_arguments_stay_apart(touch):
    touch("p/a/1.jpg", "p/b/1.jpg", "q/1.jpg")
    assert names(["p/a/1.jpg", "p/b/1.jpg"]) == {"p/a/1.jpg": "a/1", "p/b/1.jpg": "b/1"}
    found = names(["p", "q/1.jpg"])
    assert found == {"p/a/1.jpg": "p/a/1", "p/b/1.jpg": "p/b/1", "q/1.jpg": "q/1"}


def test_equal_stems_of_one_folder_stay_apart(touch):
    touch("in/1.jpg", "in/1.png", "in/1.jpg.png", "in/2.png", "in/sub/1.jpg")
    assert names(["in"]) == {
        "in/1.jpg": "1.jpg",
        "in/1.png": "1.png",
        "in/1.jpg.png": "1.jpg.png",
        "in/2.png": "2",
        "in/sub/1.jpg": "sub/1",
    }


def test_patterns(touch):
    touch("in/1.jpg", "in/sub/2.jpg", "in/sub/3.png", "in/.4.jpg", "in/notes.txt", "[5].jpg")
    assert names(["in/*.jpg"]) == {"in/1.jpg": "1"}
    assert names(["in/**/*.jpg"]) == {"in/1.jpg": "1", "in/sub/2.jpg": "sub/2"}
    assert set(names([f"{Path.cwd()}/in/s*/[23].*"]).values()) == {"sub/2", "sub/3"}
    assert names(["[5].jpg"]) == {"[5].jpg": "[5]"}
    assert names(["in/s*"]) == {"in/sub/2.jpg": "sub/2", "in/sub/3.png": "sub/3"}


def test_each_picture_counts_once(touch):
    touch("in/1.jpg")
    assert len(names(["in", "in/1.jpg", "in/../in/1.jpg", "in/*"])) == 1
    Path("in/link.jpg").symlink_to("1.jpg")
    assert set(names(["in"]).values()) == {"1", "link"}, "a link is a picture of its own"


def test_results_among_the_pictures_are_no_pictures(touch):
    touch("1.jpg", "1.overlay.png", "1.labels.png", "2.labels.png", "out/sub/3.labels.png")
    touch("sub/3.jpg")
    assert set(names(["."], output=".")) == {"1.jpg", "2.labels.png", "sub/3.jpg"} | {
        "out/sub/3.labels.png"
    }
    assert set(names(["."])) == {"1.jpg", "1.overlay.png", "1.labels.png"} | {
        "2.labels.png",
        "sub/3.jpg",
    }


def test_what_looks_like_a_picture_is_taken_for_one(touch):
    touch("in/1.jpg")
    Path("in/folder.png").mkdir()
    Path("in/broken.png").symlink_to("nowhere")
    assert set(names(["in"])) == {"in/1.jpg", "in/folder.png", "in/broken.png"}
    assert set(names(["in/broken.png"])) == {"in/broken.png"}


def test_arguments_that_mean_nothing_are_told(touch):
    touch("empty/notes.txt", "1.jpg")
    jobs, failures = find_jobs(["nowhere.jpg", "*.gif", "empty", "1.jpg"], Path("out"))
    assert [job.name for job in jobs] == ["1"]
    assert failures == [
        "no image at nowhere.jpg, nor any that matches it",
        "no image at *.gif, nor any that matches it",
        "no pictures in empty",
    ]
