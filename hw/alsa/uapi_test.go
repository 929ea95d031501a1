package alsa

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"
)

// The sizes that C gives these structs with 64-bit time, on 64-bit systems and
// on 32-bit arm.
func TestStructsHaveTheKernelsLayout(t *testing.T) {
	tests := []struct {
		name         string
		got          uintptr
		bits64, arm7 uintptr
	}{
		{"snd_pcm_hw_params", unsafe.Sizeof(hwParams{}), 608, 604},
		{"snd_pcm_hw_params.intervals", unsafe.Offsetof(hwParams{}.intervals), 260, 260},
		{"snd_pcm_hw_params.rmask", unsafe.Offsetof(hwParams{}.rmask), 512, 512},
		{"snd_pcm_sw_params", unsafe.Sizeof(swParams{}), 136, 104},
		{"snd_pcm_sw_params.avail_min", unsafe.Offsetof(swParams{}.availMin), 16, 12},
		{"snd_pcm_sw_params.proto", unsafe.Offsetof(swParams{}.proto), 72, 40},
		{"snd_pcm_status", unsafe.Sizeof(pcmStatus{}), 152, 128},
		{"snd_pcm_status.tstamp", unsafe.Offsetof(pcmStatus{}.tstamp), 24, 24},
		{"snd_pcm_status.avail", unsafe.Offsetof(pcmStatus{}.avail), 64, 52},
		{"snd_pcm_status.audio_tstamp", unsafe.Offsetof(pcmStatus{}.audioTstamp), 96, 72},
		{"snd_pcm_info", unsafe.Sizeof(pcmInfo{}), 288, 288},
		{"snd_xferi", unsafe.Sizeof(xferi{}), 24, 12},
	}
	for _, tt := range tests {
		want := tt.bits64
		if unsafe.Sizeof(uint(0)) == 4 {
			want = tt.arm7
		}
		if tt.got != want {
			t.Errorf("%s is %d, want %d", tt.name, tt.got, want)
		}
	}
}

// Golden numbers from include/uapi/sound/asound.h.
func TestIoctlNumbers(t *testing.T) {
	if unsafe.Sizeof(uint(0)) == 4 {
		if ioStatusExt != 0xc0804124 || ioReadFrames != 0x800c4151 {
			t.Errorf("STATUS_EXT %#x, READI %#x", ioStatusExt, ioReadFrames)
		}
		return
	}
	for name, n := range map[string][2]uint{
		"INFO":             {ioPCMInfo, 0x81204101},
		"TTSTAMP":          {ioTTStamp, 0x40044103},
		"HW_REFINE":        {ioHWRefine, 0xc2604110},
		"HW_PARAMS":        {ioHWParams, 0xc2604111},
		"SW_PARAMS":        {ioSWParams, 0xc0884113},
		"STATUS_EXT":       {ioStatusExt, 0xc0984124},
		"PREPARE":          {ioPrepare, 0x4140},
		"RESUME":           {ioResume, 0x4147},
		"READI_FRAMES":     {ioReadFrames, 0x80184151},
		"PREFER_SUBDEVICE": {ioPreferSub, 0x40045532},
	} {
		if n[0] != n[1] {
			t.Errorf("%s is %#x, want %#x", name, n[0], n[1])
		}
	}
}

// The same assertions on the box's processors, by user-mode emulation.
func TestLayoutOnOtherProcessors(t *testing.T) {
	for arch, emulator := range map[string]string{"arm": "qemu-arm-static", "arm64": "qemu-aarch64-static"} {
		t.Run(arch, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "layout.test")
			build := exec.Command("go", "test", "-c", "-o", program, ".")
			build.Env = append(build.Environ(), "GOARCH="+arch, "GOARM=7", "CGO_ENABLED=0")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			path, err := exec.LookPath(emulator)
			if err != nil {
				t.Fatalf("%v: install qemu-user-static, make test does", err)
			}
			out, err := exec.Command(path, program, "-test.run", "TestStructs|TestIoctl", "-test.v").CombinedOutput()
			if err != nil || strings.Count(string(out), "--- PASS") != 2 {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
