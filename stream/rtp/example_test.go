package rtp_test

import (
	"fmt"

	"encoderd.example/stream"
	"encoderd.example/stream/rtp"
)

func ExamplePacketizer() {
	sound := &stream.Track{Codec: stream.AAC, Setup: []byte{0x11, 0x90}, Rate: 48000, Channels: 2}
	p, err := rtp.NewPacketizer(rtp.DefaultSize, sound)
	if err != nil {
		fmt.Println(err)
		return
	}
	b, err := p.Batch(&stream.Unit{Track: sound, Data: make([]byte, 300)})
	if err != nil {
		fmt.Println(err)
		return
	}
	for channel, packet := range b.Packets(rtp.Set(0).With(rtp.Sound)) {
		fmt.Println("channel", channel, "bytes", len(packet))
	}
	// Output:
	// channel 3 bytes 56
	// channel 2 bytes 316
}
