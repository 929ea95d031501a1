package daemon

import (
	"context"
	"fmt"
	"strconv"

	"encoderd.example/daemon/visca"
)

// hasPTZ reports whether a camera that moves is configured.
func hasPTZ(d *Daemon) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.config.PTZ.Port != ""
}

// ptz sends a camera what args mean.
func ptz(parse func(args map[string]string) (visca.Command, error)) func(context.Context, *Daemon, map[string]string) error {
	return func(ctx context.Context, d *Daemon, args map[string]string) error {
		c, err := parse(args)
		if err != nil {
			return err
		}
		l := d.camera.Load()
		if l == nil {
			return visca.ErrAway
		}
		return l.Send(ctx, c) // within two seconds
	}
}

// checks reports what is wrong with args, without doing anything.
func checks(parse func(args map[string]string) (visca.Command, error)) func(map[string]string) error {
	return func(args map[string]string) error {
		_, err := parse(args)
		return err
	}
}

func preset(args map[string]string) (visca.Command, error) {
	recall, store := args["recall"], args["store"]
	if (recall == "") == (store == "") {
		return nil, fmt.Errorf("%w: ptz.preset needs recall=N or store=N", ErrBadArgument)
	}
	n, err := strconv.Atoi(recall + store)
	if err != nil {
		return nil, fmt.Errorf("%w: a preset is a number", ErrBadArgument)
	}
	if recall != "" {
		return bad(visca.Recall(n))
	}
	return bad(visca.Store(n))
}

func move(args map[string]string) (visca.Command, error) {
	pan, err := axis(args, "pan")
	if err != nil {
		return nil, err
	}
	tilt, err := axis(args, "tilt")
	if err != nil {
		return nil, err
	}
	return bad(visca.Move(pan, tilt))
}

func zoom(args map[string]string) (visca.Command, error) {
	v, err := axis(args, "speed")
	if err != nil {
		return nil, err
	}
	return bad(visca.Zoom(v))
}

func home(map[string]string) (visca.Command, error) { return visca.Home(), nil }

// axis reads a speed; one that is not given is zero.
func axis(args map[string]string, name string) (float64, error) {
	if args[name] == "" {
		return 0, nil
	}
	v, err := strconv.ParseFloat(args[name], 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %s is a number from -1 to 1", ErrBadArgument, name)
	}
	return v, nil
}

// bad marks what the camera cannot be told.
func bad(c visca.Command, err error) (visca.Command, error) {
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadArgument, err)
	}
	return c, nil
}
