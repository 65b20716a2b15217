"""
3 · Bring your own dual encoder
===============================

Any two functions into a common space are a dual encoder. This one scores sets of points in the plane
against statements about them. The package has no adapter for it.
"""

# %%
# Two encoders, trained here
# --------------------------
#
# An input ``a`` is five points, each with a colour; an input ``b`` is two colours. A pair is positive
# if the leftmost and the rightmost point have these colours.

import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize, one_hot

torch.manual_seed(0)
COLOURS = ("red", "green", "blue", "black")


def draw(count):
    """Points (B, 5, 6): x, y and a colour; and what is true of them (B, 2, 4)."""
    places = torch.rand(count, 5, 2)
    colours = one_hot(torch.randint(4, (count, 5)), 4).float()
    order = places[..., 0].argsort(1)[:, [0, 4]]
    said = colours.gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
    return torch.cat([places, colours], -1), said


class Points(nn.Module):
    """A transformer layer over points, and their mean."""

    def __init__(self):
        super().__init__()
        self.lift = nn.Linear(6, 64)
        self.mix = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
        self.project = nn.Linear(64, 32)

    def forward(self, points):
        return self.project(self.mix(self.lift(points)).mean(1))


encode_points = Points()
encode_words = nn.Sequential(nn.Flatten(), nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 32))
parameters = [*encode_points.parameters(), *encode_words.parameters()]
optimizer = torch.optim.Adam(parameters, 2e-3)
for _ in range(800):
    points, words = draw(128)
    scores = normalize(encode_points(points), dim=-1) @ normalize(encode_words(words), dim=-1).T
    loss = cross_entropy(10 * scores, torch.arange(128)) + cross_entropy(
        10 * scores.T, torch.arange(128)
    )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
with torch.no_grad():
    points, words = draw(2000)
    choices = torch.eye(4)[torch.cartesian_prod(torch.arange(4), torch.arange(4))]
    scores = normalize(encode_points(points), dim=-1) @ normalize(encode_words(choices), dim=-1).T
    right = (choices[scores.argmax(1)] == words).all((1, 2)).float().mean()
print(f"the right pair of colours scores highest for {float(right):.0%} of new inputs")

# %%
# Wrap them
# ---------
#
# Inputs of the shape (B, T, D) have T tokens, and attributions are summed over D. The baseline of a
# point is a point in the middle with a quarter of each colour, and the baseline of a word is a quarter of
# each colour.

from captum_interactions import CallableTower, check_wrapper, explain, wrap

encode_points.eval()
middle = torch.tensor([0.5, 0.5, 0.25, 0.25, 0.25, 0.25])
wrapper = wrap((CallableTower(encode_points, baseline=middle), CallableTower(encode_words, 0.25)))
points, words = draw(1)
print(check_wrapper(wrapper, draw(3)[0], draw(3)[1]))

# %%
# An empty list means that ``check_wrapper`` found no problem. It checks completeness, batches, padding and
# other common faults of custom wrappers.
#
# Explain a pair
# --------------

imap = explain(wrapper, points, words, n_steps=60)
print(imap)

# %%
# A custom figure
# ---------------
#
# ``imap.interactions`` is a tensor with a row for each point and a column for each word.

from matplotlib import pyplot as plt

order = points[0, :, 0].argsort()
said = words[0].argmax(-1)
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
x, y, colours = points[0, :, 0], points[0, :, 1], points[0, :, 2:].argmax(-1)
axes[0].scatter(x, y, c=[COLOURS[c] for c in colours], s=120)
axes[0].set(xlim=(0, 1), ylim=(0, 1), title="five points")
values = imap.interactions[order].numpy()
limit = abs(values).max()
axes[1].imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
places = ("leftmost", "rightmost")
axes[1].set_xticks(range(2), [f"{p}:\n{COLOURS[c]}" for p, c in zip(places, said, strict=True)])
axes[1].set_yticks(range(5), [f"{COLOURS[colours[i]]} at x = {x[i]:.2f}" for i in order])
_ = axes[1].set_title("interactions of points and words")

# %%
# .. admonition:: Takeaway
#
#    ``wrap((encode_a, encode_b))`` wraps two encoders. Choose baselines that carry no information, and run
#    ``check_wrapper`` to find mistakes.
