"""A training step of text_mlm.py:medium with float32 and with rounded factors (matmul_dtype=bfloat16), in turn.

python tests/benchmarks/matmul_dtype.py
Keeps matmul_dtype.json beside this script: seconds a step of each, medians, and their ratio.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from keep import origin  # pyright: ignore[reportMissingImports]

from research.environment import tune

HERE = Path(__file__).resolve().parent
ROUNDS, STEPS, BATCH, LENGTH, VOCABULARY = 9, 3, 32, 128, 16384


def make_step(matmul_dtype: str) -> tuple[Any, Any, Any]:
    """The compiled step, a state and a batch of random tokens."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import numpy as np

    from research.models import HEADS, Model
    from research.models.backbones import modern
    from research.objectives.masked_lm import MaskedLM
    from research.training.optimizer import muon
    from research.training.state import TrainState
    from research.training.step import make_train_step

    shape = dict(vocab_size=VOCABULARY, length=LENGTH, width=256, depth=2, num_heads=4, unroll=2)
    head = HEADS["language"](VOCABULARY, 256, matmul_dtype=matmul_dtype)
    model = Model(modern(**shape, matmul_dtype=matmul_dtype).module(), head)
    draw = np.random.default_rng(0)
    starts = draw.random(VOCABULARY) < 0.7
    words: dict[str, Any] = dict(unit="words", word_starts=starts, word_ends=np.roll(starts, -1))
    objective = MaskedLM(model, vocab_size=VOCABULARY, mask_id=4, rate=0.2, **words)
    batch = {
        "tokens": jnp.asarray(draw.integers(5, VOCABULARY, (BATCH, LENGTH)), jnp.int32),
        "positions": jnp.broadcast_to(jnp.arange(LENGTH, dtype=jnp.int32), (BATCH, LENGTH)),
        "segment_ids": jnp.ones((BATCH, LENGTH), jnp.int32),
        "example_id": jnp.arange(BATCH, dtype=jnp.uint32),
    }
    variables = nn.meta.unbox(objective.init(jax.random.key(0), batch))
    schedule = dict(name="linear", warmup_steps=10)
    optimizer = muon(peak_rate=6e-3, num_steps=1000, schedule=schedule, matmul_dtype=matmul_dtype)
    transform = optimizer.transform(variables["params"])
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        opt_state=transform.init(variables["params"]),
        ema=None,
        first_bad_step=jnp.full((), -1, jnp.int32),
    )
    return jax.jit(make_train_step(objective, transform, seed=0), donate_argnums=0), state, batch


def main() -> None:
    tune()
    import jax

    runs = {name: make_step(matmul_dtype) for name, matmul_dtype in (("float32", ""), ("bfloat16", "bfloat16"))}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(ROUNDS + 1):
        for name, (step, state, batch) in runs.items():
            jax.block_until_ready(state)
            started = time.perf_counter()
            for _ in range(STEPS):
                state, _ = step(state, batch)
            jax.block_until_ready(state)
            runs[name] = (step, state, batch)
            if turn:  # the first compiles
                seconds[name].append((time.perf_counter() - started) / STEPS)
    ratios = [first / second for first, second in zip(*seconds.values(), strict=True)]
    found = {
        "command": " ".join(["python", *sys.argv]),
        **origin(),
        "tokens_a_step": BATCH * LENGTH,
        "seconds_a_step": {name: statistics.median(values) for name, values in seconds.items()},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }
    (HERE / "matmul_dtype.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
