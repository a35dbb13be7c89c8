"""Samples of data sets of one's own, which may be plain tensors."""

import pytest
import torch
from small_runs import changed
from torch import Tensor

from ccnet.training.augmentation import augmentation_of
from ccnet.training.samples import marked
from ccnet.transforms import Preprocessing

IMAGE, MASK = torch.zeros(3, 8, 9, dtype=torch.uint8), torch.zeros(8, 9, dtype=torch.uint8)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_plain_masks_move_with_their_images(dtype):
    labels = torch.randint(2, (32, 32), generator=torch.Generator().manual_seed(0))
    plain = (100 * labels).to(torch.uint8).repeat(3, 1, 1), labels.to(dtype)
    fields = {"crop_height": 32, "crop_width": 32, "scale_low": 1.0, "scale_high": 1.0}
    augmentation = augmentation_of(changed(color_jitter=0.0, **fields), Preprocessing())
    flips = 0
    for seed in range(8):
        torch.manual_seed(seed)
        image, mask = (part.as_subclass(Tensor) for part in augmentation(*plain))
        assert torch.equal(image[0], 100 * mask)
        flips += not torch.equal(mask, labels)
    assert 0 < flips < 8


@pytest.mark.parametrize(
    ("sample", "found"),
    [
        ((IMAGE / 255, MASK), r"float32 \(3, 8, 9\) and uint8 \(8, 9\)"),
        ((IMAGE, MASK[None]), r"uint8 \(3, 8, 9\) and uint8 \(1, 8, 9\)"),
        ((IMAGE, MASK.bool()), r"uint8 \(3, 8, 9\) and bool \(8, 9\)"),
        ((IMAGE.movedim(0, -1), MASK), r"uint8 \(8, 9, 3\) and uint8 \(8, 9\)"),
        ((IMAGE, MASK.T), r"uint8 \(3, 8, 9\) and uint8 \(9, 8\)"),
        ((IMAGE.numpy(), MASK), r"ndarray and uint8 \(8, 9\)"),
        ((IMAGE, MASK, "name"), r"uint8 \(3, 8, 9\) and uint8 \(8, 9\) and str"),
    ],
)
def test_other_samples_are_refused(sample, found):
    message = rf"a sample to train on must be two tensors of one size, .*, not {found}$"
    with pytest.raises(ValueError, match=message):
        marked(*sample)
