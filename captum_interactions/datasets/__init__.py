"""Datasets with ground truth for what belongs to what."""

from captum_interactions.datasets.record import Box, Foil, Phrase, Record
from captum_interactions.datasets.scenes import DOMAINS, Scene, SceneObject, Scenes

__all__ = ["DOMAINS", "Box", "Foil", "Phrase", "Record", "Scene", "SceneObject", "Scenes"]
