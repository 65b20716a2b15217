"""
1 · Explain your first pair
===========================

A dual encoder says how well an image and a caption fit, by one number. Here we ask which words met
which regions, and how they make up that number.
"""

# %%
# A model and a pair
# ------------------
#
# The bundled model knows coloured shapes. With a network, the name of any CLIP works as well.

from captum_interactions import explain, from_pretrained, load_demo

MODEL = None  # for example "openai/clip-vit-base-patch32"

wrapper, scenes = load_demo()
if MODEL is not None:
    wrapper = from_pretrained(MODEL)
scene = scenes[0]
print(scene.caption)
scene.image.resize((288, 288))

# %%
# One call
# --------
#
# The explanation prints its own summary: the score, the four parts that add up to it, and the
# strongest pairs of a word and a patch.

imap = explain(wrapper, scene.image, scene.caption)
print(imap)

# %%
# Where did a phrase match?
# -------------------------
#
# Red patches raise the score together with the framed phrase, blue ones lower it. The triangle is red
# for "red triangle", and the diamond is blue: it is what the phrase does not say. Most of it comes from
# the colour; this small model knows shapes less well, and the word "triangle" by itself is no help.

figure, _ = imap.plot("red triangle")

# %%
# The same map answers for every other phrase, without another pass through the model.

figure, _ = imap.plot("purple diamond")

# %%
# Which words matched a region?
# -----------------------------
#
# The other direction: select a box, and read the words.

triangle = next(thing for thing in scene.named if thing.phrase == "red triangle")
for word, weight in imap.word_weights(triangle.box):
    print(f"{weight:+.4f}  {word}")

# %%
# Can it be trusted?
# ------------------
#
# The parts must add up to the score. What they miss is an error of numerical integration, and more
# nodes make it smaller.

for n_steps in (10, 40, 80):
    delta = explain(wrapper, scene.image, scene.caption, n_steps=n_steps).convergence_delta
    print(f"{n_steps:3d} nodes: convergence delta {delta:+.5f}")

# %%
# A caption that is false
# -----------------------
#
# Nothing in this image is a green triangle. The word that is false turns against its region, and the
# score falls.

false = explain(wrapper, scene.image, scene.caption.replace("red triangle", "green triangle"))
print(f"true caption {imap.score:.3f}, false caption {false.score:.3f}")
for name, one in (("red", imap), ("green", false)):
    print(f"{name:>6} × the triangle's box: {one.between(triangle.box, name):+.4f}")
figure, _ = false.plot("green", a=triangle.box)

# %%
# .. admonition:: Takeaway
#
#    ``explain`` gives one map for a pair. Slice it by a phrase to see regions and by a region to see
#    words, and look at the convergence delta before you look at the colours.
