"""Images and texts before they are tensors."""
