"""Who is there, before jax is asked: its own start waits for all and then aborts without saying who did not come."""

from __future__ import annotations

import json
import socket
import time


def roll_call(address: str, *, num_processes: int, process_id: int, timeout: float) -> None:
    """Returns in all processes once all have come; uses the port on which process 0 will then coordinate.

    Raises:
      RuntimeError: some did not come within `timeout` seconds; it names them, in every process that came.
      ValueError: an address that is not HOST:PORT, or two processes of one number.
    """
    host, sign, port = address.rpartition(":")
    if not sign or not port.isdecimal():
        raise ValueError(f"--coordinator_address={address}: wanted HOST:PORT of process 0, such as 10.0.0.1:12321")
    deadline = time.monotonic() + timeout
    if process_id == 0:
        verdict = _receive(int(port), num_processes, deadline)
    else:
        verdict = _report(host.strip("[]"), int(port), process_id, deadline)
    if verdict["missing"]:
        who = ", ".join(map(str, verdict["missing"]))
        raise RuntimeError(
            f"process {who} of {num_processes} did not come within {timeout:.0f} s; start all of them, with the "
            f"address {address} that every host reaches"
        )
    if verdict["twice"]:
        raise ValueError(f"two processes came as --process_id={verdict['twice'][0]}; give each a number of its own")


def _receive(port: int, num_processes: int, deadline: float) -> dict[str, list[int]]:
    came: dict[int, socket.socket] = {}
    extra: list[tuple[int, socket.socket]] = []
    with socket.create_server(("", port), backlog=num_processes) as server:
        while len(came) < num_processes - 1 and not extra and (left := deadline - time.monotonic()) > 0:
            server.settimeout(left)
            try:
                connection, _ = server.accept()
            except TimeoutError:
                break
            connection.settimeout(5.0)
            try:
                index = int(json.loads(_line(connection))["process"])
            except (OSError, ValueError, KeyError, TypeError):
                connection.close()  # something else that knocked at this port
                continue
            if index in came or not 0 < index < num_processes:
                extra.append((index, connection))
            else:
                came[index] = connection
        twice = [index for index, _ in extra]
        missing = [] if twice else [index for index in range(1, num_processes) if index not in came]
        verdict = {"missing": missing, "twice": twice}
        for connection in [*came.values(), *(each for _, each in extra)]:
            with connection:
                connection.sendall(json.dumps(verdict).encode() + b"\n")
    return verdict


def _report(host: str, port: int, process_id: int, deadline: float) -> dict[str, list[int]]:
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=min(left, 5.0)) as connection:
                connection.sendall(json.dumps({"process": process_id}).encode() + b"\n")
                connection.settimeout(left + 5.0)  # process 0 may have begun to wait later
                return json.loads(_line(connection))
        except (OSError, ValueError):  # not there yet, or it went away before it answered
            time.sleep(min(0.2, max(left, 0.0)))
    return {"missing": [0], "twice": []}


def _line(connection: socket.socket) -> str:
    with connection.makefile(encoding="utf-8") as file:
        return file.readline()
