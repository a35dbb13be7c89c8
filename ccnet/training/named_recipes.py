"""Named recipes: sets of hyper-parameters for data sets and purposes."""

from dataclasses import replace

from ccnet.training.recipes import Recipe

_AUTHORS = Recipe(
    dataset="cityscapes",
    backbone="resnet101",
    weights_backbone="DEFAULT",
    steps=60_000,
    crop_height=769,
    crop_width=769,
    scale_low=0.7,
    scale_high=2.1,
    scale_step=0.1,
    color_jitter=0.0,
    optimizer="sgd",
    learning_rate=0.01,
    weight_decay=1e-4,
    decay_all=True,
    warmup_steps=0,
    balance_classes=False,
    precision="float32",
    validate_every=5000,
)
"""The command in the README of speedinghzl/CCNet (https://arxiv.org/abs/1811.11721)."""

RECIPES = {
    "cityscapes-r101": _AUTHORS,
    "cityscapes-r101-ohem": replace(_AUTHORS, ohem=True),
    # mmsegmentation's configs/ccnet, 769x769, 80k, on the backbone that has ImageNet weights here.
    "cityscapes-r101-openmmlab": replace(
        _AUTHORS,
        steps=80_000,
        scale_low=0.5,
        scale_high=2.0,
        scale_step=0.0,
        max_class_share=0.75,
        color_jitter=0.5,
        weight_decay=5e-4,
        min_learning_rate=1e-4,
        validate_every=8000,
    ),
    "camvid-r18": Recipe(scenes=64),
    # The bundled weights (weights/README.md): needs LabelMeFacade as --mix-root, and as
    # --weights-backbone what `ccnet pretrain` has made.
    "streets-r18": Recipe(
        mix="labelmefacade=0.4,street-scenes=0.06",
        scenes=5000,
        size_factor=1.5,
        output_stride=16,
        steps=2800,
        scale_low=0.7,
        scale_high=1.7,
        gamma=0.5,
        blur=1.0,
        noise=8.0,
        learning_rate=8e-4,
        weight_decay=0.05,
        average_decay=0.998,
        class_weights="pole=3,sign symbol=2.5,pedestrian=2.2,bicyclist=2,fence=1.8,car=1.3,"
        "pavement=1.3",
        validate_every=700,
    ),
    # Small, uncropped scenes: trains in some minutes on a CPU.
    "street-scenes-r18": Recipe(
        dataset="street-scenes",
        output_stride=16,
        steps=800,
        batch_size=4,
        crop_height=180,
        crop_width=240,
        scale_low=1.0,
        scale_high=1.0,
        color_jitter=0.0,
        learning_rate=2e-3,
        weight_decay=0.001,
        warmup_steps=20,
    ),
    "finetune": Recipe(
        dataset="folder",
        weights="DEFAULT",
        output_stride=16,
        steps=200,
        batch_size=4,
        learning_rate=5e-4,
        warmup_steps=20,
        validate_every=50,
    ),
}
