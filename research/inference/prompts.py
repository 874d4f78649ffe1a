"""Answering prompts: what stands between a prompt and its answer is put there, and the answer given by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from research.inference.generate import Sampling, generate
from research.inference.text_model import TextModel


def answer_prompts(
    text_model: TextModel,
    prompts: Sequence[str],
    *,
    separator: str,
    sampling: Sampling,
    batch_size: int = 32,
    first_index: int = 0,
) -> Iterator[dict[str, Any]]:
    """For each prompt, in order, what `generate` gives, with "answer": the "output" behind the prompt and `separator`.

    Raises as `generate`.
    """
    texts = [prompt + separator for prompt in prompts]
    found = generate(text_model, texts, sampling=sampling, batch_size=batch_size, first_index=first_index)
    for prompt, text, given in zip(prompts, texts, found, strict=True):
        yield given | {"input": prompt, "answer": given["output"].removeprefix(text)}
