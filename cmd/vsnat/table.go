// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// outputFlag is how a listing is written; every listing has it.
type outputFlag struct{ json bool }

// Set, String and Type make it a flag (pflag.Value).
func (o *outputFlag) Set(s string) error {
	if s != "table" && s != "json" {
		return fmt.Errorf("must be table or json")
	}
	o.json = s == "json"
	return nil
}

func (o *outputFlag) String() string {
	if o.json {
		return "json"
	}
	return "table"
}

// Type is what the help calls the value.
func (o *outputFlag) Type() string { return "table|json" }

func (o *outputFlag) register(c *cobra.Command) {
	c.Flags().VarP(o, "output", "o", "how to write it")
}

// writeJSON writes a value as the control socket has it, in a readable layout.
func writeJSON(w io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(escapeJSON(text), '\n'))
	return err
}

// escapeJSON writes the runes of JSON that could command a terminal as escapes of
// JSON. Those stand in strings alone.
func escapeJSON(text []byte) []byte {
	dangerous := func(r rune) bool { return r > unicode.MaxASCII && hidden(r) || r == 0x7f }
	if bytes.IndexFunc(text, dangerous) < 0 {
		return text
	}
	var b bytes.Buffer
	for _, r := range string(text) {
		if !dangerous(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&b, "\\u%04x", unit)
		}
	}
	return b.Bytes()
}

// table is rows of cells in aligned columns. A column is aligned to the right
// if its title ends in a space. Widths only grow, so that the pages of a long
// listing line up.
type table struct {
	titles []string
	rows   [][]string
	widths []int
	headed bool
}

func newTable(titles ...string) *table {
	return &table{titles: titles, widths: make([]int, len(titles))}
}

func (t *table) add(cells ...string) {
	for i := range cells {
		cells[i] = printable(cells[i])
	}
	t.rows = append(t.rows, cells)
}

// write writes the rows added since the last time, the first time with titles.
func (t *table) write(w io.Writer) error {
	if !t.headed {
		head := make([]string, len(t.titles))
		for i, title := range t.titles {
			head[i] = strings.TrimRight(title, " ")
		}
		t.rows = append([][]string{head}, t.rows...)
		t.headed = true
	}
	for _, row := range t.rows {
		for i, cell := range row {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b bytes.Buffer
	for _, row := range t.rows {
		line := ""
		for i, cell := range row {
			pad := strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(cell))
			if strings.HasSuffix(t.titles[i], " ") {
				line += pad + cell + "  "
			} else {
				line += cell + pad + "  "
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	t.rows = nil
	_, err := w.Write(b.Bytes())
	return err
}

// count is a number as people read it: exact below ten thousand, then three
// digits and a letter for thousands (k), millions (M), …
func count(n uint64) string {
	if n < 10_000 {
		return strconv.FormatUint(n, 10)
	}
	f, letters := float64(n), "kMGTPE"
	for i := range letters {
		f /= 1000
		switch {
		case f < 9.995:
			return fmt.Sprintf("%.2f%c", f, letters[i])
		case f < 99.95:
			return fmt.Sprintf("%.1f%c", f, letters[i])
		case f < 999.5:
			return fmt.Sprintf("%.0f%c", f, letters[i])
		}
	}
	return strconv.FormatUint(n, 10)
}

// ago is a span of time in its two largest units.
func ago(d time.Duration) string {
	d = d.Truncate(time.Second)
	if days := d / (24 * time.Hour); days > 0 {
		return fmt.Sprintf("%dd%dh", days, d%(24*time.Hour)/time.Hour)
	}
	if d >= time.Hour {
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return d.String()
}

// plural is "1 server", "2 servers".
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
