//go:build !amd64 && !arm64

package yuv

// everySecond writes the bytes at even places of line: luma of YUYV, or, one
// byte further on, its chroma. It works in place, too. The last byte of line
// may be missing.
func everySecond(to, line []byte) { everySecondPortable(to, line) }

// unpackPair splits two packed lines into their luma and the mean of their
// chroma. first is the place of the first luma byte, 0 or 1. All results have
// the length of ya, a and b twice that.
func unpackPair(ya, yb, uv, a, b []byte, first int) { unpackPairPortable(ya, yb, uv, a, b, first) }

// average writes (a+b+1)/2.
func average(to, a, b []byte) { averagePortable(to, a, b) }

// compress applies r, whose gain and offset are positive and small enough that
// no product leaves 16 bits: 255·225 + offset stays below 65536.
func (r range256) compress(line []byte) { r.compressPortable(line) }
