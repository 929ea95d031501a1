package boards

import (
	"log/slog"

	"encoderd.example/hw"
)

// genio is MediaTek's family with the mtk-vcodec encoder. It takes NV12 only
// with each plane in memory of its own.
func genio(log *slog.Logger) hw.Board {
	return expect(linux(log, hw.Board{
		Name: "genio", Title: "MediaTek Genio",
		Compatible: []string{
			"mediatek,mt8395", "mediatek,mt8390", "mediatek,mt8195", "mediatek,mt8188", "mediatek,mt8192", "mediatek,mt8183", "mediatek,mt8173",
		},
	}), encoder{
		drivers: []string{"mtk"},
		remedy:  "load the module mtk-vcodec-enc and install its firmware from mediatek/ of linux-firmware",
	})
}
