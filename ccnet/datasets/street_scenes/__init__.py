"""StreetScenes: rendered street scenes in perspective with exact labels."""

from ccnet.datasets.street_scenes.dataset import StreetScenes
from ccnet.datasets.street_scenes.street import render_scene

__all__ = ["StreetScenes", "render_scene"]
