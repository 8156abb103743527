# SPDX-License-Identifier: Apache-2.0
"""ServiceEntry with resolution DNS, against a DNS server of the test's own: endpoints follow the answers, and an answer that
fails changes nothing."""
import pytest

from weirtest import resources as res
from weirtest.dns import SERVFAIL, DnsServer
from weirtest.load import Load
from weirtest.upstream import Upstream

HOST = "api.example"


@pytest.fixture
def dns():
    servers = []

    def start(addresses, **options):
        servers.append(DnsServer(addresses, **options))
        return servers[-1]

    yield start
    for s in servers:
        s.stop()


@pytest.fixture
def twins():
    """Two upstreams with one port on two addresses: what a name can be told apart by."""
    one = Upstream(host="127.0.0.2", name="one")
    two = Upstream(host="127.0.0.3", port=one.port, name="two")
    yield one, two
    one.stop()
    two.stop()


def start(gateway, server, entry, **options):
    g = gateway(start=False)
    return g.start(resources={"r": lambda port: [res.gateway(port), entry, res.route("r", res.rule(
        {"group": "networking.istio.io", "kind": "Hostname", "name": HOST, "port": 80}))]},
        args=["--dns-servers", server.address], **options)


def entry(port, endpoints=(), host=HOST):
    e = res.service_entry("e", host, 80, list(endpoints), resolution="DNS")
    e["spec"]["ports"][0]["targetPort"] = port
    return e


def names(g, n=8):
    with g.conn() as c:
        return {c.request().response().text for _ in range(n)}


def test_endpoints_follow_the_ttl(gateway, dns, twins):
    one, two = twins
    server = dns({HOST: ["127.0.0.2"]})
    g = start(gateway, server, entry(one.port), workers=1)
    g.wait_status(200)
    assert names(g) == {"one"}
    server.addresses[HOST] = ["127.0.0.2", "127.0.0.3"]
    g.wait(lambda: names(g) == {"one", "two"}, "both addresses to be used")
    server.addresses[HOST] = ["127.0.0.3"]
    g.wait(lambda: names(g) == {"two"}, "the first address to go")
    one.stop()
    assert names(g) == {"two"}


def test_a_change_of_addresses_under_load_costs_nothing(gateway, dns, twins):
    one, two = twins
    server = dns({HOST: ["127.0.0.2"]})
    g = start(gateway, server, entry(one.port))
    g.wait_status(200)
    with Load(g.port) as load:
        for addresses in (["127.0.0.3"], ["127.0.0.2", "127.0.0.3"], ["127.0.0.2"]):
            server.addresses[HOST] = addresses
            server.wait_asked(1)
    load.assert_lossless(10)
    assert two.count > 0


@pytest.mark.parametrize("how", ["servfail", "gone", "no-address", "silent"])
def test_a_dns_that_fails_keeps_the_last_good_addresses(gateway, dns, twins, how):
    one, _ = twins
    server = dns({HOST: ["127.0.0.2"]})
    g = start(gateway, server, entry(one.port), workers=1)
    g.wait_status(200)
    if how == "servfail":
        server.fail = SERVFAIL
    elif how == "gone":
        del server.addresses[HOST]
    elif how == "no-address":
        server.addresses[HOST] = []
    else:
        server.fail = "silent"
    server.wait_asked(1)
    if how != "silent":
        g.wait_log("its last addresses stay in use")
    assert names(g) == {"one"}
    server.fail, server.addresses[HOST] = 0, ["127.0.0.3"]
    g.wait(lambda: names(g) == {"two"}, "the new address after the failure")


def test_a_name_that_is_not_there_yet(gateway, dns, twins):
    """No address is 503, not a failure to start; it serves as soon as the name is there."""
    one, _ = twins
    server = dns({})
    g = start(gateway, server, entry(one.port))
    g.wait_log(f"DNS: {HOST}")
    r = g.get()
    assert r.status == 503, r
    server.addresses[HOST] = ["127.0.0.2"]
    g.wait_status(200)


def test_names_among_the_endpoints(gateway, dns, twins):
    """Endpoints may be names themselves; each is asked for."""
    one, two = twins
    server = dns({"a.example": ["127.0.0.2"], "b.example": ["127.0.0.3"]})
    g = start(gateway, server, entry(one.port, [{"address": "a.example"}, {"address": "b.example"}]), workers=1)
    g.wait(lambda: names(g) == {"one", "two"}, "both names")
    server.addresses["a.example"] = ["127.0.0.3"]
    g.wait(lambda: names(g) == {"two"}, "the same address of both")
