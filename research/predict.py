"""Uses a trained model on text: fills masks, continues or answers a text, labels it or its words, tells its number,
answers a question about it, or makes it a vector; or on pictures and recordings, which it labels, makes vectors, or
looks for in a collection; one JSON object a line, in order.

python -m research.predict --workdir=DIR [--task=TASK] [--step=N] [TEXT … | --input=FILE]
    tasks: fill_mask, generate, classify, regress, tag, answer, embed, search
    fill_mask:  [--top=5]
    search:     --index=FOLDER [--top=5]
    generate:   [--max_tokens=64] [--temperature=1] [--top_k=0] [--top_p=1] [--seed=0]

Texts are arguments, or come from --input: a .txt file has one a line; .jsonl, .csv and .parquet files have them in
--text_field; - is standard input (which is read without TEXT and --input too), one a line, each answered at once. Blank
lines are left out. A model of pairs takes "first TAB second", or the fields --text_field and --pair_field; so does one
that answers questions: "question TAB context". A model that learned to answer prompts takes the prompt alone, and gives
the answer by itself too; with --temperature=0 it is the likeliest.
A model of pictures or of sounds takes files, folders, or .npz, .tar and .parquet files in the place of texts.
The task defaults to what the model was trained for; any model can embed. DIR may be a folder of published weights.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from research.door import run_door

TASKS = {
    "masked_lm": "fill_mask",
    "causal_lm": "generate",
    "classification": "classify",
    "multi_label": "classify",
    "regression": "regress",
    "tagging": "tag",
    "question_answering": "answer",
}  # others embed
FLAGS = {
    "fill_mask": {"top": 5},
    "generate": {"max_tokens": 64, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0},
    "classify": {},
    "regress": {},
    "tag": {},
    "answer": {},
    "embed": {},
    "search": {"index": "", "top": 5},
}

Text = tuple[str, ...]  # a text, or the two of a pair
Predict = Callable[[Sequence[Text], int], Iterable[dict[str, Any]]]  # texts, and the index of the first


def main(arguments: Sequence[str]) -> int:
    flags = parse(arguments)
    from research.trained import open_trained

    trained = open_trained(flags.workdir, step=flags.step)
    of_media = trained.spec.image_size > 0 or trained.spec.sample_rate > 0
    task = choose_task(flags.task, trained.about["objective"].get("name", "features"), searches=of_media)
    chosen = options(flags, task)
    if of_media:
        from research.media import predict_media

        if flags.input:
            raise ValueError("--input is for texts; name pictures or recordings, or folders of them, as arguments")

        chosen = {"index": "", "top": 5} | chosen
        where = {"batch_size": flags.batch_size, "workdir": flags.workdir}
        for result in predict_media(trained, task, flags.texts, **chosen, **where):
            print(json.dumps(result, ensure_ascii=False), flush=True)
        return 0
    if task == "answer":
        chosen |= {"threshold": read_threshold(flags.workdir)}
    predict = make_predict(trained, task, chosen, flags.batch_size)
    data = trained.about["data"]
    own = data.get("prompt_field", "prompt") if data.get("name") == "prompt_answer" else data.get("text_field", "text")
    fields = (flags.text_field or own,)
    if flags.pair_field and task not in ("classify", "regress", "answer"):
        raise ValueError(f"--pair_field={flags.pair_field}: --task={task} reads one text a row; leave it out")
    if task in ("classify", "regress") and (flags.pair_field or data.get("pair_field")):
        if trained.trained_here and not data.get("pair_field"):  # published weights do not say what they read
            raise ValueError(f"--pair_field={flags.pair_field}: this run was trained on one text a row; leave it out")
        fields += (flags.pair_field or data["pair_field"],)
    if task == "answer":
        names = data.get("question_field", "question"), data.get("context_field", "context")
        fields = (flags.text_field or names[0], flags.pair_field or names[1])
    first = 0
    for texts in read(flags.texts, flags.input, fields):
        for result in predict(texts, first):
            print(json.dumps(result, ensure_ascii=False), flush=True)
        first += len(texts)
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="research.predict", allow_abbrev=False)
    parser.add_argument("texts", nargs="*", metavar="TEXT")
    parser.add_argument("--workdir", required=True, type=Path, help="of the trained run")
    parser.add_argument("--step", type=int, default=None, help="a checkpoint of it (default: the newest)")
    parser.add_argument("--task", choices=sorted(FLAGS), default=None)
    parser.add_argument("--input", default="", metavar="FILE", help="of texts; - is standard input")
    parser.add_argument("--text_field", default="", help="of a .jsonl, .csv or .parquet file (default: as in training)")
    parser.add_argument(
        "--pair_field",
        default="",
        help="of the second text of a pair (default: as in training; say it for published weights)",
    )
    parser.add_argument("--batch_size", type=int, default=32, help="texts at a time")
    parser.add_argument(
        "--index", default=None, metavar="FOLDER", help="search: what to look in, pictures or recordings"
    )
    parser.add_argument("--top", type=int, default=None, help="fill_mask: candidates a mask; search: files (5)")
    parser.add_argument("--max_tokens", type=int, default=None, help="generate: tokens to add at most (64)")
    parser.add_argument("--temperature", type=float, default=None, help="generate: 0 takes the likeliest token (1)")
    parser.add_argument("--top_k", type=int, default=None, help="generate: only from the k likeliest, 0: from all (0)")
    parser.add_argument("--top_p", type=float, default=None, help="generate: only from the likeliest share p (1)")
    parser.add_argument("--seed", type=int, default=None, help="generate: of the random draws (0)")
    flags = parser.parse_intermixed_args(arguments)
    if flags.texts and flags.input:
        parser.error("give texts as arguments or by --input, not both")
    return flags


def choose_task(task: str | None, objective: str, *, searches: bool = False) -> str:
    """The task asked for, where a model of this objective can do it; its own where none is."""
    own = TASKS.get(objective, "embed")
    if task == "search" and searches:
        return task
    if task not in (None, own, "embed"):
        raise ValueError(f"--task={task} needs another run: this one is a {objective} model; use --task={own}")
    return task or own


def options(flags: argparse.Namespace, task: str) -> dict[str, Any]:
    """The task's own flags, with its defaults.

    Raises:
      ValueError: a flag of another task was given.
    """
    for other, names in FLAGS.items():
        for name in names:
            if name not in FLAGS[task] and getattr(flags, name) is not None:
                raise ValueError(f"--{name} belongs to --task={other}; this is {task}: leave it out")
    given = {name: getattr(flags, name) for name in FLAGS[task]}
    return {name: default if given[name] is None else given[name] for name, default in FLAGS[task].items()}


def read_threshold(workdir: Path) -> float:
    """The lead of "no answer" past which a run says nothing, as its validation chose; infinite where it chose none."""
    try:
        found = json.loads((workdir / "result.json").read_text())
    except FileNotFoundError:
        return math.inf
    return found.get("val/no_answer_threshold", math.inf)


def make_predict(trained: Any, task: str, chosen: Mapping[str, Any], batch_size: int) -> Predict:
    """The function that answers texts, from an `trained.Trained`."""
    from research.build import parameters
    from research.data.labelled import encode_rows
    from research.data.question_answering import encode_questions, fit_windows, question_answering
    from research.data.tagging import encode_words
    from research.data.tokenizers import frame, own_frame
    from research.evaluation.question_answering import find_answers
    from research.evaluation.tagging import has_spans, spans
    from research.inference import (
        Sampling,
        answer,
        answer_prompts,
        classify,
        embed,
        fill_mask,
        generate,
        label,
        regress,
        tag,
    )
    from research.trained import separator, text_model

    model = text_model(trained.model, trained.params, trained.spec, trained.about)
    framed = frame if trained.trained_here else own_frame
    encode = functools.partial(encode_rows, tokenizer=trained.tokenizer, length=trained.spec.length, framed=framed)
    if task == "tag":
        encode = functools.partial(encode_words, tokenizer=trained.tokenizer, length=trained.spec.length)
        marked = spans if has_spans(trained.spec.label_names) else None
        return lambda texts, first: tag(
            model, [text for (text,) in texts], encode=encode, spans=marked, batch_size=batch_size
        )
    if task == "answer":
        # With the defaults that a page leaves out; a published model says nothing but its length.
        data = {name: default for name, (_, default) in parameters(question_answering).items()} | trained.about["data"]
        sizes = fit_windows(data["length"], max_question=data["max_question"], stride=data["stride"])
        encode = functools.partial(encode_questions, tokenizer=trained.tokenizer, **sizes)
        find = functools.partial(find_answers, max_answer=data["max_answer"])
        return lambda texts, first: answer(model, texts, encode=encode, find=find, batch_size=batch_size, **chosen)
    if task == "embed":
        head = trained.about["head"]["name"] == "embedding"
        return lambda texts, first: embed(model, texts, encode=encode, head=head, batch_size=batch_size)
    if task == "classify":
        say = label if trained.about["objective"]["name"] == "multi_label" else classify
        return lambda texts, first: say(model, texts, encode=encode, batch_size=batch_size)
    if task == "regress":
        told = {"mean": trained.spec.target_mean, "scale": trained.spec.target_scale}
        return lambda texts, first: regress(model, texts, encode=encode, batch_size=batch_size, **told)
    between = separator(trained.about)
    if task == "generate" and between is not None:
        write = functools.partial(answer_prompts, separator=between, sampling=Sampling(**chosen))
    elif task == "generate":
        write = functools.partial(generate, sampling=Sampling(**chosen))
    else:
        write = functools.partial(fill_mask, num_candidates=chosen["top"])
    return lambda texts, first: write(model, [text for (text,) in texts], batch_size=batch_size, first_index=first)


def read(texts: Sequence[str], path: str, fields: tuple[str, ...]) -> Iterator[list[Text]]:
    """The texts, all at once, but for standard input: one at a time as they come.

    Raises:
      ValueError: no texts, or what is no UTF-8, no pair where pairs are wanted, or no such field.
    """
    if texts:
        for index, text in enumerate(texts):
            _check_unicode(text, f"argument {index + 1}")
        yield [_pair(text, fields, f"argument {index + 1}") for index, text in enumerate(texts)]
    elif path in ("", "-"):
        for where, line in _lines(sys.stdin.buffer, "standard input"):
            yield [_pair(line, fields, where)]
    elif path.lower().endswith(".txt"):
        yield _read_txt(path, fields)
    else:
        yield _read_records(path, fields)


def _read_txt(path: str, fields: tuple[str, ...]) -> list[Text]:
    try:
        with open(path, "rb") as file:
            found = [_pair(line, fields, where) for where, line in _lines(file, path)]
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"--input={path} cannot be read ({reason}); give a file, or - for standard input") from error
    if not found:
        raise ValueError(f"--input={path} holds no text; write one text a line")
    return found


def _read_records(path: str, fields: tuple[str, ...]) -> list[Text]:
    from research.data.sources import open_records

    found = []
    for index, record in enumerate(open_records(path, fields=fields)):
        for field in fields:
            if not isinstance(record[field], str):
                kind = type(record[field]).__name__
                where = f"{path}, record {index + 1}"
                raise ValueError(f"{where}: field {field!r} is {kind}, wanted text; give another --text_field")
        found.append(tuple(record[field] for field in fields))
    return found


def _lines(file: Iterable[bytes], name: str) -> Iterator[tuple[str, str]]:
    """Where each line that is not blank stands, and its text."""
    for number, line in enumerate(file, start=1):
        where = f"{name}, line {number}"
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{where}: not UTF-8 at byte {error.start + 1}; convert the text to UTF-8") from error
        if text.strip():
            yield where, text


def _pair(text: str, fields: tuple[str, ...], where: str) -> Text:
    if len(fields) == 1:
        return (text,)
    first, tab, second = text.partition("\t")
    if not tab:
        raise ValueError(f"{where}: this model was trained on pairs; write the first text, a tab, and the second")
    return (first, second)


def _check_unicode(text: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{where}: not UTF-8; convert the text to UTF-8") from error


if __name__ == "__main__":
    run_door(main)
