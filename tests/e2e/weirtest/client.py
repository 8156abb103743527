# SPDX-License-Identifier: Apache-2.0
"""A client that sends exactly the bytes it is told to, and reads responses strictly: what a test asserts is what was on
the wire. Strings are latin-1."""
import socket
import time

from .util import DEADLINE, LOCAL


def to_bytes(value):
    return value if isinstance(value, bytes) else value.encode("latin-1")


class Head:
    """Start line and header fields; names keep their case in .raw and are compared without."""

    def __init__(self, raw):
        self.raw = raw
        lines = raw.split(b"\r\n")
        assert lines[-2:] == [b"", b""], f"head does not end in an empty line: {raw!r}"
        self.start_line = lines[0].decode("latin-1")
        self.fields = []
        for line in lines[1:-2]:
            name, colon, value = line.partition(b":")
            assert colon and name and name == name.strip(), f"bad field line {line!r}"
            self.fields.append((name.decode("latin-1").lower(), value.strip(b" \t").decode("latin-1")))

    def get(self, name, default=None):
        """All values of a field, joined as a list; None when it is not there."""
        values = self.all(name)
        return ", ".join(values) if values else default

    def all(self, name):
        return [v for n, v in self.fields if n == name.lower()]

    def __contains__(self, name):
        return bool(self.all(name))


class Response:
    def __init__(self, head, interim, body, trailers, chunks, complete_by_close):
        self.head, self.interim, self.body, self.trailers, self.chunks = head, interim, body, trailers, chunks
        self.complete_by_close = complete_by_close
        version, status, *rest = head.start_line.split(" ", 2)
        self.version, self.status, self.reason = version, int(status), (rest[0] if rest else "")

    def header(self, name, default=None):
        return self.head.get(name, default)

    @property
    def text(self):
        return self.body.decode("latin-1")

    def json(self):
        import json
        return json.loads(self.body)

    @property
    def will_close(self):
        tokens = [t.strip().lower() for t in (self.header("connection") or "").split(",")]
        return "close" in tokens or self.complete_by_close or (self.version == "HTTP/1.0" and "keep-alive" not in tokens)

    def __repr__(self):
        return f"<{self.head.start_line} {dict(self.head.fields)} {self.body[:200]!r}>"


class Closed(AssertionError):
    """The peer closed (or reset) where bytes were expected. .got is what came before."""

    def __init__(self, text, got=b"", reset=False):
        super().__init__(text)
        self.got, self.reset = got, reset


class Conn:
    """One connection. Everything has a deadline, so that a hang is a failure."""

    def __init__(self, port, timeout=DEADLINE, host=LOCAL, receive_buffer=None):
        self.sock = socket.socket()
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(timeout)
        self.sock.connect((host, port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        self.sock.sendall(to_bytes(data))
        return self

    def send_slowly(self, data, step=1):
        """In pieces that arrive as segments of their own. Ends early when the peer has had enough."""
        data = to_bytes(data)
        try:
            for i in range(0, len(data), step):
                self.sock.sendall(data[i:i + step])
                if i % 8 == 0:
                    time.sleep(0)  # lets the peer's thread see pieces; order, not time, is what matters
        except (BrokenPipeError, ConnectionResetError):
            pass
        return self

    def request(self, method="GET", path="/", headers=None, body=b"", host="test.example", version="HTTP/1.1"):
        """headers: dict or list of pairs. Content-Length is added for a body unless the caller frames it."""
        pairs = list(headers.items()) if isinstance(headers, dict) else list(headers or [])
        names = {n.lower() for n, _ in pairs}
        head = f"{method} {path} {version}\r\n"
        if host is not None and "host" not in names:
            head += f"Host: {host}\r\n"
        for name, value in pairs:
            head += f"{name}: {value}\r\n"
        body = to_bytes(body)
        if body and not names & {"content-length", "transfer-encoding"}:
            head += f"Content-Length: {len(body)}\r\n"
        return self.send(to_bytes(head + "\r\n") + body)

    def shut(self):
        """No more bytes from us: FIN."""
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def _more(self, wanted):
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            raise Closed(f"reset while reading {wanted}; had {self.buffer[:500]!r}", self.buffer, reset=True) from None
        except socket.timeout:
            raise AssertionError(f"timeout while reading {wanted}; had {self.buffer[:500]!r}") from None
        if not data:
            raise Closed(f"closed while reading {wanted}; had {self.buffer[:500]!r}", self.buffer)
        self.buffer += data

    def until(self, mark, wanted="data"):
        mark = to_bytes(mark)
        start = 0
        while True:
            at = self.buffer.find(mark, start)
            if at >= 0:
                break
            start = max(0, len(self.buffer) - len(mark))
            self._more(wanted)
        out, self.buffer = self.buffer[:at + len(mark)], self.buffer[at + len(mark):]
        return out

    def exactly(self, count, wanted="data"):
        parts, have = [], 0
        while have < count:
            if not self.buffer:
                self._more(wanted)
            part, self.buffer = self.buffer[:count - have], self.buffer[count - have:]
            parts.append(part)
            have += len(part)
        return b"".join(parts)

    def head(self):
        return Head(self.until(b"\r\n\r\n", "a head"))

    def chunk(self):
        """One chunk's data; b"" for the last one (its trailers are still to be read)."""
        line = self.until(b"\r\n", "a chunk size")
        size = int(line.split(b";")[0], 16)
        if size == 0:
            return b""
        data = self.exactly(size, "a chunk")
        assert self.exactly(2) == b"\r\n", "chunk does not end in CRLF"
        return data

    def trailer_fields(self):
        raw = b"\r\n"
        while not raw.endswith(b"\r\n\r\n"):
            raw += self.until(b"\r\n", "trailers")
        return Head(b"trailers" + raw).fields if raw != b"\r\n\r\n" else []

    def response(self, method="GET", max_body=None):
        """The next final response, whole; interim ones are in .interim (but 101 is final)."""
        interim = []
        while True:
            head = self.head()
            status = int(head.start_line.split(" ")[1])
            if status >= 200 or status == 101:
                break
            interim.append(head)
        body, trailers, chunks, by_close = b"", [], [], False
        coding = head.get("transfer-encoding")
        assert not (coding and head.get("content-length")), f"both framings: {head.raw!r}"
        if method == "HEAD" or status in (101, 204, 304) or (method == "CONNECT" and status < 300):
            pass
        elif coding is not None:
            assert coding == "chunked", head.raw
            while True:
                data = self.chunk()
                if not data:
                    break
                chunks.append(data)
            body = b"".join(chunks)
            trailers = self.trailer_fields()
        elif head.get("content-length") is not None:
            assert len(head.all("content-length")) == 1, head.raw
            body = self.exactly(int(head.get("content-length")), "a body")
        else:
            by_close = True
            body = self.rest()
        return Response(head, interim, body, trailers, chunks, by_close)

    def rest(self):
        """All bytes up to FIN. A reset is a failure."""
        parts = [self.buffer]
        self.buffer = b""
        while True:
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                raise Closed("reset", b"".join(parts), reset=True) from None
            except socket.timeout:
                raise AssertionError(f"timeout waiting for the end; had {b''.join(parts)[-500:]!r}") from None
            if not data:
                return b"".join(parts)
            parts.append(data)

    def wait_closed(self):
        """The peer closed (FIN or RST); returns what came before."""
        try:
            return self.rest()
        except Closed as e:
            return e.got

    def expect_closed(self):
        got = self.wait_closed()
        assert got == b"", f"bytes where a close was expected: {got[:500]!r}"

    def is_open(self):
        """Nothing to read and not closed, at this moment."""
        if self.buffer:
            return True
        self.sock.setblocking(False)
        try:
            return self.sock.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        finally:
            self.sock.settimeout(DEADLINE)

    def close(self, reset=False):
        if reset:
            import struct
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def fetch(port, method="GET", path="/", headers=None, body=b"", host="test.example", timeout=DEADLINE):
    """One request on a connection of its own."""
    with Conn(port, timeout) as c:
        c.request(method, path, headers, body, host)
        return c.response(method)
