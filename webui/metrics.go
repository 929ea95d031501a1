package webui

import (
	"cmp"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"encoderd.example/daemon/status"
)

// metrics serves the state as Prometheus reads it, with a registry of its own.
func metrics(box Box) http.Handler {
	return promhttp.HandlerFor(registry(box), promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
	})
}

func registry(box Box) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newCollector(box))
	return r
}

// emit adds one sample.
type emit func(value float64, labels ...string)

// A metric is one line of the table: a family of samples, computed from the
// state.
type metric struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string
	read       func(b status.Box, e emit)
}

// The kinds of values and the states that have a sample each, zero or one.
const (
	gauge   = prometheus.GaugeValue
	counter = prometheus.CounterValue
)

var (
	boxStates    = []string{status.Off, status.Starting, status.Live, status.Degraded, status.Broken}
	outputStates = []string{status.Off, status.Starting, status.Unconfirmed, status.Live, status.Backoff, status.Failed}
	tallyStates  = []string{"off", "preview", "program", "unknown"}
	recordStates = []string{status.Off, status.Starting, status.Recording, status.Slow, status.Failed}
)

// families is every metric of the box. Names and units follow
// https://prometheus.io/docs/practices/naming/.
var families = []metric{
	{
		"encoderd_build_info", "Version and board of the box; always 1.", gauge,
		[]string{"version", "board"},
		func(b status.Box, e emit) { e(1, b.Version, b.Board) },
	},
	{
		"encoderd_state", "State of the box: 1 for the one it is in.", gauge,
		[]string{"state"},
		func(b status.Box, e emit) { oneOf(e, boxStates, b.State) },
	},
	{"encoderd_fault", "Whether a fault of this kind stands.", gauge, []string{"code"}, faults},
	{
		"encoderd_av_offset_seconds", "How much later than the picture the sound is.", gauge, nil,
		func(b status.Box, e emit) { e(b.AVOffsetMS / 1000) },
	},

	{
		"encoderd_input_signal", "Whether a picture comes in.", gauge, nil,
		func(b status.Box, e emit) { e(truth(b.Input.Signal)) },
	},
	{
		"encoderd_input_frame_rate_hertz", "Pictures per second that come in, measured.", gauge, nil,
		func(b status.Box, e emit) { e(b.Input.FPS) },
	},
	{
		"encoderd_input_frames_total", "Good pictures that came in.", counter, nil,
		func(b status.Box, e emit) { e(float64(b.Input.Frames)) },
	},
	{
		"encoderd_input_missed_frames_total", "Pictures lost before they reached the box's program.", counter, nil,
		func(b status.Box, e emit) { e(float64(b.Input.Missed)) },
	},
	{
		"encoderd_input_damaged_frames_total", "Pictures that came in damaged and were dropped.", counter, nil,
		func(b status.Box, e emit) { e(float64(b.Input.Damaged)) },
	},
	{
		"encoderd_input_decoded_bytes_total", "Bytes of raw pictures that the processor wrote to decode JPEG.", counter, nil,
		func(b status.Box, e emit) { e(float64(b.Input.DecodedBytes)) },
	},
	{
		"encoderd_input_slate_frames_total", "No-signal pictures shown in place of the camera's.", counter, nil,
		func(b status.Box, e emit) { e(float64(b.Input.Slate)) },
	},

	{
		"encoderd_sound_signal", "Whether sound comes in.", gauge, nil,
		func(b status.Box, e emit) { e(truth(b.Sound.Signal)) },
	},
	{
		"encoderd_sound_muted", "Whether the sound is muted.", gauge, nil,
		func(b status.Box, e emit) { e(truth(b.Sound.Muted)) },
	},
	{
		"encoderd_sound_peak_dbfs", "Peak level in dB below full scale.", gauge, nil,
		func(b status.Box, e emit) { e(max(b.Sound.PeakDBFS, silence)) },
	},
	{
		"encoderd_sound_channel_peak_dbfs", "Peak level of a channel in dB below full scale.", gauge,
		[]string{"channel"},
		eachChannel(func(c status.SoundChannel) float64 { return c.PeakDBFS }),
	},
	{
		"encoderd_sound_channel_rms_dbfs", "RMS level of a channel in dB below full scale.", gauge,
		[]string{"channel"},
		eachChannel(func(c status.SoundChannel) float64 { return c.RMSDBFS }),
	},
	{
		"encoderd_sound_loudness_lufs", "Loudness by EBU R128, of the last 3 s and of the last 400 ms.", gauge,
		[]string{"window"},
		func(b status.Box, e emit) {
			e(max(b.Sound.LoudnessLUFS, silence), "short-term")
			e(max(b.Sound.MomentaryLUFS, silence), "momentary")
		},
	},
	{
		"encoderd_sound_silent", "Whether the sound has been silent for longer than it should.", gauge, nil,
		func(b status.Box, e emit) { e(truth(b.Sound.Silent)) },
	},
	{
		"encoderd_sound_gaps_total", "Times that lost sound was replaced by silence.", counter, nil,
		func(b status.Box, e emit) { e(float64(b.Sound.Gaps)) },
	},
	{
		"encoderd_sound_steps_total", "Times that sound was too far off the picture and was moved by force.", counter, nil,
		func(b status.Box, e emit) { e(float64(b.Sound.Steps)) },
	},
	{
		"encoderd_sound_drift_ratio", "How much faster than the box's clock the sound card runs.", gauge, nil,
		func(b status.Box, e emit) { e(b.Sound.DriftPPM / 1e6) },
	},
	{
		"encoderd_sound_overruns_total", "Times that sound was lost in the card's buffer.", counter, nil,
		func(b status.Box, e emit) { e(float64(b.Sound.Xruns)) },
	},

	{
		"encoderd_rendition_info", "Codec and encoder of a rendition; always 1.", gauge,
		[]string{"rendition", "codec", "encoder"},
		func(b status.Box, e emit) {
			for _, r := range b.Renditions {
				e(1, r.Name, r.Codec, r.Encoder)
			}
		},
	},
	{
		"encoderd_rendition_buffers_info", "How pictures get from the camera to the encoder; always 1.", gauge,
		[]string{"rendition", "way"},
		func(b status.Box, e emit) {
			for _, r := range b.Renditions {
				if r.Buffers != nil {
					e(1, r.Name, r.Buffers.Way)
				}
			}
		},
	},
	{
		"encoderd_rendition_frames_total", "Coded pictures.", counter,
		[]string{"rendition"},
		eachRendition(func(r status.Rendition) float64 { return float64(r.Frames) }),
	},
	{
		"encoderd_rendition_dropped_frames_total", "Pictures that were not coded for lack of room.", counter,
		[]string{"rendition"},
		eachRendition(func(r status.Rendition) float64 { return float64(r.Dropped) }),
	},
	{
		"encoderd_rendition_copied_bytes_total", "Bytes of raw pictures that the processor wrote between camera and encoder.", counter,
		[]string{"rendition"},
		eachRendition(func(r status.Rendition) float64 { return float64(r.CopiedBytes) }),
	},
	{
		"encoderd_rendition_frame_rate_hertz", "Coded pictures per second, measured.", gauge,
		[]string{"rendition"},
		eachRendition(func(r status.Rendition) float64 { return r.FPS }),
	},
	{
		"encoderd_rendition_bitrate_bytes_per_second", "Bit rate, measured, as bytes per second.", gauge,
		[]string{"rendition"},
		eachRendition(func(r status.Rendition) float64 { return float64(r.Bitrate) / 8 }),
	},
	{
		"encoderd_rendition_target_bitrate_bytes_per_second", "Bit rate wanted, as bytes per second.", gauge,
		[]string{"rendition"},
		eachRendition(func(r status.Rendition) float64 { return float64(r.Target) / 8 }),
	},

	{
		"encoderd_output_state", "State of a destination: 1 for the one it is in.", gauge,
		[]string{"output", "state"},
		func(b status.Box, e emit) {
			for _, o := range b.Outputs {
				oneOf(func(v float64, state ...string) { e(v, o.Name, state[0]) }, outputStates, o.State)
			}
		},
	},
	{
		"encoderd_output_required", "Whether the show is not well while this destination is down.", gauge,
		[]string{"output"},
		eachOutput(func(o status.Output) float64 { return truth(o.Required) }),
	},
	{
		"encoderd_output_lag_seconds", "How far the destination is behind.", gauge,
		[]string{"output"},
		eachOutput(func(o status.Output) float64 { return o.LagMS / 1000 }),
	},
	{
		"encoderd_output_bitrate_bytes_per_second", "Bit rate sent, measured, as bytes per second.", gauge,
		[]string{"output"},
		eachOutput(func(o status.Output) float64 { return float64(o.Bitrate) / 8 }),
	},
	{
		"encoderd_output_sent_bytes_total", "Media bytes sent.", counter,
		[]string{"output"},
		eachOutput(func(o status.Output) float64 { return float64(o.Sent) }),
	},
	{
		"encoderd_output_lost_units_total", "Pictures and sounds skipped because the network was too slow.", counter,
		[]string{"output"},
		eachOutput(func(o status.Output) float64 { return float64(o.Lost) }),
	},

	{
		"encoderd_readers", "Local viewers now.", gauge,
		[]string{"protocol", "rendition"},
		eachAudience(func(sum float64, _ status.Reader) float64 { return sum + 1 }),
	},
	{
		"encoderd_readers_bytes", "Bytes that those who watch now were sent.", gauge,
		[]string{"protocol", "rendition"},
		eachAudience(func(sum float64, r status.Reader) float64 { return sum + float64(r.Bytes) }),
	},
	{
		"encoderd_readers_lost_units", "Pictures and sounds that those who watch now were too slow for.", gauge,
		[]string{"protocol", "rendition"},
		eachAudience(func(sum float64, r status.Reader) float64 { return sum + float64(r.Lost) }),
	},
	{
		"encoderd_readers_lag_seconds", "Media that waits for the slowest of those who watch now.", gauge,
		[]string{"protocol", "rendition"},
		eachAudience(func(most float64, r status.Reader) float64 { return max(most, r.LagMS/1000) }),
	},
	{
		"encoderd_tally_state", "What the switchers say about this camera: 1 for the state.", gauge,
		[]string{"state"},
		func(b status.Box, e emit) { oneOf(e, tallyStates, b.Tally.State) },
	},
	{
		"encoderd_tally_source_state", "What one switcher says about this camera: 1 for the state.", gauge,
		[]string{"source", "state"},
		func(b status.Box, e emit) {
			for _, s := range b.Tally.Sources {
				oneOf(func(v float64, state ...string) { e(v, s.Name, state[0]) }, tallyStates, s.State)
			}
		},
	},
	{
		"encoderd_tally_source_bad_total", "Times that what came from a switcher was not understood.", counter,
		[]string{"source"},
		func(b status.Box, e emit) {
			for _, s := range b.Tally.Sources {
				e(float64(s.Bad), s.Name)
			}
		},
	},
	{
		"encoderd_lamp_lit", "Whether a lamp shines or blinks.", gauge,
		[]string{"lamp"},
		func(b status.Box, e emit) {
			for name, l := range b.Lamps {
				e(truth(l.Pattern != status.Off), name)
			}
		},
	},
	{
		"encoderd_temperature_celsius", "Temperature of the box, if it can tell.", gauge, nil,
		func(b status.Box, e emit) {
			if b.TemperatureC != 0 {
				e(b.TemperatureC)
			}
		},
	},
	{
		"encoderd_record_state", "State of the recorder: 1 for the one it is in.", gauge,
		[]string{"state"},
		func(b status.Box, e emit) { oneOf(e, recordStates, cmp.Or(b.Record.State, status.Off)) },
	},
	{
		"encoderd_record_bytes_total", "Bytes of recordings that are on the medium.", counter, nil,
		func(b status.Box, e emit) { e(float64(b.Record.Bytes)) },
	},
	{
		"encoderd_record_frames_total", "Pictures of recordings that are on the medium.", counter, nil,
		func(b status.Box, e emit) { e(float64(b.Record.Pictures)) },
	},
	{
		"encoderd_record_lost_frames_total", "Pictures that were left out of recordings.", counter, nil,
		func(b status.Box, e emit) { e(float64(b.Record.Lost)) },
	},
	{
		"encoderd_record_medium_free_bytes", "Free bytes where recordings go, while there is one.", gauge, nil,
		func(b status.Box, e emit) {
			if b.Record.TotalBytes > 0 {
				e(float64(b.Record.FreeBytes))
			}
		},
	},
	{
		"encoderd_storage_size_bytes", "Size of the disk that holds the state.", gauge, nil,
		func(b status.Box, e emit) { e(float64(b.Storage.TotalBytes)) },
	},
	{
		"encoderd_storage_free_bytes", "Free bytes on the disk that holds the state.", gauge, nil,
		func(b status.Box, e emit) { e(float64(b.Storage.FreeBytes)) },
	},
}

func eachChannel(value func(status.SoundChannel) float64) func(status.Box, emit) {
	return func(b status.Box, e emit) {
		for i, name := range []string{"left", "right"} {
			e(max(value(b.Sound.Channels[i]), silence), name)
		}
	}
}

func eachRendition(value func(status.Rendition) float64) func(status.Box, emit) {
	return func(b status.Box, e emit) {
		for _, r := range b.Renditions {
			e(value(r), r.Name)
		}
	}
}

func eachOutput(value func(status.Output) float64) func(status.Box, emit) {
	return func(b status.Box, e emit) {
		for _, o := range b.Outputs {
			e(value(o), o.Name)
		}
	}
}

// faults has a sample for each kind, so that alarms see it come and go.
func faults(b status.Box, e emit) {
	for code := range status.FaultTable {
		e(truth(b.Has(code)), string(code))
	}
}

// eachAudience has a sample for each protocol and rendition that somebody
// watches; peers would make too many.
func eachAudience(add func(sum float64, r status.Reader) float64) func(status.Box, emit) {
	return func(b status.Box, e emit) {
		sums := map[[2]string]float64{}
		for _, r := range b.Readers {
			of := [2]string{r.Protocol, r.Rendition}
			sums[of] = add(sums[of], r)
		}
		for of, sum := range sums {
			e(sum, of[0], of[1])
		}
	}
}

func oneOf(e emit, all []string, now string) {
	for _, s := range all {
		e(truth(s == now), s)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// A collector reads the state once a scrape.
type collector struct {
	box   Box
	descs []*prometheus.Desc // of families
}

func newCollector(box Box) *collector {
	c := &collector{box: box}
	for _, f := range families {
		c.descs = append(c.descs, prometheus.NewDesc(f.name, f.help, f.labels, nil))
	}
	return c
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(to chan<- prometheus.Metric) {
	box, _ := c.box.Status()
	for i, f := range families {
		f.read(box, func(v float64, labels ...string) {
			m, err := prometheus.NewConstMetric(c.descs[i], f.kind, v, labels...)
			if err != nil {
				m = prometheus.NewInvalidMetric(c.descs[i], err)
			}
			to <- m
		})
	}
}
