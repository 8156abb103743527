# SPDX-License-Identifier: Apache-2.0
"""Keep-alive load that counts every failure: each thread sends one request after another until told to stop. A
connection is reused unless the response says it closes, so an unannounced close is a failure, as it is for users.

With drain=True it is the client of a gateway that is being drained: a request on a reused connection that was closed
before the first byte of the response goes once more on a new one (RFC 9110, section 9.2.2: that is how an idle close
races), and a refused connect ends the thread."""
import threading

from .client import Closed, Conn


class Load:
    def __init__(self, port, path="/", threads=4, expect=200, method="GET", headers=None, body=b"", host="test.example",
                 check=None, drain=False, fresh=False):
        self.port, self.path, self.expect, self.check = port, path, expect, check
        self.method, self.headers, self.body, self.host = method, headers, body, host
        self.drain, self.fresh = drain, fresh
        self.ok = self.failed = self.retried = self.connects = 0
        self.failures = []  # the first few, as text
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def _note(self, failure):
        with self.lock:
            if failure is None:
                self.ok += 1
            else:
                self.failed += 1
                if len(self.failures) < 10:
                    self.failures.append(failure)

    def _connect(self):
        conn = Conn(self.port)
        with self.lock:
            self.connects += 1
        return conn

    def _one(self, conn):
        conn.request(self.method, self.path, self.headers, self.body, self.host)
        return conn.response(self.method)

    def _run(self):
        conn, served = None, 0
        while not self.stopping.is_set():
            try:
                if conn is None:
                    conn, served = self._connect(), 0
                r = self._one(conn)
                served += 1
                failure = None
                if r.status != self.expect:
                    failure = f"status {r!r}"
                elif self.check is not None and not self.check(r):
                    failure = f"not as wanted: {r!r}"
                self._note(failure)
                if r.will_close or self.fresh:
                    conn.close()
                    conn = None
            except ConnectionRefusedError as e:
                if self.drain:
                    return
                self._note(f"{e!r}")
            except (OSError, AssertionError) as e:
                got = getattr(e, "got", b"")
                if conn is not None:
                    conn.close()
                    conn = None
                if self.drain and served > 0 and not got and isinstance(e, (Closed, BrokenPipeError, ConnectionResetError)):
                    with self.lock:
                        self.retried += 1
                else:
                    self._note(f"after {served} on its connection: {e!r}")
        if conn is not None:
            conn.close()

    @property
    def total(self):
        return self.ok + self.failed

    def stop(self):
        self.stopping.set()
        self.join()
        return self

    def join(self):
        for t in self.threads:
            t.join(180)
            assert not t.is_alive(), "a load thread hangs"
        return self

    def assert_lossless(self, at_least=1):
        assert self.failed == 0, f"{self.failed} of {self.total} requests failed: {self.failures}"
        assert self.ok >= at_least, f"only {self.ok} requests"
