package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"time"

	"encoderd.example/webui"
)

// link makes a link that opens a rendition for some time.
func (p program) link(ctx context.Context, args []string) error {
	o, rest, err := p.parse("link", args, func(fs *flag.FlagSet, o *options) {
		stateFlag(fs, o)
		fs.DurationVar(&o.length, "for", 12*time.Hour, "how long the link is good")
	})
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return fmt.Errorf("%w: link needs the name of a rendition, for example main", errUsage)
	}
	resp, err := ask(ctx, o.state, http.MethodPost, "/api/v1/links", map[string]string{"rendition": rest[0], "length": o.length.String()})
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var l webui.Link
	if err := json.NewDecoder(resp.Body).Decode(&l); err != nil {
		return fmt.Errorf("ask the box: %w", err)
	}
	fmt.Fprintf(p.stdout, "?token=%s\n", l.Token)
	fmt.Fprintf(p.stderr, "goes behind any address of the picture, and is good until %s\n", l.Until.Local().Format(time.DateTime))
	return nil
}
