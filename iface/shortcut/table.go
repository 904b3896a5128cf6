// SPDX-License-Identifier: Apache-2.0

package shortcut

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/vsnat/vsnat/iface"
)

// License of the programs, as the kernel wants to know it: they call nothing that asks
// for another one.
const license = "Apache-2.0"

// A Table is the memory that the programs forward by: rows, each with both ways of a
// connection. A row is used by one goroutine at a time; different rows by any.
type Table struct {
	keys, rows   *ebpf.Map
	memory       []byte // of rows
	count        *ebpf.Map
	open         []byte // how many rows are in use
	link, filter *ebpf.Program

	mu       sync.Mutex // guards what follows
	hosts    addrSet[host]
	networks addrSet[network]
	admits   iface.Filter // what is in them
}

// keyLen is the length of a key: addresses, ports, link.
const keyLen = 40

// Open makes a table of n rows, and loads the program of links. It needs CAP_BPF and
// CAP_NET_ADMIN in the first user namespace, and Linux 6.6.
func Open(n int) (_ *Table, err error) {
	t := &Table{}
	defer func() {
		if err != nil {
			t.Close()
			err = explained(err)
		}
	}()
	if t.keys, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "vsnat_keys", Type: ebpf.Hash, KeySize: keyLen, ValueSize: 4, MaxEntries: uint32(2 * n),
	}); err != nil {
		return nil, err
	}
	if t.rows, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "vsnat_rows", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(rowLen), MaxEntries: uint32(n), Flags: unix.BPF_F_MMAPABLE,
	}); err != nil {
		return nil, err
	}
	if t.memory, err = mapMemory(t.rows, n*rowLen); err != nil {
		return nil, err
	}
	if t.count, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "vsnat_open", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE,
	}); err != nil {
		return nil, err
	}
	if t.open, err = mapMemory(t.count, 4); err != nil {
		return nil, err
	}
	if err = t.hosts.open("vsnat_hosts", ebpf.Hash, 20); err != nil {
		return nil, err
	}
	if err = t.networks.open("vsnat_networks", ebpf.LPMTrie, 24); err != nil {
		return nil, err
	}
	if t.link, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "vsnat_link", Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress, License: license,
		Instructions: t.programs().atLink(),
	}); err != nil {
		return nil, err
	}
	if t.filter, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "vsnat_filter", Type: ebpf.SocketFilter, License: license, Instructions: t.programs().filter(),
	}); err != nil {
		return nil, err
	}
	// A link that every host has tells whether programs can be attached at all.
	lo, err := t.AttachLink(loopback)
	if err != nil {
		return nil, err
	}
	return t, lo.Close()
}

// mapMemory maps the values of an array into this process.
func mapMemory(m *ebpf.Map, length int) ([]byte, error) {
	page := os.Getpagesize()
	b, err := unix.Mmap(m.FD(), 0, (length+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the memory of the kernel: %w", err)
	}
	return b, nil
}

// inUse is how many rows are.
func (t *Table) inUse() *uint32 { return (*uint32)(unsafe.Pointer(&t.open[0])) }

// explained adds what is to be done about a refusal.
func explained(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES): // with advice about RLIMIT_MEMLOCK, which is not heeded since Linux 5.11
		return fmt.Errorf("BPF programs can't be loaded: %w\nhint: they need CAP_BPF and CAP_NET_ADMIN in the first user namespace: run as root, and not in a container that takes them away", unix.EPERM)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w\nhint: Linux 6.6 or later with CONFIG_BPF_SYSCALL and CONFIG_NET_XGRESS is needed", err)
	}
	return err
}

// loopback is the index of lo in every network namespace.
const loopback = 1

func (t *Table) programs() programs {
	return programs{open: t.count.FD(), rows: t.rows.FD(), keys: t.keys.FD(), hosts: t.hosts.kernel.FD(), networks: t.networks.kernel.FD()}
}

// Close gives the memory back. Links and sockets have to be closed before.
func (t *Table) Close() {
	if t == nil {
		return
	}
	for _, p := range []*ebpf.Program{t.link, t.filter} {
		if p != nil {
			_ = p.Close() // there is nothing to be done about it
		}
	}
	for _, m := range []*ebpf.Map{t.keys, t.rows, t.count, t.hosts.kernel, t.networks.kernel} {
		if m != nil {
			_ = m.Close()
		}
	}
	for _, b := range [][]byte{t.memory, t.open} {
		if b != nil {
			_ = unix.Munmap(b)
		}
	}
}

// An Endpoint is an address and a port.
type Endpoint struct {
	Addr [16]byte // of IPv4 behind ::ffff:0:0
	Port uint16
}

// A Way is one direction of a TCP connection: what its packets are like when they
// arrive, and when they leave.
type Way struct {
	In       int // index of the link
	From     [6]byte
	Anybody  bool // whoever From is
	Src, Dst Endpoint

	Out            int // index of the link
	ToMAC, FromMAC [6]byte
	NewSrc, NewDst Endpoint
	MTU            int // largest IP packet

	Reached Reached
}

// Reached is how far the sender of a way has come.
type Reached struct {
	End, Ack uint32 // of its last segments
	Window   uint16 // that it has offered
	Shift    uint8  // by which windows count
}

// Passed is what was forwarded one way, and what the filters have left to that.
type Passed struct {
	Packets, Bytes uint64
	Left           uint64
	Reached        Reached
}

// Put fills a row that is empty, and has rested for as long as a packet may take, and
// begins to forward. An error leaves it empty.
func (t *Table) Put(i int, ways *[2]Way) error {
	atomic.AddUint32(t.inUse(), 1)
	r := t.row(i)
	for dir := range r {
		r[dir].fill(&ways[dir])
	}
	for dir := range r {
		state := uint32(stateLive)
		if ways[dir].Anybody {
			state |= stateAnybody
		}
		atomic.StoreUint32(&r[dir].state, state)
	}
	for dir := range ways {
		key := ways[dir].key()
		value := uint32(i<<1 | dir)
		if err := t.keys.Update(&key, &value, ebpf.UpdateNoExist); err != nil {
			t.Take(i, ways)
			return fmt.Errorf("shortcut %d: %w", i, err)
		}
	}
	return nil
}

// Take empties a row that was filled with ways. What it has counted stays to be read.
func (t *Table) Take(i int, ways *[2]Way) {
	r := t.row(i)
	for dir := range r {
		atomic.StoreUint32(&r[dir].state, 0)
	}
	for dir := range ways {
		key := ways[dir].key()
		var value uint32
		if t.keys.Lookup(&key, &value) == nil && int(value>>1) == i {
			_ = t.keys.Delete(&key) // without state it is of no use anyway
		}
	}
	atomic.AddUint32(t.inUse(), ^uint32(0))
}

// Passed reads what a row has counted since it was filled.
func (t *Table) Passed(i int, passed *[2]Passed) {
	r := t.row(i)
	for dir := range r {
		w := &r[dir]
		passed[dir] = Passed{
			Packets: atomic.LoadUint64(&w.packets), Bytes: atomic.LoadUint64(&w.bytes), Left: atomic.LoadUint64(&w.left),
			Reached: Reached{
				End: atomic.LoadUint32(&w.end), Ack: atomic.LoadUint32(&w.ack),
				Window: uint16(atomic.LoadUint32(&w.window)), Shift: uint8(w.shift),
			},
		}
	}
}

func (t *Table) row(i int) *row { return (*row)(unsafe.Pointer(&t.memory[i*rowLen])) }

// key is what the programs look for.
type key [keyLen]byte

func (w *Way) key() (k key) {
	copy(k[:], w.Src.Addr[:])
	copy(k[16:], w.Dst.Addr[:])
	p := ports(w.Src.Port, w.Dst.Port)
	copy(k[32:], p[:])
	link := uint32(w.In)
	if !w.is4() {
		link |= keyIPv6
	}
	*(*uint32)(unsafe.Pointer(&k[36])) = link
	return k
}

func (w *Way) is4() bool { return netip.AddrFrom16(w.Src.Addr).Is4In6() }
