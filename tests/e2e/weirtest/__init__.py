# SPDX-License-Identifier: Apache-2.0
"""The harness of the e2e tests: a real weir process, real sockets, scriptable upstreams.

    gateway.py    starts `weir run` and asks it things
    client.py     a byte-exact HTTP/1 client
    upstream.py   an upstream that does what a test's script says, and remembers every byte it got
    resources.py  resources as dicts
    load.py       keep-alive load that counts every failure
    dns.py        a DNS server whose answers a test changes
    guests.py     builds filters from C
    prom.py       reads Prometheus text
"""
