"""Finetunes a pretrained text model to find answers in texts: --config.data.path=FILE --config.init_from=DIR.

python -m research.finetune --config=configs/finetune/question_answering.py --config.init_from=runs/mlm \
    --workdir=runs/answers --config.data.path='squadshifts_*.json.zst' --config.data.test_path=squad_v1.1_dev.json.zst
Files in SQuAD's layout, or records with question, context and answers. Figures are SQuAD's exact match (`em`) and F1;
the sliding window of Rajpurkar et al. 2016 is printed beside. Where questions have no answer (SQuAD 2.0) the validation
data choose when to say nothing. A model of 384 positions or more: --config.data.length=384 --config.data.stride=128.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    tiny = variant == "tiny"
    return ConfigDict(
        dict(
            data=dict(
                name="question_answering",
                path="",
                valid_fraction=0.1,
                length=32 if tiny else 128,
                max_question=6 if tiny else 32,
                stride=4 if tiny else 32,
            ),
            head=dict(dropout=0.1),
            objective=dict(name="question_answering"),
            optimizer=dict(
                name="muon",
                peak_rate=1e-3,
                schedule=dict(name="linear", warmup_steps=2 if tiny else 100),
            ),
            num_steps=20 if tiny else 4000,
            batch_size=8 if tiny else 32,
            log=dict(every=10 if tiny else 50),
            evaluation=dict(every=10 if tiny else 1000, batch_size=64),
            checkpoint=dict(metric="val/accuracy"),
        )
    )
