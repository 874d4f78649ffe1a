"""Finetunes a pretrained image model on your labels: --config.data.path=FILE --config.init_from=DIR.

python -m research.finetune --config=configs/finetune/image_classification.py --workdir=runs/labels \
    --config.init_from=runs/simclr --config.data.path=train.npz --config.data.test_path=test.npz
Size and channels are those of the pretrained model. With --config.tuning.freeze_backbone=true a new head learns alone.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    tiny = variant == "tiny"
    return ConfigDict(
        dict(
            data=dict(name="image_classification", path="embedded:digits[train]" if tiny else "", valid_fraction=0.1),
            head=dict(pooling="mean"),
            objective=dict(name="classification", augmentation=dict(name="none" if tiny else "cifar")),
            optimizer=dict(
                name="adamw",
                peak_rate=1e-3,
                schedule=dict(name="cosine", warmup_steps=2 if tiny else 50),
            ),
            num_steps=20 if tiny else 1000,
            batch_size=16 if tiny else 128,
            log=dict(every=10 if tiny else 50),
            evaluation=dict(every=10 if tiny else 250, batch_size=256),
            checkpoint=dict(metric="val/accuracy", mode="max"),
        )
    )
