"""A box drawn on an image is where its frame says, whatever its processor and its model do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.nn.functional import max_pool2d
from transformers import (
    BitImageProcessorPil,
    BlipImageProcessorPil,
    ChineseCLIPImageProcessorPil,
    CLIPImageProcessorPil,
    ConvNextImageProcessorPil,
    DeiTImageProcessorPil,
    EfficientNetImageProcessorPil,
    Siglip2ImageProcessorPil,
    SiglipImageProcessorPil,
    ViTImageProcessorPil,
)

from captum_interactions import explain, wrap
from captum_interactions.encoders import ImageAxis
from captum_interactions.encoders.inputs.images import process_images
from tests import models
from tests.families import FAMILIES

CELL, SIDE = 8, 48
SQUARE = {"height": SIDE, "width": SIDE}
SIZES = [(60, 60), (57, 96), (96, 57), (61, 47), (10, 15), (400, 601)]


class Transforms:
    """What torchvision's ``Compose`` of steps on PIL images, ``ToTensor`` and ``Normalize`` do."""

    def __init__(self, *steps):
        self.steps = steps

    def __call__(self, image):
        for step in self.steps:
            image = step(image)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
        return (pixels - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / 0.3


def resize(shorter, resample=Image.Resampling.BICUBIC):
    def step(image):
        factor = shorter / min(image.size)
        size = (int(factor * edge) if edge > min(image.size) else shorter for edge in image.size)
        return image.resize(tuple(size), resample)

    return step


def center_crop(side):
    def step(image):
        left, top = (round((edge - side) / 2) for edge in image.size)
        return image.crop((left, top, left + side, top + side))

    return step


def squash(image):
    return image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def fit_and_pad(image):
    return ImageOps.pad(image, (SIDE, SIDE), Image.Resampling.BICUBIC, color=(90, 10, 200))


def corner(image):
    """The image, made smaller, in the upper left corner of a grey one."""
    small = image.resize((SIDE - 12, SIDE - 20), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
    canvas.paste(small, (0, 0))
    return canvas


class Zoom(SiglipImageProcessorPil):
    """A class whose geometry is not in its options."""

    def resize(self, image, size, **options):
        larger = type(size)(height=size.height + 20, width=size.width + 20)
        return super().resize(image, larger, **options)[:, 10:-10, 10:-10]


PROCESSORS = {
    "CLIP": CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE),
    "Chinese-CLIP": ChineseCLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE),
    "Chinese-CLIP, squashed": ChineseCLIPImageProcessorPil(size=SQUARE, do_center_crop=False),
    "SigLIP": SiglipImageProcessorPil(size=SQUARE),
    "BLIP": BlipImageProcessorPil(size={"height": SIDE, "width": SIDE + 16}),
    "ViT": ViTImageProcessorPil(size=SQUARE),
    "DINOv2": BitImageProcessorPil(size={"shortest_edge": 55}, crop_size=SIDE),
    "DeiT": DeiTImageProcessorPil(size={"height": 55, "width": 55}, crop_size=SIDE),
    "ALIGN": EfficientNetImageProcessorPil(
        size={"height": 55, "width": 55}, crop_size=SQUARE, do_center_crop=True
    ),
    "ALIGN, padded": EfficientNetImageProcessorPil(
        size={"height": 31, "width": 30}, crop_size=SQUARE, do_center_crop=True
    ),
    "CLIP, crop larger than the image": CLIPImageProcessorPil(
        size={"shortest_edge": 31}, crop_size=SIDE
    ),
    "ConvNeXt, crops as it resizes": ConvNextImageProcessorPil(size={"shortest_edge": SIDE}),
    "ConvNeXt, crops little": ConvNextImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_pct=0.95
    ),
    "longest edge": SiglipImageProcessorPil(
        size={"shortest_edge": 32, "longest_edge": 40}, do_pad=True, pad_size=SQUARE
    ),
    "largest height and width": SiglipImageProcessorPil(
        size={"max_height": 40, "max_width": SIDE}, do_pad=True, pad_size=SQUARE
    ),
    "padded": SiglipImageProcessorPil(
        size={"height": 33, "width": 40}, do_pad=True, pad_size=SQUARE
    ),
    "a class of its own": Zoom(size=SQUARE),
    "torchvision": Transforms(resize(SIDE), center_crop(SIDE)),
    "torchvision, larger": Transforms(resize(63), center_crop(SIDE)),
    "torchvision, bilinear": Transforms(resize(SIDE, Image.Resampling.BILINEAR), center_crop(SIDE)),
    "torchvision, padding": Transforms(resize(31), center_crop(SIDE)),
    "open_clip, squashed": Transforms(squash),
    "open_clip, fit and pad": Transforms(fit_and_pad),
    "in a corner": Transforms(corner),
}


def picture(size, box=None, background=0):
    pixels = np.full((*size, 3), background, np.uint8)
    if box is not None:
        x0, y0, x1, y1 = box
        pixels[y0:y1, x0:x1] = 255
    return Image.fromarray(pixels)


def box_within(size):
    """A box within every crop above, in no symmetrical place."""
    height, width = size
    x, y = round(0.4 * width), round(0.45 * height)
    return x, y, x + max(2, width // 8), y + max(3, height // 6)


def brightness(processor, size, box):
    """How much of each model pixel is white, from the model's own pixels, and the frame."""
    pictures = [picture(size), picture(size, background=255), picture(size, box)]
    pixels, frames = process_images(processor, pictures)
    assert len(set(frames)) == 1
    black, white, seen = pixels[:, 0].numpy()
    contrast = white - black
    share = (seen - black) / np.where(np.abs(contrast) > 1e-6, contrast, 1)
    return share, frames[0]


def axis_of(frame, image=None, cell=(CELL, CELL)):
    grid = (frame.size[0] // cell[0], frame.size[1] // cell[1])
    return ImageAxis.of_grid(grid, cell, frame, image, before=("[class]",))


def centre_and_extent(values):
    """Centre of mass (x, y), and mass, of values on a grid of squares of side 1."""
    y, x = (np.arange(length) + 0.5 for length in values.shape)
    mass = values.sum()
    return np.array([values.sum(0) @ x, values.sum(1) @ y]) / mass, mass


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", PROCESSORS)
class TestProcessors:
    def test_a_box_lands_where_it_was_drawn(self, name, size):
        box = box_within(size)
        share, frame = brightness(PROCESSORS[name], size, box)
        # On cells of one pixel, a selection is the box as the model should see it.
        selected = axis_of(frame, cell=(1, 1))
        selected = selected.to_grid(selected.select(box))
        # Blur is symmetrical, so it moves and adds nothing. A crop is cut at whole pixels.
        (centre, mass), (expected, area) = centre_and_extent(share), centre_and_extent(selected)
        assert np.abs(centre - expected).max() < 0.15
        assert mass == pytest.approx(area, rel=0.02)

    def test_a_selection_is_what_patches_see(self, name, size):
        box = box_within(size)
        share, frame = brightness(PROCESSORS[name], size, box)
        axis = axis_of(frame)
        weights = axis.select(box)
        assert weights[0] == 0  # the class token
        seen = share.reshape(axis.grid[0], CELL, axis.grid[1], CELL).mean((1, 3))
        # Bilinear and bicubic edges leak a sixth of an original or a model pixel, the larger one.
        leak = max(1, *frame.scale) / 6 / CELL
        assert np.abs(axis.to_grid(weights) - seen).max() < 4 * leak + 0.02

    def test_heat_returns_to_where_it_came_from(self, name, size):
        """Cells that see the box, spread over the original image, hold it and little more."""
        x0, y0, x1, y1 = box_within(size)
        share, frame = brightness(PROCESSORS[name], size, (x0, y0, x1, y1))
        axis = axis_of(frame)
        seen = share.reshape(axis.grid[0], CELL, axis.grid[1], CELL).mean((1, 3))
        image = axis.to_image(seen, fill=np.nan)
        assert image.shape == size
        assert (image[y0:y1, x0:x1] > 0).all()
        # A cell that sees more than blur holds a part of the box: none reaches farther than a cell.
        ys, xs = np.nonzero(image > 0.1)
        assert len(xs)
        reach_x, reach_y = CELL / frame.scale[0] + 1, CELL / frame.scale[1] + 1
        assert x0 - reach_x <= xs.min() <= xs.max() < x1 + reach_x
        assert y0 - reach_y <= ys.min() <= ys.max() < y1 + reach_y
        # The corners that a crop cuts off have no heat, and only these.
        left, right, bottom, top = axis.extent()
        columns, rows = np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5
        inside = np.outer((rows >= top) & (rows < bottom), (columns >= left) & (columns < right))
        np.testing.assert_array_equal(np.isfinite(image), inside)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", ["CLIP", "SigLIP", "BLIP", "ViT", "DINOv2", "DeiT", "padded"])
def test_ramps_tell_what_options_tell(name, size):
    """The same processor as a bare function, whose options nobody can read."""
    processor = PROCESSORS[name]
    _, (known,) = process_images(processor, [picture(size)])
    _, (probed,) = process_images(
        lambda image: processor(images=[image], return_tensors="pt")["pixel_values"][0],
        [picture(size)],
    )
    assert probed.size == known.size
    np.testing.assert_allclose(probed.scale, known.scale)
    np.testing.assert_allclose(probed.offset, known.offset)


def test_images_of_several_sizes_are_probed_each():
    sizes = [(57, 96), (96, 57), (57, 96)]
    _, frames = process_images(PROCESSORS["torchvision"], [picture(size) for size in sizes])
    assert frames == [
        process_images(PROCESSORS["torchvision"], [picture(size)])[1][0] for size in sizes
    ]


def test_the_smallest_images_need_no_probing():
    _, (frame,) = process_images(PROCESSORS["DINOv2"], [picture((1, 3))])
    assert (frame.scale, frame.offset) == ((55, 55), (58, 3))
    assert axis_of(frame).select((1, 0, 2, 1)).sum() == 36


RANDOM = np.random.default_rng(0)


def random_crop(image):
    left = int(RANDOM.integers(1, 20))
    return image.crop((left, 0, left + 30, 30))


@pytest.mark.parametrize(
    ("processor", "size", "message"),
    [
        (Transforms(ImageOps.mirror, squash), (60, 60), "it must resize, crop and pad images"),
        (Transforms(ImageOps.solarize, squash), (60, 60), "it must resize, crop and pad images"),
        (Transforms(lambda image: image.rotate(90)), (60, 60), "it must resize, crop and pad"),
        (Transforms(random_crop, squash), (60, 60), "the preprocessing of images is random"),
        (PROCESSORS["torchvision"], (7, 60), "side has 7 of them.* at least 8 pixels per side"),
    ],
    ids=["mirrored", "other colours", "turned", "random", "too small"],
)
def test_processors_that_hide_where_pixels_are(processor, size, message):
    with pytest.raises(ValueError, match=message):
        process_images(processor, [picture(size)])


def test_processors_that_make_several_pictures_of_one():
    class Tiles(SiglipImageProcessorPil):
        def _preprocess(self, images, **options):
            output = super()._preprocess(images, **options)
            output["pixel_values"] = output["pixel_values"][:, None]
            return output

    with pytest.raises(
        ValueError, match=r"shape \(1, 3, height, width\) of 1 images, but made \(1"
    ):
        process_images(Tiles(size=SQUARE), [picture((60, 60))])


@pytest.mark.parametrize("name", ["CLIP", "torchvision"])
def test_corners_that_a_crop_cuts_off(name):
    """Of 96 × 57 pixels turned into 80 × 48, sixteen are cut off at each side."""
    _, (frame,) = process_images(PROCESSORS[name], [picture((57, 96))])
    axis = axis_of(frame)
    for box in ((0, 0, 19, 57), (78, 0, 96, 57), (-9, 5, 3, 9)):
        with pytest.raises(ValueError, match="the model sees nothing of the selected region.*crop"):
            axis.select(box)
    # A box that is partly outside counts as far as it is seen.
    beyond, within = axis.select((-50, 10, 40, 300)), axis.select((19.2, 10, 40, 57))
    np.testing.assert_allclose(beyond, within, atol=1e-6)
    assert 0 < beyond.sum() < axis.select().sum()


@pytest.mark.parametrize("name", ["ALIGN, padded", "in a corner", "open_clip, fit and pad"])
def test_padded_cells_belong_to_nothing(name):
    size = (57, 96)
    share, frame = brightness(PROCESSORS[name], size, (0, 0, 96, 57))
    axis = axis_of(frame)
    seen = share.reshape(6, CELL, 6, CELL).mean((1, 3))
    assert (seen == 0).any()
    np.testing.assert_allclose(axis.to_grid(axis.select((0, 0, 96, 57))), seen, atol=1e-5)
    np.testing.assert_allclose(axis.to_grid(axis.select(np.ones(size, bool))), seen, atol=1e-5)
    heat = np.where(seen > 0, 0.0, 1.0)  # all of it in padding
    assert not axis.to_image(heat).any()


# Models: what a box changes in the hidden states is what it selects.

NAFLEX = Siglip2ImageProcessorPil(patch_size=4, max_num_patches=20)
NEAREST = Image.Resampling.NEAREST
MODELS = {
    "CLIP": CLIPImageProcessorPil(
        size={"shortest_edge": 20}, crop_size={"height": 12, "width": 12}, resample=NEAREST
    ),
    "SigLIP, SigLIP 2 (fixed resolution)": SiglipImageProcessorPil(
        size={"height": 12, "width": 12}, resample=NEAREST
    ),
    "SigLIP 2 (NaFlex)": Siglip2ImageProcessorPil(
        patch_size=4, max_num_patches=16, resample=NEAREST
    ),
    "ALIGN": EfficientNetImageProcessorPil(
        size={"height": 72, "width": 72},
        crop_size={"height": 64, "width": 64},
        do_center_crop=True,
        resample=NEAREST,
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def wrapper(request):
    (family,) = (family for family in FAMILIES if family.name == request.param)
    return wrap(family.build(), MODELS[request.param])


@pytest.mark.parametrize("size", [(60, 60), (60, 100), (100, 60)], ids=str)
class TestModels:
    def test_a_box_changes_the_tokens_that_it_selects(self, wrapper, size):
        tower = wrapper.tower_a
        box = box_within(size)
        prepared = tower.prepare([picture(size), picture(size, box)])
        with torch.no_grad():
            states = tower.prefix(0, prepared.inputs, *prepared.extras)[0]
        axis = tower.axis_at(0, prepared.axes[1], states.shape[1])
        changed = axis.to_grid((states[1] - states[0]).abs().amax(1).numpy() > 1e-6)
        weights = axis.to_grid(axis.select(box))
        seen, least = weights > 0, 1 / 4
        if tower.convolutional:  # its cells look over their borders
            seen, least = max_pool2d(torch.tensor(seen)[None].float(), 3, 1, 1)[0].numpy() > 0, 1
        assert seen[changed].all()
        # A cell of which less than a row or a column of pixels is in the box may not see it.
        assert changed[weights >= least].all()

    @pytest.mark.filterwarnings("ignore:attributions sum to")
    def test_a_map_has_the_box_where_it_was_drawn(self, wrapper, size):
        """Explained against the image without the box, all heat is in the box."""
        box = box_within(size)
        without, image = picture(size), picture(size, box)
        ids = models.caption(16)
        baseline = wrapper.tower_a.prepare([without]).inputs
        layer = "input" if wrapper.tower_a.convolutional else 0
        imap = explain(
            wrapper, image, ids, layers=(layer, -1), n_steps=8, baselines=(baseline, None)
        )
        heat, axis = imap.heatmap(), imap.axis_a
        assert heat.shape == axis.grid
        hot, weights = heat != 0, axis.to_grid(axis.select(box))
        assert (weights[hot] > 0).all()
        assert hot[weights >= 1 / 4].all()
        assert imap.between(box) != 0
        # On the image, heat covers the box and reaches no farther than a cell.
        x0, y0, x1, y1 = box
        shown = axis.to_image(heat) != 0
        assert shown.shape == size
        assert shown[y0 + 3 : y1 - 3, x0 + 3 : x1 - 3].all()
        ys, xs = np.nonzero(shown)
        reach_x, reach_y = (cell / s for cell, s in zip(axis.cell, axis.frame.scale, strict=True))
        assert x0 - reach_x < xs.min() <= xs.max() < x1 + reach_x
        assert y0 - reach_y < ys.min() <= ys.max() < y1 + reach_y


@pytest.mark.parametrize("size", [*SIZES, (400, 20), (3, 2)], ids=str)
def test_naflex_images_keep_their_shape(size):
    (family,) = (family for family in FAMILIES if family.name == "SigLIP 2 (NaFlex)")
    tower = wrap(family.build(), NAFLEX).tower_a
    box = box_within(size) if min(size) > 4 else (0, 0, 1, 2)
    pictures = [picture(size), picture(size, background=255), picture(size, box), picture((9, 9))]
    patches, (mask, shapes), axes = tower.prepare(pictures)
    rows, columns = shapes[2].tolist()
    assert axes[2].grid == (rows, columns)
    assert rows / columns == pytest.approx(size[0] / size[1], rel=0.5) or min(rows, columns) == 1
    black, white, seen = patches[:3, : rows * columns].unflatten(2, (4, 4, 3)).mean((2, 3, 4))
    seen = ((seen - black) / (white - black)).reshape(rows, columns).numpy()
    selected = axes[2].to_grid(axes[2].select(box))
    leak = max(1, *axes[2].frame.scale) / 6 / 4
    assert np.abs(seen - selected).max() < 4 * leak + 0.02
    assert seen.sum() == pytest.approx(selected.sum(), rel=0.05 if min(size) > 4 else 0.3)
    # Padding follows the patches, and is no part of the image.
    assert (~mask.bool()).tolist() == [list(axis.padding) for axis in axes]
    assert not axes[2].select(box)[rows * columns :].any()
    assert axes[2].to_image(selected).shape == size
    assert len(axes[2].units) == rows * columns


def test_naflex_patches_of_another_size_than_the_model_takes():
    (family,) = (family for family in FAMILIES if family.name == "SigLIP 2 (NaFlex)")
    tower = wrap(family.build(), Siglip2ImageProcessorPil(patch_size=8)).tower_a
    with pytest.raises(ValueError, match=r"patches must be floats of shape \(B, N, 48\)"):
        tower.prepare([picture((60, 60))])
