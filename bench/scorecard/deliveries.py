# SPDX-License-Identifier: Apache-2.0
"""How soon a new version of a plugin acts when it comes from a registry: from the rename of a YAML file to the first
response through it. Once with a module that the cache has, once with one of 5 MB that nobody has seen."""

import os
import pathlib
import random
import subprocess
import sys
import time

from .client import Client
from .edits import wait_for
from .weir import plugin

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = ("WasmPlugin (url, cached module)", "WasmPlugin (url, cold 5 MB module)")
COLD_MAX = 10  # each compiles for seconds in the background
LIMIT = 60.0


def registry():
    """In memory, on loopback: the same that the tests pull from."""
    sys.path.insert(0, str(ROOT / "tests/e2e"))
    from weirtest.registries import ScriptedRegistry
    return ScriptedRegistry()


def large_module(setup):
    """The bench's filter among so much other code that it has about 5 MB."""
    out = os.path.join(setup.run_dir, "large.wasm")
    chance = random.Random(5)
    functions = 2_350
    with open(os.path.join(setup.run_dir, "large.c"), "w", encoding="utf-8") as f:
        for i in range(functions):
            a, b, c = (chance.randrange(3, 1 << 30) for _ in range(3))
            steps = "".join(f"x = (x ^ {chance.randrange(1 << 30)}u) * {chance.randrange(3, 1 << 30)}u + (x >> {chance.randrange(1, 31)}); "
                            f"if (x & {1 << chance.randrange(20)}u) y += x % {chance.randrange(3, 1 << 16)}u; else p[(x >> 8) & 63] ^= y;\n" for _ in range(8))
            f.write(f"__attribute__((noinline)) static unsigned f{i}(unsigned x, unsigned *p)\n{{\nunsigned y = {a}u ^ p[{b % 64}];\n{steps}return x ^ y ^ {c}u;\n}}\n")
        f.write("static unsigned (*const all[])(unsigned, unsigned *) = {" + ",".join(f"f{i}" for i in range(functions)) + "};\n")
        f.write('__attribute__((export_name("ballast"))) unsigned ballast(unsigned i, unsigned x)\n{\n'
                f"static unsigned p[64];\np[0] = x;\nreturn all[i % {functions}](x, p);\n}}\n")
    subprocess.run(["clang", "--target=wasm32", "-O0", "-nostdlib", "-ffreestanding", "-Wl,--no-entry", "-Wl,--strip-all",
                    "-o", out, str(ROOT / "bench/filter/header_filter.c"), f.name], check=True, timeout=300)
    return pathlib.Path(out).read_bytes()


def edition(module, n):
    """The same code in bytes of its own: a custom section at its end."""
    payload = b"\x07edition" + b"%08d" % n
    return module + b"\x00" + bytes([len(payload)]) + payload


def deliver(setup, weir, client, url, value):
    wasm = setup.wasm()
    staged = weir.stage(setup, "plugin0.yaml", plugin(wasm, value).replace(f"file://{wasm}", url))
    started = time.perf_counter()
    os.rename(*staged)
    return wait_for(client, "x-bench-filter", value, started, LIMIT)


def measure_deliveries(setup, weir, count):
    """As measure_edits."""
    reg = registry()
    client = Client(weir.port)
    results = {kind: {"ms": [], "failed": 0} for kind in KINDS}

    def note(kind, measured):
        results[kind]["ms"].append(measured[0] * 1000)
        results[kind]["failed"] += measured[1]
    try:
        small, large = pathlib.Path(setup.wasm()).read_bytes(), large_module(setup)
        for tag in range(2):
            reg.push("filter", f"v{tag}", edition(small, tag))
            deliver(setup, weir, client, f"oci://{reg.host}/filter:v{tag}", f"warm-{tag}")
        for i in range(count):
            note(KINDS[0], deliver(setup, weir, client, f"oci://{reg.host}/filter:v{i % 2}", f"cached-{i}"))
        for i in range(min(count, COLD_MAX)):
            reg.push("large", f"v{i}", edition(large, i))
            note(KINDS[1], deliver(setup, weir, client, f"oci://{reg.host}/large:v{i}", f"cold-{i}"))
            time.sleep(6)  # its optimised code is made meanwhile
    finally:
        client.close()
        reg.stop()
    return results
