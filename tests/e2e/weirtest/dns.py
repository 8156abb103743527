# SPDX-License-Identifier: Apache-2.0
"""A DNS server that answers A questions as a test says: names to addresses, a TTL, or a failure (RFC 1035, just enough)."""
import socket
import struct
import threading

from .util import LOCAL, wait_until

NOERROR, SERVFAIL, NXDOMAIN = 0, 2, 3


class DnsServer:
    """addresses: name -> list of IPv4 addresses. fail: an RCODE for every answer, or "silent". asked counts A questions."""

    def __init__(self, addresses, ttl=1):
        self.addresses, self.ttl, self.fail, self.asked = dict(addresses), ttl, NOERROR, 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((LOCAL, 0))
        self.address = f"{LOCAL}:{self.socket.getsockname()[1]}"
        self.stopping = False
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while not self.stopping:
            question, peer = self.socket.recvfrom(512)
            answer = self._answer(question) if len(question) > 12 else None
            if answer:
                self.socket.sendto(answer, peer)

    def _answer(self, question):
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1:at + 1 + question[at]].decode().lower())
            at += 1 + question[at]
        kind, = struct.unpack_from(">H", question, at + 1)
        self.asked += kind == 1
        if self.fail == "silent":
            return None
        known = self.addresses.get(".".join(labels))
        code = self.fail or (NXDOMAIN if known is None else NOERROR)
        records = known if kind == 1 and not code else []
        head = question[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(records), 0, 0)
        return head + question[12:at + 5] + b"".join(
            struct.pack(">HHHIH", 0xc00c, 1, 1, self.ttl, 4) + socket.inet_aton(a) for a in records)

    def wait_asked(self, more):
        """Until that many more questions came."""
        before = self.asked
        wait_until(lambda: self.asked >= before + more, f"{more} more questions to the DNS server")

    def stop(self):
        self.stopping = True
        self.socket.sendto(b"", self.socket.getsockname())  # a close alone does not wake the thread
        self.thread.join(60)
        self.socket.close()
