"""
1 · Explain your first pair
===========================

A dual encoder scores how well an image and a caption fit. This tutorial shows which words and regions
increased or decreased the score together, and how these values add up to the score.
"""

# %%
# A model and a pair
# ------------------
#
# The bundled model knows coloured shapes. ``MODEL`` takes the name or the folder of any other CLIP.

from matplotlib import pyplot as plt

from captum_interactions import explain, from_pretrained, load_demo

MODEL = None  # for example "openai/clip-vit-base-patch32"

wrapper, scenes = load_demo()
if MODEL is not None:
    wrapper = from_pretrained(MODEL)
scene = scenes[0]
figure, ax = plt.subplots(figsize=(3, 3.2), layout="constrained")
ax.imshow(scene.image)
ax.set_title(scene.caption, fontsize=9, wrap=True)
ax.set_axis_off()

# %%
# One call
# --------
#
# ``print`` shows a summary: the score, the four parts that add up to it, and the strongest pairs of a
# word and a patch.

imap = explain(wrapper, scene.image, scene.caption)
print(imap)

# %%
# From a phrase to the image
# --------------------------
#
# Red patches raise the score together with the framed phrase, blue ones lower it. For "red triangle", the
# triangle is red and the purple diamond is blue. Both words contribute: "red" and "triangle" each have a
# positive interaction with the triangle and a negative one with the purple diamond.

figure, _ = imap.plot("red triangle")

# %%
# The same map has the values of every other phrase, without another pass through the model.

figure, _ = imap.plot("purple diamond")

# %%
# From a region to the words
# --------------------------
#
# In the other direction, select a box and read the values of the words.

triangle = next(thing for thing in scene.named if thing.phrase == "red triangle")
for word, weight in imap.word_weights(triangle.box):
    print(f"{weight:+.4f}  {word}")

# %%
# The convergence delta
# ---------------------
#
# The parts must add up to the score. The convergence delta, the sum of the parts minus the score, is an
# error of numerical integration. It shrinks with the number of steps; with 10 steps ``explain`` warns. A
# small delta does not mean that the explanation is right.

import warnings

for n_steps in (10, 40, 80):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        delta = explain(wrapper, scene.image, scene.caption, n_steps=n_steps).convergence_delta
    print(f"{n_steps:3d} steps: convergence delta {delta:+.5f}{', with a warning' * len(caught)}")

# %%
# A false caption
# ---------------
#
# There is no green triangle in this image. The false word has almost no interaction with the triangle, the
# word "triangle" now has a negative one, and the score is much lower.

false_caption = scene.caption.replace("red triangle", "green triangle")
false = explain(wrapper, scene.image, false_caption, n_steps=80)
print(f"true caption {imap.score:.3f}, false caption {false.score:.3f}")
for name, one in (("red", imap), ("green", false)):
    print(f"{name:>6} × the triangle's box: {one.between(triangle.box, name):+.4f}")
figure, _ = false.plot("green", a=triangle.box)

# %%
# .. admonition:: Takeaway
#
#    ``explain`` returns one map for a pair. Select a phrase to see regions, or a region to see words, and
#    look at the convergence delta before you interpret the colours.
