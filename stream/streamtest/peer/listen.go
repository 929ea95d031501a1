package peer

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// listening looks for an IPv4 address in state LISTEN (0A) in /proc/net/tcp
// (kernel: Documentation/networking/proc_net_tcp.rst).
func listening(tb testing.TB, address string) bool {
	tb.Helper()
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		tb.Fatal(err)
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		tb.Fatal(err)
	}
	port := fmt.Sprintf(":%04X", a.Port())
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 3 && f[3] == "0A" && strings.HasSuffix(f[1], port) {
			return true
		}
	}
	return false
}
