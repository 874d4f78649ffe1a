"""GPT-2 124M on any text: --config.data.path=FILE. Written for one GPU or TPU host with 8 devices.

python -m research.pretrain --config=configs/pretrain/text_lm.py --workdir=runs/lm \
    --config.data.path='texts/*.jsonl.zst'
524,288 tokens a step (512 rows of 1,024), the setting of GPT-2 (Radford et al. 2019) and of its public reproductions.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    tiny = variant == "tiny"
    return ConfigDict(
        dict(
            data=dict(
                name="text",
                path="embedded:corpus[train]" if tiny else "",
                valid_fraction=0.01,
                tokenizer=dict(name="bpe", vocab_size=300 if tiny else 50257),
                length=32 if tiny else 1024,
            ),
            model=dict(name="gpt2", width=16, depth=2, num_heads=2) if tiny else dict(name="gpt2", remat="dots"),
            objective=dict(name="causal_lm"),
            optimizer=dict(
                name="adamw",
                peak_rate=6e-4,
                beta2=0.95,
                weight_decay=0.1,
                schedule=dict(name="cosine", warmup_steps=2 if tiny else 700, final_fraction=0.1),
            ),
            num_steps=20 if tiny else 19_000,
            batch_size=8 if tiny else 512,
            accumulate=1 if tiny else 4,
            log=dict(every=10),
            checkpoint=dict(every=10 if tiny else 1000),
            evaluation=dict(every=10 if tiny else 500, samples=("The ",)),
        )
    )
