"""Datasets with ground truth for what belongs to what."""

from captum_interactions.datasets.scenes import DOMAINS, Scene, SceneObject, Scenes

__all__ = ["DOMAINS", "Scene", "SceneObject", "Scenes"]
