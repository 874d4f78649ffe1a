"""Pictures of every kind become squares of 8-bit channels; what is no picture is refused with the reason."""

import numpy as np
import pytest
from PIL import Image

from research.data.image_decoding import check_picture, decode_image
from tests.media_files import encoded, pictures

SQUARE = pictures(1)[0]


def cubic(distance):
    """Keys's kernel with a = -0.5."""
    x = np.abs(distance)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def resample(values, size, first, side):
    """float64: `size` samples of [N …] from `first` to `first + side`, the kernel widened where it gets smaller."""
    scale = side / size
    centers = first + (np.arange(size) + 0.5) * scale
    weights = cubic((np.arange(len(values)) + 0.5 - centers[:, None]) / max(scale, 1.0))
    return np.tensordot(weights / weights.sum(axis=1, keepdims=True), values.astype(np.float64), axes=1)


def test_a_picture_of_the_size_is_left_as_it_is():
    np.testing.assert_array_equal(decode_image(encoded(SQUARE), size=5, channels=3), SQUARE)
    np.testing.assert_array_equal(decode_image(SQUARE, size=5, channels=3), SQUARE)


@pytest.mark.parametrize(("height", "width", "size"), [(23, 13, 5), (11, 17, 7), (3, 5, 13)])
def test_the_centre_square_is_resized_without_aliasing(height, width, size):
    picture = pictures(1, height=height, width=width)[0]
    side = min(height, width)
    rows = resample(picture.swapaxes(0, 1), size, (width - side) / 2, side).swapaxes(0, 1)
    wanted = resample(np.clip(rows, 0, 255), size, (height - side) / 2, side)
    found = decode_image(encoded(picture), size=size, channels=3).astype(np.float64)
    # Pillow rounds to whole levels after each of the two passes, and its weights are of 22 bits.
    np.testing.assert_allclose(found, np.clip(wanted, 0, 255), atol=1.5)


def test_only_the_centre_of_a_long_strip_is_kept():
    strip = np.zeros((7, 301, 3), np.uint8)
    strip[:, 140:161] = 200  # the kernel sees a little beyond the square
    assert (decode_image(encoded(strip), size=3, channels=3) == 200).all()
    assert (decode_image(encoded(strip.swapaxes(0, 1)), size=3, channels=3) == 200).all()


def test_grey_becomes_three_equal_channels_and_colour_its_luminance():
    grey = SQUARE[:, :, 0]
    for content in (encoded(grey), grey, grey[:, :, None]):
        np.testing.assert_array_equal(decode_image(content, size=5, channels=3), np.stack([grey] * 3, axis=2))
        np.testing.assert_array_equal(decode_image(content, size=5, channels=1)[:, :, 0], grey)
    found = decode_image(encoded(SQUARE), size=5, channels=1)
    assert found.shape == (5, 5, 1)
    np.testing.assert_allclose(found[:, :, 0], SQUARE @ np.array([0.299, 0.587, 0.114]), atol=1.0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_lies_on_white(mode):
    alpha = np.tile(np.array([0, 64, 128, 255, 255], np.uint8), (5, 1))
    if mode == "P":
        picture = Image.fromarray(np.tile(np.array([0, 1, 2, 2, 2], np.uint8), (5, 1)), "P")
        picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
        found = decode_image(encoded(picture, transparency=1), size=5, channels=3)
        assert found[0].tolist() == [[10, 20, 30], [255] * 3, [70, 80, 90], [70, 80, 90], [70, 80, 90]]
        return
    colour = SQUARE if mode == "RGBA" else np.stack([SQUARE[:, :, 0]] * 3, axis=2)
    layers = np.concatenate([SQUARE if mode == "RGBA" else SQUARE[:, :, :1], alpha[:, :, None]], axis=2)
    part = alpha[:, :, None] / 255
    found = decode_image(encoded(Image.fromarray(layers, mode)), size=5, channels=3)
    np.testing.assert_allclose(found, colour * part + 255 * (1 - part), atol=1.0)


def test_cmyk_and_palette_and_sixteen_bits_are_read():
    red = Image.new("CMYK", (5, 5), (0, 255, 255, 0))
    assert np.abs(decode_image(encoded(red, "JPEG"), size=5, channels=3).astype(int) - [255, 0, 0]).max() <= 3
    palette = Image.fromarray(np.arange(25, dtype=np.uint8).reshape(5, 5) % 3, "P")
    palette.putpalette([9, 8, 7, 6, 5, 4, 3, 2, 1])
    assert decode_image(encoded(palette), size=5, channels=3)[0, :3].tolist() == [[9, 8, 7], [6, 5, 4], [3, 2, 1]]
    deep = (np.arange(25, dtype=np.uint16) * 2600).reshape(5, 5)
    np.testing.assert_array_equal(decode_image(encoded(deep), size=5, channels=1)[:, :, 0], deep // 256)


def test_a_photograph_is_turned_as_its_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned to the left: show it turned by a quarter to the right
    found = decode_image(encoded(SQUARE, exif=exif), size=5, channels=3)
    np.testing.assert_array_equal(found, np.rot90(SQUARE, -1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"no picture", "cannot identify image file"),
        (encoded(pictures(1, height=37, width=37)[0])[:700], "truncated"),
        (encoded(pictures(1, height=37, width=37)[0], "JPEG")[:-300], "truncated"),
        (encoded(Image.fromarray(np.ones((5, 5), np.float32)), "TIFF"), "32-bit numbers \\(mode F\\)"),
        (SQUARE / 255, "an array of float64; wanted uint8"),
        (np.concatenate([SQUARE, SQUARE], axis=2), "its shape is \\(5, 5, 6\\); wanted \\[Y X\\]"),
        (np.zeros((5, 5, 4), np.uint8), "its shape is \\(5, 5, 4\\)"),
        (np.zeros((0, 5, 3), np.uint8), "its shape is \\(0, 5, 3\\)"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(content, message):
    with pytest.raises(ValueError, match=message):
        decode_image(content, size=5, channels=3)


def test_sizes_and_channels_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="size=0; wanted the side"):
        check_picture(0, 3)
    with pytest.raises(ValueError, match="channels=2; wanted 1 \\(grey\\) or 3"):
        check_picture(5, 2)
