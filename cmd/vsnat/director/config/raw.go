// SPDX-License-Identifier: Apache-2.0

package config

import (
	"reflect"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// The raw layer: structs exactly as the file is written, every scalar as the
// text that stands there together with its place. decode fills them by their
// tags, so that a struct is the grammar of its mapping:
//
//	key:"name"        the key
//	key:"name,short"  a scalar in place of the whole mapping means this key
//
// What a text means is settled later, in parse.go, where a problem can
// be told with its place.

// text is a scalar as written. Its zero value is a key that is not there.
type text struct {
	value   string
	at      Position
	refused bool // something else stood there; it was told, and value is ""
}

// given reports whether the key was in the file.
func (t text) given() bool { return t.at.Line != 0 }

// words is a list of scalars; a single scalar is a list of one.
type words []text

// pairs is a mapping of scalars whose keys are not those of a struct.
type pairs []pair

type pair struct{ key, value text }

func (w words) values() []string {
	list := make([]string, len(w))
	for i, t := range w {
		list[i] = t.value
	}
	return list
}

// first is the place that problems of the whole list are told at.
func (w words) first() text {
	if len(w) == 0 {
		return text{}
	}
	return w[0]
}

type rawFile struct {
	Include       words        `key:"include"`
	Interfaces    words        `key:"interfaces"`
	IO            text         `key:"io"`
	Guard         text         `key:"guard"`
	Offload       text         `key:"offload"`
	Addresses     words        `key:"addresses"`
	Locals        words        `key:"local-addresses"`
	Routes        []rawRoute   `key:"routes"`
	MaxConns      text         `key:"max-conns"`
	Workers       text         `key:"workers"`
	Control       rawControl   `key:"control"`
	StateFile     text         `key:"state-file"`
	Log           rawLog       `key:"log"`
	Metrics       rawMetrics   `key:"metrics"`
	Timeouts      rawTimeouts  `key:"timeouts"`
	ICMPRate      text         `key:"icmp-rate"`
	Compat        text         `key:"compat"`
	Settings      pairs        `key:"settings"`
	Services      []rawService `key:"services"`
	CheckDefaults rawTiming    `key:"check-defaults"`
	ScriptUser    text         `key:"script-user"`
	SNAT          []rawSNAT    `key:"snat"`
	Marks         []rawMark    `key:"marks"`
	At            Position
}

type rawRoute struct {
	Destination text `key:"dst"`
	Via         text `key:"via"`
	Interface   text `key:"interface"`
	At          Position
}

type rawControl struct {
	Socket text `key:"socket,short"`
	Mode   text `key:"mode"`
	Group  text `key:"group"`
	At     Position
}

type rawLog struct {
	Level  text `key:"level,short"`
	Format text `key:"format"`
	At     Position
}

type rawTimeouts struct {
	Established text `key:"established"`
	SynSent     text `key:"syn-sent"`
	SynRecv     text `key:"syn-recv"`
	FinWait     text `key:"fin-wait"`
	TimeWait    text `key:"time-wait"`
	Close       text `key:"close"`
	CloseWait   text `key:"close-wait"`
	LastAck     text `key:"last-ack"`
	Listen      text `key:"listen"`
	SynAck      text `key:"synack"`
	UDP         text `key:"udp"`
	ICMP        text `key:"icmp"`

	SCTPInit1            text `key:"sctp-init1"`
	SCTPInit             text `key:"sctp-init"`
	SCTPCookieSent       text `key:"sctp-cookie-sent"`
	SCTPCookieReplied    text `key:"sctp-cookie-replied"`
	SCTPCookieWait       text `key:"sctp-cookie-wait"`
	SCTPCookie           text `key:"sctp-cookie"`
	SCTPCookieEchoed     text `key:"sctp-cookie-echoed"`
	SCTPEstablished      text `key:"sctp-established"`
	SCTPShutdownSent     text `key:"sctp-shutdown-sent"`
	SCTPShutdownReceived text `key:"sctp-shutdown-received"`
	SCTPShutdownAckSent  text `key:"sctp-shutdown-ack-sent"`
	SCTPRejected         text `key:"sctp-rejected"`
	SCTPClosed           text `key:"sctp-closed"`

	At Position
}

type rawService struct {
	TCP           text           `key:"tcp"`
	UDP           text           `key:"udp"`
	SCTP          text           `key:"sctp"`
	Mark          text           `key:"mark"`
	Mark6         text           `key:"mark6"`
	Scheduler     text           `key:"scheduler"`
	SchedFlags    words          `key:"sched-flags"`
	Persistence   rawPersistence `key:"persistence"`
	OnePacket     text           `key:"one-packet"`
	NoServer      text           `key:"no-server"`
	Helper        text           `key:"helper"`
	OnServerDown  text           `key:"on-server-down"`
	Passive       text           `key:"passive"`
	Idle          text           `key:"idle"`
	Check         rawCheck       `key:"check"`
	Checks        []rawCheck     `key:"checks"`
	Sorry         text           `key:"sorry"`
	SlowStart     text           `key:"slow-start"`
	Panic         text           `key:"panic"`
	Quorum        rawQuorum      `key:"quorum"`
	OnCheckFailed text           `key:"on-check-failed"`
	Start         text           `key:"start"`
	Servers       []rawServer    `key:"servers"`
	At            Position
}

type rawPersistence struct {
	Timeout text `key:"timeout,short"`
	Mask    text `key:"mask"`
	At      Position
}

type rawServer struct {
	Address text `key:"address,short"`
	Method  text `key:"method"`
	NAT     text `key:"nat"`
	Weight  text `key:"weight"`
	Upper   text `key:"upper"`
	Lower   text `key:"lower"`

	Tunnel         text `key:"tunnel"`
	TunnelPort     text `key:"tunnel-port"`
	TunnelChecksum text `key:"tunnel-checksum"`

	Check     rawCheck   `key:"check"`
	Checks    []rawCheck `key:"checks"`
	Unchecked text       `key:"unchecked"`

	At Position
}

// rawTiming is a mapping of its own, and a part of rawCheck.
type rawTiming struct {
	Interval text `key:"interval"`
	Timeout  text `key:"timeout"`
	Rise     text `key:"rise"`
	Fall     text `key:"fall"`
	HoldDown text `key:"hold-down"`
	Recheck  text `key:"recheck"`
	At       Position
}

type rawCheck struct {
	Type text `key:"type,short"`
	rawTiming
	Port       text  `key:"port"`
	Address    text  `key:"address"`
	URL        words `key:"url"`
	Method     text  `key:"method"`
	Headers    words `key:"headers"`
	Host       text  `key:"host"`
	ServerName text  `key:"server-name"`
	Status     words `key:"status"`
	Body       text  `key:"body"`
	BodyRegexp text  `key:"body-regexp"`
	Digest     text  `key:"digest"`
	Verify     text  `key:"verify"`
	HTTP2      text  `key:"http2"`
	Send       text  `key:"send"`
	Expect     text  `key:"expect"`
	Name       text  `key:"name"`
	Query      text  `key:"query"`
	Command    words `key:"command"`
	At         Position
}

type rawQuorum struct {
	Min        text  `key:"min,short"`
	Of         text  `key:"of"`
	Hysteresis text  `key:"hysteresis"`
	Up         words `key:"up"`
	Down       words `key:"down"`
	At         Position
}

type rawSNAT struct {
	From  text `key:"from"`
	To    text `key:"to"`
	Ports text `key:"ports"`
	At    Position
}

type rawMark struct {
	Mark      text `key:"mark"`
	Proto     text `key:"proto"`
	From      text `key:"from"`
	To        text `key:"to"`
	Ports     text `key:"ports"`
	Interface text `key:"interface"`
	At        Position
}

var (
	textType  = reflect.TypeFor[text]()
	wordsType = reflect.TypeFor[words]()
	pairsType = reflect.TypeFor[pairs]()
)

// decode fills into, an addressable text, words, pairs, slice or struct of this file,
// from a node. name is what the reader calls the thing: a key, or "this".
func decode(n ast.Node, into reflect.Value, name string, p *problems) {
	switch into.Type() {
	case textType:
		*into.Addr().Interface().(*text) = scalar(n, name, p)
		return
	case wordsType:
		if _, ok := n.(ast.ScalarNode); ok && n.Type() != ast.NullType {
			*into.Addr().Interface().(*words) = words{scalar(n, name, p)}
			return
		}
	}
	if into.Type() == pairsType {
		decodePairs(n, into.Addr().Interface().(*pairs), name, p)
		return
	}
	if into.Kind() == reflect.Slice {
		decodeList(n, into, name, p)
		return
	}
	decodeMapping(n, into, name, p)
}

// scalar is the text of a node.
func scalar(n ast.Node, name string, p *problems) text {
	at := start(n)
	switch n := n.(type) {
	case *ast.NullNode:
		p.add(at, "write a value after the colon, or remove the key", "%s has no value", name)
		return text{at: at, refused: true}
	case *ast.StringNode:
		value, ok := p.expand(n.Value, at)
		return text{value: value, at: at, refused: !ok}
	case ast.ScalarNode:
		// As written: 010 and 1_000 mean to us what they say.
		return text{value: n.GetToken().Value, at: at}
	}
	p.add(at, "a value in one line is expected here", "%s is %s", name, kind(n))
	return text{at: at, refused: true}
}

// decodeList fills a slice. Nothing after the colon is an empty list: what is
// left when all entries were commented out.
func decodeList(n ast.Node, into reflect.Value, name string, p *problems) {
	if n.Type() == ast.NullType {
		return
	}
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		p.add(start(n), "begin each entry with \"- \"", "%s is %s, not a list", name, kind(n))
		return
	}
	into.Grow(len(list.Values))
	for _, entry := range list.Values {
		if entry.Type() == ast.NullType {
			p.add(start(entry), "remove the dash, or write an entry after it", "an entry of %s is empty", name)
			continue
		}
		into.SetLen(into.Len() + 1)
		decode(entry, into.Index(into.Len()-1), "an entry of "+name, p)
	}
}

// decodeMapping fills a struct; its At stays zero if the node is no mapping.
func decodeMapping(n ast.Node, into reflect.Value, name string, p *problems) {
	at := into.FieldByName("At").Addr().Interface().(*Position)
	*at = start(n)
	switch n := n.(type) {
	case *ast.NullNode:
		return
	case *ast.MappingNode:
		seen := make(map[string]Position, len(n.Values))
		for _, pair := range n.Values {
			decodePair(pair, into, seen, p)
		}
		return
	case ast.ScalarNode:
		if i := short(into.Type()); i >= 0 {
			decode(n, into.Field(i), name, p)
			return
		}
	}
	*at = Position{}
	p.add(start(n), "keys here: "+strings.Join(names(into.Type()), ", "), "%s is %s, not a mapping of keys", name, kind(n))
}

// decodePairs fills pairs.
func decodePairs(n ast.Node, into *pairs, name string, p *problems) {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		if n.Type() != ast.NullType {
			p.add(start(n), "write \"name: value\"", "%s is %s, not a mapping of keys", name, kind(n))
		}
		return
	}
	seen := make(map[string]Position, len(m.Values))
	for _, v := range m.Values {
		key := text{value: v.Key.GetToken().Value, at: start(v)}
		if first, twice := seen[key.value]; twice {
			p.add(key.at, "remove one of them", "%.60q is given twice, first in %s", key.value, first.from(key.at))
			continue
		}
		seen[key.value] = key.at
		*into = append(*into, pair{key, scalar(v.Value, key.value, p)})
	}
}

// decodePair fills the field that one "key: value" names.
func decodePair(pair *ast.MappingValueNode, into reflect.Value, seen map[string]Position, p *problems) {
	key, at := pair.Key.GetToken().Value, start(pair)
	first, twice := seen[key]
	if twice {
		p.add(at, "remove one of them", "%.60q is given twice, first in %s", key, first.from(at))
		return
	}
	seen[key] = at
	i := field(into.Type(), key)
	if i == nil {
		p.add(at, oneOf(key, names(into.Type())), "unknown key %.60q", key)
		return
	}
	decode(pair.Value, into.FieldByIndex(i), key, p)
}

// field is the index of the field for a key of a raw struct, or nil.
func field(t reflect.Type, key string) []int {
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("key"), ","); name == key && name != "" {
			return f.Index
		}
	}
	return nil
}

// short is the index of the field that a scalar in place of the mapping
// stands for, or -1.
func short(t reflect.Type) int {
	for i := range t.NumField() {
		if strings.HasSuffix(t.Field(i).Tag.Get("key"), ",short") {
			return i
		}
	}
	return -1
}

// names are the keys of a raw struct in the order of its fields.
func names(t reflect.Type) []string {
	var list []string
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("key"), ","); name != "" {
			list = append(list, name)
		}
	}
	return list
}

// kind is what a node is, in the words of a message.
func kind(n ast.Node) string {
	switch n.(type) {
	case *ast.NullNode:
		return "empty"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	}
	return "a single value"
}
