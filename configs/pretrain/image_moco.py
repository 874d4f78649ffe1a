"""MoCo v2 (Chen et al. 2020) on images without labels: --config.data.path=FILE. Written for one GPU.

python -m research.pretrain --config=configs/pretrain/image_moco.py --workdir=runs/moco --config.data.path=train.npz
ResNet-18 with the CIFAR stem and the settings of the authors' demo on CIFAR-10: 200 epochs of 45,000 images at batch
512, a queue of eight batches, and a teacher that follows faster than ImageNet's. Where there are labels, neighbours and
a linear probe are scored beside raw pixels and HOG; no step sees them.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "tiny")


def get_config(variant=""):
    tiny = variant == "tiny"
    model = dict(name="resnet18", stem="cifar")
    if tiny:
        model |= dict(widths=(8, 16), depths=(1, 1), stem_width=8)
    return ConfigDict(
        dict(
            data=dict(
                name="image_classification",
                path="embedded:digits[train]" if tiny else "",
                size=8 if tiny else 32,
                channels=1 if tiny else 3,
                valid_fraction=0.1,
            ),
            model=model,
            head=dict(embed_dim=16 if tiny else 128, hidden=32 if tiny else 512, norm=False),
            objective=dict(
                name="moco",
                temperature=0.2 if tiny else 0.1,
                momentum=0.9 if tiny else 0.99,
                queue_size=64 if tiny else 4096,
                augmentation=dict(name="none", pad=1, brightness=0.2)
                if tiny
                else dict(name="moco_v2", blur_probability=0.0),
            ),
            optimizer=dict(
                name="adamw" if tiny else "sgd",
                peak_rate=2e-3 if tiny else 0.06,
                # The demo's 5e-4 enters a momentum of 0.9, which makes ten times as much of it; ours does not.
                weight_decay=0.1 if tiny else 5e-3,
                schedule=dict(name="cosine", warmup_steps=2 if tiny else 0),
            ),
            num_steps=20 if tiny else 17_600,
            batch_size=16 if tiny else 512,
            log=dict(every=10 if tiny else 50),
            evaluation=dict(every=10 if tiny else 1000, batch_size=64 if tiny else 256),
            checkpoint=dict(every=0 if tiny else 1000),
        )
    )
