package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"encoderd.example/daemon"
	"encoderd.example/daemon/config"
	"encoderd.example/daemon/visca"
	"encoderd.example/hw"
	"encoderd.example/hw/boards"
	"encoderd.example/stream/out"
	"encoderd.example/systemd"
	"encoderd.example/webui"
)

// errRestart says that an action asked for a restart.
var errRestart = errors.New("restart was ordered")

// run runs the box.
func (p program) run(ctx context.Context, args []string) error {
	o, rest, err := p.parse("run", args, func(fs *flag.FlagSet, o *options) {
		configFlag(fs, o)
		stateFlag(fs, o)
		boardFlag(fs, o)
	})
	if err = errors.Join(err, noMore(rest)); err != nil {
		return err
	}
	log := systemd.NewLogger(p.stderr, slog.LevelInfo)
	board, err := findBoard(o.board, log)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.state, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w; choose another with --state", err)
	}
	unlock, err := lock(o.state)
	if err != nil {
		return err
	}
	defer unlock()
	if reset, err := daemon.FactoryReset(o.state, "lock"); err != nil {
		return err
	} else if reset {
		log.Warn("everything was forgotten, as ordered: this is a new box")
	}
	c, err := load(o, log)
	if err != nil {
		return err
	}
	return p.runBox(ctx, o, board, c, log)
}

func (p program) runBox(ctx context.Context, o options, board hw.Board, c config.Config, log *slog.Logger) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	links, err := linkKey(o.state)
	if err != nil {
		return err
	}
	d := daemon.New(daemon.Options{
		Board: board, State: o.state, Version: version, Log: log, LinkKey: links,
		Web: func(ctx context.Context, addr string, c config.Config, d *daemon.Daemon, live func()) error {
			return serveWeb(ctx, addr, c, d, log, live)
		},
		Reload:  func() (config.Config, error) { return reload(o, board) },
		Restart: func() { stop(errRestart) },
	})
	d.Apply(c)
	control, err := listenControl(ctx, o.state)
	if err != nil {
		return err
	}
	log.Info("encoderd starts", "version", version, "board", board.Name, "state", o.state)
	var parts sync.WaitGroup
	fail := func(what string, err error) {
		if err != nil {
			stop(fmt.Errorf("%s: %w", what, err))
		}
	}
	parts.Go(func() {
		fail("control socket", webui.Serve(ctx, control, webui.Options{Box: box{d}, Log: log, Local: true}, nil))
	})
	parts.Go(func() { fail("watchdog", systemd.Watchdog(ctx, d.Alive)) })
	parts.Go(func() { tellReady(ctx, d, log) })
	parts.Go(func() { reloadOnHangup(ctx, d, log) })
	err = d.Run(ctx)
	stop(nil)
	parts.Wait()
	log.Info("encoderd ends")
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// linkSecret is the name of the key that signs links. Whoever deletes it from
// secrets.toml ends all links with the next start.
const linkSecret = "watch-links"

// linkKey returns the key that signs links; a box that has none makes it.
func linkKey(state string) ([]byte, error) {
	secrets, err := config.OpenSecrets(state)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errConfig, err)
	}
	key, ok := secrets.Get(linkSecret)
	if !ok {
		if key, err = secrets.Set(linkSecret, rand.Text()+rand.Text()); err != nil {
			return nil, err
		}
	}
	return []byte(key.Reveal()), nil
}

// tellReady tells systemd once the box has settled, and that it stops.
func tellReady(ctx context.Context, d *daemon.Daemon, log *slog.Logger) {
	var seen uint64
	for !d.Settled() {
		var err error
		if _, seen, err = d.Wait(ctx, seen); err != nil {
			return
		}
	}
	if err := systemd.Ready("on duty"); err != nil {
		log.Warn("cannot tell systemd", "err", err)
	}
	log.Info("ready")
	<-ctx.Done()
	if err := systemd.Stopping(); err != nil {
		log.Warn("cannot tell systemd", "err", err)
	}
}

// reloadOnHangup reads the config again at each SIGHUP. A bad config changes
// nothing.
func reloadOnHangup(ctx context.Context, d *daemon.Daemon, log *slog.Logger) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-hup:
			if err := d.Do(ctx, "config.reload", nil, "SIGHUP"); err != nil {
				log.Error("config stays as it was", "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// findBoard finds a board by name or by the device tree.
func findBoard(name string, log *slog.Logger) (hw.Board, error) {
	b, err := boards.Find(name, os.DirFS("/"), log)
	if err != nil {
		return hw.Board{}, fmt.Errorf("%w: board %w", errUsage, err)
	}
	return b, nil
}

// lock keeps a second daemon from using the same state directory.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("another encoderd uses %s; stop it, or choose another --state", dir)
	}
	return func() { _ = f.Close() }, nil
}

// configFile is the file that is meant: the one given, or config.toml in the
// state directory.
func (o options) configFile() string {
	if o.config != "" {
		return o.config
	}
	return filepath.Join(o.state, "config.toml")
}

// rules are what only the whole program knows about a config.
func rules(o options) (config.Rules, error) {
	secrets, err := config.OpenSecrets(o.state)
	if err != nil {
		return config.Rules{}, err
	}
	return config.Rules{
		Schemes: out.Schemes(), CheckURL: out.Check, Secret: secrets.Get,
		CheckOrder: daemon.CheckOrder, CheckKeys: daemon.CheckKeys, CameraModels: visca.ModelNames(),
	}, nil
}

// load reads the config for a start. Without --config, a box that has none yet
// runs on the defaults; one whose file is damaged runs on the previous one.
func load(o options, log *slog.Logger) (config.Config, error) {
	r, err := rules(o)
	if err != nil {
		return config.Config{}, fmt.Errorf("%w: %w", errConfig, err)
	}
	c, from, err := config.LoadOrPrevious(o.configFile(), r)
	if err != nil && from != "" {
		log.Error("config is damaged", "err", err)
		return c, nil
	}
	return o.orDefault(c, err)
}

// reload reads the config while the box runs: a file that is not good in every
// way changes nothing. It may not ask for more than the hardware codes; a start
// does not ask that, for a box with another encoder than before shall come up
// and say what is wrong.
func reload(o options, board hw.Board) (config.Config, error) {
	r, err := rules(o)
	if err != nil {
		return config.Config{}, fmt.Errorf("%w: %w", errConfig, err)
	}
	r.Overload = func(c config.Config) (int, string, string, bool) {
		return daemon.Overload(c, encoders(o, board))
	}
	return o.orDefault(config.Load(o.configFile(), r))
}

// encoders lists what can code now. What is not there, or cannot be asked, is no
// fault of a config.
func encoders(o options, board hw.Board) []hw.EncoderDriver {
	drivers, _ := daemon.Encoders(board, o.state)
	return drivers
}

// orDefault replaces a config that was not given and is not there.
func (o options) orDefault(c config.Config, err error) (config.Config, error) {
	switch {
	case err == nil:
		return c, nil
	case o.config == "" && errors.Is(err, fs.ErrNotExist):
		return config.Default(), nil
	default:
		return config.Config{}, fmt.Errorf("%w: %w", errConfig, err)
	}
}

// check checks the config and prints the plan.
func (p program) check(_ context.Context, args []string) error {
	o, rest, err := p.parse("check", args, func(fs *flag.FlagSet, o *options) {
		configFlag(fs, o)
		stateFlag(fs, o)
		boardFlag(fs, o)
		jsonFlag(fs, o)
	})
	if err = errors.Join(err, noMore(rest)); err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	board, err := findBoard(o.board, log)
	if err != nil {
		return err
	}
	c, err := reload(o, board)
	drivers := encoders(o, board)
	if o.json {
		return p.checkJSON(c, board, drivers, err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "config is good; on board %s it means:\n%s", board.Name, daemon.Describe(c, board, drivers))
	return nil
}

// checkJSON prints the verdict for programs.
func (p program) checkJSON(c config.Config, board hw.Board, drivers []hw.EncoderDriver, err error) error {
	var verdict struct {
		OK       bool                 `json:"ok"`
		Faults   []config.Fault       `json:"faults"`
		Error    string               `json:"error,omitempty"`
		Services []daemon.ServicePlan `json:"services"`
	}
	verdict.Faults, verdict.Services = []config.Fault{}, []daemon.ServicePlan{}
	if err == nil {
		verdict.OK, verdict.Services = true, daemon.Plan(c, board, drivers)
	} else if faults, ok := errors.AsType[config.Faults](err); ok {
		verdict.Faults = faults
	} else {
		verdict.Error = err.Error()
	}
	if jerr := p.printJSON(verdict); jerr != nil {
		return jerr
	}
	if err != nil {
		return fmt.Errorf("%w: %d faults", errConfig, max(len(verdict.Faults), 1))
	}
	return nil
}

func (p program) printJSON(v any) error {
	e := json.NewEncoder(p.stdout)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
