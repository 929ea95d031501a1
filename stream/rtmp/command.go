package rtmp

import (
	"fmt"
	"strings"

	"encoderd.example/stream"
	"encoderd.example/stream/flv/amf0"
)

// A command is a remote procedure call or its answer (RTMP 1.0, 7.2). Servers
// send any number of values, so none is taken for granted.
type command struct {
	name   string
	id     float64
	values []amf0.Value // after name and id
}

func parseCommand(body []byte) (command, error) {
	// Damage in the last values must not hide the first ones.
	values, err := amf0.Decode(body)
	if len(values) == 0 {
		return command{}, fmt.Errorf("%w: a command without a name: %w", errProtocol, err)
	}
	name, ok := values[0].(amf0.String)
	if !ok {
		return command{}, fmt.Errorf("%w: a command without a name", errProtocol)
	}
	c := command{name: string(name), values: values[1:]}
	if len(c.values) > 0 {
		if id, ok := c.values[0].(amf0.Number); ok {
			c.id, c.values = float64(id), c.values[1:]
		}
	}
	return c, nil
}

// number returns the first number among the values.
func (c command) number() (float64, bool) {
	for _, v := range c.values {
		if n, ok := v.(amf0.Number); ok {
			return float64(n), true
		}
	}
	return 0, false
}

// text returns the first string among the values.
func (c command) text() string {
	for _, v := range c.values {
		if s, ok := v.(amf0.String); ok {
			return string(s)
		}
	}
	return ""
}

// flag returns the first boolean among the values.
func (c command) flag() bool {
	for _, v := range c.values {
		if b, ok := v.(amf0.Bool); ok {
			return bool(b)
		}
	}
	return false
}

// object returns the first object among the values.
func (c command) object() amf0.Object {
	for _, v := range c.values {
		if o, ok := v.(amf0.Object); ok {
			return o
		}
	}
	return nil
}

// status returns the first object that has a code or a level.
func (c command) status() status {
	for _, v := range c.values {
		o, ok := v.(amf0.Object)
		if !ok {
			continue
		}
		s := status{o.Text("level"), o.Text("code"), o.Text("description")}
		if s.level != "" || s.code != "" {
			return s
		}
	}
	return status{}
}

// status is what a server says about a request.
type status struct{ level, code, text string }

func (s status) object() amf0.Object {
	return amf0.Object{
		{Name: "level", Value: amf0.String(s.level)},
		{Name: "code", Value: amf0.String(s.code)},
		{Name: "description", Value: amf0.String(s.text)},
	}
}

func (s status) failed() bool {
	_, known := verdicts[s.code]
	return s.level == "error" || known
}

// A verdict says what a failure means to the person at the box.
type verdict struct {
	refused bool // trying again will not help
	meaning string
}

// verdicts are the codes that servers send when they do not want us. Codes
// that are not listed are tried again.
var verdicts = map[string]verdict{
	"NetConnection.Connect.Rejected":    {true, "the server does not take this box: check address, user and password"},
	"NetConnection.Connect.InvalidApp":  {true, "the server has no such application: check the address"},
	"NetConnection.Connect.AppShutdown": {false, "the server is shutting down"},
	"NetConnection.Connect.Closed":      {false, "the server closes the connection"},
	"NetConnection.Connect.Failed":      {false, "the server could not connect"},
	"NetStream.Publish.BadName":         {false, "the server still holds the old connection, or another encoder uses this key"},
	"NetStream.Publish.Denied":          {true, "the server does not know this stream key"},
	"NetStream.Publish.Unauthorized":    {true, "the server does not know this stream key"},
	"NetStream.Publish.Rejected":        {true, "the server does not take this stream key"},
	"NetStream.Publish.Failed":          {false, "the server could not start the stream"},
	"NetStream.Unpublish.Success":       {false, "the server has ended the stream"},
	"NetStream.Failed":                  {false, "the server has ended the stream"},
}

// statusError is a failure in the server's words, without secrets.
type statusError struct {
	verdict
	text string
}

func (e *statusError) Error() string { return e.text }

func (e *statusError) Unwrap() error {
	if e.refused {
		return stream.ErrRefused
	}
	return nil
}

// fault turns a status into an error: what it means, then what was said.
func (a address) fault(s status) *statusError {
	v, known := verdicts[s.code]
	if !known {
		v.meaning = "the server says no"
	}
	said := strings.TrimSpace(a.hide(s.code + " " + s.text))
	if said == "" {
		return &statusError{v, v.meaning}
	}
	return &statusError{v, fmt.Sprintf("%s (%s)", v.meaning, said)}
}
