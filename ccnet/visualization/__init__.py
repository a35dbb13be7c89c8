"""Visualisation of labels and of attention."""

from ccnet.visualization.attention import (
    HEAT_DECADES,
    capture_queries_and_keys,
    heat_colors,
    heat_overlay,
    map_position,
    mark_pixel,
)
from ccnet.visualization.labels import colorize, overlay
from ccnet.visualization.palettes import display_colors, least_differences

__all__ = [
    "HEAT_DECADES",
    "capture_queries_and_keys",
    "colorize",
    "display_colors",
    "heat_colors",
    "heat_overlay",
    "least_differences",
    "map_position",
    "mark_pixel",
    "overlay",
]
