"""Axes describe the rows and columns of a map: words, patches, stretches of sound.

An axis converts a selection (a phrase, a character span, a box, a mask, seconds) to weights of
tokens. Axes are plain data: they hold no model and can be saved.
"""

from captum_interactions.axes.audio import AudioAxis
from captum_interactions.axes.image import Frame, ImageAxis
from captum_interactions.axes.text import TextAxis, Word
from captum_interactions.axes.token import TokenAxis, Unit

__all__ = ["AudioAxis", "Frame", "ImageAxis", "TextAxis", "TokenAxis", "Unit", "Word"]
