package peer

import (
	"context"
	"fmt"
	"net"
	"os/exec" //nolint:depguard // test infrastructure: real peers are programs
	"time"
)

// Find returns the path of a program.
func Find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		// Debian keeps daemons out of an ordinary user's path.
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	if err != nil {
		return "", fmt.Errorf("%s is missing: install it, make test and make bench do", name)
	}
	return path, nil
}

// FindAddress returns a TCP address of this machine that nobody listens on.
func FindAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

// Until asks again and again until done says yes. It reports false if ctx ends
// before.
func Until(ctx context.Context, every time.Duration, done func() bool) bool {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}
