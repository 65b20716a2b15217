"""Collections: factors of images and texts on disk, whose matrix products are explanations."""

from captum_interactions.corpus.building import build_index
from captum_interactions.corpus.index import FactorIndex
from captum_interactions.corpus.items import FactorEncoder, Item
from captum_interactions.corpus.queries import Region, explain_hits, pair_map, scores, top_regions
from captum_interactions.corpus.settings import Settings, model_identity
from captum_interactions.corpus.shards import ShardError, StorageError

__all__ = [
    "FactorEncoder",
    "FactorIndex",
    "Item",
    "Region",
    "Settings",
    "ShardError",
    "StorageError",
    "build_index",
    "explain_hits",
    "model_identity",
    "pair_map",
    "scores",
    "top_regions",
]
