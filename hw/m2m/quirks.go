package m2m

import (
	"strings"

	"encoderd.example/hw/v4l2/uapi"
)

// A known is what is known of a driver before it is asked.
type known int

const (
	ask known = iota // whether the driver has the control decides
	yes
	no
)

// A size is a picture's width and height in pixels.
type size struct{ width, height int }

// quirks are what a driver does otherwise than the kernel's documentation
// says, or does not tell about itself.
type quirks struct {
	driver string // part of the name that the driver gives itself
	// forceKey: a key frame can be ordered. Else the GOP is begun anew.
	forceKey known
	// liveBitrate: the bit rate may change while the encoder runs.
	liveBitrate known
	// liveRate: the frame rate may change while the encoder runs.
	liveRate bool
	// wholeRates: the driver cuts the frame rate to whole numbers.
	wholeRates bool
	// refreshInPictures: the refresh period of HEVC counts pictures, not only
	// those that stand alone.
	refreshInPictures bool
	// bitrateMode is what serves a live stream best.
	bitrateMode int64
	// minQP and maxQP bound the quantiser. A low maxQP makes encoders overshoot
	// and drop pictures, a high minQP wastes quality.
	minQP, maxQP int64
	// buffers is how few a queue may have.
	buffers int
	// splits: a large picture comes in several buffers, and no flag says so.
	splits bool
	// mustEmit: the device hangs for ever if it is stopped while the last
	// picture that went in has not come out.
	mustEmit bool
	// least and most are the sizes that the device can code; zero leaves it to
	// the driver.
	least, most size
	// budget is how many macroblocks a second the hardware codes; zero if it is
	// not known.
	budget int
}

// fallback is for drivers that nothing is known of.
var fallback = quirks{bitrateMode: uapi.BitrateModeCBR, minQP: 10, maxQP: 51, buffers: 4}

// The drivers, by what their sources and their users' reports say. Only
// vh264enc, the one of the virtual board, was run by us.
var knownDrivers = []quirks{
	{
		// Rate control overshoots and swallows pictures without a sign; constant
		// bit rate with CABAC makes the firmware time out.
		driver: "bcm2835-codec", forceKey: yes, liveBitrate: yes, liveRate: true,
		bitrateMode: uapi.BitrateModeVBR, minQP: 10, maxQP: 51, buffers: 4, splits: true, mustEmit: true,
		least: size{32, 32}, most: size{1920, 1920}, budget: 245_760,
	},
	{
		driver: "coda", forceKey: yes, liveBitrate: yes,
		bitrateMode: uapi.BitrateModeCBR, minQP: 10, maxQP: 51, buffers: 4, most: size{1920, 1088},
	},
	{
		driver: "amphion", forceKey: yes, liveBitrate: yes,
		bitrateMode: uapi.BitrateModeCBR, minQP: 10, maxQP: 51, buffers: 6, most: size{1920, 1920},
	},
	{
		driver: "wave5", forceKey: no, liveBitrate: no, wholeRates: true, refreshInPictures: true,
		bitrateMode: uapi.BitrateModeCBR, minQP: 10, maxQP: 51, buffers: 4, least: size{256, 128}, most: size{8192, 8192},
	},
	{
		driver: "mtk-vcodec", forceKey: yes, liveBitrate: yes,
		bitrateMode: uapi.BitrateModeCBR, minQP: 10, maxQP: 51, buffers: 4, least: size{160, 128},
	},
	{
		driver: "venus", forceKey: yes, liveBitrate: yes,
		bitrateMode: uapi.BitrateModeCBR, minQP: 10, maxQP: 51, buffers: 4,
	},
	{
		driver: "iris", forceKey: no, liveBitrate: yes,
		bitrateMode: uapi.BitrateModeCBR, minQP: 10, maxQP: 51, buffers: 4, least: size{128, 128}, most: size{8192, 8192},
	},
	{
		driver:      "s5p-mfc",
		bitrateMode: uapi.BitrateModeCBR, minQP: 10, maxQP: 51, buffers: 4,
	},
	{
		driver: "allegro", forceKey: no,
		bitrateMode: uapi.BitrateModeCBR, minQP: 10, maxQP: 51, buffers: 4, most: size{3840, 2160},
	},
	{
		driver: "hva", forceKey: no,
		bitrateMode: uapi.BitrateModeCBR, minQP: 10, maxQP: 51, buffers: 4,
	},
	{
		// Its constant bit rate is filler, which we would only cut off again.
		driver: "vh264enc", forceKey: yes, liveBitrate: yes, liveRate: true,
		bitrateMode: uapi.BitrateModeVBR, minQP: 0, maxQP: 51, buffers: 4, least: size{16, 16}, most: size{4096, 2304},
	},
}

// quirksOf returns what is known of a driver.
func quirksOf(driver string) quirks {
	for _, q := range knownDrivers {
		if strings.Contains(driver, q.driver) {
			return q
		}
	}
	return fallback
}
