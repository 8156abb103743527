#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Any filter under both hosts: plain requests, then statuses, headers, bodies, log lines and the filter's metrics.

    tests/differential/third_party.py FILTER.wasm [--config JSON] [--request 'METHOD PATH [name:value ...] [=BODY]' ...]"""
import argparse
import json
import pathlib
import re
import sys
import tempfile
import time

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).resolve().parents[1] / "e2e")]

from compare import Case, diff, make_upstream  # noqa: E402
from hosts import EnvoyHost, Filter, WeirHost  # noqa: E402
from weirtest.plugins import new_tag  # noqa: E402

DEFAULT = ["GET /", "GET /hello", "HEAD /", "POST / =small", "POST / =@100000", "POST / =~a~b~c", "PUT /a?b=c x-a:1 x-a:2", "OPTIONS *",
           "GET /headers authorization:Bearer%20x cookie:a=1", "DELETE /x"]


def case_of(text, up):
    words = text.split(" ")
    method, path, headers, body, chunks = words[0], words[1], [], None, None
    for w in words[2:]:
        if w.startswith("=~"):
            chunks = w[2:].split("~")
        elif w.startswith("=@"):
            body = "x" * int(w[2:])
        elif w.startswith("="):
            chunks = [w[1:].replace("%20", " ")]
        else:
            n, v = w.split(":", 1)
            headers.append((n, v.replace("%20", " ")))
    return Case(text, method=method, path=path, headers=headers, body=body, chunks=chunks, up=up, settle=0.3)


def metrics(host):
    out = {}
    for line in host.raw_metrics().splitlines():
        m = re.match(r"(?:wasmcustom_)?([A-Za-z_:][\w:]*)(\{.*\})? (\S+)$", line)
        if m and not m[1].startswith(("envoy_", "weir_", "process_")):
            out[m[1] + re.sub(r"\w*(plugin|namespace)=\"[^\"]*\",?", "", m[2] or "").replace("{}", "")] = float(m[3])
    return out


def main():
    p = argparse.ArgumentParser()
    p.add_argument("wasm")
    p.add_argument("--config")
    p.add_argument("--request", action="append")
    p.add_argument("--up", default=None)
    p.add_argument("--root", default="third", help="pluginName, the root id")
    p.add_argument("--wait", type=float, default=0)
    p.add_argument("--no-log", action="store_true")
    p.add_argument("-v", action="store_true")
    args = p.parse_args()
    config = json.loads(args.config) if args.config else None  # an object: what a WasmPlugin can hold
    with tempfile.TemporaryDirectory() as tmp:
        tmp = pathlib.Path(tmp)
        upstream = make_upstream()
        f = Filter(args.wasm, config=config, name="third", root=args.root)
        hosts, started = [], []
        for kind in (EnvoyHost, WeirHost):
            t = time.monotonic()
            hosts.append(kind(tmp / kind.name, [f], upstream))
            started.append(time.monotonic() - t)
        print(f"ready after {started[0]:.1f} s (Envoy), {started[1]:.1f} s (Weir)")
        different = 0
        try:
            time.sleep(args.wait)
            start = [h.lines() for h in hosts]
            if args.v or start[0] != start[1]:
                print("at the start:\n  envoy", start[0][:12], "\n  weir ", start[1][:12])
            requests = args.request or DEFAULT
            for text in requests:
                tag = new_tag()
                a, b = [case_of(text, json.loads(args.up) if args.up else None).run(h, tag) for h in hosts]
                if args.no_log:
                    a.pop("log"), b.pop("log")
                lines = diff(a, b)
                different += bool(lines)
                print(f"{'DIFF' if lines else 'same'} {text} -> {a['status']} | {b['status']}")
                for l in lines:
                    print("    ", l[:300])
                if args.v:
                    print("  envoy", str(a)[:1500], "\n  weir ", str(b)[:1500])
            m = [metrics(h) for h in hosts]
            if m[0] != m[1]:
                print("metrics: only envoy", {k: v for k, v in m[0].items() if m[1].get(k) != v}, "only weir", {k: v for k, v in m[1].items() if m[0].get(k) != v})
            elif m[0]:
                print("metrics: same", m[0])
            print(f"{len(requests)} requests, {different} differ")
        finally:
            for h in hosts:
                h.stop()
            upstream.stop()


main()
