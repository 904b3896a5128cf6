// SPDX-License-Identifier: Apache-2.0

package config

import "github.com/vsnat/vsnat/cmd/vsnat/director/control"

// Passive is whether what clients' packets say of servers counts if the service does not
// say. A service without a port of its own is asked for ports that nobody serves.
func (c Compat) Passive(k control.ServiceKey) string {
	if c == CompatIPVS || anyPort(k) {
		return control.PassiveOff
	}
	return control.PassiveOn
}

func anyPort(k control.ServiceKey) bool { return k.ByMark() || k.Address.Port() == 0 }

func passiveFaults(s control.ServiceSpec) []fault {
	list := wordFaults("passive", s.Passive, control.PassiveOn, control.PassiveOff)
	if s.Passive == control.PassiveOn && anyPort(s.ServiceKey) {
		list = append(list, fault{"passive", "a service of many ports is asked for some that no server serves, which says nothing of the server",
			"leave the key out, and have the servers checked"})
	}
	return list
}
