"""Large language models on TPU slices, to be planned before they are run: --config.data.path=FILES.

python -m research.plan --config=configs/pretrain/large_lm.py:7b --topology=v5p:4x4x4
`:gpt2` 124 M (v5e:2x2) · `:7b` (v5p:4x4x4, v6e:16x16) · `:70b` (v6e:16x16) · `:175b` (v5p:16x16x24) · and dense cases
that MaxText publishes figures for: `:32b` (v5p:4x4x4, its "v5p-128") and `:128b` (v5p:4x8x8, its "v5p-512").
Batches, lengths and meshes suit those slices; another slice wants another mesh (--search finds one).
"""

from ml_collections import ConfigDict

VARIANTS = ("gpt2", "7b", "32b", "70b", "128b", "175b", "tiny")

GPT2 = dict(name="gpt2", remat="dots")
LLAMA = dict(name="llama", remat="full", num_kv_heads=8)
MODELS = {
    "gpt2": GPT2,
    "7b": LLAMA | dict(width=4096, depth=32, num_heads=32, num_kv_heads=32, mlp_dim=11_008),  # Llama 2, 7B
    "70b": LLAMA | dict(width=8192, depth=80, num_heads=64, mlp_dim=28_672),  # Llama 2, 70B
    "175b": LLAMA | dict(width=12_288, depth=96, num_heads=96, num_kv_heads=96, mlp_dim=32_768),  # as deep as GPT-3
    # MaxText's global_parameter_scale=32.
    "32b": LLAMA | dict(width=8192, depth=32, num_heads=64, num_kv_heads=64, mlp_dim=28_672),
    # MaxText's scale 128 has 128 heads of 128 at this width; here the MLP holds what those heads have more.
    "128b": LLAMA | dict(width=8192, depth=64, num_heads=64, num_kv_heads=64, mlp_dim=68_608),
    "tiny": LLAMA | dict(width=16, depth=2, num_heads=2, num_kv_heads=1),
}
MESHES = {
    "gpt2": dict(fsdp=-1, data=1),
    "7b": dict(fsdp=-1, data=1),
    "70b": dict(fsdp=-1, data=1),
    "175b": dict(fsdp=-1, data=1, tensor=8),
    "32b": dict(fsdp=-1, data=1),
    "128b": dict(fsdp=-1, data=1),
    "tiny": dict(fsdp=-1, data=1),
}
LENGTHS = {"gpt2": 1024, "7b": 4096, "70b": 4096, "175b": 2048, "32b": 2048, "128b": 2048, "tiny": 32}
BATCHES = {"gpt2": 512, "7b": 256, "70b": 512, "175b": 1536, "32b": 448, "128b": 256, "tiny": 8}


def get_config(variant="7b"):
    tiny, small = variant == "tiny", variant in ("gpt2", "tiny")
    return ConfigDict(
        dict(
            data=dict(
                name="text",
                path="embedded:corpus[train]" if tiny else "",
                valid_fraction=0.01,
                tokenizer=dict(name="bpe", vocab_size=300 if tiny else 50_257 if small else 32_000),
                length=LENGTHS[variant],
            ),
            model=MODELS[variant],
            head=dict(tied=small),
            objective=dict(name="causal_lm", chunk=2048),
            optimizer=dict(
                name="adamw",
                peak_rate=6e-4 if small else 3e-4 if variant == "7b" else 1.5e-4,
                beta2=0.95,
                weight_decay=0.1,
                schedule=dict(name="cosine", warmup_steps=2 if tiny else 2000, final_fraction=0.1),
            ),
            mesh=MESHES[variant],
            num_steps=20 if tiny else 19_000 if small else 500_000,
            batch_size=BATCHES[variant],
            accumulate=4 if variant == "gpt2" else 1,
            log=dict(every=10),
            checkpoint=dict(every=10 if tiny else 1000),
            evaluation=dict(every=10 if tiny else 1000, batch_size=8 if tiny else 0),
        )
    )
