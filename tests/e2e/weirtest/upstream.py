# SPDX-License-Identifier: Apache-2.0
"""An upstream driven by a test's script: a function that is called with each Exchange, in a thread for each connection.

    def script(x):
        x.body()
        x.respond(200, {"x-a": "b"}, b"hello")

Without a script it reads the body and answers 200 "ok". Every connection keeps the bytes that came (up to `record` of
them), so that a test can say that nothing reached it, or exactly what did."""
import socket
import threading
import time

from .client import Closed, Conn, to_bytes
from .util import DEADLINE, LOCAL, wait_until


class _Peer(Conn):
    """The client's reading half over an accepted socket, recording what it reads."""

    def __init__(self, sock, record):
        self.sock, self.buffer = sock, b""
        self.sock.settimeout(DEADLINE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received, self.received_bytes, self.limit = bytearray(), 0, record
        self.closed_by_peer = False

    def _more(self, wanted):
        before = len(self.buffer)
        try:
            super()._more(wanted)
        except Closed:
            self.closed_by_peer = True
            raise
        data = self.buffer[before:]
        self.received_bytes += len(data)
        if len(self.received) < self.limit:
            self.received += data[:self.limit - len(self.received)]


class Exchange:
    """One request on one connection, as the script sees it."""

    def __init__(self, upstream, peer, head, index):
        self.upstream, self.peer, self.head, self.index = upstream, peer, head, index
        self.method, self.target, self.version = head.start_line.split(" ")
        self.trailers, self.chunks, self._body, self.keep, self.answered = [], [], None, True, False

    def header(self, name, default=None):
        return self.head.get(name, default)

    @property
    def path(self):
        return self.target

    def body(self):
        """The whole request body (kept), reading it when it has not been read."""
        if self._body is None:
            self._body = b"".join(self.pieces())
        return self._body

    def pieces(self):
        """The request body as it comes; not kept."""
        self._body = b""
        if self.head.get("transfer-encoding") is not None:
            while True:
                data = self.peer.chunk()
                if not data:
                    break
                self.chunks.append(len(data))
                yield data
            self.trailers = self.peer.trailer_fields()
            return
        left = int(self.head.get("content-length") or 0)
        while left > 0:
            if not self.peer.buffer:
                self.peer._more("a body")
            data, self.peer.buffer = self.peer.buffer[:left], self.peer.buffer[left:]
            left -= len(data)
            yield data

    def send(self, data):
        self.answered = True
        self.peer.send(data)
        return self

    def interim(self, status, headers=None):
        self.peer.send(_head(status, headers))
        return self

    def start(self, status=200, headers=None):
        """Only the head; the script sends the rest."""
        return self.send(_head(status, headers))

    def respond(self, status=200, headers=None, body=b"ok", chunked=False, trailers=None, close=False):
        """chunked: True, or a list of bytes, one for each chunk."""
        pairs = list(headers.items()) if isinstance(headers, dict) else list(headers or [])
        if chunked or trailers:
            parts = [body] if chunked in (True, False) else list(chunked)
            pairs.append(("transfer-encoding", "chunked"))
            data = b"".join(b"%x\r\n%s\r\n" % (len(p), to_bytes(p)) for p in parts if p) + b"0\r\n"
            data += b"".join(to_bytes(f"{n}: {v}\r\n") for n, v in (trailers or {}).items()) + b"\r\n"
        else:
            data = to_bytes(body)
            if status not in (204, 304) and "content-length" not in {n.lower() for n, _ in pairs}:
                pairs.append(("content-length", str(len(data))))
            if self.method == "HEAD":
                data = b""
        if close:
            pairs.append(("connection", "close"))
            self.keep = False
        return self.send(_head(status, pairs) + data)

    def close(self, reset=False):
        self.keep = False
        if reset:
            self.peer.close(reset=True)
        return self


def _head(status, headers):
    reasons = {100: "Continue", 101: "Switching Protocols", 103: "Early Hints", 200: "OK", 204: "No Content", 404: "Not Found"}
    pairs = headers.items() if isinstance(headers, dict) else (headers or [])
    return to_bytes(f"HTTP/1.1 {status} {reasons.get(status, 'Status')}\r\n" + "".join(f"{n}: {v}\r\n" for n, v in pairs) + "\r\n")


class Upstream:
    def __init__(self, script=None, record=1 << 20, backlog=512, host=LOCAL, port=0, name="ok", keep_exchanges=True):
        self.script = script or (lambda x: (x.body(), x.respond(200, {"x-upstream": name}, name.encode())))
        self.record, self.name, self.keep_exchanges = record, name, keep_exchanges
        self.exchanges, self.peers, self.errors = [], [], []
        self.count = 0  # requests whose head was read
        self.lock = threading.Lock()
        self.stopping = False
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((host, port))
        self.listener.listen(backlog)
        self.host, self.port = host, self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            peer = _Peer(sock, self.record)
            with self.lock:
                self.peers.append(peer)
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        index = 0
        try:
            while not self.stopping:
                head = peer.head()
                index += 1
                x = Exchange(self, peer, head, index)
                with self.lock:
                    self.count += 1
                    if self.keep_exchanges:
                        self.exchanges.append(x)
                self.script(x)
                if x._body is None and x.keep:
                    x.body()
                if not x.keep:
                    break
        except Closed as e:
            if e.got and not self.stopping:
                self.errors.append(e)
        except OSError:
            pass
        except Exception as e:  # a script's own failure must show in the test
            self.errors.append(e)
        finally:
            peer.sock.close()

    @property
    def connections(self):
        return len(self.peers)

    @property
    def received(self):
        """All bytes of all connections."""
        return b"".join(bytes(p.received) for p in self.peers)

    @property
    def last(self):
        return self.exchanges[-1]

    def wait_count(self, n):
        wait_until(lambda: self.count >= n, f"{n} requests at the upstream (has {self.count})")
        return self

    def stop(self):
        self.stopping = True
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        for peer in list(self.peers):
            try:
                peer.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            peer.sock.close()


def closed_port():
    """A port on which nothing listens (a connect is refused), held for as long as the returned socket lives."""
    s = socket.socket()
    s.bind((LOCAL, 0))
    return s, s.getsockname()[1]


def black_hole():
    """A listening socket whose backlog is full: a connect to it hangs. Returns sockets to keep, and the port."""
    s = socket.socket()
    s.bind((LOCAL, 0))
    s.listen(0)
    keep = [s]
    for _ in range(8):
        c = socket.socket()
        c.setblocking(False)
        c.connect_ex(s.getsockname())
        keep.append(c)
    time.sleep(0.05)
    return keep, s.getsockname()[1]
