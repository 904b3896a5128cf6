// SPDX-License-Identifier: Apache-2.0

package health

import (
	"slices"
	"time"
)

// A Memory is what is known of a check, to be recalled by another monitor, which may be
// in another process. It survives being written as JSON.
type Memory struct {
	Key     string
	State   State
	Since   time.Time
	Held    time.Time
	Why     string
	Last    Result
	Weight  int
	Percent bool
	At      time.Time
	Latency time.Duration
	Good    uint64
	Bad     uint64
	Failed  uint64
	Signals uint64
	History []Event
}

// Memories are those of all checks that were made.
func (m *Monitor) Memories() (list []Memory) {
	for _, s := range m.List() {
		if len(s.History) == 0 {
			continue
		}
		list = append(list, Memory{
			Key: s.Key, State: s.State, Since: s.Since, Held: s.Held, Why: s.Why, Last: s.Last, Weight: s.Weight, Percent: s.Percent,
			At: s.At, Latency: s.Latency, Good: s.Good, Bad: s.Bad, Failed: s.Failed, Signals: s.Signals, History: s.History,
		})
	}
	return list
}

// Stale is what is left of a memory that is too old for a state to be believed: what has
// happened.
func (m Memory) Stale() Memory {
	return Memory{
		Key: m.Key, Weight: NoWeight, Good: m.Good, Bad: m.Bad, Failed: m.Failed, Signals: m.Signals, History: m.History,
	}
}

// Recall has checks that Set begins later go on from where they were, by their keys. It
// is to be called before Set.
func (m *Monitor) Recall(list []Memory) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.memories = make(map[string]Memory, len(list))
	for _, one := range list {
		m.memories[one.Key] = one
	}
}

// recall takes up what is known of a check that was not made yet.
func (c *check) recall(m Memory) {
	if m.State > Down {
		return
	}
	c.machine.recall(m.State, m.Since, m.Held)
	c.State, c.Since, c.Held = m.State, m.Since, m.Held
	c.Last, c.At, c.Latency = m.Last, m.At, m.Latency
	c.Last.Text, c.Why = printable(m.Last.Text), printable(m.Why)
	c.Weight, c.Percent = m.Weight, m.Percent
	c.Good, c.Bad, c.Failed, c.Signals = m.Good, m.Bad, m.Failed, m.Signals
	c.History = slices.Clone(m.History[max(0, len(m.History)-MaxHistory):])
}

// recall has a machine stand where another one stood.
func (m *machine) recall(state State, since, held time.Time) {
	m.state, m.since, m.held = state, since, held
	switch state {
	case Up:
		m.successes = max(m.Rise, 1)
	case Down:
		m.failures = max(m.Fall, 1)
	}
}
