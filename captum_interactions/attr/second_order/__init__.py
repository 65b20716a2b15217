"""Second-order attributions: one value per pair of tokens."""
