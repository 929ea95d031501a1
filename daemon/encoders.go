package daemon

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"encoderd.example/hw"
)

// Encoders lists the encoders of a board that are there now, hardware first.
// A driver that does not know its budget gets the one that was measured on
// this box, if it was. Whatever the error, the result is usable.
func Encoders(b hw.Board, state string) ([]hw.EncoderDriver, error) {
	var found []hw.EncoderDriver
	var errs []error
	if b.FindEncoders != nil {
		list, err := b.FindEncoders()
		found, errs = list, append(errs, err)
	}
	measured, err := LoadBudgets(state)
	found = append(slices.Clone(found), b.Encoders...)
	for i, d := range found {
		if d.Hardware {
			found[i].Budget = cmp.Or(d.Budget, measured[d.Name])
		}
	}
	return found, errors.Join(append(errs, err)...)
}

// Budgets are macroblocks a second by the name of the encoder's driver, as
// they were measured on this box.
type Budgets map[string]int

// budgetFile is in the state directory.
const budgetFile = "budget.json"

// LoadBudgets reads what was measured; a box on which nothing was has none.
func LoadBudgets(state string) (Budgets, error) {
	doc, err := os.ReadFile(filepath.Join(state, budgetFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the measured budgets: %w", err)
	}
	var b Budgets
	if err := json.Unmarshal(doc, &b); err != nil {
		return nil, fmt.Errorf("read the measured budgets from %s: %w; measure again with encoderd probe --measure", budgetFile, err)
	}
	return b, nil
}

// Save writes b so that a power cut leaves the old file or the new one.
func (b Budgets) Save(state string) error {
	doc, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("keep the measured budgets: %w", err)
	}
	if err := renameio.WriteFile(filepath.Join(state, budgetFile), doc, 0o600); err != nil {
		return fmt.Errorf("keep the measured budgets: %w", err)
	}
	return nil
}

// findPatience is how long the search for encoders may take: a device that
// hangs may hold up whoever asks it.
const findPatience = 2 * time.Second

// findEncoders looks which encoders are there now, and moves the box if they
// are others than before. A look that hangs is left alone: what it finds in the
// end counts.
func (d *Daemon) findEncoders() {
	if d.calls.hangs(findEncoders) {
		return
	}
	type found struct {
		list []hw.EncoderDriver
		err  error
	}
	now, err := within(&d.calls, findPatience, findEncoders, func() (found, error) {
		list, err := Encoders(d.Board, d.State)
		return found{list, err}, nil
	}, func(late found) { d.haveEncoders(late.list, late.err) })
	if err != nil {
		now.list = d.Board.Encoders // at least
	}
	d.haveEncoders(now.list, errors.Join(err, now.err))
}

// haveEncoders takes in what was found, or that it could not be.
func (d *Daemon) haveEncoders(list []hw.EncoderDriver, err error) {
	d.mu.Lock()
	before, trouble := d.drivers, text(d.encoderTrouble)
	unseen := err != nil && !errors.Is(err, hw.ErrMissing) && len(list) < len(before) // which is not gone
	if !unseen {
		d.drivers = list
	}
	back := d.departures.back(list, time.Now())
	back = d.departures.replugged(before, list) || back
	d.encoderTrouble = err
	d.mu.Unlock()
	if err != nil && text(err) != trouble {
		d.Log.Warn("cannot list all encoders", "service", "devices", "err", err)
	}
	if back || !unseen && !slices.EqualFunc(before, list, sameDriver) {
		d.change()
	}
}

// missesEncoders reports whether another look may find encoders though no event
// tells of them: some could not be asked, or said that they are gone and may be
// back.
func (d *Daemon) missesEncoders() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.encoderTrouble != nil && !errors.Is(d.encoderTrouble, hw.ErrMissing) {
		return true
	}
	for _, away := range d.departures {
		if away.away {
			return true
		}
	}
	return false
}

// departures are encoders that said that they are gone. A device may come back
// between two looks, and nothing in the list tells it from the one before.
type departures map[string]*departure

type departure struct {
	away    bool
	returns int
	retry   time.Time // not before that: one that goes again and again is no encoder
	pause   time.Duration
}

// The pauses between tries of an encoder that says that it is gone and is
// listed all the same.
const (
	leastReturn = 2 * time.Second
	mostReturn  = 10 * time.Minute
)

// add takes in that an encoder is gone.
func (l departures) add(name string) {
	d := l[name]
	if d == nil {
		d = &departure{pause: leastReturn}
		l[name] = d
	}
	if !d.away {
		d.away, d.retry = true, time.Now().Add(d.pause)
		d.pause = min(2*d.pause, mostReturn)
	}
}

// back reports whether one of them is in the list again, and counts that.
func (l departures) back(list []hw.EncoderDriver, now time.Time) (found bool) {
	for _, driver := range list {
		if d := l[driver.Name]; d != nil && d.away && !now.Before(d.retry) {
			d.away, found = false, true
			d.returns++
		}
	}
	return found
}

// replugged reports whether one in the list is another device than the one of
// its name before, and counts that. It may never have said that it was gone:
// while it was unused, or not asked in between.
func (l departures) replugged(before, list []hw.EncoderDriver) (found bool) {
	for _, now := range list {
		i := slices.IndexFunc(before, func(old hw.EncoderDriver) bool { return old.Name == now.Name })
		if i < 0 || before[i].Instance == now.Instance || before[i].Instance == 0 || now.Instance == 0 {
			continue
		}
		d := l[now.Name]
		if d == nil {
			d = &departure{pause: leastReturn}
			l[now.Name] = d
		}
		d.away, found = false, true
		d.returns++
	}
	return found
}

// returns counts by name.
func (l departures) returns() map[string]int {
	n := map[string]int{}
	for name, d := range l {
		n[name] = d.returns
	}
	return n
}

func sameDriver(a, b hw.EncoderDriver) bool { return a.Name == b.Name && a.Budget == b.Budget }

// driver returns the encoder driver of that name, if it is there now.
func (d *Daemon) driver(name string) (hw.EncoderDriver, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.driverNamed(name)
}

// driverNamed is driver for who holds mu.
func (d *Daemon) driverNamed(name string) (hw.EncoderDriver, bool) {
	i := slices.IndexFunc(d.drivers, func(e hw.EncoderDriver) bool { return e.Name == name })
	if i < 0 {
		return hw.EncoderDriver{}, false
	}
	return d.drivers[i], true
}
