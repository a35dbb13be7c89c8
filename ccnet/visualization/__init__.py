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

__all__ = [
    "HEAT_DECADES",
    "capture_queries_and_keys",
    "colorize",
    "heat_colors",
    "heat_overlay",
    "map_position",
    "mark_pixel",
    "overlay",
]
