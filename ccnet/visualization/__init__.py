"""Visualisation of labels and of attention."""

from ccnet.visualization.attention import capture_queries_and_keys, map_position
from ccnet.visualization.attention_figure import attention_figure, draw_attention
from ccnet.visualization.attention_paths import (
    carried_shares,
    notable_sources,
    paths,
    strongest_sources,
)
from ccnet.visualization.heat import (
    HEAT_DECADES,
    HeatScale,
    heat_colors,
    heat_levels,
    heat_opacity,
    heat_overlay,
)
from ccnet.visualization.labels import colorize, overlay
from ccnet.visualization.marks import mark_pixel
from ccnet.visualization.palettes import display_colors, least_differences
from ccnet.visualization.record import AttentionRecord, record_attention

__all__ = [
    "HEAT_DECADES",
    "AttentionRecord",
    "HeatScale",
    "attention_figure",
    "capture_queries_and_keys",
    "carried_shares",
    "colorize",
    "display_colors",
    "draw_attention",
    "heat_colors",
    "heat_levels",
    "heat_opacity",
    "heat_overlay",
    "least_differences",
    "map_position",
    "mark_pixel",
    "notable_sources",
    "overlay",
    "paths",
    "record_attention",
    "strongest_sources",
]
