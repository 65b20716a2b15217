"""Bad input: each error says what came and what was expected."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from captum_interactions import (
    CallableTower,
    DualEncoderWrapper,
    SecondOrderIntegratedGradients,
    from_pretrained,
    wrap,
)
from tests import models

PIXELS, (IDS, MASK) = models.images(2), models.captions(7, 5)
PICTURE = Image.new("RGB", (20, 30))
NAN = float("nan")


@pytest.fixture(scope="module")
def soig(wrapper):
    return SecondOrderIntegratedGradients(wrapper)


@pytest.fixture(scope="module")
def of_callables():
    return SecondOrderIntegratedGradients(wrap((models.mlp(6), models.mlp(9, seed=1))))


@pytest.fixture(scope="module")
def with_processor():
    return wrap(*models.clip_with_processor())


def at(tensor, index, value):
    tensor = tensor.clone()
    tensor[index] = value
    return tensor


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (PIXELS, TypeError, r"inputs must be a tuple of two tensors \(a, b\), but got Tensor"),
        ([PIXELS, IDS], TypeError, "a tuple of two tensors .* but got list"),
        ((PIXELS,), TypeError, "a tuple of two tensors .* but got 1 of them"),
        ((PIXELS, IDS, MASK), TypeError, "a tuple of two tensors .* but got 3 of them"),
        ((PIXELS, "a red circle"), TypeError, "input b must be a tensor, but got str"),
        ((PIXELS.numpy(), IDS), TypeError, "input a must be a tensor, but got ndarray"),
        (
            (PIXELS[:1], IDS),
            ValueError,
            r"as many rows in a as in b, but got shapes \(1, 3, 12, 12\) and \(2, 7\)",
        ),
        ((PIXELS[0], IDS[0]), ValueError, r"as many rows in a as in b, .*\(3, 12, 12\) and \(7,\)"),
        (
            (PIXELS[:, 0], IDS),
            ValueError,
            r"floats of shape \(B, 3, height, width\), but got torch.float32 .* \(2, 12, 12\)",
        ),
        ((PIXELS[:, :2], IDS), ValueError, r"\(B, 3, height, width\), .* \(2, 2, 12, 12\)"),
        ((PIXELS.long(), IDS), ValueError, "pixel values must be floats .* got torch.int64"),
        ((PIXELS[..., :3], IDS), ValueError, r"at least one patch of \(4, 4\).*\(2, 3, 12, 3\)"),
        ((PIXELS[:0], IDS[:0]), ValueError, r"input a must have .* has shape \(0, 3, 12, 12\)"),
        ((PIXELS, IDS[:, :0]), ValueError, r"input b must have .* has shape \(2, 0\)"),
        ((PIXELS, IDS[:, :, None]), ValueError, r"of shape \(B, T\), .* of shape \(2, 7, 1\)"),
        ((PIXELS, IDS[:, 0]), ValueError, r"input b must have an axis of examples .* shape \(2,\)"),
        ((PIXELS, IDS > 3), ValueError, r"whole numbers of shape \(B, T\), but got torch.bool"),
        ((PIXELS, IDS + 0.5), ValueError, "whole numbers, but got torch.float32 with fractions"),
        ((PIXELS, IDS + 40), ValueError, "token ids must be from 0 to 63, but lie from 40 to 103"),
        ((PIXELS, IDS - 1), ValueError, "token ids must be from 0 to 63, but lie from -1 to 62"),
        (
            (PIXELS, IDS[:, :6]),
            ValueError,
            r"row 0 of the token ids has no end-of-text token \(id 63\)",
        ),
        (
            (PIXELS, models.caption(17).repeat(2, 1)),
            ValueError,
            "the text has 17 tokens, but the model's context holds 16",
        ),
        ((PIXELS.to("meta"), IDS), TypeError, "input a is on meta, but its encoder is on cpu"),
        ((PIXELS, IDS.to("meta")), TypeError, "input b is on meta, but its encoder is on cpu"),
        ((at(PIXELS, (1, 0, 0, 0), NAN), IDS), ValueError, "input a holds NaN or infinite values"),
        ((at(PIXELS, (1, 0, 0, 0), np.inf), IDS), ValueError, "input a holds NaN or infinite"),
    ],
)
def test_inputs_of_clip(soig, inputs, error, message):
    with pytest.raises(error, match=message):
        soig.attribute(inputs)
    if isinstance(inputs, tuple) and len(inputs) == 2 and "rows in a" not in message:
        with pytest.raises(error, match=message):
            soig.decompose(inputs)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (
            (torch.rand(2, 6).double(), torch.rand(2, 9)),
            TypeError,
            "inputs are torch.float64, but the encoder's parameters are torch.float32",
        ),
        ((torch.rand(2, 6).half(), torch.rand(2, 9)), TypeError, "inputs are torch.float16, but"),
        (
            (torch.ones(2, 6).long(), torch.rand(2, 9)),
            ValueError,
            "layer 'input' needs real-valued inputs, .* got torch.int64: take embeddings",
        ),
        ((torch.rand(2), torch.rand(2, 9)), ValueError, r"input a must have .* has shape \(2,\)"),
        ((torch.rand(()), torch.rand(())), ValueError, r"input a must have .* has shape \(\)"),
        ((torch.rand(2, 5), torch.rand(2, 9)), RuntimeError, "2x5 and 6x16"),
    ],
)
def test_inputs_of_callables(of_callables, inputs, error, message):
    with pytest.raises(error, match=message):
        of_callables.attribute(inputs)


@pytest.mark.parametrize(
    ("additional", "message"),
    [
        (MASK[:, :4], r"attention mask .* shape of the token ids \(2, 7\), but got \(2, 4\)"),
        (
            MASK[:1],
            r"attention_mask of encoder b must have 2 rows on cpu, .* shape \(1, 7\) on cpu",
        ),
        (MASK.to("meta"), r"attention_mask of encoder b must have 2 rows on cpu, .* on meta"),
        (
            (MASK, MASK),
            r"the towers take 1 additional arguments \(attention_mask\), but got 2",
        ),
    ],
)
def test_additional_arguments(soig, additional, message):
    with pytest.raises(ValueError, match=message):
        soig.attribute((PIXELS, IDS), additional_forward_args=additional)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "simpson"}, "method must be one of gausslegendre, .* but got 'simpson'"),
        ({"n_steps": 0}, "n_steps must be an int of at least 1 for gausslegendre, but got 0"),
        ({"n_steps": -5}, "at least 1 .* but got -5"),
        ({"n_steps": 1, "method": "riemann_trapezoid"}, "at least 2 .* but got 1"),
        ({"internal_batch_size": 0}, "internal_batch_size must be at least 1, but got 0"),
        ({"target": 1}, "target must be None, because a similarity has a single output, .* got 1"),
        ({"full_resolution": "image"}, "full_resolution must be None, 'a' or 'b', .* got 'image'"),
    ],
)
def test_options(soig, options, message):
    with pytest.raises(ValueError, match=message):
        soig.attribute((PIXELS, IDS), **options)


def test_target_of_the_delta(soig):
    with pytest.raises(ValueError, match="target must be None"):
        soig.compute_convergence_delta(torch.ones(2, 10, 7), None, (PIXELS, IDS), target=0)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            (3, 0),
            "input a: layer must be an int from -3 to 2, or 'input' for ImageTower, but got 3",
        ),
        (
            (0, -4),
            "input b: layer must be an int from -3 to 2, or 'input' for TextTower, but got -4",
        ),
        ((0, "last"), "layer must be .* but got 'last'"),
        ((0.0, 0), "layer must be .* but got 0.0"),
        ((True, 0), "layer must be .* but got True"),
        (0, r"layers must be a pair \(layer_a, layer_b\), but got 0"),
        ([0, 0], r"layers must be a pair \(layer_a, layer_b\), but got \[0, 0\]"),
        ((0, 0, 0), r"layers must be a pair \(layer_a, layer_b\), but got \(0, 0, 0\)"),
    ],
)
def test_layers(wrapper, layers, message):
    with pytest.raises(ValueError, match=message):
        SecondOrderIntegratedGradients(wrapper, layers)


def test_layers_of_callables_are_their_inputs():
    says = "input a: layer must be 'input' for CallableTower, but got 0"
    with pytest.raises(ValueError, match=says):
        SecondOrderIntegratedGradients(wrap((models.mlp(6), models.mlp(9))), (0, "input"))


def test_ids_cannot_be_integrated(wrapper):
    soig = SecondOrderIntegratedGradients(wrapper, (0, "input"))
    message = "layer 'input' needs real-valued inputs, but TextTower got torch.int64: use layer 0"
    with pytest.raises(ValueError, match=message):
        soig.attribute((PIXELS, IDS))


def test_what_is_explained(clip):
    with pytest.raises(TypeError, match="takes a DualEncoderWrapper .* but got CLIPModel"):
        SecondOrderIntegratedGradients(clip)


def test_normalization(wrapper):
    with pytest.raises(ValueError, match="'cosine', 'frozen' or 'none', but got 'l2'"):
        SecondOrderIntegratedGradients(wrapper, normalization="l2")


@pytest.mark.parametrize("value", [NAN, float("inf")])
@pytest.mark.parametrize("side", ["a", "b"])
def test_embeddings_that_are_not_finite(side, value):
    def broken(x):
        return x * torch.where(x > 0.5, value, 1.0)

    pair = (broken, nn.Identity()) if side == "a" else (nn.Identity(), broken)
    soig = SecondOrderIntegratedGradients(wrap(pair), normalization="none")
    inputs = torch.tensor([[0.1, 0.9]]), torch.tensor([[0.1, 0.9]])
    with pytest.raises(ValueError, match=f"embedding of input {side} holds NaN or infinite values"):
        soig.attribute(inputs)
    with pytest.raises(ValueError, match=f"embedding of baseline {side} holds NaN or infinite"):
        soig.attribute(tuple(x / 2 for x in inputs), 0.6)


@pytest.mark.parametrize(
    ("normalization", "side", "inputs"),
    [
        ("cosine", "input a", (torch.zeros(1, 2), torch.ones(1, 2))),
        ("frozen", "input b", (torch.ones(1, 2), torch.zeros(1, 2))),
        ("cosine", "baseline a", (torch.ones(1, 2), torch.ones(1, 2))),
    ],
)
def test_an_embedding_of_zero_has_no_direction(normalization, side, inputs):
    pair = (nn.Linear(2, 3, bias=False), nn.Linear(2, 3, bias=False))
    soig = SecondOrderIntegratedGradients(wrap(pair), normalization=normalization)
    with pytest.raises(ValueError, match=f"the embedding of {side} is zero, which has no cosine"):
        soig.attribute(inputs)


def test_towers_of_different_spaces():
    soig = SecondOrderIntegratedGradients(wrap((nn.Linear(2, 3), nn.Linear(2, 4))))
    with pytest.raises(ValueError, match=r"same space, but .* \(1, 3\) and \(1, 4\)"):
        soig.attribute((torch.ones(1, 2), torch.ones(1, 2)))


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (lambda x: x.sum(1), r"\(2, 4\) to embeddings of shape \(2, K\), but returned \(2,\)"),
        (lambda x: x[:1], r"\(2, 4\) to embeddings of shape \(2, K\), but returned \(1, 4\)"),
        (lambda x: {"embedding": x}, r"embeddings of shape \(2, K\), but returned dict"),
    ],
)
def test_encoders_that_return_something_else(encoder, message):
    wrapper = wrap((encoder, nn.Identity()))
    inputs = torch.rand(2, 4), torch.rand(2, 4)
    with pytest.raises(ValueError, match=message):
        wrapper(*inputs)
    with pytest.raises(ValueError, match=message):
        SecondOrderIntegratedGradients(wrapper).attribute(inputs)


@pytest.mark.parametrize("has_parameters", [True, False])
def test_an_encoder_that_detaches(has_parameters):
    head = nn.Linear(4, 4) if has_parameters else nn.Identity()
    wrapper = wrap((lambda x: head(x.detach()), nn.Linear(4, 4)))
    with pytest.raises(ValueError, match="does not depend differentiably on its input"):
        SecondOrderIntegratedGradients(wrapper, normalization="frozen").attribute(
            (torch.rand(1, 4), torch.rand(1, 4))
        )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(2, 2), "Linear is not a dual encoder of a known kind.*as a pair of callables"),
        (
            models.classifier(),
            "BertForSequenceClassification is not a dual encoder of a known kind",
        ),
        (None, "NoneType is not a dual encoder"),
        ((nn.Linear(2, 2),), "tuple is not a dual encoder"),
        ((nn.Linear(2, 2), 3), "tuple is not a dual encoder"),
    ],
)
def test_wrapping(model, message):
    with pytest.raises(TypeError, match=message):
        wrap(model)


def test_a_directory_without_a_model(tmp_path):
    with pytest.raises(OSError, match="no model could be loaded from '.*nowhere'"):
        from_pretrained(tmp_path / "nowhere", local_files_only=True)
    with pytest.raises(OSError, match="no model could be loaded from"):
        from_pretrained(tmp_path, local_files_only=True)


def test_a_directory_of_another_model(tmp_path):
    models.clip().text_model.save_pretrained(tmp_path)
    says = r"the folder has no processor; save it there with .*wrap\(model, processor"
    with pytest.raises(OSError, match=f"no processor could be loaded from .*: {says}"):
        from_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    says = r"no processor could be loaded from .*wrap\(model, processor"
    with pytest.raises(OSError, match=says) as e:
        from_pretrained(tmp_path)
    assert "has no processor" not in str(e.value)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ("nowhere.png", FileNotFoundError, "there is no image file at 'nowhere.png'"),
        (".", FileNotFoundError, "there is no image file at '.'"),
        (3, TypeError, "PIL image, a path, a uint8 array or a tensor, but got int"),
        ([PICTURE, None], TypeError, "a uint8 array or a tensor, but got NoneType"),
        ([], ValueError, "expected at least one image, but got an empty list"),
        (np.zeros((4, 4, 3)), ValueError, r"must be uint8 .* but got float64 of shape \(4, 4, 3\)"),
        (np.zeros((4, 4, 2), np.uint8), ValueError, r"but got uint8 of shape \(4, 4, 2\)"),
        (np.zeros(4, np.uint8), ValueError, r"but got uint8 of shape \(4,\)"),
        (PIXELS[0], ValueError, r"shape \(B, 3, height, width\), but .* shape \(3, 12, 12\)"),
    ],
)
def test_images(with_processor, image, error, message):
    with pytest.raises(error, match=message):
        with_processor.prepare(image, "a red circle")


@pytest.mark.parametrize("content", [b"", b"this is no image", None])
def test_unreadable_image_files(with_processor, tmp_path, content):
    path = tmp_path / "picture.png"
    if content is None:  # cut off in the middle
        Image.effect_noise((50, 50), 100).save(path)
        content = path.read_bytes()[:500]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"picture.png' cannot be read as an image"):
        with_processor.prepare(path, "a red circle")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", ValueError, "text 0 is empty: ''"),
        (["a", "  "], ValueError, "text 1 is empty: '  '"),
        ([], ValueError, "expected at least one text"),
        ((), ValueError, "expected at least one text"),
        (3, TypeError, "a text is a string or a list of strings, but got 3"),
        (["a", "a"], ValueError, "as many first as second inputs, but got 1 and 2"),
        ("a " * 30, ValueError, "text 0 has 32 tokens .* holds 16; .* truncation=True: 'a a"),
        (IDS[0], ValueError, r"of shape \(B, T\), but got torch.int64 of shape \(7,\)"),
        (IDS, ValueError, "row 0 of the token ids has no end-of-text token"),
    ],
)
def test_texts(with_processor, text, error, message):
    with pytest.raises(error, match=message):
        with_processor.prepare(PICTURE, text)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (PICTURE, IDS, r"raw images \(Image\) need an image processor, which wrap\(\) was not"),
        (PIXELS, "a red circle", r"raw text \(str\) needs a tokenizer, which wrap\(\) was not"),
    ],
)
def test_raw_inputs_without_a_processor(wrapper, a, b, message):
    with pytest.raises(ValueError, match=message):
        wrapper.prepare(a, b)


def test_callables_take_tensors():
    wrapper = DualEncoderWrapper(CallableTower(nn.Linear(2, 3)), CallableTower(nn.Linear(2, 3)))
    with pytest.raises(TypeError, match="takes ready tensors with the batch first, but got str"):
        wrapper.prepare("a", torch.ones(1, 2))
