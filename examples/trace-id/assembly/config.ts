// SPDX-License-Identifier: Apache-2.0
//
// pluginConfig without a JSON library: members of a flat object with values that have no escapes.

// What follows "name": in text, without white space before it; "" when it is not there.
function after(text: string, name: string): string {
  let quoted = '"' + name + '"';
  let at = text.indexOf(quoted);
  if (at < 0) return "";
  let rest = text.substring(at + quoted.length).trimStart();
  return rest.startsWith(":") ? rest.substring(1).trimStart() : "";
}

export function stringMember(text: string, name: string, otherwise: string): string {
  let rest = after(text, name);
  if (!rest.startsWith('"')) return otherwise;
  let end = rest.indexOf('"', 1);
  return end < 0 ? otherwise : rest.substring(1, end);
}

export function boolMember(text: string, name: string, otherwise: bool): bool {
  let rest = after(text, name);
  return rest.startsWith("true") ? true : rest.startsWith("false") ? false : otherwise;
}
