"""CLIP (Radford et al. 2021) on pictures with captions: --config.data.path=FILE (jsonl, csv, tar, npz). For one GPU.

python -m research.pretrain --config=configs/pretrain/image_text_clip.py --workdir=runs/clip --config.data.path=a.tar
ViT-S/16 and a causal text tower, 30,000 steps of 1,024 pairs. `:vit_l` is CLIP's ViT-L/14 with batches of 32,768, for a
TPU slice of 256 chips such as v5e:16x16. Two variants are for two CPU cores:

`:glyphs` needs no network: characters and their Unicode names, tested on unseen characters in an unseen typeface.
`:emoji` (--config.data.path=../shared/data/emoji_pairs) trains on two styles; "test" is the style twemoji, unseen, and
"shift" unseen concepts. Without augmentation: --config.objective.augmentation.crop_area=1.0,1.0, and the same block's
brightness, contrast and saturation at 0.

python -m research.pretrain --config=configs/pretrain/image_text_clip.py:glyphs --workdir=runs/glyphs
Recall both ways stands beside chance and beside letters in common with the nearest training pictures; scripts are told
by texts alone ("greek letter"), and the map of the report shows how far they lie apart.

`:continue` goes on with --config.init_from=DIR, a run of two towers or a published CLIP, on your own pairs: 1,000 steps
of 128 at a small rate. --config.data.length is at most what the model has room for.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "tiny", "glyphs", "emoji", "vit_l", "continue")

GLYPHS = dict(
    path="embedded:glyphs",
    valid_path="embedded:glyphs[val]",
    test_path="embedded:glyphs[test]",
    text_fields=("name",),
    size=32,
    channels=1,
    length=24,
    tokenizer=dict(name="wordpiece", vocab_size=2048),
    slice_fields=("script",),
)
EMOJI = dict(
    path="",
    select=("style=noto|emojione", "split=train"),
    valid_select=("style=noto|emojione", "split=valid"),
    test_select=("style=twemoji", "split=train"),
    shift_select=("style=noto|emojione", "split=test"),
    text_fields=("name", "keywords"),
    size=64,
    length=48,
    tokenizer=dict(name="wordpiece", vocab_size=2048),
)
DATA = {
    "": dict(path="", size=224, length=64, tokenizer=dict(name="bpe", vocab_size=16_384), valid_fraction=0.02),
    "tiny": GLYPHS | dict(path="embedded:glyphs[val]", valid_path="", test_path="", valid_fraction=0.2, size=8),
    "glyphs": GLYPHS,
    "emoji": EMOJI,
    "continue": dict(path="", length=77, valid_fraction=0.02),
    "vit_l": dict(path="", size=224, length=77, tokenizer=dict(name="bpe", vocab_size=49_408), valid_fraction=0.01),
}
ZERO_SHOT = dict(zero_shot_field="script", templates=("{}", "{} letter", "{} small letter", "{} capital letter"))
SMALL_TEXT = dict(name="modern", width=96, depth=2, num_heads=3, unroll=2)
MODELS = {
    "": dict(
        image=dict(name="vit_small", patch_size=16),
        text=dict(name="transformer", width=384, depth=8, num_heads=6, causal=True),
        image_pooling="first",
        text_pooling="last",
    ),
    "vit_l": dict(
        image=dict(name="vit", patch_size=14, width=1024, depth=24, num_heads=16, embed_norm=True, remat="full"),
        text=dict(name="transformer", width=768, depth=12, num_heads=12, causal=True, remat="full"),
        image_pooling="first",
        text_pooling="last",
        embed_dim=768,
    ),
    "tiny": dict(
        image=dict(name="mlp", width=16, depth=1),
        text=dict(name="modern", width=16, depth=1, num_heads=2),
        embed_dim=8,
    ),
    "glyphs": dict(
        image=dict(name="convnet", connection="plain", stem="none", depths=(1, 1, 1, 1), widths=(32, 64, 128, 192)),
        text=SMALL_TEXT,
        embed_dim=128,
    ),
    "emoji": dict(
        image=dict(name="convnet", connection="plain", stem_width=32, depths=(1, 1, 1, 1), widths=(32, 64, 128, 192)),
        text=SMALL_TEXT,
        embed_dim=128,
    ),
}
AUGMENTATION = {
    "continue": dict(name="none", crop_area=(0.8, 1.0)),
    "": dict(name="none", crop_area=(0.5, 1.0)),
    "vit_l": dict(name="none", crop_area=(0.9, 1.0)),
    "tiny": dict(name="none", pad=1),
    "glyphs": dict(name="none", pad=2),  # a larger shift would turn a comma into an apostrophe
    "emoji": dict(name="none", crop_area=(0.6, 1.0), brightness=0.3, contrast=0.3, saturation=0.3),
}


def get_config(variant=""):
    tiny, large, onward = variant == "tiny", variant in ("", "vit_l"), variant == "continue"
    return ConfigDict(
        dict(
            data=dict(name="image_text", **DATA[variant]),
            **({} if onward else dict(model=dict(name="dual_encoder", **MODELS[variant]))),
            objective=dict(
                name="clip",
                token_dropout=0.0 if large or onward else 0.1,
                augmentation=AUGMENTATION[variant],
                form="gathered" if variant == "vit_l" else "plain",
            ),
            optimizer=dict(
                name="adamw",
                peak_rate=1e-5 if onward else 5e-4 if large else 2e-3,
                weight_decay=0.2 if large else 0.05,
                beta2=0.98,
                schedule=dict(name="cosine", warmup_steps=2000 if large else 2 if tiny else 50),
            ),
            num_steps={"": 30_000, "tiny": 20, "glyphs": 500, "emoji": 600, "vit_l": 390_000, "continue": 1000}[
                variant
            ],
            batch_size={"": 1024, "tiny": 16, "glyphs": 256, "emoji": 128, "vit_l": 32_768, "continue": 128}[variant],
            log=dict(every=10 if tiny else 50),
            evaluation=dict(
                every=1000 if large else 10 if tiny else 250,
                batch_size=64 if tiny else 256,
                **(ZERO_SHOT if variant in ("tiny", "glyphs") else {}),
            ),
            checkpoint=dict(every=1000 if large else 0),
        )
    )
