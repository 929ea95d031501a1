package hw

// A PlaneShape says how one plane of a raw picture follows from the picture's
// size: its samples stand in groups, each for a rectangle of pixels.
type PlaneShape struct {
	Bytes  int // of a group
	Across int // pixels that a group covers in its line
	Down   int // lines of the picture that it covers
}

// Line returns how many bytes a line of the plane has in a picture of width.
func (s PlaneShape) Line(width int) int { return (width + s.Across - 1) / s.Across * s.Bytes }

// Lines returns how many lines the plane has in a picture of height.
func (s PlaneShape) Lines(height int) int { return (height + s.Down - 1) / s.Down }

// shapes are the raw formats (Linux user-space API, part I, section 2).
var shapes = map[PixelFormat][]PlaneShape{
	NV12:   {{1, 1, 1}, {2, 2, 2}},
	I420:   {{1, 1, 1}, {1, 2, 2}, {1, 2, 2}},
	I422:   {{1, 1, 1}, {1, 2, 1}, {1, 2, 1}},
	NV16:   {{1, 1, 1}, {2, 2, 1}},
	NV24:   {{1, 1, 1}, {2, 1, 1}},
	YUYV:   {{4, 2, 1}},
	UYVY:   {{4, 2, 1}},
	RGB24:  {{3, 1, 1}},
	BGR24:  {{3, 1, 1}},
	RGB565: {{2, 1, 1}},
}

// Planes returns the shapes of the planes of a raw format; none if it is coded
// or not known. It is not to be changed.
func (p PixelFormat) Planes() []PlaneShape { return shapes[p] }

// Coded reports whether pictures of p are a string of bytes, without planes.
func (p PixelFormat) Coded() bool { return p == MJPEG || p == H264 }

// Stride returns the bytes from line to line in a plane that lies in one piece
// of memory with the first one, which has first.
func (p PixelFormat) Stride(plane, first int) int {
	one, other := shapes[p][0], shapes[p][plane]
	d := one.Bytes * other.Across
	return (first*other.Bytes*one.Across + d - 1) / d
}
