// SPDX-License-Identifier: Apache-2.0

package iface

import (
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Numbers of linux/netfilter/nf_tables.h that x/sys/unix does not have.
const (
	nftTableOwner      = 0x2 // NFT_TABLE_F_OWNER
	netfilterAccept    = 1   // NF_ACCEPT
	nftElementsPerPart = 1000
)

// nftBatch collects the messages of one transaction on one table.
type nftBatch struct {
	table    string
	messages []batchMessage
	sets     uint32
	err      error // the first error of an encoder; commit returns it
}

// batchMessage is a message and what to call it when the kernel refuses it.
type batchMessage struct {
	netlink.Message
	what string
}

// nftMessage heads attributes with the nfgenmsg of our family.
func nftMessage(kind int, flags netlink.HeaderFlags, attributes []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: flags},
		Data:   append([]byte{unix.NFPROTO_NETDEV, unix.NFNETLINK_V0, 0, 0}, attributes...),
	}
}

func (b *nftBatch) add(what string, kind int, flags netlink.HeaderFlags, attributes ...netlink.Attribute) {
	m := nftMessage(kind, netlink.Request|flags, b.nest(attributes...))
	b.messages = append(b.messages, batchMessage{m, what})
}

func (b *nftBatch) nest(attributes ...netlink.Attribute) []byte {
	data, err := netlink.MarshalAttributes(attributes)
	if err != nil && b.err == nil {
		b.err = err
	}
	return data
}

func (b *nftBatch) newOwnedTable() {
	b.add("new table", unix.NFT_MSG_NEWTABLE, netlink.Create|netlink.Excl,
		stringAttribute(unix.NFTA_TABLE_NAME, b.table), uint32Attribute(unix.NFTA_TABLE_FLAGS, nftTableOwner))
}

// newChain makes a chain to jump to.
func (b *nftBatch) newChain(name string) {
	b.add("new chain "+name, unix.NFT_MSG_NEWCHAIN, netlink.Create,
		stringAttribute(unix.NFTA_CHAIN_TABLE, b.table), stringAttribute(unix.NFTA_CHAIN_NAME, name))
}

// newIngressChain hooks a chain that accepts by default into the ingress of a link.
func (b *nftBatch) newIngressChain(name, link string, priority int32) {
	hook := b.nest(
		uint32Attribute(unix.NFTA_HOOK_HOOKNUM, unix.NF_NETDEV_INGRESS),
		uint32Attribute(unix.NFTA_HOOK_PRIORITY, uint32(priority)),
		stringAttribute(unix.NFTA_HOOK_DEV, link),
	)
	b.add("hook the ingress of "+link, unix.NFT_MSG_NEWCHAIN, netlink.Create|netlink.Excl,
		stringAttribute(unix.NFTA_CHAIN_TABLE, b.table), stringAttribute(unix.NFTA_CHAIN_NAME, name),
		nestedAttribute(unix.NFTA_CHAIN_HOOK, hook), uint32Attribute(unix.NFTA_CHAIN_POLICY, netfilterAccept),
		stringAttribute(unix.NFTA_CHAIN_TYPE, "filter"))
}

func (b *nftBatch) delChain(name string) {
	b.add("remove chain "+name, unix.NFT_MSG_DELCHAIN, 0,
		stringAttribute(unix.NFTA_CHAIN_TABLE, b.table), stringAttribute(unix.NFTA_CHAIN_NAME, name))
}

// flushChain removes the rules of a chain, and with them their sets.
func (b *nftBatch) flushChain(name string) {
	b.add("empty chain "+name, unix.NFT_MSG_DELRULE, 0,
		stringAttribute(unix.NFTA_RULE_TABLE, b.table), stringAttribute(unix.NFTA_RULE_CHAIN, name))
}

// newCounter makes a counter that rules refer to by its name.
func (b *nftBatch) newCounter(name string) {
	b.add("new counter "+name, unix.NFT_MSG_NEWOBJ, netlink.Create,
		stringAttribute(unix.NFTA_OBJ_TABLE, b.table), stringAttribute(unix.NFTA_OBJ_NAME, name),
		uint32Attribute(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER), nestedAttribute(unix.NFTA_OBJ_DATA, nil))
}

func (b *nftBatch) newRule(chain, comment string, expressions ...expr.Any) {
	var list []netlink.Attribute
	for _, e := range expressions {
		data, err := expr.Marshal(unix.NFPROTO_NETDEV, e)
		if err != nil && b.err == nil {
			b.err = err
		}
		list = append(list, nestedAttribute(unix.NFTA_LIST_ELEM, data))
	}
	b.add("rule "+comment, unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append,
		stringAttribute(unix.NFTA_RULE_TABLE, b.table), stringAttribute(unix.NFTA_RULE_CHAIN, chain),
		nestedAttribute(unix.NFTA_RULE_EXPRESSIONS, b.nest(list...)),
		netlink.Attribute{Type: unix.NFTA_RULE_USERDATA, Data: userdata.AppendString(nil, userdata.TypeComment, comment)})
}

// newSet makes an anonymous set of keys of equal length, without repetitions,
// and returns the expression that looks a key up in it, from register on. It
// must be used in exactly one rule of the batch: the set lives with that rule.
// keyType only tells `nft list` how to print the keys.
func (b *nftBatch) newSet(keyType uint32, register uint32, keys [][]byte) *expr.Lookup {
	const name = "__set%d" // the kernel puts a number in
	b.sets++
	id := uint32Attribute(unix.NFTA_SET_ID, b.sets)
	b.add("set", unix.NFT_MSG_NEWSET, netlink.Create,
		stringAttribute(unix.NFTA_SET_TABLE, b.table), stringAttribute(unix.NFTA_SET_NAME, name),
		uint32Attribute(unix.NFTA_SET_FLAGS, unix.NFT_SET_ANONYMOUS|unix.NFT_SET_CONSTANT),
		uint32Attribute(unix.NFTA_SET_KEY_TYPE, keyType), uint32Attribute(unix.NFTA_SET_KEY_LEN, uint32(len(keys[0]))), id,
		nestedAttribute(unix.NFTA_SET_DESC, b.nest(uint32Attribute(unix.NFTA_SET_DESC_SIZE, uint32(len(keys))))))
	for len(keys) > 0 { // the length of an attribute is 16 bits wide
		part := keys[:min(len(keys), nftElementsPerPart)]
		keys = keys[len(part):]
		var list []netlink.Attribute
		for _, key := range part {
			value := b.nest(netlink.Attribute{Type: unix.NFTA_DATA_VALUE, Data: key})
			list = append(list, nestedAttribute(unix.NFTA_LIST_ELEM, b.nest(nestedAttribute(unix.NFTA_SET_ELEM_KEY, value))))
		}
		b.add("set elements", unix.NFT_MSG_NEWSETELEM, netlink.Create,
			stringAttribute(unix.NFTA_SET_ELEM_LIST_TABLE, b.table), stringAttribute(unix.NFTA_SET_ELEM_LIST_SET, name),
			uint32Attribute(unix.NFTA_SET_ELEM_LIST_SET_ID, b.sets),
			nestedAttribute(unix.NFTA_SET_ELEM_LIST_ELEMENTS, b.nest(list...)))
	}
	return &expr.Lookup{SourceRegister: register, SetName: name, SetID: b.sets}
}

func stringAttribute(kind uint16, s string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(s), 0)}
}

// uint32Attribute: numbers of nf_tables are in network byte order.
func uint32Attribute(kind uint16, v uint32) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: binaryutil.BigEndian.PutUint32(v)}
}

func nestedAttribute(kind uint16, data []byte) netlink.Attribute {
	return netlink.Attribute{Type: kind | unix.NLA_F_NESTED, Data: data}
}
