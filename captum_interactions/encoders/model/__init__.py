"""What is done to a running model: hooks, attention, fast blocks, evaluation mode."""
