package webrtc

import (
	"fmt"
	"net"

	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"
)

// A network is the box's own, read anew whenever somebody asks for its
// interfaces: leases, cables and wireless networks come and go while the server
// runs, and each answer offers the addresses of its moment. It keeps nothing
// and may be used from many goroutines.
type network struct{ stdnet.Net }

// Interfaces returns the interfaces of this moment, with their addresses.
func (*network) Interfaces() ([]*transport.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	list := make([]*transport.Interface, 0, len(all))
	for i := range all {
		addrs, err := all[i].Addrs()
		if err != nil {
			continue // it went away meanwhile
		}
		one := transport.NewInterface(all[i])
		for _, a := range addrs {
			one.AddAddress(a)
		}
		list = append(list, one)
	}
	return list, nil
}

// InterfaceByIndex returns an interface of this moment, or an error that wraps
// [transport.ErrInterfaceNotFound].
func (n *network) InterfaceByIndex(index int) (*transport.Interface, error) {
	return n.find(func(i *transport.Interface) bool { return i.Index == index })
}

// InterfaceByName returns an interface of this moment, or an error that wraps
// [transport.ErrInterfaceNotFound].
func (n *network) InterfaceByName(name string) (*transport.Interface, error) {
	return n.find(func(i *transport.Interface) bool { return i.Name == name })
}

func (n *network) find(is func(*transport.Interface) bool) (*transport.Interface, error) {
	all, err := n.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		if is(i) {
			return i, nil
		}
	}
	return nil, transport.ErrInterfaceNotFound
}
