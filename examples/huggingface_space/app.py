"""A Space: the app on the models below, or on the bundled one if there are none.

Upload this folder as a Space of the Gradio SDK.
"""

from threading import Event

from captum_interactions.app import launch_app

MODELS: list[str] = ["openai/clip-vit-base-patch32", "google/siglip-base-patch16-224"]

if __name__ == "__main__":
    launch_app(MODELS)
    Event().wait()
