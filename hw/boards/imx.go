package boards

import (
	"log/slog"

	"encoderd.example/hw"
)

// imx6 codes by the CODA960: constrained baseline up to 1920x1088.
func imx6(log *slog.Logger) hw.Board {
	return expect(linux(log, hw.Board{
		Name: "imx6", Title: "NXP i.MX6",
		Compatible: []string{"fsl,imx6q", "fsl,imx6qp", "fsl,imx6dl"},
	}), encoder{
		drivers: []string{"coda"},
		remedy:  "load the module coda-vpu and install its firmware v4l-coda960-imx6q.bin or v4l-coda960-imx6dl.bin",
	})
}

// imx8qm codes by the Amphion Windsor, up to 1920x1920.
func imx8qm(log *slog.Logger) hw.Board {
	return expect(linux(log, hw.Board{
		Name: "imx8qm", Title: "NXP i.MX8 QuadMax or QuadXPlus",
		Compatible: []string{"fsl,imx8qm", "fsl,imx8qxp"},
	}), encoder{
		drivers: []string{"amphion"},
		remedy:  "load the module amphion-vpu and install its firmware vpu/vpu_fw_imx8_enc.bin",
	})
}
