package peer

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// FFmpegRTMP is ffmpeg as an RTMP server for one publisher. It copies what it
// gets into File, an FLV file, and ends when the publisher does.
type FFmpegRTMP struct {
	*Process
	URL, Key, File string
}

// StartFFmpegRTMP returns once ffmpeg listens.
func StartFFmpegRTMP(tb testing.TB) *FFmpegRTMP {
	tb.Helper()
	address := FreeAddress(tb)
	f := &FFmpegRTMP{URL: "rtmp://" + address + "/live", Key: "canary-key-ffmpeg", File: tb.TempDir() + "/out.flv"}
	f.Process = Start(tb, "ffmpeg", "-hide_banner", "-loglevel", "info", "-listen", "1", "-i", f.URL+"/"+f.Key,
		"-map", "0", "-c", "copy", "-y", f.File)
	f.awaitListening(tb, address)
	return f
}

// A Stream is what ffprobe says about one stream of a file or address.
type Stream struct {
	Type       string `json:"codec_type"`
	Codec      string `json:"codec_name"`
	Width      int    `json:"width"`
	Height     int    `json:"height"`
	FrameRate  string `json:"avg_frame_rate"`
	SampleRate string `json:"sample_rate"`
	Channels   int    `json:"channels"`
	Packets    string `json:"nb_read_packets"`
}

// Probe returns the streams of a file and counts their packets.
func Probe(tb testing.TB, file string) []Stream {
	tb.Helper()
	out := Output(tb, "ffprobe", "-v", "error", "-count_packets", "-show_streams", "-of", "json", file)
	var found struct {
		Streams []Stream `json:"streams"`
	}
	if err := json.Unmarshal(out, &found); err != nil {
		tb.Fatalf("ffprobe %s: %v", file, err)
	}
	return found.Streams
}

// PictureMD5 decodes the pictures of a file and returns one checksum each, in
// order. Equal lists mean: every picture is there, once, and undamaged.
func PictureMD5(tb testing.TB, file string) []string {
	tb.Helper()
	return checksums(tb, file, "v:0", "-fps_mode", "passthrough")
}

// SoundMD5 returns one checksum for each coded frame of sound, in order.
func SoundMD5(tb testing.TB, file string) []string {
	tb.Helper()
	return checksums(tb, file, "a:0", "-c", "copy")
}

func checksums(tb testing.TB, file, stream string, args ...string) (sums []string) {
	tb.Helper()
	args = append([]string{"-v", "error", "-i", file, "-map", "0:" + stream}, args...)
	out := Output(tb, "ffmpeg", append(args, "-f", "framemd5", "-")...)
	for line := range bytes.Lines(out) {
		if fields := strings.Split(string(bytes.TrimSpace(line)), ","); line[0] != '#' {
			sums = append(sums, strings.TrimSpace(fields[len(fields)-1]))
		}
	}
	return sums
}
