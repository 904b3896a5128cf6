// SPDX-License-Identifier: Apache-2.0

/*
Package importer reads the configurations of what vsnat replaces, and says the same
in vsnat's own: keepalived.conf, the output of ipvsadm-save (or a script of ipvsadm
commands) and that of iptables-save.

# Goals and limits

Nothing is dropped in silence: what cannot be carried over, or is carried over with
another meaning, is a [Note] with file, line and reason. What comes out is a
configuration that the director accepts; a service that it would refuse becomes a
note as well. Names of hosts are not looked up: addresses are expected.

# What becomes of what

	keepalived   virtual_server, also by fwmark and in groups, real_server, sorry_server,
	             quorum and its programs, checks; rise is 1, as there, retry and
	             delay_before_retry are fall and recheck
	             without alpha: start: up. Without inhibit_on_failure: on-check-failed: remove
	             lvs_timeouts, script_user; variables, @conditions of a config-id
	             vrrp, notifications, track_*, static_*, sequences (~SEQ): notes
	ipvsadm      services and servers as the tool means them: without -m direct routing
	iptables     nat POSTROUTING SNAT: snat. nat PREROUTING DNAT of one port of one
	             address to one server: a service. mangle PREROUTING MARK: marks, in reverse
	             order, since there the last rule counts and here the first
*/
package importer
