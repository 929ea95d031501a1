package webrtc

import (
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pion/transport/v4"
	"github.com/pion/webrtc/v4"
)

// A moved is a network with one address, which changes.
type moved struct {
	network

	mu sync.Mutex
	at net.IP
}

func (m *moved) to(ip string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = net.ParseIP(ip)
}

func (m *moved) Interfaces() ([]*transport.Interface, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	up := transport.NewInterface(net.Interface{Index: 2, MTU: 1500, Name: "eth0", Flags: net.FlagUp | net.FlagMulticast})
	if m.at != nil {
		up.AddAddress(&net.IPNet{IP: m.at, Mask: net.CIDRMask(24, 32)})
	}
	return []*transport.Interface{up}, nil
}

func TestEachAnswerOffersTheAddressesOfItsMoment(t *testing.T) {
	s := newShow(t, 50)
	s.publish()
	box := &moved{} // no lease yet
	url := start(t, s, &Server{Addr: ":0", network: box})
	offer := newPlayer(t, webrtc.NetworkTypeUDP4).offer(t)
	for _, at := range []string{"", "192.0.2.1", "198.51.100.2"} {
		box.to(at)
		status, _, answer := post(t, url, offer)
		if status != http.StatusCreated {
			t.Fatalf("at %q: %d %s", at, status, answer)
		}
		want := map[string]int{}
		if at != "" {
			want = map[string]int{"udp " + at: 1, "tcp " + at: 1}
		}
		got := offered(answer)
		if len(got) != len(want) {
			t.Errorf("at %q it offers %v", at, got)
		}
		for what := range want {
			if got[what] == 0 {
				t.Errorf("at %q it offers %v", at, got)
			}
		}
	}
}

// offered counts an answer's candidates by protocol and address.
func offered(answer string) map[string]int {
	all := map[string]int{}
	for line := range strings.Lines(answer) {
		if f := strings.Fields(line); strings.HasPrefix(line, "a=candidate:") && len(f) > 5 {
			all[strings.ToLower(f[2])+" "+f[4]]++
		}
	}
	return all
}

func TestNetworkIsTheBoxsOwn(t *testing.T) {
	ours, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	n := &network{}
	all, err := n.Interfaces()
	if err != nil || len(all) != len(ours) {
		t.Fatalf("%d interfaces, want %d; %v", len(all), len(ours), err)
	}
	i := slices.IndexFunc(all, func(i *transport.Interface) bool { return i.Flags&net.FlagLoopback != 0 })
	if i < 0 {
		t.Fatal("no loopback interface")
	}
	addrs, err := all[i].Addrs()
	if err != nil || !slices.ContainsFunc(addrs, func(a net.Addr) bool { return strings.HasPrefix(a.String(), "127.0.0.1/") }) {
		t.Errorf("loopback has %v, %v", addrs, err)
	}
	byName, err := n.InterfaceByName(all[i].Name)
	if err != nil || byName.Index != all[i].Index {
		t.Errorf("by name: %v, %v", byName, err)
	}
	byIndex, err := n.InterfaceByIndex(all[i].Index)
	if err != nil || byIndex.Name != all[i].Name {
		t.Errorf("by index: %v, %v", byIndex, err)
	}
	if _, err := n.InterfaceByName("no such thing"); !errors.Is(err, transport.ErrInterfaceNotFound) {
		t.Errorf("an unknown name: %v", err)
	}
}
