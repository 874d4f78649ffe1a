"""Character-level language model of one text file: tinyshakespeare in minutes on two CPU cores."""

from ml_collections import ConfigDict


def get_config(variant=""):
    tiny = variant == "tiny"
    return ConfigDict(
        dict(
            data=dict(
                name="text",
                path="embedded:corpus",
                tokenizer=dict(name="character"),
                packing="windows",
                stride=1,
                length=17 if tiny else 129,
                valid_fraction=0.1,
            ),
            model=dict(
                name="modern",
                width=16 if tiny else 128,
                depth=2 if tiny else 4,
                num_heads=2 if tiny else 4,
                unroll=4,
            ),
            objective=dict(name="causal_lm"),
            optimizer=dict(name="muon", peak_rate=0.02, schedule=dict(name="linear", warmup_steps=2 if tiny else 20)),
            num_steps=20 if tiny else 1000,
            batch_size=8 if tiny else 32,
        )
    )
