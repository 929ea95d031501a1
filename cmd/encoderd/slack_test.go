package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
)

func TestTheProgramRunsWithTimerSlackUnderItsOwnProcessID(t *testing.T) {
	p := start(t, settings{})
	doc, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", p.cmd.Process.Pid))
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return // only a process with CAP_SYS_NICE may see it: that the program runs has to do
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.TrimSpace(string(doc)), fmt.Sprint(int64(timerSlack)); got != want {
		t.Errorf("timer slack of %s ns, want %s", got, want)
	}
}
