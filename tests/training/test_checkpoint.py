"""Checkpoints: interrupts while writing, details of a resumed run."""

import pytest
from small_runs import small_model, trainer

from ccnet.training.checkpoint import saving


def test_interrupt_while_writing_is_not_taken_for_a_full_disk(tmp_path):
    def write():
        with saving(tmp_path / "step.pt"):
            try:
                raise KeyboardInterrupt
            finally:
                raise RuntimeError("unexpected pos 978")  # as torch.save does

    with pytest.raises(KeyboardInterrupt):
        write()


def test_resumed_run_keeps_the_details_of_its_checkpoint(tmp_path):
    model = small_model()
    model.card_details = {"license": "CC-BY-NC-4.0"}
    trainer(tmp_path, model=model).run()
    resumed = trainer(tmp_path, resume=True)
    assert resumed.model.card_details == {"license": "CC-BY-NC-4.0"}
