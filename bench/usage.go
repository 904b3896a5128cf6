// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a peer takes of the machine, as /proc tells it.

// cost is processor time.
type cost struct{ machine, process time.Duration }

func (c cost) until(later cost) cost {
	return cost{later.machine - c.machine, later.process - c.process}
}

const jiffy = time.Second / 100 // USER_HZ

// spent reads what the machine was busy for since it started, and a process with those
// that it has started.
func spent(pid int) (c cost) {
	if text, err := os.ReadFile("/proc/stat"); err == nil {
		first, _, _ := strings.Cut(string(text), "\n")
		for i, f := range strings.Fields(first) {
			n, _ := strconv.ParseInt(f, 10, 64)
			if i > 0 && i < 9 && i != 4 && i != 5 { // neither idle nor waiting for a disk
				c.machine += time.Duration(n) * jiffy
			}
		}
	}
	for _, pid := range family(pid) {
		text, err := os.ReadFile(processFile(pid, "stat"))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		if f := strings.Fields(rest); len(f) > 13 {
			user, _ := strconv.ParseInt(f[11], 10, 64)
			system, _ := strconv.ParseInt(f[12], 10, 64)
			c.process += time.Duration(user+system) * jiffy
		}
	}
	return c
}

// memory is in bytes: what a process and those that it has started hold of the machine's,
// and what the kernel holds for all: sockets, connections, routes.
type memory struct{ process, kernel int64 }

func occupied(pid int) (m memory) {
	for _, pid := range family(pid) {
		m.process += kilobytes(processFile(pid, "status"), "VmRSS")
	}
	m.kernel = kilobytes("/proc/meminfo", "Slab")
	return m
}

// kilobytes is the value of a key in a file with lines like "Slab:  1234 kB", in bytes.
func kilobytes(file, key string) int64 {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && name == key {
			n, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return n << 10
		}
	}
	return 0
}

// family is a process and its descendants; of 0, nobody.
func family(pid int) []int {
	if pid == 0 {
		return nil
	}
	list := []int{pid}
	threads, _ := filepath.Glob(processFile(pid, "task/*/children"))
	for _, file := range threads {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, f := range strings.Fields(string(text)) {
			child, _ := strconv.Atoi(f)
			list = slices.Concat(list, family(child))
		}
	}
	return list
}

func processFile(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}
