"""Supported models: one library, or one kind of model, per file."""
