package rtsp

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A message is one packet or, for UDP_SEGMENT, several of equal size, of which
// the last may be shorter.
type message struct {
	packets [][]byte
	control []byte
	to      []byte // struct sockaddr_in or sockaddr_in6
}

func (m *message) size() int {
	n := 0
	for _, p := range m.packets {
		n += len(p)
	}
	return n
}

// sockaddr returns to as the kernel has it (ip(7), ipv6(7)).
func sockaddr(to netip.AddrPort) []byte {
	addr, port := to.Addr(), [2]byte{byte(to.Port() >> 8), byte(to.Port())}
	if addr.Is4() {
		sa := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: addr.As4()}
		sa.Port = *(*uint16)(unsafe.Pointer(&port))                                              //nolint:gosec // two bytes in the order of the network
		return append([]byte(nil), (*[unix.SizeofSockaddrInet4]byte)(unsafe.Pointer(&sa))[:]...) //nolint:gosec // its bytes
	}
	sa := unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: addr.As16(), Scope_id: scope(addr.Zone())}
	sa.Port = *(*uint16)(unsafe.Pointer(&port))                                              //nolint:gosec // as above
	return append([]byte(nil), (*[unix.SizeofSockaddrInet6]byte)(unsafe.Pointer(&sa))[:]...) //nolint:gosec // as above
}

// scope returns the interface that a zone names, 0 for none.
func scope(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	n, err := strconv.ParseUint(zone, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	sent uint32
}

// A mailer hands messages to a UDP socket by one call that does not wait.
// sendmmsg is called raw, as stream does for TCP.
type mailer struct {
	once  func(fd uintptr) // run, bound once
	heads []mmsghdr
	iov   []unix.Iovec
	n     int
	errno syscall.Errno
}

// send returns how many of ms, which are not empty, have gone.
func (m *mailer) send(raw syscall.RawConn, ms []message) (int, error) {
	m.list(ms)
	if m.once == nil {
		m.once = m.run
	}
	if err := raw.Control(m.once); err != nil {
		return 0, err
	}
	if m.errno != 0 {
		return 0, os.NewSyscallError("sendmmsg", m.errno)
	}
	return m.n, nil
}

func (m *mailer) run(fd uintptr) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&m.heads[0])), uintptr(len(m.heads)), unix.MSG_DONTWAIT, 0, 0) //nolint:gosec // the kernel reads heads during the call
	m.n, m.errno = int(n), errno
}

// list lays the messages out for the kernel.
func (m *mailer) list(ms []message) {
	m.heads, m.iov = m.heads[:0], m.iov[:0]
	for i := range ms {
		for _, p := range ms[i].packets {
			v := unix.Iovec{Base: &p[0]}
			v.SetLen(len(p))
			m.iov = append(m.iov, v)
		}
	}
	at := 0
	for i := range ms {
		var h mmsghdr
		h.Name, h.Namelen = &ms[i].to[0], uint32(len(ms[i].to))
		h.Iov = &m.iov[at]
		h.SetIovlen(len(ms[i].packets))
		at += len(ms[i].packets)
		if c := ms[i].control; len(c) > 0 {
			h.Control = &c[0]
			h.SetControllen(len(c))
		}
		m.heads = append(m.heads, h)
	}
}
