"""preprocessor_config.json: what is written comes back, published forms are read, others are refused."""

import json

import numpy as np
import pytest

from research.interop.preprocessor import NAME, Preprocessing, read_preprocessing, write_preprocessing

KINDS = {
    "clip": Preprocessing(),
    "square": Preprocessing(size=28, crop=0, square=True, mean=(0.5, 0.25, 0.1), std=(0.3, 0.2, 0.7)),
    "cropped": Preprocessing(size=30, crop=20, resampling="bilinear"),
}
OLD = dict(size=224, crop_size=224, resample=3, do_resize=True, feature_extractor_type="CLIPFeatureExtractor")


def put(folder, settings, name=NAME):
    (folder / name).write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_what_is_written_comes_back(name, tmp_path):
    write_preprocessing(tmp_path, KINDS[name])
    assert read_preprocessing(tmp_path) == KINDS[name]
    assert KINDS[name].image_size == {"clip": 224, "square": 28, "cropped": 20}[name]


def test_published_forms_are_read(tmp_path):
    assert read_preprocessing(put(tmp_path, OLD)) == Preprocessing()
    assert read_preprocessing(put(tmp_path, {})) == Preprocessing()
    raw = read_preprocessing(put(tmp_path, OLD | dict(do_normalize=False, image_mean=[0.5] * 3)))
    assert (raw.mean, raw.std) == ((0.0,) * 3, (1.0,) * 3)
    (tmp_path / NAME).unlink()
    nested = put(
        tmp_path, dict(image_processor=dict(size={"shortest_edge": 336}, crop_size=336)), "processor_config.json"
    )
    assert read_preprocessing(nested) == Preprocessing(size=336, crop=336)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(feature_extractor_type="ViTFeatureExtractor"), "is of a ViTFeatureExtractor"),
        (dict(do_resize=False), "do_resize=False"),
        (dict(rescale_factor=1 / 127.5), "rescale_factor"),
        (dict(resample=9), "resample=9"),
        (dict(size={"height": 3, "width": 4}), "height and width alike"),
        (dict(size={"longest_edge": 3}), "longest_edge"),
        (dict(do_center_crop=False), "differ in size"),
        (dict(image_std=[0.1, 0.0, 0.1]), "above 0"),
        (dict(image_mean=[0.1]), "a number of each"),
        (dict(size=0), "size=0"),
        (dict(crop_size=225), "crop=225"),
    ],
)
def test_what_cannot_be_had_is_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_preprocessing(put(tmp_path, OLD | changes))


def test_a_folder_that_says_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing says which pixels"):
        read_preprocessing(tmp_path)


@pytest.mark.parity
@pytest.mark.parametrize("name", KINDS)
def test_transformers_opens_what_is_written_and_its_own_is_read(name, tmp_path):
    transformers = pytest.importorskip("transformers", reason="parity needs the extra hf: pip install -e '.[hf]'")
    write_preprocessing(tmp_path, KINDS[name])
    opened = transformers.CLIPImageProcessorPil.from_pretrained(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (260, 240, 3)).astype(np.uint8)
    pixels = opened(image, return_tensors="np")["pixel_values"][0]
    size = KINDS[name].image_size
    assert pixels.shape == (3, size, size)

    from PIL import Image  # with transformers' image processors

    wanted, small = KINDS[name], KINDS[name].size
    shape = (small, small) if wanted.square else (small, int(small * 260 / 240))  # of columns and rows
    resampling = getattr(Image.Resampling, wanted.resampling.upper())
    plain = np.asarray(Image.fromarray(image).resize(shape, resampling), np.float64)
    top, left = (shape[1] - size) // 2, (shape[0] - size) // 2
    plain = plain[top : top + size, left : left + size] / 255
    plain = (plain - np.array(wanted.mean)) / np.array(wanted.std)
    assert np.abs(np.moveaxis(pixels, 0, 2) - plain).max() < 1e-5
    opened.save_pretrained(tmp_path / "again")
    assert read_preprocessing(tmp_path / "again") == wanted
