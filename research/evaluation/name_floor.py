"""The floor of naming pictures: names whose letters are in common with those of the nearest training pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from research.evaluation.retrieval import candidates, chance_recall, group_ranks

_CHUNK = 512  # pictures at a time


def letters_in_common(
    train_images: np.ndarray,
    train_names: Sequence[str],
    images: np.ndarray,
    names: Sequence[str],
    *,
    neighbours: int = 5,
    at: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """Recall at each k of `at`, image to text and text to image, of a ranking that has learnt nothing.

    A picture has no letters. It is given those of its `neighbours` nearest training pictures, by squared differences of
    pixels: the sum of the TF-IDF vectors of their names, over runs of two to four letters within words. A name and a
    picture are as near as the cosine of the two. Candidates of `image_to_text_recall_at_k`
    are the distinct names; `text_to_image_recall_at_k` asks with each distinct name and has found it when any of its
    pictures is among the k nearest. Ties earn nothing. `chance_…` are the same of a random order.

    `train_images` [N Y X C] and `images` [M Y X C] of one shape and scale.

    Raises:
      ValueError: images and names of different number, of different shape, or fewer training images than neighbours.
    """
    for each, told, name in ((train_images, train_names, "training"), (images, names, "test")):
        if not len(each) or len(each) != len(told):
            raise ValueError(f"{len(each)} {name} images came with {len(told)} names; give one each, and some")
    if train_images.shape[1:] != images.shape[1:]:
        raise ValueError(
            f"training images of {train_images.shape[1:]} came with test images of {images.shape[1:]}; resize one"
        )
    if not 1 <= neighbours <= len(train_images):
        raise ValueError(f"neighbours={neighbours} of {len(train_images)} training images; use 1 to that")
    from sklearn.feature_extraction.text import TfidfVectorizer  # a second to import: only when asked for
    from sklearn.preprocessing import normalize

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    trained: Any = vectorizer.fit_transform(train_names)  # sparse [N G]
    first, own = candidates(names)
    wanted: Any = vectorizer.transform([names[index] for index in first])
    nearest = nearest_images(train_images, images, neighbours=neighbours)
    given: Any = sum(trained[nearest[:, place]] for place in range(neighbours))
    similarities = (normalize(given) @ wanted.T).toarray()  # [M, distinct names]
    # Rounded, since sums in another order must not part what is equal.
    similarities = np.round(similarities, 9)
    num_images, num_names = similarities.shape
    name_groups, images_of = np.arange(num_names), np.bincount(own, minlength=num_names)
    found = {
        "image_to_text": group_ranks(similarities, own, name_groups),
        "text_to_image": group_ranks(similarities.T, name_groups, own),
    }
    result = {}
    for cutoff in at:
        for way, order in found.items():
            result[f"{way}_recall_at_{cutoff}"] = float((order <= cutoff).mean())
        once = np.ones(num_images, np.int64)
        result[f"chance_image_to_text_recall_at_{cutoff}"] = chance_recall(once, num_names, cutoff)
        result[f"chance_text_to_image_recall_at_{cutoff}"] = chance_recall(images_of, num_images, cutoff)
    return result


def nearest_images(train_images: np.ndarray, images: np.ndarray, *, neighbours: int) -> np.ndarray:
    """The places of the training images [N Y X C] nearest to each image [M Y X C] by pixels, int [M neighbours]; the
    nearest first, of equals the first.
    """
    # In float64 the squares of whole pixel values are exact, and equal pictures are equally far.
    among = train_images.reshape(len(train_images), -1).astype(np.float64)
    squares = (among * among).sum(axis=1)
    found = []
    for start in range(0, len(images), _CHUNK):
        asked = images[start : start + _CHUNK].reshape(-1, among.shape[1]).astype(np.float64)
        for distances in squares - 2.0 * (asked @ among.T):  # the image's own square is the same for all
            near = np.flatnonzero(distances <= np.partition(distances, neighbours - 1)[neighbours - 1])
            found.append(near[np.argsort(distances[near], kind="stable")[:neighbours]])
    return np.stack(found)
