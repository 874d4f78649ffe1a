"""Character-level LSTM on one text file: the recurrent model beside the transformer of text_lm_char.py.

python -m research.pretrain --config=configs/pretrain/text_lm_lstm.py --workdir=runs/lstm --config.data.path=FILE
The last tenth of the file is for validation. tinyshakespeare: 1.51 nats a character in 519 s on two cores, where
text_lm_char.py:long has 1.54 in 457 s.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    tiny = variant == "tiny"
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
            model=dict(name="lstm", width=16 if tiny else 256, depth=2),
            objective=dict(name="causal_lm"),
            optimizer=dict(name="adamw", peak_rate=4e-3, schedule=dict(name="linear", warmup_steps=2 if tiny else 50)),
            num_steps=20 if tiny else 750,
            batch_size=8 if tiny else 32,
            log=dict(every=10 if tiny else 50),
            evaluation=dict(batch_size=64, samples=("ROMEO:",)),
        )
    )
