package fakevb2_test

import (
	"testing"
	"unsafe"

	"encoderd.example/hw/v4l2/fakevb2"
	"encoderd.example/hw/v4l2/uapi"
)

func TestFormatsAreGrantedAsDriversDo(t *testing.T) {
	tests := []struct {
		name                string
		format              fakevb2.Format
		asked               uapi.PixFormat
		lines, stride, size uint32
	}{
		{"packed", fakevb2.Format{BytesPerPixel: 2}, uapi.PixFormat{PixelFormat: 'Y' | 'U'<<8 | 'Y'<<16 | 'V'<<24}, 50, 200, 10000},
		{"packed RGB", fakevb2.Format{BytesPerPixel: 3}, uapi.PixFormat{PixelFormat: 'R' | 'G'<<8 | 'B'<<16 | '3'<<24}, 50, 300, 15000},
		{"two planes of 4:2:2", fakevb2.Format{BytesPerPixel: 2}, uapi.PixFormat{PixelFormat: 'N' | 'V'<<8 | '1'<<16 | '6'<<24}, 50, 100, 10000},
		{"aligned", fakevb2.Format{BytesPerPixel: 1.5, Align: 64, AlignLines: 16}, uapi.PixFormat{PixelFormat: 'N' | 'V'<<8 | '1'<<16 | '2'<<24}, 64, 128, 12288},
		{"longer lines refused", fakevb2.Format{BytesPerPixel: 2}, uapi.PixFormat{PixelFormat: 'Y' | 'U'<<8 | 'Y'<<16 | 'V'<<24, BytesPerLine: 256}, 50, 200, 10000},
		{"longer lines granted", fakevb2.Format{BytesPerPixel: 2, AnyStride: true}, uapi.PixFormat{PixelFormat: 'Y' | 'U'<<8 | 'Y'<<16 | 'V'<<24, BytesPerLine: 256}, 50, 256, 12800},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.format.Code = tt.asked.PixelFormat
			k := fakevb2.New(&fakevb2.Node{Path: "/dev/video0", Type: uapi.BufTypeVideoCapture, Formats: []fakevb2.Format{tt.format}})
			fd, err := k.Open("/dev/video0")
			if err != nil {
				t.Fatal(err)
			}
			for name, call := range map[string]uintptr{"TRY_FMT": uapi.TryFmt, "S_FMT": uapi.SetFmt} {
				f := uapi.Format{Type: uapi.BufTypeVideoCapture}
				*f.Pix() = tt.asked
				f.Pix().Width, f.Pix().Height = 100, 50
				if err := k.Ioctl(fd, call, unsafe.Pointer(&f)); err != nil {
					t.Fatal(err)
				}
				if p := f.Pix(); p.Width != 100 || p.Height != tt.lines || p.BytesPerLine != tt.stride || p.SizeImage != tt.size {
					t.Errorf("%s grants %dx%d, %d bytes a line, %d in all", name, p.Width, p.Height, p.BytesPerLine, p.SizeImage)
				}
			}
		})
	}
}
