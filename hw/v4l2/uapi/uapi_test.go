package uapi

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"
)

// TestSizes compares with the kernel's structs as the C compiler lays them out
// on 64-bit systems and on armv7 with 64-bit time.
func TestSizes(t *testing.T) {
	tests := []struct {
		name         string
		got          uintptr
		bits64, arm7 uintptr
	}{
		{"v4l2_capability", unsafe.Sizeof(Capability{}), 104, 104},
		{"v4l2_fmtdesc", unsafe.Sizeof(FmtDesc{}), 64, 64},
		{"v4l2_format", unsafe.Sizeof(Format{}), 208, 204},
		{"v4l2_format.fmt", unsafe.Offsetof(Format{}.fmt), 8, 4},
		{"v4l2_pix_format", unsafe.Sizeof(PixFormat{}), 48, 48},
		{"v4l2_pix_format_mplane", unsafe.Sizeof(PixFormatMplane{}), 192, 192},
		{"v4l2_pix_format_mplane.num_planes", unsafe.Offsetof(PixFormatMplane{}.NumPlanes), 180, 180},
		{"v4l2_plane_pix_format", unsafe.Sizeof(PlanePixFormat{}), 20, 20},
		{"v4l2_requestbuffers", unsafe.Sizeof(RequestBuffers{}), 20, 20},
		{"v4l2_buffer", unsafe.Sizeof(Buffer{}), 88, 80},
		{"v4l2_buffer.timestamp", unsafe.Offsetof(Buffer{}.Timestamp), 24, 24},
		{"v4l2_buffer.sequence", unsafe.Offsetof(Buffer{}.Sequence), 56, 56},
		{"v4l2_buffer.m", unsafe.Offsetof(Buffer{}.M), 64, 64},
		{"v4l2_buffer.length", unsafe.Offsetof(Buffer{}.Length), 72, 68},
		{"v4l2_buffer.request_fd", unsafe.Offsetof(Buffer{}.RequestFD), 80, 76},
		{"v4l2_plane", unsafe.Sizeof(Plane{}), 64, 60},
		{"v4l2_plane.data_offset", unsafe.Offsetof(Plane{}.DataOffset), 16, 12},
		{"v4l2_streamparm", unsafe.Sizeof(StreamParm{}), 204, 204},
		{"v4l2_frmsizeenum", unsafe.Sizeof(FrmSizeEnum{}), 44, 44},
		{"v4l2_frmivalenum", unsafe.Sizeof(FrmIvalEnum{}), 52, 52},
		{"v4l2_control", unsafe.Sizeof(Control{}), 8, 8},
		{"v4l2_queryctrl", unsafe.Sizeof(CtrlDesc{}), 68, 68},
		{"v4l2_query_ext_ctrl", unsafe.Sizeof(ExtCtrlDesc{}), 232, 232},
		{"v4l2_query_ext_ctrl.minimum", unsafe.Offsetof(ExtCtrlDesc{}.Minimum), 40, 40},
		{"v4l2_query_ext_ctrl.flags", unsafe.Offsetof(ExtCtrlDesc{}.Flags), 72, 72},
		{"v4l2_ext_control", unsafe.Sizeof(ExtControl{}), 20, 20},
		{"v4l2_ext_control.value", unsafe.Offsetof(ExtControl{}.value), 12, 12},
		{"v4l2_ext_controls", unsafe.Sizeof(ExtControls{}), 32, 24},
		{"v4l2_ext_controls.controls", unsafe.Offsetof(ExtControls{}.Controls), 24, 20},
		{"v4l2_querymenu", unsafe.Sizeof(MenuEntry{}), 44, 44},
		{"v4l2_input", unsafe.Sizeof(Input{}), 80, 80},
		{"v4l2_input.std", unsafe.Offsetof(Input{}.Standards), 48, 48},
		{"v4l2_input.capabilities", unsafe.Offsetof(Input{}.Capabilities), 60, 60},
		{"v4l2_event", unsafe.Sizeof(Event{}), 136, 136},
		{"v4l2_event.u", unsafe.Offsetof(Event{}.Data), 8, 8},
		{"v4l2_event.pending", unsafe.Offsetof(Event{}.Pending), 72, 72},
		{"v4l2_event.timestamp", unsafe.Offsetof(Event{}.Sec), 80, 80},
		{"v4l2_event.id", unsafe.Offsetof(Event{}.ID), 96, 96},
		{"v4l2_event_subscription", unsafe.Sizeof(EventSubscription{}), 32, 32},
		{"v4l2_bt_timings", unsafe.Sizeof(BTTimings{}), 124, 124},
		{"v4l2_bt_timings.pixelclock", unsafe.Offsetof(BTTimings{}.pixelClock), 16, 16},
		{"v4l2_bt_timings.hfrontporch", unsafe.Offsetof(BTTimings{}.HFrontPorch), 24, 24},
		{"v4l2_bt_timings.standards", unsafe.Offsetof(BTTimings{}.Standards), 60, 60},
		{"v4l2_bt_timings.cea861_vic", unsafe.Offsetof(BTTimings{}.VIC), 76, 76},
		{"v4l2_dv_timings", unsafe.Sizeof(DVTimings{}), 132, 132},
		{"v4l2_dv_timings.bt", unsafe.Offsetof(DVTimings{}.BT), 4, 4},
		{"v4l2_enum_dv_timings", unsafe.Sizeof(DVTimingsEntry{}), 148, 148},
		{"v4l2_enum_dv_timings.timings", unsafe.Offsetof(DVTimingsEntry{}.Timings), 16, 16},
		{"v4l2_edid", unsafe.Sizeof(EDID{}), 40, 36},
		{"v4l2_edid.edid", unsafe.Offsetof(EDID{}.Data), 32, 32},
		{"v4l2_selection", unsafe.Sizeof(Selection{}), 64, 64},
		{"v4l2_selection.r", unsafe.Offsetof(Selection{}.Rect), 12, 12},
		{"v4l2_exportbuffer", unsafe.Sizeof(ExportBuffer{}), 64, 64},
		{"v4l2_exportbuffer.fd", unsafe.Offsetof(ExportBuffer{}.FD), 16, 16},
		{"v4l2_encoder_cmd", unsafe.Sizeof(EncoderCommand{}), 40, 40},
		{"media_device_info", unsafe.Sizeof(MediaInfo{}), 256, 256},
		{"media_device_info.media_version", unsafe.Offsetof(MediaInfo{}.MediaVersion), 120, 120},
		{"media_v2_topology", unsafe.Sizeof(MediaTopology{}), 72, 72},
		{"media_v2_topology.ptr_links", unsafe.Offsetof(MediaTopology{}.Links), 64, 64},
		{"media_v2_entity", unsafe.Sizeof(MediaEntity{}), 96, 96},
		{"media_v2_entity.function", unsafe.Offsetof(MediaEntity{}.Function), 68, 68},
		{"media_v2_interface", unsafe.Sizeof(MediaInterface{}), 112, 112},
		{"media_v2_interface.devnode", unsafe.Offsetof(MediaInterface{}.Major), 48, 48},
		{"media_v2_pad", unsafe.Sizeof(MediaPad{}), 32, 32},
		{"media_v2_link", unsafe.Sizeof(MediaLink{}), 40, 40},
		{"media_pad_desc", unsafe.Sizeof(MediaPadDesc{}), 20, 20},
		{"media_pad_desc.flags", unsafe.Offsetof(MediaPadDesc{}.Flags), 8, 8},
		{"media_link_desc", unsafe.Sizeof(MediaLinkDesc{}), 52, 52},
		{"v4l2_mbus_framefmt", unsafe.Sizeof(BusFormat{}), 48, 48},
		{"v4l2_mbus_framefmt.flags", unsafe.Offsetof(BusFormat{}.Flags), 26, 26},
		{"v4l2_subdev_format", unsafe.Sizeof(PadFormat{}), 88, 88},
		{"v4l2_subdev_mbus_code_enum", unsafe.Sizeof(PadCodeEnum{}), 48, 48},
		{"v4l2_subdev_frame_size_enum", unsafe.Sizeof(PadSizeEnum{}), 64, 64},
		{"v4l2_subdev_frame_interval_enum", unsafe.Sizeof(PadIntervalEnum{}), 64, 64},
		{"v4l2_subdev_frame_interval", unsafe.Sizeof(PadInterval{}), 48, 48},
	}
	for _, tt := range tests {
		want := tt.bits64
		if unsafe.Sizeof(uintptr(0)) == 4 {
			want = tt.arm7
		}
		if tt.got != want {
			t.Errorf("%s: %d, want %d", tt.name, tt.got, want)
		}
	}
}

// TestNumbers compares with the numbers that strace prints on 64-bit systems.
func TestNumbers(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) == 4 {
		if QBuf != 0xc050560f || DQBuf != 0xc0505611 || SetFmt != 0xc0cc5605 || DQEvent != 0x80885659 {
			t.Errorf("QBUF %#x, DQBUF %#x, S_FMT %#x, DQEVENT %#x are not the ABI with 64-bit time", QBuf, DQBuf, SetFmt, DQEvent)
		}
		return
	}
	tests := []struct {
		name      string
		got, want uintptr
	}{
		{"QUERYCAP", QueryCap, 0x80685600},
		{"ENUM_FMT", EnumFmt, 0xc0405602},
		{"G_FMT", GetFmt, 0xc0d05604},
		{"S_FMT", SetFmt, 0xc0d05605},
		{"REQBUFS", ReqBufs, 0xc0145608},
		{"QUERYBUF", QueryBuf, 0xc0585609},
		{"QBUF", QBuf, 0xc058560f},
		{"DQBUF", DQBuf, 0xc0585611},
		{"STREAMON", StreamOn, 0x40045612},
		{"STREAMOFF", StreamOff, 0x40045613},
		{"G_PARM", GetParm, 0xc0cc5615},
		{"S_PARM", SetParm, 0xc0cc5616},
		{"S_CTRL", SetCtrl, 0xc008561c},
		{"QUERYCTRL", QueryCtrl, 0xc0445624},
		{"S_INPUT", SetInput, 0xc0045627},
		{"ENUM_FRAMESIZES", EnumFrameSizes, 0xc02c564a},
		{"ENUM_FRAMEINTERVALS", EnumFrameIntervals, 0xc034564b},
		{"EXPBUF", ExpBuf, 0xc0405610},
		{"ENUMINPUT", EnumInput, 0xc050561a},
		{"G_CTRL", GetCtrl, 0xc008561b},
		{"QUERYMENU", QueryMenu, 0xc02c5625},
		{"G_INPUT", GetInput, 0x80045626},
		{"G_EDID", GetEDID, 0xc0285628},
		{"S_EDID", SetEDID, 0xc0285629},
		{"TRY_FMT", TryFmt, 0xc0d05640},
		{"G_EXT_CTRLS", GetExtCtrls, 0xc0205647},
		{"S_EXT_CTRLS", SetExtCtrls, 0xc0205648},
		{"ENCODER_CMD", EncoderCmd, 0xc028564d},
		{"S_DV_TIMINGS", SetDVTimings, 0xc0845657},
		{"G_DV_TIMINGS", GetDVTimings, 0xc0845658},
		{"DQEVENT", DQEvent, 0x80885659},
		{"SUBSCRIBE_EVENT", SubscribeEvent, 0x4020565a},
		{"UNSUBSCRIBE_EVENT", UnsubscribeEvent, 0x4020565b},
		{"G_SELECTION", GetSelection, 0xc040565e},
		{"S_SELECTION", SetSelection, 0xc040565f},
		{"ENUM_DV_TIMINGS", EnumDVTimings, 0xc0945662},
		{"QUERY_DV_TIMINGS", QueryDVTimings, 0x80845663},
		{"QUERY_EXT_CTRL", QueryExtCtrl, 0xc0e85667},
		{"MEDIA_DEVICE_INFO", MediaDeviceInfo, 0xc1007c00},
		{"MEDIA_SETUP_LINK", MediaSetupLink, 0xc0347c03},
		{"MEDIA_G_TOPOLOGY", MediaGetTopology, 0xc0487c04},
		{"SUBDEV_ENUM_MBUS_CODE", PadEnumCodes, 0xc0305602},
		{"SUBDEV_G_FMT", PadGetFmt, 0xc0585604},
		{"SUBDEV_S_FMT", PadSetFmt, 0xc0585605},
		{"SUBDEV_G_FRAME_INTERVAL", PadGetInterval, 0xc0305615},
		{"SUBDEV_S_FRAME_INTERVAL", PadSetInterval, 0xc0305616},
		{"SUBDEV_ENUM_FRAME_SIZE", PadEnumSizes, 0xc040564a},
		{"SUBDEV_ENUM_FRAME_INTERVAL", PadEnumIntervals, 0xc040564b},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, tt.got, tt.want)
		}
	}
}

// TestSizesOnARM runs the tests above as arm64 and armv7 programs.
func TestSizesOnARM(t *testing.T) {
	tests := []struct{ name, arch, qemu string }{
		{"64 bit", "arm64", "qemu-aarch64-static"},
		{"armv7", "arm", "qemu-arm-static"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			qemu, err := exec.LookPath(tt.qemu)
			if err != nil {
				t.Fatalf("%v: install qemu-user-static, make test does", err)
			}
			program := filepath.Join(t.TempDir(), "uapi.test")
			build := exec.Command("go", "test", "-c", "-o", program, ".")
			build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+tt.arch, "GOARM=7", "GOFLAGS=-mod=readonly")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			out, err := exec.Command(qemu, program, "-test.run", "^(TestSizes|TestNumbers)$", "-test.v").CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
		})
	}
}
