"""Dual encoders: towers, their similarity, and one adapter a model family."""

from captum_interactions.encoders.auto import from_pretrained, wrap
from captum_interactions.encoders.axes import Frame, ImageAxis, TextAxis, TokenAxis, Word
from captum_interactions.encoders.tower import CallableTower, Layer, Tower, TowerInputs
from captum_interactions.encoders.wrapper import Batch, DualEncoderWrapper

__all__ = [
    "Batch",
    "CallableTower",
    "DualEncoderWrapper",
    "Frame",
    "ImageAxis",
    "Layer",
    "TextAxis",
    "TokenAxis",
    "Tower",
    "TowerInputs",
    "Word",
    "from_pretrained",
    "wrap",
]
