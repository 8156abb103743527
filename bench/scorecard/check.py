# SPDX-License-Identifier: Apache-2.0
"""Before any load: does a proxy answer, and are the edits of its filters visible on both sides?"""

import time

from .client import Client
from .load import REQUEST_HEADERS
from .peers import BODY, MARK
from .process import BenchError


def check_proxy(proxy, seconds=20):
    """Waits while it starts (503, no route yet, connection refused), then fails with what is wrong."""
    limit = time.monotonic() + seconds
    client = Client(proxy.port)
    try:
        while problem := find_problem(client, proxy):
            if time.monotonic() > limit or proxy.child.poll() is not None:
                raise BenchError(f"{proxy.name} is not what is to be measured: {problem}")
            time.sleep(0.1)
    finally:
        client.close()


def find_problem(client, proxy):
    try:
        status, headers, body = client.get("/", REQUEST_HEADERS)
        checked, _, seen = client.get("/check", REQUEST_HEADERS)
    except OSError as e:
        return f"no answer ({e})"
    if status != 200 or checked != 200:
        return f"status {status} and {checked}, not 200: {body[:200]!r}"
    if body != BODY.encode():
        return f"the body is {body[:100]!r}"
    marks = sum(value == MARK for name, value in headers if name == "x-bench-filter")
    if marks != proxy.filters:
        return f"{marks} response headers x-bench-filter: {MARK}, not {proxy.filters}: {headers}"
    wanted = "tenant=checked hop=1" if proxy.filters else "tenant=gold hop="
    if not seen.decode("latin-1").startswith(wanted):
        return f"the upstream saw {seen!r}, not {wanted!r}"
    return ""
