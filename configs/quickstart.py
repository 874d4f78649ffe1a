"""Masked language model on Python's own standard library: no network, minutes on two CPU cores.

launch/local.sh python -m research.pretrain --config=configs/quickstart.py --workdir=runs/quickstart
Two CPU cores: about 3 minutes, validation loss 3.9 nats a masked token (unigram floor 6.5); then it fills masks.
"""

from ml_collections import ConfigDict

SAMPLES = (
    "for key, value in self.<mask>():",
    "if not isinstance(value, <mask>):\n    raise TypeError(",
    "Return the <mask> of the file.",
    "def __init__(<mask>, name):\n    self.name = <mask>",
)


def get_config(variant=""):
    tiny = variant == "tiny"
    return ConfigDict(
        dict(
            data=dict(
                name="text",
                path="embedded:corpus[train]",
                valid_path="embedded:corpus[val]",
                tokenizer=dict(name="bpe", vocab_size=300 if tiny else 4096),
                length=32 if tiny else 128,
            ),
            model=dict(
                name="modern",
                width=16 if tiny else 128,
                depth=2 if tiny else 4,
                num_heads=2 if tiny else 4,
                unroll=4,
            ),
            objective=dict(name="masked_lm", rate=0.15 if tiny else 0.25),
            optimizer=dict(
                name="muon",
                peak_rate=6e-3,
                adam_rate=3e-3,
                schedule=dict(name="linear", warmup_steps=2 if tiny else 50),
            ),
            num_steps=20 if tiny else 700,
            batch_size=8 if tiny else 16,
            log=dict(every=10 if tiny else 50),
            checkpoint=dict(every=10 if tiny else 175),
            evaluation=dict(every=0, batch_size=64, samples=SAMPLES[:1] if tiny else SAMPLES),
            then="launch/local.sh python -m research.finetune --config=configs/finetune/quickstart.py"
            " --workdir=runs/roles --config.init_from={workdir}",
        )
    )
