"""Captum's first-order methods on a wrapper: what works, what is wrong and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from captum.attr import (
    FeatureAblation,
    IntegratedGradients,
    LayerIntegratedGradients,
    NoiseTunnel,
    Occlusion,
    configure_interpretable_embedding_layer,
    remove_interpretable_embedding_layer,
)
from captum.metrics import infidelity
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from captum_interactions import SecondOrderIntegratedGradients, wrap
from tests import models
from tests.expected import relative_error
from tests.families import FAMILIES, text_config

BUILD = {family.name.split(",")[0]: family.build for family in FAMILIES}
PIXELS, (IDS, MASK) = models.images(2), models.captions(7, 5)
ENOUGH = {"n_steps": 60}


@pytest.fixture(scope="module", params=["CLIP", "SigLIP"])
def model(request):
    return BUILD[request.param]()


@pytest.fixture(scope="module")
def pair(model):
    """Wrapper, inputs, the further arguments, and the text's baseline."""
    wrapper = wrap(model)
    if wrapper.tower_b.fixed_length:
        ids, extras = torch.nn.functional.pad(IDS, (0, 16 - IDS.shape[1])), ()
    else:
        ids, extras = IDS, (MASK,)
    return wrapper, (PIXELS, ids), extras, wrapper.tower_b.baseline(ids, *extras)


def text_first(wrapper):
    """The text as what is attributed, the image among the further arguments."""
    return lambda ids, pixels, *extras: wrapper(pixels, ids, *extras)


def bert() -> BertModel:
    model = models.randomise(BertModel(BertConfig(**text_config())))
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
    return model


@pytest.fixture(scope="module")
def encoder():
    return bert()


def text(length, *seeds):
    ids = torch.cat([models.caption(length, seed) for seed in seeds])
    return ids, torch.ones_like(ids)


SAME = text(7, 20, 21), text(7, 22, 23)
"""Two pairs of texts of the same length, with their masks."""
OTHER = models.captions(6, 4), models.captions(9, 9)
"""Two pairs of other lengths."""


def texts(pairs):
    (a, mask_a), (b, mask_b) = pairs
    return (a, b), (mask_a, mask_b)


def scores(wrapper, inputs, extras) -> Tensor:
    with torch.no_grad():
        return wrapper(*inputs, *extras)


# Integrated gradients


def test_pixels(pair):
    wrapper, (pixels, ids), extras, _ = pair
    attributions, delta = IntegratedGradients(wrapper).attribute(
        pixels, additional_forward_args=(ids, *extras), return_convergence_delta=True, **ENOUGH
    )
    gain = scores(wrapper, (pixels, ids), extras) - scores(wrapper, (0 * pixels, ids), extras)
    torch.testing.assert_close(attributions.flatten(1).sum(1), gain, atol=5e-4, rtol=0)
    assert delta.abs().max() < 5e-4 < 0.01 < gain.abs().min()


def test_ids_are_refused(pair):
    wrapper, inputs, extras, _ = pair
    with pytest.raises(ValueError, match="whole numbers, but got torch.float32 with fractions"):
        IntegratedGradients(wrapper).attribute(inputs, additional_forward_args=extras)


def test_ids_of_a_shared_encoder_are_refused(encoder):
    inputs, masks = texts(SAME)
    with pytest.raises(ValueError, match="whole numbers, but got torch.float32 with fractions"):
        IntegratedGradients(wrap(encoder)).attribute(inputs, additional_forward_args=masks)


def test_a_partner_in_a_closure_breaks(pair):
    """Captum repeats its inputs for every node, but not what a closure holds."""
    wrapper, (pixels, ids), extras, _ = pair
    with pytest.raises(RuntimeError, match="size of tensor a .* must match"):
        IntegratedGradients(lambda x: wrapper(x, ids, *extras)).attribute(pixels, n_steps=5)


def test_gradient_modes(pair):
    wrapper, (pixels, ids), extras, _ = pair
    options = {"additional_forward_args": (ids, *extras), "n_steps": 4}
    plain = IntegratedGradients(wrapper).attribute(pixels, **options)
    with torch.no_grad():
        assert torch.equal(IntegratedGradients(wrapper).attribute(pixels, **options), plain)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="does not require grad"):
        IntegratedGradients(wrapper).attribute(pixels, **options)


# Layer integrated gradients


def of_states(wrapper, side, layer, inputs, baseline, extras, partner) -> Tensor:
    """Integrated gradients from the hidden states entering a block, without any hook of Captum."""
    tower = (wrapper.tower_a, wrapper.tower_b)[side]
    with torch.no_grad():
        end, context = tower.prefix(layer, inputs, *extras)
        start, _ = tower.prefix(layer, baseline, *extras)
        other = nn.functional.normalize(partner, dim=-1)

    def score(states, rows):
        repeated = [
            value[rows] if isinstance(value, Tensor) and value.dim() else value for value in context
        ]
        embedding = tower.tail(layer, states, *repeated)
        return (nn.functional.normalize(embedding, dim=-1) * other[rows]).sum(-1)

    rows = torch.arange(len(end))
    return IntegratedGradients(score).attribute(
        end, start, additional_forward_args=rows, n_steps=20
    )


@pytest.mark.parametrize("layer", [0, 1])
def test_words_at_a_layer(model, pair, layer):
    wrapper, (pixels, ids), extras, baseline = pair
    text = model.text_model
    module = text.embeddings if layer == 0 else text.encoder.layers[layer - 1]
    options = {"additional_forward_args": (pixels, *extras), "return_convergence_delta": True}
    lig = LayerIntegratedGradients(text_first(wrapper), module)
    actual, _ = lig.attribute(ids, baseline, n_steps=20, **options)
    partner = wrapper.encode_a(pixels)
    expected = of_states(wrapper, 1, layer, ids, baseline, extras, partner)
    assert relative_error(actual, expected) < 1e-4
    _, delta = lig.attribute(ids, baseline, **options, **ENOUGH)
    assert delta.abs().max() < 1e-5


def test_patches_at_a_layer(model, pair):
    wrapper, (pixels, ids), extras, _ = pair
    actual, delta = LayerIntegratedGradients(
        wrapper, model.vision_model.encoder.layers[0]
    ).attribute(
        pixels,
        additional_forward_args=(ids, *extras),
        n_steps=20,
        return_convergence_delta=True,
    )
    partner = wrapper.encode_b(ids, *extras)
    expected = of_states(wrapper, 0, 1, pixels, 0 * pixels, (), partner)
    assert relative_error(actual, expected) < 1e-4
    assert delta.abs().max() < 1e-3


@pytest.mark.filterwarnings("ignore:Multiple layers provided")
def test_both_embeddings_at_once(model, pair):
    """The path moves both inputs together, so it is not the sum of two explanations."""
    wrapper, inputs, extras, baseline = pair
    layers = [model.vision_model.embeddings, model.text_model.embeddings]
    attributions, delta = LayerIntegratedGradients(wrapper, layers).attribute(
        inputs,
        (0 * inputs[0], baseline),
        additional_forward_args=extras,
        return_convergence_delta=True,
        **ENOUGH,
    )
    assert [len(part.shape) for part in attributions] == [3, 3]
    assert delta.abs().max() < 1e-3


def test_parts_beside_the_residual_stream_are_not_complete(model, pair):
    """States that pass by the layer keep what they say, and the delta shows how much that is."""
    wrapper, (pixels, ids), extras, baseline = pair
    _, delta = LayerIntegratedGradients(
        text_first(wrapper), model.text_model.encoder.layers[0].mlp
    ).attribute(
        ids,
        baseline,
        additional_forward_args=(pixels, *extras),
        return_convergence_delta=True,
        **ENOUGH,
    )
    assert delta.abs().max() > 0.01


# (layer of the text, whether its input is meant, the error, what it says)
REFUSED = [
    ("embeddings", True, IndexError, "tuple index out of range"),  # called by keyword
    ("embeddings.token_embedding", True, RuntimeError, "scalar types: Long, Int"),
    ("encoder.layers.0.self_attn", True, IndexError, "tuple index out of range"),
    ("encoder.layers.0.self_attn", False, AttributeError, "'NoneType'.*'clone'"),
    ("", False, AttributeError, "ModelOutput|BaseModelOutputWithPooling.*'clone'"),
]


@pytest.mark.parametrize(("layer", "is_input", "error", "message"), REFUSED)
def test_layers_that_captum_cannot_take(model, pair, layer, is_input, error, message):
    wrapper, (pixels, ids), extras, baseline = pair
    lig = LayerIntegratedGradients(text_first(wrapper), model.text_model.get_submodule(layer))
    with pytest.raises(error, match=message):
        lig.attribute(
            ids,
            baseline,
            additional_forward_args=(pixels, *extras),
            attribute_to_layer_input=is_input,
            n_steps=3,
        )


def test_the_input_of_a_block_that_gets_a_mask(model, pair):
    """Captum takes all that enters a block for features: masks, and what is None."""
    wrapper, (pixels, ids), extras, baseline = pair
    lig = LayerIntegratedGradients(text_first(wrapper), model.text_model.encoder.layers[0])
    error = RuntimeError if extras else AttributeError
    message = "two bool tensors" if extras else "'NoneType' object has no attribute 'clone'"
    with pytest.raises(error, match=message):
        lig.attribute(
            ids,
            baseline,
            additional_forward_args=(pixels, *extras),
            attribute_to_layer_input=True,
            n_steps=3,
        )


@pytest.mark.parametrize(
    "layer", ["text_model.embeddings", "text_model.embeddings.token_embedding"]
)
def test_interpretable_embeddings_do_not_fit(model, pair, layer):
    """Neither the wrapper nor the model itself takes embeddings in the place of ids."""
    wrapper, (pixels, ids), extras, _ = pair
    with pytest.warns(UserWarning, match="convert to embeddings|interpretable|remove"):
        embedding = configure_interpretable_embedding_layer(model, layer)
    try:
        embedded = embedding.indices_to_embeddings(ids)
        with pytest.raises(ValueError, match=r"whole numbers of shape \(B, T\)"):
            IntegratedGradients(text_first(wrapper)).attribute(
                embedded, additional_forward_args=(pixels, *extras), n_steps=3
            )
        with pytest.raises((RuntimeError, ValueError, IndexError)):
            model.get_text_features(input_ids=embedded)
    finally:
        remove_interpretable_embedding_layer(model, embedding)


# A shared encoder


def of_the_first(encoder, wrapper, module, pairs, forward=None):
    inputs, masks = texts(pairs)
    baselines = tuple(0 * ids for ids in inputs)
    result = LayerIntegratedGradients(forward or wrapper, module(encoder)).attribute(
        inputs,
        baselines,
        additional_forward_args=masks,
        return_convergence_delta=True,
        **ENOUGH,
    )
    return inputs, baselines, masks, result


LAYERS_OF_BERT = [lambda m: m.embeddings, lambda m: m.encoder.layer[0]]


@pytest.mark.parametrize("module", LAYERS_OF_BERT)
def test_a_shared_encoder_is_silently_taken_for_the_second_text_twice(encoder, module):
    """Captum keeps the states of the last call, b's, and puts them into both."""
    wrapper = wrap(encoder)

    def product(a, b, mask_a, mask_b):
        return (wrapper.encode_a(a, mask_a) * wrapper.encode_b(b, mask_b)).sum(-1)

    (a, b), (ra, rb), (mask_a, mask_b), (actual, delta) = of_the_first(
        encoder, wrapper, module, SAME, product
    )
    with torch.no_grad():
        twice = product(b, b, mask_a, mask_b) - product(rb, rb, mask_a, mask_b)
        meant = product(a, b, mask_a, mask_b) - product(ra, rb, mask_a, mask_b)
    total = actual.sum((1, 2))
    torch.testing.assert_close(total, twice, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(delta, total - meant, rtol=1e-3, atol=1e-3)
    assert (delta.abs() > 0.05 * meant.abs()).all()


def test_one_text_of_a_shared_encoder_gets_nothing(encoder):
    """With b fixed, the last call has the same states for the input and for its baseline."""
    (a, b), (mask_a, mask_b) = texts(SAME)
    wrapper = wrap(encoder)
    attributions, delta = LayerIntegratedGradients(wrapper, encoder.embeddings).attribute(
        a, 0 * a, additional_forward_args=(b, mask_a, mask_b), return_convergence_delta=True
    )
    assert attributions.count_nonzero() == 0
    assert delta.abs().min() > 0.01


def test_texts_of_other_lengths_break_a_shared_encoder(encoder):
    with pytest.raises(RuntimeError, match=r"size of tensor a \(9\) must match .* b \(6\)"):
        of_the_first(encoder, wrap(encoder), LAYERS_OF_BERT[0], OTHER)


@pytest.mark.parametrize("pairs", [SAME, OTHER])
def test_two_copies_of_a_shared_encoder_work(encoder, pairs):
    """What to do instead, if it must be Captum's own method."""
    other = copy.deepcopy(encoder)
    wrapper = wrap((encoder, other))
    (a, b), (mask_a, mask_b) = texts(pairs)
    actual, delta = LayerIntegratedGradients(wrapper, encoder.embeddings).attribute(
        a, 0 * a, additional_forward_args=(b, mask_a, mask_b), n_steps=20,
        return_convergence_delta=True,
    )  # fmt: skip
    partner = wrapper.encode_b(b, mask_b)
    expected = of_states(wrapper, 0, 0, a, 0 * a, (mask_a,), partner)
    assert relative_error(actual, expected) < 1e-4
    assert delta.abs().max() < 1e-3


def test_states_of_a_shared_encoder_work(encoder):
    """The wrapper's own towers do it without a copy: one side's states are the input."""
    wrapper = wrap(encoder)
    (a, b), (mask_a, mask_b) = texts(OTHER)
    shared = of_states(wrapper, 0, 0, a, 0 * a, (mask_a,), wrapper.encode_b(b, mask_b))
    apart = wrap((encoder, copy.deepcopy(encoder)))
    expected = LayerIntegratedGradients(apart, encoder.embeddings).attribute(
        a, 0 * a, additional_forward_args=(b, mask_a, mask_b), n_steps=20
    )
    assert relative_error(shared, expected) < 1e-4


# Perturbation


def test_occlusion_of_patches(pair):
    wrapper, (pixels, ids), extras, _ = pair
    actual = Occlusion(wrapper).attribute(
        pixels, (3, 4, 4), (3, 4, 4), baselines=0.5, additional_forward_args=(ids, *extras)
    )
    whole = scores(wrapper, (pixels, ids), extras)
    for row in range(0, 12, 4):
        for column in range(0, 12, 4):
            window = (slice(None), slice(None), slice(row, row + 4), slice(column, column + 4))
            erased = pixels.clone()
            erased[window] = 0.5
            loss = whole - scores(wrapper, (erased, ids), extras)
            expected = loss.reshape(-1, 1, 1, 1).expand_as(actual[window])
            torch.testing.assert_close(actual[window], expected, rtol=0, atol=1e-5)
    assert actual.abs().max() > 0.01


@pytest.mark.parametrize("at_once", [1, 3])
def test_occlusion_of_tokens(pair, at_once):
    wrapper, (pixels, ids), extras, _ = pair
    actual = Occlusion(text_first(wrapper)).attribute(
        ids, (1,), baselines=3, additional_forward_args=(pixels, *extras),
        perturbations_per_eval=at_once,
    )  # fmt: skip
    torch.testing.assert_close(actual, token_losses(wrapper, pixels, ids, extras, 3))


def token_losses(wrapper, pixels, ids, extras, substitute):
    whole, losses = scores(wrapper, (pixels, ids), extras), []
    for token in range(ids.shape[1]):
        erased = ids.clone()
        erased[:, token] = substitute
        losses.append(whole - scores(wrapper, (pixels, erased), extras))
    return torch.stack(losses, 1)


def test_feature_ablation_of_both_inputs(pair):
    """Groups may reach across inputs: the last one holds a patch and a token."""
    wrapper, (pixels, ids), extras, baseline = pair
    patches = torch.arange(9).reshape(1, 1, 3, 3)
    patches = patches.repeat_interleave(4, 2).repeat_interleave(4, 3)
    tokens = 8 + torch.arange(ids.shape[1])[None]
    of_pixels, of_ids = FeatureAblation(wrapper).attribute(
        (pixels, ids),
        (0.0, baseline),
        additional_forward_args=extras,
        feature_mask=(patches, tokens),
    )
    whole = scores(wrapper, (pixels, ids), extras)
    for group in (0, 4, 8, 9, 10):
        erased = pixels.where(patches != group, 0.0), ids.where(tokens != group, baseline)
        loss = whole - scores(wrapper, erased, extras)
        for actual, mask in ((of_pixels, patches), (of_ids, tokens)):
            found = actual[:, (mask[0] == group).expand(actual.shape[1:])]
            expected = loss.unsqueeze(1).expand_as(found)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_feature_ablation_of_a_shared_encoder(encoder):
    inputs, masks = texts(OTHER)
    wrapper = wrap(encoder)
    of_a, of_b = FeatureAblation(wrapper).attribute(
        inputs, (3, 3), additional_forward_args=masks,
        feature_mask=(torch.arange(6)[None], 6 + torch.arange(9)[None]),
    )  # fmt: skip
    whole = scores(wrapper, inputs, masks)
    for attributions, side in ((of_a, 0), (of_b, 1)):
        for token in range(attributions.shape[1]):
            erased = [ids.clone() for ids in inputs]
            erased[side][:, token] = 3
            loss = whole - scores(wrapper, erased, masks)
            torch.testing.assert_close(attributions[:, token], loss, rtol=0, atol=1e-5)


# Noise


def test_noise_tunnel_is_the_mean_over_noisy_images(pair):
    wrapper, (pixels, ids), extras, _ = pair
    ig, samples = IntegratedGradients(wrapper), 5
    torch.manual_seed(0)
    actual = NoiseTunnel(ig).attribute(
        pixels, nt_samples=samples, stdevs=0.3, additional_forward_args=(ids, *extras), n_steps=6
    )
    torch.manual_seed(0)
    noisy = pixels.repeat_interleave(samples, 0)
    noisy = noisy + torch.normal(0, torch.full_like(noisy, 0.3))
    expected = torch.stack([
        ig.attribute(image[None], additional_forward_args=(row, *rest), n_steps=6)[0]
        for image, row, *rest in zip(
            noisy, *(x.repeat_interleave(samples, 0).split(1) for x in (ids, *extras)), strict=True
        )
    ])  # fmt: skip
    assert relative_error(actual, expected.unflatten(0, (2, samples)).mean(1)) < 1e-4
    plain = ig.attribute(pixels, additional_forward_args=(ids, *extras), n_steps=6)
    assert relative_error(actual, plain) > 0.01


def test_noise_of_zero(pair):
    wrapper, (pixels, ids), extras, _ = pair
    options = {"additional_forward_args": (ids, *extras), "n_steps": 6}
    ig = IntegratedGradients(wrapper)
    actual = NoiseTunnel(ig).attribute(pixels, nt_samples=3, stdevs=0.0, **options)
    assert relative_error(actual, ig.attribute(pixels, **options)) < 1e-5


def test_noise_on_ids_is_refused(model, pair):
    wrapper, (pixels, ids), extras, baseline = pair
    lig = LayerIntegratedGradients(text_first(wrapper), model.text_model.embeddings)
    with pytest.raises(ValueError, match="noise on ids"):
        NoiseTunnel(lig).attribute(
            ids, nt_samples=2, stdevs=0.1, baselines=baseline, n_steps=3,
            additional_forward_args=(pixels, *extras),
        )  # fmt: skip


# Infidelity


def erase_pixels(pixels):
    removed = (torch.rand_like(pixels[:, :1]) < 0.3).to(pixels).expand_as(pixels)
    return removed, pixels * (1 - removed)


def test_infidelity_of_a_linear_score_is_zero():
    """A product with a fixed partner is linear in a, if the encoder is."""
    a, b = torch.rand(3, 6), torch.rand(3, 4)
    wrapper = wrap((nn.Linear(6, 5, bias=False), nn.Linear(4, 5)))

    def product(x, y):
        return (wrapper.encode_a(x) * wrapper.encode_b(y)).sum(-1)

    def erase(x):
        removed = (torch.rand_like(x) < 0.5).to(x)
        return removed, x * (1 - removed)

    def value(attributions):
        return infidelity(
            product, erase, a, attributions, additional_forward_args=b, n_perturb_samples=20
        )

    exact = IntegratedGradients(product).attribute(a, additional_forward_args=b, n_steps=2)
    assert value(exact.float()).abs().max() < 1e-10
    assert value(exact.float().roll(1, 1)).min() > 1e-3


def test_infidelity_of_pixels(pair):
    wrapper, (pixels, ids), extras, _ = pair
    options = {"additional_forward_args": (ids, *extras)}
    attributions = IntegratedGradients(wrapper).attribute(pixels, n_steps=20, **options)

    def value(candidate):
        torch.manual_seed(0)
        return infidelity(wrapper, erase_pixels, pixels, candidate, n_perturb_samples=40, **options)

    assert value(attributions).shape == (2,)
    assert value(attributions).sum() < value(attributions.flip(-1)).sum()


def test_infidelity_of_the_marginal(pair):
    """The sum of a map over the caption explains the score less that of the baseline."""
    wrapper, inputs, extras, baseline = pair
    soig = SecondOrderIntegratedGradients(wrapper, ("input", -1))
    marginal = soig.attribute(
        inputs, additional_forward_args=extras, full_resolution="a", n_steps=8
    ).sum(-1)

    def difference(pixels, ids, baseline, *extras):
        return wrapper(pixels, ids, *extras) - wrapper(pixels, baseline, *extras)

    def value(candidate):
        torch.manual_seed(0)
        return infidelity(
            difference, erase_pixels, inputs[0], candidate, n_perturb_samples=40,
            additional_forward_args=(inputs[1], baseline, *extras),
        )  # fmt: skip

    assert value(marginal).sum() < value(marginal.flip(-1)).sum()


def test_infidelity_of_words(model, pair):
    """Ids may be the input: the perturbation says which tokens were replaced."""
    wrapper, (pixels, ids), extras, baseline = pair
    options = {"additional_forward_args": (pixels, *extras)}
    words = (
        LayerIntegratedGradients(text_first(wrapper), model.text_model.embeddings)
        .attribute(ids, baseline, n_steps=20, **options)
        .sum(-1)
    )

    def replace_some(ids):
        replaced = torch.rand(ids.shape) < 0.3
        others = baseline.repeat_interleave(len(ids) // len(baseline), 0)
        return replaced.float(), ids.where(~replaced, others)

    def value(candidate):
        torch.manual_seed(0)
        return infidelity(
            text_first(wrapper), replace_some, ids, candidate, n_perturb_samples=40, **options
        )

    assert value(words.float()).sum() < value(torch.zeros_like(words).float()).sum()


def test_infidelity_of_the_image_alone_in_a_pair_is_refused(pair):
    wrapper, inputs, extras, _ = pair
    with pytest.raises(AssertionError, match="number of tensors"):
        infidelity(
            wrapper, lambda *inputs: (inputs, inputs), inputs, torch.zeros_like(inputs[0]),
            additional_forward_args=extras,
        )  # fmt: skip
