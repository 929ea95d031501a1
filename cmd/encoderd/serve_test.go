package main

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/stream/streamtest/peer"
)

func TestRTSPPlayersGetEveryPictureOnceAndSoundInStep(t *testing.T) {
	p := start(t, settings{})
	transports := []string{"tcp", "udp"}
	before := p.now()
	viewers := make([]viewer, len(transports))
	for i, transport := range transports {
		viewers[i] = p.view("main", transport, "-t", "6")
	}
	for i, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			p := p.in(t)
			found := probeLive(t, "rtsp://"+p.rtsp+"/main", transport)
			for _, want := range []string{"codec_name=h264", "width=320,height=180", "codec_name=aac", "sample_rate=48000,channels=2"} {
				if !strings.Contains(found, want) {
					t.Errorf("ffprobe finds no %s:\n%s", want, found)
				}
			}
			v := viewers[i]
			if err := v.Wait(t); err != nil {
				t.Fatalf("%v: %s", err, v.Log())
			}
			m := decode(t, v.file, 320, 180)
			if n := len(m.pictures); n < 150 {
				t.Errorf("%d pictures in 6 s", n)
			}
			m.whole(t, before, p.now())
			m.flashes(t)
			m.inStep(t, 4)
		})
	}
}

func TestBitRateAndGOPChangeWhileEverybodyStaysConnected(t *testing.T) {
	n := peer.StartNginx(t)
	outputs := hall(n.URL("live"))
	p := start(t, settings{sub: true, bitrate: "1M", outputs: outputs})
	p.do("stream.start")
	mains, subs := p.view("main", "tcp"), p.view("sub", "tcp")
	before := p.until("two readers and the output on air", func(b status.Box) bool {
		return watched(2)(b) && outputIs(status.Live)(b) && b.Renditions[0].Bitrate > 300_000
	})

	p.configure(settings{sub: true, bitrate: "150k", outputs: outputs})
	p.do("config.reload")
	slow := p.until("the bit rate to fall", func(b status.Box) bool {
		r := b.Renditions[0]
		return r.Target == 150_000 && r.Bitrate < 250_000
	})
	t.Logf("bit rate from %d to %d bit/s", before.Renditions[0].Bitrate, slow.Renditions[0].Bitrate)
	sameReaders(t, before, slow)

	p.configure(settings{sub: true, bitrate: "150k", gop: "2s", outputs: outputs})
	p.do("config.reload")
	p.frames(130)
	after := p.until("the encoders to be back", onDuty)
	sameReaders(t, before, after)
	if a, b := after.Outputs[0], before.Outputs[0]; a.State != status.Live || a.Since == nil || !a.Since.Equal(*b.Since) || a.Lost > 0 {
		t.Errorf("the output was %+v, is %+v", b, a)
	}
	mains.Kill()
	subs.Kill()
	p.stop()
	n.Kill()
	records := n.Recordings(t)
	if len(records) != 1 {
		t.Fatalf("the server saw %d connections, want one: %v", len(records), records)
	}
	counted := dropped(after) // players begin with what is cached
	for _, file := range []string{mains.file, records[0]} {
		m := decode(t, file, 320, 180)
		lost := m.lost(t)
		t.Logf("%d pictures, %d left out of which %d counted, at most %v apart", len(m.pictures), lost, counted, m.longest())
		// The encoder that starts again for the new GOP needs a moment.
		if restart := uint64(15); lost > counted+restart {
			t.Errorf("%d pictures are missing, %d were counted as dropped", lost, counted)
		}
		m.steady(t)
		m.inStep(t, 3)
	}
	m := decode(t, subs.file, 160, 90)
	m.lost(t)
	m.steady(t)
	m.inStep(t, 3)
	first, last := keyDistances(t, mains.file)
	if about := time.Second / 2; first.Round(about) != time.Second || last.Round(about) != 2*time.Second {
		t.Errorf("key pictures were %v apart and then %v, want 1s and 2s", first, last)
	}
}

func sameReaders(t *testing.T, before, after status.Box) {
	t.Helper()
	if len(after.Readers) != len(before.Readers) {
		t.Fatalf("readers were %+v, are %+v", before.Readers, after.Readers)
	}
	for i, r := range after.Readers {
		if b := before.Readers[i]; r.Peer != b.Peer || r.Since != b.Since || r.Lost > 0 || r.Bytes <= b.Bytes {
			t.Errorf("reader was %+v, is %+v", b, r)
		}
	}
}

// keyDistances returns how far key pictures are apart in the beginning and in
// the end of a file. Groups are counted in pictures, so that one that was left
// out makes its group longer.
func keyDistances(t *testing.T, file string) (first, last time.Duration) {
	t.Helper()
	out := peer.Output(t, "ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "packet=pts_time,flags", "-of", "csv=p=0", file)
	var keys []time.Duration
	for line := range strings.Lines(string(out)) {
		at, flags, _ := strings.Cut(line, ",")
		if s, err := strconv.ParseFloat(at, 64); err == nil && strings.HasPrefix(flags, "K") {
			keys = append(keys, time.Duration(s*1e9))
		}
	}
	if len(keys) < 5 {
		t.Fatalf("%d key pictures", len(keys))
	}
	apart := func(i int) time.Duration { return keys[i] - keys[i-1] }
	return apart(2), apart(len(keys) - 1)
}
