"""A page in the browser to try models on images and texts of one's own (needs gradio)."""

from captum_interactions.app.page import build_app, launch_app

__all__ = ["build_app", "launch_app"]
