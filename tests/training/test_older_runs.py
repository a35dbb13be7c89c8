"""Runs of versions of this package that had fewer fields in a recipe."""

import dataclasses
import json

import pytest
from small_runs import assert_same_end, changed, interrupt, trainer

from ccnet.training.checkpoint import Checkpoints
from ccnet.training.recipes import LATER
from ccnet.training.run_folder import state_to_resume


def test_runs_of_versions_without_these_fields_are_resumed(tmp_path):
    trainer(tmp_path / "whole").run()
    interrupt(tmp_path / "run", steps=3)
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    _, state = checkpoints.newest()
    for name in LATER:
        del state["recipe"][name]
    checkpoints.save(state)
    with pytest.raises(ValueError, match=r"has patience 0, not 3: "):
        trainer(tmp_path / "run", changed(patience=3), resume=True)
    trainer(tmp_path / "run", resume=True).run()
    assert_same_end(tmp_path / "run", tmp_path / "whole")
    older = {key: value for key, value in dataclasses.asdict(changed()).items() if key not in LATER}
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "data.jsonl").write_text('{"set": "train"}\n')
    (tmp_path / "begun" / "train.log").touch()
    (tmp_path / "begun" / "recipe.json").write_text(json.dumps(older))
    assert state_to_resume(tmp_path / "begun", resume=False) is None
