"""Finetunes a pretrained model of sounds on your labels: --config.data.path=FILE --config.init_from=DIR.

python -m research.finetune --config=configs/finetune/audio_classification.py --workdir=runs/digits \
    --config.init_from=runs/sounds --config.data.path=../shared/data/fsdd/fsdd.npz \
    --config.data.select="(speaker!=george,)" --config.data.test_select="(speaker=george,)"
Rate and length are those of the pretrained model. The floor is an SVM on MFCCs (the like of it, by fsdd's README, has
80.2 % on average over speakers left out). --config.data.num_labels=100 takes a hundred labels. Over the six speakers
left out in turn 60.6 % with a hundred labels (from scratch 52.0) and 76.8 % with all, in 400 steps; the floor has 74.2
and 80.6.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    tiny = variant == "tiny"
    augmentation = dict(
        name="waves",
        shift=0.1,
        gain=(-6.0, 6.0),
        noise_probability=0.5,
        num_time_masks=1,
        time_mask_share=0.3,
        num_mel_masks=1,
        mel_mask_bands=4 if tiny else 10,
    )
    return ConfigDict(
        dict(
            data=dict(name="audio_classification", path="", valid_fraction=0.2 if tiny else 0.1),
            head=dict(pooling="mean"),
            objective=dict(name="classification", label_smoothing=0.1, augmentation=augmentation),
            optimizer=dict(
                name="adamw",
                peak_rate=1e-3,
                schedule=dict(name="cosine", warmup_steps=2 if tiny else 50),
            ),
            num_steps=20 if tiny else 600,
            batch_size=16 if tiny else 64,
            log=dict(every=10 if tiny else 50),
            evaluation=dict(every=10 if tiny else 100, batch_size=256),
            checkpoint=dict(metric="val/accuracy"),
        )
    )
