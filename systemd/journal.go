package systemd

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// NewLogger returns a logger that writes to the journal, attributes as fields
// (service → SERVICE), when standard error is connected to it, and else text
// lines to w.
func NewLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	if ok, err := journal.StderrIsJournalStream(); err == nil && ok && journal.Enabled() {
		return slog.New(&handler{level: level, send: journal.Send})
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// A handler turns records into journal entries (systemd.journal-fields(7)).
type handler struct {
	level  slog.Leveler
	send   func(message string, p journal.Priority, vars map[string]string) error
	attrs  []slog.Attr
	prefix string // of the group
}

// Enabled implements [slog.Handler].
func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// WithAttrs implements [slog.Handler].
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.attrs = slices.Clone(h.attrs)
	for _, a := range attrs {
		next.attrs = append(next.attrs, slog.Attr{Key: h.prefix + a.Key, Value: a.Value})
	}
	return &next
}

// WithGroup implements [slog.Handler].
func (h *handler) WithGroup(name string) slog.Handler {
	next := *h
	next.prefix = h.prefix + name + "_"
	return &next
}

// Handle implements [slog.Handler]. The message repeats the attributes as
// text, because journalctl shows nothing else by default.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	fields := map[string]string{}
	text := strings.Builder{}
	text.WriteString(r.Message)
	add := func(key string, v slog.Value) {
		s := v.Resolve().String()
		fields[fieldName(key)] = s
		text.WriteString(" " + key + "=" + s)
	}
	for _, a := range h.attrs {
		add(a.Key, a.Value)
	}
	r.Attrs(func(a slog.Attr) bool {
		add(h.prefix+a.Key, a.Value)
		return true
	})
	return h.send(text.String(), priority(r.Level), fields)
}

// reserved names have a meaning of their own in the journal.
var reserved = []string{"MESSAGE", "PRIORITY", "MESSAGE_ID", "CODE_FILE", "CODE_LINE", "CODE_FUNC", "ERRNO"}

// fieldName makes a valid field name of a snake_case key: upper case letters,
// digits and underscores, not beginning with a digit or an underscore.
func fieldName(key string) string {
	name := strings.TrimLeft(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_':
			return r
		}
		return '_'
	}, key), "_0123456789")
	if name == "" || slices.Contains(reserved, name) {
		return "X_" + name
	}
	return name
}

func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	default:
		return journal.PriDebug
	}
}
