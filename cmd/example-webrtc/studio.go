package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/pion/mediadevices"
	"github.com/pion/mediadevices/pkg/codec"
	"github.com/pion/mediadevices/pkg/frame"
	"github.com/pion/mediadevices/pkg/prop"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"

	"encoderd.example/hw"
	"encoderd.example/hw/pion"
	"encoderd.example/hw/pion/encode"
)

// A studio records what is plugged in and codes it once for all viewers:
//
//	board ─► registry ─► GetUserMedia ─► NewEncodedReader ─► picture, sound ─► each peer
//
// A camera that is unplugged leaves the picture standing; when one is plugged
// in the same viewers see it.
type studio struct {
	board    hw.Board
	registry *pion.Registry
	codecs   *mediadevices.CodecSelector
	format   frame.Format // that the encoder reads in place; empty if it does not matter
	wish     options
	log      *slog.Logger

	picture, sound *webrtc.TrackLocalStaticSample

	mu       sync.Mutex
	forceKey func() error // of the encoder that runs, or nil
}

func newStudio(board hw.Board, o options, log *slog.Logger) (*studio, error) {
	found, err := encoders(board)
	if err != nil {
		log.Warn("cannot list hardware encoders", "err", err)
	}
	video, audio := builders(found, board.AudioEncoders, o.bitrate, log)
	s := &studio{
		board: board, registry: pion.NewRegistry(), format: formatFor(found), wish: o, log: log,
		codecs: mediadevices.NewCodecSelector(mediadevices.WithVideoEncoders(video...), mediadevices.WithAudioEncoders(audio...)),
	}
	var err2 error
	s.picture, err = webrtc.NewTrackLocalStaticSample(encode.H264{}.RTPCodec().RTPCodecCapability, "picture", "box")
	s.sound, err2 = webrtc.NewTrackLocalStaticSample(encode.Opus{}.RTPCodec().RTPCodecCapability, "sound", "box")
	return s, errors.Join(err, err2)
}

// encoders lists the board's, hardware before software. An error is about the
// hardware; the list is good nevertheless.
func encoders(board hw.Board) (list []hw.EncoderDriver, err error) {
	if board.FindEncoders != nil {
		list, err = board.FindEncoders()
	}
	return append(list, board.Encoders...), err
}

// formatFor returns the layout that the best encoder reads without a copy.
func formatFor(list []hw.EncoderDriver) frame.Format {
	if len(list) == 0 || list[0].Importer == nil {
		return ""
	}
	for _, pixel := range list[0].Importer.Takes() {
		if name, ok := pion.Format(pixel); ok {
			return name
		}
	}
	return ""
}

// builders returns what mediadevices may code with, best first: it takes the
// first that can be opened.
func builders(video []hw.EncoderDriver, audio []hw.AudioEncoderDriver, bitrate int, log *slog.Logger) (v []codec.VideoEncoderBuilder, a []codec.AudioEncoderBuilder) {
	for _, d := range video {
		open := d.Open
		d.Open = func(c hw.EncoderConfig) (hw.Encoder, error) {
			e, err := open(c)
			log.Info("encoder", "name", d.Name, "hardware", d.Hardware, "width", c.Width, "height", c.Height, "fps", c.FPS.Float(), "err", err)
			return e, err
		}
		v = append(v, encode.H264{BaseParams: codec.BaseParams{BitRate: bitrate}, Driver: d})
	}
	for _, d := range audio {
		a = append(a, encode.Opus{Driver: d})
	}
	return v, a
}

// again is how long the studio waits after a failure that no device's coming
// or going ends.
const again = 2 * time.Second

// run records until ctx ends.
func (s *studio) run(ctx context.Context) {
	changed := make(chan struct{}, 1)
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() {
		err := s.board.Watch(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
		if err != nil {
			s.log.Warn("cannot hear of devices", "err", err)
		}
	})
	defer func() { _ = s.registry.Sync(nil, nil) }() // what only deletes does not fail
	for ctx.Err() == nil {
		if err := s.record(ctx, changed); ctx.Err() == nil {
			s.log.Warn("no picture", "err", err)
		}
		select {
		case <-changed:
		case <-time.After(again):
		case <-ctx.Done():
		}
	}
}

// record opens what is plugged in, and passes it on until something ends. What
// changes meanwhile is listed for the next time.
func (s *studio) record(ctx context.Context, changed <-chan struct{}) error {
	if err := s.list(); err != nil {
		return err
	}
	stream, err := mediadevices.GetUserMedia(s.constraints())
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	var passing sync.WaitGroup
	for _, track := range stream.GetTracks() {
		passing.Go(func() {
			if err := s.pass(track); err != nil {
				end(err)
			}
		})
	}
	for ctx.Err() == nil {
		select {
		case <-changed:
			err = s.list()
		case <-ctx.Done():
		}
	}
	errs := []error{context.Cause(ctx), err}
	for _, track := range stream.GetTracks() {
		errs = append(errs, track.Close())
	}
	passing.Wait()
	return errors.Join(errs...)
}

// constraints say what to record: the camera, and a microphone if there is
// one.
func (s *studio) constraints() mediadevices.MediaStreamConstraints {
	c := mediadevices.MediaStreamConstraints{Codec: s.codecs, Video: func(c *mediadevices.MediaTrackConstraints) {
		c.Width, c.Height, c.FrameRate = prop.Int(s.wish.width), prop.Int(s.wish.height), prop.Float(s.wish.fps)
		if s.format != "" {
			c.FrameFormat = prop.FrameFormat(s.format)
		}
	}}
	if len(s.registry.Mics()) > 0 {
		c.Audio = func(*mediadevices.MediaTrackConstraints) {}
	}
	return c
}

// list tells mediadevices what is plugged in.
func (s *studio) list() error {
	cameras, err := s.board.Cameras()
	mics, err2 := s.board.Mics()
	if err := errors.Join(err, err2); err != nil {
		s.log.Warn("cannot list all devices", "err", err)
	}
	return s.registry.Sync(cameras, mics)
}

// pass codes a track and hands it to all peers until the track ends. Sound that
// cannot be coded, for want of a library, is left out.
func (s *studio) pass(track mediadevices.Track) error {
	to := s.picture
	if track.Kind() == webrtc.RTPCodecTypeAudio {
		to = s.sound
	}
	coded, err := track.NewEncodedReader(to.Codec().MimeType)
	if err != nil && to == s.sound {
		s.log.Warn("no sound", "err", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("code the %s: %w", to.ID(), err)
	}
	if c, ok := coded.Controller().(encode.Controller); ok {
		s.steer(c.ForceKeyFrame)
		defer s.steer(nil)
		defer func() {
			st := c.Stats()
			s.log.Info("encoder ends", "coded", st.Coded, "dropped", st.Dropped, "swallowed", st.Swallowed, "copied_bytes", st.CopiedBytes)
		}()
	}
	defer func() { _ = coded.Close() }() // the error that ended it says more
	clock := time.Duration(to.Codec().ClockRate)
	for {
		unit, release, err := coded.Read()
		if err != nil {
			return fmt.Errorf("%s: %w", to.ID(), err)
		}
		err = to.WriteSample(media.Sample{Data: unit.Data, Duration: time.Duration(unit.Samples) * time.Second / clock})
		release()
		if err != nil {
			s.log.Debug("a peer is gone", "err", err)
		}
	}
}

func (s *studio) steer(forceKey func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forceKey = forceKey
}

// key asks the encoder for a key picture, if one runs.
func (s *studio) key() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forceKey == nil {
		return
	}
	if err := s.forceKey(); err != nil {
		s.log.Warn("no key picture", "err", err)
	}
}
