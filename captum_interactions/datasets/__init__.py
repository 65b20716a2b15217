"""Datasets with ground truth for what belongs to what."""

from captum_interactions.datasets.catalogue import DATASETS, load_dataset
from captum_interactions.datasets.problems import DatasetError, Skipped
from captum_interactions.datasets.record import Box, Foil, Phrase, Record
from captum_interactions.datasets.scene_records import SceneRecords
from captum_interactions.datasets.scenes import DOMAINS, Scene, SceneObject, Scenes

__all__ = [
    "DATASETS",
    "DOMAINS",
    "Box",
    "DatasetError",
    "Foil",
    "Phrase",
    "Record",
    "Scene",
    "SceneObject",
    "SceneRecords",
    "Scenes",
    "Skipped",
    "load_dataset",
]
