"""One loader for every image: what modes, alpha, orientation and broken files become."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from captum_interactions import wrap
from captum_interactions.datasets import Record, load_dataset
from captum_interactions.datasets.archive import Files, ImageFile
from captum_interactions.datasets.problems import DatasetError
from captum_interactions.encoders.inputs.images import check_pixels
from captum_interactions.encoders.inputs.loading import load_image
from captum_interactions.visualization import plot_heatmap
from captum_interactions.visualization.picture import picture_of_array
from tests import models
from tests.shared_data import shared_data

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
NOISE = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    stream.seek(0)
    return stream


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(colour: int, bits: int, size: tuple[int, int], pixels: bytes, *extra: bytes) -> bytes:
    """A PNG file by hand: of one row, without filters."""
    head = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" + pixels))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(extra) + data + chunk(b"IEND", b"")
    )


def pixels_of(source: object) -> list[list[int]]:
    """The first row of what is loaded."""
    return np.asarray(load_image(source))[0].tolist()


# 16 bits


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "array"])
def test_16_bits_are_scaled_to_their_largest_value(kind: str) -> None:
    values = np.linspace(0, 65535, 256 * 4).round().astype(np.uint16).reshape(4, 256)
    image = Image.fromarray(values)
    if kind != "array":
        image = Image.open(encoded(image, kind))
    shown = np.asarray(load_image(image))
    assert shown.shape == (4, 256, 3)
    assert np.array_equal(shown[..., 0], np.rint(values / 257))
    assert np.array_equal(shown[..., 0], shown[..., 2])


def test_16_bits_of_big_end_first_and_of_netpbm(tmp_path: Path) -> None:
    values = np.array([[0, 257, 65535] * 9], np.uint16)
    big = Image.frombytes("I;16B", (27, 1), values.astype(">u2").tobytes())
    (tmp_path / "a.pgm").write_bytes(b"P5 27 1 65535\n" + values.astype(">u2").tobytes())
    for source in (big, tmp_path / "a.pgm"):
        assert pixels_of(source)[:3] == [[0] * 3, [1] * 3, [255] * 3]


def test_12_bits_and_white_is_zero() -> None:
    """Pillow's 16-bit TIFFs say in tags which of their values is white."""
    values = np.array([[0, 2048, 4095] * 9], np.uint16)
    image = Image.open(encoded(Image.fromarray(values), "TIFF"))
    image.tag_v2[258] = (12,)
    assert pixels_of(image)[:3] == [[0] * 3, [128] * 3, [255] * 3]
    image.tag_v2[262] = 0
    assert pixels_of(image)[:3] == [[255] * 3, [127] * 3, [0] * 3]


def test_a_dark_image_of_16_bits_warns() -> None:
    dark = Image.fromarray(np.arange(700, dtype=np.uint16).reshape(20, 35))
    message = (
        "the image has 700 different values, from 0 to 699 where 65535 .* in 4 of 256 grey levels"
    )
    with pytest.warns(UserWarning, match=message):
        assert np.asarray(load_image(dark)).max() == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_image(Image.fromarray(np.full((3, 4), 500, np.uint16)))  # nothing to tell apart
        load_image(Image.fromarray(np.array([[0, 65535]], np.uint16)))


@pytest.mark.parametrize(
    ("dtype", "what"),
    [(np.float32, r"floats \(mode F\)"), (np.int32, r"32-bit integers \(mode I\)")],
)
def test_wider_pixels_are_refused_by_name(tmp_path: Path, dtype: type, what: str) -> None:
    image = Image.fromarray(np.eye(4).astype(dtype))
    with pytest.raises(ValueError, match=f"the image cannot be read .* its pixels are {what}"):
        load_image(image)
    image.save(tmp_path / "wide.tif")
    with pytest.raises(ValueError, match=rf"wide\.tif' cannot be read .* its pixels are {what}"):
        load_image(tmp_path / "wide.tif")


# Transparency


HIDDEN = np.array([[[200, 10, 60, 0], [200, 10, 60, 255], [0, 0, 0, 51]]], np.uint8)


@pytest.mark.parametrize("kind", ["array", "PIL", "RGBa", "PA", "PNG", "WEBP"])
def test_alpha_is_composited_over_white(kind: str) -> None:
    image = Image.fromarray(HIDDEN)
    source = {
        "array": lambda: HIDDEN,
        "PIL": lambda: image,
        "RGBa": lambda: image.convert("RGBa"),
        "PA": lambda: image.convert("PA"),
        "PNG": lambda: Image.open(encoded(image)),
        "WEBP": lambda: Image.open(encoded(image, "WEBP", lossless=True, exact=True)),
    }[kind]()
    assert pixels_of(source) == [[255] * 3, [200, 10, 60], [204] * 3]


def test_grey_with_alpha() -> None:
    grey = Image.fromarray(np.array([[[9, 0], [9, 255]]], np.uint8), "LA")
    assert pixels_of(grey) == [[255] * 3, [9] * 3]


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"])
def test_palettes_with_transparency(transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 255, 250, 0, 0])
    image.putdata([0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = pixels_of(Image.open(encoded(image, transparency=transparency)))
    assert shown == [[0, 0, 255], [255] * 3]


def test_a_transparent_colour() -> None:
    """Images without alpha may name one colour that is transparent, in 8 bits or in 16."""

    def words(*values: int) -> bytes:
        return struct.pack(f">{len(values)}H", *values)

    files = [
        png(0, 8, (2, 1), bytes([7, 90]), chunk(b"tRNS", words(7))),
        png(2, 8, (2, 1), bytes([7, 8, 9, 90, 90, 90]), chunk(b"tRNS", words(7, 8, 9))),
        png(0, 16, (2, 1), words(1000, 90 * 257), chunk(b"tRNS", words(1000))),
        png(2, 16, (2, 1), words(3000, 4000, 5000, *[90 * 257] * 3),
            chunk(b"tRNS", words(3000, 4000, 5000))),
    ]  # fmt: skip
    for data in files:
        assert pixels_of(Image.open(io.BytesIO(data))) == [[255] * 3, [90] * 3]


# Other modes


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "HSV", "LAB"])
def test_other_modes_stay_as_pillow_converts_them(mode: str) -> None:
    image = Image.fromarray(COLOURS)
    if mode == "LAB":
        profiles = pytest.importorskip("PIL.ImageCms")
        rgb, lab = profiles.createProfile("sRGB"), profiles.createProfile("LAB")
        image = profiles.profileToProfile(image, rgb, lab, outputMode="LAB")
    else:
        image = image.convert(mode)
    assert np.array_equal(np.asarray(load_image(image)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["GIF", "TIFF"])
def test_of_several_frames_the_first_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    stream = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert pixels_of(Image.open(stream)) == [[255, 0, 0]] * 4


# Orientation


def turned(path: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS).save(path, exif=exif)
    return path


def by_hand(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """What the eight orientations of EXIF say of the first row and column."""
    mirrored = pixels[:, ::-1]
    return {
        1: pixels,
        2: mirrored,
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels, 1),
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_way_in_turns_a_photograph_alike(tmp_path: Path, orientation: int) -> None:
    path = turned(tmp_path / "a.png", orientation)
    upright = by_hand(COLOURS, orientation)
    (tmp_path / "a.txt").write_text("a caption")
    picture = Image.open(path)
    record = Record("1", "a", (), lambda: Image.open(path), "here")
    shown = {
        "path": load_image(path),
        "PIL": load_image(picture),
        "dataset": load_dataset("folder", tmp_path)[0].image,
        "record": record.image,
        "figure of a path": picture_of_array((2, 2), path).image,
        "figure of an image": picture_of_array((2, 2), picture).image,
    }
    for way, image in shown.items():
        assert np.array_equal(np.asarray(image), upright), way
    assert dict(shown["path"].getexif()) == {}  # nothing turns it again
    assert np.array_equal(np.asarray(load_image(shown["path"])), upright)


def test_16_bits_are_turned_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.linspace(0, 65535, 54).astype(np.uint16).reshape(6, 9)
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    shown = np.asarray(load_image(tmp_path / "a.png"))
    assert np.array_equal(shown[..., 0], np.rot90(np.rint(values / 257), -1))


def test_figures_draw_what_the_loader_gives(tmp_path: Path) -> None:
    _, ax = plot_heatmap(np.eye(2), image=turned(tmp_path / "a.png", 6), colorbar=False)
    assert ax.get_xlim() == (0, 6)
    assert ax.get_ylim() == (9, 0)
    with pytest.raises(ValueError, match="an image array must be uint8 .* but got float64"):
        plot_heatmap(np.eye(2), image=np.ones((6, 9, 3)))


# Arrays and tensors


@pytest.mark.parametrize(
    "array",
    [COLOURS / 255, COLOURS.astype(np.float32), COLOURS.astype(np.int64), COLOURS[..., :2],
     COLOURS[None], COLOURS[:0], COLOURS > 3, COLOURS.astype(np.uint16)],
)  # fmt: skip
def test_arrays_that_are_no_images(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match=rf"must be uint8 .* but got {array.dtype} of shape"):
        load_image(array)


def test_levels_are_no_pixel_values() -> None:
    """A tensor of 0 to 255 was explained as if it were normalised."""
    wrapper = wrap(*models.clip_with_processor())
    levels = torch.from_numpy(RNG.integers(0, 256, (1, 3, 12, 12))).float()
    levels[0, 0, 0, 0] = 0
    with pytest.raises(ValueError, match="between 0 and 25.: they seem to be levels from 0 to 255"):
        wrapper.prepare(levels, "a")
    wrapper.prepare(levels / 255, "a")
    wrapper.prepare((levels - 127) / 127, "a")
    check_pixels(levels, SimpleNamespace(do_normalize=False))  # a model that takes levels


# Broken files


def broken(path: Path) -> dict[str, Path]:
    """Files that make Pillow raise errors of many kinds."""
    good = encoded(Image.fromarray(COLOURS)).getvalue()
    huge = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    files = {
        "words.jpg": b"no image at all",
        "empty.png": b"",
        "half.png": good[:60],
        "half.jpg": encoded(Image.fromarray(NOISE), "JPEG").getvalue()[:2000],
        "bomb.png": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", huge) + good[33:],
        "frames.png": b"\x89PNG\r\n\x1a\n" + good[8:33] + chunk(b"acTL", struct.pack(">II", 2, 0))
        + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 5, 9, 6, 0, 0, 1, 1, 0, 0)) + good[33:],
        "netpbm.ppm": b"P6 2 2 70000\n" + bytes(12),
        "netpbm2.ppm": b"P3 2 2 255\n1 2 x 4",
        "sums.png": good[:45] + bytes([good[45] ^ 255]) + good[46:],
        "tags.tif": b"II*\0\x08\0\0\0\xff\xff" + bytes(40),
    }  # fmt: skip
    for name, data in files.items():
        (path / name).write_bytes(data)
    return {name: path / name for name in files}


def test_broken_files_end_as_the_documented_error(tmp_path: Path) -> None:
    for name, path in broken(tmp_path).items():
        with pytest.raises(ValueError, match="cannot be read as an image") as error:
            load_image(path)
        assert str(path) in str(error.value), name
        with pytest.raises(DatasetError, match="cannot be read as an image") as error:
            ImageFile(Files(tmp_path), name)()
        assert error.value.where.endswith(name)


def test_an_opened_file_that_is_broken_has_its_name_too(tmp_path: Path) -> None:
    with (
        Image.open(broken(tmp_path)["half.jpg"]) as image,
        pytest.raises(ValueError, match=r"half\.jpg cannot be read as an image: .*truncated"),
    ):
        load_image(image)


def test_what_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone.png", "x" * 5000, "a\0b"):
        with pytest.raises(FileNotFoundError, match="there is no image file at"):
            load_image(path)


# Real files


@pytest.mark.parametrize("orientation", range(2, 9))
def test_real_photographs_of_eight_orientations(orientation: int) -> None:
    folder = shared_data("exif")
    first = np.asarray(load_image(folder / "Landscape_1.jpg"), np.int16)
    other = np.asarray(load_image(folder / f"Landscape_{orientation}.jpg"), np.int16)
    assert other.shape == first.shape
    # Each file was compressed anew (up to 3.7 were measured); any other way up differs by 74.
    assert np.abs(other - first).mean() < 10
    stored = ImageFile(Files(folder), f"Landscape_{orientation}.jpg")()
    assert stored.size == ((1800, 1200) if orientation < 5 else (1200, 1800))


def test_real_odd_images() -> None:
    folder = shared_data("odd_images")
    for name, message in {
        "12in16bit.tif": "28 different values, from 0 to 30 .* in 1 of 256 grey levels",
        "16bit.cropped.tif": "from 291 to 694 .* in 3 of 256 grey levels",
    }.items():
        with pytest.warns(UserWarning, match=message):
            load_image(folder / name)
    with pytest.raises(ValueError, match=r"chunk_no_fctl\.png' cannot be read .*APNG"):
        load_image(folder / "chunk_no_fctl.png")
    for name in ("hopper.Lab.tif", "pil_sample_cmyk.jpg", "tiff_16bit_RGB.tiff"):
        expected = Image.open(folder / name).convert("RGB")
        assert np.array_equal(np.asarray(load_image(folder / name)), np.asarray(expected)), name
    for name in ("p_trns_single.png", "pil123rgba.png"):
        rgba = np.asarray(Image.open(folder / name).convert("RGBA"), np.float64)
        alpha = rgba[..., 3:] / 255
        flat = alpha * rgba[..., :3] + 255 * (1 - alpha)
        assert (alpha == 0).any()
        assert np.abs(np.asarray(load_image(folder / name)) - flat).max() <= 1  # both round
