"""The zoo on a local server: random checkpoints at their origins, and the Hub."""

import hashlib
import io
from contextlib import redirect_stdout

import torch
from families import AUTHORS, OPENMMLAB, PURE_PYTORCH, mmseg_checkpoint, random_state
from hub_archive import copy_repository

from ccnet.commands import publish_zoo
from ccnet.weights import REGISTRY, CCNet_ResNet50_Weights, CCNet_ResNet101_Weights

LARGE = CCNet_ResNet101_Weights.DEFAULT
SMALL = CCNet_ResNet50_Weights.OPENMMLAB_ADE20K_512X512_160K
LATE = CCNet_ResNet50_Weights.OPENMMLAB_VOC12AUG_512X512_20K
BY_HAND = CCNet_ResNet101_Weights.AUTHORS_CITYSCAPES_R1
OWN = "my-street"
MEMBERS = [member for choice in REGISTRY.values() for member in choice]


def content(checkpoint):
    file = io.BytesIO()
    torch.save(checkpoint, file)
    return file.getvalue()


def halved(state):
    """Half the bytes; a file may hold any floating-point type."""
    return {name: value.half() if value.dim() > 1 else value for name, value in state.items()}


class Rehearsal:
    """A zoo of random checkpoints, the Hub, and the command that takes one to the other."""

    def __init__(self, server, folder, patch, repository):
        self.server, self.folder, self.patch = server, folder, patch
        self.copy = copy_repository(repository, folder / "copy")
        self.pins = self.copy / "ccnet" / "weights" / "pins.json"
        self.pins.write_text("{}")
        self.states = {
            LARGE: halved(random_state(OPENMMLAB, "resnet101")),
            SMALL: random_state(OPENMMLAB, "resnet18", 150),
            LATE: random_state(OPENMMLAB, "resnet18", 21),
            BY_HAND: random_state(AUTHORS, "resnet18"),
            OWN: random_state(PURE_PYTORCH, "resnet18", 4),
        }
        for member in MEMBERS:
            if member.meta["origin"]:
                url = f"{server.address}/files/{member}.pth"
                patch.setitem(member.meta, "origin", {"url": url, "sha256_prefix": "0" * 8})
        for member in (SMALL, LATE, BY_HAND):
            patch.setitem(member.meta, "config", {**member.meta["config"], "backbone": "resnet18"})

    def save(self, key):
        """Writes the checkpoint of a member, or of a network of one's own."""
        path = self.folder / "mine.pth"
        torch.save(self.states[key], path)
        return path

    def offer(self, member, align_corners=None):
        """Puts the checkpoint of a member at its origin, and its hash into the registry."""
        if align_corners is None:
            align_corners = member.meta["config"]["align_corners"]
        file = content(mmseg_checkpoint(self.states[member], align_corners))
        self.server.repositories[""].files[f"{member}.pth"] = file
        prefix = hashlib.sha256(file).hexdigest()[:8]
        self.patch.setitem(member.meta["origin"], "sha256_prefix", prefix)

    def publish(self, *options, status=0):
        """Runs the command as it would be typed, and returns what it prints; or its last error."""
        arguments = ["--owner", "us", "--pins", str(self.pins), *map(str, options)]
        code = None
        with redirect_stdout(io.StringIO()) as printed:
            try:
                publish_zoo.main(arguments)
            except SystemExit as error:
                code = error.code
        text = printed.getvalue()
        if isinstance(code, str):
            code, text = 1, text + code
        assert (code or 0) == status, text
        return text
