# SPDX-License-Identifier: Apache-2.0
"""Where Weir's CPU time goes under the load of the bench: perf record, then the top symbols."""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time

from .check import check_proxy
from .cli import ROOT, Setup, make_run_dir
from .load import wrk_argv
from .peers import Envoy, Haproxy, Missing, Nginx
from .process import BenchError, Processes, tree
from .weir import Weir

FAMILIES = {"weir": Weir, "nginx": Nginx, "haproxy": Haproxy, "envoy": Envoy}


def parse_args(argv):
    p = argparse.ArgumentParser(prog="bench/profile", description=__doc__)
    p.add_argument("--weir", default=os.path.join(ROOT, "build", "weir"), help="the program (default build/weir)")
    p.add_argument("--proxy", choices=FAMILIES, default="weir")
    p.add_argument("--filters", type=int, default=0)
    p.add_argument("--seconds", type=int, default=5)
    p.add_argument("--graph", action="store_true", help="callers too (perf's dwarf call graphs: slow, large)")
    p.add_argument("--lines", type=int, default=30, help="functions to show")
    p.add_argument("--no-pin", dest="pin", action="store_false")
    return p.parse_args(argv)


def record(setup, proxy, args, data):
    """perf beside wrk: a second of load first, then the seconds that are recorded."""
    load = setup.processes.start("wrk", wrk_argv(proxy.port, args.seconds + 3), cores=setup.load_cores)
    argv = ["perf", "record", "-F", "1999", "-o", data, *(["--call-graph", "dwarf,16384"] if args.graph else []),
            "-p", ",".join(str(pid) for pid in tree(proxy.child.pid)), "--", "sleep", str(args.seconds)]
    time.sleep(1)
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=args.seconds + 30,
                          check=False)
    setup.processes.stop(load)
    if done.returncode != 0:
        raise BenchError("perf record failed (kernel.perf_event_paranoid?):\n" + done.stdout.decode())


def report_lines(data, sort, *options):
    argv = ["perf", "report", "--stdio", "-i", data, "--percent-limit", "0.2", "--fields", "overhead," + sort, *options]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=300, check=False)
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    return [re.sub(r"(\S) {2,}", r"\1  ", line.rstrip()) for line in lines if line.strip() and not line.startswith("#")]


def report(data, args):
    """Where it goes by program and library, then by function: first outside the kernel, then in it."""
    symbols = report_lines(data, "dso,symbol", *(["-g", "none"] if args.graph else []))
    ours = [line for line in symbols if "[k]" not in line]
    kernel = [line for line in symbols if "[k]" in line]
    lines = ["by object:", *report_lines(data, "dso", *(["-g", "none"] if args.graph else [])),
             "", "outside the kernel:", *ours[:args.lines], "", "in the kernel:", *kernel[:args.lines // 2]]
    if args.graph:
        lines += ["", "with callers:", *report_lines(data, "dso,symbol", "--no-children")]
    return lines


def main(argv):
    args = parse_args(argv)
    for tool in ("perf", "wrk", "nginx"):
        if not shutil.which(tool) and not shutil.which(tool, path="/usr/sbin"):
            print(f"bench/profile: {tool} is not installed", file=sys.stderr)
            return 1
    try:
        with make_run_dir("profile") as run_dir, Processes(os.path.join(run_dir, "logs")) as processes:
            setup = Setup(args, run_dir, processes)
            setup.start_upstream()
            proxy = FAMILIES[args.proxy]("profiled", filters=args.filters)
            proxy.start(setup)
            check_proxy(proxy)
            data = os.path.join(run_dir, "perf.data")
            record(setup, proxy, args, data)
            lines = report(data, args)
            with open(os.path.join(run_dir, "profile.txt"), "w", encoding="utf-8") as f:
                f.write("\n".join(lines) + "\n")
            print("\n".join(lines[:2 * args.lines]))
            print(f"\nall of it: {os.path.relpath(run_dir)}/profile.txt")
    except (BenchError, Missing) as e:
        print(f"bench/profile: FAILED: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
