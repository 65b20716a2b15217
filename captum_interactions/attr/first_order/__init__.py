"""First-order attributions: one value per token."""
