"""Questions about texts as files hold them: SQuAD's nested layout, or one record a question."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from research.batch import Question
from research.data.files import Record, encodable
from research.data.sources import Records


@dataclass(frozen=True)
class Asked:
    """A question, its article ("" where the file names none), and the characters [first, last) of its answer."""

    question: Question
    article: str
    answer: tuple[int, int] | None  # of several the one given most often, the first of equals; None: there is none


def read_questions(records: Records, *, question_field: str, context_field: str, answers_field: str) -> list[Asked]:
    """Every question of the records, in order.

    A record with `paragraphs` is an article of SQuAD's layout. Any other is a question with its context and answers: a
    list of {"text", "answer_start"}, {"text": […], "answer_start": […]}, or texts alone, of which the first place in
    the context counts. In a .csv file answers are such a list as JSON, or one text. Without answers there is none.

    Raises:
      ValueError: a field that is missing or no text, a blank question or context, an answer that is not where it should
        be; the record is named.
    """
    found: list[Asked] = []
    for number, record in enumerate(records, start=1):
        if "paragraphs" in record:
            found += _of_article(record, f"{records.path}, article {number}")
            continue
        where = f"{records.path}, record {number}"
        values = [_field(record, field, where) for field in (question_field, context_field, answers_field)]
        question, context = (
            _text(value, field, where) for value, field in zip(values, (question_field, context_field), strict=False)
        )
        named = str(record.get("id") or number)
        found.append(_asked(named, question, context, values[2], str(record.get("title") or ""), where))
    if not found:
        raise ValueError(f"{records.path} holds no question; give another path")
    return found


def _of_article(record: Record, where: str) -> Iterator[Asked]:
    """The questions of one article; its title and place stand for it."""
    article = f"{where} {record.get('title', '')}"
    for number, paragraph in enumerate(_objects(record, "paragraphs", where), start=1):
        here = f"{where}, paragraph {number}"
        context = _text(_field(paragraph, "context", here), "context", here)
        for order, entry in enumerate(_objects(paragraph, "qas", here), start=1):
            named = str(entry.get("id") or f"{number}.{order}")
            there = f"{here}, question {named}"
            text = _text(_field(entry, "question", there), "question", there)
            answers = _field(entry, "answers", there)
            if answers and entry.get("is_impossible"):
                raise ValueError(f"{there}: is_impossible is true and there are answers; remove one of the two")
            yield _asked(named, text, context, answers, article, there)


def _asked(named: str, text: str, context: str, answers: Any, article: str, where: str) -> Asked:
    spans = [_place(answer, first, context, where) for answer, first in _answers(answers, where)]
    commonest = max(spans, key=Counter(spans).__getitem__, default=None)
    accepted = tuple(context[first:last] for first, last in spans)
    return Asked(Question(named, text, context, accepted), article, commonest)


def _answers(value: Any, where: str) -> list[tuple[str, int | None]]:
    """The answers' texts, and where each begins; None where the file does not say."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{where}: the answers begin as JSON does and are none ({error.msg} at character {error.pos + 1}); "
                'mend them, or write one text as ["text"]'
            ) from error
    if isinstance(value, str):
        value = [value] if value.strip() else []
    if isinstance(value, Mapping):
        texts, firsts = (value.get(name) for name in ("text", "answer_start"))
        if not isinstance(texts, list) or not isinstance(firsts, list) or len(texts) != len(firsts):
            raise ValueError(f"{where}: the answers' text and answer_start are no two lists of one length")
        value = [{"text": text, "answer_start": first} for text, first in zip(texts, firsts, strict=True)]
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}: answers is {type(value).__name__}, wanted a list")
    found = []
    for answer in value:
        given = answer if isinstance(answer, Mapping) else {"text": answer}
        text, first = given.get("text"), given.get("answer_start")
        if not isinstance(text, str) or not text.strip() or type(first) not in (int, type(None)):
            raise ValueError(
                f'{where}: the answer {answer!r} is neither a text nor {{"text": text, "answer_start": character}}'
            )
        found.append((text, first))
    return found


def _place(text: str, first: int | None, context: str, where: str) -> tuple[int, int]:
    """The characters [first, last) of an answer without the white space around it."""
    if first is None:
        first = context.find(text)
        if first < 0:
            raise ValueError(f"{where}: the answer {text!r} does not stand in its context; mend or remove it")
    found = context[first : first + len(text)] if first >= 0 else ""
    if found != text:
        raise ValueError(
            f"{where}: the answer {text!r} should begin at character {first} of its context, where {found!r} stands; "
            "mend answer_start (characters, counted from 0), or give the text alone"
        )
    first += len(text) - len(text.lstrip())
    return first, first + len(text.strip())


def _field(record: Mapping[str, Any], field: str, where: str) -> Any:
    value = record.get(field)
    if value is None:
        present = ", ".join(sorted(key for key in record if record[key] is not None)) or "none"
        raise ValueError(f"{where}: no field {field!r}; the fields present are: {present}")
    return value


def _text(value: Any, field: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {field!r} is {'blank' if isinstance(value, str) else repr(value)}, wanted text")
    if not value.isascii():
        encodable(value, f"{where}, {field!r}")
    return value


def _objects(record: Mapping[str, Any], field: str, where: str) -> list[Mapping[str, Any]]:
    found = _field(record, field, where)
    if not isinstance(found, list) or not all(isinstance(item, Mapping) for item in found):
        raise ValueError(f"{where}: {field!r} is no list of JSON objects")
    return found
