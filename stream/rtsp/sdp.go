package rtsp

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/h264"
	"encoderd.example/stream/h265"
	"encoderd.example/stream/rtp"
)

// describe returns the session description of tracks (RFC 4566; RFC 2326, C):
// what DESCRIBE answers. host is our address as the player sees it. keys are
// MIKEY messages by medium; without them media are not secured.
func describe(name string, tracks []*stream.Track, host netip.Addr, now time.Time, keys [2]string) (string, error) {
	net := "IP4 0.0.0.0"
	origin := net
	switch {
	case host.Is4():
		origin = "IP4 " + host.String()
	case host.Is6():
		net, origin = "IP6 ::", "IP6 "+host.WithZone("").String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "v=0\r\no=- %d %[1]d IN %s\r\ns=%s\r\nc=IN %s\r\nt=0 0\r\n", now.Unix(), origin, name, net)
	b.WriteString("a=tool:encoderd\r\na=range:npt=now-\r\na=control:*\r\n")
	for _, t := range tracks {
		if err := describeTrack(&b, t, keys[rtp.MediumOf(t.Codec)]); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

func describeTrack(b *strings.Builder, t *stream.Track, key string) error {
	m := rtp.MediumOf(t.Codec)
	kind, pt, profile := "video", rtp.VideoType, "RTP/AVP"
	if m == rtp.Sound {
		kind, pt = "audio", rtp.SoundType
	}
	if key != "" {
		profile = "RTP/SAVP"
	}
	fmt.Fprintf(b, "m=%s 0 %s %d\r\n", kind, profile, pt)
	if t.Bitrate > 0 {
		fmt.Fprintf(b, "b=AS:%d\r\n", (t.Bitrate+999)/1000)
	}
	if key != "" {
		fmt.Fprintf(b, "a=key-mgmt:mikey %s\r\n", key)
	}
	rtpmap, fmtp, err := encoding(t)
	if err != nil {
		return err
	}
	fmt.Fprintf(b, "a=rtpmap:%d %s\r\na=fmtp:%[1]d %[3]s\r\n", pt, rtpmap, fmtp)
	if t.FPS > 0 {
		fmt.Fprintf(b, "a=framerate:%s\r\n", strconv.FormatFloat(t.FPS, 'f', -1, 64))
	}
	fmt.Fprintf(b, "a=control:%s%d\r\n", controlPrefix, m)
	return nil
}

// encoding returns name and parameters of a track: RFC 6184, 8.1 for
// H.264, RFC 7798, 7.1 for H.265, RFC 3640, 4.1 for AAC, RFC 7587, 6.1 for Opus.
func encoding(t *stream.Track) (rtpmap, fmtp string, err error) {
	switch t.Codec {
	case stream.H264:
		sps, pps, err := h264.ParameterSets(t.Setup)
		if err != nil {
			return "", "", fmt.Errorf("rtsp: %w", err)
		}
		if len(sps) < 4 {
			return "", "", fmt.Errorf("rtsp: sps of %d bytes", len(sps))
		}
		return "H264/90000", fmt.Sprintf("packetization-mode=1;profile-level-id=%X;sprop-parameter-sets=%s,%s",
			sps[1:4], base64.StdEncoding.EncodeToString(sps), base64.StdEncoding.EncodeToString(pps)), nil
	case stream.H265:
		vps, sps, pps, err := h265.ParameterSets(t.Setup)
		if err != nil {
			return "", "", fmt.Errorf("rtsp: %w", err)
		}
		return "H265/90000", fmt.Sprintf("sprop-vps=%s;sprop-sps=%s;sprop-pps=%s", base64.StdEncoding.EncodeToString(vps),
			base64.StdEncoding.EncodeToString(sps), base64.StdEncoding.EncodeToString(pps)), nil
	case stream.AAC:
		return fmt.Sprintf("mpeg4-generic/%d/%d", t.Rate, t.Channels),
			"streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=" + hex.EncodeToString(t.Setup), nil
	case stream.Opus:
		stereo := min(max(t.Channels, 1), 2) - 1
		return "opus/48000/2", fmt.Sprintf("sprop-stereo=%d;stereo=%[1]d", stereo), nil
	default:
		return "", "", fmt.Errorf("rtsp: %v has no description here", t.Codec)
	}
}
