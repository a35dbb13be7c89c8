"""Recorded configurations in Python: what a statement changes is followed, or else unknown."""

import pytest
from families import OPENMMLAB, random_state

from ccnet.weights.conversion import convert

BASE = """\
r = 3
head = dict(type='CCHead', recurrence=r, align_corners=True)
model = dict(decode_head=head)
"""
KNOWN = {
    "as it is": ("", 3),
    "item": ("model['decode_head']['recurrence'] = 5", 5),
    "item of what is shared": ("head['recurrence'] = 5", 5),
    "item of a part": ("model = dict(decode_head=dict(recurrence=head['recurrence']))", 3),
    "added to": ("r = 2\nr += 2\nmodel = dict(decode_head=dict(recurrence=r))", 4),
    "item added to": ("model['decode_head']['recurrence'] += 2", 5),
    "annotated": ("model: dict = dict(decode_head=dict(recurrence=6))", 6),
    "bound anew": ("head = dict(recurrence=7)", 3),
    "of something else": ("x = [1]\nx.append(2)\nimport os\nprint 'x'\nother = <object>", 3),
    "after no Python": ("x = <object>\nmodel['decode_head']['recurrence'] = 5", 5),
}
UNKNOWN = {
    "update": "model.update(decode_head=dict(type='CCHead', recurrence=5))",
    "update of what is shared": "head.update(recurrence=5)",
    "update in an assignment": "x = head.update(recurrence=5)",
    "unreadable item": "head['recurrence'] = int(5)",
    "item of mappings": "model['decode_head'] = dict(recurrence=5)",
    "item at no text": "model[0]['recurrence'] = 5",
    "loop": "for name in ['recurrence']:\n    head[name] = 5",
    "condition": "if True:\n    model = dict(decode_head=dict(recurrence=5))",
    "together": "model, x = dict(decode_head=dict(recurrence=5)), 3",
    "attribute": "model.decode_head.recurrence = 5",
    "deletion": "del head['recurrence']",
    "unknown name": "model = dict(decode_head=dict(recurrence=size, norm_cfg=norm, act_cfg=a.b))",
    "no Python": "model = dict(decode_head=<object>)",
    "itself": "model['decode_head'] = model",
}


@pytest.fixture(scope="module")
def state():
    return random_state(OPENMMLAB, "resnet18", num_classes=4)


@pytest.mark.parametrize(("text", "recurrence"), KNOWN.values(), ids=KNOWN)
def test_what_a_statement_changes_is_followed(text, recurrence, state):
    found = convert({"meta": {"cfg": BASE + text}, "state_dict": state})
    assert found.config["recurrence"] == recurrence
    assert "recurrence" not in found.assumed


@pytest.mark.parametrize("text", UNKNOWN.values(), ids=UNKNOWN)
def test_what_cannot_be_followed_is_unknown(text, state):
    found = convert({"meta": {"cfg": BASE + text}, "state_dict": state})
    assert found.config["recurrence"] == 2
    assert "recurrence" in found.assumed


def test_byte_order_mark_is_no_part_of_a_name(state):
    found = convert({"meta": {"cfg": f"\ufeff{BASE}"}, "state_dict": state})
    assert found.config["recurrence"] == 3
