package webui

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"encoderd.example/daemon/status"
)

func TestMetricsFollowTheConventions(t *testing.T) {
	families, err := registry(onAir()).Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "encoderd_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestMetricsShowTheState(t *testing.T) {
	body := ask(Handler(options(onAir())), "GET", "/metrics", "").Body.String()
	for _, want := range []string{
		`encoderd_build_info{board="sim",version="0.1.0"} 1`,
		`encoderd_state{state="live"} 1`,
		`encoderd_state{state="off"} 0`,
		`encoderd_av_offset_seconds 0.0032`,
		`encoderd_input_signal 1`,
		`encoderd_input_frames_total 123456`,
		`encoderd_input_missed_frames_total 3`,
		`encoderd_input_damaged_frames_total 1`,
		`encoderd_input_decoded_bytes_total 9`,
		`encoderd_sound_peak_dbfs -12.4`,
		`encoderd_sound_channel_peak_dbfs{channel="right"} -13`,
		`encoderd_sound_channel_rms_dbfs{channel="left"} -26.1`,
		`encoderd_sound_loudness_lufs{window="short-term"} -23.4`,
		`encoderd_sound_loudness_lufs{window="momentary"} -21.9`,
		`encoderd_sound_silent 0`,
		`encoderd_sound_gaps_total 2`,
		`encoderd_sound_steps_total 1`,
		`encoderd_rendition_frames_total{rendition="main"} 149100`,
		`encoderd_rendition_dropped_frames_total{rendition="main"} 2`,
		`encoderd_rendition_bitrate_bytes_per_second{rendition="sub"} 98750`,
		`encoderd_rendition_info{codec="h264",encoder="libx264",rendition="main"} 1`,
		`encoderd_output_state{output="archive",state="backoff"} 1`,
		`encoderd_output_state{output="archive",state="live"} 0`,
		`encoderd_output_lag_seconds{output="youtube"} 0.0417`,
		`encoderd_output_sent_bytes_total{output="youtube"} 3.7e+09`,
		`encoderd_output_lost_units_total{output="archive"} 12`,
		`encoderd_readers{protocol="rtsp/tcp",rendition="main"} 1`,
		`encoderd_fault{code="output-retrying"} 1`,
		`encoderd_fault{code="no-picture"} 0`,
		`encoderd_tally_state{state="program"} 1`,
		`encoderd_tally_source_state{source="atem",state="program"} 1`,
		`encoderd_tally_source_state{source="obs",state="program"} 0`,
		`encoderd_tally_source_state{source="obs",state="unknown"} 1`,
		`encoderd_tally_source_bad_total{source="obs"} 2`,
		`encoderd_lamp_lit{lamp="STREAM"} 1`,
		`encoderd_lamp_lit{lamp="MUTE"} 0`,
		`encoderd_temperature_celsius 51.5`,
		"go_goroutines ",
		"process_resident_memory_bytes ",
	} {
		if !strings.Contains(body, "\n"+want) {
			t.Errorf("missing: %s", want)
		}
	}
}

func TestMetricsOfAnEmptyBox(t *testing.T) {
	w := ask(Handler(options(silent())), "GET", "/metrics", "")
	if w.Code != 200 || !strings.Contains(w.Body.String(), `encoderd_state{state="off"} 1`) {
		t.Errorf("got %d", w.Code)
	}
	if strings.Contains(w.Body.String(), "encoderd_temperature_celsius") {
		t.Error("an unknown temperature is shown as zero")
	}
}

func TestTwoRenditionsOfOneNameDoNotHideTheRest(t *testing.T) {
	f := onAir()
	f.cell.Update(func(b *status.Box) { b.Renditions = append(b.Renditions, b.Renditions[0]) })
	w := ask(Handler(options(f)), "GET", "/metrics", "")
	if w.Code != 200 || !strings.Contains(w.Body.String(), `encoderd_state{state="live"} 1`) {
		t.Errorf("got %d: %.300s", w.Code, w.Body)
	}
}
