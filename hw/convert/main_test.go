package convert

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// classDir is where the kernel lists video nodes.
const classDir = "sys/class/video4linux"
