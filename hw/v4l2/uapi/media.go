package uapi

import "unsafe"

// Directions and family of the calls of media devices.
const mediaBoth uintptr = 3<<30 | '|'<<8

// The calls of media devices, named as in the kernel (include/uapi/linux/media.h)
// without MEDIA_IOC_.
const (
	MediaDeviceInfo  = mediaBoth | unsafe.Sizeof(MediaInfo{})<<16
	MediaSetupLink   = mediaBoth | unsafe.Sizeof(MediaLinkDesc{})<<16 | 3
	MediaGetTopology = mediaBoth | unsafe.Sizeof(MediaTopology{})<<16 | 4
)

// Functions of entities (MEDIA_ENT_F_).
const (
	EntityIOV4L           = 0x00010001
	EntityCameraSensor    = 0x00020001
	EntityAnalogDecoder   = 0x00020004
	EntityPixelFormatter  = 0x00004002
	EntityColourConverter = 0x00004003 // MEDIA_ENT_F_PROC_VIDEO_PIXEL_ENC_CONV
	EntityScaler          = 0x00004005
	EntityISP             = 0x00004009
	EntityMux             = 0x00005001
	EntityInterfaceBridge = 0x00005002
	EntityDigitalDecoder  = 0x00006001
)

// Flags of pads and links (MEDIA_PAD_FL_, MEDIA_LNK_FL_).
const (
	PadSink        = 1 << 0
	PadSource      = 1 << 1
	PadMustConnect = 1 << 2

	LinkEnabled   = 1 << 0
	LinkImmutable = 1 << 1
	LinkTypeMask  = 0xf << 28
	LinkData      = 0 << 28
	LinkInterface = 1 << 28
)

// Types of interfaces (MEDIA_INTF_T_V4L_).
const (
	InterfaceVideo  = 0x00000200
	InterfaceSubdev = 0x00000203
)

// A MediaInfo is struct media_device_info.
type MediaInfo struct {
	Driver        [16]byte
	Model         [32]byte
	Serial        [40]byte
	BusInfo       [32]byte
	MediaVersion  uint32
	HWRevision    uint32
	DriverVersion uint32
	_             [31]uint32
}

// A MediaTopology is struct media_v2_topology. Each pointer is that of the
// first of as many elements as there is room for, or zero to only count them.
type MediaTopology struct {
	Version       uint64 // rises when entities, pads or links come and go
	NumEntities   uint32
	_             uint32
	Entities      uint64 // *MediaEntity
	NumInterfaces uint32
	_             uint32
	Interfaces    uint64 // *MediaInterface
	NumPads       uint32
	_             uint32
	Pads          uint64 // *MediaPad
	NumLinks      uint32
	_             uint32
	Links         uint64 // *MediaLink
}

// A MediaEntity is struct media_v2_entity.
type MediaEntity struct {
	ID       uint32
	Name     [64]byte
	Function uint32
	Flags    uint32
	_        [5]uint32
}

// A MediaInterface is struct media_v2_interface with its devnode member.
type MediaInterface struct {
	ID           uint32
	Type         uint32
	Flags        uint32
	_            [9]uint32
	Major, Minor uint32
	_            [14]uint32
}

// A MediaPad is struct media_v2_pad.
type MediaPad struct {
	ID       uint32
	EntityID uint32
	Flags    uint32
	Index    uint32
	_        [4]uint32
}

// A MediaLink is struct media_v2_link. It leads from pad to pad, or, if its type
// says so, from an interface to its entity.
type MediaLink struct {
	ID       uint32
	SourceID uint32
	SinkID   uint32
	Flags    uint32
	_        [6]uint32
}

// A MediaPadDesc is struct media_pad_desc.
type MediaPadDesc struct {
	Entity uint32
	Index  uint16
	_      uint16
	Flags  uint32
	_      [2]uint32
}

// A MediaLinkDesc is struct media_link_desc.
type MediaLinkDesc struct {
	Source, Sink MediaPadDesc
	Flags        uint32
	_            [2]uint32
}

// The sizes are the same on all architectures.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(MediaTopology{})-72]
	_ = [1]struct{}{}[unsafe.Sizeof(MediaEntity{})-96]
	_ = [1]struct{}{}[unsafe.Sizeof(MediaInterface{})-112]
	_ = [1]struct{}{}[unsafe.Sizeof(MediaPad{})-32]
	_ = [1]struct{}{}[unsafe.Sizeof(MediaLink{})-40]
	_ = [1]struct{}{}[unsafe.Sizeof(MediaLinkDesc{})-52]
)
