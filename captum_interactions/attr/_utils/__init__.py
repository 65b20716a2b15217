"""What attribution methods share: paths, inputs and baselines, steps, players, masking."""
