package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// answering returns the state directory of a box that says one thing and ends.
func answering(t *testing.T, said string) string {
	t.Helper()
	state := t.TempDir()
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socketPath(state))
	if err != nil {
		t.Fatal(err)
	}
	box := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, said)
	}))
	box.Listener.Close()
	box.Listener = l
	box.Start()
	t.Cleanup(box.Close)
	return state
}

// A quiet box says every few seconds that it is there: that is no status.
func TestOnlyWhatIsAStatusIsDrawn(t *testing.T) {
	const alive = "event: alive\ndata: {\"now\":\"2026-11-21T20:30:15Z\"}\n\n"
	state := answering(t, alive+
		"event: status\nid: 1\ndata: {\"name\":\"Hall\",\"state\":\"off\"}\n\n"+alive+
		"event: status\nid: 2\ndata: {\"name\":\"Hall\",\"state\":\"live\"}\n\n"+alive)
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), program{&stdout, &stderr}, []string{"status", "--watch", "--json", "--state", state}); code != exitFailed {
		t.Errorf("exit code %d at the box's end: %s", code, stderr.String())
	}
	if want := `{"name":"Hall","state":"off"}` + "\n" + `{"name":"Hall","state":"live"}` + "\n"; stdout.String() != want {
		t.Errorf("got %s want %s", stdout.String(), want)
	}
	stdout.Reset()
	run(t.Context(), program{&stdout, &stderr}, []string{"status", "--watch", "--state", state})
	if n := strings.Count(stdout.String(), "TALLY"); n != 2 || strings.Count(stdout.String(), "Hall: ") != 2 {
		t.Errorf("%d panels are drawn:\n%s", n, stdout.String())
	}
}
