"""Perturbed texts: by hand, at the stated rates, keyed by index alone; and copies of splits that encode those texts."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from research.batch import Dataset, Spec, Split
from research.build import build
from research.data import DATA
from research.data.labelled import encode_rows
from research.data.perturbation import (
    CHARACTERS,
    DROP_RATE,
    KINDS,
    TYPO_RATE,
    first_half,
    most_words,
    perturb,
    perturb_words,
    perturbed,
    typos,
)
from research.data.tagging import encode_words


class Chosen:
    """A generator that hits the given characters, in the given ways: 0 swap, 1 leave out, 2 neighbour, 3 double."""

    def __init__(self, hits, ways, sides=0):
        self.hits, self.answers = hits, [ways, [sides] * len(ways)]

    def random(self, size):
        return np.array([0.0 if index in self.hits else 1.0 for index in range(size)])

    def integers(self, low, high, size):
        return np.array(self.answers.pop(0)[:size])


@pytest.mark.parametrize(
    ("hits", "ways", "wanted"),
    [
        ([1], [0], "sotne, wall"),  # swapped with the one behind
        ([1], [1], "sone, wall"),
        ([1], [3], "sttone, wall"),
        ([1], [2], "srone, wall"),  # r is left of t
        ([4], [0], "stonee, wall"),  # no letter behind: doubled
        ([5], [1], "stone, wall"),  # a comma is no letter
        ([1, 2], [0, 1], "sotne, wall"),  # the second was swapped already
        ([0, 7], [1, 1], "tone, all"),
    ],
)
def test_a_typo_is_one_of_four(hits, ways, wanted):
    assert typos("stone, wall", Chosen(hits, ways)) == wanted  # pyright: ignore[reportArgumentType]


def test_a_neighbour_keeps_its_case_and_a_letter_that_no_key_has_is_doubled():
    assert typos("Ton", Chosen([0], [2], sides=1)) == "Yon"  # pyright: ignore[reportArgumentType]
    assert typos("Qon", Chosen([0], [2], sides=1)) == "Won"  # pyright: ignore[reportArgumentType]
    assert typos("é", Chosen([0], [2])) == "éé"  # pyright: ignore[reportArgumentType]


def test_a_text_is_never_typed_away():
    assert typos("a", Chosen([0], [1])) == "a"  # pyright: ignore[reportArgumentType]
    assert typos("", np.random.default_rng(0)) == ""


def test_typos_come_at_their_rate_and_each_way_as_often():
    """Any typo changes "stone": 20,000 of them, so that 0.01 is three standard deviations."""
    found = typos(" ".join(["stone"] * 20000), np.random.default_rng(7)).split()
    changed = [word for word in found if word != "stone"]
    assert len(changed) / 20000 == pytest.approx(1 - (1 - TYPO_RATE) ** 5, abs=0.01)
    once = [word for word in found if word in ("tone", "sone", "stne", "stoe", "ston")]
    swapped = [word for word in found if word in ("tsone", "sotne", "stnoe", "stoen")]
    assert len(once) / len(changed) == pytest.approx(0.25 * 0.95**4 * 5 * TYPO_RATE / (1 - 0.95**5), abs=0.03)
    assert len(swapped) / len(once) == pytest.approx(4 / 5 / 0.95, abs=0.08)  # no letter behind the last; one draw less


def test_words_are_dropped_at_their_rate_and_one_is_left():
    kept = most_words(50000, np.random.default_rng(3))
    assert len(kept) / 50000 == pytest.approx(1 - DROP_RATE, abs=0.01)
    assert kept == sorted(kept)
    assert most_words(3, np.random.default_rng(0), rate=1.1) == [0]
    assert most_words(0, np.random.default_rng(0)) == []


@pytest.mark.parametrize(("size", "wanted"), [(0, 0), (1, 1), (2, 1), (5, 3), (6, 3)])
def test_the_first_half_is_the_larger_one(size, wanted):
    assert first_half(size, np.random.default_rng(0)) == list(range(wanted))


def test_texts_by_hand():
    text = "One  Stone,\n\ttwo <mask> walls"
    assert perturb(text, "lower_case", seed=0, index=0) == "one  stone,\n\ttwo <mask> walls"
    assert perturb(text, "upper_case", seed=0, index=0) == "ONE  STONE,\n\tTWO <mask> WALLS"
    assert perturb(text, "first_half", seed=0, index=0) == "One  Stone,\n\ttwo"
    assert perturb("", "first_half", seed=0, index=0) == perturb("", "dropped_words", seed=0, index=0) == ""


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "first_half"])
def test_a_special_token_is_left_alone(kind):
    for index in range(200):
        found = perturb("go self.<mask>(x) and on [MASK]", kind, seed=1, index=index)
        assert "<mask>" in found and "[MASK]" in found


@pytest.mark.parametrize("kind", KINDS)
def test_a_perturbation_depends_on_the_seed_and_the_index_alone(kind):
    texts = [f"several words of text number {index} to be changed somehow" for index in range(40)]
    forward = [perturb(text, kind, seed=3, index=index) for index, text in enumerate(texts)]
    backward = [perturb(texts[index], kind, seed=3, index=index) for index in reversed(range(40))]
    assert forward == backward[::-1]
    same = [perturb(texts[0], kind, seed=3, index=index) for index in range(40)]
    other = [perturb(texts[0], kind, seed=4, index=index) for index in range(40)]
    random = kind in ("typos", "dropped_words")
    assert (len(set(same)) > 10) == random and (same != other) == random


@pytest.mark.parametrize("kind", KINDS)
def test_tags_go_with_their_words(kind):
    words, tags = ["Anna", "sees", "the", "unbelievable", "Tower", "."], [3, 4, 5, 6, 7, 8]
    for index in range(30):
        new, kept = perturb_words(words, tags, kind, seed=0, index=index)
        assert len(new) == len(kept) > 0 and all(word.strip() for word in new)
        if kind in CHARACTERS:
            assert kept == tags
        else:
            assert new == [words[tags.index(tag)] for tag in kept]
    if kind == "first_half":
        assert kept == [3, 4, 5]


@pytest.fixture
def records(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDWORK_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "a.jsonl"
    rows = [
        {
            "text": f"Some longer Text, number {n}",
            "pair": "and its Other one",
            "label": "ab"[n % 2],
            "tokens": ["Some", "longer", "words", f"{n}"],
            "tags": ["X", "Y", "Z", "N"],
        }
        for n in range(31)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def load(name, path, **arguments) -> Dataset:
    block = {"name": name, "path": path, "length": 37, "tokenizer": {"name": "byte"}, "valid_fraction": 0.4}
    return build(block | arguments, DATA, kind="data")


@pytest.mark.parametrize("pair_field", ["", "pair"])
def test_a_perturbed_split_is_its_perturbed_texts_encoded(records, pair_field):
    data = load("text_classification", records, pair_field=pair_field)
    copies, val = perturbed(data, "val", seed=5), data.splits["val"]
    assert list(copies.splits) == ["train", "clean", *KINDS]
    assert copies.splits["clean"] is val and copies.splits["train"] is data.splits["train"]
    tokenizer = Tokenizer.from_str(data.tokenizer)
    for kind in KINDS:
        part = copies.splits[kind]
        texts = [
            tuple(perturb(text, kind, seed=5, index=index, piece=piece) for piece, text in enumerate(pieces))
            for index, pieces in enumerate(val.pieces)
        ]
        assert part.labels == val.labels and part.texts == ["\n".join(pieces) for pieces in texts]
        tokens, lengths, borders, _ = encode_rows(texts, tokenizer, length=37)
        for index in range(len(texts)):
            row = part.examples[index]
            np.testing.assert_array_equal(row["tokens"], tokens[index])
            assert row["segment_ids"].sum() == lengths[index] and row["label"] == val.labels[index]
            if pair_field:
                assert row["token_types"].sum() == lengths[index] - borders[index]
    assert copies.splits["upper_case"].texts[0] == val.texts[0].upper()


def test_a_perturbed_split_of_tagged_words_has_their_tags_at_their_new_places(records):
    data = load("tagging", records)
    copies, val = perturbed(data, "val", seed=5), data.splits["val"]
    tokenizer = Tokenizer.from_str(data.tokenizer)
    for kind in KINDS:
        part = copies.splits[kind]
        for index in range(len(val.words)):
            words, tags = perturb_words(val.words[index], val.tags[index], kind, seed=5, index=index)
            assert list(part.words[index]) == words and list(part.tags[index]) == tags
            tokens, _, places = encode_words([words], tokenizer, length=37)
            row = part.examples[index]
            np.testing.assert_array_equal(row["tokens"], tokens[0])
            assert [row["tags"][column] for column in places[0] if column >= 0] == tags[
                : sum(c >= 0 for c in places[0])
            ]


def test_texts_without_labels_are_refused():
    data = Dataset(splits={"train": Split([]), "val": Split([])}, spec=Spec())
    with pytest.raises(ValueError, match="evaluation.robustness perturbs labelled or tagged texts"):
        perturbed(data, "val", seed=0)
