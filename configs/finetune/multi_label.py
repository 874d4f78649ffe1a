"""Finetunes a pretrained text model to give a text all of its labels: --config.data.path=FILE --config.init_from=DIR.

python -m research.finetune --config=configs/finetune/multi_label.py --workdir=runs/topics --config.init_from=runs/mlm \
    --config.data.path=train.jsonl --config.data.test_path=test.jsonl
Each record has a list of names (`data.label_field`), or columns of 0 and 1, as Jigsaw's toxic comments:
    --config.data.path=train.csv --config.data.text_field=comment_text \
    --config.data.label_fields=toxic,severe_toxic,obscene,threat,insult,identity_hate
Where positives are rare, --config.objective.positive_weight=balanced gives recall for precision. TF-IDF with logistic
regressions, and always the commonest set of labels, are printed beside.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    tiny = variant == "tiny"
    return ConfigDict(
        dict(
            data=dict(name="text_multi_label", path="", valid_fraction=0.1, length=16 if tiny else 96),
            head=dict(pooling="mean", dropout=0.1),
            objective=dict(name="multi_label", token_dropout=0.1),
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
