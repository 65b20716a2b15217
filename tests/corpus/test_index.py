"""Queries of indexes: against explanations of the same pairs, and against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from captum_interactions import InteractionMap, explain, load_demo, wrap
from captum_interactions.corpus import (
    FactorEncoder,
    FactorIndex,
    build_index,
    explain_hits,
    pair_map,
    scores,
    top_regions,
)
from captum_interactions.functional import Factors
from tests import corpora, models
from tests.expected import relative_error


@pytest.fixture(scope="module")
def wrapper():
    return corpora.small_wrapper()


@pytest.fixture(scope="module")
def indexes(tmp_path_factory):
    return corpora.build_both(tmp_path_factory.mktemp("corpus"))


def assert_same_map(actual: InteractionMap, expected: InteractionMap) -> None:
    largest = float(expected.interactions.abs().max())
    for name in ("interactions", "main_effects_a", "main_effects_b"):
        torch.testing.assert_close(
            getattr(actual, name), getattr(expected, name), rtol=0, atol=1e-5 * largest
        )
    for name in ("constant", "score", "convergence_delta"):
        assert getattr(actual, name) == pytest.approx(getattr(expected, name), abs=1e-5)
    assert actual.axis_a == expected.axis_a
    assert actual.axis_b == expected.axis_b
    # An index does not know where its model came from.
    assert actual.settings["model"] in expected.settings["model"]
    same = expected.settings | {"model": actual.settings["model"]}
    assert same.items() <= actual.settings.items()


@pytest.mark.filterwarnings("ignore:attributions sum to")  # four nodes are few
@pytest.mark.parametrize(("image", "text"), [(0, 0), (4, 2), (7, 6)])
def test_the_map_of_a_pair_is_what_explain_gives(indexes, wrapper, image, text):
    index_a, index_b = indexes
    key = f"image {image}"
    expected = explain(wrapper, corpora.images()[key](), corpora.TEXTS[text], n_steps=4)
    for actual in (
        pair_map(index_a[key], index_b[f"text {text}"]),
        pair_map(index_b[text], index_a[image]),
    ):
        assert_same_map(actual, expected)
    assert actual.convergence_delta != 0


def test_texts_keep_their_own_number_of_tokens(indexes):
    lengths = [len(item.values) for item in map(indexes[1].__getitem__, range(len(indexes[1])))]
    assert len(set(lengths)) > 2
    assert not any(any(indexes[1].axis(row).padding) for row in range(len(lengths)))
    padded = indexes[1].factors().values
    assert padded.shape[1] == max(lengths)
    for row, length in zip(padded, lengths, strict=True):
        assert row[:length].any(1).sum() > 1
        assert row[length:].count_nonzero() == 0


def test_maps_of_an_index_draw_select_and_save(indexes, tmp_path):
    imap = pair_map(indexes[0]["image 1"], indexes[1]["text 0"])
    assert imap.heatmap("red circle").shape == imap.axis_a.grid
    assert [word for word, _ in imap.word_weights((4, 0, 8, 6))] == ["a", "red", "circle"]
    figure, _ = imap.plot("red")
    titles = [axes.get_title() for axes in figure.axes]
    plt.close(figure)
    assert "image" in titles  # the picture itself is shown beside the map
    imap.save(tmp_path / "pair.safetensors")
    loaded = InteractionMap.load(tmp_path / "pair.safetensors")
    assert loaded.axis_a == imap.axis_a
    assert loaded.axis_a.image.size == (20, 12)


def test_images_come_from_their_paths(wrapper, tmp_path):
    paths = {}
    for i in range(2):
        paths[f"{i}"] = tmp_path / f"{i}.png"
        corpora.picture(i).save(paths[f"{i}"])
    build_index(tmp_path / "index", wrapper, paths, side="a", **corpora.OPTIONS)
    index = FactorIndex(tmp_path / "index")
    assert index.source("1") == str(paths["1"])
    assert np.array_equal(np.array(index["1"].axis.image), np.array(corpora.picture(1)))
    whole = index["1"].values
    paths["0"].unlink()
    corpora.picture(1, (20, 20)).save(paths["1"])
    with pytest.warns(UserWarning, match="image of '0' is not shown: there is no image file"):
        assert index["0"].axis.image is None
    with pytest.warns(UserWarning, match=r"of '1' is not shown: .*\(20, 20\) now.*\(12, 12\)"):
        assert index["1"].axis.image is None
    paths["1"].write_bytes(b"no image any more")
    with pytest.warns(UserWarning, match="of '1' is not shown: .*cannot be read as an image"):
        broken = index["1"]
    assert broken.axis.image is None
    assert torch.equal(broken.values, whole)
    given = FactorIndex(tmp_path / "index", inputs={"0": corpora.picture(0)})
    assert given["0"].axis.image is not None
    assert given["1"].axis.image is None


def test_scores_of_all_pairs(indexes, wrapper):
    images = [opener() for opener in corpora.images().values()]
    actual = scores(*indexes)
    assert actual.shape == (8, 7)
    for column, text in enumerate(corpora.TEXTS):
        batch = wrapper.prepare(images, [text] * 8)
        with torch.no_grad():
            expected = wrapper(*batch.inputs, *batch.additional_forward_args)
        torch.testing.assert_close(actual[:, column], expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="sides a and b, but got b and b"):
        scores(indexes[1], indexes[1])


@pytest.mark.parametrize("per_item", [False, True])
@pytest.mark.parametrize("memory_mb", [256.0, 0.003])
def test_the_top_regions_are_those_of_all_maps(indexes, wrapper, per_item, memory_mb):
    """Brute force: the map of every image, its column of the phrase, sorted."""
    index = indexes[0]
    query = FactorEncoder.matching(wrapper, index.settings)("one red circle, a dot")
    phrases = ("red circle", "dot")
    found = top_regions(index, query.factors(*phrases), k=9, per_item=per_item, memory_mb=memory_mb)
    for phrase, regions in zip(phrases, found, strict=True):
        expected = []
        for key in index.keys:
            imap = pair_map(index[key], query)
            values = imap.marginal_a(phrase)[imap.axis_a.patches].tolist()
            patches = [(value, key, patch) for patch, value in enumerate(values)]
            expected += [max(patches)] if per_item else patches
        expected = sorted(expected, reverse=True)[:9]
        assert len(regions) == (8 if per_item else 9)
        for region, (value, key, patch) in zip(regions, expected, strict=True):
            assert region.key == key
            assert region.token == patch + 1  # the class token comes first
            assert region.attribution == pytest.approx(value, abs=1e-6)
            assert region.label == f"patch {patch // 3},{patch % 3}"
    negated = top_regions(index, -query.factors("dot"), k=1)[0][0]
    assert -negated.attribution == pytest.approx(
        min(float(m.marginal_a("dot")[m.axis_a.patches].min())
            for m in (pair_map(item, query) for item in map(index.__getitem__, index.keys))),
        abs=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize("memory_mb", [256.0, 0.003])
def test_the_top_boxes_of_several_patches(indexes, wrapper, memory_mb):
    index = indexes[0]
    query = FactorEncoder.matching(wrapper, index.settings)("a red circle")
    factors = query.factors("red")
    (found,) = top_regions(index, factors, k=40, window=(2, 1), memory_mb=memory_mb)
    expected = []
    for key in index.keys:
        heat = pair_map(index[key], query).heatmap("red")
        expected += [
            (heat[row : row + 2, column].sum(), key, 3 * row + column + 1)
            for row in range(2)
            for column in range(3)
        ]
    expected = sorted(expected, reverse=True)[:40]
    assert [(region.key, region.token) for region in found] == [one[1:] for one in expected]
    for region, (value, key, _) in zip(found, expected, strict=True):
        assert region.attribution == pytest.approx(value, abs=1e-6)
        weights = index.axis(key).select(region.place)
        assert np.count_nonzero(weights > 0.5) == 2
        in_box = pair_map(index[key], query).marginal_a("red") @ torch.from_numpy(weights.round())
        assert float(in_box) == pytest.approx(value, abs=1e-6)
    assert found[0].label.count("patch") == 2
    (all_of_them,) = top_regions(index, factors, k=99, window=(3, 3))
    assert len(all_of_them) == len(index)
    assert top_regions(index, factors, window=(4, 1)) == [[]]
    with pytest.raises(TypeError, match="a window needs images, but the items have a TextAxis"):
        top_regions(indexes[1], factors, window=(1, 2))
    with pytest.raises(ValueError, match=r"at least 1, but got 3 and \(0, 1\)"):
        top_regions(index, factors, k=3, window=(0, 1))
    with pytest.raises(ValueError, match=r"shape \(P, 24\), but got \(1, 23\)"):
        top_regions(index, factors[:, 1:])


def test_places_of_regions(indexes, wrapper):
    """A box selects its own patch alone; a text's token has its characters."""
    index_a, index_b = indexes
    query = FactorEncoder.matching(wrapper, index_a.settings)("red")
    for region in top_regions(index_a, query.factors("red"), k=100)[0]:
        axis = index_a.axis(region.key)
        weights = axis.select(region.place)
        assert weights.argmax() == region.token
        assert weights.sum() == pytest.approx(1.0, abs=0.35)  # borders may be cut off
    assert len(top_regions(index_a, query.factors("red"), k=100)[0]) == 8 * 9
    image = FactorEncoder.matching(wrapper, index_b.settings)(corpora.picture(0))
    (regions,) = top_regions(index_b, image.factors((0, 0, 4, 4)), k=3)
    for region in regions:
        text = corpora.TEXTS[int(region.key.removeprefix("text "))]
        assert text[slice(*region.place)] == region.label


def test_a_box_is_the_patch_in_pixels_of_the_image(wrapper):
    """Of 12 × 20 pixels, the middle 12 × 12 are seen."""
    (axis,) = wrapper.tower_a.prepare([corpora.picture(0, (12, 20))]).axes
    boxes = [axis.box(token) for token in (0, 1, 9, 10)]
    assert boxes == [None, (4.0, 0.0, 8.0, 4.0), (12.0, 8.0, 16.0, 12.0), None]


def test_every_hit_of_a_search_is_explained(indexes, wrapper):
    index = indexes[0]
    query = FactorEncoder.matching(wrapper, index.settings)("a red dot")
    hits = np.argsort(-(index.embeddings.numpy() @ query.embedding.numpy()))[:3]
    maps = explain_hits(query, index, hits)
    found = [imap.score for imap in maps]
    assert found == sorted(found, reverse=True)
    for row, imap in zip(hits, maps, strict=True):
        assert torch.equal(imap.interactions, pair_map(index[int(row)], query).interactions)
        assert imap.axis_b.text == "a red dot"
    by_key = explain_hits(query, index, [index.keys[row] for row in hits])
    assert all(
        torch.equal(m.interactions, n.interactions) for m, n in zip(maps, by_key, strict=True)
    )
    with pytest.raises(KeyError, match="rows 0 to 7, but no row -1"):
        explain_hits(query, index, [0, -1])  # what FAISS gives where it found nothing
    for ids, came in (
        (np.array([[0, 1]]), r"an array of shape \(2,\): ids of several queries"),
        (torch.tensor([[0, 1]]), r"an array of shape \(2,\)"),
        ([[0, 1]], r"\[0, 1\]"),
        (np.array([0.5]), "0.5"),
    ):
        with pytest.raises(TypeError, match=f"a key or the number of a row, but got .*{came}"):
            explain_hits(query, index, ids)
    with pytest.raises(TypeError, match="a sequence of keys or rows, but got the string 'text'"):
        explain_hits(query, index, "text")


def test_faiss_holds_the_embeddings(indexes, wrapper):
    faiss = pytest.importorskip("faiss")
    index = indexes[0]
    vectors = faiss.IndexFlatIP(index.embeddings.shape[1])
    vectors.add(index.embeddings.numpy())
    query = FactorEncoder.matching(wrapper, index.settings)("no red circle")
    values, ids = vectors.search(query.embedding[None].numpy(), 4)
    maps = explain_hits(query, index, ids[0])
    assert [imap.score for imap in maps] == pytest.approx(values[0].tolist(), abs=1e-6)


def test_other_models_layers_and_normalizations_are_refused(indexes, wrapper, tmp_path):
    index_a, _ = indexes
    tokenizer = wrapper.tower_b.tokenizer
    model = models.clip(3, vocabulary=len(tokenizer), eos=tokenizer.eos_token_id)
    other = wrap(model, models.clip_processor())
    some = dict(list(corpora.texts().items())[:1])
    for name, made, options in (
        ("model weights", other, {}),
        (r"layers \(\(2, 2\), \(1, 2\)\)", wrapper, {"layers": (1, 2)}),
        ("normalization", wrapper, {"normalization": "none"}),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        index_b = build_index(folder, made, some, side="b", n_steps=4, **options)
        for ask in (
            lambda b=index_b: scores(index_a, b),
            lambda b=index_b: pair_map(index_a[0], b[0]),
            lambda b=index_b: explain_hits(b[0], index_a, [0]),
        ):
            with pytest.raises(ValueError, match=f"no maps with each other: .*{name}.* differ"):
                ask()
    with pytest.raises(ValueError, match="not the model of the index: model weights .* differ"):
        FactorEncoder.matching(other, index_a.settings)


def test_another_number_of_nodes_is_no_hindrance_and_is_told(indexes, wrapper):
    query = FactorEncoder.matching(wrapper, indexes[0].settings, n_steps=7)("a red circle")
    imap = pair_map(indexes[0][0], query)
    assert imap.settings["n_steps"] == [4, 7]
    with pytest.raises(ValueError, match="side must be 'a' or 'b', but got 'image'"):
        FactorEncoder(wrapper, "image")


@pytest.mark.parametrize("rows", [1, 3, None])
def test_blocks_of_maps_are_the_maps(rows):
    generator = torch.Generator().manual_seed(0)
    a, b = (
        Factors(torch.randn(n, t, 4, generator=generator), torch.ones(n, 4), torch.zeros(n, 4))
        for n, t in ((7, 3), (5, 2))
    )
    blocks = [(chosen, maps.clone()) for chosen, maps in a.map_blocks(b, rows=rows)]
    assert torch.equal(
        torch.cat([torch.arange(7)[chosen] for chosen, _ in blocks]), torch.arange(7)
    )
    expected = torch.einsum("itk,jsk->ijts", a.values, b.values)
    torch.testing.assert_close(torch.cat([maps for _, maps in blocks]), expected)
    out = torch.empty(2, 3, 5, 2)
    for chosen, maps in a.map_blocks(b, out=out):
        assert maps.data_ptr() == out.data_ptr()
        torch.testing.assert_close(maps, expected[chosen])


def test_blocks_refuse_what_does_not_fit():
    a, b = (Factors(torch.ones(2, 3, k), torch.ones(2, k), torch.ones(2, k)) for k in (4, 5))
    with pytest.raises(ValueError, match="one dimension and type, but are 4 .* and 5"):
        next(a.map_blocks(b))
    with pytest.raises(ValueError, match="rows must be at least 1, but got 0"):
        next(a.map_blocks(a, rows=0))
    with pytest.raises(ValueError, match=r"of shape \(1, 3, 2, 3\), but is .* \(1, 3, 2, 2\)"):
        next(a.map_blocks(a, out=torch.empty(1, 3, 2, 2)))
    with pytest.raises(ValueError, match="must be contiguous"):
        next(a.map_blocks(a, out=torch.empty(1, 3, 3, 2).transpose(2, 3)))


def test_blocks_of_an_index_are_its_factors(indexes):
    index = indexes[1]
    expected = index.factors()
    seen = []
    for memory_mb in (256.0, 0.001):
        covered = 0
        for rows, block in index.blocks(memory_mb):
            assert rows.start == covered
            covered = rows.stop
            n_tokens = block.values.shape[1]
            assert torch.equal(block.values, expected.values[rows, :n_tokens])
            assert torch.equal(block.embedding, expected.embedding[rows])
            assert expected.values[rows, n_tokens:].count_nonzero() == 0
            seen.append(memory_mb)
        assert covered == len(index) == 7
    assert seen.count(0.001) == 7  # one item a block


def test_the_number_of_nodes_may_be_found_for_each_item(tmp_path):
    wrapper, (scene,) = load_demo(1)
    options = {"layers": (-1, -1), "n_steps": "auto"}
    a, b = (
        build_index(tmp_path / side, wrapper, {"x": item}, side=side, storage="float32", **options)
        for side, item in (("a", scene.image), ("b", scene.caption))
    )
    expected = explain(wrapper, scene.image, scene.caption, **options)
    assert relative_error(pair_map(a["x"], b["x"]).interactions, expected.interactions) < 1e-5
    assert FactorIndex(tmp_path / "a").settings.n_steps == "auto"
