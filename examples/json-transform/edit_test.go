// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"testing"
)

func TestRemove(t *testing.T) {
	for _, c := range []struct{ path, text, want string }{
		{"a", `{"a":1}`, `{}`},
		{"a", `{ "b" : 1.0e400 , "a":1, "c":"\u00e9" }`, `{"b":1.0e400,"c":"\u00e9"}`},
		{"a.b", `{"a":{"b":1,"c":9007199254740993}}`, `{"a":{"c":9007199254740993}}`},
		{"a.b", `[{"a":[{"b":1},{"c":2}]},3,{"a":null}]`, `[{"a":[{},{"c":2}]},3,{"a":null}]`},
		{"password", `{"p\u0061ssword":1,"password":2}`, `{}`},
		{"a.b", `{"a":"text"}`, `{"a":"text"}`},
		{"a", `"a"`, `"a"`},
	} {
		got, _, err := removeField(json.RawMessage(c.text), splitPath(c.path))
		if err != nil || string(got) != c.want {
			t.Errorf("%s without %s: %s, %v; want %s", c.text, c.path, got, err, c.want)
		}
	}
}

func TestSet(t *testing.T) {
	for _, c := range []struct{ path, text, want string }{
		{"a", `{}`, `{"a":7}`},
		{"a", `{"a":1,"b":2,"a":3}`, `{"a":7,"b":2}`},
		{"a.b.c", `{"z":1}`, `{"z":1,"a":{"b":{"c":7}}}`},
		{"a.b", `{"a":"text"}`, `{"a":{"b":7}}`},
		{"a", `[{},5]`, `[{"a":7},5]`},
	} {
		got, err := setField(json.RawMessage(c.text), splitPath(c.path), json.RawMessage("7"))
		if err != nil || string(got) != c.want {
			t.Errorf("%s with %s: %s, %v; want %s", c.text, c.path, got, err, c.want)
		}
	}
}

func TestNotJSON(t *testing.T) {
	for _, text := range []string{"", "{", "{} {}", "{\"a\":}", "\xff"} {
		if checkJSON([]byte(text)) == nil {
			t.Errorf("%q was taken for JSON", text)
		}
	}
}
