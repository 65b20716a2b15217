"""
6 · Evaluate grounding on a dataset
===================================

A single map may be right by chance. A study measures every record of a dataset: does the map of a phrase
lie on the object that the phrase names?
"""

# %%
# A dataset with boxes
# --------------------
#
# Generated scenes have the box of every object. ``load_dataset("coco", "/data/coco", "val2017")`` and other
# datasets return records of the same kind.

from captum_interactions import from_pretrained, load_demo
from captum_interactions.datasets import load_dataset

MODEL = None  # for example "openai/clip-vit-base-patch32"

wrapper = load_demo()[0] if MODEL is None else from_pretrained(MODEL)
records = load_dataset("scenes", n=24, seed=3)
record = records[0]
print(record.caption)
for phrase in record.phrases:
    print(f"  {phrase.text!r} at {phrase.boxes[0]}, a {phrase.label}")

# %%
# One record by hand
# ------------------
#
# The point game energy is the share of a map's positive values inside the box. The chance level is the
# share of the image that the box covers.

import torch

from captum_interactions import explain
from captum_interactions.metrics import chance_level, point_game_energy

imap = explain(wrapper, record.image, record.caption)
for phrase in record.grounded:
    heat = torch.from_numpy(imap.heatmap(phrase.span))[None]
    inside = torch.from_numpy(imap.axis_a.coverage(*phrase.boxes))[None]
    energy, chance = float(point_game_energy(heat, inside)), float(chance_level(inside))
    print(f"{phrase.text:<28} energy {energy:.2f}, chance {chance:.2f}")

# %%
# All records and several methods
# -------------------------------
#
# A study appends one row per record and method to a file. An interrupted study resumes, and you can add
# methods later. The same on the command line::
#
#    captum-interactions evaluate localization --dataset scenes --limit 24

from tempfile import mkdtemp

from captum_interactions.evaluation import STUDIES, run_study

study = STUDIES["localization"](
    methods=("second_order_integrated_gradients:n_steps=20", "integrated_gradients:n_steps=20",
             "grad_eclip")
)  # fmt: skip
output = mkdtemp()
summary = run_study(study, wrapper, records, output)
table = summary.tables["by_method"]
for row in table.rows:
    values = dict(zip(table.columns, row, strict=True))
    print(f"{values['method']:<46} median {values['PGE median']:.2f}, pointing {values['PGA']:.2f}")

# %%
# The folder contains the rows, the configuration with all versions and seeds, tables and figures.

from pathlib import Path

print(*sorted(str(path.relative_to(output)) for path in Path(output).rglob("*.*")), sep="\n")

# %%
# Which phrases fail?
# -------------------
#
# The rows have the values of every phrase. These are the two worst and the two best second-order maps.

import json

from matplotlib import pyplot as plt

by_key = {record.key: record for record in records}
lines = [json.loads(line) for line in (Path(output) / "results.jsonl").read_text().splitlines()]
phrases = [
    (found["pge"], by_key[line["record"]], phrase)
    for line in lines
    if line["variant"] == study.methods[0]
    for found, phrase in zip(
        line["values"]["phrases"], by_key[line["record"]].grounded, strict=True
    )
]
phrases.sort(key=lambda one: one[0])
figure, axes = plt.subplots(1, 4, figsize=(10, 3), layout="constrained")
for ax, (energy, record, phrase) in zip(axes, [*phrases[:2], *phrases[-2:]], strict=True):
    imap = explain(wrapper, record.image, record.caption)
    heat = imap.heatmap(phrase.span)
    ax.imshow(record.image.convert("L"), cmap="gray", alpha=0.4)
    limit = abs(heat).max()
    left, right, bottom, top = imap.axis_a.extent()
    ax.imshow(
        heat, cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=0.6, extent=(left, right, bottom, top)
    )
    x0, y0, x1, y1 = phrase.boxes[0]
    ax.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color="black", linewidth=1)
    ax.set_title(f"{phrase.text}\nenergy {energy:.2f}", fontsize=9)
    ax.set_axis_off()

# %%
# .. admonition:: Takeaway
#
#    ``captum-interactions evaluate STUDY`` measures every record with every method, stores all rows, and
#    reports the chance level beside the results. Look at the worst cases, too.
