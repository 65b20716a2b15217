"""Which models are known: one library, or one kind of model, per file."""
