"""Finetunes a pretrained text model to tell a number of each text: --config.data.path=FILE --config.init_from=DIR.

python -m research.finetune --config=configs/finetune/regression.py --workdir=runs/stars --config.init_from=runs/mlm \
    --config.data.path=train.jsonl --config.data.test_path=test.jsonl --config.data.label_field=stars
Of pairs, such as the similarity of two sentences, with --config.data.pair_field=FIELD. The loss is in units of the
training split's variance: 1 is its mean. The training mean, and TF-IDF with ridge regression, are printed beside.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    tiny = variant == "tiny"
    return ConfigDict(
        dict(
            data=dict(name="text_regression", path="", valid_fraction=0.1, length=16 if tiny else 96),
            head=dict(pooling="mean", dropout=0.1),
            objective=dict(name="regression", token_dropout=0.1),
            optimizer=dict(
                name="muon",
                peak_rate=1e-3,
                schedule=dict(name="linear", warmup_steps=2 if tiny else 60),
            ),
            num_steps=20 if tiny else 600,
            batch_size=8 if tiny else 64,
            log=dict(every=10 if tiny else 50),
            evaluation=dict(every=10 if tiny else 200, batch_size=64),
        )
    )
