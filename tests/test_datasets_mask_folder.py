"""One's own images and masks: what they may be, and that all that is wrong is said at once."""

import json
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from ccnet.classes import CAMVID, LabelSet
from ccnet.datasets import MaskFolder
from ccnet.datasets.mask_folder import LONGEST_REPORT
from ccnet.transforms import training_augmentation

ORIENTATION = 0x0112
PALETTE = [10, 20, 30, 40, 50, 60, 70, 80, 90]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def add(tmp_path, rng):
    """Writes an image, a mask, or both, and gives back the mask's labels."""

    def write(stem, labels=3, size=(6, 8), suffix="png", image=True, mask=True, palette=None):
        if isinstance(labels, int):
            labels = rng.integers(0, labels, size, np.uint8)
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        if image:
            picture = Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8))
            picture.save(tmp_path / "images" / f"{stem}.{suffix}")
        if mask:
            file = Image.fromarray(labels)
            if palette:
                file.putpalette(palette)
            file.save(tmp_path / "masks" / f"{stem}.png")
        return labels

    return write


def problems_of(root, **arguments):
    with pytest.raises(ValueError, match=r"has (a problem|[0-9]+ problems):") as error:
        MaskFolder(root, **arguments)
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
        assert np.array_equal(mask.numpy(), written[name])
        assert np.array_equal(dataset.labels(index).numpy(), written[name])


def test_classes_without_a_file_take_the_palettes_colours(tmp_path, add):
    add("a", 2)
    add("b", np.full((6, 8), 3, np.uint8), palette=PALETTE)
    add("c", np.full((6, 8), 255, np.uint8), palette=PALETTE[::-1])
    label_set = MaskFolder(tmp_path).label_set
    assert len(label_set) == 4
    assert label_set.colors[:3] == ((10, 20, 30), (40, 50, 60), (70, 80, 90))
    assert len(set(label_set.colors)) == 4
    with Image.open(tmp_path / "masks" / "b.png") as file:
        assert file.mode == "P"


def test_masks_of_0_and_255_are_not_two_classes(tmp_path, add):
    mask = np.zeros((6, 8), np.uint8)
    mask[2:] = 255
    add("a", mask)
    with pytest.raises(ValueError, match="no class but 0, and perhaps 255"):
        MaskFolder(tmp_path)
    (tmp_path / "classes.json").write_text('["street"]')
    assert MaskFolder(tmp_path).label_set.categories == ("street",)


def test_two_classes_of_one_number_are_refused(tmp_path, add):
    add("a", 1)
    config = {"categories": ["a", "b", "c"], "label_ids": [0, 1, 1]}
    (tmp_path / "classes.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"label_ids must differ .*: \(0, 1, 1\)"):
        MaskFolder(tmp_path)


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
    ids=["names", "fields", "a known label set"],
)
def test_classes_from_a_file(tmp_path, add, config, label_set):
    labels = add("a", 2)
    (tmp_path / "classes.json").write_text(json.dumps(config), encoding="utf-8-sig")
    dataset = MaskFolder(tmp_path)
    assert dataset.label_set == label_set
    assert np.array_equal(dataset.labels(0).numpy(), labels)


def test_label_ids_become_classes(tmp_path, add, rng):
    labels = rng.choice(np.array([7, 200, 255], np.uint8), (6, 8))
    add("a", labels)
    config = {"categories": ["high", "low"], "label_ids": [200, 7]}
    (tmp_path / "classes.json").write_text(json.dumps(config))
    expected = np.select([labels == 200, labels == 7], [0, 1], 255)
    assert np.array_equal(MaskFolder(tmp_path).labels(0).numpy(), expected)


def test_a_second_folder_takes_the_firsts_classes(tmp_path, add):
    add("a", np.zeros((6, 8), np.uint8))
    (tmp_path / "classes.json").write_text('["only one"]')
    assert len(MaskFolder(tmp_path).label_set) == 1
    assert MaskFolder(tmp_path, label_set=CAMVID).label_set is CAMVID


def test_photographs_are_turned_upright_before_sizes_are_compared(tmp_path, add, rng):
    labels = add("a", size=(8, 6), image=False)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    pixels = rng.integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png", exif=exif)
    image, mask = MaskFolder(tmp_path)[0]
    assert np.array_equal(mask.numpy(), labels)
    assert np.array_equal(image.movedim(0, -1).numpy(), np.rot90(pixels, -1))
    exif[ORIENTATION] = 1
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png", exif=exif)
    assert "a.png is (6, 8), its mask (8, 6) (height, width)" in problems_of(tmp_path)


def test_transforms_are_given_both(tmp_path, add):
    add("a", size=(40, 50))
    dataset = MaskFolder(tmp_path, training_augmentation((16, 24)))
    image, mask = dataset[0]
    assert image.shape == (3, 16, 24)
    assert mask.shape == (16, 24)
    assert dataset.labels(0).shape == (40, 50)


def test_missing_folders_are_named(tmp_path, add):
    with pytest.raises(FileNotFoundError, match=r"no files in .*/images and in .*/masks; .*NAME"):
        MaskFolder(tmp_path)
    add("a", mask=False)
    with pytest.raises(FileNotFoundError, match=r"no files in [^ ]*/masks;"):
        MaskFolder(tmp_path)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-60])


def grey_of_two_bits(path):
    """A PNG of 8 x 6 pixels whose grey values 0, 1, 2 and 3 Pillow reads as 0, 85, 170, 255."""

    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 8, 6, 2, 0, 0, 0, 0)
    rows = zlib.compress(bytes([0, 0b00011011, 0b00011011]) * 6)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def test_every_problem_is_named_at_once(tmp_path, add):
    images, masks = tmp_path / "images", tmp_path / "masks"
    add("good")
    add("no_mask", mask=False)
    add("no_image", image=False)
    add("two_images")
    add("two_images", suffix="jpg", mask=False)
    add("text")
    (images / "text.png").write_text("no image")
    add("cut_image", size=(40, 40))
    truncate(images / "cut_image.png")
    add("cut_mask", size=(40, 40))
    truncate(masks / "cut_mask.png")
    add("size")
    add("size", size=(6, 9), image=False)
    add("rgb", np.zeros((6, 8, 3), np.uint8))
    add("deep", np.full((6, 8), 1, np.uint16))
    add("high", np.array([[0, 1], [3, 254]], np.uint8), size=(2, 2))
    add("bits")
    grey_of_two_bits(masks / "bits.png")
    add("jpeg")
    Image.new("L", (8, 6)).save(masks / "jpeg.png", "JPEG")
    add("one_bit", np.zeros((6, 8), bool))
    (tmp_path / "classes.json").write_text('["a", "b", "c"]')
    report = problems_of(tmp_path)
    expected = [
        "images/no_mask.png has no mask",
        "masks/no_image.png has no image",
        "two_images.jpg and two_images.png have the same name; keep one of them",
        "images/text.png cannot be read as an image",
        "images/cut_image.png cannot be read as an image",
        "masks/cut_mask.png cannot be read as a PNG image",
        "images/size.png is (6, 8), its mask (6, 9)",
        "masks/rgb.png is of mode RGB; a label map is a grey or palette image of 8 bits: "
        "convert it to one class index per pixel",
        "masks/deep.png is of mode I;16B",
        "masks/high.png has the labels [3, 254], but the 3 classes have 0..2",
        "masks/bits.png is of mode L;2",
        "masks/jpeg.png cannot be read as a PNG image",
        "masks/one_bit.png is of mode 1",
    ]
    for problem in expected:
        assert problem in report
    assert report.startswith(f"{tmp_path} has {len(expected)} problems:\n")
    assert len(report.splitlines()) == 1 + len(expected)
    assert "good" not in report


def test_a_long_list_is_cut(tmp_path, add):
    add("good")
    for index in range(LONGEST_REPORT + 12):
        add(f"image{index:03d}", mask=False)
    lines = problems_of(tmp_path).splitlines()
    assert lines[0].endswith(f"has {LONGEST_REPORT + 12} problems:")
    assert lines[-1].strip() == "... and 12 more"
    assert len(lines) == LONGEST_REPORT + 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting property name"),
        ("7", "a label set is a name or a mapping, not 7"),
        ("[]", "1 to 255 classes, not 0"),
        ('"cityscape"', "no label set 'cityscape'; there are cityscapes"),
        ('{"names": ["a"]}', r"not \['names'\]"),
        ('{"categories": ["a"], "colors": [[1, 2]]}', "not enough values"),
        ('{"categories": ["a"], "colors": [7]}', "cannot unpack"),
        ('{"categories": ["a"], "colors": [[1, 2, 300]]}', "three numbers in 0..255"),
        ("\xff", "codec can't decode"),
    ],
)
def test_a_classes_file_that_is_none(tmp_path, add, content, message):
    add("a")
    add("b", mask=False)
    (tmp_path / "classes.json").write_text(content, encoding="latin-1")
    report = problems_of(tmp_path)
    assert "2 problems" in report
    assert "b.png has no mask" in report
    with pytest.raises(ValueError, match=rf"classes\.json is no list of names.*: .*{message}"):
        MaskFolder(tmp_path)


def test_label_ids_that_no_mask_can_hold(tmp_path, add):
    add("a", np.zeros((6, 8), np.uint8))
    config = {"categories": ["a", "b", "c"], "label_ids": [0, 255, -1]}
    (tmp_path / "classes.json").write_text(json.dumps(config))
    assert "label_ids are [-1, 255]; masks can hold 0..254" in problems_of(tmp_path)


def test_masks_without_any_class(tmp_path, add):
    add("a", np.full((6, 8), 255, np.uint8))
    assert "no readable mask has a pixel with a class" in problems_of(tmp_path)


def test_a_mask_that_changes_later_is_refused_when_read(tmp_path, add):
    add("a", 2)
    dataset = MaskFolder(tmp_path)
    add("a", np.full((6, 8), 77, np.uint8), image=False)
    with pytest.raises(ValueError, match=r"a\.png has the labels \[77\], which are none of \[0, 1"):
        dataset[0]
