// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/vsnat/vsnat/cmd/vsnat/director/control"
)

// The names are those of /proc/sys/net/ipv4/vs on Linux 6.1, of the modules lblc
// and lblcr, and two of ours; times of states come on top.
func TestSettingNames(t *testing.T) {
	want := []string{
		"am_droprate", "amemthresh", "backup_only", "cache_bypass", "client_limit", "conn_reuse_mode", "conntrack", "drop_entry", "drop_packet",
		"expire_nodest_conn", "expire_quiescent_template", "ignore_tunneled", "lblc_expiration", "lblcr_expiration", "nat_icmp_send",
		"pmtu_disc", "reset_on_expiry", "run_estimation", "schedule_icmp", "secure_tcp", "sloppy_sctp", "sloppy_tcp", "snat_reroute",
		"sync_persist_mode", "sync_ports", "sync_qlen_max", "sync_refresh_period", "sync_retries", "sync_sock_size", "sync_threshold",
		"sync_version", "timeout_close", "timeout_closewait", "timeout_established", "timeout_finwait", "timeout_icmp", "timeout_lastack",
		"timeout_listen",
		"timeout_sctp_closed", "timeout_sctp_cookie", "timeout_sctp_cookie_echoed", "timeout_sctp_cookie_replied", "timeout_sctp_cookie_sent",
		"timeout_sctp_cookie_wait", "timeout_sctp_established", "timeout_sctp_init", "timeout_sctp_init1", "timeout_sctp_rejected",
		"timeout_sctp_shutdown_ack_sent", "timeout_sctp_shutdown_received", "timeout_sctp_shutdown_sent", "timeout_synack", "timeout_synrecv", "timeout_synsent", "timeout_timewait", "timeout_udp",
	}
	var got []string
	for _, s := range Default().ListSettings() {
		got = append(got, s.Name)
		if s.Value != s.Default || s.Meaning == "" {
			t.Errorf("%+v", s)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestWithSettings(t *testing.T) {
	c := Default()
	c.Settings = map[string]int{"sloppy_tcp": 1}
	next, err := c.WithSettings(map[string]control.SettingValue{
		"sloppy_tcp": "0", "drop_entry": "3", "timeout_finwait": "1h", "sync_threshold": " 3\t50\n", "conn_reuse_mode": "1",
	})
	if err != nil {
		t.Fatal(err)
	}
	if next.Setting("drop_entry") != 3 || len(next.Settings) != 1 || next.Timeouts.FinWait.Std().Hours() != 1 {
		t.Errorf("%v, %+v", next.Settings, next.Timeouts)
	}
	if c.Setting("sloppy_tcp") != 1 || c.Timeouts != defaultTimeouts() {
		t.Error("the old configuration was changed")
	}
	for name, value := range map[string]control.SettingValue{
		"nothing": "1", "drop_entry": "4", "drop_packet": "on", "timeout_udp": "0", "timeout_none": "1", "sync_version": "0", "": "",
	} {
		_, err := next.WithSettings(map[string]control.SettingValue{"am_droprate": "5", name: value})
		var refused *control.Error
		if !errors.As(err, &refused) || refused.Hint == "" {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
	back, err := next.WithSettings(map[string]control.SettingValue{"drop_entry": "0", "timeout_finwait": "120"})
	if err != nil || !reflect.DeepEqual(back, Default()) {
		t.Errorf("%+v, %v", back, err)
	}
}
