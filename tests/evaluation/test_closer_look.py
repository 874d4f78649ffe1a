"""What a report shows of vectors: purity against a plain count, right neighbours, and one small page."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from research.batch import Dataset, Spec, Split
from research.evaluation.closer_look import look_at_image_text, look_at_vectors
from research.evaluation.exhibits import chance_purity, group_names, make_map, nearest_rows, picture
from research.evaluation.report import write_report
from research.evaluation.scores import look

SIDE = 5


class Rows(list):
    """Images as a split's rows."""


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def blobs(count, seed=0):
    """Vectors [count 7] about three directions, and the direction of each."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return (np.eye(7)[labels] + 0.05 * rng.normal(size=(count, 7))).astype(np.float32), labels


def split(shades, **more):
    rows = Rows({"image": np.full((SIDE, SIDE, 1), 40 * shade, np.uint8)} for shade in shades)
    return Split(rows, texts=[f"row {row}" for row in range(len(shades))], **more)


@pytest.fixture(scope="module")
def pictures():
    """Outputs over the test split of 23 pictures, with the dataset that has 19 to train on."""
    (train, known), (vectors, labels) = blobs(19), blobs(23, 1)
    scripts = {"script": [f"script {label}" for label in labels], "size": list(range(23))}
    parts = {name: split(known, labels=known) for name in ("train", "val")}
    parts["test"] = split(labels, labels=labels, fields=scripts)
    return {"vectors": vectors, "train_vectors": train, "val_vectors": train}, Dataset(
        parts, Spec(image_size=SIDE, label_names=(*"abc",))
    )


def test_chance_is_that_of_two_points_of_one_group():
    groups = np.array(list("aabbbc"))
    same = [a == b for i, a in enumerate(groups) for j, b in enumerate(groups) if i != j]
    assert chance_purity(groups) == pytest.approx(np.mean(same))


def test_numbers_are_grouped_by_quartiles_and_other_values_as_they_are():
    assert len(set(group_names(list(range(23))))) == 4
    assert group_names(["x", "y", "x"]).tolist() == ["x", "y", "x"]
    assert group_names([3, 1, 3]).tolist() == ["3", "1", "3"]


def test_the_nearest_rows_are_those_of_a_plain_loop():
    rng = np.random.default_rng(2)
    queries, vectors = rng.normal(size=(3, 5)), rng.normal(size=(11, 5))
    places, cosines = nearest_rows(queries, vectors, most=4)
    for row, query in enumerate(queries):
        wanted = sorted(range(11), key=lambda place: -(unit(vectors)[place] @ unit(query[None])[0]))[:4]
        assert places[row].tolist() == wanted
        np.testing.assert_allclose(cosines[row], unit(vectors)[wanted] @ unit(query[None])[0], rtol=1e-12)


def test_a_map_separates_what_the_vectors_separate_and_chance_does_not(pictures):
    outputs, dataset = pictures
    found = look_at_vectors(outputs, dataset, "test")
    for name in ("label", "script"):
        assert found.figures[f"pca_map_purity_{name}"] > 0.6 > 0.4 > found.floors[f"chance_map_purity_{name}"]
        assert found.figures[f"map_purity_{name}"] > 0.6
    assert found.exhibits["map"]["colours"]["label"]["names"] == ["a", "b", "c"]  # the most frequent first
    assert len(found.exhibits["map"]["points"]["tsne"]) == found.exhibits["map"]["rows"] == 23


def test_neighbours_of_the_own_class_are_marked(pictures):
    (rows,) = [each["rows"] for each in look_at_vectors(*pictures, "test").exhibits["galleries"]]
    assert len(rows) == 8
    for row in rows:
        shades = [decoded(item["image"])[0, 0] for item in (row["query"], *row["found"])]
        assert [shade == shades[0] for shade in shades[1:]] == [item["right"] for item in row["found"]]
        similarities = [item["similarity"] for item in row["found"]]
        assert similarities == sorted(similarities, reverse=True)


def decoded(address):
    kind, content = address.split(",", 1)
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def test_pictures_are_made_smaller_and_never_larger():
    assert decoded(picture(np.zeros((100, 50, 3), np.uint8))).shape == (48, 24, 3)
    assert decoded(picture(np.full((3, 3, 1), 7, np.uint8))).tolist() == [[7] * 3] * 3


def test_pictures_and_their_texts_are_marked_by_group():
    vectors = unit(np.random.default_rng(3).normal(size=(11, 6)).astype(np.float32))
    part = split(np.arange(11) % 6, hashes=[f"hash {row}" for row in range(11)])
    found = look_at_image_text({"image": vectors, "text": vectors}, Dataset({"val": part}, Spec()), "val")
    texts, images = (each["rows"] for each in found.exhibits["galleries"])
    for row in (*texts, *images):
        assert [item["right"] for item in row["found"]] == [True] + [False] * (len(row["found"]) - 1)
    assert all("image" in row["query"] and "text" in row["found"][0] for row in texts)
    assert all("text" in row["query"] and "image" in row["found"][0] for row in images)
    assert found.figures == found.floors == {}


def test_pairs_of_texts_show_both_sides_and_the_counterpart():
    vectors = unit(np.random.default_rng(4).normal(size=(7, 6)))
    part = Split(Rows(), texts=[*"abcdefg"], seconds=["A", "B", "C", "D", "E", "F", "F"])
    outputs = {"first": vectors, "second": vectors}
    figures, exhibits = look(outputs, Dataset({"val": part}, Spec()), "val", objective="pairs")
    assert figures == {} and exhibits["split"] == "val"
    assert exhibits["map"]["colours"]["side"]["names"] == ["first", "second"]
    for row in exhibits["galleries"][0]["rows"][:5]:
        assert row["found"][0] == {"text": row["query"]["text"].upper(), "similarity": 1.0, "right": True}


def test_vectors_that_are_all_equal_have_a_sentence_in_place_of_a_map():
    figures, exhibit = make_map(np.ones((9, 4)), {"label": [0, 1, 2] * 3})
    assert figures == {} and "all vectors point the same way" in exhibit["note"]


def test_the_page_of_a_run_holds_maps_and_galleries_in_itself(pictures, tmp_path):
    figures, exhibits = look(*pictures, "test", objective="simclr")
    (tmp_path / "result.json").write_text(json.dumps(figures))
    (tmp_path / "exhibits.json").write_text(json.dumps(exhibits))
    page = write_report(tmp_path).read_text()
    assert "How do its vectors lie?" in page and "Nearest neighbours" in page and "by chance" in page
    assert page.count("<svg") == 6  # by label, script and size, each by t-SNE and by PCA
    assert 8 < page.count('class="item right"') < 8 * 9 + 1
    assert not re.search(r'(?:src|href)="(?!data:image/png;base64,)', page)
    (tmp_path / "exhibits.json").write_text(json.dumps({"split": "val", "map": {"note": "<none>"}}))
    page = write_report(tmp_path).read_text()
    assert "&lt;none&gt;" in page and "What lies near?" not in page
