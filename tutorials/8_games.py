"""
8 · Games: Banzhaf and Shapley interactions
===========================================

Games explain a score by removing patches and words and observing how the score changes. Every patch and
every word is a player, and the value of a coalition is its score. No gradients are needed.
"""

# %%
# One game per input
# ------------------
#
# In general, the interaction of a patch and a word needs the scores of many pairs of a masked image and a
# masked caption. The score of a dual encoder is a product of two embeddings, so the interaction is the
# product of two *vectors*, one for each input, and masked images and masked captions are encoded separately.

from captum_interactions import explain, load_demo
from captum_interactions.attr import BanzhafInteractions

wrapper, scenes = load_demo()
scene = scenes[0]
batch = wrapper.prepare(scene.image, scene.caption)
game = BanzhafInteractions(wrapper).game(
    batch.inputs, additional_forward_args=batch.additional_forward_args, n_samples=512
)
print(game)

# %%
# Coalitions are sampled, so every value has a standard error. It shrinks with the number of samples.

import torch

for n_samples in (600, 1200, 4800):
    larger = BanzhafInteractions(wrapper).game(
        batch.inputs,
        additional_forward_args=batch.additional_forward_args,
        n_samples=(n_samples, 512),
    )
    errors = larger.standard_errors.interactions
    print(f"{n_samples:5d} masked images: median error {float(errors[errors > 0].median()):.1e}")

# %%
# Comparison with integrated gradients
# ------------------------------------
#
# Both methods explain the same phrase. Games compare inputs with and without a patch; integrated gradients
# follow a path from the baseline.

from captum_interactions.visualization import plot_comparison

phrase = "red triangle"
maps = {
    "second-order integrated gradients": explain(wrapper, scene.image, scene.caption),
    "Banzhaf interactions": explain(
        wrapper, scene.image, scene.caption, "banzhaf_interactions", n_samples=(4096, 512)
    ),
}
figure, axes = plot_comparison(maps, [phrase], width=6.5)
a, b = (torch.from_numpy(imap.heatmap(phrase)).flatten() for imap in maps.values())
print(f"correlation of the two maps: {float(torch.corrcoef(torch.stack([a, b]))[0, 1]):.2f}")

# %%
# Words and objects as players
# ----------------------------
#
# With few players, all coalitions are evaluated and the values are exact. Here the players of the image are
# the two objects and the background, and the players of the caption are the two phrases.

axis_a, axis_b = batch.axes_a[0], batch.axes_b[0]
regions = torch.stack([torch.from_numpy(axis_a.select(thing.box) > 0.5) for thing in scene.named])
patches = torch.zeros(len(axis_a), dtype=torch.bool)
patches[axis_a.patches] = True
background = patches & ~regions.any(0)
phrases = torch.stack([torch.from_numpy(axis_b.select(thing.span) > 0) for thing in scene.named])
exact = BanzhafInteractions(wrapper).game(
    batch.inputs,
    additional_forward_args=batch.additional_forward_args,
    groups_a=torch.cat([regions, background.unsqueeze(0)]).float(),
    groups_b=phrases.float(),
)
print(exact)
values = exact.interactions[0].numpy()
limit = abs(values).max()
from matplotlib import pyplot as plt

figure, ax = plt.subplots(figsize=(5, 3), layout="constrained")
ax.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
ax.set_yticks(range(3), [*(f"the {thing.phrase}'s box" for thing in scene.named), "background"])
ax.set_xticks(range(2), [thing.phrase for thing in scene.named])
for (row, column), value in zip(torch.cartesian_prod(torch.arange(3), torch.arange(2)).tolist(),
                                values.flatten(), strict=True):  # fmt: skip
    dark = abs(value) > 0.6 * limit
    ax.text(
        column,
        row,
        f"{value:+.3f}".replace("-", "−"),
        ha="center",
        va="center",
        color="w" if dark else "k",
    )

# %%
# .. admonition:: Takeaway
#
#    Games need no gradients and provide standard errors. Interactions of a dual encoder cost as many masked
#    inputs as two first-order games.
