"""The segmentation loss, compared with a plain definition in float64."""

import pytest
import torch

from ccnet.losses import (
    CategoryConsistentLoss,
    CrossEntropyLoss,
    OhemCrossEntropyLoss,
    SegmentationLoss,
)


def plain_cross_entropy(logits, labels, class_weights):
    """The weighted mean of -log softmax over the pixels that count, one by one."""
    total, normaliser = 0.0, 0.0
    for n, y, x in torch.cartesian_prod(*map(torch.arange, labels.shape)).tolist():
        label = int(labels[n, y, x])
        if label == 255:
            continue
        scores = logits[n, :, y, x].double().exp()
        weight = 1.0 if class_weights is None else float(class_weights[label])
        total -= weight * float((scores[label] / scores.sum()).log())
        normaliser += weight
    return total / normaliser


@pytest.fixture(params=[None, (0.3, 1.0, 2.5, 0.9)], ids=["unweighted", "weighted"])
def class_weights(request):
    return request.param and torch.tensor(request.param, dtype=torch.float64)


@pytest.fixture
def labels():
    labels = torch.randint(0, 4, (2, 3, 5), dtype=torch.uint8)
    labels[0, 1] = 255
    labels[1, :, 4] = 255
    return labels


def random_logits(**options):
    return torch.randn(2, 4, 3, 5, dtype=torch.float64, **options)


@pytest.mark.parametrize(
    ("names", "options", "aux_weight"),
    [
        (["out"], {}, 0),
        (["out", "aux"], {}, 0.4),
        (["out", "aux"], {"aux_weight": 0.0}, 0),
        (["out", "aux"], {"aux_weight": 1.7}, 1.7),
    ],
)
def test_auxiliary_output_counts_by_its_weight(class_weights, labels, names, options, aux_weight):
    outputs = {name: random_logits() for name in names}
    loss = SegmentationLoss(class_weights=class_weights, **options)(outputs, labels)
    assert loss.shape == ()
    parts = [plain_cross_entropy(outputs[name], labels, class_weights) for name in names]
    assert loss.item() == pytest.approx(parts[0] + aux_weight * parts[-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["segmentation", "mining", "consistency", "joint"])
def test_batch_without_a_counted_pixel_has_a_loss_of_zero(class_weights, dtype, name, monkeypatch):
    """Also if only this process has none."""
    monkeypatch.setattr("ccnet.distributed.all_reduce_mean", lambda count: (count + 6) / 2)
    weights = class_weights if class_weights is None else class_weights.to(dtype)
    segmentation = SegmentationLoss(class_weights=weights)
    function = {
        "segmentation": lambda values: segmentation({"out": values[:2], "aux": values[2:]}, labels),
        "mining": lambda values: OhemCrossEntropyLoss(class_weights=weights)(values[:2], labels),
        "consistency": lambda values: CategoryConsistentLoss(4).to(dtype)(values[:2], labels),
        "joint": lambda values: CrossEntropyLoss(weights, joint=True)(values[:2], labels),
    }[name]
    values = torch.randn(4, 4, 16, 24, dtype=dtype, requires_grad=True)
    labels = torch.full((2, 16, 24), 255)
    loss = function(values)
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(values.grad, torch.zeros_like(values))


@pytest.mark.parametrize("mining", [False, True])
def test_mean_of_joint_losses_is_that_of_the_whole_batch(class_weights, mining, monkeypatch):
    """Of two processes, one after the other, that know only each other's number of pixels."""
    logits = random_logits(requires_grad=True)
    labels = torch.randint(0, 4, (2, 3, 5))
    labels[0, :2] = 255  # the parts differ in what counts

    def loss(**options):
        if mining:
            return OhemCrossEntropyLoss(0.3, 0, class_weights=class_weights, **options)
        return CrossEntropyLoss(class_weights, **options)

    def losses_of_parts(mean):
        monkeypatch.setattr("ccnet.distributed.all_reduce_mean", mean)
        return [loss(joint=True)(logits[part], labels[part]) for part in (slice(1), slice(1, 2))]

    counts = []
    losses_of_parts(lambda count: counts.append(count) or count)
    assert counts[0] != counts[1]
    mean = sum(losses_of_parts(lambda _: sum(counts) / 2)) / 2
    expected = loss()(logits, labels)
    torch.testing.assert_close(mean, expected)
    (gradient,) = torch.autograd.grad(mean, logits)
    torch.testing.assert_close(gradient, *torch.autograd.grad(expected, logits))


@pytest.mark.parametrize("main", [None, OhemCrossEntropyLoss(0.5, 64)], ids=["all", "mining"])
@pytest.mark.parametrize(("options", "weight"), [({}, 1), ({"consistency_weight": 0.5}, 0.5)])
def test_loss_is_the_sum_of_its_parts(main, options, weight):
    outputs = {name: torch.randn(1, 4, 16, 16) for name in ("out", "aux")}
    outputs["rcca"] = torch.randn(1, 6, 2, 2)
    labels = torch.randint(0, 4, (1, 16, 16))
    consistency, plain = CategoryConsistentLoss(6), CrossEntropyLoss()
    loss = SegmentationLoss(main=main, consistency=consistency, **options)(outputs, labels)
    expected = (main or plain)(outputs["out"], labels) + 0.4 * plain(outputs["aux"], labels)
    expected += weight * consistency(outputs["rcca"], labels)
    torch.testing.assert_close(loss, expected)


def test_gradients_reach_counted_pixels_only(class_weights, labels):
    logits = random_logits(requires_grad=True)
    SegmentationLoss(class_weights=class_weights)({"out": logits}, labels).backward()
    assert torch.equal(logits.grad.abs().sum(1) > 0, labels != 255)
