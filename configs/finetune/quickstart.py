"""Finetunes the quickstart's model: which part does a hidden name play in a line of Python? Eight classes.

launch/local.sh python -m research.finetune --config=configs/finetune/quickstart.py --workdir=runs/roles \
    --config.init_from=runs/quickstart
With --config.weights=scratch it is the twin without pretraining; TF-IDF with logistic regression is printed beside.
Two CPU cores: about 2 minutes; test accuracy 77 %, the twin 74, TF-IDF 72.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    tiny = variant == "tiny"
    return ConfigDict(
        dict(
            data=dict(
                name="text_classification",
                path="embedded:roles[train]",
                valid_path="embedded:roles[val]",
                test_path="embedded:roles[test]",
                length=32 if tiny else 80,
            ),
            objective=dict(name="classification"),
            optimizer=dict(
                name="muon",
                peak_rate=3e-3,
                schedule=dict(name="linear", warmup_steps=2 if tiny else 40),
            ),
            num_steps=20 if tiny else 450,
            batch_size=8 if tiny else 32,
            log=dict(every=10 if tiny else 50),
            evaluation=dict(batch_size=64),
        )
    )
