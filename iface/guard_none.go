// SPDX-License-Identifier: Apache-2.0

package iface

// noGuard is the method "none": the host sees and answers everything.
type noGuard struct{ rules GuardRules }

func (g *noGuard) Apply(rules GuardRules) error {
	normal, err := rules.Normal()
	if err != nil {
		return err
	}
	g.rules = normal
	return nil
}

func (g *noGuard) Limits() []string {
	limits := transitLimits(g.rules)
	if len(g.rules.Services) > 0 {
		limits = append(limits, "guard is none: the host itself answers traffic to the services on its addresses (RST or ICMP port unreachable)")
	}
	return limits
}

func (g *noGuard) Method() string { return GuardNone }

func (g *noGuard) Close() error { return nil }
