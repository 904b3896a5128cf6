// SPDX-License-Identifier: Apache-2.0

// Package config is the configuration file of a director: its text, what it
// means, and what differs between two of them.
//
// A configuration is a YAML file of a small, strict grammar, which may include
// others. It passes three layers, each in a file of its own:
//
//	bytes  → tree     syntax.go    UTF-8, size, depth, the part of YAML we use
//	tree   → raw      raw.go       keys: unknown, twice, of the wrong kind; environment.go
//	                  include.go   the raw values of all files put together
//	raw    → Config   parse.go, services.go, marks.go, settings.go, text.go, check.go
//
// The raw layer keeps every scalar as the text that stands in the file, with the
// environment put in, and its file, line and column; so each problem, also one that
// needs two places to see (a service given twice), is told with its place and a hint
// ([Problem]), and all problems are told at once ([Error]).
// What a service, a server or an SNAT rule must be is judged on typed values
// (check.go), so that the control socket refuses exactly what the file does.
//
// Settings of IPVS go by the names of its sysctls (settings.go). Whose defaults hold
// for them and for what a service does not say is one key, compat.
//
// The way back is [Marshal]: the canonical file, in which only what differs
// from a default is written; Parse(Marshal(c)) equals c. It is one file that says
// all: [Parse], unlike [Read], includes nothing and looks at no environment, so that
// what crosses the control socket means the same at both ends. [Diff] lists the
// steps from one configuration to another and names nothing that stays, which
// is what a reload applies.
//
// reference.yaml documents every key where it stands. [Schema] has its words, and the
// grammar, for editors.
package config
