// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
)

// A JSON text is edited along a path, object by object; what is not on the path keeps its bytes, so that numbers, key order and
// escapes pass as they came. Keys are compared decoded ("a" is a key), and a duplicate key counts as the key.

var errNotJSON = errors.New("not one JSON text")

type member struct {
	rawKey, key string
	value       json.RawMessage
}

func splitPath(path string) []string { return strings.Split(path, ".") }

// checkJSON refuses what the editing below would misread: anything but one JSON text.
func checkJSON(text []byte) error {
	if !json.Valid(text) {
		return errNotJSON
	}
	return nil
}

// removeField takes away the field at path; through an array it goes into each element.
func removeField(text json.RawMessage, path []string) (json.RawMessage, bool, error) {
	return edit(text, path, nil)
}

// setField sets the field at path to value, and makes the objects on the way to it where there is nothing (or no object).
func setField(text json.RawMessage, path []string, value json.RawMessage) (json.RawMessage, error) {
	out, _, err := edit(text, path, value)
	return out, err
}

// edit returns text with the field at path set to value, or removed when value is nil, and whether that changed it.
func edit(text json.RawMessage, path []string, value json.RawMessage) (json.RawMessage, bool, error) {
	text = bytes.TrimSpace(text)
	switch {
	case len(text) == 0:
		return text, false, errNotJSON
	case text[0] == '[':
		return editArray(text, path, value)
	case text[0] == '{':
		return editObject(text, path, value)
	case value == nil:
		return text, false, nil
	}
	return editObject(json.RawMessage("{}"), path, value)
}

func editArray(text json.RawMessage, path []string, value json.RawMessage) (json.RawMessage, bool, error) {
	var elements []json.RawMessage
	if err := json.Unmarshal(text, &elements); err != nil {
		return text, false, err
	}
	changed := false
	for i, element := range elements {
		element = bytes.TrimSpace(element)
		if element[0] != '{' && element[0] != '[' { // an edit is for objects: [1, 2] stays
			continue
		}
		out, did, err := edit(element, path, value)
		if err != nil {
			return text, false, err
		}
		elements[i] = out
		changed = changed || did
	}
	if !changed {
		return text, false, nil
	}
	var out bytes.Buffer
	out.WriteByte('[')
	for i, element := range elements {
		if i > 0 {
			out.WriteByte(',')
		}
		out.Write(element)
	}
	out.WriteByte(']')
	return out.Bytes(), true, nil
}

func editObject(text json.RawMessage, path []string, value json.RawMessage) (json.RawMessage, bool, error) {
	members, err := readObject(text)
	if err != nil {
		return text, false, err
	}
	kept, found, changed := members[:0], false, false
	for _, m := range members {
		if m.key != path[0] {
			kept = append(kept, m)
			continue
		}
		if value != nil && found { // a duplicate of what was set
			changed = true
			continue
		}
		found = true
		did := true
		if len(path) > 1 {
			if m.value, did, err = edit(m.value, path[1:], value); err != nil {
				return text, false, err
			}
		} else {
			m.value = value
		}
		changed = changed || did
		if m.value != nil {
			kept = append(kept, m)
		}
	}
	if value != nil && !found {
		rawKey, _ := json.Marshal(path[0])
		for i := len(path) - 1; i > 0; i-- {
			inner, _ := json.Marshal(map[string]json.RawMessage{path[i]: value})
			value = inner
		}
		kept = append(kept, member{rawKey: string(rawKey), value: value})
		changed = true
	}
	if !changed {
		return text, false, nil
	}
	return writeObject(kept), true, nil
}

func readObject(text json.RawMessage) ([]member, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	if _, err := dec.Token(); err != nil { // {
		return nil, err
	}
	var members []member
	for dec.More() {
		at := dec.InputOffset()
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		m := member{key: key.(string), rawKey: strings.TrimLeft(string(text[at:dec.InputOffset()]), ", \t\r\n")}
		if err := dec.Decode(&m.value); err != nil {
			return nil, err
		}
		members = append(members, m)
	}
	if _, err := dec.Token(); err != nil && err != io.EOF { // }
		return nil, err
	}
	return members, nil
}

func writeObject(members []member) json.RawMessage {
	var out bytes.Buffer
	out.WriteByte('{')
	for i, m := range members {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteString(m.rawKey)
		out.WriteByte(':')
		out.Write(m.value)
	}
	out.WriteByte('}')
	return out.Bytes()
}
