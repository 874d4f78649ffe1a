"""Finetunes a causal language model to answer prompts: --config.data.path=FILE --config.init_from=DIR.

python -m research.finetune --config=configs/finetune/prompt_answer.py --workdir=runs/answers \
    --config.init_from=runs/lm --config.data.path=train.jsonl --config.data.test_path=test.jsonl
python -m research.predict --workdir=runs/answers --temperature=0 "a prompt"
Each record has a `prompt` and an `answer` (data.prompt_field, data.answer_field), with data.separator, a new line,
between the two; only the answer is learned, and `answer_accuracy` is the share that is right to the last token. The
unigram of the answers' tokens, and the commonest answer, are printed beside.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    tiny = variant == "tiny"
    return ConfigDict(
        dict(
            data=dict(name="prompt_answer", path="", valid_fraction=0.1, length=16 if tiny else 256),
            objective=dict(name="causal_lm"),
            optimizer=dict(
                name="adamw",
                peak_rate=3e-4,
                beta2=0.95,
                weight_decay=0.1,
                schedule=dict(name="cosine", warmup_steps=2 if tiny else 60, final_fraction=0.1),
            ),
            num_steps=20 if tiny else 600,
            batch_size=8 if tiny else 32,
            log=dict(every=10 if tiny else 50),
            evaluation=dict(every=10 if tiny else 200),
        )
    )
