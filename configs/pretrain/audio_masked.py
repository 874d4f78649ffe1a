"""A masked autoencoder (MAE) on spectrograms of recordings: --config.data.path=FILE. Written for short clips at 8 kHz.

python -m research.pretrain --config=configs/pretrain/audio_masked.py --workdir=runs/sounds \
    --config.data.path=../shared/data/fsdd/fsdd.npz --config.data.select="(speaker!=george,)" \
    --config.data.test_select="(speaker=george,)"
A ViT on 40 mel bands in patches of 4 frames x 4 bands: three quarters of those that hold sound are masked, and a
decoder of 2 blocks tells them. Where there are labels, neighbours and a linear probe are scored beside MFCCs with an
SVM; no step sees them. Other rates and lengths are data.sample_rate and data.seconds. Not yet run in full.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    tiny = variant == "tiny"
    tower = dict(name="vit", patch_size=4, position="sincos", width=96, depth=4, num_heads=4)
    head = dict(decoder_width=64, depth=2, num_heads=4)
    if tiny:
        tower = dict(name="vit", patch_size=4, position="sincos", width=16, depth=1, num_heads=2)
        head = dict(decoder_width=16, depth=1, num_heads=2)
    return ConfigDict(
        dict(
            data=dict(
                name="audio_classification",
                path="",
                sample_rate=8000,
                seconds=0.125 if tiny else 1.0,
                valid_fraction=0.1,
            ),
            model=dict(name="spectrogram", tower=tower, num_mels=16 if tiny else 40),
            head=head,
            objective=dict(
                name="masked_patches",
                rate=0.75,
                augmentation=dict(name="waves", shift=0.1, gain=(-6.0, 6.0)),
            ),
            optimizer=dict(name="adamw", peak_rate=1e-3, schedule=dict(name="cosine", warmup_steps=2 if tiny else 100)),
            num_steps=20 if tiny else 2000,
            batch_size=16 if tiny else 128,
            log=dict(every=10 if tiny else 50),
            evaluation=dict(every=10 if tiny else 500, batch_size=64 if tiny else 256),
            checkpoint=dict(every=0 if tiny else 500),
        )
    )
