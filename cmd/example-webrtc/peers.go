package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
)

// Peers are the browsers that watch.
type peers struct {
	studio *studio
	api    *webrtc.API

	mu      sync.Mutex
	present map[*webrtc.PeerConnection]bool
	reading sync.WaitGroup
}

func newPeers(s *studio) (*peers, error) {
	engine, chain := &webrtc.MediaEngine{}, &interceptor.Registry{}
	s.codecs.Populate(engine)
	if err := webrtc.RegisterDefaultInterceptors(engine, chain); err != nil {
		return nil, err
	}
	var network webrtc.SettingEngine
	network.SetIncludeLoopbackCandidate(true) // for a browser on this machine without a network
	return &peers{
		studio:  s,
		api:     webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithInterceptorRegistry(chain), webrtc.WithSettingEngine(network)),
		present: map[*webrtc.PeerConnection]bool{},
	}, nil
}

// answer takes a browser's offer and returns what to answer. From then on the
// browser gets picture and sound.
func (p *peers) answer(ctx context.Context, offer string) (string, error) {
	pc, err := p.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return "", err
	}
	p.mu.Lock()
	p.present[pc] = true
	p.mu.Unlock()
	pc.OnConnectionStateChange(func(now webrtc.PeerConnectionState) {
		switch now {
		case webrtc.PeerConnectionStateConnected:
			p.studio.key()
		case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
			p.leave(pc)
		default:
		}
	})
	answer, err := p.negotiate(ctx, pc, offer)
	if err != nil {
		p.leave(pc)
		return "", fmt.Errorf("answer a peer: %w", err)
	}
	return answer, nil
}

func (p *peers) negotiate(ctx context.Context, pc *webrtc.PeerConnection, offer string) (string, error) {
	for _, track := range []webrtc.TrackLocal{p.studio.picture, p.studio.sound} {
		sender, err := pc.AddTrack(track)
		if err != nil {
			return "", err
		}
		p.reading.Go(func() { p.listen(sender) })
	}
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		return "", err
	}
	answer, err := pc.CreateAnswer(nil)
	if err != nil {
		return "", err
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(answer); err != nil {
		return "", err
	}
	select {
	case <-gathered:
		return pc.LocalDescription().SDP, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// listen hears what a browser says of a track until the connection is closed:
// lost packets are sent again by themselves, key pictures come from the
// encoder.
func (p *peers) listen(sender *webrtc.RTPSender) {
	for {
		packets, _, err := sender.ReadRTCP()
		if err != nil {
			return
		}
		for _, packet := range packets {
			switch packet.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				p.studio.key()
			}
		}
	}
}

// leave closes the connection.
func (p *peers) leave(pc *webrtc.PeerConnection) {
	p.mu.Lock()
	here := p.present[pc]
	delete(p.present, pc)
	p.mu.Unlock()
	if !here {
		return
	}
	if err := pc.Close(); err != nil {
		p.studio.log.Warn("cannot close a connection", "err", err)
	}
}

// close ends all connections; no more may be made.
func (p *peers) close() error {
	p.mu.Lock()
	all := p.present
	p.present = map[*webrtc.PeerConnection]bool{}
	p.mu.Unlock()
	var errs []error
	for pc := range all {
		errs = append(errs, pc.GracefulClose())
	}
	p.reading.Wait()
	return errors.Join(errs...)
}
