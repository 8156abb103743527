# SPDX-License-Identifier: Apache-2.0
"""HTTPRoute as the Gateway API says, seen from a client."""
import threading
from collections import Counter

import pytest

from weirtest import resources as res
from weirtest.util import free_port


@pytest.fixture
def routed(gateway, upstream):
    """routed(*routes, backends="abc", more=[...]): a gateway whose Services a, b, ... answer with their name and are
    scripted to show what they got."""
    def start(*routes, backends="abc", listeners=None, more=(), ports=None):
        ups = {name: upstream(name=name) for name in backends}
        gw = gateway(start=False)
        gw.start(resources={"r": lambda port: [
            res.gateway(port, listeners=listeners(port) if listeners else None), *routes, *more,
            *[d for name, up in ups.items() for d in res.backend(name, up)]]})
        gw.ups = ups
        return gw
    return start


def names(gw, *paths, **more):
    return [r.text if r.status == 200 else r.status for r in (gw.get(p, **more) for p in paths)]


# ---- matching ----

def test_path_types(routed):
    gw = routed(res.route("r", res.rule("a", matches=[res.path_match("/exact", "Exact")]),
                          res.rule("b", matches=[res.path_match("/pre")]),
                          res.rule("c", matches=[res.path_match("/re/[0-9]+/x", "RegularExpression")])))
    assert names(gw, "/exact", "/exact?q=1", "/exact/", "/exact/a", "/Exact") == ["a", "a", 404, 404, 404]
    assert names(gw, "/pre", "/pre/", "/pre/a/b", "/prefix", "/pre?x", "/") == ["b", "b", "b", 404, "b", 404]
    assert names(gw, "/re/12/x", "/re/x/x", "/re/12/xy", "/a/re/12/x") == ["c", 404, 404, 404]


def test_prefix_with_a_slash_at_its_end(routed):
    """Gateway API: the trailing slash of a PathPrefix is ignored."""
    gw = routed(res.route("r", res.rule("a", matches=[res.path_match("/abc/")])))
    assert names(gw, "/abc", "/abc/", "/abc/d", "/abcd") == ["a", "a", "a", 404]


def test_hostnames(routed):
    gw = routed(res.route("exact", res.rule("a"), hostnames=["a.example"]),
                res.route("wild", res.rule("b"), hostnames=["*.example"]),
                res.route("any", res.rule("c")))
    hosts = {"a.example": "a", "A.EXAMPLE": "a", "a.example:8080": "a", "b.example": "b", "x.y.example": "b", "example": "c",
             "other": "c", "a.example.": None}
    for host, wanted in hosts.items():
        got = gw.get(host=host).text
        assert wanted is None or got == wanted, f"{host}: {got}"


def test_longer_wildcard_wins(routed):
    gw = routed(res.route("w1", res.rule("a"), hostnames=["*.example"]), res.route("w2", res.rule("b"), hostnames=["*.b.example"]))
    assert [gw.get(host=h).text for h in ("x.example", "x.b.example", "x.y.b.example", "b.example")] == ["a", "b", "b", "a"]


def test_hostname_match_decides_before_the_rules(routed):
    """The more specific hostname's routes alone are looked at, even if another host's rule would match better."""
    gw = routed(res.route("exact", res.rule("a", matches=[res.path_match("/only")]), hostnames=["a.example"]),
                res.route("any", res.rule("b")))
    assert gw.get("/only", host="a.example").text == "a"
    assert gw.get("/other", host="a.example").status in (404, 200)


def test_listener_hostnames(routed):
    gw = routed(res.route("one", res.rule("a"), parents=[{"name": "gw", "sectionName": "one"}]),
                res.route("two", res.rule("b"), parents=[{"name": "gw", "sectionName": "two"}]),
                listeners=lambda port: [res.listener("one", port, "one.example"), res.listener("two", port, "*.two.example")])
    assert [gw.get(host=h).status for h in ("one.example", "x.two.example", "other")] == [200, 200, 404]
    assert [gw.get(host=h).text for h in ("one.example", "x.two.example")] == ["a", "b"]


def test_listener_and_route_hostnames_intersect(routed):
    gw = routed(res.route("r", res.rule("a"), hostnames=["x.example", "y.other"]),
                listeners=lambda port: [res.listener("one", port, "*.example")])
    assert [gw.get(host=h).status for h in ("x.example", "y.other", "z.example")] == [200, 404, 404]


def test_listeners_are_isolated(routed):
    """A request belongs to the most specific listener, whatever hostnames the routes of the others have."""
    hosts = {"any": None, "wide": "*.example", "narrow": "*.foo.example", "exact": "abc.foo.example"}
    every = ["other", "x.example", "x.foo.example", "abc.foo.example"]
    gw = routed(*[res.route(name, res.rule(up, matches=[res.path_match("/" + name)]), hostnames=names_, parents=[
        {"name": "gw", "sectionName": name}]) for (name, up), names_ in zip(
            zip(hosts, "abcd"), (["other", "*.example", "*.foo.example", "abc.foo.example"], ["*.example", "abc.foo.example"],
                                 ["*.foo.example", "abc.foo.example"], None))],
                backends="abcd", listeners=lambda port: [res.listener(n, port, h) for n, h in hosts.items()])
    got = {host: names(gw, *["/" + n for n in hosts], host=host) for host in every}
    assert got == {"other": ["a", 404, 404, 404], "x.example": [404, "b", 404, 404], "x.foo.example": [404, 404, "c", 404],
                   "abc.foo.example": [404, 404, 404, "d"]}


def test_two_ports(routed):
    second = free_port()
    gw = routed(res.route("one", res.rule("a"), parents=[{"name": "gw", "sectionName": "one"}]),
                res.route("two", res.rule("b"), parents=[{"name": "gw", "port": second}]),
                listeners=lambda port: [res.listener("one", port), res.listener("two", second)])
    assert gw.get().text == "a" and gw.get(port=second).text == "b"


def test_headers_query_and_method(routed):
    gw = routed(res.route("r",
                          res.rule("a", matches=[{"headers": [{"name": "X-Env", "value": "canary"}]}]),
                          res.rule("b", matches=[{"headers": [{"name": "x-ver", "type": "RegularExpression", "value": "v[12]"}]}]),
                          res.rule("c", matches=[{"queryParams": [{"name": "q", "value": "1"}]}]),
                          res.rule("d", matches=[{"method": "DELETE"}]),
                          res.rule("e", matches=[{"queryParams": [{"name": "r", "type": "RegularExpression", "value": "[a-z]+"}]}])),
                backends="abcde")
    assert gw.get(headers={"x-env": "canary"}).text == "a"
    assert gw.get(headers={"X-ENV": "Canary"}).status == 404
    assert gw.get(headers={"x-ver": "v2"}).text == "b" and gw.get(headers={"x-ver": "v3"}).status == 404
    assert names(gw, "/?q=1", "/?a=b&q=1", "/?q=2", "/?q=1&q=2", "/?Q=1", "/?q") == ["c", "c", 404, "c", 404, 404]
    assert gw.request("DELETE").text == "d"
    assert names(gw, "/?r=abc", "/?r=ABC") == ["e", 404]


def test_a_match_needs_all_and_a_rule_needs_one(routed):
    gw = routed(res.route("r", res.rule("a", matches=[
        {"method": "POST", "path": {"type": "PathPrefix", "value": "/p"}, "headers": [{"name": "x-a", "value": "1"}, {"name": "x-b", "value": "2"}]},
        {"path": {"type": "Exact", "value": "/other"}}])))
    both = {"x-a": "1", "x-b": "2"}
    assert gw.request("POST", "/p", both).status == 200
    assert gw.request("GET", "/p", both).status == 404
    assert gw.request("POST", "/p", {"x-a": "1"}).status == 404
    assert gw.request("POST", "/x", both).status == 404
    assert gw.get("/other").status == 200


def test_precedence(routed):
    """Exact over prefix, longer prefix, method, more headers, more query parameters - wherever the rules stand."""
    gw = routed(res.route("r", res.rule("a"),
                          res.rule("b", matches=[res.path_match("/x")]),
                          res.rule("c", matches=[res.path_match("/x/y")]),
                          res.rule("d", matches=[res.path_match("/x/y/z", "Exact")]),
                          res.rule("e", matches=[res.path_match("/x", method="PUT")]),
                          res.rule("f", matches=[{"path": {"type": "PathPrefix", "value": "/x"}, "headers": [{"name": "h1", "value": "1"}]}]),
                          res.rule("g", matches=[{"path": {"type": "PathPrefix", "value": "/x"},
                                                  "headers": [{"name": "h1", "value": "1"}, {"name": "h2", "value": "2"}]}]),
                          res.rule("h", matches=[{"path": {"type": "PathPrefix", "value": "/x"},
                                                  "queryParams": [{"name": "q", "value": "1"}]}])), backends="abcdefgh")
    assert names(gw, "/", "/x", "/x/y", "/x/y/z", "/x/y/z/", "/x?q=1") == ["a", "b", "c", "d", "c", "h"]
    assert gw.request("PUT", "/x", {"h1": "1", "h2": "2"}).text == "e"
    assert gw.get("/x", {"h1": "1"}).text == "f"
    assert gw.get("/x?q=1", {"h1": "1", "h2": "2"}).text == "g"
    assert gw.get("/x/y", {"h1": "1", "h2": "2"}).text == "c"


def test_ties_go_to_the_older_then_the_first_by_name(routed):
    gw = routed(res.route("young", res.rule("a"), created="2026-01-02T00:00:00Z"), res.route("zold", res.rule("b"), created="2026-01-01T00:00:00Z"),
                res.route("nm-b", res.rule("a", matches=[res.path_match("/n")])), res.route("nm-a", res.rule("c", matches=[res.path_match("/n")])))
    assert names(gw, "/", "/n") == ["b", "c"]


def test_first_rule_wins_among_equals(routed):
    gw = routed(res.route("r", res.rule("a", matches=[res.path_match("/x")]), res.rule("b", matches=[res.path_match("/x")])))
    assert gw.get("/x").text == "a"


def test_route_without_a_parent_of_ours(routed):
    gw = routed(res.route("r", res.rule("a"), parents=[{"name": "other"}]), res.route("s", res.rule("b", matches=[res.path_match("/s")])))
    assert names(gw, "/", "/s") == [404, "b"]
    assert gw.object("HTTPRoute", "r")["accepted"] is False


def test_allowed_routes(routed):
    far = res.route("far", res.rule(res.ref("a")), parents=[{"name": "gw", "namespace": res.NS}], ns="apps")
    service = [res.service("a", ns="apps")]
    gw = routed(far, more=service, listeners=lambda port: [res.listener("one", port)])
    assert gw.get().status == 404
    gw = routed(far, more=[*service], listeners=lambda port: [res.listener("one", port, allowed={"namespaces": {"from": "All"}})])
    assert gw.get().status == 503  # the route is there; its Service has no endpoint


# ---- backends ----

def test_weights(routed):
    """Each request draws its backend by weight: 3,000 draws stay within six standard deviations."""
    gw = routed(res.route("r", res.rule(res.ref("a", weight=5), res.ref("b", weight=3), res.ref("c", weight=2))))
    with gw.conn() as c:
        got = Counter(c.request().response().text for _ in range(3000))
    for name, share in (("a", 0.5), ("b", 0.3), ("c", 0.2)):
        assert abs(got[name] - 3000 * share) < 6 * (3000 * share * (1 - share)) ** 0.5, got


def test_weight_zero(routed):
    gw = routed(res.route("r", res.rule(res.ref("a", weight=0), res.ref("b", weight=1))))
    assert set(names(gw, *["/"] * 20)) == {"b"}


def test_all_weights_zero(routed):
    gw = routed(res.route("r", res.rule(res.ref("a", weight=0))))
    assert gw.get().status == 500


def test_absent_backend_takes_its_share_of_500(routed):
    gw = routed(res.route("r", res.rule(res.ref("a", weight=1), res.ref("absent", weight=1))))
    with gw.conn() as c:
        got = Counter(c.request().response().status for _ in range(1000))
    assert set(got) == {200, 500} and abs(got[200] - 500) < 95, got


def test_no_backends(routed):
    gw = routed(res.route("r", res.rule()))
    assert gw.get().status == 500


def test_endpoints_take_turns(gateway, upstream):
    ups = [upstream(name=f"u{i}") for i in range(3)]
    gw = gateway(ups, workers=1)
    with gw.conn() as c:
        got = [c.request().response().text for _ in range(30)]
    assert Counter(got) == {"u0": 10, "u1": 10, "u2": 10}


def test_endpoint_that_refuses_is_passed_over_or_counts_as_503(gateway, upstream):
    """An endpoint that is not ready gets nothing."""
    up = upstream()
    gw = gateway(up, extra=[res.slice_("backend", free_port(), name="unready", ready=False)])
    assert {gw.get().status for _ in range(20)} == {200}


def test_service_ports_by_number_and_name(gateway, upstream):
    one, two = upstream(name="one"), upstream(name="two")
    gw = gateway(start=False)
    slices = res.slice_("s", one.port)
    slices["ports"] = [{"name": "first", "port": one.port}, {"name": "second", "port": two.port}]
    service = res.service("s")
    service["spec"]["ports"] = [{"name": "first", "port": 80, "targetPort": 1}, {"name": "second", "port": 81, "targetPort": "web"}]
    gw.start(resources={"r": lambda port: [res.gateway(port), service, slices,
                                           res.route("r", res.rule(res.ref("s", 81), matches=[res.path_match("/two")]), res.rule("s"))]})
    assert gw.get("/").text == "one" and gw.get("/two").text == "two"


def test_service_entry_static(gateway, upstream):
    one, two = upstream(name="one"), upstream(name="two")
    gw = gateway(start=False)
    entry = res.service_entry("e", "api.example", 80, [{"address": "127.0.0.1", "ports": {"http": one.port}},
                                                       {"address": "127.0.0.1", "ports": {"http": two.port}}])
    gw.start(resources={"r": lambda port: [res.gateway(port), entry, res.route("r", res.rule(
        {"group": "networking.istio.io", "kind": "Hostname", "name": "api.example", "port": 80}))]}, workers=1)
    with gw.conn() as c:
        assert Counter(c.request().response().text for _ in range(10)) == {"one": 5, "two": 5}


def test_reference_grant(gateway, upstream):
    """A backend of another namespace needs a grant there; taking it away stops the traffic."""
    up = upstream(name="far")
    gw = gateway(start=False)
    gw.start(resources={"r": lambda port: [res.gateway(port), *res.backend("far", up, ns="other"),
                                           res.route("r", res.rule(res.ref("far", ns="other")))]})
    assert gw.get().status == 500
    assert gw.object("HTTPRoute", "r")["reason"] in ("RefNotPermitted", "Accepted", "ResolvedRefs")
    assert "RefNotPermitted" in gw.admin_get("/config").text
    gw.apply("grant", res.grant("g", "other", res.NS, to_name="far"))
    gw.wait_status(200)
    gw.apply("grant", res.grant("g", "other", res.NS, to_name="else"))
    gw.wait_status(500)
    gw.apply("grant", res.grant("g", "other", "elsewhere"))
    gw.apply("mark", res.route("m", res.rule(filters=[{"type": "RequestRedirect", "requestRedirect": {"hostname": "x"}}],
                                             matches=[res.path_match("/mark")])))
    gw.wait_status(302, "/mark")
    assert gw.get().status == 500
    gw.apply("grant", res.grant("g", "other", res.NS))
    gw.wait_status(200)


# ---- filters ----

def modifier(kind, **ops):
    out = {k: [{"name": n, "value": v} for n, v in pairs] for k, pairs in ops.items() if k != "remove"}
    if "remove" in ops:
        out["remove"] = ops["remove"]
    key = kind[0].lower() + kind[1:]
    return {"type": kind, key: out}


def test_request_header_modifier(routed):
    gw = routed(res.route("r", res.rule("a", filters=[modifier(
        "RequestHeaderModifier", set=[("X-Set", "new"), ("X-New", "n")], add=[("X-Add", "2"), ("X-Fresh", "f")], remove=["X-Gone", "User-Agent"])])))
    r = gw.get(headers=[("x-set", "old"), ("x-set", "old2"), ("x-add", "1"), ("x-gone", "g"), ("user-agent", "u")])
    assert r.status == 200, gw.object("HTTPRoute", "r")
    head = gw.ups["a"].last.head
    assert head.all("x-set") == ["new"] and head.get("x-new") == "n" and head.get("x-fresh") == "f"
    assert [v.strip() for v in head.get("x-add").split(",")] == ["1", "2"]
    assert "x-gone" not in head and "user-agent" not in head


def test_response_header_modifier(routed):
    gw = routed(res.route("r", res.rule("a", filters=[modifier(
        "ResponseHeaderModifier", set=[("X-Upstream", "hidden")], add=[("X-Add", "2")], remove=["X-Gone"])])))
    gw.ups["a"].script = lambda x: x.respond(200, {"x-upstream": "a", "x-gone": "g", "x-add": "1"})
    r = gw.get()
    assert r.header("x-upstream") == "hidden" and "x-gone" not in r.head
    assert [v.strip() for v in r.header("x-add").split(",")] == ["1", "2"]


def test_filters_of_a_backend(routed):
    gw = routed(res.route("r", res.rule(res.ref("a", filters=[modifier("RequestHeaderModifier", set=[("x-back", "a")])]), res.ref("b"),
                                        filters=[modifier("RequestHeaderModifier", set=[("x-rule", "r")])])))
    with gw.conn() as c:
        while not (gw.ups["a"].count and gw.ups["b"].count):  # each request draws one
            assert c.request().response().status == 200
    a, b = gw.ups["a"].last.head, gw.ups["b"].last.head
    assert (a.get("x-back"), a.get("x-rule"), b.get("x-back"), b.get("x-rule")) == ("a", "r", None, "r")


@pytest.mark.parametrize("redirect,location,status", [
    ({}, "http://test.example:{port}/a/b?c=d", 302),
    ({"scheme": "https"}, "https://test.example/a/b?c=d", 302),
    ({"hostname": "other.example", "statusCode": 301}, "http://other.example:{port}/a/b?c=d", 301),
    ({"port": 8443, "scheme": "https"}, "https://test.example:8443/a/b?c=d", 302),
    ({"port": 80}, "http://test.example/a/b?c=d", 302),
    ({"port": 443, "scheme": "https"}, "https://test.example/a/b?c=d", 302),
    ({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/new"}}, "http://test.example:{port}/new?c=d", 302),
    ({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/z"}}, "http://test.example:{port}/z/b?c=d", 302),
    ({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}, "http://test.example:{port}/b?c=d", 302),
])
def test_redirect(routed, redirect, location, status):
    """Gateway API: the port of the Location is the listener's, unless it is the scheme's own or the scheme is given."""
    gw = routed(res.route("r", res.rule(matches=[res.path_match("/a")], filters=[{"type": "RequestRedirect", "requestRedirect": redirect}])))
    r = gw.get("/a/b?c=d")
    assert r.status == status and r.header("location") == location.format(port=gw.port)


@pytest.mark.parametrize("rewrite,prefix,sent,seen", [
    ({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/new"}}, "/a", "/a/b?c=d", "/new?c=d"),
    ({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/z"}}, "/a", "/a/b?c=d", "/z/b?c=d"),
    ({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/z/"}}, "/a", "/a/b", "/z/b"),
    ({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/z"}}, "/a", "/a", "/z"),
    ({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}, "/a", "/a", "/"),
    ({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}, "/a", "/a/b", "/b"),
    ({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}, "/a/", "/a/b", "/b"),
    ({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/z"}}, "/", "/b", "/z/b"),
])
def test_rewrite_path(routed, rewrite, prefix, sent, seen):
    gw = routed(res.route("r", res.rule("a", matches=[res.path_match(prefix)], filters=[{"type": "URLRewrite", "urlRewrite": rewrite}])))
    assert gw.get(sent).status == 200
    assert gw.ups["a"].last.target == seen
    assert f"GET {sent} " in gw.wait_access("GET")[-1]  # the log shows what the client asked for


def test_rewrite_hostname(routed):
    gw = routed(res.route("r", res.rule("a", filters=[{"type": "URLRewrite", "urlRewrite": {"hostname": "inner.example"}}])))
    gw.get()
    assert gw.ups["a"].last.header("host") == "inner.example" and "x-forwarded-host" not in gw.ups["a"].last.head


def test_rewrite_hostname_says_the_clients_when_asked(gateway, upstream):
    up = upstream()
    rule = res.rule("backend", filters=[{"type": "URLRewrite", "urlRewrite": {"hostname": "inner.example"}}])
    gw = gateway(start=False)
    gw.start(resources={"r": lambda port: [res.gateway(port, limits="limits"), res.limits({"append-x-forwarded-host": True}),
                                           res.route("r", rule), *res.backend("backend", up)]})
    gw.get(host="www.example")
    assert up.last.header("host") == "inner.example" and up.last.header("x-forwarded-host") == "www.example"
    gw.get(host="www.example", headers={"X-Forwarded-Host": "first"})
    assert up.last.header("x-forwarded-host") == "first, www.example"


def test_timeouts(gateway, upstream):
    go = threading.Event()
    up = upstream(lambda x: (x.target == "/fast" or go.wait(60)) and x.respond())
    gw = gateway(start=False)
    gw.start(resources={"r": lambda port: [res.gateway(port, limits="limits"), res.limits({"response-timeout": "300ms"}), *res.backend("backend", up),
        res.route("r", res.rule("backend", matches=[res.path_match("/request")], timeouts={"request": "200ms"}),
                  res.rule("backend", matches=[res.path_match("/backend")], timeouts={"request": "10s", "backendRequest": "200ms"}),
                  res.rule("backend", matches=[res.path_match("/fast")], timeouts={"request": "60s"}),
                  res.rule("backend", matches=[res.path_match("/none")], timeouts={"request": "0s"}))]})
    assert gw.get("/request").status == 504
    assert gw.get("/backend").status == 504
    assert gw.get("/fast").status == 200
    with gw.conn() as c:
        c.request("GET", "/none")
        assert gw.get("/request").status == 504
        assert gw.get("/request").status == 504  # well over the default 300 ms for the other one
        go.set()
        assert c.response().status == 200


def test_regular_expression_at_its_limit_is_an_error_not_a_miss(routed):
    """Trap 7: a crafted path must not walk round a rule. (As in Istio, a prefix goes before a regular expression.)"""
    gw = routed(res.route("r", res.rule("a", matches=[res.path_match("/(a|a?)+b", "RegularExpression")]), res.rule("b", matches=[res.path_match("/.*", "RegularExpression")])))
    assert names(gw, "/aaab", "/x") == ["a", "b"]
    r = gw.get("/" + "a" * 2000)
    assert r.status in (500, 200)
    if r.status == 200:
        assert r.text == "b"  # the engine proved that it does not match
    else:
        assert gw.ended_streams("route_regex_limit") == 1
