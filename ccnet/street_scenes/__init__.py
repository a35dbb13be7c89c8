"""Seeded drawings of city streets in perspective, each with an exact label for every pixel."""

from ccnet.street_scenes.dataset import StreetScenes
from ccnet.street_scenes.street import render_scene

__all__ = ["StreetScenes", "render_scene"]
