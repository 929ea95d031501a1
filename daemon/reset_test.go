package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"encoderd.example/daemon/status"
)

func TestAFactoryResetForgetsEverythingButRecordings(t *testing.T) {
	dir := t.TempDir()
	put := func(names ...string) {
		for _, n := range names {
			path := filepath.Join(dir, n)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	left := func() (names []string) {
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			names = append(names, e.Name())
		}
		return names
	}
	put("config.toml", "config.toml.previous", "secrets.toml", "wanted.json", "tls.pem", "usage.json", "lock", "recordings/a.mp4", "requests/network-reset")
	all := left()
	if done, err := FactoryReset(dir, "lock"); done || err != nil {
		t.Fatalf("without an order: %v, %v", done, err)
	}
	if got := left(); !slices.Equal(got, all) {
		t.Fatalf("without an order, %v is left of %v", got, all)
	}
	put(factoryMark)
	put("shows/church/b.mp4", "earlier/2025/c.mp4", "other/notes.txt")
	if err := os.WriteFile(filepath.Join(dir, factoryMark), []byte("./shows/church"), 0o600); err != nil {
		t.Fatal(err)
	}
	if done, err := FactoryReset(dir, "lock"); !done || err != nil {
		t.Fatalf("ordered: %v, %v", done, err)
	}
	if got, want := left(), []string{"earlier", "lock", "recordings", "requests", "shows"}; !slices.Equal(got, want) {
		t.Errorf("left %v, want %v", got, want)
	}
	if done, err := FactoryReset(dir, "lock"); done || err != nil {
		t.Errorf("a second time: %v, %v", done, err)
	}
}

func TestAFactoryResetThatIsRefusedNeverComes(t *testing.T) {
	d := testDaemon(t)
	d.Restart = func() { t.Error("restarted") }
	if err := os.WriteFile(filepath.Join(d.State, requestDir), nil, 0o600); err != nil { // no folder can be made here
		t.Fatal(err)
	}
	if err := d.Do(t.Context(), "factory.reset", nil, "test"); err == nil {
		t.Fatal("accepted")
	}
	if done, err := FactoryReset(d.State); done || err != nil {
		t.Errorf("at the next start: %v, %v", done, err)
	}
}

func TestAFactoryResetThatCannotEndBeginsAnew(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state") // no directory
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := FactoryReset(file); err == nil {
		t.Error("a file was taken for a state directory")
	}
}

func TestANetworkResetThatNobodyCarriesOutIsAFault(t *testing.T) {
	inBox(t, small, nil, func(r *rig) {
		r.order("network.reset", nil)
		request := filepath.Join(r.State, requestDir, networkRequest)
		if err := os.Chtimes(request, time.Time{}, time.Now()); err != nil { // the disk has a clock of its own
			t.Fatal(err)
		}
		stays := func(b status.Box) bool {
			return slices.ContainsFunc(b.Faults, func(f status.Fault) bool { return f.Code == status.NetworkStays })
		}
		ordered := time.Now()
		r.until("the fault", stays)
		if d := time.Since(ordered); d < requestTime {
			t.Errorf("a fault after %v already", d)
		}
		if err := os.Remove(request); err != nil {
			t.Fatal(err)
		}
		r.until("no fault", func(b status.Box) bool { return !stays(b) })
	})
}
