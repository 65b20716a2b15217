"""From raw images and captions to tensors and axes, with processors built in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from captum_interactions import SecondOrderIntegratedGradients, explain, from_pretrained, wrap
from captum_interactions.encoders import ImageAxis, TextAxis
from tests import models

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def bundle():
    return models.clip_with_processor()


@pytest.fixture(scope="module")
def wrapper(bundle):
    return wrap(*bundle)


@pytest.fixture(scope="module")
def directory(bundle, tmp_path_factory):
    """The model and its processor as ``transformers`` saves them, with default layers."""
    path = tmp_path_factory.mktemp("clip")
    model, processor = bundle
    model.config.captum_interactions = {"default_layers": [1, 0]}
    model.save_pretrained(path)
    del model.config.captum_interactions
    processor.save_pretrained(path)
    return path


def test_pairs_are_prepared_as_the_processor_does_it(bundle, wrapper):
    pictures, captions = [PICTURE, PICTURE.transpose(0)], ["a red circle", "a"]
    batch = wrapper.prepare(pictures, captions)
    expected = bundle[1](images=pictures, text=captions, padding=True, return_tensors="pt")
    assert torch.equal(batch.inputs[0], expected["pixel_values"])
    assert torch.equal(batch.inputs[1], expected["input_ids"])
    assert torch.equal(batch.additional_forward_args[0], expected["attention_mask"])
    with torch.no_grad():
        scores = wrapper(*batch.inputs, *batch.additional_forward_args)
        output = bundle[0](**expected).logits_per_image.diagonal() / bundle[0].logit_scale.exp()
    torch.testing.assert_close(scores, output, rtol=0, atol=1e-6)


def test_axes_of_a_pair(wrapper):
    batch = wrapper.prepare(PICTURE, ["a red circle"])
    (image,), (text,) = batch.axes_a, batch.axes_b
    assert isinstance(image, ImageAxis)
    assert (image.grid, image.cell, len(image), sum(image.special)) == ((3, 3), (4, 4), 10, 1)
    assert image.labels[:3] == ("[class]", "patch 0,0", "patch 0,1")
    assert image.image.size == PICTURE.size
    assert len(image.at_input()) == 9
    assert isinstance(text, TextAxis)
    assert text.labels == ("<|startoftext|>", "a", "red", "cir", "cle", "<|endoftext|>")
    assert text.special == (True, False, False, False, False, True)
    assert text.spans == (None, (0, 1), (2, 5), (6, 9), (9, 12), None)
    assert not any(text.padding)


def test_axes_of_captions_that_are_padded(wrapper):
    """The end-of-text token pads too, but special and padding tokens are told apart."""
    _, short = wrapper.prepare([PICTURE] * 2, ["a red circle", "a"]).axes_b
    assert short.special == (True, False, True, False, False, False)
    assert short.padding == (False, False, False, True, True, True)
    assert [word.text for word in short.words] == ["a"]


@pytest.mark.parametrize(
    "source",
    [
        PICTURE,
        np.asarray(PICTURE),
        PICTURE.convert("RGBA"),
        [PICTURE],
        (np.asarray(PICTURE),),
    ],
    ids=["PIL", "array", "RGBA", "list", "tuple"],
)
def test_kinds_of_images(wrapper, source):
    expected = wrapper.prepare(PICTURE, "a").inputs[0]
    assert torch.equal(wrapper.prepare(source, "a").inputs[0], expected)


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_image_files(wrapper, tmp_path, kind):
    PICTURE.save(tmp_path / "picture.png")
    expected = wrapper.prepare(PICTURE, "a").inputs[0]
    assert torch.equal(wrapper.prepare(kind(tmp_path / "picture.png"), "a").inputs[0], expected)


def test_grey_images(wrapper):
    grey = np.asarray(PICTURE.convert("L"))
    expected = wrapper.prepare(Image.fromarray(grey).convert("RGB"), "a").inputs[0]
    assert torch.equal(wrapper.prepare(grey, "a").inputs[0], expected)


def test_ready_tensors_need_no_processor(clip):
    pixels, (ids, mask) = models.images(2, (8, 12)), models.captions(5, 7)
    for text, expected_mask in ((ids, None), ((ids, mask), mask)):
        batch = wrap(clip).prepare(pixels, text)
        assert torch.equal(batch.inputs[0], pixels)
        assert torch.equal(batch.inputs[1], ids)
        (given,) = batch.additional_forward_args
        assert given is expected_mask or torch.equal(given, expected_mask)
        assert batch.axes_a[1].grid == (2, 3)
        axis = batch.axes_b[0]
        assert axis.labels == tuple(str(i) for i in ids[0].tolist())
        assert axis.special == (True, False, False, False, True, False, False)
        assert axis.padding == (False,) * 5 + (True,) * 2
        assert [unit.tokens for unit in axis.units] == [(1,), (2,), (3,)]


def test_ready_ids_are_named_by_the_tokenizer(wrapper):
    ids = wrapper.prepare(PICTURE, "a red circle").inputs[1]
    (axis,) = wrapper.prepare(PICTURE, ids).axes_b
    assert axis.labels == ("<|startoftext|>", "a</w>", "red</w>", "cir", "cle</w>", "<|endoftext|>")


def test_pixels_are_given_in_the_models_precision(bundle):
    batch = wrap(models.clip().bfloat16()).prepare(models.images(), models.caption(5))
    assert batch.inputs[0].dtype == torch.bfloat16


@pytest.mark.parametrize("words", [6, 14, 15, 40])
def test_long_captions(wrapper, words):
    text = " ".join(["a"] * words)
    if words <= 14:
        assert wrapper.prepare(PICTURE, text).inputs[1].shape == (1, words + 2)
        return
    with pytest.raises(ValueError, match=f"text 0 has {words + 2} tokens .* holds 16; shorten"):
        wrapper.prepare(PICTURE, text)
    with pytest.raises(ValueError, match="a a a.*…'$") as caught:
        wrapper.prepare(PICTURE, text * 100)
    assert len(str(caught.value)) < 300
    batch = wrapper.prepare(PICTURE, text, truncation=True)
    ids = batch.inputs[1][0]
    assert len(ids) == len(batch.axes_b[0]) == 16
    assert ids[-1] == wrapper.tower_b.tokenizer.eos_token_id


def test_padding_that_ends_a_text_is_no_baseline(wrapper):
    """The model would pool it too early: the score of the baselines is that of the parts."""
    batch = wrapper.prepare([PICTURE] * 2, ["a red circle", "a"])
    tokenizer = wrapper.tower_b.tokenizer
    baseline = wrapper.tower_b.baseline(batch.inputs[1], *batch.additional_forward_args)
    bos, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert tokenizer.pad_token_id == end
    assert baseline.tolist() == [[bos, 0, 0, 0, 0, end], [bos, 0, end, end, end, end]]
    parts = SecondOrderIntegratedGradients(wrapper, (0, 0)).decompose(
        batch.inputs, additional_forward_args=batch.additional_forward_args, n_steps=3
    )
    with torch.no_grad():
        images = torch.zeros_like(batch.inputs[0])
        constant = wrapper(images, baseline, *batch.additional_forward_args)
    torch.testing.assert_close(parts.constant, constant, rtol=1e-4, atol=1e-6)
    maps = SecondOrderIntegratedGradients(wrapper, (0, 0)).attribute(
        batch.inputs, additional_forward_args=batch.additional_forward_args, n_steps=3
    )
    assert maps[1, :, 3:].count_nonzero() == 0
    assert maps[1, 1:, 1].abs().min() > 0  # the class token is the same in every image


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_from_pretrained(bundle, directory, kind):
    wrapper = from_pretrained(kind(directory), local_files_only=True)
    assert not any(module.training for module in wrapper.tower_a.model.modules())
    assert wrapper.default_layers == (1, 0)
    batch = wrapper.prepare(PICTURE, "a red circle")
    expected = wrap(*bundle).prepare(PICTURE, "a red circle")
    with torch.no_grad():
        scores = wrapper(*batch.inputs), wrap(*bundle)(*expected.inputs)
    torch.testing.assert_close(*scores, rtol=0, atol=1e-6)
    assert SecondOrderIntegratedGradients(wrapper).layers == (1, 0)


def test_from_pretrained_passes_options(directory):
    wrapper = from_pretrained(directory, dtype=torch.float16)
    assert wrapper.prepare(PICTURE, "a").inputs[0].dtype == torch.float16


def test_default_layers_of_other_models(clip):
    assert wrap(clip).default_layers == (-1, -1)
    assert wrap((models.mlp(3), models.mlp(4))).default_layers == ("input", "input")
    assert wrap((wrap(clip).tower_a, models.mlp(4, 24))).default_layers == (-1, "input")


def test_a_bare_tokenizer_or_image_processor_serves_its_side(bundle, wrapper):
    model, processor = bundle
    expected = wrapper.prepare(PICTURE, "a red circle").inputs
    of_text = wrap(model, processor.tokenizer).prepare(models.images(), "a red circle")
    assert torch.equal(of_text.inputs[1], expected[1])
    of_image = wrap(model, processor.image_processor).prepare(PICTURE, expected[1])
    assert torch.equal(of_image.inputs[0], expected[0])


def test_default_steps(clip):
    assert wrap(clip).default_n_steps == 20
    model = models.clip()
    model.config.captum_interactions = {"default_n_steps": 33}
    assert wrap(model).default_n_steps == 33
    assert wrap(model).default_layers == (-1, -1)


def test_default_layers_are_checked():
    model = models.clip()
    model.config.captum_interactions = {"default_layers": [0, 9]}
    with pytest.raises(ValueError, match="layer must be an int from -3 to 2.*but got 9"):
        wrap(model)


def test_a_wrapper_is_wrapped_already(wrapper):
    assert wrap(wrapper) is wrapper


def test_words_behind_an_end_of_text_are_named(wrapper):
    text = "a <|endoftext|> red circle"
    with pytest.warns(UserWarning, match="holds an end of text.*'red', 'circle' behind it cannot"):
        batch = wrapper.prepare(PICTURE, text)
    (axis,) = batch.axes_b
    assert [axis.labels[t] for t, special in enumerate(axis.special) if special][1] == text[2:15]
    with pytest.warns(UserWarning, match="end of text"):
        imap = explain(wrapper, batch.inputs[0], text, n_steps=2)
    assert dict(imap.word_weights())["circle"] == 0.0


def test_texts_without_one_warn_of_nothing(wrapper, recwarn):
    wrapper.prepare([PICTURE] * 2, ["a", "a red circle!"])
    assert not len(recwarn)
