"""
7 · Fine-tuning and grounding
=============================

The bundled model was trained on scenes of the *plain* domain, and is worse on those of the *shifted*
domain, which look different. What does fine-tuning change: the scores, the maps, or both?
"""

# %%
# Another domain
# --------------

from matplotlib import pyplot as plt

from captum_interactions import explain_batch, load_demo
from captum_interactions.datasets import load_dataset

wrapper, _ = load_demo()
plain = load_dataset("scenes", n=48, seed=5)
shifted = load_dataset("scenes", n=48, seed=5, domain="shifted")
figure, axes = plt.subplots(1, 4, figsize=(8, 2.2), layout="constrained")
for ax, record in zip(axes, [*plain[:2], *shifted[:2]], strict=True):
    ax.imshow(record.image)
    ax.set_title(record.key.split("-")[0], fontsize=9)
    ax.set_axis_off()

# %%
# Fine-tuning
# -----------
#
# ``fine_tune`` trains a copy of the model with CLIP's loss on pairs of the new domain; the original model is
# not modified.

from captum_interactions.evaluation.studies.training import FineTuning, fine_tune

setting = FineTuning(steps=40, batch_size=32, learning_rate=3e-4, warmup=5)
tuned = fine_tune(wrapper, load_dataset("scenes", n=1500, seed=77, domain="shifted"), setting)

# %%
# Retrieval and grounding, before and after
# -----------------------------------------

import torch

from captum_interactions.encoders.wrapper import unit
from captum_interactions.metrics import point_game_energy


def recall(model, records):
    """How often the right caption scores highest for an image."""
    batch = model.prepare([r.image for r in records], [r.caption for r in records])
    extras_a, extras_b = model.split_additional(batch.additional_forward_args)
    with torch.no_grad():
        a = unit(model.encode_a(batch.inputs[0], *extras_a))
        b = unit(model.encode_b(batch.inputs[1], *extras_b))
    return float(((a @ b.T).argmax(1) == torch.arange(len(a))).float().mean())


def energies(model, records):
    """Point game energy of every phrase, at the embeddings."""
    maps = explain_batch(
        model, [r.image for r in records], [r.caption for r in records], n_steps=20
    )
    return [
        float(
            point_game_energy(
                torch.from_numpy(imap.heatmap(phrase.span))[None],
                torch.from_numpy(imap.axis_a.coverage(*phrase.boxes))[None],
            )
        )
        for imap, record in zip(maps, records, strict=True)
        for phrase in record.grounded
    ]


import warnings

found = {}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # at 20 steps, some convergence deltas cause a warning
    for domain, records in (("plain", plain), ("shifted", shifted)):
        for stage, model in (("before", wrapper), ("after", tuned)):
            energy = torch.tensor(energies(model, records[:10]))
            found[domain, stage] = energy
            print(f"{domain:>8} {stage:>7}: recall@1 {recall(model, records):.2f}, "
                  f"median energy {float(energy.nanmedian()):.2f}")  # fmt: skip

# %%
# With so few records the medians are uncertain, so the figure shows distributions. The study
# ``captum-interactions evaluate fine_tuning`` does the same on any number of records, with confidence
# intervals.

figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
for ax, domain in zip(axes, ("plain", "shifted"), strict=True):
    before, after = found[domain, "before"], found[domain, "after"]
    ax.boxplot(
        [before[~before.isnan()].tolist(), after[~after.isnan()].tolist()],
        tick_labels=["before", "after"],
    )
    ax.set_title(f"{domain} scenes", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
_ = axes[0].set_ylabel("point game energy of phrases")

# %%
# .. admonition:: Takeaway
#
#    ``fine_tune`` trains a copy with CLIP's loss. Measure retrieval *and* grounding, in the new domain and
#    in the old one: one may improve without the other.
