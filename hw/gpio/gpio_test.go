package gpio

import "testing"

func TestAMachineWithoutChipsHasNone(t *testing.T) {
	// What is there differs from machine to machine; that listing it works,
	// and that every chip has a name, holds everywhere.
	chips, err := List()
	for _, c := range chips {
		if c.Name == "" {
			t.Errorf("a chip without a name: %v", c)
		}
	}
	if err != nil {
		t.Logf("some chips cannot be asked here: %v", err)
	}
}
