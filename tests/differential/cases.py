# SPDX-License-Identifier: Apache-2.0
"""Scripts for tests/guests/puppet.c, one Case for each corner of the ABI."""
from compare import Case
from weirtest.plugins import CALL, CALL_T, REQ, REQ_T, RESP, RESP_T, op

PIECES = ["one-", "two-", "three"]
UP3 = {"chunks": ["ra-", "rb-", "rc"], "trailers": [["x-t", "1"]]}
UP2 = {"chunks": ["ra-", "rb-"]}


def bodies():
    out = []
    for ret in (0, 1, 2, 3, 4, 9):
        for end in ("plain", "trailers"):
            tr = [("x-t", "1")] if end == "trailers" else []
            if end == "plain" and ret != 0:  # Envoy would wait for ever
                continue
            out.append(Case(f"rb all {ret} {end}", ("rb", op("buf", 0, 0, 100), f"ret {ret}"), ("rt", "ret 0"),
                            method="POST", chunks=PIECES, trailers=tr))
            out.append(Case(f"rb first {ret} {end}", ("rb.1", f"ret {ret}"), ("rb.2", op("buf", 0, 0, 100), "ret 0"),
                            method="POST", chunks=PIECES, trailers=tr))
            up = dict(UP3 if end == "trailers" else UP2)
            out.append(Case(f"sb first {ret} {end}", ("sb.1", f"ret {ret}"), ("sb.2", op("buf", 1, 0, 100), "ret 0"), up=up))
            out.append(Case(f"sb all {ret} {end}", ("sb", op("buf", 1, 0, 100), f"ret {ret}"), ("st", "ret 0"), up=up))
    for seq in ("13", "123", "121", "21", "32", "312", "113", "131", "23", "231"):
        for e, which in (("rb", 0), ("sb", 1)):
            steps = [(f"{e}.{i + 1}", op("buf", which, 0, 100), f"ret {r}") for i, r in enumerate(seq)]
            out.append(Case(f"{e} sequence {seq}", *steps, (f"{e}.{len(seq) + 1}", op("buf", which, 0, 100), "ret 0"), method="POST",
                            chunks=["a-", "b-", "c-", "d-", "e"], up={"chunks": ["a-", "b-", "c-", "d-", "e"]}))
    for ret in (0, 2, 5):
        out.append(Case(f"rh {ret} get", ("rh", f"ret {ret}")))
        out.append(Case(f"rh {ret} post", ("rh", f"ret {ret}"), method="POST", body="abc"))
        out.append(Case(f"sh {ret}", ("sh", f"ret {ret}")))
    for e in ("rh", "sh", "rb", "sb", "rt", "st"):
        for ret in (1, 2, 3, 4):
            which = 0 if e[0] == "r" else 1
            out.append(Case(f"{e} continue inside ret {ret}", (e, op("cont", which), f"ret {ret}"), method="POST", chunks=PIECES,
                            trailers=[("x-t", "1")], up=UP3))
    return out


def buffers():
    out = []
    for which, e, kind in ((0, "rb", "req"), (1, "sb", "resp")):
        more = dict(method="POST", body="0123456789") if which == 0 else dict(up={"body": "0123456789"})
        for start, size, data in ((0, 0, "AB"), (0, 3, "AB"), (0, 10, "AB"), (0, 99, "AB"), (0, 4294967295, "AB"), (10, 0, "AB"),
                                  (99, 5, "AB"), (4294967295, 0, "AB"), (0, 4294967295, ""), (0, 4, ""), (3, 2, "AB"), (3, 2, ""), (10, 5, "")):
            out.append(Case(f"setbuf {kind} {start} {size} {data!r}", (e, op("setbuf", which, start, size, data), op("bufstatus", which), op("buf", which, 0, 100)),
                            **more))
        for start, n in ((0, 0), (0, 4), (4, 4), (8, 8), (10, 1), (11, 1), (0, 4294967295), (1, 4294967295), (4294967295, 1)):
            out.append(Case(f"buf {kind} {start} {n}", (e, op("buf", which, start, n)), **more))
    for e in ("rh", "sh", "log", "rb", "sb", "done", "del"):
        for kind in range(0, 11):
            out.append(Case(f"buf kinds {e} {kind}", (e, op("buf", kind, 0, 10), op("bufstatus", kind)), method="POST", body="abc"))
            out.append(Case(f"setbuf kinds {e} {kind}", (e, op("setbuf", kind, 0, 1, "Z")), method="POST", body="abc"))
    out.append(Case("buffered setbuf", ("rb.1", "ret 1"), ("rb.2", "ret 1"), ("rb.3", op("setbuf", 0, 0, 8, "XX")), method="POST", chunks=PIECES))
    out.append(Case("buffered setbuf, held", ("rb.1", op("setbuf", 0, 0, 99, "ab"), "ret 1"), ("rb.2", op("buf", 0, 0, 99)), method="POST", chunks=PIECES))
    return out


def maps():
    out = []
    dup = [("x-d", "1"), ("x-d", "2"), ("x-e", ""), ("X-Case", "Ab"), ("cookie", "a=1"), ("cookie", "b=2"), ("accept", "x"), ("accept", "y")]
    for e in ("rh", "rb", "sh", "sb", "log", "done", "del"):
        for m in range(0, 9):
            out.append(Case(f"map {m} in {e}", (e, op("pairs", m), op("mapsize", m), op("get", m, "x-d"), op("get", m, "x-none")), method="POST", body="abc", headers=dup))
            out.append(Case(f"map {m} edits in {e}", (e, op("set", m, "x-new", "v"), op("add", m, "x-add", "w"), op("del", m, "x-d"), op("get", m, "x-new")), method="POST", body="abc",
                            headers=dup, up={"headers": [["x-d", "9"]]}))
    for k in ("x-d", "X-D", "x-e", "cookie", "accept", ":method", ":path", ":authority", ":scheme", "host", "Host", "x-case", ":status", "", "content-length", ":Path"):
        out.append(Case(f"get {k!r}", ("rh", op("get", 0, k)), headers=dup))
        out.append(Case(f"del {k!r}", ("rh", op("del", 0, k), op("get", 0, k)), headers=dup))
        out.append(Case(f"set {k!r}", ("rh", op("set", 0, k, "/new"), op("get", 0, k)), headers=dup))
        out.append(Case(f"add {k!r}", ("rh", op("add", 0, k, "/new"), op("get", 0, k), op("pairs", 0)), headers=dup))
        out.append(Case(f"set empty {k!r}", ("rh", op("set", 0, k, ""), op("get", 0, k)), headers=dup))
    for k in (":status", "x-d", "content-type", "set-cookie", "content-length", "server", "connection", "transfer-encoding"):
        up = {"headers": [["x-d", "1"], ["x-d", "2"], ["content-type", "text/plain"], ["set-cookie", "a"], ["set-cookie", "b"]]}
        out.append(Case(f"resp get {k!r}", ("sh", op("get", 2, k)), up=up))
        out.append(Case(f"resp del {k!r}", ("sh", op("del", 2, k), op("get", 2, k)), up=up))
        out.append(Case(f"resp set {k!r}", ("sh", op("set", 2, k, "201"), op("get", 2, k)), up=up))
        out.append(Case(f"resp add {k!r}", ("sh", op("add", 2, k, "201"), op("get", 2, k), op("pairs", 2)), up=up))
    out.append(Case("path edit", ("rh", op("set", 0, ":path", "/edited?x=1"))))
    out.append(Case("method edit", ("rh", op("set", 0, ":method", "PUT"))))
    out.append(Case("method edit HEAD", ("rh", op("set", 0, ":method", "HEAD"))))
    out.append(Case("authority edit", ("rh", op("set", 0, ":authority", "other.example"))))
    out.append(Case("status edit 404", ("sh", op("set", 2, ":status", "404"))))
    out.append(Case("status edit bad", ("sh", op("set", 2, ":status", "abc"))))
    out.append(Case("path to 404 route", ("rh", op("set", 0, ":path", "/nowhere"))))
    base = [":method", "GET", ":path", "/pairs", ":authority", "h.example", ":scheme", "http"]
    out.append(Case("setpairs", ("rh", op("setpairs", 0, *base, "x-tag", "zz", "x-a", "1", "x-a", "2", "X-Up", "3"))))
    out.append(Case("setpairs resp", ("sh", op("setpairs", 2, ":status", "202", "x-a", "1", "x-a", "2"))))
    out.append(Case("setpairs no status", ("sh", op("setpairs", 2, "x-a", "1"))))
    out.append(Case("setpairs no path", ("rh", op("setpairs", 0, ":method", "GET", ":authority", "h", "x-a", "1"))))
    out.append(Case("value with spaces", ("rh", op("set", 0, "x-s", "  a b  "), op("get", 0, "x-s"))))
    out.append(Case("value crlf", ("rh", op("set", 0, "x-s", "a\r\nx-evil: 1"))))
    out.append(Case("value nul", ("rh", op("set", 0, "x-s", "a\0b"))))
    out.append(Case("name space", ("rh", op("set", 0, "x s", "a"))))
    out.append(Case("hop by hop set", ("rh", op("set", 0, "connection", "close"), op("set", 0, "transfer-encoding", "gzip"), op("set", 0, "upgrade", "x"), op("set", 0, "te", "trailers"))))
    out.append(Case("content-length removed", ("rh", op("del", 0, "content-length")), method="POST", body="abc"))
    out.append(Case("content-length lied", ("rh", op("set", 0, "content-length", "2")), method="POST", body="abc"))
    out.append(Case("trailers", ("rt", op("pairs", 1), op("set", 1, "x-t2", "v"), op("del", 1, "x-t")), ("st", op("pairs", 3), op("set", 3, "x-st2", "v")),
                    method="POST", chunks=PIECES, trailers=[("x-t", "1"), ("x-t", "2")], up=UP3))
    out.append(Case("trailers made", ("rb", op("set", 1, "x-made", "v")), ("sb", op("set", 3, "x-smade", "v")), method="POST", chunks=PIECES, up=UP2))
    out.append(Case("trailers made in rh", ("rh", op("set", 1, "x-made", "v")), ("sh", op("set", 3, "x-smade", "v")), method="POST", chunks=PIECES, up=UP2))
    return out


def replies():
    out = []
    for e in ("rh", "rb", "rt", "sh", "sb", "st", "log", "done"):
        for args in ((403, "det ails", "body", -1, "x-r", "1"), (200, "", "", -1), (429, "d", "b", 8), (503, "d", "", 14, "content-type", "application/json")):
            out.append(Case(f"reply {args} in {e}", (e, op("reply", *args), "ret 0"), ("sh", op("pairs", 2)), method="POST", chunks=PIECES, trailers=[("x-t", "1")], up=UP3))
        out.append(Case(f"reply grpc in {e}", (e, op("reply", 429, "d", "b", 8), "ret 1"), method="POST", body="abc", headers=[("content-type", "application/grpc")]))
        out.append(Case(f"reply twice in {e}", (e, op("reply", 403, "d", "one", -1), op("reply", 404, "d", "two", -1), "ret 1"), method="POST", body="abc"))
        out.append(Case(f"reply and continue in {e}", (e, op("reply", 403, "d", "one", -1), op("cont", 0), op("cont", 1), "ret 0"), method="POST", body="abc"))
        out.append(Case(f"close in {e}", (e, op("close", 0), "ret 0"), method="POST", body="abc"))
        out.append(Case(f"close resp in {e}", (e, op("close", 1), "ret 1"), method="POST", body="abc"))
        out.append(Case(f"close other in {e}", (e, op("close", 2), "ret 0"), method="POST", body="abc"))
    for s in (100, 101, 199, 204, 304, 599, 600, 0, 999):
        out.append(Case(f"reply status {s}", ("rh", op("reply", s, "d", "body", -1), "ret 1")))
    out.append(Case("reply HEAD", ("rh", op("reply", 403, "d", "body", -1), "ret 1"), method="HEAD"))
    out.append(Case("reply headers dup", ("rh", op("reply", 403, "d", "body", -1, "x-a", "1", "x-a", "2", "content-type", "application/json", "content-length", "99", "Server", "me"), "ret 1")))
    out.append(Case("reply then edit", ("rh", op("reply", 403, "d", "body", -1), "ret 1"), ("sh", op("set", 2, "x-edit", "1"), op("set", 2, ":status", "418")), ("sb", op("setbuf", 1, 0, 99, "new"))))
    out.append(Case("reply in reply", ("rh", op("reply", 403, "d", "body", -1), "ret 1"), ("sh", op("reply", 404, "d", "x", -1), "ret 1")))
    return out


def calls():
    out = []
    C = "outbound|80||backend.istio-system.svc.cluster.local"
    dead = "outbound|80||dead.istio-system.svc.cluster.local"
    for e in ("rh", "sh"):
        w = 0 if e == "rh" else 1
        out.append(Case(f"call in {e}", (e, op("call", C, "/callout", 5000, "", "x-seen", "c"), "ret 1"),
                        ("cr", op("pairs", CALL), op("mapsize", CALL), op("buf", 4, 0, 100), op("pairs", CALL_T), op("callstatus"), op("get", CALL, ":status"), op("set", CALL, "x", "y"), op("setbuf", 4, 0, 1, "Z"),
                         op("pairs", w * 2), op("set", w * 2, "x-after", "1"), op("cont", w))))
        out.append(Case(f"call bodies in {e}", (e, op("call", C, "/callout", 5000, "BODY", "x-seen", "c", "x-up", '{"chunks":["a","b"],"trailers":[["x-t","1"]]}'), "ret 1"),
                        ("cr", op("buf", 4, 0, 100), op("pairs", CALL_T), op("cont", w))))
        out.append(Case(f"call reply in {e}", (e, op("call", C, "/callout", 5000, "", "x-seen", "c"), "ret 1"), ("cr", op("reply", 403, "no", "denied", -1))))
        out.append(Case(f"call timeout in {e}", (e, op("call", C, "/callout", 200, "", "x-seen", "c", "x-up", '{"chunks":["a"],"gap":1.5}'), "ret 1"),
                        ("cr", op("pairs", CALL), op("buf", 4, 0, 100), op("callstatus"), op("cont", w))))
    out.append(Case("call timeout before head", ("rh", op("call", C, "/callout", 200, "", "x-seen", "c", "x-up", '{"delay":1.5}'), "ret 1"),
                    ("cr", op("pairs", CALL), op("buf", 4, 0, 100), op("callstatus"), op("cont", 0))))
    out.append(Case("call dead", ("rh", op("call", dead, "/callout", 2000, "", "x-seen", "c"), "ret 1"),
                    ("cr", op("pairs", CALL), op("buf", 4, 0, 100), op("callstatus"), op("cont", 0))))
    nobody = "outbound|80||nobody.istio-system.svc.cluster.local"
    out.append(Case("call nobody", ("rh", op("call", nobody, "/callout", 2000, "", "x-seen", "c"), "ret 0"),
                    ("cr", op("pairs", CALL), op("buf", 4, 0, 100), op("callstatus"), op("cont", 0))))
    out.append(Case("call zero timeout", ("rh", op("call", C, "/callout", 0, "", "x-seen", "c"), "ret 1"), ("cr", op("cont", 0))))
    out.append(Case("call unknown", ("rh", op("call", "nobody", "/", 1000, ""))))
    out.append(Case("call negative", ("rh", op("call", C, "/", -1, ""))))
    out.append(Case("call no path", ("rh", op("call", C, "", 1000, ""))))
    out.append(Case("call empty cluster", ("rh", op("call", "", "/", 1000, ""))))
    out.append(Case("call continue only", ("rh", op("call", C, "/callout", 5000, "", "x-seen", "c")), settle=0.3))
    out.append(Case("status outside", ("rh", op("callstatus"))))
    for e in ("rh", "rb", "sh", "sb", "log", "done", "del"):
        out.append(Case(f"call kinds in {e}", (e, op("pairs", CALL), op("get", CALL, ":status"), op("get", 4, "x"), op("mapsize", 5), op("add", CALL, "x", "y"), op("add", 8, "x", "y")), method="POST", body="abc"))
    return out


VOLATILE_PROPS = set("request.time request.id request.duration response.backend_latency source.port destination.port connection.id connection_id upstream.local_address source.address destination.address upstream.cx_pool_ready_duration xds.node".split())
PROPS = """request.path request.url_path request.host request.scheme request.method request.headers request.headers.x-tag request.headers.x-none
request.headers_bytes request.referer request.useragent request.time request.id request.protocol request.query request.duration request.size request.total_size
response.code response.code_details response.flags response.grpc_status response.headers response.headers.content-type response.headers_bytes response.trailers
response.size response.total_size response.backend_latency source.address source.port destination.address destination.port connection.id connection.mtls
connection.requested_server_name connection.tls_version connection.subject_local_certificate connection.subject_peer_certificate connection.dns_san_local_certificate
connection.dns_san_peer_certificate connection.uri_san_local_certificate connection.uri_san_peer_certificate connection.sha256_peer_certificate_digest
connection.transport_failure_reason connection.termination_details upstream.address upstream.port upstream.local_address upstream.locality
upstream.transport_failure_reason upstream.request_attempt_count upstream.cx_pool_ready_duration upstream.num_endpoints upstream.tls_version
upstream.subject_local_certificate upstream.subject_peer_certificate upstream.dns_san_peer_certificate upstream.uri_san_peer_certificate upstream.sha256_peer_certificate_digest
metadata filter_state upstream_filter_state xds xds.node xds.node.id xds.cluster_name xds.cluster_metadata xds.cluster_metadata.filter_metadata xds.route_name xds.route_metadata xds.route_metadata.filter_metadata
xds.virtual_host_name xds.virtual_host_metadata xds.upstream_host_metadata xds.upstream_host_locality_metadata xds.filter_chain_name xds.listener_metadata xds.listener_metadata.filter_metadata xds.listener_direction
plugin_name plugin_root_id plugin_vm_id connection_id node node.id cluster_name cluster_metadata route_name route_metadata listener_direction listener_metadata
upstream_host_metadata metadata.filter_metadata request response source destination connection upstream nothing request.nothing request.path.more
response.code.more source.address.x plugin_name.x filter_state.x connection_id.x request.headers.x-tag.more""".split()


def props():
    out = []
    for e in ("rh", "rb", "sh", "sb", "log", "del"):
        for p in PROPS:
            out.append(Case(f"prop {p} in {e}", (e, op("prop", p.replace(".", "\0"))), method="POST", path="/p?q=1", body="abc", headers=[("referer", "http://r/")]))
    for p in PROPS:
        out.append(Case(f"prop {p} in sh get", ("sh", op("prop", p.replace(".", "\0"))), path="/p", up={"chunks": ["a"], "trailers": [["x-t", "1"]]}))
    for path in ("own", "own\0two", "own\0", "\0", "wasm.x", "request\0path", "plugin_name", "~70"):
        name = path
        out.append(Case(f"setprop {path!r}", ("rh", op("setprop", name, "value"), op("prop", name), op("prop", "filter_state\0wasm." + name)), ("sh", op("prop", name), op("setprop", name, "again"), op("prop", name)), ("log", op("prop", name))))
    out.append(Case("setprop empty value", ("rh", op("setprop", "own", ""), op("prop", "own"))))
    out.append(Case("prop empty", ("rh", op("prop", ""))))
    out.append(Case("setprop empty", ("rh", op("setprop", "", "x"))))
    return out


def misc():
    out = []
    out.append(Case("define", ("rh", op("inc", 0, "d_c1", 3), op("metric", 0, "d_c1"), op("inc", 0, "d_c1", 0), op("inc", 0, "d_c1", -2), op("rec", 0, "d_c1", 5), op("metric", 0, "d_c1"))))
    out.append(Case("gauge", ("rh", op("inc", 1, "d_g1", 3), op("inc", 1, "d_g1", -5), op("metric", 1, "d_g1"), op("rec", 1, "d_g1", 7), op("metric", 1, "d_g1"), op("inc", 1, "d_g1", 0))))
    out.append(Case("histogram", ("rh", op("rec", 2, "d_h1", 3), op("inc", 2, "d_h1", 1), op("metric", 2, "d_h1"))))
    out.append(Case("other type", ("rh", op("inc", 0, "d_x", 1), op("inc", 1, "d_x", 5), op("metric", 0, "d_x"), op("metric", 1, "d_x"))))
    out.append(Case("bad type", ("rh", op("inc", 3, "d_bad", 1), op("inc", 0, "", 1))))
    out.append(Case("shared", ("rh", op("shget", "k1"), op("shset", "k1", "v", 0), op("shget", "k1"))))
    out.append(Case("shared cas", ("rh", op("shset", "k2", "v", 77), op("shset", "k2", "w", 99999), op("shget", "k3"), op("shset", "", "e", 0), op("shget", ""), op("shset", "k4", "", 0), op("shget", "k4"))))
    out.append(Case("queue", ("rh", op("qreg", "q1"), op("qput", "", "q1", "a"), op("qget", "", "q1"), op("qget", "", "q1"), op("qput", "", "q-none", "a"), op("qput", "nobody", "q1", "a"), op("qput", "istio-system", "q1", "b"), op("qget", "", "q1"))))
    for name, arg in (("compress", "hello"), ("uncompress", "hello"), ("compress", ""), ("uncompress", ""), ("clear_route_cache", ""), ("nobody", ""), ("", ""), ("set_envoy_filter_state", "\x0a\x01k\x12\x01v"),
                      ("declare_property", "\x0a\x01k"), ("expr_create", "1+1"), ("expr_evaluate", "\x01\0\0\0"), ("expr_delete", "\x01\0\0\0"), ("verify_signature", ""), ("sign", ""), ("set_envoy_filter_state", "\xff"), ("declare_property", "\xff")):
        out.append(Case(f"foreign {name} {arg!r}", ("rh", op("foreign", name, arg.encode("latin-1")))))
    out.append(Case("filter state read", ("rh", op("foreign", "set_envoy_filter_state", b"\x0a\x02fk\x12\x02fv"), op("prop", "filter_state\0fk"), op("prop", "fk")), ("sh", op("prop", "filter_state\0fk"))))
    out.append(Case("length kept", ("rh", "ret 0"), method="POST", body="x" * 100000, up={"length": 100000}))
    out.append(Case("length kept, edit of the first piece", ("sb.1", op("setbuf", 1, 0, 3, "ABC")), ("rb.1", op("setbuf", 0, 0, 3, "ABC")), method="POST", body="x" * 100000, up={"length": 100000}))
    out.append(Case("eff 0", ("rh", op("eff", 0), op("get", 0, "x-tag"), op("prop", "request\0path"), op("prop", "plugin_name"))))
    out.append(Case("eff 1", ("rh", op("eff", 1), op("get", 0, "x-tag"), op("prop", "request\0path"))))
    out.append(Case("eff bad", ("rh", op("eff", 999999))))
    out.append(Case("cont bad", ("rh", op("cont", 4), op("cont", 3), op("cont", 2), op("close", 4))))
    out.append(Case("log levels", ("rh", op("log", "hello"))))
    for shape in ({"method": "HEAD"}, {"method": "OPTIONS"}, {"method": "DELETE"}, {"method": "POST", "body": "x" * 100000}, {"method": "PUT", "chunks": ["a" * 20000, "b" * 20000]},
                  {"up": {"status": 204, "headers": [], "body": ""}}, {"up": {"status": 304, "headers": []}}, {"up": {"status": 500}}, {"up": {"body": "y" * 200000}}, {"path": "/a/../b//c?d=%20"}, {"path": "/nowhere"}):
        out.append(Case(f"shape {shape.get('method', 'GET')} {str(shape)[:60]}", ("rh", op("pairs", 0)), ("sh", op("pairs", 2)), ("log", op("prop", "response\0code"), op("prop", "request\0size"), op("prop", "response\0size")), **shape))
    return out


ALL = {"bodies": bodies, "buffers": buffers, "maps": maps, "replies": replies, "calls": calls, "props": props, "misc": misc}
