# SPDX-License-Identifier: Apache-2.0
"""The page at / in headless Chromium: that it shows what is there, changes by itself, asks nobody else, takes text as
text, and can be read on a small screen, in the dark and by keyboard. And /stats, which it is made of."""
import json
import re

import pytest

from weirtest import resources as res
from weirtest.browser import PROGRAM, Browser
from weirtest.plugins import Puppet, StepUpstream, op, puppet_plugin
from weirtest.util import LOCAL

needs_browser = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")
SCRIPT = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
ROWS = "document.querySelectorAll('#plugins tbody tr:not(.detail)')"
CANARY = "canary-31c0ffee"


@pytest.fixture(scope="module")
def browser_program(tmp_path_factory):
    b = Browser(tmp_path_factory.mktemp("chromium"))
    yield b
    b.close()


@pytest.fixture
def browser(browser_program):
    browser_program.open("about:blank").view(1240, 900)
    browser_program.events.clear()
    return browser_program


@pytest.fixture
def gw(gateway, upstream, guests):
    wasm = guests.build("counter")
    g = gateway(upstream(), extra=[res.plugin("first", wasm, {"mark": CANARY}, phase="AUTHN", priority=7),
                                   res.plugin("second", wasm, {"mark": "b"}, phase="STATS",
                                              vmConfig={"env": [{"name": "SECRET", "value": CANARY}]})])
    g.wait(lambda: all(p["state"] == "Active" for p in g.plugins().values()), "both plugins")
    return g


def stats(g):
    return json.loads(g.admin_get("/stats").body)


def page(browser, g):
    browser.open(f"http://{LOCAL}:{g.admin}/")
    browser.wait("document.querySelector('#pulse').dataset.live === 'yes'", "the page to be live")
    return browser


# ---- /stats ----

def test_stats(gw):
    for _ in range(20):
        assert gw.get("/").status == 200
    s = gw.wait(lambda: (s := stats(gw)) and s["plugins"][0].get("requests", 0) >= 20 and s, "20 requests to be counted")
    assert [p["name"] for p in s["plugins"]] == ["first", "second"]
    first = s["plugins"][0]
    assert (first["phase"], first["priority"], first["state"], first["failStrategy"]) == ("AUTHN", 7, "good", "FAIL_CLOSE")
    assert re.fullmatch("[0-9a-f]{64}", first["sha256"]) and first["memoryBytes"] > 0 and first["workersLive"] == 2
    assert {c["type"]: c["status"] for c in first["conditions"]} == dict.fromkeys(
        ("Accepted", "Fetched", "Verified", "Compiled", "Configured", "Programmed"), "True")
    assert first["last60s"]["p99Micros"] > 0 and first["last60s"]["busyCores"] > 0 and first["last60s"]["requestsPerSecond"] > 0
    assert len(first["history"]["requestsPerSecond"]) == len(s["traffic"]["history"]["requestsPerSecond"]) > 0
    assert s["traffic"]["last60s"]["requestsPerSecond"] > 0 and s["traffic"]["last60s"]["p50Micros"] > 0
    listener = s["gateways"][0]["listeners"][0]
    assert listener["chain"] == [f"{res.NS}/first", f"{res.NS}/second"] and listener["addresses"] == [f"{LOCAL}:{gw.port}"]
    assert s["ready"] is True and s["problems"] == [] and s["pluginCount"] == 2
    assert any(e["reason"] == "Programmed" and e["name"] == "first" for e in s["events"])
    assert CANARY not in gw.admin_get("/stats").body.decode()


def test_percentiles_are_of_the_window(gw):
    """What happened long ago is in the totals and not in the rates."""
    gw.get("/")
    gw.wait(lambda: stats(gw)["plugins"][0].get("requests", 0) >= 1, "a request to be counted")
    s = gw.wait(lambda: (s := stats(gw)) and s["plugins"][0]["last10s"]["requestsPerSecond"] == 0 and s, "10 quiet seconds")
    assert s["plugins"][0]["last10s"]["p99Micros"] is None and s["plugins"][0]["requests"] == 1


def test_the_list_for_everybody_else(gw):
    text = gw.admin_get("/").body.decode()
    assert "/metrics" in text and "<html" not in text
    r = gw.admin_request("GET", "/", {"accept": "text/html"})
    assert r.header("content-type").startswith("text/html") and b"<script src=\"/page/page.js\" defer>" in r.body
    for path in ("/page/page.js", "/page/page.css", "/page/icon.svg"):
        assert gw.admin_get(path).header("content-security-policy").startswith("default-src 'self';")
    assert gw.admin_request("GET", "/page/../config").status in (400, 404)
    assert gw.admin_request("GET", "/", {"accept": "text/html"}, host="evil.example").status == 403


# ---- the page ----

@needs_browser
def test_it_shows_what_is_there(browser, gw):
    page(browser, gw)
    browser.wait(f"{ROWS}.length === 2")
    row = browser.js(f"{ROWS}[0].innerText")
    assert "first" in row and "Programmed" in row and "AUTHN 7" in row and "sha256" in row
    assert browser.js("document.querySelector('#state-text').innerText") == "Ready"
    chain = browser.js("[...document.querySelectorAll('#gateways .chain li')].map(e => e.innerText)")
    assert chain == ["client", f"{res.NS}/first", f"{res.NS}/second", "routes"]
    assert "default" in browser.js("document.querySelector('#routes').innerText")
    assert "Programmed" in browser.js("document.querySelector('#events').innerText")
    assert CANARY not in browser.js("document.documentElement.outerHTML")
    # Nothing was asked of anybody else, and nothing was complained about.
    own = f"http://{LOCAL}:{gw.admin}/"
    assert browser.requests() and all(u.startswith(own) for u in browser.requests()), browser.requests()
    assert browser.complaints() == []
    # Nothing of the page stands in its HTML: no inline script, style or handler.
    html = gw.admin_request("GET", "/", {"accept": "text/html"}).body.decode()
    assert not re.search(r"<style|<script(?! src=)| on\w+=| style=", html)


@needs_browser
def test_it_changes_by_itself(browser, gw, guests):
    page(browser, gw).wait(f"{ROWS}.length === 2")
    gw.apply("more", [res.plugin("third", guests.build("counter"), {"mark": "c"}, phase="AUTHZ"),
                      res.plugin("broken", f"http://{LOCAL}:9/x.wasm", {})])
    browser.wait(f"{ROWS}.length === 4")
    browser.wait(f"[...{ROWS}].map(r => r.querySelector('button').innerText.split('/')[1]).join() === 'first,third,second,broken'", "chain order")
    browser.wait(f"{ROWS}[3].innerText.includes('FetchFailed')", "the reason")
    gw.remove("more")
    browser.wait(f"{ROWS}.length === 2")
    for _ in range(5):
        gw.get("/")
    browser.wait(f"!!{ROWS}[0].querySelector('.spark path[d^=M]')", "a chart")
    assert browser.complaints() == []


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_a_small_screen_and_the_dark(browser, gw, dark):
    browser.view(400, 800, dark)
    page(browser, gw).wait(f"{ROWS}.length === 2")
    browser.js(f"[...document.querySelectorAll('button.open')].forEach(b => b.click())")
    browser.wait("document.querySelectorAll('tr.detail:not([hidden])').length === 2")
    assert browser.js("document.documentElement.scrollWidth") <= 400
    wide = browser.js("[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > 401 && !e.closest('.sr,.skip,thead,svg'))"
                      ".map(e => e.tagName + '.' + e.className)")
    assert wide == []
    # Every text has the contrast that WCAG AA asks for.
    assert browser.js(CONTRAST) == []


CONTRAST = """(() => {
  const parse = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const lum = (c) => { const f = c.slice(0, 3).map(v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; } return [255, 255, 255]; };
  const bad = new Set();
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || !e.offsetParent || e.closest('.sr,.skip')) continue;
    const a = lum(parse(getComputedStyle(e).color)), b = lum(ground(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.add(e.tagName + '.' + e.className + ' ' + ratio.toFixed(2));
  }
  return [...bad];
})()"""


@needs_browser
def test_by_keyboard(browser, gw):
    page(browser, gw).wait(f"{ROWS}.length === 2")
    where = "document.activeElement.className + '|' + document.activeElement.innerText"
    browser.key("Tab")
    assert browser.js(where) == "skip|Skip to content"
    browser.key("Enter")
    browser.wait("document.activeElement.id === 'main'")
    browser.key("Tab")
    assert browser.js(where).startswith("open|") and "first" in browser.js(where)
    outline = browser.js("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    browser.key("Enter")
    browser.wait("document.activeElement.getAttribute('aria-expanded') === 'true'")
    browser.wait("!document.getElementById(document.activeElement.getAttribute('aria-controls')).hidden")
    assert "Programmed" in browser.js("document.getElementById(document.activeElement.getAttribute('aria-controls')).innerText")
    # What comes every second leaves the focus where it is, and the row open.
    before = browser.js("document.querySelector('#facts').innerText")
    browser.wait(f"document.querySelector('#facts').innerText !== {json.dumps(before)}", "the next second")
    assert "first" in browser.js(where) and browser.js("document.activeElement.getAttribute('aria-expanded')") == "true"
    browser.key("Tab")
    assert "second" in browser.js(where)
    browser.key("Tab", shift=True)
    browser.key(" ")
    browser.wait("document.activeElement.getAttribute('aria-expanded') === 'false'")


@needs_browser
def test_landmarks_and_names(browser, gw):
    page(browser, gw).wait(f"{ROWS}.length === 2")
    assert browser.js("['header', 'main', 'footer', 'nav'].every(n => document.querySelectorAll('body > ' + n + ', footer > ' + n).length === 1)")
    assert browser.js("document.documentElement.lang") == "en"
    assert browser.js("[...document.querySelectorAll('section')].every(s => document.getElementById(s.getAttribute('aria-labelledby')))")
    assert browser.js("[...document.querySelectorAll('table')].every(t => t.caption && [...t.tHead.rows[0].cells].every(c => c.scope === 'col'))")
    assert browser.js("[...document.querySelectorAll('tbody tr:not(.detail)')].every(r => r.cells[0].tagName === 'TH' && r.cells[0].scope === 'row')")
    assert browser.js("[...document.querySelectorAll('svg')].every(s => s.closest('[aria-hidden=true]'))")
    assert browser.js("new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size === document.querySelectorAll('[id]').length")


@needs_browser
def test_text_stays_text(browser, gateway, upstreams_for_puppet, guests):
    """A filter logs a script tag, dies with one in its trap, and an object's error quotes one."""
    g, p = upstreams_for_puppet
    p.send(("rh", op("log", SCRIPT), "trap"))
    g.apply("bad", f"apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: bad, namespace: {res.NS}}}\n"
                   f"spec: {{url: 'http://{LOCAL}:9/x.wasm', phase: \"{SCRIPT}\"}}\n")
    page(browser, g)
    browser.wait("document.querySelector('#events').innerText.includes('PluginFailed')")
    browser.wait("document.querySelector('#events').innerText.includes('<script>')", "the error's text")
    assert browser.js("document.querySelectorAll('main script, main img').length") == 0
    assert "owned" not in browser.js("document.title")
    # The log, too, is no page.
    browser.open(f"http://{LOCAL}:{g.admin}/logs").wait("document.body.innerText.includes('script')")
    assert browser.js("document.scripts.length") == 0 and browser.js("document.title") != "owned"
    assert browser.complaints() == []


@pytest.fixture
def upstreams_for_puppet(gateway, upstream, guests):
    up = StepUpstream(upstream)
    g = gateway(up.port, extra=[puppet_plugin(guests.build("puppet"))])
    g.wait(lambda: all(p["state"] == "Active" for p in g.plugins().values()), "the puppet")
    return g, Puppet(g, up)


@needs_browser
def test_a_lost_connection_is_said(browser, gw):
    page(browser, gw).wait(f"{ROWS}.length === 2")
    gw.signal()
    gw.wait_exit()
    browser.wait("!document.querySelector('#lost').hidden", "the banner")
    assert "lost" in browser.js("document.querySelector('#lost').innerText")
    assert browser.js("document.querySelector('#pulse').innerText") == "connection lost"
    assert browser.js(f"{ROWS}.length") == 2  # what was seen last stays
    gw.spawn()
    gw.wait_ready()
    browser.wait("document.querySelector('#lost').hidden && document.querySelector('#pulse').dataset.live === 'yes'", "the page to be live again")


@needs_browser
def test_nothing_to_show(browser, gateway):
    g = gateway(resources={"empty": "# nothing yet\n"}, ready=False)
    g.wait(lambda: g.admin_request("GET", "/healthz").status == 200, "the admin address")
    page(browser, g)
    for part, text in (("gateways", "No Gateway yet"), ("plugins", "No plugin yet"), ("routes", "No HTTPRoute yet"), ("events", "Nothing has happened")):
        browser.wait(f"document.querySelector('#{part}').innerText.includes({json.dumps(text)})")
    assert browser.complaints() == []
