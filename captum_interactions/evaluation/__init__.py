"""The experiments of the paper and of the field, as studies that anyone can run."""
