# SPDX-License-Identifier: Apache-2.0
"""One measurement: wrk for some seconds, and what the proxy spent meanwhile."""

import os
import re
import subprocess
import time
from dataclasses import dataclass

from .process import BenchError, cpu_seconds, machine_busy_seconds, memory_kib

REQUEST_HEADERS = (("User-Agent", "weir-bench/1"), ("Accept", "*/*"), ("X-Tenant", "gold"))
CONNECTIONS = 32
UNITS = {"us": 1, "ms": 1e3, "s": 1e6, "m": 60e6}


@dataclass
class Sample:
    cpu_us: float      # user + system of the proxy, microseconds a request
    rps: float         # requests a second
    p50_us: float
    p99_us: float
    rss_kib: int
    pss_kib: int
    busy: float        # CPU of the proxy / time: about 1 when it is what limits requests a second
    other_busy: float  # cores kept busy by processes that are not ours


def wrk_argv(port, seconds):
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "--timeout", "5s"]
    for name, value in REQUEST_HEADERS:
        argv += ["-H", f"{name}: {value}"]
    return argv + [f"http://127.0.0.1:{port}/"]


def parse_duration(text):
    value, unit = re.fullmatch(r"([0-9.]+)(us|ms|s|m)", text).groups()
    return float(value) * UNITS[unit]


def parse_wrk(name, text):
    """(requests, requests a second, p50, p99). A failed request makes the whole run worthless."""
    errors = re.search(r"^ *(Socket errors:.*|Non-2xx.*)$", text, re.M)
    if errors:
        raise BenchError(f"{name}: the load saw failures: {errors.group(1)}")
    requests = re.search(r"^ *(\d+) requests in ", text, re.M)
    rps = re.search(r"^Requests/sec: *([0-9.]+)", text, re.M)
    p50 = re.search(r"^ *50% +(\S+)", text, re.M)
    p99 = re.search(r"^ *99% +(\S+)", text, re.M)
    if not (requests and rps and p50 and p99) or int(requests.group(1)) == 0:
        raise BenchError(f"{name}: wrk did not report:\n{text}")
    return int(requests.group(1)), float(rps.group(1)), parse_duration(p50.group(1)), parse_duration(p99.group(1))


def children_cpu():
    times = os.times()
    return times.children_user + times.children_system


def measure(processes, proxy, upstream, seconds, cores=None):
    """Puts `proxy` (with .name, .port, .child) under load once."""
    started, machine, load_cpu = time.monotonic(), machine_busy_seconds(), children_cpu()
    cpu, up_cpu = cpu_seconds(proxy.child.pid), cpu_seconds(upstream.child.pid)
    wrk = processes.start("wrk", wrk_argv(proxy.port, seconds), cores=cores, stdout=subprocess.PIPE)
    try:
        out, _ = wrk.communicate(timeout=seconds + 20)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{proxy.name}: the load does not end") from None
    finally:
        processes.stop(wrk)
    elapsed = time.monotonic() - started
    cpu, up_cpu = cpu_seconds(proxy.child.pid) - cpu, cpu_seconds(upstream.child.pid) - up_cpu
    machine, load_cpu = machine_busy_seconds() - machine, children_cpu() - load_cpu
    if proxy.child.poll() is not None:
        raise BenchError(f"{proxy.name} ended under load:\n{processes.log_tail(proxy.child.bench_name)}")
    requests, rps, p50, p99 = parse_wrk(proxy.name, out.decode())
    rss, pss = memory_kib(proxy.child.pid)
    return Sample(cpu_us=cpu * 1e6 / requests, rps=rps, p50_us=p50, p99_us=p99, rss_kib=rss, pss_kib=pss,
                  busy=cpu / elapsed, other_busy=max(0.0, (machine - cpu - up_cpu - load_cpu) / elapsed))
