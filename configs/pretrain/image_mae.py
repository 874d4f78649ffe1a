"""A masked autoencoder (MAE) on images without labels: --config.data.path=FILE. Written for one GPU.

python -m research.pretrain --config=configs/pretrain/image_mae.py --workdir=runs/mae --config.data.path=train.npz
A ViT of 192 for images of 32 x 32 in patches of 4: three quarters of them are masked, and a decoder of 4 blocks tells
their pixels. Where there are labels, neighbours and a linear probe are scored beside raw pixels and HOG. Not yet run.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    tiny = variant == "tiny"
    model = dict(name="vit_tiny", patch_size=4, position="sincos")
    head = dict(decoder_width=128, depth=4, num_heads=4)
    if tiny:
        model = dict(name="vit", patch_size=2, position="sincos", width=16, depth=2, num_heads=2)
        head = dict(decoder_width=16, depth=1, num_heads=2)
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
            head=head,
            objective=dict(
                name="masked_patches",
                rate=0.75,
                augmentation=dict(name="none", pad=1 if tiny else 4, flip_probability=0.0 if tiny else 0.5),
            ),
            optimizer=dict(
                name="adamw",
                peak_rate=2e-3 if tiny else 1e-3,
                schedule=dict(name="cosine", warmup_steps=2 if tiny else 2000),
            ),
            num_steps=20 if tiny else 40_000,
            batch_size=16 if tiny else 512,
            log=dict(every=10 if tiny else 50),
            evaluation=dict(every=10 if tiny else 1000, batch_size=64 if tiny else 256),
            checkpoint=dict(every=0 if tiny else 1000),
        )
    )
