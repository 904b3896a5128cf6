// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
	"github.com/vsnat/vsnat/sched"
)

// The grammar as a JSON Schema, for editors. It is made from the raw structs, which
// are the grammar, and its explanations are those of the reference, so that neither
// can say anything else than the parser. What a text must mean, as an address, it
// leaves to vsnat config check.

// schemaWords are the words that a key may have, by its path.
var schemaWords = map[string][]string{
	"io":                               {string(IOPacket), string(IOTUN)},
	"offload":                          {string(OffloadAuto), string(OffloadTCX), string(OffloadNone)},
	"guard":                            {string(GuardAuto), string(GuardNFT), string(GuardSocket), string(GuardNone)},
	"compat":                           {string(CompatNone), string(CompatIPVS)},
	"log.level":                        {"debug", "info", "warn", "error"},
	"log.format":                       {string(LogText), string(LogJSON)},
	"services.scheduler":               sched.Names(),
	"services.one-packet":              {"true", "false"},
	"services.no-server":               {control.NoServerICMP, control.NoServerReset},
	"services.helper":                  {control.HelperNone, control.HelperFTP},
	"services.on-server-down":          {control.ServerDownKeep, control.ServerDownReset, control.ServerDownRepick},
	"services.passive":                 {control.PassiveOn, control.PassiveOff},
	"services.on-check-failed":         {OnFailedInhibit, OnFailedRemove},
	"services.start":                   {StartUnknown, StartUp},
	"services.quorum.of":               {QuorumOfServers, QuorumOfWeights},
	"services.servers.nat":             {control.NATMasquerade, control.NATFull, control.NATAuto},
	"services.servers.method":          {control.MethodNAT, control.MethodRoute, control.MethodTunnel},
	"services.servers.tunnel":          {control.TunnelIPIP, control.TunnelGRE, control.TunnelGUE},
	"services.servers.tunnel-checksum": {control.ChecksumNone, control.ChecksumAll, control.ChecksumRemote},
	"marks.proto":                      {control.TCP, control.UDP, control.SCTP},
}

// schemaNumbers are the least and the greatest number that a key may have, by its path.
var schemaNumbers = map[string][2]int{
	"max-conns":                    {1, MaxMaxConns},
	"workers":                      {1, MaxWorkers},
	"icmp-rate":                    {0, maxICMPRate},
	"services.servers.weight":      {0, control.MaxWeight},
	"services.servers.upper":       {0, maxThreshold},
	"services.servers.lower":       {0, maxThreshold},
	"services.servers.tunnel-port": {1, 65535},
}

// schemaNeeds are the keys that a mapping must have, by its path. Of those in one
// group it has exactly one.
var schemaNeeds = map[string][][]string{
	"routes":           {{"dst"}},
	"services":         {protocols},
	"services.servers": {{"address"}},
	"services.quorum":  {{"min"}},
	"snat":             {{"from"}, {"to"}},
	"marks":            {{"mark"}},
}

const schemaDialect = "https://json-schema.org/draft/2020-12/schema"

// object is a JSON object. Its keys are written in alphabetical order.
type object map[string]any

// Schema is a JSON Schema of the configuration file.
func Schema() []byte {
	s := schemaWriter{explained: explanations(reference)}
	root := s.mapping(reflect.TypeFor[rawFile](), "")
	root["$schema"] = schemaDialect
	root["title"] = "vsnat configuration"
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(err) // nothing in it can fail
	}
	return append(text, '\n')
}

type schemaWriter struct{ explained map[string]string }

// value is the schema of what stands behind a key.
func (s schemaWriter) value(t reflect.Type, path string) object {
	switch {
	case t == textType:
		return s.scalar(path)
	case t == wordsType:
		return object{"anyOf": []object{s.scalar(path), {"type": "array", "items": s.scalar(path)}, {"type": "null"}}}
	case t == pairsType:
		return object{"anyOf": []object{{"type": "object", "additionalProperties": false, "properties": s.settings()}, {"type": "null"}}}
	case t.Kind() == reflect.Slice:
		entry := s.mapping(t.Elem(), path)
		if short(t.Elem()) >= 0 {
			entry = object{"anyOf": []object{{"type": []string{"string", "number", "boolean"}}, entry}}
		}
		return object{"anyOf": []object{{"type": "array", "items": entry}, {"type": "null"}}}
	}
	forms := []object{s.mapping(t, path), {"type": "null"}}
	if i := short(t); i >= 0 {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("key"), ",")
		forms = append(forms, s.scalar(path+"."+name))
	}
	return object{"anyOf": forms}
}

// scalar is a value of one line: one of some words, a number, or anything. A reference to
// the environment may stand for each.
func (s schemaWriter) scalar(path string) object {
	if limits, ok := schemaNumbers[path]; ok {
		return object{"anyOf": []object{
			{"type": "integer", "minimum": limits[0], "maximum": limits[1]},
			{"type": "string", "pattern": `^[0-9]+$|\$\{`},
		}}
	}
	words := schemaWords[path]
	if words == nil {
		return object{"type": []string{"string", "number", "boolean"}}
	}
	values := make([]any, len(words))
	for i, w := range words {
		values[i] = w
	}
	if slices.Contains(words, "true") {
		values = append(values, true, false) // as YAML reads the words
	}
	return object{"anyOf": []object{{"enum": values}, {"type": "string", "pattern": `\$\{`}}}
}

func (s schemaWriter) mapping(t reflect.Type, path string) object {
	properties := object{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("key"), ",")
		if name == "" {
			continue
		}
		inner := strings.TrimPrefix(path+"."+name, ".")
		v := s.value(f.Type, inner)
		if text := s.explained[inner]; text != "" {
			v["description"] = text
		}
		properties[name] = v
	}
	m := object{"type": "object", "additionalProperties": false, "properties": properties}
	var all []string
	for _, group := range schemaNeeds[path] {
		if len(group) == 1 {
			all = append(all, group[0])
			continue
		}
		var one []object
		for _, name := range group {
			one = append(one, object{"required": []string{name}})
		}
		m["oneOf"] = one
	}
	if all != nil {
		m["required"] = all
	}
	return m
}

func (s schemaWriter) settings() object {
	properties := object{}
	for _, known := range settings {
		properties[known.name] = object{"type": []string{"string", "number", "boolean"}, "description": known.meaning}
	}
	for _, name := range slices.Sorted(maps.Keys(inert)) {
		properties[name] = object{"type": []string{"string", "number", "boolean"}, "description": "no meaning here: " + inert[name].reason}
	}
	return properties
}

// explanations are the comments of the reference by the path of the key that they
// stand before, or behind.
func explanations(text string) map[string]string {
	found := make(map[string]string)
	type level struct {
		indent int
		path   string
	}
	var open []level
	var comment []string
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		if behind, ok := strings.CutPrefix(trimmed, "#"); ok {
			comment = append(comment, strings.TrimSpace(behind))
			continue
		}
		content := strings.TrimLeft(line, " -")
		key, rest, isKey := strings.Cut(content, ":")
		if !isKey {
			comment = nil
			continue
		}
		indent := len(line) - len(content)
		for len(open) > 0 && open[len(open)-1].indent >= indent {
			open = open[:len(open)-1]
		}
		path := key
		if len(open) > 0 {
			path = open[len(open)-1].path + "." + key
		}
		open = append(open, level{indent, path})
		if _, behind, ok := strings.Cut(rest, "#"); ok && comment == nil {
			comment = []string{strings.TrimSpace(behind)}
		}
		if found[path] == "" {
			found[path] = strings.Join(comment, " ")
		}
		comment = nil
	}
	return found
}
