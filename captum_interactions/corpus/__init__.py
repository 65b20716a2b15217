"""Collections: factorise images and texts once, then every explanation is a matrix product."""

from captum_interactions.corpus.building import build_index
from captum_interactions.corpus.index import FactorIndex
from captum_interactions.corpus.items import Factoriser, Item
from captum_interactions.corpus.queries import Region, explain_hits, pair_map, scores, top_regions
from captum_interactions.corpus.settings import Settings, model_identity
from captum_interactions.corpus.shards import ShardError, StorageError

__all__ = [
    "FactorIndex",
    "Factoriser",
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
