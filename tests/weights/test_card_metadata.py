"""Metadata of model cards, as the Hub's own classes read them."""

import pytest
from huggingface_hub import ModelCard

from ccnet.weights import REGISTRY
from ccnet.weights.model_card import write_model_card
from ccnet.weights.registry import details_of

MEMBERS = [member for choice in REGISTRY.values() for member in choice]
CONFIG = {
    "backbone": "resnet18",
    "num_classes": 2,
    "recurrence": 2,
    "label_set": {"categories": ["a", "b"]},
}


def card_of(member):
    details = {**details_of(member), "location": "us/model"}
    return ModelCard(write_model_card(member.meta["config"], details))


def front_matter(**details):
    return ModelCard(write_model_card(CONFIG, details)).data.to_dict()


@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_results_of_every_member_say_who_measured_what_and_how(member):
    card = card_of(member)
    data = card.data.to_dict()
    assert data["license"] == member.meta["license"].lower()
    assert data["datasets"]
    ((dataset, metrics),) = member.meta["metrics"].items()
    figures = [one if isinstance(one, list) else [one] for one in metrics.values()]
    results = card.data.eval_results
    assert [one.metric_value for one in results] == [value for one in figures for value in one]
    for result in results:
        assert (result.task_type, result.metric_type) == ("image-segmentation", "mean_iou")
        assert (result.dataset_name, result.dataset_split) == (dataset, "val")
        assert result.dataset_type in data["datasets"]
        assert result.source_name == member.meta["whose"]
        assert result.source_url.startswith("https://")
        assert f"(reported by {result.source_name})" in result.metric_name
        is_several = "multi-scale" in result.metric_name
        protocol = member.meta["protocol"].replace(
            **({"scales": [0.5, 0.75, 1.0, 1.25, 1.5, 1.75], "flip": True} if is_several else {})
        )
        assert result.metric_args == protocol.to_config()


LICENCES = {
    "MIT": {"license": "mit"},
    "CC-BY-NC-4.0": {"license": "cc-by-nc-4.0"},
    "for research only": {"license": "other", "license_name": "for-research-only"},
}


@pytest.mark.parametrize(("name", "expected"), LICENCES.items(), ids=LICENCES)
def test_licence_is_one_that_the_hub_takes(name, expected):
    found = front_matter(license=name)
    assert {key: found[key] for key in found if key.startswith("license")} == expected


ODD = {
    "none": {},
    "no mapping": {"metrics": 3},
    "no figures": {"metrics": {"Town": 3, "Village": {"mIoU": None, "": [None]}}},
    "no protocol": {"metrics": {"": {"": 1.5}}, "protocol": "whole", "whose": "us"},
}


@pytest.mark.parametrize("details", ODD.values(), ids=ODD)
def test_odd_details_make_a_card_all_the_same(details):
    found = front_matter(**details)
    assert found["pipeline_tag"] == "image-segmentation"
    assert ("model-index" in found) == ("protocol" in details)


def test_unknown_data_and_metrics_have_their_own_names():
    found = front_matter(metrics={"My Town test": {"mIoU": 61.5, "pixel accuracy": 90}})
    (result,) = found["model-index"][0]["results"]
    assert result["dataset"] == {"name": "My Town test", "type": "my-town", "split": "test"}
    assert [one["type"] for one in result["metrics"]] == ["mean_iou", "pixel"]
    assert "source" not in result
