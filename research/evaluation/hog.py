"""Histograms of oriented gradients (Dalal and Triggs 2005), the classical description of an image by its edges."""

from __future__ import annotations

import numpy as np

NUM_ANGLES = 9


def hog(images: np.ndarray, *, cell: int = 4) -> np.ndarray:
    """One vector of length-normalised histograms an image: uint8 [N Y X C] to float32 [N F].

    Gradients are centred differences, of the channel where they are largest; each pixel votes with its magnitude for
    the two nearest of 9 unsigned angles, in cells of `cell` x `cell` pixels. Blocks of 2 x 2 cells, one cell apart, are
    normalised to length 1, clipped at 0.2 and normalised again (the paper's L2-Hys). No vote is shared between cells.

    Raises:
      ValueError: images that do not divide into cells, or into fewer than 2 x 2.
    """
    rows, columns = images.shape[1:3]
    if rows % cell or columns % cell or min(rows, columns) < 2 * cell:
        raise ValueError(f"images of {rows} x {columns} pixels; wanted a multiple of {cell}, and 2 cells or more")
    parts = [_hog(images[first : first + 1024].astype(np.float32), cell) for first in range(0, len(images), 1024)]
    return np.concatenate(parts)


def _hog(images: np.ndarray, cell: int) -> np.ndarray:
    down, right = np.zeros_like(images), np.zeros_like(images)
    down[:, 1:-1] = images[:, 2:] - images[:, :-2]
    right[:, :, 1:-1] = images[:, :, 2:] - images[:, :, :-2]
    size = np.hypot(down, right)
    channel = size.argmax(axis=3)[..., None]
    down, right, size = (np.take_along_axis(each, channel, axis=3)[..., 0] for each in (down, right, size))
    angle = (np.arctan2(down, right) / np.pi % 1.0) * NUM_ANGLES - 0.5
    low = np.floor(angle)
    share = angle - low
    votes = np.zeros((*size.shape, NUM_ANGLES), np.float32)
    first, second = (low.astype(int) + shift for shift in (0, 1))
    for bins, weight in ((first % NUM_ANGLES, 1.0 - share), (second % NUM_ANGLES, share)):
        held = np.take_along_axis(votes, bins[..., None], axis=3)[..., 0]
        np.put_along_axis(votes, bins[..., None], (held + weight * size)[..., None], axis=3)
    count, rows, columns = size.shape
    cells = votes.reshape(count, rows // cell, cell, columns // cell, cell, NUM_ANGLES).sum(axis=(2, 4))
    corners = [cells[:, y : cells.shape[1] - 1 + y, x : cells.shape[2] - 1 + x] for y in (0, 1) for x in (0, 1)]
    blocks = _unit(np.concatenate(corners, axis=3))
    return _unit(np.minimum(blocks, 0.2)).reshape(count, -1)


def _unit(blocks: np.ndarray) -> np.ndarray:
    return blocks / np.maximum(np.linalg.norm(blocks, axis=3, keepdims=True), 1e-6)
