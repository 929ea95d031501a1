package stream

import (
	"context"
	"time"
)

// A Push carries one rendition to one destination.
type Push interface {
	// Run connects, sends, and returns when ctx ends (after a goodbye, nil) or
	// the connection breaks (the reason). It does not try again by itself: the
	// supervisor does. An error that wraps [ErrRefused] will not be cured by
	// trying again. Errors never contain the stream key.
	//
	// Run calls tell, from one goroutine, about once a second and at every
	// change of State. tell does not block.
	Run(ctx context.Context, src *Rendition, tell func(PushReport)) error
}

// PushState says how far a push has come.
type PushState uint8

// A push goes from connecting to sending, and to confirmed once the far side
// has proved that it received media.
const (
	PushConnecting PushState = iota
	PushSending
	PushConfirmed
)

// A PushReport is what a push knows about itself.
type PushReport struct {
	State PushState
	// Sent counts media bytes handed to the network since Run began.
	Sent uint64
	// Lost counts units that were skipped because the network was too slow.
	Lost uint64
	// Lag is how far the newest unit sent lies behind the newest published.
	Lag time.Duration
}
