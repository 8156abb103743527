#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The same filter, the same requests, under Envoy and under Weir: prints where they differ.

    tests/differential/run.py [FAMILY...] [-k TEXT] [--all]"""
import argparse
import pathlib
import sys
import tempfile

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).resolve().parents[1] / "e2e")]

import cases  # noqa: E402
from compare import diff, make_upstream  # noqa: E402
from hosts import EnvoyHost, Filter, WeirHost, envoy_program  # noqa: E402
from weirtest.plugins import Variants, new_tag  # noqa: E402


def main():
    p = argparse.ArgumentParser()
    p.add_argument("families", nargs="*")
    p.add_argument("-k", default="")
    p.add_argument("--headers-only", action="store_true")
    p.add_argument("--defines", default="")
    p.add_argument("--marker", default="proxy_abi_version_0_2_1")
    p.add_argument("-v", action="store_true")
    args = p.parse_args()
    assert envoy_program(), "no Envoy: make bench installs one"
    with tempfile.TemporaryDirectory() as tmp:
        tmp = pathlib.Path(tmp)
        wasm = Variants(tmp).puppet(*args.defines.split(), marker=args.marker)
        upstream = make_upstream()
        f = Filter(wasm, headers_only=args.headers_only)
        envoy, weir = EnvoyHost(tmp / "envoy", [f], upstream), WeirHost(tmp / "weir", [f], upstream)
        different = 0
        total = 0
        try:
            for family in args.families or cases.ALL:
                for case in cases.ALL[family]():
                    if args.k not in case.name:
                        continue
                    total += 1
                    tag = new_tag()
                    a, b = case.run(envoy, tag), case.run(weir, tag)
                    if envoy.is_gone():
                        print(f"## {family}: {case.name}\n    Envoy crashed")
                        envoy.stop()
                        envoy = EnvoyHost(tmp / f"envoy{total}", [f], upstream)
                        continue
                    lines = diff(a, b)
                    if lines or args.v:
                        different += 1
                        print(f"## {family}: {case.name}")
                        for l in lines:
                            print("   ", l[:400])
                        if args.v:
                            print("   envoy", a, "\n   weir ", b)
                    sys.stdout.flush()
        finally:
            print(f"{total} cases, {different} differ")
            envoy.stop()
            weir.stop()
            upstream.stop()


main()
