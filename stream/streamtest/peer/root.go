package peer

import (
	"errors"
	"os"
	"os/exec" //nolint:depguard // test infrastructure: the peer is the test itself
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// namespace makes what a machine has: a /run, in which ip netns keeps its names,
// and a network with multicast beside the loopback.
const namespace = `
mount -t tmpfs none /run && ip link set lo up &&
ip link add net type veth peer name end && ip link set end up && ip link set net up && ip address add 198.19.0.1/24 dev net || exit 77
exec "$@"`

// Root reports whether a test that lays lines between machines may go on: it
// runs as root, which that needs. For anybody else Root runs the test anew as
// root of a user namespace, with a network and a /run of its own, fails if that
// one fails, and reports false: the test returns. It is for tests, not for
// their parts, and is called before all else.
func Root(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() == 0 {
		return true
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	own := slices.DeleteFunc(slices.Clone(os.Args[1:]), func(arg string) bool { return strings.HasPrefix(arg, "-test.") })
	args := append([]string{
		"-c", namespace, "sh",
		program, "-test.v", "-test.run", "^" + regexp.QuoteMeta(t.Name()) + "$",
	}, own...)
	cmd := exec.CommandContext(t.Context(), "sh", args...) //nolint:gosec // G204: this very test
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	t.Logf("as root of a namespace:\n%s", out)
	switch exit, ran := errors.AsType[*exec.ExitError](err); {
	case err == nil:
	case !ran || exit.ExitCode() == 77:
		t.Fatalf("no user namespace, %v: run this test as root, or allow them; on Ubuntu: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0", err)
	default:
		t.Fatal(err)
	}
	return false
}
