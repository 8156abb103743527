# SPDX-License-Identifier: Apache-2.0
"""Access logs, as text and JSON."""
import json
import re

from weirtest import resources as res


def test_default_text_line(gateway, upstream):
    gw = gateway(upstream())
    gw.request("POST", "/a?b=c", {"User-Agent": "tester/1", "X-Forwarded-For": "9.8.7.6"}, b"12345")
    line = gw.wait_access("POST")[0]
    m = re.fullmatch(r'\[(\S+Z)\] "POST /a\?b=c HTTP/1\.1" 200 - 5 2 (\d+) (\d+) "9\.8\.7\.6, ?127\.0\.0\.1" "tester/1" "([0-9a-f-]{36})" '
                     r'"test\.example" "127\.0\.0\.1:(\d+)"', line)
    assert m, line


def test_json_line(gateway, upstream):
    up = upstream()
    gw = gateway(up, limits={"access-log": "json"})
    gw.get("/a?b=c", {"User-Agent": 'quote " back \\ high \xe9'})
    line = json.loads(gw.wait_access("/a?b=c")[0])
    assert (line["method"], line["path"], line["response_code"], line["protocol"]) == ("GET", "/a?b=c", 200, "HTTP/1.1")
    assert line["end_reason"] == "via_upstream" and line["upstream_host"] == f"127.0.0.1:{up.port}"
    assert line["bytes_sent"] == 2 and line["authority"] == "test.example" and line["route_name"]
    assert line["user_agent"].startswith('quote " back \\ high ')
    assert line["request_id"] == up.last.header("x-request-id")


def test_off(gateway, upstream):
    gw = gateway(upstream(), limits={"access-log": "off"})
    gw.get()
    gw.stop()
    assert gw.access_log() == []


def test_operators(gateway, upstream):
    up = upstream(lambda x: x.respond(201, {"x-back": "from upstream", "content-type": "text/x"}, b"12345"))
    fmt = "|".join(["%REQ(X-IN)%", "%REQ(X-NO?X-IN):3%", "%RESP(X-BACK)%", "%REQ(X-NO)%", "%RESPONSE_CODE%", "%BYTES_SENT%", "%BYTES_RECEIVED%",
                    "%UPSTREAM_HOST%", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "%DOWNSTREAM_LOCAL_PORT%", "%PROTOCOL%", "%ROUTE_NAME%",
                    "%RESPONSE_FLAGS%", "%RESPONSE_CODE_DETAILS%", "%START_TIME(%Y)%", "%UPSTREAM_CLUSTER%", "%END_REASON%", "%%"]) + "\n"
    gw = gateway(up, limits={"access-log-format": fmt})
    gw.request("POST", "/", {"X-In": "abcdef"}, b"123")
    fields = gw.wait_access("abcdef")[0].split("|")
    assert fields[:12] == ["abcdef", "abc", "from upstream", "-", "201", "5", "3", f"127.0.0.1:{up.port}", "127.0.0.1", str(gw.port), "HTTP/1.1",
                           fields[11]]
    assert fields[11] != "-" and fields[12:14] == ["-", "via_upstream"] and re.fullmatch(r"20\d\d", fields[14])
    assert "backend" in fields[15] and fields[16:] == ["via_upstream", "%"]


def test_upstream_local_address(gateway, upstream):
    up = upstream(lambda x: x.respond(200, None, str(x.peer.sock.getpeername()[1])))
    gw = gateway(up, limits={"access-log-format": "at %UPSTREAM_LOCAL_ADDRESS%\n"})
    port = gw.get().text
    assert gw.wait_access("at ") == [f"at 127.0.0.1:{port}"]


def test_what_clients_write_cannot_break_a_line(gateway, upstream):
    up = upstream()
    for kind in ("text", "json"):
        gw = gateway(up, limits={"access-log": kind})
        evil = '"} {"x": "\xff\x80 \t <script>'
        gw.get('/"%0a%0d{}', {"User-Agent": evil})
        gw.get("/second")
        gw.wait_access("/second")
        lines = gw.access_log()
        assert len(lines) == 2
        if kind == "json":
            assert json.loads(lines[0])["method"] == "GET"
        else:
            assert lines[0].count("\t") == 0


def test_log_shows_requests_that_end_early(gateway, upstream):
    """A request that was refused, and one whose client left, have lines too."""
    up = upstream(lambda x: x.peer._more("the end"))
    gw = gateway(up, limits={"access-log": "json"})
    with gw.conn() as c:
        c.send("GET /x HTTP/1.1\r\nHost: a\r\nX A: b\r\n\r\n")
        assert c.response().status == 400
    bad = json.loads(gw.wait_access("http1.codec_error")[0])
    assert bad["response_code"] == 400
    c = gw.conn()
    c.request("GET", "/left")
    up.wait_count(1)
    c.close(reset=True)
    left = json.loads(gw.wait_access("/left")[0])
    assert left["end_reason"] == "downstream_remote_disconnect" and left["response_flags"] == "DC" and left["response_code"] == 0


WIRE = "%REQ(:PATH)% %DOWNSTREAM_WIRE_BYTES_RECEIVED% %DOWNSTREAM_WIRE_BYTES_SENT% %UPSTREAM_WIRE_BYTES_SENT% %UPSTREAM_WIRE_BYTES_RECEIVED%\n"


def test_wire_bytes(gateway, upstream):
    """Each exchange has its own share of a connection that serves many, pipelined ones too."""
    answers = {"/one": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
               "/two": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"}

    def answer(x):
        x.body()
        x.send(answers[x.target])
    up = upstream(answer)
    gw = gateway(up, limits={"access-log-format": WIRE}, workers=1)
    one = b"POST /one HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nbody\r\n0\r\n\r\n"
    two = b"GET /two HTTP/1.1\r\nHost: a\r\nX-More: 12345\r\nConnection: close\r\n\r\n"
    with gw.conn() as c:
        c.send(one + two)
        raw = c.rest()
    sizes = {}
    for path in ("/one", "/two"):
        sizes[path] = [int(n) for n in gw.wait_access(path)[0].split()[1:]]
    second = raw.index(b"HTTP/1.1", 1)
    assert (sizes["/one"][0], sizes["/two"][0]) == (len(one), len(two))
    assert (sizes["/one"][1], sizes["/two"][1]) == (second, len(raw) - second)
    assert sizes["/one"][2] + sizes["/two"][2] == len(up.received)
    assert (sizes["/one"][3], sizes["/two"][3]) == (len(answers["/one"]), len(answers["/two"]))


def test_operators_of_envoy(gateway, upstream):
    """What a format may have, on a real request."""
    up = upstream()
    names = {"query": "%QUERY_PARAM(b)%", "path": "%PATH(NQ)%", "env": "%ENVIRONMENT(WEIR_TEST_POD)%", "took": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
             "grpc": "%GRPC_STATUS%", "flags": "%RESPONSE_FLAGS_LONG%", "meta": "%DYNAMIC_METADATA(a:b)%", "sent": "%UPSTREAM_WIRE_BYTES_SENT%"}
    gw = gateway(up, limits={"access-log": "json", "access-log-format": json.dumps(names)}, env={"WEIR_TEST_POD": "pod-1"})
    gw.get("/a?b=c%20d")
    line = json.loads(gw.wait_access("pod-1")[0])
    assert line.pop("took") >= 0 and line.pop("sent") == len(up.received)
    assert line == {"query": "c d", "path": "/a", "env": "pod-1", "grpc": None, "flags": None, "meta": None}


def test_bad_format_is_refused_with_its_place(gateway, upstream):
    up = upstream()
    gw = gateway(up, limits={"access-log-format": "good %RESPONSE_CODE%\n"})
    gw.apply("gateway", [d if d["kind"] != "ConfigMap" else res.limits({"access-log-format": "bad %NO_SUCH_THING%\n"})
                         for d in gw.default_resources(up, {"a": 1})])
    gw.wait(lambda: "NO_SUCH_THING" in gw.admin_get("/config").text)
    gw.get()
    assert gw.wait_access("200") == ["good 200"]
