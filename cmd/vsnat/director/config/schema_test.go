// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

var compiled = sync.OnceValues(func() (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("vsnat.json", doc); err != nil {
		return nil, err
	}
	return c.Compile("vsnat.json")
})

// validate judges a text as an editor does that has the schema.
func validate(t *testing.T, text string) error {
	t.Helper()
	schema, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := yaml.UnmarshalWithOptions([]byte(strings.TrimPrefix(text, "\uFEFF")), &v); err != nil {
		return err
	}
	// Through JSON, so that numbers are what the validator takes for numbers.
	j, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if v, err = jsonschema.UnmarshalJSON(bytes.NewReader(j)); err != nil {
		return err
	}
	return schema.Validate(v)
}

// What the schema accepts and refuses the parser does too, as far as it is a matter
// of structure.
func TestSchemaAgrees(t *testing.T) {
	for name, text := range map[string]string{"reference": Reference(), "minimal": Minimal()} {
		if err := validate(t, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	structure := regexp.MustCompile(`unknown (key|setting)|is a (list|mapping|single value)|an entry of [a-z]+ is empty|has no value|needs (a destination|the mark)|` +
		`a service (needs an address|has one of)|a server needs|SNAT rule needs|(io|guard|compat|level|format|no-server|helper|on-server-down|method|tunnel|tunnel-checksum|proto) can't be|unknown scheduler`)
	checked := 0
	eachMistake(func(name, text, want string) {
		if !structure.MatchString(want) || strings.Contains(want, "the configuration is empty") {
			return
		}
		checked++
		if validate(t, text) == nil {
			t.Errorf("%s: the schema finds nothing wrong with %q", name, text)
		}
	})
	if checked < 40 {
		t.Errorf("only %d mistakes of structure", checked)
	}
}

// around has a place for keys at each path that has keys with words or needs.
var around = map[string]string{
	"": "%s", "log": "log: {%s}", "routes": "routes: [{%s}]", "snat": "snat: [{%s}]", "marks": "marks: [{%s}]",
	"services": "services: [{%s}]", "services.servers": "services: [{tcp: '192.0.2.1:80', servers: [{%s}]}]",
	"services.quorum": "services: [{tcp: '192.0.2.1:80', quorum: {%s}}]",
}

// besides is what stands beside the key in question, so that nothing else is wrong.
var besides = map[string]string{"services": "tcp: '192.0.2.1:80'", "services.servers": "address: 10.0.0.2", "services.quorum": "min: 1", "marks": "mark: 1"}

// The words are those of the parser: its hint for another one lists them.
func TestSchemaWords(t *testing.T) {
	for _, path := range slices.Sorted(maps.Keys(schemaWords)) {
		parent, key := "", path
		if i := strings.LastIndexByte(path, '.'); i >= 0 {
			parent, key = path[:i], path[i+1:]
		}
		keys := key + ": zzzz"
		if besides[parent] != "" {
			keys = besides[parent] + ", " + keys
		}
		text := fmt.Sprintf(around[parent], keys)
		_, err := Parse("f", []byte(text))
		var refused *Error
		if !errors.As(err, &refused) || len(refused.Problems) != 1 {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if want := "one of: " + strings.Join(schemaWords[path], ", "); refused.Problems[0].Hint != want {
			t.Errorf("%s: the schema has %q, the parser %q", path, want, refused.Problems[0].Hint)
		}
		if validate(t, text) == nil {
			t.Errorf("the schema accepts %s", text)
		}
		if text = strings.Replace(text, "zzzz", "'${ZZZZ}'", 1); validate(t, text) != nil {
			t.Errorf("the schema refuses %s", text)
		}
	}
}

// The limits of numbers are those of the parser.
func TestSchemaNumbers(t *testing.T) {
	for path, limits := range schemaNumbers {
		parent, key := "", path
		if i := strings.LastIndexByte(path, '.'); i >= 0 {
			parent, key = path[:i], path[i+1:]
		}
		for n, good := range map[int]bool{limits[0] - 1: false, limits[0]: true, limits[1]: true, limits[1] + 1: false} {
			keys := fmt.Sprintf("%s: %d", key, n)
			if besides[parent] != "" {
				keys = besides[parent] + ", " + keys
			}
			text := fmt.Sprintf(around[parent], keys)
			_, err := Parse("f", []byte(text))
			refused := err != nil && strings.Contains(err.Error(), fmt.Sprintf("\"%d\" is not possible here", n))
			if refused == good || (validate(t, text) == nil) != good {
				t.Errorf("%s: the parser says %v, the schema %v, want good: %v", text, err, validate(t, text), good)
			}
		}
	}
}

// What is needed the parser needs too, and where the schema needs nothing an empty
// mapping is enough for the parser.
func TestSchemaNeeds(t *testing.T) {
	for path, where := range around {
		_, err := Parse("f", []byte(fmt.Sprintf(where, "")))
		needs := err != nil && regexp.MustCompile(`needs|the configuration is empty`).MatchString(err.Error())
		if has := schemaNeeds[path] != nil || path == ""; has != needs {
			t.Errorf("%q: the schema needs %v, the parser says %v", path, schemaNeeds[path], err)
		}
	}
	for path, groups := range schemaNeeds {
		for _, group := range groups {
			text := fmt.Sprintf(around[path], "")
			if _, err := Parse("f", []byte(text)); err == nil || validate(t, text) == nil {
				t.Errorf("%s is accepted without %v: %v", text, group, err)
			}
		}
	}
}

// An editor that shows what a key means shows what the reference says.
func TestSchemaExplains(t *testing.T) {
	found := explanations(Reference())
	for path, want := range map[string]string{
		"io":                        "packet: read and write frames on the links. tun: one TUN device that the host's routes lead to.",
		"log.level":                 "debug, info, warn or error",
		"services.servers.weight":   "Share of new connections, 0 to 65535. 0: no new ones, the present ones stay. Default: 1.",
		"services.persistence.mask": "Which clients are one: a netmask, or for IPv6 the length of a prefix.",
		"services.servers":          "The real servers. An address without a port means the service's port.",
		"marks.interface":           "The link that it comes in by. Default: any.",
		"timeouts.sctp-cookie":      "",
	} {
		if found[path] != want {
			t.Errorf("%s: %q, want %q", path, found[path], want)
		}
	}
	if !bytes.Contains(Schema(), []byte("TUN device that the host's routes lead to")) {
		t.Error("the schema does not explain io")
	}
}
