"""What every door shares: its flags, the tuned environment, and exit codes in place of tracebacks."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from research.environment import tune

OK, FAILED, MISTAKE, PREEMPTED = 0, 1, 2, 75


def run_door(main: Callable[[list[str]], int], *, virtual_devices: int = 0) -> None:
    """Runs `main` with the command line in the tuned environment, and exits with the code that its end deserves.
    On a CPU jax then sees so many `virtual_devices`, where a number is given.

    A ValueError raised by this project's own code is the user's mistake (2); one that comes out of a library, and any
    other exception, is a failure (1). `--debug` shows tracebacks.
    """
    tune(virtual_devices=virtual_devices)
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        code = main([argument for argument in arguments if argument != "--debug"])
    except KeyboardInterrupt:
        code = 130
    except Exception as error:  # the last line of defence: every error becomes one sentence and a code
        code = complain(error, debug=debug)
    sys.stdout.flush()
    sys.exit(code)


def complain(error: BaseException, *, debug: bool) -> int:
    """Says in one line on stderr what ended a door (with its traceback for `debug`), and returns the exit code."""
    if debug:
        traceback.print_exception(error)
    code = exit_code(error)
    word = {MISTAKE: "error", PREEMPTED: "preempted", FAILED: "failed"}[code]
    hint = "" if code != FAILED or debug else " (--debug shows the traceback)"
    print(f"{word}: {describe(error)}{hint}", file=sys.stderr, flush=True)
    return code


def exit_code(error: BaseException) -> int:
    """0 is done; 1 a failure, 2 the user's mistake, 75 to be started again: preempted and saved, or one was lost."""
    if type(error).__name__ == "Preempted":
        return PREEMPTED
    if isinstance(error, ValueError) and _raised_here(error.__traceback__):
        return MISTAKE
    return FAILED


def describe(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text if isinstance(error, (ValueError, RuntimeError)) else f"{type(error).__name__}: {text}"


def take_flags(arguments: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Splits `--config.key=value` flags, as pairs, from the rest.

    Raises:
      ValueError: a `--config.key` without a value.
    """
    overrides, rest = [], []
    waiting = iter(arguments)
    for argument in waiting:
        if not argument.startswith("--config."):
            rest.append(argument)
            continue
        key, sign, value = argument.removeprefix("--config.").partition("=")
        if not sign:
            value = next(waiting, "")
            if not value:
                raise ValueError(f"{argument} has no value; write {argument}=VALUE")
        overrides.append((key, value))
    return overrides, rest


def _raised_here(trace: TracebackType | None) -> bool:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    here = Path(__file__).resolve().parent
    path = Path(trace.tb_frame.f_code.co_filename).resolve()
    return here in path.parents or path.name == "argparse.py" or "configs" in path.parts
