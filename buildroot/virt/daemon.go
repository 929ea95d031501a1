//go:build box

package virt

import (
	"os"
	"os/exec" //nolint:depguard // test infrastructure: it runs the compiler
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// Build compiles a package of the repository for the guest, statically and
// with the build tag board, and returns the program's path. pkg is relative to
// the root: "./cmd/encoderd".
func Build(tb testing.TB, pkg string, args ...string) string {
	tb.Helper()
	out := filepath.Join(tb.TempDir(), path.Base(pkg))
	args = append(append([]string{"build", "-tags", "board", "-o", out}, args...), pkg)
	c := exec.CommandContext(tb.Context(), "go", args...) //nolint:gosec // arguments of the test
	c.Dir = Root(tb)
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm64")
	if said, err := c.CombinedOutput(); err != nil {
		tb.Fatalf("build %s for the guest: %v\n%s", pkg, err, said)
	}
	return out
}

// systemdFiles says where the files of the repository's folder systemd go.
var systemdFiles = []struct{ from, to string }{
	{"*.service", "usr/lib/systemd/system"},
	{"*.path", "usr/lib/systemd/system"},
	{"encoderd.service.d/*.conf", "usr/lib/systemd/system/encoderd.service.d"},
	{"sysusers.d/*.conf", "usr/lib/sysusers.d"},
	{"tmpfiles.d/*.conf", "usr/lib/tmpfiles.d"},
	{"udev/*.rules", "usr/lib/udev/rules.d"},
	{"rules.d/*.rules", "usr/lib/udev/rules.d"},
}

// InstallDaemon installs the daemon as an image would: the arm64 program as
// /usr/bin/encoderd, the repository's own unit, drop-in, sysusers and udev
// files, the user encoderd, and config as /var/lib/encoderd/config.toml. It is
// enabled, as on a box, and not started: systemctl start encoderd. What waits for
// its requests is.
func InstallDaemon(tb testing.TB, g *Guest, binary, config string) {
	tb.Helper()
	const stage = "daemon/"
	files := map[string]string{stage + "usr/bin/encoderd": binary}
	for _, f := range systemdFiles {
		found, err := filepath.Glob(filepath.Join(Root(tb), "systemd", f.from))
		if err != nil {
			tb.Fatal(err)
		}
		for _, file := range found {
			files[stage+path.Join(f.to, filepath.Base(file))] = file
		}
	}
	const unit = stage + "usr/lib/systemd/system/encoderd.service"
	if files[unit] == "" {
		tb.Fatal("install the daemon: the repository has no systemd/encoderd.service")
	}
	wanted := filepath.Join(tb.TempDir(), "config.toml")
	if err := os.WriteFile(wanted, []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}
	files["config.toml"] = wanted
	g.Put(tb, files)
	g.Sh(tb, strings.TrimSpace(`
set -e
cd /run/work
chmod 755 daemon/usr/bin/encoderd
find daemon -type f ! -name encoderd -exec chmod 644 {} +
cp -r daemon/. /
rm -r daemon
systemd-sysusers
install -d -o encoderd -g encoderd -m 700 /var/lib/encoderd
install -o encoderd -g encoderd -m 600 config.toml /var/lib/encoderd/config.toml
udevadm control --reload
udevadm trigger --settle --subsystem-match=video4linux --subsystem-match=media --subsystem-match=sound --subsystem-match=gpio
systemctl --no-reload -q enable encoderd encoderd-network-reset.path
systemctl daemon-reload
systemctl start encoderd-network-reset.path`))
}
