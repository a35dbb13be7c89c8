"""One rehearsal for each file of tests."""

import pytest
import torch
from hub_server import HubServer, connect
from rehearsal import Rehearsal


@pytest.fixture(scope="module")
def rehearsal(repository, tmp_path_factory):
    """The Hub without any CCNet, and an account there; nothing is at the origins yet."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("rehearsal")
    with pytest.MonkeyPatch.context() as patch, HubServer() as server:
        connect(patch, server.address, folder / "home")
        patch.setenv("HF_TOKEN", "hf_secret")
        patch.setattr("ccnet.publishing.preparation.SCENE_SIZE", (64, 96))  # seconds less
        yield Rehearsal(server, folder, patch, repository)
