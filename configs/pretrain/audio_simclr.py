"""SimCLR on recordings: --config.data.path=FILE. Written for short clips at 8 kHz, on two CPU cores.

python -m research.pretrain --config=configs/pretrain/audio_simclr.py --workdir=runs/sounds \
    --config.data.path=../shared/data/fsdd/fsdd.npz --config.data.select="(speaker!=george,)" \
    --config.data.test_select="(speaker=george,)"
Spoken digits, the speaker of the test split left out here too. Where there are labels, neighbours and a linear probe
are scored beside MFCCs with an SVM; no step sees them. --config.data.slice_fields="(speaker,)" tells speakers apart too
(equal error rate, map). Other rates and lengths are data.sample_rate and data.seconds. Over the six speakers left out
in turn a linear probe has 62 % of the unheard one's digits; 4 minutes each on one core.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    tiny = variant == "tiny"
    tower = dict(name="resnet18", widths=(32, 64, 128), depths=(1, 1, 1), stem_width=32)
    if tiny:
        tower = dict(name="resnet18", stem="cifar", widths=(8, 16), depths=(1, 1), stem_width=8)
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
            head=dict(embed_dim=16 if tiny else 128, hidden=32 if tiny else 256),
            objective=dict(
                name="simclr",
                temperature=0.2,
                augmentation=dict(
                    name="waves",
                    shift=0.1,
                    gain=(-6.0, 6.0),
                    noise_probability=0.5,
                    num_time_masks=1,
                    time_mask_share=0.3,
                    num_mel_masks=1,
                    mel_mask_bands=4 if tiny else 10,
                ),
            ),
            optimizer=dict(name="adamw", peak_rate=2e-3, schedule=dict(name="cosine", warmup_steps=2 if tiny else 30)),
            num_steps=20 if tiny else 300,
            batch_size=16 if tiny else 128,
            log=dict(every=10 if tiny else 50),
            evaluation=dict(every=10 if tiny else 150, batch_size=64 if tiny else 256),
            checkpoint=dict(every=0 if tiny else 150),
        )
    )
