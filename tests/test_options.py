"""Options that do not exist: errors name them, and the nearest that does."""

import re
from dataclasses import replace

import pytest
import torch

import ccnet
from ccnet import datasets, losses, norm
from ccnet.classes import CAMVID, LabelSet
from ccnet.evaluation import evaluate
from ccnet.heads import FCNHead, RCCAHead
from ccnet.inference import Segmentation
from ccnet.training.classification import ClassificationRecipe
from ccnet.training.engine import Trainer
from ccnet.training.named_recipes import RECIPES
from ccnet.training.recipes import Recipe
from ccnet.transforms import Preprocessing

CALLS = {
    "predict": lambda of, **new: of.model.predict(None, **new),
    "CCNet": lambda _, **new: ccnet.CCNet(**new),
    "ccnet_resnet18": lambda _, **new: ccnet.ccnet_resnet18(**new),
    "ccnet_resnet101": lambda _, **new: ccnet.ccnet_resnet101(**new),
    "from_weights": lambda of, **new: ccnet.CCNet.from_weights(of.model.to_weights(), **new),
    "from_pretrained": lambda _, **new: ccnet.CCNet.from_pretrained("owner/name", **new),
    "Backbone": lambda _, **new: ccnet.CCNet("resnet18", backbone_options=new),
    "InferenceProtocol": lambda _, **new: ccnet.InferenceProtocol(**new),
    "replace": lambda _, **new: ccnet.InferenceProtocol().replace(**new),
    "Recipe": lambda _, **new: Recipe(**new),
    "changed Recipe": lambda _, **new: replace(RECIPES["finetune"], **new),
    "ClassificationRecipe": lambda _, **new: ClassificationRecipe(**new),
    "Preprocessing": lambda _, **new: Preprocessing(**new),
    "evaluate": lambda of, **new: evaluate(of.model, [], **new),
    "CrissCrossAttention3d": lambda _, **new: ccnet.CrissCrossAttention3d(8, **new),
    "TimmBackbone": lambda _, **new: ccnet.CCNet("timm:resnet10t", backbone_options=new),
    "MaskFolder": lambda _, **new: datasets.MaskFolder("nowhere", **new),
    "CamVid": lambda _, **new: datasets.CamVid("nowhere", **new),
    "Cityscapes": lambda _, **new: datasets.Cityscapes("nowhere", **new),
    "PascalVOC": lambda _, **new: datasets.PascalVOC("nowhere", **new),
    "ADE20K": lambda _, **new: datasets.ADE20K("nowhere", **new),
    "LabelMeFacade": lambda _, **new: datasets.LabelMeFacade("nowhere", **new),
    "StreetScenes": lambda _, **new: datasets.StreetScenes(1, **new),
    "SegmentationLoss": lambda _, **new: losses.SegmentationLoss(**new),
    "CrossEntropyLoss": lambda _, **new: losses.CrossEntropyLoss(**new),
    "OhemCrossEntropyLoss": lambda _, **new: losses.OhemCrossEntropyLoss(**new),
    "CategoryConsistentLoss": lambda _, **new: losses.CategoryConsistentLoss(8, **new),
    "LabelSet": lambda _, **new: LabelSet(**new),
    "RCCAHead": lambda _, **new: RCCAHead(8, 2, **new),
    "FCNHead": lambda _, **new: FCNHead(8, 8, 2, **new),
    "Trainer": lambda of, **new: Trainer(of.model, [], [], Recipe(), "nowhere", **new),
    "InPlaceABN": lambda _, **new: norm.InPlaceABN(8, **new),
    "SyncBatchNorm": lambda _, **new: norm.SyncBatchNorm(8, **new),
    "convert_inplace_abn": lambda of, **new: norm.convert_inplace_abn(of.model, **new),
    "freeze_backbone": lambda of, **new: of.model.freeze_backbone(**new),
    "overlay": lambda _, **new: Segmentation(None, CAMVID, None).overlay(**new),
    "to_coco": lambda _, **new: Segmentation(None, CAMVID, None).to_coco("a.jpg", **new),
    "save_coco": lambda _, **new: Segmentation(None, CAMVID, None).save_coco("a.json", **new),
    "save_pretrained": lambda of, **new: of.model.save_pretrained("nowhere", **new),
    "push_to_hub": lambda of, **new: of.model.push_to_hub("owner/name", **new),
    "hub ccnet_resnet18": lambda of, **new: of.hub("ccnet_resnet18", **new),
    "hub ccnet_resnet50": lambda of, **new: of.hub("ccnet_resnet50", **new),
    "hub criss_cross_attention_2d": lambda of, **new: of.hub("criss_cross_attention_2d", **new),
}
"""Calls with new options, by the name that is to be in the error, which may follow other words."""

CASES = [
    ("predict", "modee", "mode"),
    ("predict", "memory", "memory_limit"),
    ("CCNet", "backbon", "backbone"),
    ("CCNet", "BACKBONE", "backbone"),
    ("ccnet_resnet18", "num_class", "num_classes"),
    ("ccnet_resnet18", "category", "categories"),
    ("ccnet_resnet101", "weight", "weights"),
    ("from_weights", "droput", "dropout"),
    ("from_pretrained", "revison", "revision"),
    ("from_pretrained", "label_sets", "label_set"),
    ("Backbone", "output_strid", "output_stride"),
    ("InferenceProtocol", "strid", "stride"),
    ("replace", "scale", "scales"),
    ("Recipe", "batchsize", "batch_size"),
    ("changed Recipe", "step", "steps"),
    ("ClassificationRecipe", "batchsize", "batch_size"),
    ("Preprocessing", "means", "mean"),
    ("evaluate", "protocoll", "protocol"),
    ("CrissCrossAttention3d", "reductoin", "reduction"),
    ("TimmBackbone", "outputstride", "output_stride"),
    ("MaskFolder", "transform", "transforms"),
    ("CamVid", "splt", "split"),
    ("Cityscapes", "mode_split", "split"),
    ("PascalVOC", "image_set", "split"),
    ("ADE20K", "spilt", "split"),
    ("LabelMeFacade", "psuedo", "pseudo"),
    ("StreetScenes", "seeds", "seed"),
    ("SegmentationLoss", "auxweight", "aux_weight"),
    ("CrossEntropyLoss", "class_weight", "class_weights"),
    ("OhemCrossEntropyLoss", "min_keep", "min_kept"),
    ("CategoryConsistentLoss", "channel", "channels"),
    ("LabelSet", "color", "colors"),
    ("LabelSet", "class_names", "categories"),
    ("RCCAHead", "recurence", "recurrence"),
    ("FCNHead", "drop", "dropout"),
    ("Trainer", "resumed", "resume"),
    ("InPlaceABN", "negativ_slope", "negative_slope"),
    ("SyncBatchNorm", "momentums", "momentum"),
    ("convert_inplace_abn", "negativeslope", "negative_slope"),
    ("freeze_backbone", "stage", "stages"),
    ("overlay", "opacit", "opacity"),
    ("overlay", "alpha", "opacity"),
    ("overlay", "outline", "outlines"),
    ("overlay", "class", "classes"),
    ("to_coco", "segmentations", "segmentation"),
    ("save_coco", "filename", "file_name"),
    ("save_pretrained", "model_card_kwarg", "model_card_kwargs"),
    ("save_pretrained", "commit_mesage", "commit_message"),
    ("push_to_hub", "commit_mesage", "commit_message"),
    ("ccnet_resnet18", "class_names", "categories"),
    ("ccnet_resnet18", "classes", "categories"),
    ("from_weights", "class_names", "categories"),
    ("predict", "size", "fit"),
    ("predict", "image_size", "fit"),
    ("Recipe", "lr", "learning_rate"),
    ("hub ccnet_resnet18", "num_class", "num_classes"),
    ("hub criss_cross_attention_2d", "in_channel", "in_channels"),
]


class Subjects:
    """What the cases need."""

    def __init__(self, model, repository):
        self.model, self._repository = model, str(repository)

    def hub(self, entry, **options):
        return torch.hub.load(self._repository, entry, source="local", **options)


@pytest.fixture
def subjects(model, repository):
    return Subjects(model, repository)


@pytest.mark.parametrize(("call", "given", "nearest"), CASES)
def test_nearest_option_is_named(subjects, call, given, nearest):
    owner = call.split()[-1]
    text = f"{owner}() got an unexpected keyword argument '{given}': did you mean '{nearest}'?"
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        CALLS[call](subjects, **{given: 1})


HINTS = [
    ("ccnet_resnet18", {"pretrained": True}, r'\'pretrained\': weights="DEFAULT" gives'),
    ("ccnet_resnet101", {"pretrained": False}, "weights=None an untrained one"),
    ("hub ccnet_resnet18", {"pretrained_backbone": True}, r'weights_backbone="DEFAULT" gives'),
    ("hub ccnet_resnet18", {"backbone": "resnet50"}, "has its own: .*ccnet_resnet50"),
    ("CCNet", {"pretrained": True}, r'ccnet_resnet18\(weights="DEFAULT"\)'),
    *(("CCNet", {name: []}, r"label_set=\{.*build_ccnet") for name in ("categories", "classes")),
    ("ccnet_resnet18", {"img_size": 512}, r'any size.*\{"image_size": \[height, width\]\}$'),
    ("CCNet", {"image_size": 512}, "any size"),
    ("from_pretrained", {"resume_download": True}, "only force_download=True"),
    ("from_pretrained", {"device_map": "auto"}, r"model\.to\(device\)"),
    ("predict", {"device": "cuda"}, r"model\.to\(device\)"),
    ("predict", {"xyz": 1}, "'xyz': there are mode, crop, .*memory_limit"),
    ("predict", {"flp": 1, "crp": 1}, "arguments 'flp', 'crp': did you mean 'flip', 'crop'"),
]


@pytest.mark.parametrize(("call", "options", "message"), HINTS)
def test_what_others_call_otherwise_gets_a_hint(subjects, call, options, message, no_network):
    with pytest.raises(TypeError, match=message):
        CALLS[call](subjects, **options)
