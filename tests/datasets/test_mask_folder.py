"""MaskFolder: its formats, and that all problems are reported at once."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from ccnet.classes import CAMVID, LabelSet
from ccnet.datasets import MaskFolder
from ccnet.datasets.mask_folder import LONGEST_REPORT

PALETTE = [*range(10, 100, 10)]
ZEROS = np.zeros((6, 8), np.uint8)


@pytest.fixture
def add(tmp_path):
    """Writes an image, a mask, or both, and returns the mask's labels."""
    rng = np.random.default_rng(0)

    def write(stem, labels=3, size=(6, 8), suffix="png", image=True, mask=True, palette=None):
        if isinstance(labels, int):
            labels = rng.integers(0, labels, size, np.uint8)
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        if image:
            pixels = rng.integers(0, 256, (*size, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / f"{stem}.{suffix}")
        if mask:
            file = Image.fromarray(labels)
            if palette:
                file.putpalette(palette)
            file.save(tmp_path / "masks" / f"{stem}.png")
        return labels

    return write


@pytest.fixture
def write_classes(tmp_path):
    """Writes classes.json, with a byte order mark as some editors do."""

    def write(config):
        (tmp_path / "classes.json").write_text(json.dumps(config), encoding="utf-8-sig")

    return write


def problems_of(root):
    with pytest.raises(ValueError, match=r"has (a problem|[0-9]+ problems):") as error:
        MaskFolder(root)
    return str(error.value)


def test_samples_are_found_by_name(tmp_path, add):
    suffixes = {"c": "jpg", "a.b": "png", "d": "webp", "e": "bmp", "f": "TIF", "g": "JPEG"}
    written = {stem: add(stem, suffix=suffix) for stem, suffix in suffixes.items()}
    written["c"][0, :4] = 255
    add("c", written["c"], image=False)
    (tmp_path / "images" / ".DS_Store").touch()
    dataset = MaskFolder(str(tmp_path))
    assert dataset.names == sorted(written)
    assert len(dataset) == 6
    assert dataset.label_set.categories == ("class 0", "class 1", "class 2")
    for index, name in enumerate(dataset.names):
        image, mask = dataset[index]
        assert isinstance(image, tv_tensors.Image)
        assert isinstance(mask, tv_tensors.Mask)
        assert image.shape == (3, 6, 8)
        assert image.dtype == mask.dtype == torch.uint8
        assert np.array_equal(mask, written[name])
        assert np.array_equal(dataset.labels(index), written[name])
    cropped = MaskFolder(tmp_path, lambda image, mask: (image[:, 2:], mask[2:]))
    assert torch.equal(cropped[0][0], dataset[0][0][:, 2:])
    assert torch.equal(cropped[0][1], dataset[0][1][2:])
    assert torch.equal(cropped.labels(0), dataset.labels(0))
    add("a.b", ZEROS + 77, image=False)
    message = r"unknown labels \[77\] in 48 pixels \(100 %\): the known ones are \[0\.\.2, 255\]"
    with pytest.raises(ValueError, match=message):
        dataset[0]


def test_classes_without_a_file_take_the_colors_of_the_palette(tmp_path, add):
    add("a", 2)
    add("b", ZEROS + 3, palette=PALETTE)
    add("c", ZEROS + 255, palette=PALETTE[::-1])
    label_set = MaskFolder(tmp_path).label_set
    assert len(label_set) == 4
    assert label_set.colors[:3] == ((10, 20, 30), (40, 50, 60), (70, 80, 90))
    assert len(set(label_set.colors)) == 4
    with Image.open(tmp_path / "masks" / "b.png") as file:
        assert file.mode == "P"


@pytest.mark.parametrize(
    ("config", "label_set"),
    [
        (["road", "sky"], LabelSet.from_config({"categories": ["road", "sky"]})),
        (
            {"categories": ["r", "s"], "colors": [[1, 2, 3], [4, 5, 6]]},
            LabelSet(("r", "s"), ((1, 2, 3), (4, 5, 6))),
        ),
        ("camvid", CAMVID),
    ],
    ids=["names", "fields", "known label set"],
)
def test_classes_from_a_file(tmp_path, add, write_classes, config, label_set):
    labels = add("a", 2)
    write_classes(config)
    dataset = MaskFolder(tmp_path)
    assert dataset.label_set == label_set
    assert np.array_equal(dataset.labels(0), labels)
    labels = add("a", np.random.default_rng(0).choice(np.array([7, 200, 255], np.uint8), (6, 8)))
    write_classes({"categories": ["high", "low"], "label_ids": [200, 7]})
    expected = np.select([labels == 200, labels == 7], [0, 1], 255)
    assert np.array_equal(MaskFolder(tmp_path).labels(0), expected)


def test_missing_folders_are_named(tmp_path, add):
    with pytest.raises(FileNotFoundError, match=r"no files in .*/images and in .*/masks; .*NAME"):
        MaskFolder(tmp_path)
    add("a", mask=False)
    with pytest.raises(FileNotFoundError, match=r"no files in [^ ]*/masks;"):
        MaskFolder(tmp_path)
    add("b")
    with pytest.raises(FileNotFoundError, match=f"is part of {tmp_path}: give that folder$"):
        MaskFolder(tmp_path / "images")


def test_all_problems_are_reported_at_once(tmp_path, add, write_classes):
    images, masks = tmp_path / "images", tmp_path / "masks"
    add("good")
    add("no_mask", mask=False)
    add("no_image", image=False)
    add("two_images")
    add("two_images", suffix="jpg", mask=False)
    add("text")
    (images / "text.png").write_text("no image")
    add("cut_image", size=(40, 40))
    (images / "cut_image.png").write_bytes((images / "cut_image.png").read_bytes()[:-60])
    add("cut_mask", size=(40, 40))
    (masks / "cut_mask.png").write_bytes((masks / "cut_mask.png").read_bytes()[:-60])
    add("size")
    add("size", size=(6, 9), image=False)
    add("rgb", np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3))
    add("deep", np.full((6, 8), 1000, np.uint16))
    add("high", np.array([[0, 1], [3, 254]], np.uint8), size=(2, 2))
    add("jpeg")
    Image.new("L", (8, 6)).save(masks / "jpeg.png", "JPEG")
    write_classes(["a", "b", "c"])
    report = problems_of(tmp_path)
    expected = [
        "images/no_mask.png has no mask",
        "masks/no_image.png has no image",
        "two_images.jpg and two_images.png have the same name; keep one of them",
        "images/text.png cannot be read as an image",
        "images/cut_image.png cannot be read as an image",
        "masks/cut_mask.png cannot be read as a PNG",
        "images/size.png has 8 x 6 pixels, its mask 9 x 6 pixels: a mask of",
        "masks/rgb.png holds colours, unlike the others: save them as class numbers too",
        "masks/deep.png holds numbers in 1000..1000",
        "masks/high.png has the labels [3, 254], in 2 pixels (",
        "masks/jpeg.png is a JPEG file",
    ]
    for problem in expected:
        assert problem in report
    assert report.startswith(f"{tmp_path} has {len(expected)} problems:\n")
    assert len(report.splitlines()) == 1 + len(expected)
    assert "good" not in report


def test_long_report_is_cut(tmp_path, add):
    for index in range(LONGEST_REPORT + 12):
        add(f"image{index:03d}", size=(6, 8), image=False)
        add(f"image{index:03d}", size=(6, 9), mask=False)
    lines = problems_of(tmp_path).splitlines()
    assert lines[0].endswith(f"has {LONGEST_REPORT + 12} problems:")
    assert lines[-1].strip() == f"... and {LONGEST_REPORT + 7} more like these"
    assert len(lines) == 7


def test_wrong_masks_of_many_kinds_are_a_short_report(tmp_path, add):
    """Of each kind the first are named, and how many more there are."""
    kinds = {
        "colors": np.arange(144, dtype=np.uint8).reshape(6, 8, 3),
        "number": ZEROS + 7,
        "rows": np.zeros((5, 8), np.uint8),
    }
    for index in range(8):
        for kind, pixels in kinds.items():
            add(f"{kind}{index}", size=(6, 8), mask=False)
            add(f"{kind}{index}", pixels, image=False)
        add(f"deep{index}", np.full((6, 8), 1000 + index, np.uint16))
        add(f"good{index}")
    (tmp_path / "classes.json").write_text('["a", "b", "c"]')
    report = problems_of(tmp_path)
    assert len(report.splitlines()) == 1 + 6 + 6 + 2
    assert report.count("\n  ... and 3 more like these") == 2
    for said in (
        "has 18 problems:",
        "masks/deep4.png holds numbers in 1004..1004 (mode I;16)",
        "8 masks (",
        "have the labels [7], in 384 pixels (",
        "and 3 more) hold colours, unlike the others",
        "images/rows4.png has 8 x 6 pixels, its mask 8 x 5 pixels: ",
    ):
        assert said in report


def test_what_many_files_have_is_one_line(tmp_path, add):
    for index in range(50):
        add(f"image{index:03d}")
        Image.new("L", (8, 6)).save(tmp_path / "masks" / f"image{index:03d}.png", "JPEG")
    assert "each of 50 files is a JPEG file, " in problems_of(tmp_path)
    assert problems_of(tmp_path).endswith("image004.png, and 45 more")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting property name"),
        ("7", "it must be a list of names, or an object such as"),
        ('["a", "a", "b"]', "classes.json: class names must be unique, not 'a' twice"),
        ('{"categories": ["a"], "ignor_colors": []}', "'ignor_colors': did you mean 'ignore_colo"),
        ('{"mask-orientation": "stored"}', "did you mean 'mask_orientation'? The fields are"),
        ("[]", "1 to 255 classes, not 0"),
        ('"cityscape"', "unknown label set 'cityscape'; available: cityscapes"),
        (
            '{"names": ["a"]}',
            "it has no field 'names': The fields are categories, colors, l",
        ),
        ('{"categories": ["a"], "colors": [[1, 2]]}', "three whole numbers in 0..255, not [1, 2]"),
        ('{"categories": ["a"], "colors": [7]}', "three whole numbers in 0..255, not 7"),
        ('{"categories": ["a"], "colors": [[1, 2, 300]]}', "three whole numbers in 0..255"),
        ('{"categories": ["a", "b"], "label_ids": [1, 1]}', "label_ids must be unique, not (1, 1)"),
        ('{"label_ids": null}', "label_ids must be a list of whole numbers, not None"),
        ('[{"id": 0, "name": "a"}]', "the name of a class must be a text, not {"),
        ("\xff", "codec can't decode"),
    ],
)
def test_invalid_classes_file_is_one_of_the_problems(tmp_path, add, content, message):
    add("a")
    add("b", mask=False)
    (tmp_path / "classes.json").write_text(content, encoding="latin-1")
    _, *problems = problems_of(tmp_path).splitlines()
    assert len(problems) == 2
    assert "b.png has no mask" in "".join(problems)
    (problem,) = (line for line in problems if "classes.json" in line)
    assert message in problem
