"""The checker on wrappers that are wrong in one way each: it says which."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn

from captum_interactions import CallableTower, check_wrapper, wrap
from captum_interactions.encoders import TowerInputs
from captum_interactions.encoders.towers.text_tower import TextTower
from tests import models, tokenizers
from tests.families import text_config
from tests.models import Sentences

IDS, MASK = torch.tensor([[3, 1, 4, 1], [5, 9, 0, 0]]), torch.tensor([[1.0] * 4, [1, 1, 0, 0]])


class Random(Sentences):
    def encode(self, inputs, mask):
        return super().encode(inputs, mask) + torch.randn(5)


class DependsOnTheBatch(Sentences):
    def encode(self, inputs, mask):
        embedding = super().encode(inputs, mask)
        return embedding - 0.5 * embedding.mean(0)


class NotFinite(Sentences):
    def encode(self, inputs, mask):
        return super().encode(inputs, mask) / 0


class WrongShape(Sentences):
    def encode(self, inputs, mask):
        return super().encode(inputs, mask).unsqueeze(1)


class Fails(Sentences):
    def encode(self, inputs, mask):
        raise RuntimeError("out of paper")


class OwnBaseline(Sentences):
    def baseline(self, inputs, mask):
        return inputs


class ShortBaseline(Sentences):
    def baseline(self, inputs, mask):
        return inputs[:, :1]


class RestlessBaseline(Sentences):
    def baseline(self, inputs, mask):
        return (inputs + 1) % 10


class ZeroAtBaseline(Sentences):
    def encode(self, inputs, mask):
        return super().encode(inputs, mask) * inputs.any(1, keepdim=True)


class OtherTail(Sentences):
    def tail(self, layer, states, mask):
        return super().tail(layer, states, mask) + layer


class DeafTail(Sentences):
    def prefix(self, layer, inputs, mask):
        states, _ = super().prefix(layer, inputs, mask)
        return states, (mask, inputs)

    def tail(self, layer, states, mask, inputs=None):
        return super().tail(layer, states if inputs is None else self.embedding(inputs), mask)

    def encode(self, inputs, mask):
        return Sentences.tail(self, 0, self.embedding(inputs), mask)


class FlatStates(Sentences):
    def prefix(self, layer, inputs, mask):
        states, context = super().prefix(layer, inputs, mask)
        return states.flatten(1), context

    def encode(self, inputs, mask):
        return self.tail(0, self.embedding(inputs), mask)


class NoEntry(Sentences):
    def prefix(self, layer, inputs, mask):
        if layer == 1:
            raise KeyError("block")
        return super().prefix(layer, inputs, mask)


class HidesTokens(Sentences):
    def token_mask(self, inputs, mask):
        return (mask > 0) & (torch.arange(inputs.shape[1]) != 1)


class MaskOfAnotherSize(Sentences):
    def token_mask(self, inputs, mask):
        return torch.ones(len(inputs), 2)


class FoldsBackwards(Sentences):
    def fold(self, layer, attribution):
        return attribution.sum(-1).flip(1)


class RoundedTail(Sentences):
    def tail(self, layer, states, mask):
        embedding = super().tail(layer, states, mask)
        return (4 * embedding).round() / 4 + 0.01 * embedding


class Bypass(Sentences):
    """The embedding of the ids is added behind the hidden states."""

    def prefix(self, layer, inputs, mask):
        return super().prefix(layer, inputs, mask)[0], (mask, inputs)

    def tail(self, layer, states, mask, inputs):
        return super().tail(layer, states, mask) + self.head(self.embedding(inputs).mean(1))

    def encode(self, inputs, mask):
        return self.tail(0, self.embedding(inputs), mask, inputs)


class Constant(Sentences):
    def encode(self, inputs, mask):
        return super().encode(0 * inputs, mask)


class WrongAxes(Sentences):
    def prepare(self, raw, *, truncation=False):
        inputs, extras, axes = super().prepare(raw)
        return TowerInputs(inputs, extras, axes[:1] * len(axes))


class BaselineOfTheBatch(Sentences):
    def baseline(self, inputs, mask):
        return inputs.min(0, keepdim=True).values.expand_as(inputs)


class Wide(Sentences):
    def tail(self, layer, states, mask):
        return super().tail(layer, states, mask).repeat(1, 2)


class LeavesAHook(Sentences):
    def prefix(self, layer, inputs, mask):
        self.head.register_forward_hook(lambda *_: None)
        return super().prefix(layer, inputs, mask)


@pytest.mark.parametrize(
    ("tower", "complaint"),
    [
        (Random, "encoder a: the same input has another embedding the second time"),
        (DependsOnTheBatch, "encoder a: input 0 has another embedding by itself"),
        (NotFinite, "encoder a: an embedding is not finite"),
        (WrongShape, r"encoder a: embeddings must have shape (2, K), but have (2, 1, 5)"),
        (Fails, "encoder a: it cannot encode: RuntimeError: out of paper"),
        (OwnBaseline, "encoder a: the baseline is the input itself"),
        (ShortBaseline, "encoder a: the baseline has shape (2, 1), the input (2, 4)"),
        (RestlessBaseline, "encoder a: the baseline of the baseline is another one"),
        (ZeroAtBaseline, "encoder a: the embedding of the baseline is zero"),
        (OtherTail, "at layer 1, the rest of the encoder does not make the model's own embedding"),
        (DeafTail, "at layer 0, the embedding does not depend on the hidden states"),
        (FlatStates, "at layer 0, hidden states must have shape (2, T, D), but have (2, 16)"),
        (NoEntry, "encoder a: layer 1 cannot be entered: KeyError: 'block'"),
        (HidesTokens, "at layer 0, tokens that the token mask leaves out reach the embedding"),
        (MaskOfAnotherSize, "at layer 0, the token mask has shape (2, 2) for hidden states"),
        (FoldsBackwards, "at layer 0, fold and spread put features into different tokens"),
        (RoundedTail, "the map misses what it should sum to by"),
        (LeavesAHook, "the model is not as it was"),
        (Bypass, "the rest of the encoder depends on more than hidden states"),
        (Constant, "encoder a: all inputs and the baseline have the same embedding"),
        (WrongAxes, "at layer 0, the axes have padding at other tokens than the token mask"),
        (BaselineOfTheBatch, "encoder a: input 0 has another baseline by itself"),
        (Wide, "the encoders embed into spaces of 10 and of 5 dimensions"),
    ],
)
def test_what_is_wrong_is_said(tower, complaint):
    problems = check_wrapper(wrap((tower(), Sentences())), (IDS, MASK), (IDS.flip(0), MASK.flip(0)))
    assert any(complaint in problem for problem in problems), problems


def test_the_second_encoder_is_checked_too():
    problems = check_wrapper(wrap((Sentences(), OtherTail())), (IDS, MASK), (IDS, MASK))
    assert problems == [
        "encoder b: at layer 1, the rest of the encoder does not make the model's own embedding"
    ]


def test_nothing_is_wrong():
    assert (
        check_wrapper(wrap((Sentences(), Sentences())), (IDS, MASK), (IDS.flip(0), MASK.flip(0)))
        == []
    )


def test_models_without_second_derivatives_and_callables():
    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return gradient * x.cos()

    linear = models.randomise(nn.Linear(4, 3))
    wrapper = wrap((CallableTower(lambda x: Fused.apply(linear(x))), linear))
    assert check_wrapper(wrapper, torch.rand(2, 4), torch.rand(2, 4)) == []


def test_it_needs_inputs():
    wrapper = wrap((nn.Linear(4, 3), nn.Linear(4, 3)))
    with pytest.raises(NotImplementedError, match="no inputs are known for CallableTower"):
        check_wrapper(wrapper)
    with pytest.raises(ValueError, match="two inputs or more on each side, but got one"):
        check_wrapper(wrapper, torch.rand(1, 4), torch.rand(1, 4))


SIZE = text_config(num_key_value_heads=1, head_dim=6, max_position_embeddings=32)


@pytest.mark.parametrize("ready", [False, True], ids=["texts", "ids"])
@pytest.mark.parametrize(
    ("kind", "pooling", "options"),
    [
        ("Qwen3", "last", SIZE),
        ("EuroBert", "mean", SIZE),
        ("Gemma3Text", "mean", SIZE | {"use_bidirectional_attention": True}),
    ],
)
def test_texts_that_are_padded_in_front(kind, pooling, options, ready):
    """Tokens are compared that are no padding, wherever they stand in their row."""
    tokenizer = tokenizers.qwen()
    tokenizer.padding_side = "left"
    config = getattr(transformers, f"{kind}Config")(**options | {"vocab_size": len(tokenizer)})
    model = models.randomise(getattr(transformers, f"{kind}Model")(config))
    wrapper = wrap(model, tokenizer, pooling=pooling)
    texts = wrapper.tower_a.prepare(["a dog", "two small birds"])
    assert texts.axes[0].padding[0]
    given = (texts.inputs, *texts.extras) if ready else ["a dog", "two small birds"]
    assert check_wrapper(wrapper, given, given) == []


def test_padding_that_leaks_is_found():
    """A model that does not look at its mask."""

    class Careless(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
            self.embedding = nn.Embedding(10, 4)

        def forward(self, ids):
            states = self.embedding(ids)
            for layer in self.layers:
                states = states + layer(states).tanh()
            return states.mean(1)

    tower = TextTower(
        models.randomise(Careless()),
        lambda model, ids, mask=None: model(ids),
        ["layers.0", "layers.1"],
        config=SimpleNamespace(vocab_size=10, pad_token_id=0, bos_token_id=1, eos_token_id=2),
    )
    ids = torch.tensor([[1, 5, 6, 7, 2], [1, 8, 2, 0, 0]])
    problems = check_wrapper(wrap((tower, tower)), (ids, ids != 0), (ids, ids != 0))
    assert any("input 1 has another embedding by itself" in problem for problem in problems)
    assert any("tokens that the token mask leaves out reach" in problem for problem in problems)


def test_a_model_of_texts_that_masks_nothing():
    """Its function takes no mask, so there is none, and texts of one length are checked."""

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.embeddings = nn.Embedding(10, 4)
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

        def forward(self, ids):
            states = self.embeddings(ids)
            for layer in self.layers:
                states = layer(states).tanh()  # all that the next block gets
            return states.mean(1)

    tower = TextTower(
        models.randomise(Plain()),
        lambda model, ids: model(ids),
        ["layers.0", "layers.1"],
        ["embeddings"],
        config=SimpleNamespace(vocab_size=10, pad_token_id=0),
    )
    wrapper = wrap((tower, tower))
    assert tower.extra_names == ()
    assert wrapper.prepare(*[torch.tensor([[1, 2, 3]])] * 2).additional_forward_args == ()
    assert check_wrapper(wrapper) == []


def test_it_takes_wrappers_alone():
    with pytest.raises(TypeError, match="takes a DualEncoderWrapper, but got Linear: wrap the"):
        check_wrapper(nn.Linear(3, 3))
