"""Pictures, with one class each or without: decoded once to one size, read from a memory-mapped cache."""

from __future__ import annotations

from functools import partial

import PIL

from research.batch import Dataset
from research.data.decoded import Decoded, decode_once
from research.data.image_decoding import check_picture, decode_image
from research.data.media import UNITS, Media
from research.data.media_sources import open_media
from research.data.media_splits import Selections, media_dataset
from research.data.splits import fingerprint


def image_classification(
    path: str,
    *,
    size: int,
    channels: int = 3,
    image_field: str = "image",
    label_field: str = "label",
    file_field: str = "file",
    select: tuple[str, ...] = (),
    valid_path: str = "",
    valid_split: str = "",
    valid_select: tuple[str, ...] = (),
    valid_fraction: float = 0.1,
    test_path: str = "",
    test_select: tuple[str, ...] = (),
    shift_path: str = "",
    shift_select: tuple[str, ...] = (),
    folds: int = 0,
    fold: int = 0,
    slice_fields: tuple[str, ...] = (),
    skip_undecodable: bool = False,
    seed: int = 0,
    num_labels: int = 0,
    labels_seed: int = 0,
    label_names: tuple[str, ...] = (),
) -> Dataset:
    """Rows of `image` uint8 [size size channels] and `label`, of what `media_sources.open_media` opens.

    Pictures become squares, and change their channels, as `decode_image` says. `select` are conditions that training
    rows meet (`field=one|other`, `field!=value`); `valid_select`, `test_select` and `shift_select` those of rows of the
    split's own path, or of `path` where it has none. Other arguments as for `text_classification`.
    `skip_undecodable` leaves out what cannot be decoded, and counts it.

    Raises:
      ValueError: bad data, a picture that cannot be decoded, a label that training never sees, or the same data given
        for training and for evaluation.
    """
    check_picture(size, channels)
    selections = Selections(
        path=path,
        select=select,
        valid_path=valid_path,
        valid_split=valid_split,
        valid_select=valid_select,
        test_path=test_path,
        test_select=test_select,
        shift_path=shift_path,
        shift_select=shift_select,
    )
    return media_dataset(
        selections.open(
            partial(open_media, kind="image", field=image_field, file_field=file_field),
            partial(decode_pictures, size=size, channels=channels),
            skip_undecodable=skip_undecodable,
        ),
        lambda part: ({}, {}),
        key="image",
        label_field=label_field,
        label_names=label_names,
        valid_fraction=valid_fraction,
        folds=folds,
        fold=fold,
        slice_fields=slice_fields,
        seed=seed,
        num_labels=num_labels,
        labels_seed=labels_seed,
        image_size=size,
        num_channels=channels,
    )


# The same without labels: whatever there are stay unread.
images = partial(image_classification, label_field="")


def decode_pictures(media: Media, *, size: int, channels: int) -> Decoded:
    """The pictures of a source, uint8 [M size size channels]."""
    return decode_once(
        lambda index: (decode_image(media.read(index), size=size, channels=channels), ()),
        len(media.names),
        shape=(size, size, channels),
        dtype="uint8",
        num_notes=0,
        key=fingerprint("image", PIL.__version__, media.fingerprint),
        unit=UNITS["image"],
    )
