"""Matplotlib figures of interaction maps: returned, never shown."""

from captum_interactions.visualization.matrix import plot_matrix
from captum_interactions.visualization.pair import plot_interactions

__all__ = ["plot_interactions", "plot_matrix"]
