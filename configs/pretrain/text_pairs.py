"""Two texts that belong together find each other (InfoNCE): any two fields of a data set: --config.data.path=FILE.

python -m research.pretrain --config=configs/pretrain/text_pairs.py --workdir=runs/pairs --config.init_from=runs/mlm \
    --config.data.path=train.jsonl --config.data.text_field=title --config.data.pair_field=body
The others of a batch are each text's negatives. `:docstrings` needs no network: functions of Python's standard library
and their docstrings; it goes on with a model that has read the same modules (--config.init_from=runs/quickstart).
--config.data.negative_field=FIELD adds a hard negative for each text that has one. Recall is over the whole split, and
that of TF-IDF is printed beside. `predict --task=embed` gives the vectors.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "tiny", "docstrings")

DOCSTRINGS = dict(
    path="embedded:pairs[train]",
    valid_path="embedded:pairs[val]",
    test_path="embedded:pairs[test]",
    text_field="docstring",
    pair_field="body",
)


def get_config(variant=""):
    tiny = variant == "tiny"
    data = dict(name="text_pairs", length=16 if tiny else 128, **(DOCSTRINGS if variant else dict(path="")))
    own = dict(model=dict(name="modern", width=16, depth=2, num_heads=2)) if tiny else {}
    if tiny:
        data |= dict(tokenizer=dict(name="bpe", vocab_size=300))
    return ConfigDict(
        dict(
            data=data,
            head=dict(pooling="mean", normalize=True),
            objective=dict(name="pairs", token_dropout=0.1),
            optimizer=dict(
                name="muon",
                peak_rate=3e-3,
                adam_rate=2e-3,
                schedule=dict(name="linear", warmup_steps=2 if tiny else 60),
            ),
            num_steps=20 if tiny else 600,
            batch_size=8 if tiny else 64,
            log=dict(every=10 if tiny else 50),
            evaluation=dict(every=10 if tiny else 300, batch_size=64),
            checkpoint=dict(every=0 if tiny else 300),
            **own,
        )
    )
