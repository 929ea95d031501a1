package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"encoderd.example/hw"
)

// What goes along the paths: small enough for an emulated processor.
const (
	pathWidth, pathHeight = 320, 180
	pathFPS               = 15
	pathPictures          = 200 // that count
)

// A path is one way of pictures from a camera to publication.
type path struct {
	name    string
	camera  string         // pathCamera, modelled, or what a camera of ours plays from a file: MJPG, H264
	pixel   hw.PixelFormat // the only one that the camera gives; 0 leaves it to the daemon
	module  string         // to load first, and its parameters
	buffers string         // of [video]
	encoder string         // of [[rendition]]
	smaller bool           // what counts is a second rendition of half the size, or else the first
	halved  bool           // the only rendition has half the size
	way     hw.Way         // that the daemon must have chosen
	zero    bool           // nothing may be copied
}

// pathCamera is vivid, the kernel's virtual camera driver, as a webcam;
// modelled is the camera of the kernel's model.
const (
	pathCamera = "v4l2:platform:vivid-000#0"
	modelled   = "model"
)

// paths are measured in this order.
var paths = []path{
	{name: "export", camera: pathCamera, buffers: "export", encoder: "hardware", way: hw.Export, zero: true},
	{name: "import", camera: pathCamera, buffers: "import", encoder: "hardware", way: hw.Import, zero: true},
	{name: "copy", camera: pathCamera, buffers: "copy", encoder: "hardware", way: hw.Copy},
	{name: "scale by the processor, beside an export", camera: pathCamera, buffers: "auto", encoder: "hardware", smaller: true, way: hw.Convert},
	{name: "scale by vim2m", camera: pathCamera, pixel: hw.RGB24, module: "vim2m default_transtime=1", buffers: "auto", encoder: "hardware", halved: true, way: hw.Export, zero: true},
	{name: "decode JPEG by hardware", camera: modelled, buffers: "auto", encoder: "hardware", way: hw.Export, zero: true},
	{name: "decode JPEG by the processor", camera: "MJPG", buffers: "auto", encoder: "hardware", way: hw.Decode},
	{name: "decode JPEG, software encoder", camera: "MJPG", buffers: "auto", encoder: "software", way: hw.Decode},
	{name: "NV12, software encoder", camera: pathCamera, pixel: hw.NV12, buffers: "auto", encoder: "software", way: hw.Heap},
	{name: "YUYV, software encoder", camera: pathCamera, pixel: hw.YUYV, buffers: "auto", encoder: "software", way: hw.Heap},
	{name: "pass through", camera: "H264", buffers: "auto", encoder: "camera", way: hw.Through, zero: true},
}

// kernel says that a kernel driver is the camera, model that it is the model of
// a kernel, and file that it plays a file.
func (p path) kernel() bool { return p.camera == pathCamera }
func (p path) model() bool  { return p.camera == modelled }
func (p path) file() bool   { return !p.kernel() && !p.model() }

func (p path) String() string { return "path " + p.name }

// source says where the pictures come from.
func (p path) source() string {
	switch {
	case p.kernel():
		return "vivid, a kernel driver"
	case p.model():
		return "on the model of the kernel that tests use, hw/v4l2/fakevb2: no kernel driver without a chip does this"
	default:
		return "no kernel driver gives " + p.camera + " here: a camera that plays a file in its place"
	}
}

// A walk is what the pictures of one path met with.
type walk struct {
	Path     string
	Error    string // why there is nothing else
	Camera   string // as the daemon names it, with its mode
	Encoder  string
	Reason   string
	Pictures uint64 // published
	Copied   uint64 // raw bytes
	Decoded  uint64 // raw bytes, of JPEG
	Dropped  uint64 // by us or the encoder
	Missed   uint64 // before us
	Slates   uint64
	Latency  []float64 // picture periods from stamp to publication, of each
}

// paths runs the daemon in the virtual board, whose camera, scaler and encoder
// are kernel devices, once for each path.
func (b *bench) paths(ctx context.Context) error {
	if !onDebian() {
		b.table.note("paths: not measured: the virtual board is made of Debian's packages, and this is not Debian")
		return nil
	}
	work := filepath.Join(b.dir, "guest")
	if err := b.packGuest(ctx, work); err != nil {
		return err
	}
	if err := b.walkInGuest(ctx, work); err != nil {
		return err
	}
	b.table.note("paths: the daemon on the virtual board (arm64 emulated by QEMU, Debian's kernel), %dx%d at %d a second; bytes are the status' copied_bytes and decoded_bytes over those pictures, periods of %.0f ms run from a picture's stamp to its unit in the ring. Emulated: compare the paths with each other, not with other machines. libx264 copies each picture once more, inside, uncounted",
		pathWidth, pathHeight, pathFPS, 1000.0/pathFPS)
	return nil
}

// errWalk says that a path could not be walked.
var errWalk = errors.New("not every path could be measured")

var debianLine = regexp.MustCompile(`(?m)^ID=debian$`)

// onDebian is what buildroot/virt asks for.
func onDebian() bool {
	doc, err := os.ReadFile("/etc/os-release")
	return err == nil && debianLine.Match(doc)
}

// packGuest puts what the guest needs into a folder: this program, and the
// pictures of cameras that the kernel has no driver for.
func (b *bench) packGuest(ctx context.Context, work string) error {
	data := filepath.Join(work, guestData)
	if err := os.MkdirAll(data, 0o700); err != nil {
		return fmt.Errorf("make a folder for the guest: %w", err)
	}
	for _, p := range paths {
		if !p.file() {
			continue
		}
		f := feed{format: p.camera, width: pathWidth, height: pathHeight, fps: pathFPS, file: filepath.Join(data, p.camera)}
		if err := f.render(ctx); err != nil {
			return err
		}
	}
	_, _, err := output(ctx, "env", "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm64",
		"go", "build", "-o", filepath.Join(work, "bench"), "encoderd.example/tools/bench")
	return err
}

// walkInGuest boots the board, building it first where there is none, and
// tells what this program saw in it.
func (b *bench) walkInGuest(ctx context.Context, work string) error {
	exec, err := filepath.Abs(filepath.Join(b.board, "guest-exec"))
	if err != nil {
		return fmt.Errorf("find the virtual board: %w", err)
	}
	fmt.Fprintln(b.out, "  starting the virtual board; its first build takes a minute or two")
	r, w := io.Pipe()
	p, err := start(w, "env", "-C", work, exec, filepath.Join(work, "bench"), childWord, "paths", guestData)
	if err != nil {
		return err
	}
	defer p.stop()
	defer func() { _ = r.Close() }() // who still prints must not wait for us
	defer context.AfterFunc(ctx, func() { _ = r.CloseWithError(context.Cause(ctx)) })()
	go func() { // ends with the process
		<-p.done
		_ = w.Close()
	}()
	said, err := b.hearWalks(r)
	if err != nil {
		return fmt.Errorf("%w\n%s%s", err, said, p.log.String())
	}
	return nil
}

// hearWalks reads what the guest prints: a walk for each path, and other words,
// which it returns.
func (b *bench) hearWalks(from io.Reader) (said string, err error) {
	var others strings.Builder
	missing := slices.Clone(paths)
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var w walk
		if !bytes.HasPrefix(lines.Bytes(), []byte("{")) || json.Unmarshal(lines.Bytes(), &w) != nil {
			others.WriteString(lines.Text() + "\n")
			continue
		}
		fmt.Fprintln(b.out, " ", w)
		if w.Error != "" {
			continue
		}
		i := slices.IndexFunc(missing, func(p path) bool { return p.name == w.Path })
		if i < 0 {
			return others.String(), fmt.Errorf("the guest tells of a path %q: %w", w.Path, errWalk)
		}
		b.tellWalk(missing[i], w)
		missing = slices.Delete(missing, i, i+1)
	}
	if err := lines.Err(); err != nil {
		return others.String(), fmt.Errorf("hear from the guest: %w", err)
	}
	if len(missing) > 0 {
		return others.String(), fmt.Errorf("%w: %v", errWalk, missing)
	}
	return others.String(), nil
}

func (w walk) String() string {
	if w.Error != "" {
		return fmt.Sprintf("%-42s %s", w.Path, w.Error)
	}
	return fmt.Sprintf("%-42s %4d pictures, %6.0f bytes copied and %6.0f decoded each, %5.2f periods, %d dropped",
		w.Path, w.Pictures, w.each(w.Copied), w.each(w.Decoded), median(w.Latency), w.Dropped)
}

func (w walk) each(bytes uint64) float64 { return float64(bytes) / float64(max(w.Pictures, 1)) }

func (b *bench) tellWalk(p path, w walk) {
	b.table.add(row{What: p.String() + ", raw bytes that the CPU copied", Unit: "bytes/picture", Ours: w.each(w.Copied), Zero: p.zero})
	if w.Decoded > 0 {
		b.table.tell(p.String()+", raw bytes that the CPU decoded", "bytes/picture", w.each(w.Decoded), 0)
	}
	if !p.model() { // it has no time
		b.table.tell(p.String()+", stamp to unit published, median", "periods", quantile(w.Latency, 0.5), 0)
		b.table.tell(p.String()+", stamp to unit published, 99th percentile", "periods", quantile(w.Latency, 0.99), 0)
	}
	b.table.tell(p.String()+", dropped", "pictures", float64(w.Dropped), 0)
	coder := w.Encoder
	if p.way == hw.Through {
		coder = "the camera itself"
	}
	b.table.note("%s: %d pictures of %s (%s), coded by %s; %d dropped, %d missed before us, %d slates; %s",
		p, w.Pictures, w.Camera, p.source(), coder, w.Dropped, w.Missed, w.Slates, w.Reason)
}
