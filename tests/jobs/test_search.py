"""Images of a command line, and the names of their results."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from ccnet.classes import CAMVID
from ccnet.inference.annotations import save_coco
from ccnet.inference.marked_png import save_marked
from ccnet.jobs import search
from ccnet.jobs.search import find_jobs


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
    """The name of each image's results, by the image's path."""
    found = find_jobs(arguments, Path(output))
    assert found.failures == []
    return {job.picture.as_posix(): Path(job.name).as_posix() for job in found.jobs}


TREE = ["in/x/1.jpg", "in/x/deep/1.PNG", "in/y/1.jpeg", "in/0.tiff", "in/notes.txt"]
TREE += ["in/.hidden.png", "in/.thumbnails/1.png", "other.png"]
TWINS = ["in/1.jpg", "in/1.png", "in/1.jpg.png", "in/2.png", "in/sub/1.jpg"]
SEVERAL = ["p/a/1.jpg", "p/b/1.jpg", "q/1.jpg"]
MIXED = ["in/1.jpg", "in/sub/2.jpg", "in/sub/3.png", "in/.4.jpg", "in/notes.txt", "[5].jpg"]


@pytest.mark.parametrize(
    ("files", "arguments", "expected"),
    [
        (["a/b/my street.v2.jpg"], ["a/b/my street.v2.jpg"], ["my street.v2"]),
        (["plain"], ["plain"], ["plain"]),
        (TREE, ["in"], ["0", "x/1", "x/deep/1", "y/1"]),
        (TREE, ["in/x"], ["1", "deep/1"]),
        (["in/deep/1.jpg"], ["in"], ["deep/1"]),  # names do not depend on what is found
        (SEVERAL, ["p/a/1.jpg", "p/b/1.jpg"], ["a/1", "b/1"]),
        (SEVERAL, ["p", "q/1.jpg"], ["p/a/1", "p/b/1", "q/1"]),
        (TWINS, ["in"], ["1.jpg", "1.jpg.png", "1.png", "2", "sub/1"]),
        (MIXED, ["in/*.jpg"], ["1"]),
        (MIXED, ["in/**/*.jpg"], ["1", "sub/2"]),
        (MIXED, ["in/s*"], ["sub/2", "sub/3"]),
        (MIXED, ["[5].jpg"], ["[5]"]),
    ],
)
def test_names_of_results(touch, files, arguments, expected):
    """In the order of the images' paths."""
    touch(*files)
    assert [name for _, name in sorted(names(arguments).items())] == expected


def test_absolute_arguments(touch):
    touch("a/street.jpg", *MIXED)
    (job,) = find_jobs([f"{Path.cwd()}/a/street.jpg"], Path("out")).jobs
    assert job.picture == Path.cwd() / "a/street.jpg"
    assert job.path("overlay") == Path("out/street.overlay.png")
    assert job.path("labels") == Path("out/street.labels.png")
    assert set(names([f"{Path.cwd()}/in/s*/[23].*"]).values()) == {"sub/2", "sub/3"}


def test_each_image_counts_once(touch):
    touch("in/1.jpg")
    assert len(names(["in", "in/1.jpg", "in/../in/1.jpg", "in/*"])) == 1
    Path("in/link.jpg").symlink_to("1.jpg")
    assert set(names(["in"]).values()) == {"1", "link"}, "a link is an image of its own"


MARKED = ["in/1.overlay.png", "in/1.labels.png", "in/sub/out/3.labels.PNG"]
PLAIN = ["in/1.jpg", "in/2.overlay.png"]
RESULTS_AMONG = [
    (["in"], "in", PLAIN, 3),
    (["in"], "elsewhere", PLAIN, 3),
    (["link"], "in", ["link/1.jpg", "link/2.overlay.png"], 3),
    (["in/*"], "in", PLAIN, 3),
    (["in", "in/*"], "in", PLAIN, 3),
    (["in/1.*"], "in", PLAIN[:1], 2),
    (["in/1.overlay.png"], "in", MARKED[:1], 0),
    (["in", "in/1.overlay.png"], "elsewhere", [PLAIN[0], MARKED[0], PLAIN[1]], 2),
    (["in/1.jpg", *MARKED[:2]], "in", PLAIN[:1], 2),
    (["in/1.jpg", *MARKED[:2]], "link", PLAIN[:1], 2),
    (["in/sub"], "in", [], 1),
]
"""Arguments and the folder of the results; the images then, and how many results are left out."""


@pytest.mark.parametrize(("arguments", "output", "taken", "left_out"), RESULTS_AMONG)
def test_results_among_the_images_are_left_out(touch, arguments, output, taken, left_out):
    """By what they say, not by their names."""
    touch(*PLAIN)
    Path("link").symlink_to("in")
    for path in MARKED:
        save_marked(Image.new("L", (4, 3)), path)
    found = find_jobs(arguments, Path(output))
    assert found.failures == []
    results = [job for job in found.jobs if found.is_result(job)]
    assert sorted(job.picture.as_posix() for job in found.jobs if job not in results) == taken
    assert found.results + len(results) == left_out


def test_annotations_are_results_too(touch):
    touch("in/1.jpg", "in/2.polygons.json")
    for name in ("1.polygons", "1.rle", "other"):
        save_coco({"1.jpg": torch.zeros(3, 4, dtype=torch.uint8)}, CAMVID, f"in/{name}.json")
    found = find_jobs(["in/*"], Path("out"))
    taken = [job.picture.as_posix() for job in found.jobs if not found.is_result(job)]
    assert sorted(taken) == ["in/1.jpg", "in/2.polygons.json"]


def test_links_to_folders_are_counted(touch):
    touch("in/1.jpg", "elsewhere/2.jpg")
    Path("in/up").symlink_to("..")
    found = find_jobs(["in"], Path("out"))
    assert found.describe_left_out() == [
        "left out: 1 link to a folder: name what is to be searched"
    ]
    Path("in/elsewhere").symlink_to("../elsewhere")
    (line,) = find_jobs(["in"], Path("out")).describe_left_out()
    assert line.startswith("left out: 2 links to folders: ")
    assert set(names(["in", "in/elsewhere"])) == {"in/1.jpg", "in/elsewhere/2.jpg"}


def test_no_file_is_opened_to_find_images(touch, monkeypatch):
    """But those that differ in the suffix alone, whose names depend on it."""
    touch("in/1.png", "in/2.png", "in/3.jpg", "in/3.png", "in/sub/4.png")
    looked_at = []
    monkeypatch.setitem(search._READERS, ".png", lambda path: looked_at.append(path.name))
    assert len(find_jobs(["in"], Path("out")).jobs) == 5
    assert looked_at == ["3.png"]


def test_a_result_beside_a_picture_of_its_name_does_not_change_that_name(touch):
    touch("in/1.jpg")
    save_marked(Image.new("L", (4, 3)), "in/1.png")
    found = find_jobs(["in"], Path("out"))
    assert ([job.name for job in found.jobs], found.results) == (["1"], 1)
    assert set(names(["in", "in/1.png"]).values()) == {"1.jpg", "1.png"}


def test_jobs_are_a_sequence(touch):
    touch(*TREE)
    jobs = find_jobs(["in"], Path("out")).jobs
    assert [jobs[index] for index in range(len(jobs))] == list(jobs)
    assert [jobs.key(index) for index in range(len(jobs))] == [
        *("0.tiff", "x/1.jpg", "x/deep/1.PNG", "y/1.jpeg")
    ]
    for index in (-1, len(jobs)):
        with pytest.raises(IndexError):
            jobs[index]


def test_whatever_has_the_suffix_of_an_image_is_taken_for_one(touch):
    touch("in/1.jpg")
    Path("in/folder.png").mkdir()
    Path("in/broken.png").symlink_to("nowhere")
    assert set(names(["in"])) == {"in/1.jpg", "in/folder.png", "in/broken.png"}
    assert set(names(["in/broken.png"])) == {"in/broken.png"}


def test_arguments_without_images_are_reported(touch):
    touch("empty/notes.txt", "1.jpg")
    there, elsewhere = Path("1.jpg").absolute().as_uri(), "https://example.org/1.png"
    found = find_jobs(["nowhere.jpg", "*.gif", elsewhere, "empty", there], Path("out"))
    assert [job.name for job in found.jobs] == ["1"]
    assert found.failures == [
        "no image at nowhere.jpg, and no file matches it as a pattern",
        "no image at *.gif, and no file matches it as a pattern",
        "no image at https://example.org/1.png, which is a URL: download it first",
        "no images in empty",
    ]


def test_a_pattern_that_is_none_costs_no_other(touch):
    touch("a1b.jpg")
    found = find_jobs(["a**b.jpg", "a?b.jpg"], Path("out"))
    assert [job.name for job in found.jobs] == ["a1b"]
    assert all(line.startswith("no image at a**b.jpg: ") for line in found.failures)


PICTURES = "jpg jpeg jfif jpe png apng webp gif bmp dib tif tiff jp2 j2k jpx mpo pgm ppm pbm pnm"
PICTURES += " tga psd ico pcx qoi sgi dds avif heic heif hif JPG HEIC"
OTHERS = "txt pdf ps eps emf wmf svg mp4 mov mpg mpeg h5 hdf grib fits nc ttf dng cr2 json exe"


def test_folders_are_searched_for_all_that_is_a_picture(touch):
    touch(*(f"in/{suffix}.{suffix}" for suffix in f"{PICTURES} {OTHERS}".split()), "in/README")
    touch("in/sub/a.TXT", "in/.hidden.txt", "in/.git/config")
    found = find_jobs(["in"], Path("out"))
    taken = {job.picture.suffix[1:] for job in found.jobs}
    assert taken == set(PICTURES.split())
    expected = dict.fromkeys((f".{suffix}" for suffix in OTHERS.split()), 1)
    assert found.left_out == expected | {".txt": 2, "without suffix": 1}


@pytest.mark.parametrize(
    ("files", "lines"),
    [
        (["1.jpg"], []),
        (["1.jpg", "notes.txt"], ["left out: 1 file is no picture, by suffix: 1 .txt"]),
        (
            ["1.jpg", "a.mov", "b.mov", "Makefile"],
            ["left out: 3 files are no pictures, by suffix: 2 .mov, 1 without suffix"],
        ),
    ],
)
def test_what_is_left_out_is_said_in_one_line(touch, files, lines):
    touch(*(f"in/{name}" for name in files))
    assert find_jobs(["in"], Path("out")).describe_left_out() == lines
