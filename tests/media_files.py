"""Tiny pictures and recordings for tests, and what encodes them."""

import io
import tarfile
import wave

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cow")


def pictures(count, *, height=5, width=5, seed=0):
    """uint8 [count height width 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def encoded(picture, form="PNG", **options):
    """The bytes of a picture, an array or Pillow's own."""
    stream = io.BytesIO()
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    image.save(stream, form, **options)
    return stream.getvalue()


def recordings(lengths, *, seed=0):
    """int16 arrays of these lengths."""
    rng = np.random.default_rng(seed)
    return [rng.integers(-9000, 9000, length).astype(np.int16) for length in lengths]


def wav(samples, rate=8000):
    """The bytes of a 16-bit WAVE file of samples [T] or [T channels], written by the standard library."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return stream.getvalue()


def flat(contents):
    """`data` and `offsets` of encoded contents, or of arrays of samples."""
    pieces = [np.frombuffer(each, np.uint8) if isinstance(each, bytes) else each for each in contents]
    return np.concatenate(pieces), np.cumsum([0, *map(len, pieces)])


def write_folder(folder, contents, names):
    for name, content in zip(names, contents, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return str(folder)


def write_tar(place, members):
    with tarfile.open(place, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            content = content if isinstance(content, bytes) else content.encode()
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return str(place)
