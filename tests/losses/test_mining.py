"""Online hard example mining and the category consistent loss, compared with plain definitions."""

import itertools

import numpy as np
import pytest
import torch

from ccnet.losses import CategoryConsistentLoss, CrossEntropyLoss, OhemCrossEntropyLoss


def mined_pixels(logits, labels, threshold, min_kept, factor=8):
    """The definition, in NumPy and SciPy: the kept pixels (N, H, W) and the final threshold."""
    ndimage = pytest.importorskip("scipy.ndimage")
    probabilities = logits.double().softmax(dim=1).numpy()
    labels = labels.numpy()
    batch, classes, height, width = probabilities.shape
    coarse = [max(1, round(size / factor)) for size in (height, width)]
    zoom = [points / size for points, size in zip(coarse, (height, width), strict=True)]
    small = ndimage.zoom(probabilities, (1, 1, *zoom), order=1)
    small_labels = ndimage.zoom(labels, (1, *zoom), order=0)
    assert small.shape == (batch, classes, *coarse)
    valid = small_labels != 255
    n, y, x = np.nonzero(valid)
    true_class = np.sort(small[n, small_labels[valid], y, x])
    kept = min_kept // factor**2
    if kept >= len(true_class):
        threshold = 1.0
    elif kept:
        threshold = max(threshold, true_class[kept - 1])
    n, y, x = np.nonzero(labels != 255)
    mask = np.zeros(labels.shape, bool)
    mask[n, y, x] = probabilities[n, labels[n, y, x], y, x] <= threshold
    return mask, threshold


@pytest.mark.parametrize("size", [(48, 72), (33, 57), (9, 4), (7, 100)])
@pytest.mark.parametrize("min_kept", [0, 64, 640, 5000, 108 * 64, 10**6])
@pytest.mark.parametrize("threshold", [0.3, 0.7])
@pytest.mark.parametrize("ignored", [0.0, 0.4])
def test_mining_keeps_the_pixels_of_the_definition(size, min_kept, threshold, ignored):
    logits = 2 * torch.randn(2, 5, *size, dtype=torch.float64)
    labels = torch.randint(0, 5, (2, *size), dtype=torch.uint8)
    labels[torch.rand(labels.shape) < ignored] = 255
    mask, expected_threshold = mined_pixels(logits, labels, threshold, min_kept)
    loss = OhemCrossEntropyLoss(threshold, min_kept)
    found = loss.effective_threshold(logits, labels).item()
    assert found == pytest.approx(expected_threshold, rel=1e-9)
    assert 0 < mask.sum() <= (labels != 255).sum().item()
    logits.requires_grad_()
    value = loss(logits, labels)
    value.backward()
    assert np.array_equal(logits.grad.abs().sum(1).numpy() > 0, mask)
    log_probabilities = logits.detach().log_softmax(dim=1)
    true = log_probabilities.gather(1, labels.long().where(labels != 255, 0)[:, None])[:, 0]
    assert value.item() == pytest.approx(-true.numpy()[mask].mean())


@pytest.mark.parametrize(
    ("arguments", "message"), [({"threshold": 1.5}, "1.5"), ({"min_kept": -1}, "-1")]
)
def test_invalid_mining_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        OhemCrossEntropyLoss(**arguments)


def consistency_by_loops(features, labels, dv=0.5, dd=1.5, weights=(1.0, 1.0, 0.001)):
    """The category consistent loss class by class; features (P, D), labels (P,)."""
    classes = [c for c in range(255) if (labels == c).any()]
    means = {c: features[labels == c].mean(dim=0) for c in classes}
    variance = []
    for c in classes:
        pulls = []
        for feature in features[labels == c]:
            d = (means[c] - feature).norm()
            if d <= dv:
                pulls.append(0 * d)
            elif d <= dd:
                pulls.append((d - dv) ** 2)
            else:
                pulls.append((d - dd) + (dd - dv) ** 2)
        variance.append(torch.stack(pulls).mean())
    pushes = []
    for a, b in itertools.permutations(classes, 2):
        d = (means[a] - means[b]).norm()
        pushes.append((2 * dd - d) ** 2 if d < 2 * dd else 0 * d)
    lengths = [means[c].norm() for c in classes]
    terms = [torch.stack(t).mean() if t else 0 * lengths[0] for t in (variance, pushes, lengths)]
    return sum(weight * term for weight, term in zip(weights, terms, strict=True))


@pytest.mark.parametrize("scale", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("classes", [1, 2, 5])
def test_consistency_equals_the_loop_over_classes(scale, classes):
    loss = CategoryConsistentLoss(6, channels=3).double()
    features = scale * torch.randn(2, 6, 4, 5, dtype=torch.float64)
    features.requires_grad_()
    labels = torch.randint(0, classes, (2, 4, 5), dtype=torch.uint8)
    labels[0, 0] = 255
    reduced = loss.reduce(features).movedim(1, -1).flatten(0, -2)
    counted = labels.flatten() != 255
    expected = consistency_by_loops(reduced[counted], labels.flatten()[counted])
    inputs = (features, *loss.parameters())
    wanted = torch.autograd.grad(expected, inputs)
    actual = loss(features, labels)
    got = torch.autograd.grad(actual, inputs)
    torch.testing.assert_close(actual, expected)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_consistency_takes_labels_at_the_nearest_pixel():
    loss = CategoryConsistentLoss(3, channels=2)
    features = torch.randn(1, 3, 4, 6)
    labels = torch.randint(0, 3, (1, 4, 6))
    fine = labels.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
    torch.testing.assert_close(loss(features, fine), loss(features, labels))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_of_half_precision_are_computed_in_float32(dtype):
    """Sums over 300 x 300 pixels exceed float16, and count pixels of both in steps of hundreds."""
    logits = torch.randn(1, 5, 300, 300).to(dtype)
    labels = torch.randint(5, (1, 300, 300))
    features = (20 * torch.randn(1, 32, 40, 40)).to(dtype)
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0])
    for loss in (CrossEntropyLoss(weights), OhemCrossEntropyLoss(0.3, 6400)):
        value = loss(logits, labels)
        assert value.dtype == torch.float32
        assert torch.equal(value, loss(logits.float(), labels))
        torch.testing.assert_close(loss.to(dtype)(logits, labels), value)
    loss = CategoryConsistentLoss(32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(features, labels)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, loss(features.float(), labels))


def test_mining_shows_logits_that_are_not_finite():
    logits = torch.full((1, 3, 16, 16), torch.nan)
    labels = torch.randint(0, 3, (1, 16, 16))
    assert OhemCrossEntropyLoss(min_kept=0)(logits, labels).isnan()
