"""What a measured speed, a time and an amount of text are enough for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

TOKENS_A_PARAMETER = 20.0  # Hoffmann et al. 2022, table 3
EPOCHS = 4.0  # repeated so often, text is nearly as good as new (Muennighoff et al. 2023)
ASPECT = 64  # width / depth; Kaplan et al. 2020 (figure 5): the loss hardly depends on it from 30 to 200
RULE = (
    f"{TOKENS_A_PARAMETER:.0f} tokens a parameter (Hoffmann et al. 2022), 6 x parameters x tokens at the measured "
    f"FLOP/s; text at most {EPOCHS:.0f} times (Muennighoff et al. 2023); width {ASPECT} x depth, of 12 x depth x "
    "width^2 parameters"
)


@dataclass(frozen=True)
class Budget:
    """`num_steps` of the page's own model in the time; of text, the size of model that the time and data suit."""

    minutes: float
    first_seconds: float
    step_seconds: float
    flops_per_second: float
    examples_per_second: float
    num_steps: int
    tokens: float = 0.0  # of the page's own model in the time
    parameters: float = 0.0  # without embeddings, of the model that suits
    width: int = 0
    depth: int = 0
    num_heads: int = 0
    suited_steps: int = 0
    suited_tokens: float = 0.0
    limited_by: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"rule": RULE}

    def describe(self) -> str:
        lines = [
            f"a step takes {self.step_seconds:.3g} s here, the first one {self.first_seconds:.3g} s with compiling: "
            f"{self.examples_per_second:.3g} examples/s, {self.flops_per_second:.3g} model FLOP/s",
            f"{self.minutes:g} minutes are enough for num_steps={self.num_steps} of this page",
        ]
        if self.width:
            lines += [
                f"they suit a model of {self.parameters / 1e6:.3g} M parameters beside embeddings, and "
                f"{self.suited_tokens / 1e6:.3g} M tokens ({self.limited_by} sets the limit):",
                f"  --config.model.width={self.width} --config.model.depth={self.depth} "
                f"--config.model.num_heads={self.num_heads} --config.num_steps={self.suited_steps}",
                f"rule: {RULE}",
            ]
        return "\n".join(lines)


def spend(
    *,
    minutes: float,
    compile_seconds: float,
    step_seconds: float,
    batch_size: int,
    tokens_per_example: int,
    flops_per_example: float,
    tokens_there: float,
) -> Budget:
    """The budget of `minutes` with the first step taken off; `tokens_there` is 0 where it is not known, and
    `tokens_per_example` where no size of model is to be said."""
    seconds = max(60.0 * minutes - compile_seconds, 0.0)
    speed = batch_size * flops_per_example / step_seconds
    found: dict[str, Any] = dict(
        minutes=minutes,
        first_seconds=compile_seconds,
        step_seconds=step_seconds,
        flops_per_second=speed,
        examples_per_second=batch_size / step_seconds,
        num_steps=int(seconds / step_seconds),
    )
    if not tokens_per_example:
        return Budget(**found)
    compute = speed * seconds
    parameters = (compute / (6.0 * TOKENS_A_PARAMETER)) ** 0.5
    tokens, limited_by = TOKENS_A_PARAMETER * parameters, "the time"
    if tokens_there and tokens > EPOCHS * tokens_there:
        tokens, limited_by = EPOCHS * tokens_there, "the text"
        parameters = tokens / TOKENS_A_PARAMETER
    depth = max(1, round((parameters / (12.0 * ASPECT**2)) ** (1.0 / 3.0)))
    wanted = (parameters / (12.0 * depth)) ** 0.5
    head = 64 if wanted >= 256 else 32
    width = max(head, head * round(wanted / head))
    return Budget(
        **found,
        tokens=found["num_steps"] * batch_size * float(tokens_per_example),
        parameters=12.0 * depth * width**2,
        width=width,
        depth=depth,
        num_heads=width // head,
        suited_steps=max(1, int(tokens / (batch_size * tokens_per_example))),
        suited_tokens=tokens,
        limited_by=limited_by,
    )
