"""Prompts with their answers: one row each, of which a causal model learns the answer alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from research.batch import Dataset, Example, Spec, Split
from research.data.labelled import Labelled, read_labelled, token_ids
from research.data.rows import row_at, text_columns
from research.data.splits import Documents, fingerprint, hash_text, random_choice, repeats
from research.data.text import TokenizerBlock, train_tokenizer
from research.data.tokenizers import facts, literal

SEPARATOR = "\n"


@dataclass(frozen=True)
class AnswerRows:
    """Rows of `tokens`, `segment_ids` (1 where real), `positions`, each int32 [L], and `loss_mask` bool [L]."""

    tokens: np.ndarray  # int32 [N L], 0 behind each answer
    lengths: np.ndarray  # int64 [N]
    starts: np.ndarray  # int64 [N], where the answer begins

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Example:
        return row_at(self, index)

    def rows(self, indices: np.ndarray) -> Example:
        """The rows at `indices`, stacked."""
        found = text_columns(self.tokens[indices], self.lengths[indices])
        in_answer = np.arange(self.tokens.shape[1]) >= self.starts[indices, None]
        return found | {"loss_mask": in_answer & (found["segment_ids"] > 0)}


def prompt_answer(
    path: str,
    *,
    length: int,
    tokenizer: TokenizerBlock,
    prompt_field: str = "prompt",
    answer_field: str = "answer",
    separator: str = SEPARATOR,
    valid_path: str = "",
    valid_split: str = "",
    valid_fraction: float = 0.1,
    test_path: str = "",
    shift_path: str = "",
    folds: int = 0,
    fold: int = 0,
    slice_fields: tuple[str, ...] = (),
    seed: int = 0,
    num_labels: int = 0,
    labels_seed: int = 0,
) -> Dataset:
    """One row `<bos> prompt separator answer <eos>` for each record; the answer and <eos> are what is to be predicted.

    Where a row is too short the prompt is cut at its beginning, the separator stays; an answer that does not fit
    without its prompt is cut at its end and has no <eos>. Such answers are counted, and those with <unk>. Validation
    data, `num_labels` (of rows) and `labels_seed` as in `text_classification`, but nothing is stratified.

    Raises:
      ValueError: bad data, an empty answer (the record is named), or a separator that the tokenizer cannot see.
    """

    def read_label(record, where: str) -> str:
        answer = record[answer_field]
        if not isinstance(answer, str) or not answer.strip():
            raise ValueError(f"{where}: {answer_field}={answer!r} is no answer; write some text, or remove the record")
        return answer

    found = read_labelled(
        path,
        read_label,
        text_fields=(prompt_field,),
        label_fields=(answer_field,),
        valid_path=valid_path,
        valid_split=valid_split,
        valid_fraction=valid_fraction,
        test_path=test_path,
        shift_path=shift_path,
        folds=folds,
        fold=fold,
        slice_fields=slice_fields,
        seed=seed,
    )
    if num_labels:
        train = found["train"]
        at = random_choice(len(train.labels), num_labels, labels_seed, train.where)
        found["train"] = train.take(at, f"{num_labels} labels by {labels_seed}")
    train = found["train"]
    texts = [prompt + separator + answer for (prompt,), answer in zip(train.texts, train.labels, strict=True)]
    trained = train_tokenizer(tokenizer, [Documents(train.where, texts, fingerprint(train.key, separator))])
    splits, counts = {}, {}
    for name, part in found.items():
        rows, answers, lost = _lay_out(part, separator, trained, length=length)
        prompts = [prompt for (prompt,) in part.texts]
        num_bytes = sum(len(text.encode()) for text in (*prompts, *part.labels))
        hashes = [hash_text(prompt) for prompt in prompts]
        told = {"num_bytes": num_bytes, "hashes": hashes, "fields": part.fields}
        splits[name] = Split(rows, texts=prompts, answers=answers, **told)
        counts[name] = {
            "rows": len(rows),
            **lost,
            "tokens": int(rows.lengths.sum()),
            "answer_tokens": int((rows.lengths - rows.starts).sum()),
            "bytes": num_bytes,
            "fill": float(rows.lengths.mean() / length),
        }
    contents = trained.to_str()
    return Dataset(
        splits=splits,
        spec=Spec(length=length, **facts(trained)),
        tokenizer=contents,
        facts={
            **counts,
            **repeats({name: split.hashes for name, split in splits.items()}),
            "fingerprint": fingerprint(contents, separator, *(f"{name} {part.key}" for name, part in found.items())),
        },
    )


def _lay_out(
    part: Labelled, separator: str, tokenizer: Tokenizer, *, length: int
) -> tuple[AnswerRows, list[list[int]], dict[str, int]]:
    """The rows of a split, the token ids of each answer in full, and how many prompts and answers were cut, and how
    many answers have an unknown token."""
    known, tokenizer = facts(tokenizer), literal(tokenizer)
    bos, eos = ([known[name]] if known[name] >= 0 else [] for name in ("bos_id", "eos_id"))
    least = _separator_length(separator, tokenizer)
    room = length - len(bos)
    if room < least + 2:
        raise ValueError(f"length={length} leaves no room for an answer; use {least + 2 + len(bos)} or more")
    tokens = np.zeros((len(part.labels), length), np.int32)
    lengths, starts = np.zeros(len(tokens), np.int64), np.zeros(len(tokens), np.int64)
    answers, lost = [], {"cut_prompts": 0, "cut_answers": 0, "unknown_answers": 0}
    pairs = [(prompt + separator, answer) for (prompt,), answer in zip(part.texts, part.labels, strict=True)]
    for row, (prompt, answer) in enumerate(token_ids(pairs, tokenizer)):
        if not answer:
            raise ValueError(
                f"{part.where}: the tokenizer makes no token of the answer {part.labels[row]!r}; remove its record"
            )
        answers.append([*answer, *eos])
        kept = answers[-1][: room - min(least, len(prompt))]
        before = bos + prompt[max(0, len(prompt) + len(kept) - room) :]
        ids = before + kept
        tokens[row, : len(ids)] = ids
        lengths[row], starts[row] = len(ids), len(before)
        lost["cut_prompts"] += len(before) < len(bos) + len(prompt)
        lost["cut_answers"] += len(kept) < len(answers[-1])
        lost["unknown_answers"] += known["unk_id"] in answer
    return AnswerRows(tokens, lengths, starts), answers, lost


def _separator_length(separator: str, tokenizer: Tokenizer) -> int:
    """The tokens at a prompt's end that are never cut off: those of the separator, at least one."""
    ids: Sequence[int] = tokenizer.encode(separator, add_special_tokens=False).ids
    if separator and not ids:
        raise ValueError(
            f"separator={separator!r} is no token of this tokenizer, so that an answer's beginning could not be seen; "
            "use another data.separator, such as ' : '"
        )
    return max(len(ids), 1)
