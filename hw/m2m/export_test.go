package m2m

import "testing"

// ForgetForceKey lets the virtual board's encoder look like one that has no
// order for key pictures, for a test. Find encoders after it.
func ForgetForceKey(t *testing.T) {
	t.Helper()
	for i, q := range knownDrivers {
		if q.driver == "vh264enc" {
			knownDrivers[i].forceKey = no
			t.Cleanup(func() { knownDrivers[i] = q })
		}
	}
}
