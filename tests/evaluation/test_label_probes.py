"""Probes that read labels: what is measured, of which rows, and where nothing is; zero-shot classes beside chance."""

import numpy as np
import pytest

from research.batch import Dataset, Spec, Split
from research.evaluation import label_probes as probes
from research.evaluation.closer_look import look_at_image_text, look_at_vectors
from research.evaluation.few_shot import few_shot
from research.evaluation.label_probes import label_probes, verification
from research.evaluation.probes import logistic_probe
from research.evaluation.verification import draw_pairs, equal_error_rate


def draw(count, seed, noise=0.8):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return np.eye(5)[labels] + noise * rng.normal(size=(count, 5)), labels


@pytest.fixture(scope="module")
def outputs():
    parts = {name: draw(count, count) for name, count in (("train", 29), ("val", 17), ("test", 41))}
    dataset = Dataset(
        {name: Split([], labels=labels.tolist()) for name, (_, labels) in parts.items()},
        Spec(label_names=("a", "b", "c")),
    )
    given = {"vectors": parts["test"][0], "train_vectors": parts["train"][0], "val_vectors": parts["val"][0]}
    return given, dataset, parts


def test_probes_are_those_of_all_rows(outputs):
    given, dataset, parts = outputs
    found = label_probes(given, dataset, "test")
    (train, known), (vectors, labels) = parts["train"], parts["test"]
    wanted = few_shot(train, known, vectors, labels, shots=5)
    assert found["few_shot_5_accuracy"] == wanted["mean"] > found["few_shot_1_accuracy"]
    assert found["few_shot_5_interval95"] == wanted["interval95"]
    assert "few_shot_10_accuracy" not in found  # a class has nine training rows
    probe = logistic_probe(train, known, *parts["val"], num_classes=3)
    assert found["logistic_probe_accuracy"] == np.mean(probe.logits(vectors).argmax(axis=1) == labels)


def test_a_probe_of_some_rows_is_left_out_where_these_lack_a_class(outputs, monkeypatch):
    monkeypatch.setattr(probes, "MOST_PROBED", 2)
    assert "logistic_probe_accuracy" not in label_probes(outputs[0], outputs[1], "test")


def test_rows_without_a_class_have_no_probes(outputs):
    dataset = Dataset({name: Split([]) for name in ("train", "val", "test")}, Spec())
    assert label_probes(outputs[0], dataset, "test") == {}


def test_verification_is_by_each_column_that_has_pairs_of_both_kinds():
    vectors, labels = draw(41, 5, noise=0.2)
    columns = {"label": labels.tolist(), "speaker": ["ann"] * 41, "name": [f"clip {row}" for row in range(41)]}
    found = verification(vectors, columns)
    first, second, same = draw_pairs(labels, num_pairs=10_000)
    assert found == {"eer_label": equal_error_rate(vectors[first], vectors[second], same)["eer"]}
    assert found["eer_label"] < 0.1


def test_a_closer_look_at_vectors_has_probes_and_maps(outputs):
    found = look_at_vectors(outputs[0], outputs[1], "test").figures
    assert {"few_shot_1_accuracy", "logistic_probe_accuracy", "eer_label", "map_purity_label"} <= found.keys()


def test_pictures_are_classified_by_texts_beside_chance_and_the_commonest_class():
    rows, rng = 11, np.random.default_rng(0)
    classes = np.array([0] * 6 + [1] * 3 + [2] * 2)
    images = np.eye(4)[classes] + 0.05 * rng.normal(size=(rows, 4))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    part = Split(
        [{"image": np.zeros((2, 2, 1), np.uint8)}] * rows,
        texts=[f"text {row}" for row in range(rows)],
        hashes=[f"hash {min(row, 9)}" for row in range(rows)],  # the last two rows show one picture
    )
    prompts = np.repeat(np.eye(4)[:3, None], 2, axis=1)
    given = {"image": images, "text": images, "prompts": prompts, "classes": classes}
    found = look_at_image_text(given, Dataset({"val": part}, Spec()), "val")
    assert found.figures == {"zero_shot_accuracy": 1.0}
    assert found.floors == {"chance_zero_shot_accuracy": 1 / 3, "commonest_zero_shot_accuracy": 0.6}
