package record

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/stream"
	"encoderd.example/stream/streamtest/peer"
)

// A disk is a real file system of 110 MB, of which 64 stay free.
func disk(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=110m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill records a megabyte a second, as fast as a disk takes it, until that
// fails; after is called with the number of each second that is on the disk.
func fill(t *testing.T, dir string, after func(second int)) error {
	t.Helper()
	const pictures = 25
	track := &stream.Track{Codec: stream.H264, Setup: []byte{1, 0x64, 0, 0x1f}, Width: 640, Height: 360, FPS: pictures}
	src := stream.NewRendition("main", 4*pictures, stream.H264)
	publish := func(second int) {
		for n := range pictures {
			at := time.Hour + time.Duration(second)*time.Second + time.Duration(n)*time.Second/pictures
			src.Publish(&stream.Unit{Track: track, Key: n == 0, PTS: at, DTS: at, Data: make([]byte, 40_000)})
		}
	}
	publish(0)
	told, ended := make(chan Report, 1000), make(chan error, 1)
	go func() {
		var r Recorder
		ended <- r.Run(t.Context(), src, Settings{Dir: dir, Name: "main"}, func(r Report) { told <- r })
	}()
	limit := time.After(time.Minute)
	second := 0
	for {
		select {
		case r := <-told:
			if r.Free == 0 || r.Pictures < uint64(second*pictures) {
				continue
			}
			after(second)
			second++
			publish(second)
		case err := <-ended:
			return err
		case <-limit:
			t.Fatal("the disk is not full after a minute")
		}
	}
}

// fragments returns how many fragments a file has, which must be all that is in
// it.
func fragments(t *testing.T, file string) (n int) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for len(data) >= 8 {
		size := int(binary.BigEndian.Uint32(data))
		if size < 8 || size > len(data) {
			t.Fatalf("a box of %d bytes where %d are left", size, len(data))
		}
		if string(data[4:8]) == "mdat" {
			n++
		}
		data = data[size:]
	}
	if len(data) > 0 {
		t.Errorf("%d bytes are left", len(data))
	}
	return n
}

func TestAFullDisk(t *testing.T) {
	if !peer.Root(t) {
		return
	}
	tests := []struct {
		name  string
		after func(t *testing.T, dir string, second int)
		is    error
		least int // fragments
	}{
		{"by the recording", func(*testing.T, string, int) {}, ErrFull, 30},
		{"by somebody else", func(t *testing.T, dir string, second int) {
			t.Helper()
			if second != 10 {
				return
			}
			if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 200<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
				t.Error(err)
			}
		}, unix.ENOSPC, 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := disk(t)
			err := fill(t, dir, func(second int) { tt.after(t, dir, second) })
			if !errors.Is(err, tt.is) {
				t.Error(err)
			}
			files, _ := filepath.Glob(filepath.Join(dir, "*.mp4"))
			if len(files) != 1 {
				t.Fatal(files)
			}
			if n := fragments(t, files[0]); n < tt.least {
				t.Errorf("%d fragments", n)
			}
			if err := fill(t, dir, func(int) {}); !errors.Is(err, ErrFull) {
				t.Errorf("once more: %v", err)
			}
			if files, _ := filepath.Glob(filepath.Join(dir, "*.mp4")); len(files) != 1 {
				t.Errorf("once more: %v", files)
			}
		})
	}
}
