package peer

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Nginx is nginx with the RTMP module. Application "live" takes every key and
// records it as FLV; "deny" asks a web server that says no.
type Nginx struct {
	*Process
	Address string // of RTMP
	Records string // folder of recordings

	args []string
}

// A NginxConfig says how nginx with the RTMP module runs: in the foreground, as
// one process, with an application "live" that takes every key and records it.
type NginxConfig struct {
	Dir     string // for config, process number and recordings
	Address string // of RTMP
	Unique  bool   // each recording has a file of its own, with its time in the name; else KEY.flv
	Quiet   bool   // only warnings are logged
	Live    string // more lines for "live"
	Deny    string // web server that application "deny" asks for leave; "" is no such application
}

const nginxConfig = `
%s
daemon off;
master_process off;
pid %s/nginx.pid;
error_log stderr %s;
worker_processes 1;
events { worker_connections 64; }
rtmp {
  access_log off;
  server {
    listen %s;
    chunk_size 4096;
    application live {
      live on;
      record all;
      record_path %s;
      %s
      %s
    }
    %s
  }
}
`

func (c NginxConfig) text() string {
	level, names, deny := "info", "record_suffix .flv;", ""
	if c.Quiet {
		level = "warn"
	}
	if c.Unique {
		names = "record_suffix -%s.flv; record_unique on;"
	}
	if c.Deny != "" {
		deny = "application deny { live on; on_publish " + c.Deny + "/deny; }"
	}
	return fmt.Sprintf(nginxConfig, NginxModule(), c.Dir, level, c.Address, c.Records(), names, c.Live, deny)
}

// Records is the folder of recordings.
func (c NginxConfig) Records() string { return filepath.Join(c.Dir, "records") }

// Prepare makes the folder of recordings and the config, and returns the
// arguments that nginx is to be started with.
func (c NginxConfig) Prepare() (args []string, err error) {
	if err := os.MkdirAll(c.Records(), 0o755); err != nil { //nolint:gosec // nginx may run as another user
		return nil, fmt.Errorf("make a folder for recordings: %w", err)
	}
	file := filepath.Join(c.Dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(c.text()), 0o600); err != nil {
		return nil, fmt.Errorf("write nginx's config: %w", err)
	}
	return []string{"-c", file, "-p", c.Dir, "-e", "stderr"}, nil
}

// StartNginx returns once nginx listens.
func StartNginx(tb testing.TB) *Nginx {
	tb.Helper()
	return startNginx(tb, "")
}

// StartNginxPull returns once nginx listens. It plays url and records that as
// it does what is pushed to it.
func StartNginxPull(tb testing.TB, url string) *Nginx {
	tb.Helper()
	return startNginx(tb, "pull "+url+" name=pulled static;")
}

func startNginx(tb testing.TB, live string) *Nginx {
	tb.Helper()
	no := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no", http.StatusForbidden)
	}))
	tb.Cleanup(no.Close)
	config := NginxConfig{Dir: tb.TempDir(), Address: FreeAddress(tb), Unique: true, Live: live, Deny: no.URL}
	args, err := config.Prepare()
	if err != nil {
		tb.Fatal(err)
	}
	n := &Nginx{Address: config.Address, Records: config.Records(), args: args}
	n.Restart(tb)
	return n
}

// NginxModule returns the line of nginx's config that loads its RTMP module; it
// is empty where the module is built in.
func NginxModule() string {
	const module = "/usr/lib/nginx/modules/ngx_rtmp_module.so"
	if _, err := os.Stat(module); err != nil {
		return ""
	}
	return "load_module " + module + ";"
}

// Restart starts nginx again on the same address after a Kill.
func (n *Nginx) Restart(tb testing.TB) {
	tb.Helper()
	n.Process = Start(tb, "nginx", n.args...)
	n.awaitListening(tb, n.Address)
}

// URL returns the address of an application.
func (n *Nginx) URL(app string) string { return "rtmp://" + n.Address + "/" + app }

// Recordings lists the files recorded so far, oldest first.
func (n *Nginx) Recordings(tb testing.TB) []string {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(n.Records, "*.flv"))
	if err != nil {
		tb.Fatal(err)
	}
	slices.Sort(files)
	return files
}
