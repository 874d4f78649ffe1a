"""The floor of naming pictures, on pictures and names made for it."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from research.evaluation.name_floor import letters_in_common, nearest_images


def picture(value):
    return np.full((2, 3, 1), value, np.uint8)


TRAIN = [(10, "latin small letter a"), (12, "latin capital letter a"), (100, "leftwards arrow"), (103, "upwards arrow"),
         (200, "black square"), (203, "white square")]  # fmt: skip
TEST = [(11, "latin small letter e"), (101, "downwards arrow"), (202, "small white square")]


def split(rows):
    return np.stack([picture(value) for value, _ in rows]), [name for _, name in rows]


def test_names_are_found_by_the_letters_of_the_nearest_pictures():
    found = letters_in_common(*split(TRAIN), *split(TEST), neighbours=2, at=(1, 2))
    assert found["image_to_text_recall_at_1"] == found["text_to_image_recall_at_1"] == 1.0
    assert found["chance_image_to_text_recall_at_1"] == pytest.approx(1 / 3)
    assert found["chance_text_to_image_recall_at_2"] == pytest.approx(2 / 3)


def test_pictures_that_mislead_find_nothing():
    moved = [(101, "latin small letter e"), (202, "downwards arrow"), (11, "small white square")]
    found = letters_in_common(*split(TRAIN), *split(moved), neighbours=2, at=(1,))
    assert found["image_to_text_recall_at_1"] == found["text_to_image_recall_at_1"] == 0.0


def test_equal_names_are_one_candidate_and_any_of_their_pictures_is_a_hit():
    several = [*TEST, (105, "downwards arrow"), (8, "downwards arrow")]
    found = letters_in_common(*split(TRAIN), *split(several), neighbours=2, at=(1,))
    assert found["image_to_text_recall_at_1"] == pytest.approx(4 / 5)  # the last looks like a letter
    assert found["text_to_image_recall_at_1"] == pytest.approx(2 / 3)  # and so ties with the letter's picture
    assert found["chance_image_to_text_recall_at_1"] == pytest.approx(1 / 3)
    assert found["chance_text_to_image_recall_at_1"] == pytest.approx((1 / 5 + 1 / 5 + 3 / 5) / 3)


def test_ranks_are_those_of_a_plain_loop():
    rng = np.random.default_rng(1)
    syllables = ["ba", "ko", "mi", "tu", "re", "sol"]
    names = ["".join(rng.choice(syllables, 3)) + " " + rng.choice(syllables) for _ in range(40)]
    images = rng.integers(0, 256, (40, 2, 3, 1), np.uint8)
    train, test = (images[:23], names[:23]), (images[23:], names[23:])
    found = letters_in_common(*train, *test, neighbours=3, at=(1, 3))
    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True).fit(train[1])
    distinct = sorted(set(test[1]))
    places = []
    for image, name in zip(*test, strict=True):
        far = [np.sum((image.astype(int) - other.astype(int)) ** 2) for other in train[0]]
        nearest = np.argsort(far, kind="stable")[:3]
        given = grams.transform([train[1][index] for index in nearest]).toarray().sum(axis=0)
        near = {each: given @ grams.transform([each]).toarray()[0] for each in distinct}
        places.append(sum(value >= near[name] - 1e-9 for value in near.values()))
    for cutoff in (1, 3):
        assert found[f"image_to_text_recall_at_{cutoff}"] == pytest.approx(np.mean(np.array(places) <= cutoff))
    assert 0 < np.mean(np.array(places) <= 3) < 1


def test_neighbours_are_exact_and_of_equals_the_first():
    train = np.stack([picture(value) for value in (9, 5, 3, 5, 200)])
    assert nearest_images(train, np.stack([picture(5), picture(7), picture(255)]), neighbours=2).tolist() == [
        [1, 3], [0, 1], [4, 0],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_names": ["a"]}, "6 training images came with 1 names"),
        ({"images": np.zeros((3, 3, 3, 1), np.uint8)}, r"\(2, 3, 1\) came with test images of \(3, 3, 1\)"),
        ({"neighbours": 7}, "neighbours=7 of 6 training images"),
    ],
)
def test_input_that_does_not_fit_is_refused(changed, message):
    (train_images, train_names), (images, names) = split(TRAIN), split(TEST)
    given = {"train_images": train_images, "train_names": train_names, "images": images, "names": names}
    with pytest.raises(ValueError, match=message):
        letters_in_common(**(given | changed))
