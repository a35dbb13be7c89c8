"""The examples of docs/networks.md run as they are printed, but those that download."""

import re

import pytest


def test_examples_run(repository):
    pytest.importorskip("timm")
    pytest.importorskip("segmentation_models_pytorch")
    page = (repository / "docs" / "networks.md").read_text()
    offline = re.sub(r"<!-- needs the network -->\n```python\n.*?```", "", page, flags=re.DOTALL)
    examples = re.findall(r"```python\n(.*?)```", offline, flags=re.DOTALL)
    assert len(examples) == 4
    exec("\n".join(examples), {"__name__": "networks"})
