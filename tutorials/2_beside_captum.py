"""
2 · Beside Captum's first-order explainers
==========================================

Captum's methods attribute a score to the parts of its inputs, one value per part. They show which parts
matter, but not which region matters for which word. This tutorial compares both on one pair.
"""

# %%
# One map for the whole caption
# -----------------------------
#
# A wrapper is a Captum ``forward_func``: it returns the score of each pair. These are the integrated
# gradients of the pixels, for a fixed caption. The path of pixels needs many steps:

from captum.attr import IntegratedGradients

from captum_interactions import SecondOrderIntegratedGradients, explain, from_pretrained, load_demo

MODEL = None  # for example "openai/clip-vit-base-patch32"

wrapper, scenes = load_demo()
if MODEL is not None:
    wrapper = from_pretrained(MODEL)
scene = scenes[0]
batch = wrapper.prepare(scene.image, scene.caption)
pixels, ids = batch.inputs
extras = batch.additional_forward_args

first_order, delta = IntegratedGradients(wrapper).attribute(
    pixels, additional_forward_args=(ids, *extras), n_steps=200, return_convergence_delta=True
)
print("pixels", tuple(first_order.shape), "delta", float(delta))

# %%
# Pixels of all objects have values, also those of an object that the caption does not name. The map cannot show
# what "red triangle" refers to, because none of its values belongs to a word.

import numpy as np
from matplotlib import pyplot as plt

values = first_order.sum(1)[0].numpy()
limit = np.quantile(abs(values), 0.99)
figure, axes = plt.subplots(1, 2, figsize=(6, 3), layout="constrained")
axes[0].imshow(scene.image)
axes[1].imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit)
axes[0].set_title("image", fontsize=10)
axes[1].set_title("integrated gradients of the score", fontsize=10)
for ax in axes:
    ax.set_axis_off()

# %%
# ``explain`` runs the same method by its name, with one value per patch.

one_map = explain(wrapper, scene.image, scene.caption, "integrated_gradients")
figure, _ = one_map.plot()

# %%
# One map for each phrase
# -----------------------
#
# A second-order attribution distributes the score over *pairs* of a patch and a token. Both panels have
# the same scale; the number is the sum of the panel.

from captum_interactions.visualization import plot_phrase_grid

imap = explain(wrapper, scene.image, scene.caption)
figure, axes = plot_phrase_grid(imap, [thing.phrase for thing in scene.named], width=5.0)

# %%
# How they are related
# --------------------
#
# Summed over all tokens of the caption, the second-order map *is* a first-order map: the integrated
# gradients of what the caption changes in the score, ``s(a, b) - s(a, r_b)``. The two are compared here at
# the pixels, with the same number of steps:

baseline = wrapper.tower_b.baseline(ids, *extras)


def against_baseline(pixels, ids, baseline, *extras):
    """The score minus the score of the caption's baseline."""
    return wrapper(pixels, ids, *extras) - wrapper(pixels, baseline, *extras)


captum = IntegratedGradients(against_baseline).attribute(
    pixels, additional_forward_args=(ids, baseline, *extras), n_steps=20
)
ours = SecondOrderIntegratedGradients(wrapper, layers=("input", -1)).attribute(
    batch.inputs, additional_forward_args=extras, n_steps=20, full_resolution="a"
)
difference = (ours.sum(-1) - captum).norm() / captum.norm()
print(f"relative difference of {captum.numel():,} pixel values: {float(difference):.1e}")

# %%
# What the sum hides
# ------------------
#
# The words of both phrases interact with the box of the triangle, with opposite signs. A first-order
# attribution shows only the sum.

triangle = next(thing for thing in scene.named if thing.phrase == "red triangle")
rows = [(thing.phrase, imap.between(triangle.box, thing.span)) for thing in scene.named]
rows.append(("whole caption", imap.between(triangle.box)))
figure, ax = plt.subplots(figsize=(5, 2), layout="constrained")
ax.barh(
    [name for name, _ in rows],
    [value for _, value in rows],
    color=["#b2182b" if value > 0 else "#2166ac" for _, value in rows],
)
ax.axvline(0, color="black", linewidth=0.8)
ax.invert_yaxis()
ax.set_xlabel("interaction with the triangle's box")
ax.spines[["top", "right", "left"]].set_visible(False)

# %%
# .. admonition:: Takeaway
#
#    A first-order map is the second-order map summed over the other input. If a caption names several
#    things, that sum mixes positive and negative interactions.
