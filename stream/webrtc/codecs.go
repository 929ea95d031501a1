package webrtc

import (
	"fmt"
	"strings"

	"github.com/pion/webrtc/v4"

	"encoderd.example/stream"
	"encoderd.example/stream/h264"
	"encoderd.example/stream/rtp"
)

// profiles of H.264 that browsers offer, by profile_idc (RFC 6184, 8.1): what
// they say of the level they do not mean.
var profiles = []struct {
	idc  byte
	name string
}{
	{100, "64001f"}, {77, "4d001f"}, {66, "42e01f"}, {66, "42001f"},
}

// feedback is what visitors may say of the picture.
var feedback = []webrtc.RTCPFeedback{{Type: "nack"}, {Type: "nack", Parameter: "pli"}, {Type: "ccm", Parameter: "fir"}}

// register tells engine what a rendition is coded with. A browser that offers
// other profiles only gets the picture all the same: decoders read the
// parameter sets.
func register(engine *webrtc.MediaEngine, video, sound *stream.Track) error {
	pictures, err := capabilities(video)
	if err != nil {
		return err
	}
	for i, c := range pictures {
		p := webrtc.RTPCodecParameters{RTPCodecCapability: c, PayloadType: webrtc.PayloadType(rtp.VideoType + 4 + i)}
		if err := engine.RegisterCodec(p, webrtc.RTPCodecTypeVideo); err != nil {
			return err
		}
	}
	if sound == nil {
		return nil
	}
	return engine.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: opus, PayloadType: rtp.SoundType}, webrtc.RTPCodecTypeAudio)
}

var opus = webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: rtp.OpusClock, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1"}

// offers reports whether an SDP has a payload of that codec (RFC 8866, 6.6).
func offers(sdp string, codec stream.Codec) bool {
	for line := range strings.Lines(sdp) {
		mapping, ok := strings.CutPrefix(line, "a=rtpmap:")
		_, name, _ := strings.Cut(mapping, " ")
		name, _, _ = strings.Cut(name, "/")
		if ok && strings.EqualFold(name, codec.String()) {
			return true
		}
	}
	return false
}

// capabilities returns how a track's picture may be called, the best first.
func capabilities(t *stream.Track) ([]webrtc.RTPCodecCapability, error) {
	capability := func(mime, line string) webrtc.RTPCodecCapability {
		return webrtc.RTPCodecCapability{MimeType: mime, ClockRate: rtp.VideoClock, SDPFmtpLine: line, RTCPFeedback: feedback}
	}
	if t.Codec == stream.H265 {
		return []webrtc.RTPCodecCapability{capability(webrtc.MimeTypeH265, "")}, nil
	}
	sps, _, err := h264.ParameterSets(t.Setup)
	if err != nil {
		return nil, err
	}
	if len(sps) < 4 {
		return nil, fmt.Errorf("sps of %d bytes", len(sps))
	}
	var own, others []webrtc.RTPCodecCapability
	for _, p := range profiles {
		c := capability(webrtc.MimeTypeH264, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id="+p.name)
		if p.idc == sps[1] {
			own = append(own, c)
		} else {
			others = append(others, c)
		}
	}
	return append(own, others...), nil
}
