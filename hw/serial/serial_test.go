package serial

import (
	"strings"
	"testing"
)

func TestListWorksOnEveryMachine(t *testing.T) {
	ports, err := List()
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range ports {
		if !strings.HasPrefix(p.Path, "/dev/") || i > 0 && ports[i-1].Path >= p.Path {
			t.Errorf("ports %v", ports)
		}
	}
}
