package fakevb2

// HEVC has no way to code a picture without its arithmetic coder. So this is a
// table, of what libx265 made of a grey picture of 64×48 pixels:
//
//	ffmpeg -f lavfi -i color=gray:rate=15:size=64x48 -pix_fmt yuv420p -frames:v 2 \
//	  -c:v libx265 -preset ultrafast -x265-params bframes=0:info=0:ref=1:sao=0:\
//	deblock=0:weightp=0:temporal-mvp=0:rc-lookahead=0:wpp=0:qp=30:cutree=0:aq-mode=0 -f hevc -
const (
	vpsHEVC   = "\x40\x01\x0c\x01\xff\xff\x01\x60\x00\x00\x03\x00\x90\x00\x00\x03\x00\x00\x03\x00\x1e\xba\x02\x40"
	spsHEVC   = "\x42\x01\x01\x01\x60\x00\x00\x03\x00\x90\x00\x00\x03\x00\x00\x03\x00\x1e\xa0\x20\x83\x16\x5b\xa4\xa4\xc2\x70\x16\x80\x80\x00\x00\x03\x00\x80\x00\x00\x07\x84"
	ppsHEVC   = "\x44\x01\xc0\x71\x81\x12"
	idrHEVC   = "\x28\x01\xad\x60\x05\x3a\x89\x5c\x0d\xdf\xcb"
	trailHEVC = "\x02\x01\xd0\x09\x71\x04\x60\x9e\xac"
)

// The size of all coded pictures of HEVC, in pixels.
const (
	WidthHEVC  = 64
	HeightHEVC = 48
)

// greyHEVC is [Grey] of HEVC: main profile, every picture but a key one the
// same as the one before.
func greyHEVC(p Picture) []byte {
	var au []byte
	if p.Headers {
		au = headersHEVC()
	}
	if p.Key {
		return append(au, "\x00\x00\x00\x01"+idrHEVC...)
	}
	// slice_pic_order_cnt_lsb, eight bits: the count of pictures since the key
	// one lies in the third and the fourth byte. Neither gets zero.
	trail := []byte("\x00\x00\x00\x01" + trailHEVC)
	slice := trail[4:]
	count := byte(p.FrameNum)
	slice[2] = slice[2]&^0x07 | count>>5
	slice[3] = slice[3]&^0xf8 | count<<3
	return append(au, trail...)
}

func headersHEVC() []byte {
	const code = "\x00\x00\x00\x01"
	return []byte(code + vpsHEVC + code + spsHEVC + code + ppsHEVC)
}
