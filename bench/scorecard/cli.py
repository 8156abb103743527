# SPDX-License-Identifier: Apache-2.0
"""The run: start everything, check it, measure in turns, measure edits, write the results, stop everything."""

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import statistics
import sys
import time

from . import report
from .check import check_proxy
from .deliveries import KINDS as DELIVERIES
from .deliveries import measure_deliveries
from .edits import KINDS, EditedWeir, measure_edits
from .load import measure
from .peers import BENCH, Envoy, Haproxy, Missing, Nginx, Upstream, build_filter, version_of
from .process import BenchError, Processes, free_port
from .weir import Weir

ROOT = os.path.dirname(BENCH)


def rows(log_rows):
    found = [
        Nginx("nginx"), Nginx("nginx + Lua", filters=1),
        Haproxy("HAProxy"), Haproxy("HAProxy + Lua", filters=1),
        Envoy("Envoy"), Envoy("Envoy + 1 filter", filters=1), Envoy("Envoy + 5 filters", filters=5),
        Weir("Weir"), Weir("Weir + 1 filter", filters=1), Weir("Weir + 5 filters", filters=5),
    ]
    if log_rows:
        found += [Nginx("nginx, access log", access_log=True), Weir("Weir, access log", access_log=True)]
    return found


def say(text):
    print(f"bench: [{time.monotonic() - say.started:5.1f} s] {text}", flush=True)


say.started = time.monotonic()


class Setup:
    """Where things are, and what the rows share."""

    def __init__(self, args, run_dir, processes):
        self.run_dir, self.processes = run_dir, processes
        self.weir = os.path.abspath(args.weir)
        self.weir_cache = os.path.join(run_dir, "weir-cache")
        self.proxy_cores, self.load_cores = choose_cores(args.pin)
        self.upstream = None
        self.built_filter = None
        self.ports = set()

    def free_port(self):
        return free_port(self.ports)

    def wasm(self):
        if not self.built_filter:
            self.built_filter = build_filter(self)
        return self.built_filter

    def start_upstream(self):
        self.upstream = Upstream("upstream")
        self.upstream.port = self.free_port()
        argv, env = self.upstream.prepare(self)
        self.upstream.child = self.processes.start("upstream", argv, cores=self.load_cores, env=env)
        self.processes.wait_for_port(self.upstream.child, self.upstream.port)
        check_proxy(self.upstream)


def choose_cores(pin):
    """The proxy has a core of its own; the load and the upstream have the others."""
    cores = sorted(os.sched_getaffinity(0))
    if not pin or len(cores) < 2:
        return None, None
    return {cores[-1]}, set(cores[:-1])


def parse_args(argv):
    p = argparse.ArgumentParser(prog="bench/run", description=__doc__.splitlines()[0])
    p.add_argument("--weir", default=os.path.join(ROOT, "build", "weir"), help="the program (default build/weir)")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=int, default=3, help="load of a row in a round")
    p.add_argument("--edits", type=int, default=50, help="of each kind")
    p.add_argument("--quick", action="store_true", help="2 rounds of 1 s, 10 edits: to see that it works")
    p.add_argument("--only", action="append", default=[], metavar="TEXT", help="rows whose name starts so (repeatable)")
    p.add_argument("--no-log-rows", action="store_true", help="leave out the rows with access logs")
    p.add_argument("--no-pin", dest="pin", action="store_false", help="let the scheduler choose cores")
    p.add_argument("--time-limit", type=int, default=290, help="no further round starts that would end later (s)")
    p.add_argument("--results", default=os.path.join(BENCH, "results"), help="where latest.md, .json and the plot go")
    args = p.parse_args(argv)
    if args.quick:
        args.rounds, args.seconds, args.edits = 2, 1, 10
    return args


def start_rows(setup, wanted):
    """(started, [lines about those left out])"""
    started, skipped = [], []
    for proxy in wanted:
        try:
            proxy.start(setup)
            check_proxy(proxy)
            started.append(proxy)
        except Missing as e:
            skipped.append(f"{proxy.name}: {e}")
            say(f"SKIPPED {skipped[-1]}")
        except BenchError as e:
            tail = setup.processes.log_tail(proxy.slug) if proxy.child else ""
            raise BenchError(f"{e}\n{tail}") from None
    return started, skipped


def run_rounds(setup, proxies, args):
    """{name: [Sample]}: every row once in each round, so that what slows the machine for a while slows all alike."""
    samples = {proxy.name: [] for proxy in proxies}
    say(f"warm-up of {len(proxies)} rows")
    for proxy in proxies:
        measure(setup.processes, proxy, setup.upstream, 1, setup.load_cores)
    longest = 0.0
    for number in range(1, args.rounds + 1):
        begun = time.monotonic()
        if number > 1 and begun - say.started + longest + args.edits * 0.5 > args.time_limit:
            say(f"stopping after {number - 1} of {args.rounds} rounds: the time limit of {args.time_limit} s is near")
            break
        for proxy in proxies:
            samples[proxy.name].append(measure(setup.processes, proxy, setup.upstream, args.seconds, setup.load_cores))
        longest = time.monotonic() - begun
        line = ", ".join(f"{p.name} {statistics.median(s.cpu_us for s in samples[p.name]):.1f}" for p in proxies)
        say(f"round {number} of {args.rounds}, CPU us a request so far: {line}")
    return samples


def stop_rows(processes, proxies):
    """[what was wrong with how a row ended]: numbers of a proxy that crashes are worth less."""
    warnings = []
    for proxy in proxies:
        if problem := processes.stop(proxy.child):
            warnings.append(f"{proxy.name} {problem}")
            say(f"WARNING {warnings[-1]}:\n{processes.log_tail(proxy.slug, 3)}")
    return warnings


def run_edits(setup, args):
    weir = EditedWeir("Weir, edited", filters=1)
    try:
        weir.start(setup)
    except Missing as e:
        say(f"SKIPPED edits: {e}")
        return {}
    check_proxy(weir)
    say(f"{args.edits} edits of each of: {', '.join(KINDS)}")
    results = measure_edits(setup, weir, args.edits)
    say(f"and of {', '.join(DELIVERIES)}")
    results.update(measure_deliveries(setup, weir, args.edits))
    return results


def run(args, run_dir):
    for tool in ("wrk", "nginx"):
        if not shutil.which(tool) and not shutil.which(tool, path="/usr/sbin:/usr/local/sbin"):
            raise BenchError(f"{tool} is needed for the load and is not installed (Debian: apt-get install {tool})")
    wanted = [r for r in rows(not args.no_log_rows)
              if not args.only or any(r.name.lower().startswith(o.lower()) for o in args.only)]
    with Processes(os.path.join(run_dir, "logs")) as processes:
        setup = Setup(args, run_dir, processes)
        setup.start_upstream()
        say(f"upstream on port {setup.upstream.port}; starting {len(wanted)} rows")
        proxies, skipped = start_rows(setup, wanted)
        if not proxies:
            raise BenchError("no row could be started")
        say("every row answers as it should")
        samples = run_rounds(setup, proxies, args)
        warnings = stop_rows(processes, proxies)
        edits = {}
        if args.edits > 0 and any(r.family == "Weir" for r in wanted):
            edits = run_edits(setup, args)
        versions = [v for v in (version_of(f, setup) for f in ("Weir", "nginx", "HAProxy", "Envoy")) if v]
        result = report.collect(args, proxies, samples, edits, skipped, warnings, versions, setup,
                                time.monotonic() - say.started)
    report.write(args.results, result)
    print("\n" + report.markdown(result))
    say(f"written: {os.path.relpath(args.results)}/latest.md, latest.json, scorecard.svg")


@contextlib.contextmanager
def make_run_dir(name):
    """A fresh build/bench/NAME, with logs/ in it. One user at a time: two would measure each other."""
    base = os.path.join(ROOT, "build", "bench")
    os.makedirs(base, exist_ok=True)
    with open(os.path.join(base, "lock"), "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BenchError("another bench runs in this checkout; two would measure each other") from None
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        run_dir = os.path.join(base, name)
        shutil.rmtree(run_dir, ignore_errors=True)
        os.makedirs(os.path.join(run_dir, "logs"))
        yield run_dir


def main(argv):
    args = parse_args(argv)
    try:
        with make_run_dir("run") as run_dir:
            run(args, run_dir)
    except BenchError as e:
        print(f"bench: FAILED: {e}\nbench: configurations and logs are in build/bench/run", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
