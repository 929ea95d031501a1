package boards

import (
	"log/slog"

	"encoderd.example/hw"
)

// am62p is TI's family with the Chips&Media Wave521C. Its encoder changes bit
// rate and makes key frames on demand only by a restart.
func am62p(log *slog.Logger) hw.Board {
	return expect(linux(log, hw.Board{
		Name: "am62p", Title: "TI AM62P, AM62A, AM67, AM68A",
		Compatible: []string{"ti,am62p5", "ti,am62a7", "ti,j722s", "ti,j721s2"},
	}), encoder{
		drivers: []string{"wave5"},
		remedy:  "load the module wave5 and install its firmware cnm/wave521c_k3_codec_fw.bin",
	})
}
