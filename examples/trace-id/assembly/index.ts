// SPDX-License-Identifier: Apache-2.0
//
// trace-id: gives every request a W3C trace context and makes its trace id visible. Observability in AssemblyScript over
// @solo-io/proxy-runtime.
//
//   pluginConfig:
//     responseHeader: x-trace-id   # default; what the client gets the trace id in
//     sampled: true                # default; the flag of traces that start here
//
// A valid traceparent is continued: the same trace id and flags, a new parent id. One that is missing, malformed or repeated
// starts a new trace, and its tracestate is dropped (W3C Trace Context, section 3.2.2 and 4.3). The trace id goes to the upstream
// (traceparent), to the client (x-trace-id), to the log of the filter, and to the property "trace_id", which an access log prints
// with %FILTER_STATE(trace_id)%.
export * from "../node_modules/@solo-io/proxy-runtime/assembly/proxy";
import {
  BufferTypeValues,
  Context,
  FilterHeadersStatusValues,
  LogLevelValues,
  RootContext,
  get_buffer_bytes,
  log,
  registerRootContext,
  set_property,
  stream_context,
} from "../node_modules/@solo-io/proxy-runtime/assembly/runtime";
import { random_get } from "bindings/wasi_unstable";
import { TraceParent } from "./traceparent";
import { stringMember, boolMember } from "./config";

class Root extends RootContext {
  header: string = "x-trace-id";
  sampled: bool = true;

  // Not super.onConfigure: in 0.1.8 it takes the size of the configuration for an address and reads nothing.
  onConfigure(size: u32): bool {
    let text = String.UTF8.decode(get_buffer_bytes(BufferTypeValues.PluginConfiguration, 0, size));
    this.header = stringMember(text, "responseHeader", "x-trace-id").toLowerCase();
    this.sampled = boolMember(text, "sampled", true);
    if (this.header.length == 0 || this.header.charCodeAt(0) == 0x3a /* : */) {
      log(LogLevelValues.error, "pluginConfig: responseHeader must be the name of a header");
      return false;
    }
    return true;
  }

  createContext(id: u32): Context {
    return new Stream(id, this);
  }
}

class Stream extends Context {
  root: Root;
  trace: TraceParent | null = null;
  method: string = "";
  path: string = "";
  status: string = "-";

  constructor(id: u32, root: Root) {
    super(id, root);
    this.root = root;
  }

  onRequestHeaders(count: u32, end: bool): FilterHeadersStatusValues {
    let headers = stream_context.headers.request;
    let trace = TraceParent.parse(onlyValue("traceparent"));
    if (trace === null) {
      headers.remove("tracestate");
      trace = new TraceParent(randomHex(16), this.root.sampled ? 1 : 0);
    }
    this.trace = trace;
    headers.replace("traceparent", trace.text(randomHex(8)));
    set_property("trace_id", String.UTF8.encode(trace.id));
    this.method = headers.get(":method");
    this.path = headers.get(":path");
    return FilterHeadersStatusValues.Continue;
  }

  onResponseHeaders(count: u32, end: bool): FilterHeadersStatusValues {
    let trace = this.trace;
    this.status = stream_context.headers.response.get(":status");
    if (trace !== null) {
      stream_context.headers.response.replace(this.root.header, trace.id);
    }
    return FilterHeadersStatusValues.Continue;
  }

  onLog(): void {
    let trace = this.trace;
    if (trace !== null) {
      log(LogLevelValues.info, "trace_id=" + trace.id + " " + this.method + " " + this.path + " " + this.status);
    }
  }

  onDone(): bool {
    return true;
  }

  onDelete(): void {}
}

// The value of the request header when it is there once; else "".
function onlyValue(name: string): string {
  let all = stream_context.headers.request.get_headers();
  let value = "";
  let found = 0;
  for (let i = 0; i < all.length; i++) {
    if (String.UTF8.decode(all[i].key) == name) {
      value = String.UTF8.decode(all[i].value);
      found++;
    }
  }
  return found == 1 ? value : "";
}

// The given number of random bytes, not all zero, as hexadecimal digits.
function randomHex(bytes: i32): string {
  let raw = new Uint8Array(bytes);
  if (random_get(raw.dataStart, bytes) != 0) throw new Error("no random numbers");
  raw[0] |= 1;
  let text = "";
  for (let i = 0; i < bytes; i++) {
    text += HEX.charAt(raw[i] >> 4) + HEX.charAt(raw[i] & 15);
  }
  return text;
}

const HEX = "0123456789abcdef";

registerRootContext((id: u32) => new Root(id), "");
registerRootContext((id: u32) => new Root(id), "trace-id");
