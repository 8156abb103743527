# SPDX-License-Identifier: Apache-2.0
"""What a run found: latest.json (everything), latest.md (the table), scorecard.svg (the README's plot)."""

import datetime
import json
import math
import os
import platform
import statistics
from dataclasses import asdict

from .deliveries import KINDS as DELIVERIES
from .plot import draw

FIELDS = ("cpu_us", "rps", "p50_us", "p99_us", "rss_kib", "pss_kib", "busy", "other_busy")


def percentile(values, p):
    """The smallest value that at least p % of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * p / 100) - 1)]


DELIVERY_TARGETS = dict(zip(DELIVERIES, (100.0, 1000.0)))


def collect(args, proxies, samples, edits, skipped, warnings, versions, setup, seconds):
    rows = []
    for proxy in proxies:
        taken = samples[proxy.name]
        row = {"name": proxy.name, "family": proxy.family, "filters": proxy.filters, "access_log": proxy.access_log}
        row.update({f: statistics.median(getattr(s, f) for s in taken) for f in FIELDS})
        row["cpu_us_min"], row["cpu_us_max"] = min(s.cpu_us for s in taken), max(s.cpu_us for s in taken)
        row["rounds"] = [asdict(s) for s in taken]
        rows.append(row)
    result = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command(args),
        "machine": machine(),
        "pinned": setup.proxy_cores is not None,
        "versions": versions,
        "rounds": max(len(s) for s in samples.values()),
        "seconds": args.seconds,
        "took": round(seconds),
        "rows": rows,
        "skipped": skipped,
        "warnings": warnings,
        "edits": {kind: {"count": len(e["ms"]), "median_ms": statistics.median(e["ms"]),
                         "p99_ms": percentile(e["ms"], 99),
                         "failed_requests": e["failed"], "ms": e["ms"]} for kind, e in edits.items()},
    }
    result["filter_cost"] = filter_costs(rows)
    result["targets"] = targets(result)
    return result


def command(args):
    words = ["bench/run"]
    if args.quick:
        words.append("--quick")
    else:
        for option, default in (("rounds", 5), ("seconds", 3), ("edits", 50)):
            if getattr(args, option) != default:
                words.append(f"--{option} {getattr(args, option)}")
    words += [f"--only '{o}'" for o in args.only]
    if not args.pin:
        words.append("--no-pin")
    if args.no_log_rows:
        words.append("--no-log-rows")
    return " ".join(words)


def machine():
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), model)
    except OSError:
        pass
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "kernel": platform.release(),
            "load_average_after": os.getloadavg()[0]}


def filter_costs(rows):
    """{family: microseconds of CPU that one filter adds}: medians over rounds of differences within a round."""
    costs = {}
    for family in ("Envoy", "Weir"):
        by_filters = {r["filters"]: r["rounds"] for r in rows if r["family"] == family and not r["access_log"]}
        for n in (1, 5):
            if 0 in by_filters and n in by_filters:
                pairs = zip(by_filters[0], by_filters[n])
                costs[f"{family} {n}"] = statistics.median((b["cpu_us"] - a["cpu_us"]) / n for a, b in pairs)
    return costs


def targets(result):
    """[(what, limit, found, met)], for what could be measured."""
    by_name = {r["name"]: r for r in result["rows"]}
    found = []

    def add(what, unit, limit, value):
        found.append({"what": what, "unit": unit, "limit": limit, "found": value, "met": value <= limit})

    if "Weir" in by_name:
        for peer in ("nginx", "HAProxy"):
            if peer in by_name:
                add(f"plain Weir at or below {peer}", "us a request", by_name[peer]["cpu_us"],
                    by_name["Weir"]["cpu_us"])
    if "Weir 5" in result["filter_cost"]:
        add("each header filter (of 5)", "us a request", 1.0, result["filter_cost"]["Weir 5"])
    if "Weir + 5 filters" in by_name:
        add("RSS with 5 filters", "MiB", 24.0, by_name["Weir + 5 filters"]["rss_kib"] / 1024)
    for kind, e in result["edits"].items():
        if kind in DELIVERY_TARGETS:
            add(f"median of a delivery: {kind}", "ms", DELIVERY_TARGETS[kind], e["median_ms"])
        else:
            add(f"p99 of an edit of {kind}", "ms", 300.0, e["p99_ms"])
    return found


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return lines + ["| " + " | ".join(str(c) for c in row) + " |" for row in rows]


def time_text(us):
    return f"{us:.0f} us" if us < 1000 else f"{us / 1000:.2f} ms"


def conditions(result):
    m = result["machine"]
    other = statistics.median(r["other_busy"] for r in result["rows"])
    noisy = ": **not a quiet machine**, compare within this run only" if other > 0.1 else ""
    return (
        f"`{result['command']}`, {result['date']}, {result['took']} s; {m['cpu']}, {m['cores']} cores, "
        f"Linux {m['kernel']}",
        "; ".join(result["versions"]),
        "wrk, one thread, 32 kept-alive HTTP/1.1 connections, a 36-byte body from one nginx worker; "
        f"{result['rounds']} rounds of {result['seconds']} s, the rows in turn within each round; medians",
        "CPU: user + system of the proxy and its children over requests served. RSS and PSS: their sums after the "
        "load. Busy: CPU over time; well below 100 % the load, the upstream or other processes set requests/s and "
        "latency, not the proxy",
        "the proxy on a core of its own, load and upstream on the others" if result["pinned"] else "cores not pinned",
        f"other processes of the machine used {other:.2f} cores (median) meanwhile{noisy}",
        "Lua and Wasm filters make the same edits: read 1 header, add 1 and replace 1 of the request; read 1 and "
        "add 1 of the response. Envoy and Weir run the same .wasm (Envoy under V8)",
    )


def markdown(result):
    base = next((r["cpu_us"] for r in result["rows"] if r["name"] == "nginx"), None)
    lines = ["# Scorecard", ""]
    lines += table(
        ["proxy, one worker", "CPU us/request", "min-max", "x nginx", "requests/s", "p50", "p99", "RSS MiB", "PSS MiB",
         "busy"],
        [[r["name"], f"**{r['cpu_us']:.1f}**", f"{r['cpu_us_min']:.1f}-{r['cpu_us_max']:.1f}",
          f"{r['cpu_us'] / base:.2f}" if base else "", f"{r['rps']:,.0f}", time_text(r["p50_us"]),
          time_text(r["p99_us"]),
          f"{r['rss_kib'] / 1024:.1f}", f"{r['pss_kib'] / 1024:.1f}", f"{r['busy']:.0%}"] for r in result["rows"]])
    if result["filter_cost"]:
        lines += ["", "CPU that one header filter adds: " + "; ".join(
            f"{name.split()[0]} {cost:.2f} us ({'one filter' if name.endswith(' 1') else 'mean of five'})"
            for name, cost in result["filter_cost"].items()) + "."]
    if result["edits"]:
        lines += ["", "## From renaming a YAML file to the first changed response (Weir)", ""]
        lines += table(["edit", "edits", "median", "p99", "failed requests"],
                       [[kind, e["count"], f"{e['median_ms']:.1f} ms", f"{e['p99_ms']:.1f} ms", e["failed_requests"]]
                        for kind, e in result["edits"].items()])
    if result["targets"]:
        lines += ["", "## Targets", ""]
        lines += table(["target", "at most", "found", ""],
                       [[t["what"], f"{t['limit']:.1f} {t['unit']}", f"{t['found']:.2f}",
                         "met" if t["met"] else "**missed**"] for t in result["targets"]])
    lines += ["", "## How", ""]
    lines += [f"- {line}" for line in conditions(result) if line]
    lines += [f"- **left out:** {line}" for line in result["skipped"]]
    lines += [f"- **warning:** {line}" for line in result["warnings"]]
    return "\n".join(lines) + "\n"


def write(directory, result):
    os.makedirs(directory, exist_ok=True)
    for name, text in (("latest.md", markdown(result)), ("latest.json", json.dumps(rounded(result), indent=1) + "\n"),
                       ("scorecard.svg", draw(result))):
        path = os.path.join(directory, name)
        with open(path + ".new", "w", encoding="utf-8") as f:
            f.write(text)
        os.rename(path + ".new", path)


def rounded(value):
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else value
