"""What is done to a running model: hooks, fast blocks, evaluation mode."""
