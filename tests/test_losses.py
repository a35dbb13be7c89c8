"""The segmentation loss against its plain statement in float64."""

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


def test_main_output_alone(class_weights, labels):
    logits = random_logits()
    loss = SegmentationLoss(class_weights=class_weights)({"out": logits}, labels)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(plain_cross_entropy(logits, labels, class_weights))


@pytest.mark.parametrize("aux_weight", [None, 0.0, 1.7])
def test_auxiliary_output_counts_by_its_weight(class_weights, labels, aux_weight):
    outputs = {"out": random_logits(), "aux": random_logits()}
    options = {} if aux_weight is None else {"aux_weight": aux_weight}
    loss = SegmentationLoss(class_weights=class_weights, **options)(outputs, labels)
    main, aux = (plain_cross_entropy(outputs[name], labels, class_weights) for name in outputs)
    expected = main + (0.4 if aux_weight is None else aux_weight) * aux
    assert loss.item() == pytest.approx(expected)


def test_gradients_reach_counted_pixels_only(class_weights, labels):
    logits = random_logits(requires_grad=True)
    SegmentationLoss(class_weights=class_weights)({"out": logits}, labels).backward()
    reached = logits.grad.abs().sum(1) > 0
    assert torch.equal(reached, labels != 255)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_without_a_counted_pixel_costs_nothing(class_weights, dtype):
    outputs = {name: random_logits().to(dtype).requires_grad_() for name in ("out", "aux")}
    weights = class_weights if class_weights is None else class_weights.to(dtype)
    labels = torch.full((2, 3, 5), 255)
    loss = SegmentationLoss(class_weights=weights)(outputs, labels)
    assert loss.item() == 0
    loss.backward()
    for logits in outputs.values():
        assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_class_weights_move_with_the_module():
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert (
        SegmentationLoss(class_weights=weights).double().main.class_weights.dtype == torch.float64
    )


@pytest.mark.parametrize("mining", [False, True])
def test_the_mean_of_joint_losses_is_that_of_the_joined_batch(class_weights, mining, monkeypatch):
    """Of two processes, one after the other, that know of each other only how much counts."""
    logits = random_logits(requires_grad=True)
    labels = torch.randint(0, 4, (2, 3, 5))
    labels[0, :2] = 255  # the parts differ in what counts

    def loss(**options):
        if mining:
            return OhemCrossEntropyLoss(0.3, 0, class_weights=class_weights, **options)
        return CrossEntropyLoss(class_weights, **options)

    counts = []
    monkeypatch.setattr("ccnet.processes.mean", lambda count: counts.append(count) or count)
    for part in (0, 1):
        loss(joint=True)(logits[part : part + 1], labels[part : part + 1])
    assert counts[0] != counts[1]
    monkeypatch.setattr("ccnet.processes.mean", lambda _: sum(counts) / 2)
    parts = [loss(joint=True)(logits[part : part + 1], labels[part : part + 1]) for part in (0, 1)]
    expected = loss()(logits, labels)
    torch.testing.assert_close(sum(parts) / 2, expected)
    (gradient,) = torch.autograd.grad(sum(parts) / 2, logits)
    torch.testing.assert_close(gradient, *torch.autograd.grad(expected, logits))


def test_a_part_without_a_counted_pixel_costs_nothing(monkeypatch):
    logits = random_logits(requires_grad=True)
    monkeypatch.setattr("ccnet.processes.mean", lambda count: (count + 6) / 2)
    loss = CrossEntropyLoss(joint=True)(logits, torch.full((2, 3, 5), 255))
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("joint", [False, True])
def test_what_joins_its_parts_is_passed_on(joint):
    loss = SegmentationLoss(joint=joint)
    assert loss.main.joint == loss.auxiliary.joint == joint


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_the_consistency_loss_counts_by_its_weight(weight, labels):
    outputs = {"out": random_logits(), "rcca": torch.randn(2, 6, 3, 5, dtype=torch.float64)}
    consistency = CategoryConsistentLoss(6).double()
    whole = SegmentationLoss(consistency=consistency, consistency_weight=weight)
    plain = SegmentationLoss()(outputs, labels)
    difference = whole(outputs, labels) - plain
    torch.testing.assert_close(difference, weight * consistency(outputs["rcca"], labels))
