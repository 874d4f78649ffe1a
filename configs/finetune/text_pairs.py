"""Finetunes a pretrained text model to give vectors that find a text's counterpart: --config.data.path=FILE.

python -m research.finetune --config=configs/finetune/text_pairs.py --workdir=runs/pairs --config.init_from=runs/mlm \
    --config.data.path=train.jsonl --config.data.text_field=question --config.data.pair_field=passage
The others of a batch are each text's negatives: larger batches teach more. --config.data.negative_field=FIELD adds a
hard one for each text that has one. `recall_at_1` is over the whole split, and
that of TF-IDF is printed beside. `predict --task=embed` gives the vectors.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    tiny = variant == "tiny"
    return ConfigDict(
        dict(
            data=dict(name="text_pairs", path="", valid_fraction=0.1, length=16 if tiny else 128),
            head=dict(pooling="mean", normalize=True),
            objective=dict(name="pairs", token_dropout=0.1),
            optimizer=dict(
                name="muon",
                peak_rate=1e-3,
                schedule=dict(name="linear", warmup_steps=2 if tiny else 60),
            ),
            num_steps=20 if tiny else 600,
            batch_size=8 if tiny else 64,
            log=dict(every=10 if tiny else 50),
            evaluation=dict(every=10 if tiny else 300, batch_size=64),
            checkpoint=dict(metric="val/loss"),
        )
    )
