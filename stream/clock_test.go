package stream_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/stream"
)

func TestARestEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		begun := time.Now()
		if !stream.Rest(ctx, 2*time.Second) || time.Since(begun) != 2*time.Second {
			t.Errorf("2 s took %v", time.Since(begun))
		}
		if stream.Rest(ctx, time.Hour) || time.Since(begun) != 5*time.Second {
			t.Errorf("the context's end came after %v", time.Since(begun))
		}
	})
}
