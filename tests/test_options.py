"""Options that do not exist: errors name them, and the nearest that does."""

import re
from dataclasses import replace

import pytest
import torch

import ccnet
from ccnet.evaluation import evaluate
from ccnet.training.classification import ClassificationRecipe
from ccnet.training.recipes import RECIPES, Recipe
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
    ("predict", {"device": "cuda"}, r"model\.to\(device\)"),
    ("predict", {"xyz": 1}, "'xyz': there are mode, crop, .*memory_limit"),
    ("predict", {"flp": 1, "crp": 1}, "arguments 'flp', 'crp': did you mean 'flip', 'crop'"),
]


@pytest.mark.parametrize(("call", "options", "message"), HINTS)
def test_what_others_call_otherwise_gets_a_hint(subjects, call, options, message, no_network):
    with pytest.raises(TypeError, match=message):
        CALLS[call](subjects, **options)
