"""Retrieval of pictures and texts by hand, collapse as a sentence, and the floor on made-up pictures."""

import numpy as np
import pytest

from research.batch import Dataset, Spec, Split
from research.evaluation import image_text_tasks
from research.evaluation.image_text_tasks import name_floors, retrieval_figures, watch_retrieval
from research.evaluation.scores import floors, of_scored, score


class Rows(list):
    """Images as a split's rows."""


def split(images, texts, hashes=None):
    rows = Rows({"image": image} for image in images)
    return Split(rows, texts=texts, hashes=hashes or [f"picture {row}" for row in range(len(texts))])


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


IMAGES = np.zeros((4, 2, 2, 1), np.uint8)


def test_recall_and_ranks_by_hand():
    outputs = {"image": unit([[1, 0], [0, 1], [1, 1.1]]), "text": unit([[1, 0.1], [1, 0], [0, 1]])}
    figures, hits = retrieval_figures(outputs, split(IMAGES[:3], ["a", "b", "c"]))
    # Pictures find "b" "c" "a or c"; texts find pictures 0, 0 and 1.
    assert hits.tolist() == [False, False, False]
    assert [figures[f"image_to_text_{name}"] for name in ("mean_rank", "median_rank")] == [7 / 3, 2.0]
    assert figures["image_to_text_recall_at_1"] == 0.0 and figures["image_to_text_recall_at_5"] == 1.0
    assert figures["text_to_image_recall_at_1"] == 1 / 3 and figures["text_to_image_candidates"] == 3


def test_equal_texts_and_equal_pictures_are_one_candidate_and_no_rivals():
    # Rows 0 and 1 share a text; rows 2 and 3 show one picture.
    image = unit([[1, 0, 0], [0.9, 0.1, 0], [0, 1, 0], [0, 1, 0]])
    text = unit([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0.1]])
    part = split(IMAGES, ["a", "a", "b", "c"], ["p", "q", "r", "r"])
    figures, hits = retrieval_figures({"image": image, "text": text}, part)
    assert hits.tolist() == [True] * 4
    assert figures["image_to_text_candidates"] == figures["text_to_image_candidates"] == 3
    assert figures["text_to_image_recall_at_1"] == 1.0
    swapped, hits = retrieval_figures({"image": image[::-1], "text": text}, part)
    assert hits.tolist() == [False] * 4 and swapped["image_to_text_recall_at_1"] == 0.0


def test_a_collapse_is_a_sentence_that_names_the_side():
    rng = np.random.default_rng(0)
    spread, same = unit(rng.normal(size=(20, 8))), np.ones((20, 8), np.float32) / np.sqrt(8).astype(np.float32)
    part = split(np.zeros((20, 2, 2, 1), np.uint8), [f"text {row}" for row in range(20)])
    dataset = Dataset({"val": part}, Spec())
    healthy = watch_retrieval({"val": {"image": spread, "text": spread}}, dataset)
    assert healthy["collapse"] == "" and healthy["val/image_to_text_recall_at_1"] == 1.0
    assert healthy["val/text_to_image_mean_rank"] == 1.0
    for side in ("image", "text"):
        found = watch_retrieval({"val": {"image": spread, "text": spread} | {side: same}}, dataset)
        assert found["collapse"].startswith(f"{side}s: all vectors are nearly equal")
    first = watch_retrieval({"val": {"image": spread[:7], "text": spread[:7]}}, dataset)  # of the first rows alone
    assert first["val/image_to_text_mean_rank"] == 1.0


@pytest.mark.parametrize("side", [2, 70])
def test_floors_are_recall_by_letters_and_chance_of_pictures_at_most_32_pixels_a_side(side, monkeypatch):
    monkeypatch.setattr(image_text_tasks, "_READ", 5)
    kinds = {40: "latin small letter", 120: "leftwards arrow", 220: "black square"}
    rng = np.random.default_rng(0)

    def made(count, shades, name):
        images = np.stack([np.full((side, side, 1), shade, np.uint8) for shade in shades])
        return split(images + rng.integers(0, 3, images.shape, np.uint8), [f"{kinds[s]} {name}{s}" for s in shades])

    train = made(18, [*kinds] * 6, "old")
    dataset = Dataset({"train": train, "val": made(3, [*kinds], "new")}, Spec(image_size=side))
    found = name_floors(dataset, "val")
    assert found["letters_image_to_text_recall_at_1"] == found["letters_text_to_image_recall_at_1"] == 1.0
    assert found["chance_image_to_text_recall_at_1"] == pytest.approx(1 / 3)
    small = image_text_tasks._small_images(train, np.arange(18))
    factor = 1 if side == 2 else 3
    assert small.shape == (18, side // factor, side // factor, 1)
    cell = train.examples[4]["image"][factor : 2 * factor, :factor].astype(int).sum()
    assert small[4, 1, 0, 0] == cell
    named = floors(dataset, "val", objective="siglip")
    assert named["floor/val/chance_text_to_image_recall_at_5"] == 1.0


def test_scores_have_a_value_for_each_row_whose_mean_is_the_headline():
    rng = np.random.default_rng(3)
    image = unit(rng.normal(size=(9, 4)))
    outputs = {"image": image, "text": unit(image + rng.normal(size=(9, 4)))}
    texts = [f"text {row % 7}" for row in range(9)]
    part = split(np.zeros((9, 2, 2, 1), np.uint8), texts)
    dataset = Dataset({"train": split(IMAGES, ["a"] * 4, ["x"] * 4), "val": part}, Spec())
    scored = score(outputs, dataset, "val", objective="clip")
    assert scored is not None and len(scored.values) == 9
    headline = scored.figures[scored.headline]
    assert np.concatenate(scored.values).mean() == headline and 0.0 < headline < 1.0
    assert of_scored(scored, dataset, "val")["val/image_to_text_recall_at_1"] == headline
