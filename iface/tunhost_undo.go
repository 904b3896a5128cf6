// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tunHostUndo is what must be done to put the host back, besides removing rules
// and routes that carry our protocol number. It is kept by the process, its
// reaper and the state file alike, and always written before the change it
// undoes.
type tunHostUndo struct {
	Boot       string // of which run of the kernel, and which namespace, this is true
	Namespace  string
	LocalMoved []int // families whose rule of the table local at 0 was removed
	Settings   map[string]tunHostSetting
	Forwarded6 []string // links that forwarded IPv6 in name when none did in fact
	Proxies    []tunHostProxy
}

func (u *tunHostUndo) localMoved(family int) bool { return slices.Contains(u.LocalMoved, family) }

func (u *tunHostUndo) moveLocal(family int) {
	u.LocalMoved = sorted(append(u.LocalMoved, family), cmp.Compare[int])
}

func (u *tunHostUndo) localBack(family int) {
	u.LocalMoved = slices.DeleteFunc(u.LocalMoved, func(f int) bool { return f == family })
}

// tunHostSetting is restored only where it still is what we made it.
type tunHostSetting struct{ Before, Ours string }

// tunHostProxy is a proxy entry of ours, of ARP or neighbour discovery.
type tunHostProxy struct {
	Link string
	Addr netip.Addr
}

func compareProxy(a, b tunHostProxy) int {
	return cmp.Or(cmp.Compare(a.Link, b.Link), a.Addr.Compare(b.Addr))
}

// newTUNHostUndo is for the namespace of the calling thread. Where boot or namespace
// cannot be read the file is not believed later.
func newTUNHostUndo() tunHostUndo {
	boot, _ := readSysctl("kernel/random/boot_id")
	namespace, _ := os.Readlink("/proc/thread-self/ns/net")
	return tunHostUndo{Boot: boot, Namespace: namespace, Settings: map[string]tunHostSetting{}}
}

// run puts everything back, as far as it goes.
func (u *tunHostUndo) run(handle *netlink.Handle) error {
	var errs []error
	for _, family := range u.LocalMoved {
		errs = append(errs, addRules(handle, []netlink.Rule{firstLocal(family)}))
	}
	errs = append(errs, removeOurRules(handle), removeOurRoutes(handle))
	for _, p := range u.Proxies {
		errs = append(errs, p.remove(handle))
	}
	for path := range u.Settings {
		errs = append(errs, u.restore(path))
	}
	return errors.Join(errs...)
}

func removeOurRules(handle *netlink.Handle) error {
	var errs []error
	for _, family := range tunHostFamilies() {
		errs = append(errs, removeFamily(handle, family))
	}
	return errors.Join(errs...)
}

func removeFamily(handle *netlink.Handle, family int) error {
	for range ruleChangeTries {
		have, err := handle.RuleList(family)
		if err != nil {
			return fmt.Errorf("list rules: %w", err)
		}
		_, ours := ruleChanges(have, nil)
		if len(ours) == 0 {
			return nil
		}
		if err := removeRules(handle, ours); err != nil {
			return err
		}
	}
	return errors.New("rules of protocol 118 come back when they are removed")
}

// removeOurRoutes matters where the device outlives us.
func removeOurRoutes(handle *netlink.Handle) error {
	var errs []error
	filter := &netlink.Route{Table: tunHostTable, Protocol: tunHostProtocol}
	for _, family := range tunHostFamilies() {
		routes, err := handle.RouteListFiltered(family, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if err := handle.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("remove route %s: %w", r, err))
			}
		}
	}
	return errors.Join(errs...)
}

// restore puts one setting back and forgets it. A link that went took it along.
func (u *tunHostUndo) restore(path string) error {
	setting := u.Settings[path]
	now, err := readSysctl(path)
	if err == nil && now == setting.Ours {
		err = writeSysctl(path, setting.Before)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	delete(u.Settings, path)
	if path != forwardingAll6 {
		return nil
	}
	// With it the kernel has set that of each link.
	for _, link := range u.Forwarded6 {
		if err := writeSysctl(forwarding6(link), "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	u.Forwarded6 = nil
	return nil
}

func writeSysctl(path, value string) error {
	err := os.WriteFile("/proc/sys/"+path, []byte(value), 0)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%w\nhint: set %s to %s yourself, or make /proc/sys writable", err, strings.ReplaceAll(path, "/", "."), value)
	}
	return err
}

func (p tunHostProxy) entry(handle *netlink.Handle) (*netlink.Neigh, error) {
	link, err := handle.LinkByName(p.Link)
	if err != nil {
		return nil, err
	}
	return &netlink.Neigh{LinkIndex: link.Attrs().Index, Family: familyOf(p.Addr), Flags: netlink.NTF_PROXY, IP: p.Addr.AsSlice()}, nil
}

// add is content with an entry that is there.
func (p tunHostProxy) add(handle *netlink.Handle) error {
	entry, err := p.entry(handle)
	if err == nil {
		err = handle.NeighSet(entry)
	}
	if err != nil {
		return fmt.Errorf("answer for %s on %s: %w", p.Addr, p.Link, err)
	}
	return nil
}

// remove is content with a link or entry that is gone.
func (p tunHostProxy) remove(handle *netlink.Handle) error {
	entry, err := p.entry(handle)
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) {
		return nil
	}
	if err == nil {
		err = handle.NeighDel(entry)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("stop answering for %s on %s: %w", p.Addr, p.Link, err)
	}
	return nil
}

// readTUNHostUndo gives an empty one where there is no file, or one of another
// namespace or run of the kernel. A file that says nothing is put aside, which the
// word is about.
func readTUNHostUndo(path string) (undo tunHostUndo, word string, err error) {
	here := newTUNHostUndo()
	if path == "" {
		return here, "", nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return here, "", nil
	}
	if err != nil {
		return here, "", err
	}
	left := newTUNHostUndo()
	if bad := json.Unmarshal(b, &left); bad != nil {
		aside := path + ".bad"
		if err := os.Rename(path, aside); err != nil {
			return here, "", err
		}
		return here, fmt.Sprintf("the state file %s could not be read and is %s now (%v): settings of links that an earlier process left may have to be put back by hand", path, aside, bad), nil
	}
	if left.Boot != here.Boot || left.Namespace != here.Namespace || here.Boot == "" || here.Namespace == "" {
		return here, "", nil
	}
	return left, "", nil
}

// writeTUNHostUndo replaces the file as a whole.
func writeTUNHostUndo(path string, u tunHostUndo) error {
	if path == "" {
		return nil
	}
	b, err := json.Marshal(u)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func removeTUNHostUndo(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
