"""Histograms of oriented gradients against loops in float64, and what is refused."""

import math

import numpy as np
import pytest

from research.evaluation.hog import NUM_ANGLES, hog


def plain(image, cell):
    """The definition, pixel by pixel."""
    rows, columns, channels = image.shape
    cells = np.zeros((rows // cell, columns // cell, NUM_ANGLES))
    for y in range(rows):
        for x in range(columns):
            best = (0.0, 0.0, -1.0)
            for channel in range(channels):
                down = image[y + 1, x, channel] - image[y - 1, x, channel] if 0 < y < rows - 1 else 0.0
                right = image[y, x + 1, channel] - image[y, x - 1, channel] if 0 < x < columns - 1 else 0.0
                if math.hypot(down, right) > best[2]:
                    best = (down, right, math.hypot(down, right))
            down, right, size = best
            angle = (math.atan2(down, right) % math.pi) / math.pi * NUM_ANGLES - 0.5
            low = math.floor(angle)
            cells[y // cell, x // cell, low % NUM_ANGLES] += size * (1 - (angle - low))
            cells[y // cell, x // cell, (low + 1) % NUM_ANGLES] += size * (angle - low)
    found = []
    for y in range(cells.shape[0] - 1):
        for x in range(cells.shape[1] - 1):
            block = np.concatenate([cells[y, x], cells[y, x + 1], cells[y + 1, x], cells[y + 1, x + 1]])
            block = np.minimum(block / max(np.linalg.norm(block), 1e-6), 0.2)
            found.append(block / max(np.linalg.norm(block), 1e-6))
    return np.concatenate(found)


@pytest.mark.parametrize(("channels", "cell"), [(1, 2), (3, 4)])
def test_histograms_are_those_of_the_definition(channels, cell):
    images = np.random.default_rng(channels).integers(0, 256, (3, 3 * cell, 2 * cell, channels)).astype(np.uint8)
    found = hog(images, cell=cell)
    assert found.shape == (3, 2 * 4 * NUM_ANGLES)
    for image, vector in zip(images.astype(np.float64), found, strict=True):
        np.testing.assert_allclose(vector, plain(image, cell), atol=2e-5)


def test_a_flat_image_has_no_edges_and_a_stripe_one_angle():
    flat = np.full((1, 8, 8, 1), 77, np.uint8)
    assert not hog(flat).any()
    stripe = flat.copy()
    stripe[:, :, 4:] = 200
    votes = hog(stripe).reshape(4, NUM_ANGLES).sum(axis=0)
    assert set(np.flatnonzero(votes)) == {0, NUM_ANGLES - 1}  # a gradient along x lies between the first and the last


@pytest.mark.parametrize("shape", [(9, 8), (8, 9), (4, 4)])
def test_images_that_do_not_divide_are_refused(shape):
    with pytest.raises(ValueError, match="wanted a multiple of 4, and 2 cells or more"):
        hog(np.zeros((1, *shape, 1), np.uint8))
