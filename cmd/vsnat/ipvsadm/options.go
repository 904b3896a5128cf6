// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import "math/bits"

// An optionID names an option in messages and in the table of legal
// combinations. Several words may share one: -t, -u and -f all give the service.
type optionID uint8

const (
	optNumeric optionID = iota
	optConnection
	optServiceAddress
	optScheduler
	optPersistent
	optNetmask
	optRealServer
	optForwardingMethod
	optWeight
	optUpperThreshold
	optLowerThreshold
	optMcastInterface
	optTimeout
	optDaemon
	optStats
	optRate
	optThresholds
	optPersistentConn
	optNosort
	optSyncID
	optExact
	optOnePacket
	optEngine
	optSchedFlags
	optMcastGroup
	optMcastPort
	optMcastTTL
	optSyncMaxLen
	optTunInfo
	optTunType
	optTunPort
	optTunNoChecksum
	optTunChecksum
	optTunRemoteChecksum
	numOptions

	noOption // a word that may stand with every command, any number of times
)

// A legality is one option's row in the table of legal combinations: one
// character for each verb.
type legality struct {
	name  string
	verbs string
}

// legal is the table. The verbs are add, edit and delete service, Clear, List,
// add, delete and edit server, seT, Start and Stop daemon, Restore, Save, Zero.
//
//   - must be given
//     o  may be given
//     1  may be given, but only one of those marked so
//   - must not be given
var legal = [numOptions]legality{
	//                                    AEDCLadeTSSRSZ
	optNumeric:           {"numeric", "----o-------o-"},
	optConnection:        {"connection", "----1---------"},
	optServiceAddress:    {"service-address", "+++-1+++-----o"},
	optScheduler:         {"scheduler", "oo------------"},
	optPersistent:        {"persistent", "oo------------"},
	optNetmask:           {"netmask", "oo------------"},
	optRealServer:        {"real-server", "-----+++------"},
	optForwardingMethod:  {"forwarding-method", "-----o-o------"},
	optWeight:            {"weight", "-----o-o------"},
	optUpperThreshold:    {"u-threshold", "-----o-o------"},
	optLowerThreshold:    {"l-threshold", "-----o-o------"},
	optMcastInterface:    {"mcast-interface", "---------o----"},
	optTimeout:           {"timeout", "----1---------"},
	optDaemon:            {"daemon", "----1---------"},
	optStats:             {"stats", "----o---------"},
	optRate:              {"rate", "----o---------"},
	optThresholds:        {"thresholds", "----o---------"},
	optPersistentConn:    {"persistent-conn", "----o---------"},
	optNosort:            {"nosort", "----o---------"},
	optSyncID:            {"syncid", "----o----oo---"},
	optExact:             {"exact", "----o---------"},
	optOnePacket:         {"ops", "oo------------"},
	optEngine:            {"pe", "oo------------"},
	optSchedFlags:        {"sched-flags", "oo------------"},
	optMcastGroup:        {"mcast-group", "---------o----"},
	optMcastPort:         {"mcast-port", "---------o----"},
	optMcastTTL:          {"mcast-ttl", "---------o----"},
	optSyncMaxLen:        {"sync-maxlen", "---------o----"},
	optTunInfo:           {"tun-info", "----o---------"},
	optTunType:           {"tun-type", "-----o-o------"},
	optTunPort:           {"tun-port", "-----o-o------"},
	optTunNoChecksum:     {"tun-nocsum", "-----o-o------"},
	optTunChecksum:       {"tun-csum", "-----o-o------"},
	optTunRemoteChecksum: {"tun-remcsum", "-----o-o------"},
}

// An optionSet is the options that were given.
type optionSet uint64

func (s optionSet) has(ids ...optionID) bool {
	for _, id := range ids {
		if s&(1<<id) != 0 {
			return true
		}
	}
	return false
}

// check compares what was given with the table of legal combinations.
func (s optionSet) check(v Verb) error {
	var exclusive optionSet
	for id := range numOptions {
		switch mark := legal[id].verbs[v]; {
		case mark == '+' && !s.has(id):
			return wrong("You need to supply the '%s' option for the '%s' command", legal[id].name, v)
		case mark == '-' && s.has(id):
			return wrong("Illegal '%s' option with the '%s' command", legal[id].name, v)
		case mark == '1' && s.has(id):
			if exclusive != 0 {
				first := legal[bits.TrailingZeros64(uint64(exclusive))].name
				return wrong("The option '%s' conflicts with the '%s' option in the '%s' command", legal[id].name, first, v)
			}
			exclusive |= 1 << id
		}
	}
	if v == List && (s.has(optConnection, optTimeout, optDaemon) && s.has(optStats, optRate, optThresholds) ||
		s.has(optTimeout, optDaemon) && s.has(optPersistentConn)) {
		return wrong("options conflicts in the list command")
	}
	return nil
}

// tunnelLegal is the table of the options of a tunnel: of ipip, GUE and GRE, as
// that of the verbs.
var tunnelLegal = []struct {
	id    optionID
	types string
}{
	{optTunPort, "-+-"},
	{optTunNoChecksum, "-11"},
	{optTunChecksum, "-11"},
	{optTunRemoteChecksum, "-1-"},
}

// checkTunnel compares what was given with that table.
func (s optionSet) checkTunnel(t TunnelType) error {
	first := ""
	for _, row := range tunnelLegal {
		name := legal[row.id].name
		switch mark := row.types[t]; {
		case mark == '+' && !s.has(row.id):
			return wrong("You need to supply the '%s' option for the '%s' tunnel type", name, t)
		case mark == '-' && s.has(row.id):
			return wrong("Illegal '%s' option with the '%s' tunnel type", name, t)
		case mark == '1' && s.has(row.id):
			if first != "" {
				return wrong("The option '%s' conflicts with the '%s' option in the '%s' tunnel type", name, first, t)
			}
			first = name
		}
	}
	return nil
}

// A value says whether a word takes one.
type value uint8

const (
	none value = iota
	required
	optional // the next word, unless it begins with "-"
)

// A word is a way to write a command or an option.
type word struct {
	long  string
	short byte // 0: none
	value value
	verb  Verb // numVerbs: not a command
	id    optionID
}

// words are all the words there are. Commands come first.
var words = [...]word{
	{"add-service", 'A', none, AddService, 0},
	{"edit-service", 'E', none, EditService, 0},
	{"delete-service", 'D', none, DeleteService, 0},
	{"clear", 'C', none, Flush, 0},
	{"list", 'L', none, List, 0},
	{"list", 'l', none, List, 0},
	{"zero", 'Z', none, Zero, 0},
	{"add-server", 'a', none, AddServer, 0},
	{"edit-server", 'e', none, EditServer, 0},
	{"delete-server", 'd', none, DeleteServer, 0},
	{"set", 0, none, SetTimeouts, 0},
	{"restore", 'R', none, Restore, 0},
	{"save", 'S', none, Save, 0},
	{"start-daemon", 0, required, StartDaemon, 0},
	{"stop-daemon", 0, required, StopDaemon, 0},
	{"help", 'h', none, Help, 0},
	{"version", 'v', none, Version, 0},

	{"tcp-service", 't', required, numVerbs, optServiceAddress},
	{"udp-service", 'u', required, numVerbs, optServiceAddress},
	{"sctp-service", 0, required, numVerbs, optServiceAddress},
	{"fwmark-service", 'f', required, numVerbs, optServiceAddress},
	{"ipv6", '6', none, numVerbs, noOption},
	{"scheduler", 's', required, numVerbs, optScheduler},
	{"persistent", 'p', optional, numVerbs, optPersistent},
	{"netmask", 'M', required, numVerbs, optNetmask},
	{"pe", 0, required, numVerbs, optEngine},
	{"ops", 'o', none, numVerbs, optOnePacket},
	{"sched-flags", 'b', required, numVerbs, optSchedFlags},
	{"real-server", 'r', required, numVerbs, optRealServer},
	{"masquerading", 'm', none, numVerbs, optForwardingMethod},
	{"ipip", 'i', none, numVerbs, optForwardingMethod},
	{"gatewaying", 'g', none, numVerbs, optForwardingMethod},
	{"weight", 'w', required, numVerbs, optWeight},
	{"u-threshold", 'x', required, numVerbs, optUpperThreshold},
	{"l-threshold", 'y', required, numVerbs, optLowerThreshold},
	{"tun-type", 0, required, numVerbs, optTunType},
	{"tun-port", 0, required, numVerbs, optTunPort},
	{"tun-nocsum", 0, none, numVerbs, optTunNoChecksum},
	{"tun-csum", 0, none, numVerbs, optTunChecksum},
	{"tun-remcsum", 0, none, numVerbs, optTunRemoteChecksum},
	{"numeric", 'n', none, numVerbs, optNumeric},
	{"connection", 'c', none, numVerbs, optConnection},
	{"timeout", 0, none, numVerbs, optTimeout},
	{"daemon", 0, none, numVerbs, optDaemon},
	{"stats", 0, none, numVerbs, optStats},
	{"rate", 0, none, numVerbs, optRate},
	{"thresholds", 0, none, numVerbs, optThresholds},
	{"persistent-conn", 0, none, numVerbs, optPersistentConn},
	{"tun-info", 0, none, numVerbs, optTunInfo},
	{"nosort", 0, none, numVerbs, optNosort},
	{"sort", 0, none, numVerbs, noOption}, // the default, for old scripts
	{"exact", 'X', none, numVerbs, optExact},
	{"syncid", 0, required, numVerbs, optSyncID},
	{"sync-maxlen", 0, required, numVerbs, optSyncMaxLen},
	{"mcast-interface", 0, required, numVerbs, optMcastInterface},
	{"mcast-group", 0, required, numVerbs, optMcastGroup},
	{"mcast-port", 0, required, numVerbs, optMcastPort},
	{"mcast-ttl", 0, required, numVerbs, optMcastTTL},
}
