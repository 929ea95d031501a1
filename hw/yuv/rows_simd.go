//go:build amd64 || arm64

package yuv

// block is how many bytes of a result the kernels make at once.
const block = 16

// The kernels in rows_GOARCH.s make whole blocks, at least one, and look at
// nothing but their pointers. They make the same bytes as the portable
// functions that do the rest of each line.

//go:noescape
func everySecondBlocks(to, line *byte, blocks int)

//go:noescape
func unpackYUYVBlocks(ya, yb, uv, a, b *byte, blocks int)

//go:noescape
func unpackUYVYBlocks(ya, yb, uv, a, b *byte, blocks int)

//go:noescape
func averageBlocks(to, a, b *byte, blocks int)

//go:noescape
func compressBlocks(line *byte, blocks, gain, offset int)

// everySecond writes the bytes at even places of line: luma of YUYV, or, one
// byte further on, its chroma. It works in place, too. The last byte of line
// may be missing.
func everySecond(to, line []byte) {
	if n := min(len(to)/block, len(line)/(2*block)); n > 0 {
		everySecondBlocks(&to[0], &line[0], n)
		to, line = to[n*block:], line[2*n*block:]
	}
	everySecondPortable(to, line)
}

// unpackPair splits two packed lines into their luma and the mean of their
// chroma. first is the place of the first luma byte, 0 or 1. All results have
// the length of ya, a and b twice that.
func unpackPair(ya, yb, uv, a, b []byte, first int) {
	if n := len(ya) / block; n > 0 {
		end := n * block
		_, _, _, _ = yb[end-1], uv[end-1], a[2*end-1], b[2*end-1]
		if first == 0 {
			unpackYUYVBlocks(&ya[0], &yb[0], &uv[0], &a[0], &b[0], n)
		} else {
			unpackUYVYBlocks(&ya[0], &yb[0], &uv[0], &a[0], &b[0], n)
		}
		ya, yb, uv, a, b = ya[end:], yb[end:], uv[end:], a[2*end:], b[2*end:]
	}
	unpackPairPortable(ya, yb, uv, a, b, first)
}

// average writes (a+b+1)/2.
func average(to, a, b []byte) {
	if n := len(to) / block; n > 0 {
		end := n * block
		_, _ = a[end-1], b[end-1]
		averageBlocks(&to[0], &a[0], &b[0], n)
		to, a, b = to[end:], a[end:], b[end:]
	}
	averagePortable(to, a, b)
}

// compress applies r, whose gain and offset are positive and small enough that
// no product leaves 16 bits: 255·225 + offset stays below 65536.
func (r range256) compress(line []byte) {
	if n := len(line) / block; n > 0 {
		compressBlocks(&line[0], n, r.gain, r.offset)
		line = line[n*block:]
	}
	r.compressPortable(line)
}
