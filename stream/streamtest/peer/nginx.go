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

	config string
}

const nginxConfig = `
%s
daemon off;
master_process off;
pid %[2]s/nginx.pid;
error_log stderr info;
worker_processes 1;
events { worker_connections 64; }
rtmp {
  access_log off;
  server {
    listen %[3]s;
    chunk_size 4096;
    application live {
      live on;
      record all;
      record_path %[2]s/records;
      record_suffix -%%s.flv;
      record_unique on;
      %[5]s
    }
    application deny {
      live on;
      on_publish %[4]s/deny;
    }
  }
}
`

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
	dir := tb.TempDir()
	n := &Nginx{Address: FreeAddress(tb), Records: filepath.Join(dir, "records"), config: filepath.Join(dir, "nginx.conf")}
	if err := os.Mkdir(n.Records, 0o755); err != nil { //nolint:gosec // nginx may run as another user
		tb.Fatal(err)
	}
	no := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no", http.StatusForbidden)
	}))
	tb.Cleanup(no.Close)
	config := fmt.Sprintf(nginxConfig, loadModule(), dir, n.Address, no.URL, live)
	if err := os.WriteFile(n.config, []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}
	n.Restart(tb)
	return n
}

// loadModule is empty where the module is built in.
func loadModule() string {
	const module = "/usr/lib/nginx/modules/ngx_rtmp_module.so"
	if _, err := os.Stat(module); err != nil {
		return ""
	}
	return "load_module " + module + ";"
}

// Restart starts nginx again on the same address after a Kill.
func (n *Nginx) Restart(tb testing.TB) {
	tb.Helper()
	n.Process = Start(tb, "nginx", "-c", n.config, "-p", filepath.Dir(n.config), "-e", "stderr")
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
