"""Finetunes a pretrained text model to tag words: --config.data.path=FILE --config.init_from=DIR.

python -m research.finetune --config=configs/finetune/tagging.py --workdir=runs/tags --config.init_from=runs/mlm \
    --config.data.path=train.jsonl --config.data.valid_path=dev.jsonl --config.data.test_path=test.jsonl
Each record has a list of words (`data.words_field`) and a list of tags (`data.tags_field`). Where tags mark spans
(B-TYPE, I-TYPE, O) `f1` is that of whole spans. The most frequent tag of each word is printed beside.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    tiny = variant == "tiny"
    return ConfigDict(
        dict(
            data=dict(name="tagging", path="", valid_fraction=0.1, length=24 if tiny else 96),
            head=dict(dropout=0.1),
            objective=dict(name="tagging", token_dropout=0.1),
            optimizer=dict(
                name="muon",
                peak_rate=1e-3,
                schedule=dict(name="linear", warmup_steps=2 if tiny else 60),
            ),
            num_steps=20 if tiny else 600,
            batch_size=8 if tiny else 64,
            log=dict(every=10 if tiny else 50),
            evaluation=dict(every=10 if tiny else 300, batch_size=64),
            checkpoint=dict(metric="val/accuracy"),
        )
    )
