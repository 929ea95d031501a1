package peer

import "testing"

func TestNoAddressIsFreeTwice(t *testing.T) {
	seen := map[string]bool{}
	for range 2000 { // of some 28,000 ports: without a memory some come again
		a := FreeAddress(t)
		if seen[a] {
			t.Fatalf("%s was given twice", a)
		}
		seen[a] = true
	}
}
