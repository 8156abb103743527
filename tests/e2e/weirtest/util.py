# SPDX-License-Identifier: Apache-2.0
"""Free ports, and waiting for a condition (never for a time)."""
import os
import random
import socket
import time

LOCAL = "127.0.0.1"
# Generous: a sanitizer build on two busy cores is more than ten times slower. A passing test never waits this long.
DEADLINE = float(os.environ.get("WEIR_TEST_DEADLINE", "120"))

# Below the ephemeral range, so that no outgoing connection takes a port between our look and weir's bind; never twice.
_random = random.Random(os.getpid() * 7919 + time.time_ns())
_given = set()


def free_port():
    for _ in range(2000):
        port = _random.randrange(12000, 32000)
        if port in _given:
            continue
        with socket.socket() as s:
            try:
                s.bind((LOCAL, port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise RuntimeError("no free port")


def wait_until(condition, what="the condition", deadline=DEADLINE, alive=None, explain=None):
    """Polls until condition() is true and returns its value. OSError and AssertionError count as not yet."""
    end = time.monotonic() + deadline
    error = None
    while True:
        try:
            value = condition()
            if value:
                return value
            error = None
        except (OSError, AssertionError) as e:
            error = e
        if alive is not None:
            alive()
        if time.monotonic() > end:
            text = f"{what} did not come true within {deadline:.0f} s"
            if error is not None:
                text += f"; last: {error!r}"
            raise AssertionError(text + ("\n" + explain() if explain is not None else ""))
        time.sleep(0.01)
