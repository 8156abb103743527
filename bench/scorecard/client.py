# SPDX-License-Identifier: Apache-2.0
"""An HTTP/1.1 client on one kept-alive socket: for checks before the load, and for polling."""

import socket


class Client:
    def __init__(self, port, timeout=5.0):
        self.port, self.timeout = port, timeout
        self.sock = None
        self.buffer = b""

    def close(self):
        if self.sock:
            self.sock.close()
        self.sock, self.buffer = None, b""

    def get(self, path, headers=()):
        """(status, [(lower-case name, value)], body). OSError when the exchange fails; the socket is new next time."""
        try:
            if not self.sock:
                self.sock = socket.create_connection(("127.0.0.1", self.port), self.timeout)
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            lines = [f"GET {path} HTTP/1.1", "Host: bench.example", *(f"{n}: {v}" for n, v in headers), "", ""]
            self.sock.sendall("\r\n".join(lines).encode("ascii"))
            return self.read_response()
        except (OSError, ValueError) as e:
            self.close()
            raise e if isinstance(e, OSError) else OSError(f"bad response: {e}") from e

    def read_response(self):
        head = self.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        status = int(head[0].split(" ")[1])
        headers = [(n.strip().lower(), v.strip()) for n, v in (line.split(":", 1) for line in head[1:] if line)]
        fields = dict(headers)
        if fields.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.read_until(b"\r\n").split(b";")[0], 16):
                body += self.read_bytes(size + 2)[:-2]
            self.read_until(b"\r\n")
        else:
            body = self.read_bytes(int(fields["content-length"]))
        if fields.get("connection", "").lower() == "close":
            self.close()
        return status, headers, body

    def fill(self):
        data = self.sock.recv(65536)
        if not data:
            raise OSError("the connection was closed")
        self.buffer += data

    def read_until(self, mark):
        while (at := self.buffer.find(mark)) < 0:
            self.fill()
        taken, self.buffer = self.buffer[:at + len(mark)], self.buffer[at + len(mark):]
        return taken

    def read_bytes(self, n):
        while len(self.buffer) < n:
            self.fill()
        taken, self.buffer = self.buffer[:n], self.buffer[n:]
        return taken
