"""Dual encoders: towers, their similarity, and an adapter for each model family."""

from captum_interactions.axes import (
    AudioAxis,
    Frame,
    ImageAxis,
    TextAxis,
    TokenAxis,
    Unit,
    Word,
)
from captum_interactions.encoders.auto import from_pretrained, wrap
from captum_interactions.encoders.late_interaction import LateInteractionWrapper, Matches
from captum_interactions.encoders.towers.audio_tower import AudioTower
from captum_interactions.encoders.towers.base import Layer, Tower, TowerInputs
from captum_interactions.encoders.towers.callable_tower import CallableTower
from captum_interactions.encoders.towers.image_tower import ImageTower
from captum_interactions.encoders.towers.text_tower import TextTower
from captum_interactions.encoders.towers.token_tower import TokenTower
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
    "LateInteractionWrapper",
    "Layer",
    "Matches",
    "TextAxis",
    "TextTower",
    "TokenAxis",
    "TokenTower",
    "Tower",
    "TowerInputs",
    "Unit",
    "Word",
    "from_pretrained",
    "wrap",
]
