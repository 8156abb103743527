// SPDX-License-Identifier: Apache-2.0

// json-transform: renames, sets and removes request headers, sets fields of JSON request bodies and removes fields of JSON
// response bodies. Transformation in Go over proxy-wasm-go-sdk.
//
//	pluginConfig:
//	  request:
//	    headers:
//	      rename: {x-old-name: x-new-name}   # all values; a client's own x-new-name is dropped
//	      set:    {x-gateway: weir}
//	      remove: [x-internal]
//	    body:
//	      set:    {meta.gateway: weir}       # path: any JSON value; the objects on the way are made
//	  response:
//	    body:
//	      remove: [user.password, debug]     # through an array a path goes into each element
//
// Headers are renamed, then removed, then set. A body is edited when its Content-Type is application/json or ends in +json; it is
// held until it is whole, so it may be as large as the gateway buffers (more is 413 or 500), and its Content-Length goes, since its
// length changes. A request body that is not JSON passes as it is. A response that says it is JSON but is not, or is compressed,
// cannot be cleaned, so {"error":"response withheld"} goes out in its place; Accept-Encoding and Range are removed from requests,
// so that this does not happen with honest upstreams.
package main

import (
	"encoding/json"
	"fmt"
	"math"
	"sort"
	"strings"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"
)

func main() {}

func init() {
	proxywasm.SetPluginContext(func(uint32) types.PluginContext { return &plugin{} })
}

type config struct {
	Request struct {
		Headers struct {
			Rename map[string]string `json:"rename"`
			Set    map[string]string `json:"set"`
			Remove []string          `json:"remove"`
		} `json:"headers"`
		Body struct {
			Set map[string]json.RawMessage `json:"set"`
		} `json:"body"`
	} `json:"request"`
	Response struct {
		Body struct {
			Remove []string `json:"remove"`
		} `json:"body"`
	} `json:"response"`
}

type bodySet struct {
	path  []string
	value json.RawMessage
}

type plugin struct {
	types.DefaultPluginContext
	config config
	sets   []bodySet  // of request bodies, in the order of their paths
	drops  [][]string // of response bodies
}

func (p *plugin) OnPluginStart(int) types.OnPluginStartStatus {
	text, err := proxywasm.GetPluginConfiguration()
	if err == nil && len(text) > 0 {
		err = p.configure(text)
	}
	if err != nil {
		proxywasm.LogErrorf("pluginConfig: %v", err)
		return types.OnPluginStartStatusFailed
	}
	return types.OnPluginStartStatusOK
}

func (p *plugin) configure(text []byte) error {
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p.config); err != nil {
		return err
	}
	h := &p.config.Request.Headers
	names := append([]string{}, h.Remove...)
	for from, to := range h.Rename {
		names = append(names, from, to)
	}
	for name := range h.Set {
		names = append(names, name)
	}
	for _, name := range names {
		if name == "" || name[0] == ':' {
			return fmt.Errorf("%q cannot be a header to edit", name)
		}
	}
	sources := map[string]bool{}
	for from := range h.Rename {
		sources[strings.ToLower(from)] = true
	}
	for _, to := range h.Rename {
		if sources[strings.ToLower(to)] { // which came first would matter
			return fmt.Errorf("%q is renamed and a new name", to)
		}
	}
	for path, value := range p.config.Request.Body.Set {
		p.sets = append(p.sets, bodySet{splitPath(path), value})
	}
	sort.Slice(p.sets, func(i, j int) bool {
		return strings.Join(p.sets[i].path, ".") < strings.Join(p.sets[j].path, ".")
	})
	for _, path := range p.config.Response.Body.Remove {
		p.drops = append(p.drops, splitPath(path))
	}
	return nil
}

func (p *plugin) NewHttpContext(uint32) types.HttpContext { return &stream{plugin: p} }

type stream struct {
	types.DefaultHttpContext
	plugin                    *plugin
	editRequest, editResponse bool
	compressed                bool
}

func isJSON(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	return kind == "application/json" || strings.HasSuffix(kind, "+json")
}

// warn is for edits that a host refuses: the stream goes on, somebody reads why.
func warn(err error) {
	if err != nil {
		proxywasm.LogWarnf("an edit was refused: %v", err)
	}
}

func (s *stream) OnHttpRequestHeaders(_ int, end bool) types.Action {
	s.editHeaders()
	if len(s.plugin.drops) > 0 {
		warn(proxywasm.RemoveHttpRequestHeader("accept-encoding"))
		warn(proxywasm.RemoveHttpRequestHeader("range"))
	}
	kind, _ := proxywasm.GetHttpRequestHeader("content-type")
	coding, _ := proxywasm.GetHttpRequestHeader("content-encoding")
	if s.editRequest = !end && len(s.plugin.sets) > 0 && isJSON(kind) && coding == ""; s.editRequest {
		warn(proxywasm.RemoveHttpRequestHeader("content-length"))
	}
	return types.ActionContinue
}

func (s *stream) editHeaders() {
	h := &s.plugin.config.Request.Headers
	if len(h.Rename) > 0 {
		all, err := proxywasm.GetHttpRequestHeaders()
		warn(err)
		for from, to := range h.Rename {
			rename(all, strings.ToLower(from), strings.ToLower(to))
		}
	}
	for _, name := range h.Remove {
		warn(proxywasm.RemoveHttpRequestHeader(name))
	}
	for name, value := range h.Set {
		warn(proxywasm.ReplaceHttpRequestHeader(name, value))
	}
}

func rename(all [][2]string, from, to string) {
	warn(proxywasm.RemoveHttpRequestHeader(to))
	for _, header := range all {
		if header[0] == from {
			warn(proxywasm.AddHttpRequestHeader(to, header[1]))
		}
	}
	warn(proxywasm.RemoveHttpRequestHeader(from))
}

func (s *stream) OnHttpRequestBody(_ int, end bool) types.Action {
	if !s.editRequest {
		return types.ActionContinue
	}
	if !end {
		return types.ActionPause
	}
	s.finishRequest()
	return types.ActionContinue
}

// Trailers: then no body callback had the end of the stream, and the whole body is still held.
func (s *stream) OnHttpRequestTrailers(int) types.Action {
	if s.editRequest {
		s.finishRequest()
	}
	return types.ActionContinue
}

func (s *stream) finishRequest() {
	body, err := proxywasm.GetHttpRequestBody(0, math.MaxInt32)
	if err == nil {
		err = checkJSON(body)
	}
	out := json.RawMessage(body)
	for _, set := range s.plugin.sets {
		if err == nil {
			out, err = setField(out, set.path, set.value)
		}
	}
	if err != nil {
		proxywasm.LogWarnf("a request body passes as it is: %v", err)
		return
	}
	warn(proxywasm.ReplaceHttpRequestBody(out))
}

func (s *stream) OnHttpResponseHeaders(_ int, end bool) types.Action {
	kind, _ := proxywasm.GetHttpResponseHeader("content-type")
	if s.editResponse = !end && len(s.plugin.drops) > 0 && isJSON(kind); !s.editResponse {
		return types.ActionContinue
	}
	coding, _ := proxywasm.GetHttpResponseHeader("content-encoding")
	if s.compressed = coding != "" && !strings.EqualFold(coding, "identity"); s.compressed {
		warn(proxywasm.RemoveHttpResponseHeader("content-encoding"))
	}
	for _, name := range []string{"content-length", "etag", "digest", "content-digest", "content-md5", "accept-ranges"} {
		warn(proxywasm.RemoveHttpResponseHeader(name)) // all of them are of the bytes before
	}
	return types.ActionContinue
}

func (s *stream) OnHttpResponseBody(_ int, end bool) types.Action {
	if !s.editResponse {
		return types.ActionContinue
	}
	if !end {
		return types.ActionPause
	}
	s.finishResponse()
	return types.ActionContinue
}

func (s *stream) OnHttpResponseTrailers(int) types.Action {
	if s.editResponse {
		s.finishResponse()
	}
	return types.ActionContinue
}

func (s *stream) finishResponse() {
	body, err := proxywasm.GetHttpResponseBody(0, math.MaxInt32)
	if err != nil { // nothing to clean and nothing to replace: not every host shows a held body when trailers come
		cut(err)
		return
	}
	out, changed, err := s.cleaned(body)
	if err != nil {
		proxywasm.LogWarnf("a response is withheld: %v", err)
		out, changed = json.RawMessage(`{"error":"response withheld"}`), true
	}
	if !changed {
		return
	}
	if err = proxywasm.ReplaceHttpResponseBody(out); err != nil {
		cut(err)
	}
}

// cut ends a response that can be neither cleaned nor withheld; after its head this resets the stream.
func cut(err error) {
	proxywasm.LogWarnf("a response is cut: %v", err)
	warn(proxywasm.SendHttpResponse(500, nil, nil, -1))
}

// cleaned is the response body without the fields to drop, and whether it had any.
func (s *stream) cleaned(body []byte) (json.RawMessage, bool, error) {
	if s.compressed {
		return nil, false, fmt.Errorf("it is compressed")
	}
	err := checkJSON(body)
	out, changed := json.RawMessage(body), false
	for _, path := range s.plugin.drops {
		did := false
		if err == nil {
			out, did, err = removeField(out, path)
		}
		changed = changed || did
	}
	return out, changed, err
}
