"""Unsupervised SimCSE (Gao et al. 2021): vectors of texts from the texts alone: --config.data.path=FILE.

python -m research.pretrain --config=configs/pretrain/text_simcse.py --workdir=runs/simcse \
    --config.init_from=models/bert-base-uncased --config.data.path=sentences.jsonl
One text a row; it goes on with a pretrained model, whose dropout makes the two views, for one pass over a million
sentences (rate, batch and length as in the paper for BERT base; one GPU). A model without dropout wants
--config.objective.token_dropout=0.1. `:labelled` reads rows with a label, which no step sees: neighbours are then
scored beside TF-IDF. `:scratch` is that with a small model of its own, for two CPU cores. `predict --task=embed` gives
the vectors.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "tiny", "labelled", "scratch")


def get_config(variant=""):
    tiny = variant == "tiny"
    own = tiny or variant == "scratch"
    data = dict(name="text", packing="alone", path="", length=32)
    if variant:
        data = dict(name="text_classification", path="", length=64)
    if tiny:
        data = dict(
            name="text_classification",
            path="embedded:roles[train]",
            valid_path="embedded:roles[val]",
            length=32,
        )
    if own:
        data |= dict(tokenizer=dict(name="bpe", vocab_size=300 if tiny else 8192))
    model = dict(
        name="bert",
        dropout=0.1,
        width=16 if tiny else 128,
        depth=2 if tiny else 4,
        num_heads=2 if tiny else 4,
    )
    return ConfigDict(
        dict(
            data=data,
            head=dict(pooling="mean"),
            objective=dict(name="simcse", temperature=0.05),
            optimizer=dict(
                name="adamw",
                peak_rate=1e-3 if own else 3e-5,
                schedule=dict(name="linear", warmup_steps=2 if tiny else 100 if own else 0),
            ),
            num_steps=20 if tiny else 2000 if own else 15_625,
            batch_size=16 if tiny else 64,
            log=dict(every=10 if tiny else 50),
            evaluation=dict(every=10 if tiny else 500, batch_size=64),
            checkpoint=dict(every=0 if tiny else 500),
            **(dict(model=model) if own else {}),
        )
    )
