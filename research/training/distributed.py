"""Several processes as one run: they find each other, compare what they run, stop at one step, end when one is lost.

This is the only file that touches jax's coordination service: a small key-value store that process 0 keeps.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import jax
from jax.experimental import multihost_utils

from research.training.roll_call import roll_call

LOST = 75  # start the same command again: the last checkpoint is good
_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_ALIVE, _OVER, _FACTS = "groundwork/alive/", "groundwork/over/", "groundwork/facts/"


@dataclass(frozen=True)
class Cluster:
    """Where a process stands among others: what the flags say, or with `detect` a TPU slice, SLURM, GKE or MPI.

    `timeout` is in seconds: how long to wait for a missing process, and after which silence one is given up.
    """

    coordinator_address: str = ""
    num_processes: int = 0
    process_id: int = -1
    detect: bool = False
    timeout: float = 120.0

    def __post_init__(self) -> None:
        given = (bool(self.coordinator_address), self.num_processes > 0, self.process_id >= 0)
        if any(given) and not all(given):
            raise ValueError(
                "--coordinator_address, --num_processes and --process_id belong together; give all three, or "
                "--distributed, which asks the environment (TPU, SLURM, GKE)"
            )
        if all(given) and self.process_id >= self.num_processes:
            raise ValueError(
                f"--process_id={self.process_id} with --num_processes={self.num_processes}: they are counted from 0"
            )
        if self.timeout < 2.0:
            raise ValueError(f"--timeout={self.timeout}: wanted 2 seconds or more")

    @property
    def is_one(self) -> bool:
        """Whether this process is the only one."""
        return not self.detect and not self.coordinator_address


def connect(cluster: Cluster) -> Peers | None:
    """Joins the others, before jax sees any device; None where there are none.

    Raises:
      ValueError: nothing in the environment says where the others are, or two have one number.
      RuntimeError: some do not come within the timeout; they are named.
    """
    if cluster.is_one:
        return None
    address, count, index = _place(cluster)
    roll_call(address, num_processes=count, process_id=index, timeout=cluster.timeout)
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    seconds = max(int(cluster.timeout), 1)
    jax.distributed.initialize(
        address,
        count,
        index,
        initialization_timeout=4 * seconds,
        heartbeat_timeout_seconds=4 * seconds,  # the watch below is sooner, and says who in words
        shutdown_timeout_seconds=seconds,
    )
    return Peers(cluster.timeout)


def _place(cluster: Cluster) -> tuple[str, int, int]:
    """Coordinator, number of processes and this one's number."""
    if not cluster.detect:
        return cluster.coordinator_address, cluster.num_processes, cluster.process_id
    given = [os.environ.get(name, "") for name in _VARIABLES]
    if all(given):
        return given[0], int(given[1]), int(given[2])
    from jax._src.clusters import ClusterEnv  # what jax.distributed.initialize asks; it has no public name

    found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, int(cluster.timeout))
    address, count, index, _ = found
    if not address or count is None or index is None:
        raise ValueError(
            "--distributed finds no other processes in the environment; start it under SLURM, on a TPU slice or by "
            f"JobSet, set {', '.join(_VARIABLES)}, or give --coordinator_address, --num_processes and --process_id"
        )
    return address, count, index


class Peers:
    """The other processes, watched by a thread: when one dies, hangs or fails, this process ends and says which."""

    def __init__(self, timeout: float) -> None:
        from jax._src.distributed import global_state  # jax gives its client no public name

        self._client: Any = global_state.client
        self._timeout = timeout
        self._every = min(max(timeout / 8.0, 0.25), 10.0)
        self._index, self._count = jax.process_index(), jax.process_count()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)
        self._thread.start()

    def compare(self, facts: Mapping[str, Any]) -> None:
        """Raises ValueError, in every process alike, where a process has other `facts` (any JSON) than process 0."""
        own = {"host": socket.gethostname(), "facts": dict(facts)}
        self._client.key_value_set(f"{_FACTS}{self._index}", json.dumps(own))
        wait = int(self._timeout * 1000)
        found = [json.loads(self._client.blocking_key_value_get(f"{_FACTS}{i}", wait)) for i in range(self._count)]
        first = found[0]["facts"]
        for index, each in enumerate(found):
            for name in sorted(first.keys() | each["facts"].keys()):
                values = first.get(name), each["facts"].get(name)
                if values[0] != values[1]:
                    raise ValueError(
                        f"process {index} on {each['host']} has another {name} than process 0 on {found[0]['host']}: "
                        f"{values[1]!r} and {values[0]!r}; start all with the same config and code"
                    )

    def leave(self) -> None:
        """The run is over here, as it should be; the others need not miss this process."""
        self._tell(0, "")
        self._closed.set()

    def end_all(self, code: int, reason: str) -> NoReturn:
        """Ends this process at once, and the others with its reason."""
        self._tell(code, reason)
        if self._index == 0:
            time.sleep(3 * self._every)  # the others read it here
        self._exit(code)

    def await_verdict(self) -> None:
        """Gives the watch the time to name a lost process; it does not return where it does."""
        self._closed.wait(self._timeout + 4 * self._every)

    def _tell(self, code: int, reason: str) -> None:
        try:
            self._client.key_value_set(f"{_OVER}{self._index}", json.dumps([code, reason]), allow_overwrite=True)
        except jax.errors.JaxRuntimeError:
            return  # process 0 is gone, and with it whoever would read this

    def _watch(self) -> None:
        heard = {index: ("", time.monotonic()) for index in range(self._count)}
        asked, beat = time.monotonic(), 0
        while not self._closed.wait(self._every):
            beat += 1
            now = time.monotonic()
            if now - asked > 2 * self._every + self._timeout / 2:  # this process was stopped itself, and knows nothing
                heard = {index: (value, now) for index, (value, _) in heard.items()}
            asked = now
            try:
                self._client.key_value_set(f"{_ALIVE}{self._index}", str(beat), allow_overwrite=True)
                alive = {_number(key): value for key, value in self._client.key_value_dir_get(_ALIVE)}
                over = {_number(key): json.loads(value) for key, value in self._client.key_value_dir_get(_OVER)}
                alive[0] = str(beat)  # it has just answered
            except jax.errors.JaxRuntimeError:
                alive, over = {}, {}
            for index, (before, since) in heard.items():
                value = alive.get(index, before)
                if value != before or index == self._index:
                    heard[index] = (value, now)
                elif index in over and over[index][0] == 0:
                    heard[index] = (before, now)
                elif now - since > self._timeout:
                    self._lost(index, now - since)
            for index, (code, reason) in over.items():
                if code and index != self._index:
                    self._say(f"process {index} ended: {reason}")
                    self._exit(code)

    def _lost(self, index: int, seconds: float) -> None:
        self._say(
            f"process {index} of {self._count} was not heard of for {seconds:.0f} s: it died or hangs; look at its log "
            "and its host, then start the same command again on all (it goes on from the last checkpoint)"
        )
        self._exit(LOST)

    def _say(self, text: str) -> None:
        print(f"failed: {text}", file=sys.stderr, flush=True)

    def _exit(self, code: int) -> NoReturn:
        sys.stdout.flush()
        os._exit(code)  # not sys.exit: jax would wait for the lost process


class Notice:
    """Whether the run was asked to stop (SIGTERM), at a step that is the same in all processes."""

    def __init__(self) -> None:
        self._number, self._previous = 0, None

    def __enter__(self) -> Notice:
        if jax.process_count() == 1:  # with several, jax's coordination service has taken the signal
            self._previous = signal.signal(signal.SIGTERM, self._remember)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def reached(self, step: int) -> bool:
        """To be asked after every step, in every process: all say yes at the same one."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return bool(self._number)

    def _remember(self, number: int, frame: Any) -> None:
        self._number = number


def _number(key: str) -> int:
    return int(key.rsplit("/", 1)[1])
