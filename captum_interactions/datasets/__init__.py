"""Datasets of images and captions with ground truth for phrases and regions."""

from captum_interactions.datasets.catalogue import DATASETS, load_dataset
from captum_interactions.datasets.coco import CocoRecords
from captum_interactions.datasets.flickr30k import Flickr30kRecords
from captum_interactions.datasets.folder import FolderRecords
from captum_interactions.datasets.grids import ObjectGrids
from captum_interactions.datasets.hnc import HNCRecords
from captum_interactions.datasets.jsonl import JsonLinesRecords, write_jsonl
from captum_interactions.datasets.problems import DatasetError, Skipped
from captum_interactions.datasets.record import Box, HardNegative, Phrase, Record
from captum_interactions.datasets.refcoco import RefCocoRecords
from captum_interactions.datasets.scene_records import SceneRecords
from captum_interactions.datasets.scenes import DOMAINS, Scene, SceneObject, Scenes
from captum_interactions.datasets.winoground import WinogroundRecords

__all__ = [
    "DATASETS",
    "DOMAINS",
    "Box",
    "CocoRecords",
    "DatasetError",
    "Flickr30kRecords",
    "FolderRecords",
    "HNCRecords",
    "HardNegative",
    "JsonLinesRecords",
    "ObjectGrids",
    "Phrase",
    "Record",
    "RefCocoRecords",
    "Scene",
    "SceneObject",
    "SceneRecords",
    "Scenes",
    "Skipped",
    "WinogroundRecords",
    "load_dataset",
    "write_jsonl",
]
