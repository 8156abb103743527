# SPDX-License-Identifier: Apache-2.0
"""One request through both hosts, and what is compared: the answer, what the upstream got, what the filter said. The
upstream answers as the request header x-up tells it (JSON), so both hosts meet the same peer."""
import json
import re
import time

from weirtest.client import Closed, Conn, to_bytes
from weirtest.plugins import script
from weirtest.upstream import Upstream
from weirtest.util import wait_until

# What two gateways may differ in whatever a filter does.
VOLATILE = {"date", "server", "x-request-id", "x-envoy-upstream-service-time", "x-envoy-expected-rq-timeout-ms", "via",
            "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-envoy-internal", "x-envoy-attempt-count",
            "connection", "keep-alive", "x-envoy-external-address", "user-agent"}
_ID = re.compile(r"\bid=\d+")
_COUNT = re.compile(r"^(T \S+ [rs]h\.\d+ id=\d+) n=\d+")  # of the gateway's own headers there are more or fewer
_OWN = re.compile(r"\[(?:%s)=[^\]]*\]" % "|".join(sorted(VOLATILE)))


def answer(x):
    """The upstream: {"status": 200, "headers": [[n, v]], "body": "...", "chunks": ["..."], "trailers": [[n, v]], "gap": s}"""
    up = json.loads(x.header("x-up") or "{}")
    if not up.get("status") and len(up.get("body", "")) < 1000 and "chunks" not in up and x.method != "HEAD":
        up["chunks"] = [up.get("body", "hello from upstream")]  # Envoy shows the end of a body on its own
    x.body()
    seen.setdefault(x.header("x-seen") or x.header("x-tag") or x.target, []).append(x)
    time.sleep(up.get("delay", 0))
    if "length" in up:  # a Content-Length, and a body in pieces
        x.peer.send(f"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {up['length']}\r\n\r\n")
        for at in range(0, up["length"], 30000):
            time.sleep(0.02)
            x.peer.send(b"y" * min(30000, up["length"] - at))
        x.answered = True
        return
    headers = [tuple(h) for h in up.get("headers", [["content-type", "text/plain"]])]
    if "chunks" in up:
        head = f"HTTP/1.1 {up.get('status', 200)} X\r\n" + "".join(f"{n}: {v}\r\n" for n, v in headers)
        x.peer.send(head + "transfer-encoding: chunked\r\n\r\n")
        for c in up["chunks"]:
            time.sleep(up.get("gap", 0.03))
            x.peer.send(b"%x\r\n%s\r\n" % (len(c), to_bytes(c)))
        time.sleep(up.get("gap", 0.03))
        x.peer.send("0\r\n" + "".join(f"{n}: {v}\r\n" for n, v in up.get("trailers", [])) + "\r\n")
        x.answered = True
    else:
        x.respond(up.get("status", 200), headers, to_bytes(up.get("body", "hello from upstream")))


seen = {}


def make_upstream():
    return Upstream(answer)


class Case:
    def __init__(self, name, *statements, method="GET", path=None, headers=(), body=None, chunks=None, trailers=(), up=None,
                 gap=0.05, expect=None, metrics=False, host="test.example", settle=0, only=None):
        """chunks: the body goes chunked, a pause between. expect: why the two differ (text), or None."""
        self.name, self.statements, self.method, self.path, self.headers = name, statements, method, path, list(headers)
        if body is not None and len(body) < 1000:
            body, chunks = None, [body]
        self.body, self.chunks, self.trailers, self.up, self.gap, self.expect = body, chunks, list(trailers), up, gap, expect
        self.metrics, self.host, self.settle, self.only = metrics, host, settle, only

    def run(self, host, tag):
        log_before = len(host.lines())
        pairs = [("x-tag", tag)] + self.headers
        if self.statements:
            pairs.append(("x-do", script(*self.statements)))
        if self.up is not None:
            pairs.append(("x-up", json.dumps(self.up)))
        with Conn(host.port, timeout=5) as c:
            try:
                if self.chunks is not None:
                    c.request(self.method, self.path or f"/{tag}", pairs + [("transfer-encoding", "chunked")], host=self.host)
                    for piece in self.chunks:
                        time.sleep(self.gap)
                        c.send(b"%x\r\n%s\r\n" % (len(piece), to_bytes(piece)))
                    time.sleep(self.gap)
                    c.send("0\r\n" + "".join(f"{n}: {v}\r\n" for n, v in self.trailers) + "\r\n")
                else:
                    c.request(self.method, self.path or f"/{tag}", pairs, self.body or b"", host=self.host)
            except OSError:
                pass
            try:
                r = c.response(self.method)
                result = {"status": r.status, "headers": headers_of(r.head.fields), "body": clip(r.body),
                          "trailers": headers_of(r.trailers)}
            except (Closed, AssertionError, OSError) as e:
                result = {"status": type(e).__name__ + (" reset" if getattr(e, "reset", False) else ""),
                          "got": clip(getattr(e, "got", b"")) if not isinstance(e, Closed) else "", "text": str(e)[:200] if not isinstance(e, Closed) else ""}
        result["log"] = self.log_of(host, tag, log_before)
        if self.settle:
            time.sleep(self.settle)
            result["log"] = self.log_of(host, tag, log_before)
        ups = seen.get(tag, [])
        result["upstream"] = [{"line": f"{x.method} {x.target}", "headers": headers_of(x.head.fields), "body": clip(x.body()),
                               "trailers": headers_of(x.trailers)} for x in ups]
        seen.pop(tag, None)
        return normal(result, tag)

    def log_of(self, host, tag, before):
        def ended():
            lines = host.lines()[before:]
            return any(f"T {tag} del" in l for l in lines)
        if self.statements and not (hasattr(host, "is_gone") and host.is_gone()):
            try:
                wait_until(ended, "the end", 2)
            except AssertionError:
                pass
        return [_COUNT.sub(r"\1", l) for l in host.lines()[before:] if not self.statements or l.startswith("T ")]


def clip(b):
    s = b.decode("latin-1")
    return s if len(s) < 300 else f"{s[:60]}...({len(s)})"


def headers_of(fields):
    return sorted([n, v] for n, v in fields if n not in VOLATILE)


def normal(value, tag):
    if isinstance(value, dict):
        return {k: normal(v, tag) for k, v in value.items()}
    if isinstance(value, list):
        return [normal(v, tag) for v in value]
    if isinstance(value, str):
        return _OWN.sub("", _ID.sub("id=N", value.replace(tag, "TAG")))
    return value


def diff(a, b, at=""):
    """Lines that tell where two results differ."""
    if type(a) is not type(b):
        return [f"{at}: {a!r} | {b!r}"]
    if isinstance(a, dict):
        out = []
        for k in sorted(set(a) | set(b)):
            out += diff(a.get(k), b.get(k), f"{at}.{k}")
        return out
    if isinstance(a, list) and at.endswith(".log"):
        import difflib
        return [f"{at} {l}" for l in difflib.unified_diff(a, b, lineterm="", n=0) if not l.startswith(("---", "+++", "@@"))]
    if isinstance(a, list) and all(isinstance(x, list) for x in a + b):
        return [f"{at}: only envoy {x}" for x in a if x not in b] + [f"{at}: only weir {x}" for x in b if x not in a]
    if isinstance(a, list):
        if len(a) != len(b):
            return [f"{at}: {len(a)} | {len(b)} items"]
        return [l for i, (x, y) in enumerate(zip(a, b)) for l in diff(x, y, f"{at}[{i}]")]
    return [] if a == b else [f"{at}: {a!r} | {b!r}"]
