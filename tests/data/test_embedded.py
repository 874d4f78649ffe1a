"""What the embedded data promises: splits that share nothing, prose and code apart, order that matters."""

import ast
import re

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from research.data import embedded
from research.data.roles import ROLES

SETS = tuple(embedded.EMBEDDED)


def everything(name: str) -> list[dict]:
    return [record for split in embedded.splits(name) for record in embedded.records(name, split)]


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A standard library of the test's own: a function that writes its modules and reads one set of them."""
    monkeypatch.setattr(embedded.sysconfig, "get_path", lambda name: str(tmp_path))

    def read(name: str, **sources: str) -> list[dict]:
        for module, source in sources.items():
            path = tmp_path / f"{module.replace('__', '/', 1)}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(source)
        return list(embedded.EMBEDDED[name](embedded._modules()))

    return read


@pytest.mark.parametrize("name", SETS)
def test_no_module_is_in_two_splits_of_any_set(name):
    for split in embedded.splits(name):
        found = embedded.records(name, split)
        assert found
        assert {embedded.split_of(record["module"]) for record in found} == {split}


@pytest.mark.parametrize("name", SETS)
def test_no_text_stands_twice(name):
    for field in ("text", "docstring", "body"):
        texts = [record[field] for record in everything(name) if field in record]
        normalised = {re.sub(r"[\W\d_]+", "", text.lower()) for text in texts}
        assert len(normalised) == len(texts)


@pytest.mark.parametrize("name", SETS)
def test_packages_that_distributions_leave_out_are_not_used(name):
    packages = {record["module"].split(".")[0] for record in everything(name)}
    assert not packages & {"tkinter", "turtle", "idlelib", "lib2to3", "test", "ensurepip", "distutils", "encodings"}
    assert packages > {"asyncio", "email", "unittest"}


@pytest.mark.parametrize("name", SETS)
def test_splits_are_about_eight_one_and_one_in_ten(name):
    counts = embedded.describe(name)
    total = sum(counts[f"{split}/characters"] for split in embedded.splits(name))
    assert 0.6 < counts["train/characters"] / total < 0.9
    assert counts["val/characters"] / total > 0.07 and counts["test/characters"] / total > 0.07


def test_the_corpus_is_large_and_a_quarter_prose():
    documents = everything("corpus")
    prose = sum(len(record["text"]) for record in documents if record["kind"] == "prose")
    total = sum(len(record["text"]) for record in documents)
    assert total > 5_000_000
    assert 0.2 < prose / total < 0.5


def test_records_may_be_changed_without_changing_those_of_the_next_caller():
    embedded.records("pairs", "val")[0]["body"] = ""
    assert embedded.records("pairs", "val")[0]["body"]


def test_corpus_parts_prose_from_code(library):
    source = '''"""What abc is about."""

# Runs of lines that only hold a comment
# are joined, whatever they stand in.
import os


# Told about the function that follows.
@decorated
def area(width, height):
    """The area of a rectangle

    in square metres."""
    text = """
# not a comment but a string, longer than a line
"""
    # Rounded afterwards, by the caller.
    return width * height * len(text)  # kept
'''
    found = library("corpus", abc=source)
    prose = [record["text"] for record in found if record["kind"] == "prose"]
    code = [record["text"] for record in found if record["kind"] == "code"]
    assert prose == [
        "What abc is about.\n\nRuns of lines that only hold a comment\nare joined, whatever they stand in.",
        "Told about the function that follows.\n\nThe area of a rectangle\n\nin square metres.\n\n"
        "Rounded afterwards, by the caller.",
    ]
    assert code == [
        '@decorated\ndef area(width, height):\n    text = """\n# not a comment but a string, longer than a line\n"""\n'
        "    return width * height * len(text)  # kept"
    ]


def test_corpus_leaves_out_tables_repeats_and_other_packages(library):
    table = f"names = [{', '.join(repr(f'item{number}') for number in range(51))}]\n"
    function = "def convert(value):\n    return str(value).encode('ascii').upper()\n"
    again = function.replace("value", "VALUE")
    modules = {"abc": table, "bisect": function, "copy": again, "tkinter": function + "#", "json__tests": function}
    assert [record["module"] for record in library("corpus", **modules)] == ["bisect"]


def test_pairs_hold_the_body_without_its_docstring(library):
    source = '''class Box:
    def area(self):
        """The area of this box in square metres."""
        # How it is done.
        width = self.width * self.scale
        return width * self.height

    def empty(self):
        """A placeholder that does nothing at all."""
'''
    assert library("pairs", abc=source) == [
        {
            "docstring": "The area of this box in square metres.",
            "body": "width = self.width * self.scale\nreturn width * self.height",
            "name": "area",
            "module": "abc",
        }
    ]


def test_bodies_are_code_that_parses_and_repeat_no_docstring():
    found = everything("pairs")
    assert len(found) > 2000
    for record in found:
        ast.parse("async def f():\n if True:\n" + re.sub("^", "  ", record["body"], flags=re.MULTILINE))
        assert record["docstring"] not in record["body"]


def test_roles_are_balanced_and_hide_one_name():
    for split, wanted in (("train", 600), ("val", 150), ("test", 150)):
        counts = embedded.describe("roles")
        assert {role: counts[f"{split}/{role}"] for role in ROLES} == dict.fromkeys(ROLES, wanted)
    for record in everything("roles"):
        before, after = record["text"].split("<mask>")
        words = [len(re.findall(r"\w+|[^\w\s]", side)) for side in (before, after)]
        assert max(words) <= 24
        if record["label"] in ("attribute", "method"):
            assert before.rstrip().endswith(".")
        assert (record["label"] == "method") <= after.lstrip().startswith("(")
        assert (record["label"] == "keyword") <= bool(re.match(r"\s*=[^=]", after))


def test_roles_need_the_order_of_words():
    """A bag of words is far from solving it; the same classifier on the words next to the place does much better."""

    def neighbours(text: str) -> str:
        before, after = (re.findall(r"\w+|[^\w\s]", side) for side in text.split("<mask>"))
        sides = [f"{side}{index}:{word}" for side, words in (("l", before[::-1]), ("r", after)) for index, word in
                 enumerate(words[:3])]  # fmt: skip
        return " ".join(sides)

    train, test = embedded.records("roles", "train"), embedded.records("roles", "test")
    labels, wanted = [record["label"] for record in train], np.array([record["label"] for record in test])

    def accuracy(view) -> float:
        vectorizer = CountVectorizer(token_pattern=r"\S+" if view is neighbours else r"\w+|[^\w\s]", binary=True)
        features = vectorizer.fit_transform([view(record["text"]) for record in train])
        model = MultinomialNB().fit(features, labels)
        return float(np.mean(model.predict(vectorizer.transform([view(record["text"]) for record in test])) == wanted))

    assert accuracy(str) < 0.45
    assert accuracy(neighbours) > 0.6


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("corpsu", "train", "no such set; there are: corpus, pairs, roles"),
        ("corpus", "dev", "there are: train, val, test"),
    ],
)
def test_unknown_sets_and_splits_are_refused(name, split, message):
    with pytest.raises(ValueError, match=message):
        embedded.records(name, split)


def test_a_python_without_sources_is_refused(library):
    with pytest.raises(ValueError, match="holds no Python sources"):
        library("corpus")


def test_records_are_kept_and_read_again_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDWORK_CACHE", str(tmp_path))
    embedded._all_records.cache_clear()
    made = embedded.records("roles", "val")
    assert len(list((tmp_path / "embedded").iterdir())) == 1
    embedded._all_records.cache_clear()
    monkeypatch.setattr(embedded, "_read_records", lambda name: pytest.fail("read again"))
    assert embedded.records("roles", "val") == made
    monkeypatch.setattr(embedded.sys, "version", "another")
    embedded._all_records.cache_clear()
    with pytest.raises(pytest.fail.Exception, match="read again"):
        embedded.records("roles", "val")
    embedded._all_records.cache_clear()
