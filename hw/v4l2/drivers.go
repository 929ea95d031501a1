package v4l2

import (
	"strings"
	"time"

	"encoderd.example/hw"
)

// A trait is what this box must know of a capture driver beyond what the
// driver says itself.
type trait struct {
	// private says why other devices cannot read the buffers that the driver
	// makes, in words for people; "" if they can.
	private string
	// late says that stamps are taken at the end of the picture instead of its
	// begin.
	late bool
}

// traits by the driver's name in QUERYCAP. Drivers that are not listed stamp
// the begin of the picture, and their memory is what is usual on their bus.
var traits = map[string]trait{
	// Assembled by the CPU, page by page. An encoder without an IOMMU needs
	// pictures in one piece.
	"uvcvideo": {private: "a USB camera's memory is not contiguous"},
	// Just as scattered, but its readers on the virtual board map it.
	"vivid": {},
	// Stamped when the DMA is done.
	"mxc-isi":      {late: true}, // NXP i.MX8, drivers/media/platform/nxp/imx8-isi
	"rockchip-cif": {late: true},
	"rkcif":        {late: true},
	"snps_hdmirx":  {late: true},
}

// traitOf knows the driver of a node with this place on the bus.
func traitOf(driver, bus string) trait {
	if t, ok := traits[driver]; ok {
		return t
	}
	switch {
	case strings.HasPrefix(bus, "usb-"):
		return trait{private: "the memory of a USB device is not contiguous"}
	case strings.HasPrefix(bus, "PCI:"):
		return trait{private: "the memory of a PCI card is scattered"}
	default:
		return trait{}
	}
}

// lag returns how long after the begin of a picture the driver stamps it.
// blanking is the share of a period in which no line is sent.
func (t trait) lag(rate hw.Rate, blanking float64) time.Duration {
	if !t.late {
		return 0
	}
	return time.Duration(float64(rate.Period()) * (1 - blanking))
}
