"""BERT-base style masked language model on any text: --config.data.path=FILE. Written for one GPU or TPU host.

python -m research.pretrain --config=configs/pretrain/text_mlm.py --workdir=runs/mlm \
    --config.data.path='texts/*.jsonl.zst'
Rows of 128 tokens, 30 % masked and no next-sentence task, as in crammed BERT (Geiping & Goldstein 2022).
`:small` has two layers of width 128 and a vocabulary without capitals, for two CPU cores: 15 minutes; on news,
newsgroups and docs 4.46 nats a masked token where the unigram has 6.80. `:medium` has width 256 and twice the batch
(24.6 M tokens, 45 to 70 minutes; where the CPU has AMX, --config.matmul_dtype=bfloat16 is 1.3 to 1.6 times as fast).
With --config.num_steps=8500 on novels and docs it came to 3.25 nats, the unigram to 6.32.
`:lstm` has two layers of an LSTM that read both ways in the place of the transformer, and half of `:small`'s steps.
`:large` is BERT-large (24 layers of width 1024, rows of 512) for a TPU slice of 16 chips, such as v5e:4x4.
`:continue` goes on with the weights of --config.init_from (a run, or a published folder) on your own text, before you
finetune: a third of the rates of `:small`, 600 steps. Published models of usual size want smaller ones; a start, not
tried here at that size: --config.optimizer.peak_rate=2e-4 --config.optimizer.adam_rate=5e-5.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "tiny", "small", "medium", "large", "lstm", "continue")


def get_config(variant=""):
    tiny, medium, onward = variant == "tiny", variant == "medium", variant == "continue"
    large = variant == "large"
    small = variant in ("small", "medium", "lstm")
    model = dict(name="bert", dropout=0.1)
    optimizer = dict(
        name="adamw",
        peak_rate=5e-4,
        beta2=0.98,
        schedule=dict(name="linear", warmup_steps=2 if tiny else 3000),
    )
    if large:
        # No dropout, as in crammed BERT.
        model |= dict(width=1024, depth=24, num_heads=16, remat="dots", dropout=0.0)
    if tiny:
        model |= dict(width=16, depth=2, num_heads=2)
    if small:
        model = dict(name="modern", width=256 if medium else 128, depth=2, num_heads=4, unroll=2)
    if variant == "lstm":
        model = dict(name="lstm", width=256, depth=2)
    if small or onward:
        optimizer = dict(
            name="muon",
            peak_rate=2e-3 if onward else 6e-3,
            adam_rate=1e-3 if onward else 3e-3,
            schedule=dict(name="linear", warmup_steps=100),
        )
    data = dict(
        name="text",
        path="embedded:corpus[train]" if tiny else "",
        valid_fraction=0.01,
        length=32 if tiny else 512 if large else 128,
    )
    tokenizer = dict(
        name="wordpiece",
        vocab_size=300 if tiny else 16384 if small else 30522,
        lowercase=small,
    )
    own = dict(model=model, head=dict() if small else dict(transform=True, bias=True))
    return ConfigDict(
        dict(
            # A run that goes on has model, head and tokenizer already.
            data=data if onward else data | dict(tokenizer=tokenizer),
            objective=dict(name="masked_lm", rate=0.2 if small or onward else 0.3, unit="words"),
            optimizer=optimizer,
            num_steps=20 if tiny else 600 if onward else 3000 if variant == "lstm" else 6000 if small else 100_000,
            batch_size=8 if tiny else 32 if medium or onward or variant == "lstm" else 16 if small else 1024,
            log=dict(every=100 if small or onward else 10),
            checkpoint=dict(every=10 if tiny else 2000),
            evaluation=dict(
                every=10 if tiny else 200 if onward else 2000,
                batch_size=64 if small or onward else 0,
                samples=("The capital of France is <mask>.",),
            ),
            **({} if onward else own),
            **(dict(mesh=dict(fsdp=-1, data=1), accumulate=2) if large else {}),
        )
    )
