"""Matplotlib figures of interaction maps: returned, never shown."""

from captum_interactions.visualization.pair import plot_interactions

__all__ = ["plot_interactions"]
