// SPDX-License-Identifier: Apache-2.0
// Asks /stats once a second and shows it. Everything that comes is untrusted text: it is set as textContent and never
// parsed as HTML. Elements are kept and changed in place, so that focus, selection and open rows stay.
"use strict";
(() => {
  const POLL_MS = 1000, LOST_MS = 3000;
  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";

  // ---- elements ----

  function el(name, className, text) {
    const e = document.createElement(name);
    if (className) e.className = className;
    if (text !== undefined) e.textContent = text;
    return e;
  }
  function put(e, text) { if (e.textContent !== text) e.textContent = text; }
  function mark(e, name, value) { if (e.dataset[name] !== value) e.dataset[name] = value; }
  function show(e, yes) { if (e.hidden === yes) e.hidden = !yes; }

  // One child of `parent` for each item, in order, made once for each key and then only updated.
  function sync(parent, items, keyOf, make, update) {
    const old = new Map();
    for (const child of [...parent.children]) old.set(child.dataset.key, child);
    let at = parent.firstElementChild;
    for (const item of items) {
      const key = keyOf(item);
      let child = old.get(key);
      if (child) old.delete(key);
      else { child = make(item); child.dataset.key = key; }
      if (child !== at) parent.insertBefore(child, at); else at = at.nextElementSibling;
      update(child, item);
    }
    for (const child of old.values()) child.remove();
  }

  // ---- numbers ----

  const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  function count(n) { return n >= 1e6 ? (n / 1e6).toPrecision(3) + " M" : plain.format(n); }
  function rate(n) {
    if (!n) return "0";
    if (n < 0.1) return n.toFixed(2);
    if (n < 10) return n.toFixed(1).replace(/\.0$/, "");
    return n >= 1e6 ? (n / 1e6).toPrecision(3) + " M" : plain.format(n);
  }
  function duration(us) {
    if (us === null || us === undefined) return ["\u2013", ""];
    if (us < 1) return ["< 1", "\u00b5s"];
    if (us < 1000) return [us < 10 ? us.toFixed(1) : us.toFixed(0), "\u00b5s"];
    if (us < 1e6) return [(us / 1000).toPrecision(us < 1e5 ? 2 : 3), "ms"];
    return [(us / 1e6).toPrecision(3), "s"];
  }
  function bytes(n) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let i = 0;
    while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
    return [n >= 100 || i === 0 ? n.toFixed(0) : n.toFixed(1), units[i]];
  }
  function percent(x) { return x === 0 ? "0 %" : x < 0.001 ? "< 0.1 %" : (x * 100).toFixed(x < 0.1 ? 1 : 0) + " %"; }
  function ago(seconds) {
    if (seconds < 60) return Math.max(0, Math.floor(seconds)) + " s";
    if (seconds < 3600) return Math.floor(seconds / 60) + " min";
    if (seconds < 172800) return Math.floor(seconds / 3600) + " h";
    return Math.floor(seconds / 86400) + " days";
  }

  // ---- sparklines: 60 seconds, newest at the right ----

  function spark() {
    const s = document.createElementNS(SVG, "svg");
    s.setAttribute("viewBox", "0 0 60 24");
    s.setAttribute("preserveAspectRatio", "none");
    s.setAttribute("class", "spark");
    s.setAttribute("aria-hidden", "true");
    const area = document.createElementNS(SVG, "path"), line = document.createElementNS(SVG, "path");
    area.setAttribute("class", "area");
    s.append(area, line);
    return s;
  }
  function draw(s, values, alarm) {
    const v = values || [], top = Math.max(1e-9, ...v);
    const points = v.map((y, i) => [60 - (v.length - 1 - i) * (60 / 59), 23 - 21 * (y / top)]);
    const line = points.map((p, i) => (i ? "L" : "M") + p[0].toFixed(1) + " " + p[1].toFixed(1)).join("");
    s.children[1].setAttribute("d", line);
    s.children[0].setAttribute("d", points.length > 1 ? line + "L60 24L" + points[0][0].toFixed(1) + " 24Z" : "");
    s.setAttribute("class", alarm ? "spark alarm" : "spark");
  }

  // ---- header ----

  function showHead(d) {
    put($("title"), (d.gatewayNamespace ? d.gatewayNamespace + "/" : "") + (d.gateway || "Weir"));
    document.title = (d.ready ? "" : "(!) ") + (d.gateway || "Weir") + " \u2013 Weir";
    const draining = d.life === "draining";
    mark($("state"), "state", draining ? "warn" : d.ready ? "good" : "bad");
    put($("state-text"), draining ? "Draining" : d.ready ? "Ready" : "Not ready");
    const facts = [["up", ago(d.uptimeSeconds)], ["workers", String(d.workers)],
      ["configuration", d.adoptedVersion === d.configVersion ? "version " + d.configVersion
        : "version " + d.adoptedVersion + ", " + d.configVersion + " on its way"]];
    sync($("facts"), facts, (f) => f[0],
      (f) => { const e = el("div"); e.append(el("dt", "", f[0]), el("dd")); return e; },
      (e, f) => put(e.children[1], f[1]));
    put($("foot"), "Weir " + d.version);
    const problems = d.problems.slice();
    if (d.badObjects > 0)
      problems.push(d.badObjects + (d.badObjects === 1 ? " object or file has" : " objects or files have") +
        " a newest text that is not in use: see /config");
    sync($("problem-list"), problems.map((text, i) => [String(i), text]), (p) => p[0], () => el("li"), (e, p) => put(e, p[1]));
    show($("problems"), problems.length > 0);
  }

  // ---- tiles ----

  function tile() {
    const e = el("div", "tile"), value = el("div", "value");
    value.append(el("span"), el("small"));
    e.append(el("div", "label"), value, el("div", "note"));
    return e;
  }
  function showTiles(d) {
    const t = d.traffic;
    if (!t) return;
    const now = t.last10s, errors = now.requestsPerSecond > 0 ? now.errorsPerSecond / now.requestsPerSecond : 0;
    const p99 = duration(now.p99Micros), p50 = duration(now.p50Micros), up = duration(now.upstreamP99Micros), used = bytes(d.memoryUsedBytes);
    const tiles = [
      { label: "Requests", value: rate(now.requestsPerSecond), unit: "/s", note: "4xx: " + rate(now.classes["4xx"]) + "/s", line: t.history.requestsPerSecond },
      { label: "Errors (5xx and cut off)", value: rate(now.errorsPerSecond), unit: "/s", note: percent(errors) + " of requests", line: t.history.errorsPerSecond, alarm: true },
      { label: "Response time, p99", value: p99[0], unit: p99[1], note: "p50: " + p50.join(" ").trim() + " \u00b7 upstream p99: " + up.join(" ").trim(), line: t.history.p99Micros },
      { label: "Open now", value: count(t.streams), unit: t.streams === 1 ? "request" : "requests", note: count(t.connections) + " client, " + count(t.upstreamConnections) + " upstream connections" },
      { label: "Bytes", value: bytes(now.bytesOutPerSecond)[0], unit: bytes(now.bytesOutPerSecond)[1] + "/s out", note: bytes(now.bytesInPerSecond).join(" ") + "/s in" },
      { label: "Memory", value: used[0], unit: used[1], note: d.memoryBudgetBytes ? percent(d.memoryUsedBytes / d.memoryBudgetBytes) + " of a budget of " + bytes(d.memoryBudgetBytes).join(" ") : "no budget",
        meter: d.memoryBudgetBytes ? d.memoryUsedBytes / d.memoryBudgetBytes : 0 },
    ];
    sync($("tiles"), tiles, (x) => x.label, (x) => {
      const e = tile();
      if (x.line) e.append(spark());
      if (x.meter !== undefined) {
        const m = el("div", "meter"), s = document.createElementNS(SVG, "svg"), r = document.createElementNS(SVG, "rect");
        m.setAttribute("aria-hidden", "true");
        r.setAttribute("height", "6");
        s.append(r);
        m.append(s);
        e.append(m);
      }
      return e;
    }, (e, x) => {
      put(e.children[0], x.label);
      put(e.children[1].children[0], x.value);
      put(e.children[1].children[1], x.unit);
      put(e.children[2], x.note);
      if (x.line) draw(e.children[3], x.line, x.alarm && x.line.some((y) => y > 0));
      if (x.meter !== undefined) e.querySelector("rect").setAttribute("width", Math.min(100, x.meter * 100).toFixed(1) + "%");
    });
  }

  // ---- gateways ----

  const words = { good: "Programmed", pending: "Under way", unknown: "Unknown" };
  function badge(e, o) {
    mark(e, "state", o.state);
    put(e, o.state === "warn" ? "Looks wrong" : o.state !== "pending" && o.reason ? o.reason : o.reason && o.reason !== "Pending" ? o.reason : words[o.state] || o.state);
  }
  function title(o) { return o.namespace + "/" + o.name; }

  function showGateways(d) {
    const states = new Map(d.plugins.map((p) => [title(p), pluginState(p)]));
    const box = $("gateways");
    put($("n-gateways"), d.gatewayCount > d.gateways.length ? "first " + d.gateways.length + " of " + d.gatewayCount : "");
    if (d.gateways.length === 0) { empty(box, "No Gateway yet. A Gateway resource gives Weir an address to listen on."); return; }
    clearEmpty(box);
    sync(box, d.gateways, title, () => {
      const e = el("article", "card"), head = el("header");
      head.append(el("h3"), el("span", "badge"));
      e.append(head, el("p", "why"), el("div"));
      return e;
    }, (e, g) => {
      name(e.children[0].children[0], g);
      badge(e.children[0].children[1], g);
      put(e.children[1], g.message && g.state !== "good" ? g.message : "");
      show(e.children[1], g.state !== "good" && !!g.message);
      sync(e.children[2], g.listeners, (l) => l.name, () => {
        const row = el("div", "listener"), left = el("div"), right = el("div"), chain = el("ol", "chain");
        left.append(el("p", "addr"), el("p", "sub"));
        chain.setAttribute("aria-label", "What a request passes, in order");
        right.append(chain, el("p", "why"));
        row.append(left, right);
        return row;
      }, (row, l) => {
        put(row.children[0].children[0], l.addresses.length ? l.addresses.join(", ") : "port " + l.port);
        put(row.children[0].children[1], l.name + " \u00b7 " + l.protocol + (l.hostname ? " \u00b7 " + l.hostname : "") + " \u00b7 " +
          l.attachedRoutes + (l.attachedRoutes === 1 ? " route" : " routes"));
        const steps = [{ key: "<", text: "client", end: true }, ...l.chain.map((t, i) => ({ key: i + t, text: t, state: states.get(t) || "unknown" })),
          { key: ">", text: l.attachedRoutes ? "routes" : "no routes", end: true }];
        sync(row.children[1].children[0], steps, (s) => s.key, () => { const li = el("li"); li.append(el("span")); return li; }, (li, s) => {
          const span = li.children[0];
          put(span, s.text);
          span.className = s.end ? "end" : "";
          if (s.end) return;
          mark(span, "state", s.state);
          span.title = s.state === "good" ? "active" : s.state === "pending" ? "not active yet" : "not active as it should be";
        });
        put(row.children[1].children[1], l.state === "bad" ? l.reason + ": " + (l.message || "") : "");
        show(row.children[1].children[1], l.state === "bad");
      });
    });
  }

  function name(e, o) {
    if (e.dataset.full === title(o)) return;
    e.textContent = "";
    e.dataset.full = title(o);
    e.append(el("span", "ns", o.namespace + "/"), el("span", "", o.name));
  }
  function empty(box, text) {
    if (box.dataset.empty === text) return;
    box.textContent = "";
    box.dataset.empty = text;
    box.append(el("p", "empty", text));
  }
  function clearEmpty(box) {
    if (!box.dataset.empty) return;
    box.textContent = "";
    delete box.dataset.empty;
  }

  // ---- tables ----

  // columns: [label, class, long label]
  function table(box, caption, columns) {
    if (box.querySelector("table")) return box.querySelector("tbody");
    const wrap = el("div", "tablewrap"), t = el("table"), head = el("tr"), thead = el("thead"), body = el("tbody");
    t.append(el("caption", "sr", caption));
    for (const c of columns) {
      const th = el("th", c[1], c[0]);
      th.scope = "col";
      if (c[2]) th.title = c[2];
      head.append(th);
    }
    thead.append(head);
    t.append(thead, body);
    wrap.append(t);
    box.append(wrap);
    return body;
  }
  function cell(label, className) {
    const e = el("td", className);
    e.dataset.label = label;
    e.append(el("span"));
    return e;
  }
  function number(e, text, kind) {
    put(e.firstElementChild, text);
    const c = kind || "";
    if (e.firstElementChild.className !== c) e.firstElementChild.className = c;
  }

  const pluginColumns = [["Plugin", ""], ["State", "wide"], ["Phase", "", "Phase and priority: the order in the chain"],
    ["Requests", "num", "Requests in each second that entered it, mean of the last 10 seconds"], ["Last minute", "num", "Requests, each second"],
    ["Errors", "num", "Requests that its fail strategy answered or let pass, since the start"],
    ["p50", "num", "Time of one callback, median of the last 10 seconds"], ["p99", "num", "Time of one callback, 99 of 100 took less, last 10 seconds"],
    ["CPU", "num", "Share of one core that its callbacks kept busy, last 10 seconds"], ["Memory", "num", "Linear memory of its VMs, all workers"],
    ["Swaps", "num", "New versions that took the place of an older one"], ["Traps", "num", "Callbacks that trapped or went over a limit, since the start"]];
  const opened = new Set();

  function pluginState(p) {
    return p.workersQuarantined ? "bad" : p.state;
  }

  function pluginRow(p) {
    const rows = [el("tr"), el("tr", "detail")], key = title(p) + p.kind, id = "detail-" + (pluginRow.next = (pluginRow.next || 0) + 1);
    const th = el("th"), open = el("button", "open");
    th.scope = "row";
    open.type = "button";
    open.setAttribute("aria-expanded", "false");
    open.setAttribute("aria-controls", id);
    open.addEventListener("click", () => {
      if (opened.has(key)) opened.delete(key); else opened.add(key);
      if (last) showPlugins(last);
    });
    th.append(open, el("div", "digest mono"));
    rows[0].append(th);
    pluginColumns.slice(1).forEach((c) => rows[0].append(cell(c[0], c[1])));
    rows[0].children[1].firstElementChild.className = "badge";
    rows[0].children[1].append(el("div", "why"));
    rows[0].children[4].replaceChildren(spark());
    rows[1].id = id;
    const td = el("td");
    td.colSpan = pluginColumns.length;
    td.append(el("ul", "conditions"), el("dl", "pairs"));
    rows[1].append(td);
    rows[1].hidden = true;
    return rows;
  }

  function updatePlugin(row, p) {
    const w = p.last10s || {}, none = !p.last10s, errors = (p.failed || 0) + (p.bypassed || 0);
    const c = row.children;
    name(c[0].firstElementChild, p);
    const expanded = opened.has(title(p) + p.kind);
    c[0].firstElementChild.setAttribute("aria-expanded", String(expanded));
    badge(c[1].firstElementChild, p);
    mark(c[1].firstElementChild, "state", pluginState(p));
    put(c[0].children[1], p.sha256 ? "sha256 " + p.sha256.slice(0, 12) : "");
    const why = p.state === "good" || p.state === "pending" ? "" : p.message || "";
    put(c[1].children[1], why.length > 160 ? why.slice(0, 160) + "\u2026" : why);
    show(c[1].children[1], why !== "");
    number(c[2], (p.phase || "\u2013") + (p.priority !== null && p.priority !== undefined ? " " + p.priority : ""), p.phase ? "" : "zero");
    number(c[3], none ? "0/s" : rate(w.requestsPerSecond) + "/s", w.requestsPerSecond ? "" : "zero");
    draw(c[4].firstElementChild, p.history && p.history.requestsPerSecond);
    number(c[5], count(errors), errors ? "hot" : "zero");
    number(c[6], duration(w.p50Micros).join(" "), w.p50Micros ? "" : "zero");
    number(c[7], duration(w.p99Micros).join(" "), w.p99Micros ? "" : "zero");
    number(c[8], percent(w.busyCores || 0), w.busyCores ? "" : "zero");
    number(c[9], p.memoryBytes ? bytes(p.memoryBytes).join(" ") : "\u2013", p.memoryBytes ? "" : "zero");
    number(c[10], count(p.swaps || 0), p.swaps ? "" : "zero");
    number(c[11], count(p.traps || 0), p.traps ? "hot" : "zero");
  }

  function updateDetail(row, p, now) {
    const open = opened.has(title(p) + p.kind);
    show(row, open);
    if (!open) return;
    const states = { True: "good", False: "bad", Unknown: "pending" };
    sync(row.children[0].children[0], p.conditions, (c) => c.type, () => {
      const li = el("li");
      li.append(el("span"), el("span", "badge"), el("span", "msg"));
      return li;
    }, (li, c) => {
      put(li.children[0], c.type);
      mark(li.children[1], "state", c.reason === "AcceptedWithWarnings" ? "warn" : states[c.status]);
      put(li.children[1], c.reason);
      put(li.children[2], c.message + (c.lastTransitionTime ? " (" + ago((now - Date.parse(c.lastTransitionTime)) / 1000) + " ago)" : ""));
    });
    const pairs = [["module", p.url || ""], ["sha256", p.sha256 || "none yet"], ["generation", String(p.generation || 0)], ["fail strategy", p.failStrategy || ""],
      ["workers", (p.workersLive || 0) + " live" + (p.workersQuarantined ? ", " + p.workersQuarantined + " quarantined" : "")],
      ["VMs lost", String(p.vmFailures || 0)], ["requests", count(p.requests || 0)], ["answered by fail strategy", count(p.failed || 0)],
      ["let pass by fail strategy", count(p.bypassed || 0)]];
    if (p.lastFailure) pairs.push(["last failure", p.lastFailure]);
    sync(row.children[0].children[1], pairs, (x) => x[0], (x) => { const e = el("div"); e.append(el("dt", "", x[0]), el("dd")); return e; },
      (e, x) => { put(e.children[1], x[1]); e.children[1].className = x[0] === "sha256" || x[0] === "module" ? "mono" : ""; });
  }

  function showPlugins(d) {
    const box = $("plugins");
    put($("n-plugins"), d.pluginCount > d.plugins.length ? "first " + d.plugins.length + " of " + d.pluginCount
      : d.plugins.length ? "in the order requests meet them" : "");
    if (d.plugins.length === 0) { empty(box, "No plugin yet. kubectl apply -f, or a WasmPlugin in the resource directory, brings one in."); return; }
    clearEmpty(box);
    const body = table(box, "Plugins in chain order", pluginColumns), made = new Map();
    const rows = d.plugins.flatMap((p) => [{ p, part: 0 }, { p, part: 1 }]);
    sync(body, rows, (r) => r.part + r.p.kind + title(r.p), (r) => {
      if (r.part === 0) made.set(r.p, pluginRow(r.p));
      return made.get(r.p)[r.part];
    }, (e, r) => r.part === 0 ? updatePlugin(e, r.p) : updateDetail(e, r.p, d.timeMillis));
  }

  // ---- routes ----

  const routeColumns = [["Route", ""], ["State", "wide"], ["Gateway", "wide"], ["Hosts", "wide"], ["Matches", "wide"], ["Backends", "wide"]];
  function list(e, texts) {
    let ul = e.querySelector("ul");
    if (!ul) { e.textContent = ""; ul = el("ul", "rules"); e.append(ul); }
    sync(ul, texts.map((text, i) => [String(i), text]), (t) => t[0], () => el("li"), (li, t) => put(li, t[1]));
  }
  function showRoutes(d) {
    const box = $("routes");
    put($("n-routes"), d.routeCount > d.routes.length ? "first " + d.routes.length + " of " + d.routeCount : "");
    if (d.routes.length === 0) { empty(box, "No HTTPRoute yet. Requests are answered 404."); return; }
    clearEmpty(box);
    sync(table(box, "Routes", routeColumns), d.routes, title, () => {
      const tr = el("tr"), th = el("th");
      th.scope = "row";
      th.append(el("span"));
      tr.append(th);
      routeColumns.slice(1).forEach((c) => tr.append(cell(c[0], c[1])));
      tr.children[1].append(el("div", "why"));
      tr.children[1].firstElementChild.className = "badge";
      return tr;
    }, (tr, r) => {
      const c = tr.children;
      name(c[0].firstElementChild, r);
      badge(c[1].firstElementChild, r);
      put(c[1].children[1], r.state === "bad" ? r.message || "" : "");
      show(c[1].children[1], r.state === "bad");
      put(c[2].firstElementChild, r.parents.join(", "));
      put(c[3].firstElementChild, r.hostnames.length ? r.hostnames.join(", ") : "any");
      const more = r.ruleCount > r.rules.length ? ["and " + (r.ruleCount - r.rules.length) + " more"] : [];
      list(c[4], r.rules.map((x) => x.match).concat(more));
      list(c[5], r.rules.map((x) => x.backends || "none"));
    });
  }

  // ---- events ----

  function showEvents(d) {
    const box = $("events");
    if (d.events.length === 0) { empty(box, "Nothing has happened yet."); return; }
    clearEmpty(box);
    sync(box, d.events, (e) => [e.kind, e.namespace, e.name, e.type, e.reason, e.message].join("\n"), () => {
      const li = el("li");
      li.append(el("time"), el("span", "reason"), el("span", "what"), el("span", "msg"));
      return li;
    }, (li, e) => {
      const when = Date.parse(e.lastTime);
      li.className = e.type === "Warning" ? "warning" : "normal";
      put(li.children[0], ago((d.timeMillis - when) / 1000) + " ago");
      li.children[0].dateTime = e.lastTime;
      li.children[0].title = new Date(when).toLocaleString();
      put(li.children[1], e.reason + (e.count > 1 ? " \u00d7" + e.count : ""));
      put(li.children[2], e.kind + " " + (e.namespace ? e.namespace + "/" : "") + e.name);
      put(li.children[3], e.message);
    });
  }

  // ---- the loop ----

  let last = null, heard = 0, failed = false;
  function showLink() {
    const quiet = Date.now() - heard, lost = heard !== 0 && failed && quiet > LOST_MS || heard === 0 && failed;
    const paused = document.hidden;
    mark($("pulse"), "live", paused ? "paused" : lost || failed ? "no" : heard ? "yes" : "no");
    put($("pulse-text"), paused ? "paused" : lost ? "connection lost" : heard ? "live" : "connecting");
    document.body.classList.toggle("stale", lost);
    show($("lost"), lost);
    if (lost) put($("lost"), heard ? "The connection is lost. What you see is " + ago(quiet / 1000) + " old. Trying again every second."
      : "The gateway does not answer. Trying again every second.");
  }
  async function poll() {
    try {
      const r = await fetch("/stats", { cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(5000) });
      if (!r.ok) throw new Error("status " + r.status);
      last = await r.json();
      heard = Date.now();
      failed = false;
      showHead(last);
      showTiles(last);
      showGateways(last);
      showPlugins(last);
      showRoutes(last);
      showEvents(last);
    } catch (e) {
      failed = true;
    }
    showLink();
  }
  async function run() {
    for (;;) {
      if (!document.hidden) await poll();
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }
  document.addEventListener("visibilitychange", () => { showLink(); if (!document.hidden) poll(); });
  run();
})();
