"""
5 · Debugging a retrieval result
================================

A search for a caption returns images in the order of their scores. If a wrong image comes first, the
score does not show why; interactions do.
"""

# %%
# A small search
# --------------
#
# The embeddings of all images are computed once, as for any vector index.

import torch
from torch.nn.functional import normalize

from captum_interactions import explain, from_pretrained, load_demo

MODEL = None  # for example "openai/clip-vit-base-patch32"

wrapper, scenes = load_demo(64)
if MODEL is not None:
    wrapper = from_pretrained(MODEL)
images = [scene.image for scene in scenes]
captions = [scene.caption for scene in scenes]
batch = wrapper.prepare(images, captions)
extras_a, extras_b = wrapper.split_additional(batch.additional_forward_args)
with torch.no_grad():
    gallery = normalize(wrapper.encode_a(batch.inputs[0], *extras_a), dim=-1)
    queries = normalize(wrapper.encode_b(batch.inputs[1], *extras_b), dim=-1)
scores = queries @ gallery.T
ranks = (scores > scores.diagonal().unsqueeze(1)).sum(1)
print(f"the right image comes first for {int((ranks == 0).sum())} of {len(ranks)} captions")

# %%
# A query that failed
# -------------------
#
# Select the caption, among those that name two or more objects, whose own image has the largest distance
# to the first hit in score.

named = torch.tensor([len(scene.named) > 1 for scene in scenes])
margins = (scores.max(1).values - scores.diagonal()) * named
query = int(margins.argmax())
hit = int(scores[query].argmax())
print(captions[query])
print(f"first hit: image {hit}, score {scores[query, hit]:.3f}")
print(f"its own image: rank {int(ranks[query]) + 1}, score {scores[query, query]:.3f}")

# %%
# Explain both scores
# -------------------

from matplotlib import pyplot as plt

from captum_interactions.visualization import plot_phrase_grid

phrases = [thing.span for thing in scenes[query].named]
pairs = {name: explain(wrapper, images[i], captions[query]) for name, i in
         (("first hit", hit), ("own image", query))}  # fmt: skip
figure, axes = plt.subplots(
    len(pairs), len(phrases) + 1, figsize=(2.6 * (len(phrases) + 1), 5.4), layout="constrained"
)
limit = max(abs(imap.heatmap(span)).max() for imap in pairs.values() for span in phrases)
for row, (name, imap) in zip(axes, pairs.items(), strict=True):
    row[0].imshow(imap.axis_a.image)
    row[0].set_title(f"{name}, score {imap.score:.3f}", fontsize=9)
    row[0].set_axis_off()
    plot_phrase_grid(imap, phrases, limit=limit, axes=row[1:])

# %%
# Where do the scores differ?
# ---------------------------
#
# Both scores have the same constant and the same main effects of the caption. So their difference is that of
# the main effects of the images plus that of the interactions, which is computed word by word.

first, own = pairs.values()
rows = [("main effects, image", float(first.main_effects_a.sum() - own.main_effects_a.sum()))]
for (word, here), (_, there) in zip(first.word_weights(), own.word_weights(), strict=True):
    rows.append((word, here - there))
explained = sum(value for _, value in rows)
print(f"scores differ by {first.score - own.score:+.3f}; image and words explain {explained:+.3f}")

figure, ax = plt.subplots(figsize=(6, 0.28 * len(rows) + 0.8), layout="constrained")
ax.barh(
    range(len(rows)),
    [value for _, value in rows],
    color=["#b2182b" if value > 0 else "#2166ac" for _, value in rows],
)
ax.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
ax.invert_yaxis()
ax.axvline(0, color="black", linewidth=0.8)
ax.set_xlabel("in favour of the own image  ←   →  in favour of the first hit")
ax.spines[["top", "right", "left"]].set_visible(False)

# %%
# The rest of the difference belongs to the special tokens of the caption, which have columns of their own
# in the map, and to the convergence deltas.
#
# .. admonition:: Takeaway
#
#    To debug a query, explain the first hit and the image that should have been first, and compare the two
#    word by word.
