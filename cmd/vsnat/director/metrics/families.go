// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
)

// A family is one metric: what it is called, what it means, and its values in a
// snapshot, which collect hands to emit with the values of the labels.
type family struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string
	collect    func(s *Snapshot, emit emitter)
}

// emitter takes a value and the values of its family's labels.
type emitter func(value float64, labels ...string)

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

// MaxServices and MaxServers are how many are shown one by one.
const (
	MaxServices = 2_000
	MaxServers  = 10_000
	// maxHistograms is the same for servers' histograms, each of 17 series.
	maxHistograms = 1_000
)

var (
	ofService = []string{"proto", "service"}
	ofServer  = []string{"proto", "service", "server"}
)

// families is all there is but histograms, in the order of a tour: the director,
// what it serves, what became of packets, connections, links and neighbours.
func families() []family {
	list := []family{
		{"build_info", "Version of vsnat and of the Go it was built with; the value is 1.", gauge, []string{"version", "goversion"},
			func(s *Snapshot, emit emitter) { emit(1, s.Version, runtime.Version()) }},
		{"director_info", "How packets come in and what keeps them from the host's own stack; the value is 1.", gauge, []string{"io", "guard"},
			func(s *Snapshot, emit emitter) { emit(1, s.IO, s.Guard) }},
		{"problems", "Problems that vsnat status names; 0 if all is well.", gauge, nil,
			func(s *Snapshot, emit emitter) { emit(float64(s.Problems)) }},
		{"ready", "Whether the director would serve, as /readyz says.", gauge, nil,
			func(s *Snapshot, emit emitter) { emit(truth(s.Ready)) }},
		{"config_last_reload_successful", "Whether the last reload of the configuration was accepted.", gauge, nil,
			func(s *Snapshot, emit emitter) { emit(truth(!s.ReloadRefused)) }},
		{"config_last_reload_success_timestamp_seconds", "When the configuration in force was taken up.", gauge, nil,
			func(s *Snapshot, emit emitter) { emit(float64(s.Reloaded.UnixMilli()) / 1000) }},
		{"events_total", "Events that vsnat events tells of, by kind.", counter, []string{"kind"},
			func(s *Snapshot, emit emitter) { each(s.Events, emit) }},
		{"metrics_left_out", "Services and servers that are not shown one by one because there are too many.", gauge, []string{"what"},
			func(s *Snapshot, emit emitter) {
				services, servers := len(s.Services), 0
				for i := range s.Services {
					servers += len(s.Services[i].Servers)
				}
				emit(float64(max(0, services-MaxServices)), "services")
				shown := 0
				s.servers(func(*Server) { shown++ })
				emit(float64(servers-shown), "servers")
			}},
	}
	list = append(list, served()...)
	list = append(list, checks()...)
	list = append(list, fates()...)
	list = append(list, connections()...)
	return append(list, network()...)
}

// served are the services and their servers, and SNAT.
func served() []family {
	list := []family{
		{"service_info", "How a service chooses servers; the value is 1.", gauge, append(ofService[:2:2], "scheduler"),
			func(s *Snapshot, emit emitter) {
				s.services(func(v *Service) { emit(1, v.Proto, v.Service, v.Scheduler) })
			}},
		{"service_servers", "Servers of a service, by whether they take new connections: available or unavailable.", gauge, append(ofService[:2:2], "state"),
			func(s *Snapshot, emit emitter) {
				s.services(func(v *Service) {
					available := 0
					for i := range v.Servers {
						if v.Servers[i].Available() {
							available++
						}
					}
					emit(float64(available), v.Proto, v.Service, "available")
					emit(float64(len(v.Servers)-available), v.Proto, v.Service, "unavailable")
				})
			}},
		{"server_connections", "Connections at a server: active (established), inactive (all others), and persistent (clients that stay with it).", gauge, append(ofServer[:3:3], "state"),
			func(s *Snapshot, emit emitter) {
				s.servers(func(v *Server) {
					emit(float64(v.Active), v.Proto, v.Service, v.Server, "active")
					emit(float64(v.Inactive), v.Proto, v.Service, v.Server, "inactive")
					emit(float64(v.Persistent), v.Proto, v.Service, v.Server, "persistent")
				})
			}},
		{"server_weight", "Weight of a server that is in force; 0 takes no new connections.", gauge, ofServer,
			func(s *Snapshot, emit emitter) {
				s.servers(func(v *Server) { emit(float64(v.Weight), v.Proto, v.Service, v.Server) })
			}},
		{"server_configured_weight", "Weight of a server as configured.", gauge, ofServer,
			func(s *Snapshot, emit emitter) {
				s.servers(func(v *Server) { emit(float64(v.Configured), v.Proto, v.Service, v.Server) })
			}},
		{"server_up", "Whether the checks of a server let it serve; servers without checks are left out.", gauge, ofServer,
			func(s *Snapshot, emit emitter) {
				s.servers(func(v *Server) {
					if v.Checked {
						emit(truth(v.Up), v.Proto, v.Service, v.Server)
					}
				})
			}},
		{"server_first_packets_total", "First packets of connections that went to a server, by what came of them: asked (all), answered, refused.", counter, append(ofServer[:3:3], "outcome"),
			func(s *Snapshot, emit emitter) {
				s.servers(func(v *Server) {
					emit(float64(v.Asked), v.Proto, v.Service, v.Server, "asked")
					emit(float64(v.Answered), v.Proto, v.Service, v.Server, "answered")
					emit(float64(v.Refused), v.Proto, v.Service, v.Server, "refused")
				})
			}},
		{"server_answers_elsewhere", "Whether the answers of a server to clients go past the director: its gateway is another one.", gauge, ofServer,
			func(s *Snapshot, emit emitter) {
				s.servers(func(v *Server) { emit(truth(v.Elsewhere), v.Proto, v.Service, v.Server) })
			}},
		{"server_ordered_out", "Whether an operator has taken a server out of service: it drains, or is in maintenance.", gauge, ofServer,
			func(s *Snapshot, emit emitter) {
				s.servers(func(v *Server) { emit(truth(v.Ordered), v.Proto, v.Service, v.Server) })
			}},
		{"server_overloaded", "Whether a server has as many connections as it may.", gauge, ofServer,
			func(s *Snapshot, emit emitter) {
				s.servers(func(v *Server) { emit(truth(v.Overloaded), v.Proto, v.Service, v.Server) })
			}},
		{"snat_ports", "Ports that an SNAT rule may hand out, per protocol.", gauge, []string{"from", "to"},
			func(s *Snapshot, emit emitter) {
				for _, r := range s.Rules {
					emit(float64(r.Capacity), r.From, r.To)
				}
			}},
		{"snat_ports_used", "Ports of an address that connections of inside hosts have.", gauge, []string{"address"},
			func(s *Snapshot, emit emitter) {
				for _, p := range s.Pools {
					emit(float64(p.Used), p.Address)
				}
			}},
	}
	for _, c := range []struct {
		what, help string
		labels     []string
		each       func(s *Snapshot, do func(c *Counters, labels ...string))
	}{
		{"service", "services", ofService, func(s *Snapshot, do func(*Counters, ...string)) {
			s.services(func(v *Service) { do(&v.Counters, v.Proto, v.Service) })
		}},
		{"server", "servers", ofServer, func(s *Snapshot, do func(*Counters, ...string)) {
			s.servers(func(v *Server) { do(&v.Counters, v.Proto, v.Service, v.Server) })
		}},
		{"snat", "inside hosts", nil, func(s *Snapshot, do func(*Counters, ...string)) { do(&s.SNAT) }},
	} {
		directed := append(c.labels[:len(c.labels):len(c.labels)], "direction")
		both := func(in, out func(*Counters) uint64) func(*Snapshot, emitter) {
			return func(s *Snapshot, emit emitter) {
				c.each(s, func(k *Counters, labels ...string) {
					emit(float64(in(k)), append(labels[:len(labels):len(labels)], "in")...)
					emit(float64(out(k)), append(labels[:len(labels):len(labels)], "out")...)
				})
			}
		}
		list = append(list,
			family{c.what + "_connections_total", "Connections of " + c.help + " that were opened.", counter, c.labels,
				func(s *Snapshot, emit emitter) {
					c.each(s, func(k *Counters, labels ...string) { emit(float64(k.Conns), labels...) })
				}},
			family{c.what + "_packets_total", "Packets of " + c.help + ", by direction: in comes from outside, out goes there.", counter, directed,
				both(func(k *Counters) uint64 { return k.InPackets }, func(k *Counters) uint64 { return k.OutPackets })},
			family{c.what + "_bytes_total", "Bytes of IP packets of " + c.help + ", by direction.", counter, directed,
				both(func(k *Counters) uint64 { return k.InBytes }, func(k *Counters) uint64 { return k.OutBytes })},
		)
	}
	return list
}

// checks are those of servers.
func checks() []family {
	of := []string{"server", "check"}
	return []family{
		{"check_up", "Whether a check says that its server is up.", gauge, of,
			func(s *Snapshot, emit emitter) { s.checks(func(k *Check) { emit(truth(k.Up), k.Server, k.Name) }) }},
		{"check_results_total", "Results of a check, by outcome: good, bad, impossible (nothing was found out, for a reason of the director's).", counter, append(of[:2:2], "outcome"),
			func(s *Snapshot, emit emitter) {
				s.checks(func(k *Check) {
					emit(float64(k.Good), k.Server, k.Name, "good")
					emit(float64(k.Bad), k.Server, k.Name, "bad")
					emit(float64(k.Impossible), k.Server, k.Name, "impossible")
				})
			}},
		{"check_signals_total", "Failures of a server that the packets of clients told of, and a check was told.", counter, of,
			func(s *Snapshot, emit emitter) {
				s.checks(func(k *Check) { emit(float64(k.Signals), k.Server, k.Name) })
			}},
		{"check_latency_seconds", "How long the last check took.", gauge, of,
			func(s *Snapshot, emit emitter) { s.checks(func(k *Check) { emit(k.Latency, k.Server, k.Name) }) }},
	}
}

// fates are what became of packets.
func fates() []family {
	return []family{
		{"shard_foreign_packets_total", "Packets that belong to another packet loop, by what was done: given to it, or taken from one.", counter, []string{"shard", "direction"},
			func(s *Snapshot, emit emitter) {
				for _, v := range s.Shards {
					emit(float64(v.Given), v.Name, "given")
					emit(float64(v.Taken), v.Name, "taken")
				}
			}},
		{"packets_total", "Packets by what became of them: forwarded, passed (left to the host), dropped, held (waiting, or answered).", counter, []string{"outcome"},
			func(s *Snapshot, emit emitter) { each(s.Packets, emit) }},
		{"drops_total", "Packets that were dropped, by reason.", counter, []string{"reason"},
			func(s *Snapshot, emit emitter) { each(s.Drops, emit) }},
		{"answers_suppressed_total", "Packets that got no ICMP error or reset, by the reason they were dropped for.", counter, []string{"reason"},
			func(s *Snapshot, emit emitter) { each(s.Suppressed, emit) }},
		{"ignored_frames_total", "Frames that are not for the director.", counter, nil,
			func(s *Snapshot, emit emitter) { emit(s.Ignored) }},
		{"shard_received_frames_total", "Frames that a packet loop read.", counter, []string{"shard"},
			func(s *Snapshot, emit emitter) {
				for _, v := range s.Shards {
					emit(float64(v.Received), v.Name)
				}
			}},
		{"shard_sent_frames_total", "Frames that a packet loop sent.", counter, []string{"shard"},
			func(s *Snapshot, emit emitter) {
				for _, v := range s.Shards {
					emit(float64(v.Sent), v.Name)
				}
			}},
	}
}

// connections are the connection table.
func connections() []family {
	return []family{
		{"connections", "Entries of the connection table, by how dear they are: half-open ones are given up first, held ones never.", gauge, []string{"class"},
			func(s *Snapshot, emit emitter) { each(s.Classes, emit) }},
		{"connections_by_state", "Entries of the connection table, by state.", gauge, []string{"state"},
			func(s *Snapshot, emit emitter) { each(s.States, emit) }},
		{"offloaded_connections", "Connections whose packets the kernel forwards, but for those that begin and end them.", gauge, nil,
			func(s *Snapshot, emit emitter) { emit(float64(s.Offloaded.Conns)) }},
		{"offloaded_packets_total", "Packets that the kernel forwarded. They are among those of services, servers and inside hosts, not among those of packet loops and links.", counter, nil,
			func(s *Snapshot, emit emitter) { emit(s.Offloaded.Packets) }},
		{"offloaded_bytes_total", "Bytes of those IP packets.", counter, nil,
			func(s *Snapshot, emit emitter) { emit(s.Offloaded.Bytes) }},
		{"connections_limit", "Entries that fit into the connection table.", gauge, nil,
			func(s *Snapshot, emit emitter) { emit(float64(s.MaxConns)) }},
		{"connection_table_bytes", "Memory that the connection table may come to use.", gauge, nil,
			func(s *Snapshot, emit emitter) { emit(float64(s.TableBytes)) }},
		{"connections_removed_total", "Entries that left the connection table, by cause.", counter, []string{"cause"},
			func(s *Snapshot, emit emitter) { each(s.Removals, emit) }},
		{"connections_expired_open_total", "TCP connections that were idle for too long before they had ended.", counter, nil,
			func(s *Snapshot, emit emitter) { emit(s.ExpiredOpen) }},
		{"ends_told_total", "Ends of connections that were told by a reset or an ICMP error that it is over.", counter, nil,
			func(s *Snapshot, emit emitter) { emit(s.Farewells) }},
		{"shard_connections", "Entries in the connection table of a packet loop.", gauge, []string{"shard"},
			func(s *Snapshot, emit emitter) {
				for _, v := range s.Shards {
					emit(float64(v.Conns), v.Name)
				}
			}},
	}
}

// network are links and neighbours.
func network() []family {
	list := []family{
		{"link_up", "Whether a link has carrier and is up.", gauge, []string{"link"},
			func(s *Snapshot, emit emitter) {
				for i := range s.Links {
					emit(truth(s.Links[i].Up), s.Links[i].Name)
				}
			}},
		{"link_serving", "Whether packets are read from a link.", gauge, []string{"link"},
			func(s *Snapshot, emit emitter) {
				for i := range s.Links {
					emit(truth(s.Links[i].Serving), s.Links[i].Name)
				}
			}},
		{"neighbours", "Stations whose link address is known or asked for.", gauge, nil,
			func(s *Snapshot, emit emitter) { emit(float64(s.Neighbours.Entries)) }},
		{"neighbour_queued_frames", "Frames that wait for a link address.", gauge, nil,
			func(s *Snapshot, emit emitter) { emit(float64(s.Neighbours.Queued)) }},
		{"neighbour_refused_frames_total", "Frames that found no room to wait for a link address.", counter, nil,
			func(s *Snapshot, emit emitter) { emit(float64(s.Neighbours.Refused)) }},
		{"neighbour_messages_total", "ARP and neighbour discovery, by what it was: requests and replies of ours, conflicts (an address of ours is claimed), unsolicited (not believed).", counter, []string{"kind"},
			func(s *Snapshot, emit emitter) {
				emit(float64(s.Neighbours.Requests), "requests")
				emit(float64(s.Neighbours.Replies), "replies")
				emit(float64(s.Neighbours.Conflicts), "conflicts")
				emit(float64(s.Neighbours.Unsolicited), "unsolicited")
			}},
		{"neighbour_failures_total", "Next hops that did not answer.", counter, nil,
			func(s *Snapshot, emit emitter) { emit(float64(s.Neighbours.Failed)) }},
	}
	for _, f := range []struct {
		name, help string
		of         func(*Link) uint64
	}{
		{"link_received_frames_total", "Frames read from a link.", func(l *Link) uint64 { return l.InFrames }},
		{"link_received_bytes_total", "Bytes read from a link, in frames.", func(l *Link) uint64 { return l.InBytes }},
		{"link_sent_frames_total", "Frames sent by a link.", func(l *Link) uint64 { return l.OutFrames }},
		{"link_sent_bytes_total", "Bytes sent by a link, in frames.", func(l *Link) uint64 { return l.OutBytes }},
		{"link_kernel_drops_total", "Frames that the kernel dropped because the director did not read them in time.", func(l *Link) uint64 { return l.KernelDrops }},
		{"link_receive_errors_total", "Frames that the kernel could not describe.", func(l *Link) uint64 { return l.ReceiveErrors }},
		{"link_truncated_frames_total", "Frames that were too long to be read whole.", func(l *Link) uint64 { return l.Truncated }},
		{"link_send_drops_total", "Frames given up because the link's transmit queue stayed full.", func(l *Link) uint64 { return l.SendDrops }},
		{"link_send_refused_total", "Frames that the link can not send at all.", func(l *Link) uint64 { return l.SendRefused }},
	} {
		list = append(list, family{f.name, f.help, counter, []string{"link"},
			func(s *Snapshot, emit emitter) {
				for i := range s.Links {
					if l := &s.Links[i]; l.Serving {
						emit(float64(f.of(l)), l.Name)
					}
				}
			}})
	}
	return list
}

// services calls do for those that are shown.
func (s *Snapshot) services(do func(*Service)) {
	for i := range s.Services[:min(len(s.Services), MaxServices)] {
		do(&s.Services[i])
	}
}

// servers calls do for those that are shown.
func (s *Snapshot) servers(do func(*Server)) {
	left := MaxServers
	s.services(func(v *Service) {
		for i := range v.Servers[:min(len(v.Servers), left)] {
			do(&v.Servers[i])
			left--
		}
	})
}

// checks calls do for those that are shown.
func (s *Snapshot) checks(do func(*Check)) {
	for i := range s.Checks[:min(len(s.Checks), MaxServers)] {
		do(&s.Checks[i])
	}
}

// handshakes calls do for the servers whose histograms are shown.
func (s *Snapshot) handshakes(do func(*Server)) {
	left := maxHistograms
	s.servers(func(v *Server) {
		if left--; left >= 0 && len(v.Handshake.Counts) > 0 {
			do(v)
		}
	})
}

// each emits the values of a map of one label.
func each(m map[string]float64, emit emitter) {
	for label, value := range m {
		emit(value, label)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
