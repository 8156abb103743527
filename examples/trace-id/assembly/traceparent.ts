// SPDX-License-Identifier: Apache-2.0
//
// The header traceparent: version "-" trace-id "-" parent-id "-" flags, in lower-case hexadecimal (W3C Trace Context, section 3.2).

export class TraceParent {
  id: string; // 32 digits
  flags: i32;

  constructor(id: string, flags: i32) {
    this.id = id;
    this.flags = flags;
  }

  // null: not valid. A version after 00 is read as 00, whatever follows its four fields.
  static parse(text: string): TraceParent | null {
    if (text.length < 55 || !isHex(text, 0, 2) || text.startsWith("ff")) return null;
    if (text.startsWith("00") ? text.length != 55 : text.length > 55 && !isDash(text, 55)) return null;
    if (!isDash(text, 2) || !isDash(text, 35) || !isDash(text, 52)) return null;
    if (!isHex(text, 3, 35) || !isHex(text, 36, 52) || !isHex(text, 53, 55)) return null;
    if (isZero(text, 3, 35) || isZero(text, 36, 52)) return null;
    let sampled = digit(text.charCodeAt(54)) & 1;
    return new TraceParent(text.substring(3, 35), sampled);
  }

  text(parent: string): string {
    return "00-" + this.id + "-" + parent + (this.flags != 0 ? "-01" : "-00");
  }
}

function isDash(text: string, at: i32): bool {
  return text.charCodeAt(at) == 0x2d;
}

function digit(c: i32): i32 {
  if (c >= 0x30 && c <= 0x39) return c - 0x30;
  if (c >= 0x61 && c <= 0x66) return c - 0x61 + 10;
  return -1;
}

function isHex(text: string, from: i32, to: i32): bool {
  for (let i = from; i < to; i++) {
    if (digit(text.charCodeAt(i)) < 0) return false;
  }
  return true;
}

function isZero(text: string, from: i32, to: i32): bool {
  for (let i = from; i < to; i++) {
    if (text.charCodeAt(i) != 0x30) return false;
  }
  return true;
}
