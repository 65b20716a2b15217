"""Dual encoders: towers, their similarity, and one adapter a model family."""

from captum_interactions.encoders.audio_tower import AudioTower
from captum_interactions.encoders.auto import from_pretrained, wrap
from captum_interactions.encoders.axes import (
    AudioAxis,
    Frame,
    ImageAxis,
    TextAxis,
    TokenAxis,
    Unit,
    Word,
)
from captum_interactions.encoders.callable_tower import CallableTower
from captum_interactions.encoders.image_tower import ImageTower
from captum_interactions.encoders.text_tower import TextTower
from captum_interactions.encoders.tower import Layer, Tower, TowerInputs
from captum_interactions.encoders.wrapper import Batch, DualEncoderWrapper

__all__ = [
    "AudioAxis",
    "AudioTower",
    "Batch",
    "CallableTower",
    "DualEncoderWrapper",
    "Frame",
    "ImageAxis",
    "ImageTower",
    "Layer",
    "TextAxis",
    "TextTower",
    "TokenAxis",
    "Tower",
    "TowerInputs",
    "Unit",
    "Word",
    "from_pretrained",
    "wrap",
]
