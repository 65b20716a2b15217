"""What other ways to fewer Jacobian products at the embeddings would save or cost.

    python -m benchmarks.fewer_products [--threads 2]

Prints two Markdown tables for a pair: errors by the number of steps, and what the singular values
of a caption's factors would allow. They are compared with 16 steps at the size of ViT-B/32, and
with 150 on the bundled model.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.models import inputs_of, wrapped
from captum_interactions import SecondOrderIntegratedGradients
from captum_interactions.functional.adaptive import choose_rule

TOLERANCE = 5e-4
"""The half of the default tolerance that one side has."""
STEPS = {"B/32": 16, "bundled": 150}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    print("| steps | error of the map's sum | largest error of an interaction |")
    print("|---|---|---|")
    for n_steps, of_sum, of_one in errors("B/32", range(4, 8)):
        print(f"| {n_steps} | {of_sum:.1e} | {of_one:.1e} |")
    print()
    print("| model | smallest singular value | products | with a rule for each | evaluations |")
    print("|---|---|---|---|---|")
    for name in STEPS:
        smallest, products, fewer, once, each = directions(name)
        print(f"| {name} | {smallest:.3f} | {products} | {fewer} | {once}, then {each} |")


def errors(name: str, numbers: range) -> list[tuple[int, float, float]]:
    """Errors of a map by number of steps.

    They are that of its sum, relative to the product of both distances of embeddings, and the
    largest of one interaction, relative to the largest interaction.
    """
    explainer, inputs = _explainer(name), inputs_of(name, 12)
    a, b = explainer._propagate(inputs, None, None)
    distances = [(path.embedding - path.baseline_embedding).norm() for path in (a, b)]
    expected = explainer.attribute(inputs, n_steps=STEPS[name])
    rows = []
    for n_steps in numbers:
        error = explainer.attribute(inputs, n_steps=n_steps) - expected
        of_sum = error.sum().abs() / distances[0] / distances[1]
        rows.append((n_steps, float(of_sum), float(error.abs().max() / expected.abs().max())))
    return rows


def directions(name: str) -> tuple[float, int, int, int, int]:
    """What a rule for each singular vector of the caption's factors would change.

    The smallest singular value, relative to the largest; products of the image with one rule and
    with a rule for each direction; evaluations of its encoder in both cases.
    """
    explainer, inputs = _explainer(name), inputs_of(name, 12)
    image, _ = explainer._propagate(inputs, None, None)
    factors = explainer.factors_b(inputs[1], n_steps=STEPS[name]).values[0]
    values = torch.linalg.svdvals(factors)
    shares = (values / values[0])[values > 1e-6 * values[0]].tolist()
    steps = [choose_rule(image.values, TOLERANCE / share).n_steps for share in shares]
    return shares[-1], len(steps) * steps[0], sum(steps), steps[0], sum(set(steps))


def _explainer(name: str) -> SecondOrderIntegratedGradients:
    return SecondOrderIntegratedGradients(wrapped(name), (0, 0), normalization="none")


if __name__ == "__main__":
    main()
