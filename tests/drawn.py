"""Trained models of random weights, of each published family and head, with a tokenizer of the words w5, w6, …"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from research.build import resolve
from research.models import HEADS, MODELS
from research.objectives import OBJECTIVES
from research.trained import Trained, assemble
from research.training.checkpoint import Checkpoints

VOCABULARY, LENGTH = 40, 12
BERT_HEAD = dict(name="language", transform=True, bias=True)
BERT_POOLED = dict(name="classification", pooling="first", pooler=True)
LABELS = {task: ["bad", "fair", "good"] for task in ("classification", "tagging", "multi_label")}
LABELS |= {"regression": ["stars"]}
FAMILIES = {
    "bert": ("bert", "masked_lm", BERT_HEAD),
    "bert classifier": ("bert", "classification", BERT_POOLED),
    "bert multi_label": ("bert", "multi_label", BERT_POOLED),
    "bert regression": ("bert", "regression", BERT_POOLED),
    "bert tagger": ("bert", "tagging", dict(name="tagging")),
    "bert question_answering": ("bert", "question_answering", dict(name="spans")),
    "roberta": ("roberta", "masked_lm", BERT_HEAD | dict(norm_epsilon=1e-5)),
    "roberta multi_label": ("roberta", "multi_label", BERT_POOLED),
    "roberta regression": ("roberta", "regression", BERT_POOLED),
    "roberta question_answering": ("roberta", "question_answering", dict(name="spans")),
    "gpt2": ("gpt2", "causal_lm", dict(name="language")),
    "gpt2 question_answering": ("gpt2", "question_answering", dict(name="spans")),
    "llama": ("llama", "causal_lm", dict(name="language", tied=False)),
}


def tokenizer(size: int = VOCABULARY) -> str:
    special = ["<pad>", "<unk>", "<bos>", "<eos>", "<mask>"]
    vocabulary = {token: index for index, token in enumerate([*special, *(f"w{i}" for i in range(5, size))])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(special)
    return made.to_str()


def draw(name: str, task: str, head: dict[str, Any], *, targets: Mapping[str, float] = {}, **changes: Any) -> Trained:
    """A trained model of random weights, none at an initial zero or one; `targets` are those of a regression."""
    labels = LABELS.get(task, [])
    causal = name in ("gpt2", "llama") or OBJECTIVES[task].causal
    offers = dict(vocab_size=VOCABULARY, length=LENGTH, causal=causal, num_classes=len(labels))
    heads = dict(num_kv_heads=1) if name == "llama" else {}
    block = dict(name=name, width=16, depth=3, num_heads=2, **heads, **changes)
    about = dict(
        model=resolve(block, MODELS, kind="model", **offers),
        head=resolve(head, HEADS, kind="head", width=16, **offers),
        objective=dict(name=task),
        tokenizer=tokenizer(),
        data=dict(name="text", length=LENGTH),
        label_names=labels,
        **targets,
    )
    objective = assemble(about, {}, 0).objective
    assert objective is not None
    ones = jnp.ones((2, LENGTH), jnp.int32)  # some objectives compare rows
    batch = dict(tokens=ones, segment_ids=ones, positions=ones, label=ones[:, 0])
    shapes = nn.meta.unbox(jax.eval_shape(lambda: objective.init(jax.random.key(0), batch)["params"]))
    rng = np.random.default_rng(4)
    params = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), shapes)
    by_token = (("backbone", "embed", "embedding"), ("head", "bias"), ("head", "output", "embedding"))

    def without_padding(path: Any, leaf: Any) -> Any:  # rows that pad the vocabulary are no part of the model
        is_table = tuple(key.key for key in path) in by_token and leaf.shape[0] > VOCABULARY
        return leaf.at[VOCABULARY:].set(0.0) if is_table else leaf

    params = jax.tree_util.tree_map_with_path(without_padding, params)
    return assemble(about, params, 0)


def write_run(workdir: Path, trained: Trained) -> Path:
    """What the doors that take a trained run read of it."""
    with Checkpoints(workdir / "checkpoints", about=trained.about) as checkpoints:
        checkpoints.save(0, params=trained.params, state={}, host={}, metrics={})
    (workdir / "tokenizer.json").write_text(trained.about["tokenizer"], encoding="utf-8")
    (workdir / "config.json").write_text(json.dumps({"objective": trained.about["objective"]}))
    return workdir
