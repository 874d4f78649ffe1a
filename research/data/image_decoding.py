"""Pictures, encoded or plain, as uint8 arrays of one size and one number of channels."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

# What Pillow raises for damaged files, by format.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def decode_image(content: bytes | np.ndarray, *, size: int, channels: int) -> np.ndarray:
    """uint8 [S S C]: the shorter side resized (bicubic, antialiased), the centre cut out; one of that size is kept.

    A photograph is turned as its EXIF says, what is transparent lies on white, 16 bits become 8, grey becomes three
    equal channels, and colour becomes grey by the luminance of ITU-R 601. An array is uint8 [Y X], [Y X 1] or [Y X 3].

    Raises:
      ValueError: it cannot be decoded, or is another kind of array; why, but not which picture.
    """
    image = _from_array(content) if isinstance(content, np.ndarray) else _from_bytes(content)
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (size, size):
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        # As the shorter side resized and the centre cut out, but a long strip does not grow without bound between.
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    return np.asarray(image).reshape(size, size, channels)


def check_picture(size: int, channels: int) -> None:
    if size < 1:
        raise ValueError(f"size={size}; wanted the side of the stored pictures in pixels, 1 or more")
    if channels not in (1, 3):
        raise ValueError(f"channels={channels}; wanted 1 (grey) or 3 (red, green, blue)")


def _from_bytes(content: bytes) -> Image.Image:
    if not content:
        raise ValueError("it is empty")
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
        image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    except _DAMAGED as error:
        # Pillow names the buffer's address in some messages: they would differ on every run.
        reason = str(error).partition(" <_io")[0].strip() or type(error).__name__
        raise ValueError(reason) from error
    if image.mode.startswith("I;16"):  # Pillow itself would cut values above 255, not scale them
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are 32-bit numbers (mode {image.mode}); wanted 8 or 16 bits")
    return image


def _from_array(content: np.ndarray) -> Image.Image:
    if content.dtype != np.uint8:
        raise ValueError(f"it is an array of {content.dtype}; wanted uint8, from 0 to 255")
    if content.ndim == 3 and content.shape[2] == 1:
        content = content[:, :, 0]
    if not (content.ndim == 2 or (content.ndim == 3 and content.shape[2] == 3)) or not content.size:
        raise ValueError(f"its shape is {content.shape}; wanted [Y X], [Y X 1] or [Y X 3]")
    return Image.fromarray(np.ascontiguousarray(content))
