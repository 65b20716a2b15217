"""ColPali and ColQwen2 of ``transformers``, small and random, against their processors' scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    ColPaliConfig,
    ColPaliForRetrieval,
    ColPaliProcessor,
    ColQwen2Config,
    ColQwen2ForRetrieval,
    ColQwen2Processor,
    PaliGemmaConfig,
    Qwen2VLConfig,
)

try:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
except ImportError:
    pytest.skip("this version has no image processors without torchvision", allow_module_level=True)

from captum_interactions import (
    SecondOrderIntegratedGradients,
    check_wrapper,
    explain,
    from_pretrained,
    wrap,
)
from captum_interactions.axes import ImageAxis
from captum_interactions.functional import quadrature
from captum_interactions.visualization import plot_heatmap
from tests import models, tokenizers
from tests.expected import relative_error
from tests.oracle import entering, replaced_input, token_map

QUERIES = ["a red circle", "the blue hat is open"]
SIZES = {"hidden_size": 12, "intermediate_size": 24, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}


def page(height, width, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


PAGES = [page(24, 16, 0), page(16, 32, 1)]


def colpali():
    tokenizer = tokenizers.FAST["Gemma"]()
    images = SiglipImageProcessorPil(size={"height": 12, "width": 12})
    images.image_seq_length = 9
    processor = ColPaliProcessor(images, tokenizer)
    text = {"model_type": "gemma", "head_dim": 6, **SIZES, **HEADS}
    text |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    vision = {"model_type": "siglip_vision_model", "image_size": 12, "patch_size": 4, **SIZES}
    vision |= {"num_attention_heads": 2, "projection_dim": 12, "vision_use_head": False}
    whole = PaliGemmaConfig(
        text_config=text,
        vision_config=vision,
        projection_dim=12,
        hidden_size=12,
        image_token_index=processor.image_token_id,
    )
    model = models.randomise(ColPaliForRetrieval(ColPaliConfig(vlm_config=whole, embedding_dim=7)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and "vision" not in name:
                parameter.sub_(1.0)  # Gemma's norms scale by one more than their weight
    return model, processor


def colqwen():
    added = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
    split = tokenizers.Split(tokenizers.Regex(tokenizers.QWEN), "isolated")
    parts = tokenizers.Sequence([split, tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer = tokenizers.byte_level(parts, None, "<|endoftext|>", *added)
    images = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 256, "longest_edge": 1024}, patch_size=4, merge_size=2
    )
    processor = ColQwen2Processor(images, tokenizer)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 1]}
    text = {"model_type": "qwen2_vl_text", "rope_parameters": rope, **SIZES, **HEADS}
    vision = {"embed_dim": 8, "hidden_size": 12, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
    start, end, image = tokenizer.convert_tokens_to_ids(list(added[2:]))
    whole = Qwen2VLConfig(
        text_config={**text, "vocab_size": len(tokenizer)},
        vision_config={**vision, "patch_size": 4, "spatial_merge_size": 2},
        image_token_id=image,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    model = ColQwen2ForRetrieval(ColQwen2Config(vlm_config=whole, embedding_dim=7))
    return models.randomise(model), processor


KINDS = {"ColPali": colpali, "ColQwen2": colqwen}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model_and_processor(kind):
    return KINDS[kind]()


@pytest.fixture(scope="module")
def wrapper(model_and_processor):
    return wrap(*model_and_processor)


def embeddings(model, inputs):
    inputs.pop("labels", None)
    with torch.no_grad():
        return list(model(**inputs).embeddings)


def own_scores(model, processor, queries, pages):
    own = (processor.process_queries(queries), processor.process_images(pages))
    return processor.score_retrieval(*(embeddings(model, side) for side in own)).diag()


def scores_of(wrapper, queries, pages):
    batch = wrapper.prepare(queries, pages)
    with torch.no_grad():
        return wrapper(*batch.inputs, *batch.additional_forward_args)


def test_its_own_scores(model_and_processor, wrapper):
    expected = own_scores(*model_and_processor, QUERIES, PAGES)
    torch.testing.assert_close(scores_of(wrapper, QUERIES, PAGES), expected)
    for query, image, score in zip(QUERIES, PAGES, expected, strict=True):
        torch.testing.assert_close(scores_of(wrapper, query, image)[0], score)


def test_is_right_at_every_layer(wrapper):
    assert check_wrapper(wrapper, QUERIES, PAGES, n_steps=100) == []


@pytest.mark.parametrize("layer", [0, 1])
def test_against_the_slow_oracle(model_and_processor, wrapper, layer):
    """With hooks on the language model alone, on what the processor itself gives."""
    model, processor = model_and_processor
    batch = wrapper.prepare(QUERIES[0], PAGES[0])
    inputs = (processor.process_queries(QUERIES[:1]), processor.process_images(PAGES[:1]))
    first, second = (embeddings(model, side)[0] for side in inputs)
    winners = [max(range(len(second)), key=(second @ query).__getitem__) for query in first]
    extras = wrapper.split_additional(batch.additional_forward_args)
    towers = wrapper.tower_a, wrapper.tower_b
    block = model.vlm.language_model.layers[layer]
    functions, paths = [], []
    for index, (name, own) in enumerate(
        (("input_ids", list(range(len(first)))), ("pixel_values", winners))
    ):
        side = inputs[index]
        own_baseline = towers[index].baseline(batch.inputs[index], *extras[index])
        baseline = {**side, name: own_baseline}

        def function(states, side=side, own=tuple(own)):
            rows = []
            for state in states:  # one at a time
                with replaced_input(block, state.unsqueeze(0)):
                    rows.append(model(**side, use_cache=False).embeddings[0][list(own)].flatten())
            return torch.stack(rows)

        functions.append(function)
        paths.append(
            tuple(
                entering(block, lambda x=x: model(**x, use_cache=False))[0]
                for x in (baseline, side)
            )
        )
    expected = token_map(*functions, *paths, *quadrature("gausslegendre", 3))
    soig = SecondOrderIntegratedGradients(wrapper, (layer, layer), normalization="none")
    actual = soig.attribute(batch.inputs, None, None, batch.additional_forward_args, 3)
    assert relative_error(actual[0], expected) < 1e-4  # float32, through norms of small states


def test_a_map_of_words_and_places(kind, wrapper):
    imap = explain(wrapper, QUERIES[0], PAGES[0], layers=(-1, -1), n_steps=60)
    assert [word.text for word in imap.axis_a.words] == ["a", "red", "circle"]
    assert isinstance(imap.axis_b, ImageAxis)
    assert imap.axis_b.grid == {"ColPali": (3, 3), "ColQwen2": (3, 2)}[kind]
    heat = imap.heatmap("red")
    assert heat.shape == imap.axis_b.grid
    plot_heatmap(imap, "red")
    n_counted = {"ColPali": 24, "ColQwen2": 20}[kind]
    assert len(imap.settings["matches"]) == n_counted
    # Prompts and suffixes are special, and equal in the baseline.
    special = torch.tensor(imap.axis_a.special)
    assert special.sum() == n_counted - sum(len(w.tokens) for w in imap.axis_a.words)


def test_a_map_of_pixels(wrapper):
    """At the input of the vision model a token has the pixels of its cell."""
    batch = wrapper.prepare(QUERIES[0], PAGES[0])
    soig = SecondOrderIntegratedGradients(wrapper, (-1, "input"), normalization="none")
    args = batch.inputs, None, None, batch.additional_forward_args, 4
    whole = soig.attribute(*args, full_resolution="b")
    cells = soig.attribute(*args)
    rows, columns = batch.axes_b[0].grid
    assert cells.shape == (1, len(batch.axes_a[0]), rows * columns)
    assert relative_error(whole.flatten(2).sum(-1), cells.sum(-1)) < 1e-4
    assert wrapper.tower_b.axis_at("input", batch.axes_b[0], rows * columns).grid == (rows, columns)


def test_longer_than_the_context(wrapper):
    with pytest.raises(ValueError, match="the model's context holds 64"):
        wrapper.prepare("a red circle " * 30, PAGES[0])
    with pytest.raises(ValueError, match="text 0 is empty"):
        wrapper.prepare(" ", PAGES[0])
    with pytest.raises(ValueError, match="text 1 holds no visible character"):
        wrapper.prepare(["red", "\u200b"], [PAGES[0]] * 2)


def test_queries_in_a_tuple_are_those_in_a_list(wrapper):
    of_list, of_tuple = (wrapper.tower_a.prepare(kind(QUERIES)) for kind in (list, tuple))
    assert torch.equal(of_list.inputs, of_tuple.inputs)
    assert of_list.axes == of_tuple.axes


def test_the_model_has_its_name(wrapper):
    assert "ForRetrieval" in wrapper.model_name


def test_needs_its_processor(model_and_processor):
    model, processor = model_and_processor
    with pytest.raises(TypeError, match="needs its processor, .* but got NoneType"):
        wrap(model)
    with pytest.raises(TypeError, match="pooling='mean' is not for Col"):
        wrap(model, processor, pooling="mean")


def test_patches_as_tensors(kind, model_and_processor, wrapper):
    model, processor = model_and_processor
    inputs = processor.process_images(PAGES)
    inputs.pop("labels", None)
    given = inputs["pixel_values"] if kind == "ColPali" else dict(inputs)
    expected = own_scores(model, processor, QUERIES, PAGES)
    torch.testing.assert_close(scores_of(wrapper, QUERIES, given), expected)
    if kind == "ColQwen2":
        with pytest.raises(ValueError, match="patches of pages need input_ids, attention_mask, im"):
            wrapper.tower_b.encoder.check(inputs["pixel_values"])
        with pytest.raises(ValueError, match=r"floats of shape \(B, N, pixels\), but got torch.fl"):
            wrapper.tower_b.encoder.check(inputs["pixel_values"][0])
        with pytest.raises(ValueError, match="patches of pages need input_ids, attention_mask, im"):
            wrapper.tower_b.prepare(inputs["pixel_values"])


def test_by_name(model_and_processor, tmp_path):
    for part in model_and_processor:
        part.save_pretrained(tmp_path)
    wrapper = from_pretrained(tmp_path)
    # Its image processor may be of another kind, whose resized pixels differ a little.
    processor = AutoProcessor.from_pretrained(tmp_path)
    expected = own_scores(model_and_processor[0], processor, QUERIES, PAGES)
    torch.testing.assert_close(scores_of(wrapper, QUERIES, PAGES), expected)
