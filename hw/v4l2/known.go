package v4l2

import "sync"

// Known is what video nodes have answered to a [Finder]. To ask means to open,
// which wakes a camera on USB from its sleep, and takes for ever at a device
// that hangs. An answer holds until the node goes, or until sysfs or udev say
// something else of it. The zero value knows nothing; all methods may be called
// from any goroutine.
type Known struct {
	mu      sync.Mutex
	answers map[string]answer // by the node's name
}

// An answer is what is behind a node: its cameras, what they have in common if
// they are the graphs' to find, or neither.
type answer struct {
	node   node
	routed *Camera
	inputs []*Camera
}

// of returns what a node has answered.
func (k *Known) of(n node) (answer, bool) {
	if k == nil || n.since == 0 {
		return answer{}, false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	a, ok := k.answers[n.name]
	return a.clone(), ok && a.node == n
}

// keep remembers an answer.
func (k *Known) keep(a answer) {
	if k == nil || a.node.since == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.answers == nil {
		k.answers = map[string]answer{}
	}
	k.answers[a.node.name] = a.clone()
}

// clone returns an answer whose cameras may be given other names.
func (a answer) clone() answer {
	c := answer{node: a.node, routed: a.routed.clone()}
	for _, in := range a.inputs {
		c.inputs = append(c.inputs, in.clone())
	}
	return c
}

func (c *Camera) clone() *Camera {
	if c == nil {
		return nil
	}
	other := *c
	return &other
}
