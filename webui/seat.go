package webui

import (
	"context"
	"net"
	"net/http"

	"encoderd.example/stream"
)

type placeKey struct{}

// withPlace hands a connection's place at the door to its requests, and lets
// them find it for [stream.Cork].
func withPlace(ctx context.Context, nc net.Conn) context.Context {
	return context.WithValue(stream.WithCork(ctx, nc), placeKey{}, stream.PlaceOf(nc))
}

// seated lets a connection keep its place while a request is answered; between
// requests, and while the body of one is on its way, it makes room for others.
func seated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if place, ok := r.Context().Value(placeKey{}).(*stream.Place); ok && r.Body == http.NoBody {
			place.Keep()
			defer place.Yield()
		}
		next.ServeHTTP(w, r)
	})
}
