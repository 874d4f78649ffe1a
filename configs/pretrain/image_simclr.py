"""SimCLR (Chen et al. 2020) on images without labels: --config.data.path=FILE. Written for one GPU.

python -m research.pretrain --config=configs/pretrain/image_simclr.py --workdir=runs/simclr --config.data.path=train.npz
ResNet-18 with the CIFAR stem, 200 epochs of 50,000 images at batch 512: not yet run. Compiled for one TPU v5e chip a
step takes 1.70 of 15.75 GiB and 19 ms at least (6 minutes in all); on two busy CPU cores it took 132 s. Where there are
labels, neighbours and a linear probe are scored beside raw pixels and HOG; no step sees them. `:small` is a plain
narrow one for two CPU cores. `:digits` needs no network: a small ResNet on embedded digits, two minutes of one core, to
be frozen by configs/finetune/image_classification.py:digits (of test digits neighbours tell 93.8 %, a linear probe
99.8 %).
"""

from ml_collections import ConfigDict

VARIANTS = ("", "tiny", "small", "digits")
AUGMENTATION = {
    "tiny": dict(name="none", pad=1, brightness=0.2),
    "digits": dict(name="none", crop_area=(0.6, 1.0), pad=1, brightness=0.4, contrast=0.4),
}


def get_config(variant=""):
    tiny, digits, small = variant == "tiny", variant == "digits", variant in ("small", "digits")
    embedded = tiny or digits
    model = dict(name="resnet18", stem="cifar")
    if digits:
        model |= dict(widths=(32, 64, 128), depths=(1, 1, 1), stem_width=32)
    elif small:
        model = dict(name="cnn", widths=(32, 64, 128, 256), depths=(1, 1, 1, 1))
    if tiny:
        model = dict(name="resnet18", stem="cifar", widths=(8, 16), depths=(1, 1), stem_width=8)
    return ConfigDict(
        dict(
            data=dict(
                name="image_classification",
                path="embedded:digits[train]" if embedded else "",
                size=8 if embedded else 32,
                channels=1 if embedded else 3,
                valid_fraction=0.1,
                **(dict(valid_path="embedded:digits[val]", test_path="embedded:digits[test]") if digits else {}),
            ),
            model=model,
            head=dict(embed_dim=16 if tiny else 128, hidden=32 if tiny else 512 if small else 2048),
            objective=dict(
                name="simclr",
                temperature=0.2 if small else 0.5,
                augmentation=AUGMENTATION.get(variant, dict(name="simclr_cifar")),
            ),
            # lightly's CIFAR-10 benchmark has SGD at 0.06 for 128 images, decay 5e-4; decay is decoupled here, and ten
            # times as large for the same effect at a momentum of 0.9.
            optimizer=dict(
                name="adamw" if small or tiny else "sgd",
                peak_rate=2e-3 if small or tiny else 0.24,
                weight_decay=0.01 if small or tiny else 5e-3,
                schedule=dict(name="cosine", warmup_steps=2 if tiny else 100 if small else 1000),
            ),
            num_steps=20 if tiny else 400 if digits else 900 if small else 17_600,
            batch_size=16 if tiny else 128 if digits else 256 if small else 512,
            log=dict(every=10 if tiny else 50),
            evaluation=dict(
                every=10 if tiny else 200 if digits else 300 if small else 500, batch_size=64 if tiny else 256
            ),
            checkpoint=dict(every=0 if tiny else 300 if small else 500),
        )
    )
