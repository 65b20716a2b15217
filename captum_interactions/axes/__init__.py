"""What the rows and columns of an interaction map stand for: words, patches, stretches of sound.

An axis turns what a person selects (a phrase, a character span, a box, a mask, seconds) into
weights over tokens. Axes are plain data: they keep no model and can be saved.
"""

from captum_interactions.axes.audio import AudioAxis
from captum_interactions.axes.image import Frame, ImageAxis
from captum_interactions.axes.text import TextAxis, Word
from captum_interactions.axes.token import TokenAxis, Unit

__all__ = ["AudioAxis", "Frame", "ImageAxis", "TextAxis", "TokenAxis", "Unit", "Word"]
