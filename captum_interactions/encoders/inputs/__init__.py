"""Preparation of raw images and texts as tensors."""
