"""What each method answers, its caveats and its paper, for the matrix in ``methods.rst``.

What a method needs and costs comes from :func:`captum_interactions.attr.attributions`.
"""

from __future__ import annotations

from typing import NamedTuple


class Facts(NamedTuple):
    """A row of the matrix, in reStructuredText."""

    answers: str
    caveats: str
    paper: str


def _arxiv(authors: str, number: str) -> str:
    return f"`{authors} <https://arxiv.org/abs/{number}>`__"


FACTS = {
    "second_order_integrated_gradients": Facts(
        "Which pairs of parts increased or decreased the score together? All parts add up to it",
        "depends on baseline and layer; early layers need more steps",
        _arxiv("Möller et al., 2025", "2408.14153"),
    ),
    "banzhaf_interactions": Facts(
        "How does removing two parts together differ from removing each, averaged over random "
        "coalitions? Comes with standard errors",
        "sampling noise; its delta contains interactions within each input and can be large",
        _arxiv("Baniecki et al., 2025", "2508.05430"),
    ),
    "shapley_interactions": Facts(
        "The same with equal weight for coalitions of all sizes; values add up to the score",
        "needs far more samples than Banzhaf interactions",
        "Grabisch and Roubens, 1999 :cite:p:`grabisch1999axiomatic`",
    ),
    "archipelago": Facts(
        "How do four scores differ: with both parts, with either one, with neither?",
        "two contexts only, all other parts present or all absent",
        _arxiv("Tsang et al., 2020", "2006.10965"),
    ),
    "lifted": Facts(
        "What would a first-order explainer of Captum, or your own, say per word? Explains the "
        "input at layer 0 by default",
        "completeness and cost are those of the explainer",
        "the explainer's own",
    ),
    "integrated_hessians": Facts(
        "Interactions of two inputs of any scalar function, such as a cross-encoder",
        "for dual encoders the same map as second-order integrated gradients at a much higher "
        "cost; zero for piecewise linear networks (ReLU)",
        _arxiv("Janizek et al., 2021", "2002.04138"),
    ),
    "interaction_lime": Facts(
        "Which bilinear model fits the score near the input?",
        "sampling noise; the kernel is a choice",
        "Joukovsky et al., 2023 :cite:p:`joukovsky2023model`",
    ),
    "interaction_cam": Facts(
        "Where do channels that matter together for the score have large activations?",
        "not complete; no baseline",
        _arxiv("Sammani et al., 2023", "2206.09753"),
    ),
    "token_similarity": Facts(
        "How similar is each token of one input to each token of the other?",
        "does not explain the score; its sum has no meaning",
        _arxiv("Li et al., 2022", "2209.07046"),
    ),
    "token_decomposition": Facts(
        "How is a score of mean-pooled tokens distributed over pairs of last hidden states?",
        "last hidden states depend on the whole input",
        _arxiv("Möller et al., 2023", "2310.05703"),
    ),
    "integrated_gradients": Facts(
        "How much did each part of one input change the score, the other input held fixed?",
        "one map for all phrases",
        _arxiv("Sundararajan et al., 2017", "1703.01365"),
    ),
    "input_x_gradient": Facts(
        "What is the first-order effect of each token at the input itself?",
        "local; not complete; refused at the last block of models that pool one token",
        _arxiv("Shrikumar et al., 2016", "1605.01713"),
    ),
    "grad_cam": Facts(
        "Where are activations large whose mean gradient is positive?",
        "positive values only; noisy on transformers",
        _arxiv("Selvaraju et al., 2017", "1610.02391"),
    ),
    "occlusion": Facts(
        "By how much does the score drop if one token is replaced by its baseline?",
        "misses information that several tokens share",
        _arxiv("Zeiler and Fergus, 2014", "1311.2901"),
    ),
    "rise": Facts(
        "What is the mean score of masked inputs that show a token?",
        "the mean score hides the map: pass ``centered=True``; sampling noise",
        _arxiv("Petsiuk et al., 2018", "1806.07421"),
    ),
    "attention_rollout": Facts(
        "How much attention does the pooled token pay to each token through all blocks?",
        "does not depend on the other input; a lower bar for other methods",
        _arxiv("Abnar and Zuidema, 2020", "2005.00928"),
    ),
    "game": Facts(
        "The same, with attention weighted by its gradient",
        "positive values only",
        _arxiv("Chefer et al., 2021", "2103.15679"),
    ),
    "grad_eclip": Facts(
        "Which values of the last attention does the gradient of the score favour?",
        "positive values only; differs from the published program, which explains a changed model",
        "Zhao et al., 2024 :cite:p:`zhao2024gradient`",
    ),
    "legrad": Facts(
        "To which attention weights is the score sensitive, layer by layer?",
        "positive values only; not for causal text encoders",
        _arxiv("Bousselham et al., 2024", "2404.03214"),
    ),
    "mask_clip": Facts(
        "How similar is each patch, embedded through its own value vector, to the text?",
        "explains changed attention, not the score; not for causal text encoders",
        _arxiv("Zhou et al., 2022", "2112.01071"),
    ),
    "clip_surgery": Facts(
        "How similar is each patch to the text, with value-to-value attention, minus what all "
        "texts share?",
        "explains changed attention, not the score; most patches may be negative",
        _arxiv("Li et al., 2023", "2304.05653"),
    ),
    "gem": Facts(
        "How similar is each patch to the text, with attention between similar patches (GEM)?",
        "explains changed attention, not the score; not for causal text encoders",
        _arxiv("Bousselham et al., 2024", "2312.00878"),
    ),
}
"""By the name of the method, in the order of the registry."""
