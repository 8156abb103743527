# SPDX-License-Identifier: Apache-2.0
"""How soon an edit acts: from the rename of a YAML file to the first response that is different."""

import os
import random
import time

from .client import Client
from .load import REQUEST_HEADERS
from .process import BenchError
from .weir import Weir, plugin, route

LIMIT = 5.0  # seconds to wait for one edit
KINDS = ("HTTPRoute (ResponseHeaderModifier)", "WasmPlugin (pluginConfig)")


class EditedWeir(Weir):
    def route_text(self):
        return route("before")


def value_of(headers, name):
    return next((v for n, v in headers if n == name), "")


def wait_for(client, header, wanted, since, limit=LIMIT):
    """(seconds, failed requests) until a response has it."""
    failed = 0
    while True:
        try:
            status, headers, _ = client.get("/", REQUEST_HEADERS)
            if status != 200:
                failed += 1
            elif wanted in value_of(headers, header):
                return time.perf_counter() - since, failed
        except OSError:
            failed += 1
        if time.perf_counter() - since > limit:
            raise BenchError(f"an edit has not acted after {limit} s ({header} never said {wanted})")


def edit(setup, weir, client, kind, value):
    if kind == KINDS[0]:
        staged, header = weir.stage(setup, "route.yaml", route(value)), "x-bench-route"
    else:
        staged, header = weir.stage(setup, "plugin0.yaml", plugin(setup.wasm(), value)), "x-bench-filter"
    started = time.perf_counter()
    os.rename(*staged)
    return wait_for(client, header, value, started)


def measure_edits(setup, weir, count):
    """{kind: {"ms": [...], "failed": n}}; the two kinds take turns."""
    chance = random.Random(1)
    client = Client(weir.port)
    results = {kind: {"ms": [], "failed": 0} for kind in KINDS}
    try:
        for i in range(count):
            for kind in KINDS:
                seconds, failed = edit(setup, weir, client, kind, f"edit-{i}")
                results[kind]["ms"].append(seconds * 1000)
                results[kind]["failed"] += failed
                # Not in step with anything that the gateway does at intervals.
                time.sleep(chance.uniform(0.01, 0.06))
    finally:
        client.close()
    return results
