"""How a published model wants its pixels: the `preprocessor_config.json` that lies beside published weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from research.interop.tensor_files import read_json, write_json

Resampling = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]

NAME = "preprocessor_config.json"
_PROCESSOR = "processor_config.json"  # where transformers 5 puts it beside a tokenizer's settings
_TYPES = tuple(f"CLIP{name}" for name in ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil"))
_OLD_TYPE = "CLIPFeatureExtractor"
_RESAMPLING: Mapping[int, Resampling] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    4: "box",
    5: "hamming",
}  # Pillow's numbers


@dataclass(frozen=True)
class Preprocessing:
    """Pixels 0 to 255 become (pixel / 255 - mean) / std of each channel, after the image was resized and cropped.

    Its shorter side is made `size` pixels, or with `square` both sides; then its middle `crop` x `crop` is taken (0:
    all of it). The defaults are those of OpenAI's CLIP.
    """

    size: int = 224
    crop: int = 224
    square: bool = False
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    resampling: Resampling = "bicubic"

    def __post_init__(self) -> None:
        if self.size < 1 or self.crop < 0:
            raise ValueError(f"images of size={self.size} cropped to {self.crop}; wanted numbers of pixels")
        if self.crop > self.size:
            raise ValueError(f"crop={self.crop} of images of size={self.size}: there is no edge to fill it; crop less")
        if not self.crop and not self.square:
            raise ValueError(f"crop=0 with only the shorter side made {self.size}: images would differ in size; crop")
        if len(self.mean) != len(self.std) or min(self.std) <= 0.0:
            raise ValueError(f"mean={self.mean} and std={self.std}; wanted a number of each a channel, std above 0")

    @property
    def image_size(self) -> int:
        """Pixels a side of what the model gets."""
        return self.crop or self.size


def read_preprocessing(folder: Path) -> Preprocessing:
    """What a folder of published weights says of its images.

    Raises:
      ValueError: it says nothing, or what cannot be had here.
    """
    place, settings = _open(Path(folder))
    kind = settings.get("image_processor_type", settings.get("feature_extractor_type", _TYPES[0]))
    if kind not in (*_TYPES, _OLD_TYPE):
        raise ValueError(f"{place} is of a {kind}; here it can be {' or '.join(_TYPES)}")
    _check_fixed(settings, place)
    resample = settings.get("resample", 3)
    if resample not in _RESAMPLING:
        raise ValueError(f"{place} says resample={resample!r}; here it can be one of Pillow's 0 to 5")
    normalize = settings.get("do_normalize", True)
    size, square = _size(settings.get("size", Preprocessing.size), place)
    crop, _ = _size(settings.get("crop_size", Preprocessing.crop), place)
    return Preprocessing(
        size=size,
        crop=crop if settings.get("do_center_crop", True) else 0,
        square=square,
        mean=tuple(settings.get("image_mean", Preprocessing.mean)) if normalize else (0.0,) * 3,
        std=tuple(settings.get("image_std", Preprocessing.std)) if normalize else (1.0,) * 3,
        resampling=_RESAMPLING[resample],
    )


def write_preprocessing(folder: Path, wanted: Preprocessing) -> None:
    """Writes it so that `transformers.AutoImageProcessor` opens it."""
    numbers = {name: number for number, name in _RESAMPLING.items()}
    square = {"height": wanted.size, "width": wanted.size}
    settings = {
        "image_processor_type": _TYPES[0],
        "do_convert_rgb": True,
        "do_resize": True,
        "size": square if wanted.square else {"shortest_edge": wanted.size},
        "resample": numbers[wanted.resampling],
        "do_center_crop": wanted.crop > 0,
        "crop_size": {"height": wanted.image_size, "width": wanted.image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(wanted.mean),
        "image_std": list(wanted.std),
    }
    write_json(Path(folder) / NAME, settings)


def read_pixels(folder: Path) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Side in pixels, mean and standard deviation of each channel, of any processor that resizes to a square.

    Images are made squares here by their shorter side and the middle, whatever share the processor crops.

    Raises:
      ValueError: the folder says nothing, or what cannot be had here.
    """
    place, settings = _open(Path(folder))
    _check_fixed(settings, place)
    if "size" not in settings:
        raise ValueError(f"{place} says no size; give it size and image_mean, such as 224 and [0.5, 0.5, 0.5]")
    size, _ = _size(settings["size"], place)
    if settings.get("do_center_crop") and "crop_size" in settings:
        size, _ = _size(settings["crop_size"], place)
    if not settings.get("do_normalize", True):
        return size, (0.0,), (1.0,)
    try:
        return size, tuple(settings["image_mean"]), tuple(settings["image_std"])
    except KeyError as error:
        raise ValueError(f"{place} lacks {error}, which its normalisation needs; write it there") from error


def write_pixels(folder: Path, *, size: int, mean: Sequence[float], std: Sequence[float]) -> None:
    """Writes it so that `transformers.AutoImageProcessor` opens it: resized to a square, bicubic, and normalised."""
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }
    write_json(Path(folder) / NAME, settings)


def _check_fixed(settings: Mapping[str, Any], place: Path) -> None:
    for key, wanted in (("do_resize", True), ("do_rescale", True), ("rescale_factor", 1 / 255)):
        if settings.get(key, wanted) != wanted:
            raise ValueError(f"{place} says {key}={settings[key]!r}; here it can be {wanted!r}")


def _open(folder: Path) -> tuple[Path, Mapping[str, Any]]:
    if (folder / NAME).is_file():
        return folder / NAME, read_json(folder / NAME)
    if (folder / _PROCESSOR).is_file() and (found := read_json(folder / _PROCESSOR).get("image_processor")):
        return folder / _PROCESSOR, found
    raise ValueError(
        f"{folder} has no {NAME}, so that nothing says which pixels its model saw; write one with "
        "AutoImageProcessor.from_pretrained(DIR).save_pretrained(DIR)"
    )


def _size(given: Any, place: Path) -> tuple[int, bool]:
    """Pixels, and whether both sides have them; a bare number is of the shorter side, as old files of CLIP have it."""
    if isinstance(given, int):
        return given, False
    if isinstance(given, Mapping) and given.keys() == {"shortest_edge"}:
        return given["shortest_edge"], False
    if isinstance(given, Mapping) and given.keys() == {"height", "width"} and given["height"] == given["width"]:
        return given["height"], True
    raise ValueError(f"{place} asks for images of {given!r}; here it can be shortest_edge, or height and width alike")
