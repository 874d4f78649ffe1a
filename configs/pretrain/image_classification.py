"""A classifier of images from scratch: --config.data.path=FILE --config.data.test_path=FILE.

python -m research.pretrain --config=configs/pretrain/image_classification.py --workdir=runs/images \
    --config.data.path=train.npz --config.data.test_path=test.npz
ResNet-18 with the CIFAR stem, shifts and flips, label smoothing, mixup, and the average of the weights is evaluated.
`:digits` is a perceptron on flattened 8 x 8 digits, embedded, in seconds.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "tiny", "digits")


def get_config(variant=""):
    tiny, digits = variant == "tiny", variant in ("tiny", "digits")
    model = dict(name="resnet18", stem="cifar")
    if digits:
        model = dict(name="mlp", width=16 if tiny else 128, depth=2)
    data = dict(name="image_classification", path="", size=32, channels=3, valid_fraction=0.1)
    if digits:
        data = dict(
            name="image_classification",
            path="embedded:digits[train]",
            valid_path="embedded:digits[val]",
            test_path="embedded:digits[test]",
            size=8,
            channels=1,
        )
    return ConfigDict(
        dict(
            data=data,
            model=model,
            head=dict(pooling="mean"),
            objective=dict(
                name="classification",
                label_smoothing=0.0 if digits else 0.1,
                mixup=0.0 if digits else 0.2,
                augmentation=dict(name="none" if digits else "cifar"),
            ),
            optimizer=dict(
                name="adamw",
                peak_rate=3e-3 if digits else 1e-3,
                schedule=dict(name="cosine", warmup_steps=2 if tiny else 20 if digits else 500),
            ),
            ema_decay=0.0 if digits else 0.999,
            num_steps=20 if tiny else 400 if digits else 20_000,
            batch_size=16 if tiny else 64 if digits else 128,
            log=dict(every=10 if tiny else 50),
            evaluation=dict(every=10 if tiny else 100 if digits else 1000, batch_size=256),
            checkpoint=dict(metric="val/accuracy"),
        )
    )
