"""The arrays that the published program returns."""

from __future__ import annotations

import pytest
import torch

from captum_interactions import SecondOrderIntegratedGradients, wrap
from tests.data.tiny_clip import CASES, load_case

BOS, EOS = 49406, 49407


@pytest.fixture(scope="module", params=CASES, ids=[path.stem for path in CASES])
def case(request):
    return load_case(request.param)


@pytest.fixture(scope="module")
def explained(case):
    """(map (Ta, Tb), its delta, index of EOS) with the program's options."""
    model, arrays = case
    pixels, ids = (torch.from_numpy(arrays[name]) for name in ("pixel_values", "input_ids"))
    baseline = torch.zeros_like(ids)
    baseline[0, 0], baseline[0, 2] = BOS, EOS
    soig = SecondOrderIntegratedGradients(
        wrap(model),
        layers=(int(arrays["spec_vlayer"]), int(arrays["spec_tlayer"])),
        normalization="frozen",
    )
    attributions, delta = soig.attribute(
        (pixels, ids),
        baselines=(0.0, baseline),
        n_steps=int(arrays["spec_N"]),
        method="riemann_right",
        return_convergence_delta=True,
    )
    return attributions[0], delta, ids[0].tolist().index(EOS)


def test_cases_are_there():
    assert len(CASES) == 2


def test_attributions(case, explained):
    attributions, _, eos = explained
    theirs = torch.from_numpy(case[1]["attributions"])  # (tokens, rows, columns)
    ours = attributions[1:, : eos + 1].T.reshape(theirs.shape)
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_nothing_is_left_out_but_padding(explained):
    attributions, _, eos = explained
    assert attributions.shape == (17, 77)
    assert attributions[:, eos + 1 :].count_nonzero() == 0
    assert attributions[0].abs().max() > 0  # the class token's, which they drop


def test_the_score(case):
    model, arrays = case
    with torch.no_grad():
        score = wrap(model)(*(torch.from_numpy(arrays[k]) for k in ("pixel_values", "input_ids")))
    assert score.item() == pytest.approx(arrays["similarity"][0], abs=1e-6)
