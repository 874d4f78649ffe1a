"""Character-level language model of one text file: two minutes on two CPU cores; `:long` takes less than ten.

python -m research.pretrain --config=configs/pretrain/text_lm_char.py --workdir=runs/char --config.data.path=input.txt
The last tenth of the file is for validation. tinyshakespeare: 1.57 nats a character in 101 s on
two cores; `:long` 1.54 in 457 s.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "tiny", "long")


def get_config(variant=""):
    tiny, long = variant == "tiny", variant == "long"
    return ConfigDict(
        dict(
            data=dict(
                name="text",
                path="embedded:corpus[train]" if tiny else "",
                tokenizer=dict(name="character"),
                packing="windows",
                stride=0 if tiny else 1,
                length=17 if tiny else 129,
                valid_fraction=0.1,
            ),
            model=dict(
                name="modern",
                width=16 if tiny else 160 if long else 96,
                depth=2 if tiny else 4,
                num_heads=2 if tiny else 5 if long else 3,
                dropout=0.1 if long else 0.0,
                unroll=4,
            ),
            objective=dict(name="causal_lm"),
            optimizer=dict(
                name="muon",
                peak_rate=6e-3,
                adam_rate=3e-3,
                schedule=dict(name="linear", warmup_steps=2 if tiny else 20),
            ),
            num_steps=20 if tiny else 1700 if long else 850,
            batch_size=8 if tiny else 16,
            log=dict(every=10 if tiny else 50),
            evaluation=dict(batch_size=64, samples=("ROMEO:",)),
        )
    )
