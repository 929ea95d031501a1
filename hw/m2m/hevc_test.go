package m2m_test

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"testing"
	"testing/synctest"

	"encoderd.example/hw"
	"encoderd.example/hw/m2m"
	"encoderd.example/hw/v4l2/fakevb2"
	"encoderd.example/hw/v4l2/uapi"
	"encoderd.example/stream"
	"encoderd.example/stream/h265"
)

// TestDecodersTakeOurHEVC: key pictures on demand carry the parameter sets, and
// what comes out is one stream.
func TestDecodersTakeOurHEVC(t *testing.T) {
	for _, driver := range []string{"vh264enc", "allegro"} { // with an order for key pictures, and without
		t.Run(driver, func(t *testing.T) {
			var annexB []byte
			synctest.Test(t, func(t *testing.T) {
				s := newRig(t, codecHEVC(driver)).play(t, smallHEVC())
				s.pass(4)
				s.e.ForceKey()
				s.pass(8)
				if err := s.close(); err != nil {
					t.Error(err)
				}
				s.came([]int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, []int{1, 5})
				checkHEVC(t, s.units)
				for _, u := range s.units {
					for nal := range h265.NALs(u.Data) {
						annexB = append(append(annexB, 0, 0, 0, 1), nal...)
					}
				}
			})
			var complaints bytes.Buffer
			cmd := exec.Command("ffprobe", "-v", "warning", "-f", "hevc", "-count_frames", "-of", "default=nw=1",
				"-show_entries", "stream=codec_name,profile,width,height,has_b_frames,nb_read_frames", "-")
			cmd.Stdin, cmd.Stderr = bytes.NewReader(annexB), &complaints
			out, err := cmd.Output()
			if err != nil || complaints.Len() > 0 {
				t.Fatalf("ffprobe: %v (make test installs it)\n%s", err, &complaints)
			}
			const want = "codec_name=hevc\nprofile=Main\nwidth=64\nheight=48\nhas_b_frames=0\nnb_read_frames=12\n"
			if string(out) != want {
				t.Errorf("ffprobe says\n%s", out)
			}
		})
	}
}

// checkHEVC looks at the track of units, which must be one.
func checkHEVC(t *testing.T, units []*stream.Unit) {
	t.Helper()
	track := units[0].Track
	for _, u := range units {
		if u.Track != track {
			t.Error("a new track without need")
		}
	}
	_, sps, _, err := h265.ParameterSets(track.Setup)
	if err != nil {
		t.Fatal(err)
	}
	s, err := h265.ParseSPS(sps)
	if err != nil {
		t.Fatal(err)
	}
	if s.Width != fakevb2.WidthHEVC || s.Height != fakevb2.HeightHEVC || s.Profile != 1 {
		t.Errorf("parameter set says %+v", s)
	}
	if track.Codec != stream.H265 || track.Width != s.Width || track.Height != s.Height || track.FPS != 15 || track.Bitrate != 4_000_000 {
		t.Errorf("track says %+v", track)
	}
}

func TestWhatHEVCEncodersAreTold(t *testing.T) {
	for driver, period := range map[string]int64{"unheard-of": 1, "wave5": 30} {
		t.Run(driver, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := codecHEVC(driver)
				cfg := config(256, 128)
				cfg.Codec = stream.H265
				r := newRig(t, n)
				s := r.play(t, cfg)
				r.Do(func() {
					got := n.Settings()
					for id, want := range map[uint32]int64{
						uapi.CIDGOPSize: 30, uapi.CIDBitrate: 4_000_000, uapi.CIDRepeatSeqHeader: 1,
						uapi.CIDHEVCProfile: uapi.HEVCProfileMain, uapi.CIDHEVCTier: uapi.HEVCTierMain, uapi.CIDHEVCLevel: uapi.HEVCLevel3,
						uapi.CIDHEVCRefreshType: uapi.HEVCRefreshIDR, uapi.CIDHEVCRefreshPeriod: period,
						uapi.CIDHEVCMinQP: 10, uapi.CIDHEVCMaxQP: 51,
					} {
						if !slices.Contains(got, fakevb2.Setting{ID: id, Value: want}) {
							t.Errorf("control %#x was not set to %d: %v", id, want, got)
						}
					}
				})
				if err := s.close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestHEVCIsRefused where the codec, the profile or the level is not to be had.
func TestHEVCIsRefused(t *testing.T) {
	change := func(by func(*hw.EncoderConfig)) hw.EncoderConfig {
		cfg := smallHEVC()
		by(&cfg)
		return cfg
	}
	for name, tt := range map[string]struct {
		node *fakevb2.Node
		cfg  hw.EncoderConfig
	}{
		"by what codes H.264 only":      {codec("unheard-of"), smallHEVC()},
		"H.264 by what codes HEVC only": {codecHEVC("unheard-of"), small()},
		"profile":                       {codecHEVC("unheard-of"), change(func(c *hw.EncoderConfig) { c.Profile = "high" })},
		"bit rate":                      {codecHEVC("unheard-of"), change(func(c *hw.EncoderConfig) { c.Bitrate = 300_000_000 })},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := newRig(t, tt.node).driver.Open(tt.cfg); !errors.Is(err, hw.ErrUnsupported) {
				t.Errorf("Open says %v", err)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) { // pictures of another size come out
		cfg := config(128, 96)
		cfg.Codec = stream.H265
		s := newRig(t, codecHEVC("unheard-of")).play(t, cfg)
		s.pass(1)
		err := <-s.ended
		if !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("Next says %v", err)
		}
		s.ended <- err
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
}

// TestHEVCPicturesOfFullRangeAreConverted: its parameter sets say nothing of
// the range, and decoders then take the limited one.
func TestHEVCPicturesOfFullRangeAreConverted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := codecHEVC("unheard-of")
		n.Encoder.Raw = n.Encoder.Raw[:1]
		var luma []byte
		n.Encoder.Code = func(p fakevb2.Picture) []byte {
			luma = append(luma, slices.Max(p.Planes[0][:64*48]))
			return fakevb2.Grey(p)
		}
		s := newRig(t, n).play(t, smallHEVC())
		s.pass(1)
		f := s.reel.next()
		f.FullRange = true
		for y := range f.Height {
			for x := range f.Width {
				f.Planes[0].Data[y*f.Planes[0].Stride+x] = 255
			}
		}
		if err := s.e.Submit(f); err != nil {
			t.Error(err)
		}
		s.settle()
		f.FullRange = false
		f.Release()
		if err := s.close(); err != nil {
			t.Error(err)
		}
		if !bytes.Equal(luma, []byte{235, 235}) || fmt.Sprint(keys(s.units)) != "[0]" || s.e.Stats().CopiedBytes == 0 {
			t.Errorf("luma %d went in, keys %v, %+v", luma, keys(s.units), s.e.Stats())
		}
	})
}

func TestHEVCTellsANewRateInItsTrack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newRig(t, codecHEVC("vh264enc")).play(t, smallHEVC())
		s.pass(2)
		if err := s.e.(*m2m.Encoder).SetRate(hw.Rate{Num: 30, Den: 1}); err != nil {
			t.Error(err)
		}
		s.pass(2)
		if fmt.Sprint(keys(s.units)) != "[0 2]" || s.units[0].Track.FPS != 15 || s.units[3].Track.FPS != 30 {
			t.Errorf("keys %v, from %v to %v fps", keys(s.units), s.units[0].Track.FPS, s.units[3].Track.FPS)
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
}
