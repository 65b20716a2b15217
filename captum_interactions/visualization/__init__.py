"""Matplotlib figures of interaction maps: returned, never shown."""

from captum_interactions.visualization.captum_views import (
    visualization_data_record,
    visualize_image_attr,
    visualize_text,
)
from captum_interactions.visualization.comparison import plot_comparison
from captum_interactions.visualization.connections import plot_connections
from captum_interactions.visualization.heatmap import plot_heatmap
from captum_interactions.visualization.matrix import plot_matrix
from captum_interactions.visualization.pair import plot_interactions
from captum_interactions.visualization.phrases import plot_phrase_grid
from captum_interactions.visualization.waterfall import plot_waterfall
from captum_interactions.visualization.words import plot_words

__all__ = [
    "plot_comparison",
    "plot_connections",
    "plot_heatmap",
    "plot_interactions",
    "plot_matrix",
    "plot_phrase_grid",
    "plot_waterfall",
    "plot_words",
    "visualization_data_record",
    "visualize_image_attr",
    "visualize_text",
]
