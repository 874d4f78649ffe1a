"""Finetunes a pretrained text model on your labels: --config.data.path=FILE --config.init_from=DIR.

python -m research.finetune --config=configs/finetune/text_classification.py --workdir=runs/labels \
    --config.init_from=runs/mlm --config.data.path=train.jsonl --config.data.test_path=test.jsonl
AG News (9,901 labels, 400 steps, two minutes on two CPU cores): 88.4 % from `text_mlm.py:small`, 87.3 from scratch.
Short questions (TREC-6) did better with head.pooling=first, tuning.layer_decay=0.5, optimizer.peak_rate=3e-3,
optimizer.adam_rate=2e-3 and num_steps=800: 90.1 %, from scratch 80.3 (81.7 with a recipe of its own).
With --config.weights=scratch it is the twin without pretraining; TF-IDF with logistic regression is printed beside.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    tiny = variant == "tiny"
    return ConfigDict(
        dict(
            data=dict(name="text_classification", path="", valid_fraction=0.1, length=16 if tiny else 96),
            head=dict(pooling="mean", dropout=0.3),
            objective=dict(name="classification", token_dropout=0.3),
            optimizer=dict(
                name="muon",
                peak_rate=1e-3,
                schedule=dict(name="linear", warmup_steps=2 if tiny else 60),
            ),
            num_steps=20 if tiny else 360,
            batch_size=8 if tiny else 64,
            log=dict(every=10 if tiny else 50),
            evaluation=dict(every=10 if tiny else 180, batch_size=64),
            checkpoint=dict(metric="val/accuracy"),
        )
    )
