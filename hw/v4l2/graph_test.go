package v4l2

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"encoderd.example/hw/v4l2/uapi"
)

// A drawing is a graph in words: a line for each entity, "name, node, function,
// sinks+sources", and one for each link, "name:pad > name:pad flags", where E
// says enabled and I immutable.
type drawing struct{ entities, links []string }

// The graphs were composed from the kernel's documentation, its drivers and
// reports, not recorded on hardware.
var drawings = map[string]drawing{
	// Documentation/admin-guide/media/raspberrypi-rp1-cfe, with a bridge at the
	// socket; the names are those of Linux 6.12 of Raspberry Pi.
	"rp1-cfe": {
		[]string{
			"csi2, v4l-subdev0, bridge, 4+4", "pisp-fe, v4l-subdev1, isp, 2+3", "tc358743 10-000f, v4l-subdev2, bridge, 0+1",
			"rp1-cfe-csi2_ch0, video0, io, 1+0", "rp1-cfe-csi2_ch2, video2, io, 1+0", "rp1-cfe-csi2_ch3, video3, io, 1+0",
			"rp1-cfe-fe_image0, video4, io, 1+0", "rp1-cfe-fe_config, video7, io, 0+1",
		},
		[]string{
			"tc358743 10-000f:0 > csi2:0 EI", "csi2:4 > rp1-cfe-csi2_ch0:0", "csi2:4 > pisp-fe:0 E", "csi2:6 > rp1-cfe-csi2_ch2:0 E", "csi2:6 > pisp-fe:0",
			"csi2:7 > rp1-cfe-csi2_ch3:0", "csi2:7 > pisp-fe:0", "pisp-fe:2 > rp1-cfe-fe_image0:0", "rp1-cfe-fe_config:0 > pisp-fe:1 E",
		},
	},
	// drivers/media/platform/nxp/imx8-isi on an i.MX8MP with two sockets: its
	// video nodes say that they are scalers, and memory feeds the last input of
	// the crossbar.
	"imx8-isi": {
		[]string{
			"crossbar, v4l-subdev0, mux, 3+2", "mxc_isi.0, v4l-subdev1, formatter, 1+1", "mxc_isi.1, v4l-subdev2, formatter, 1+1",
			"mxc_isi.0.capture, video1, scaler, 1+0", "mxc_isi.1.capture, video2, scaler, 1+0", "mxc_isi.output, video0, io, 0+1",
			"csis-32e40000.csi, v4l-subdev3, bridge, 1+1", "csis-32e50000.csi, v4l-subdev4, bridge, 1+1",
			"adv7611 2-004c, v4l-subdev6, dv, 1+1", "tc358743 1-000f, v4l-subdev5, bridge, 0+1",
		},
		[]string{
			"adv7611 2-004c:1 > csis-32e50000.csi:0 EI", "tc358743 1-000f:0 > csis-32e40000.csi:0 EI",
			"csis-32e40000.csi:1 > crossbar:0 EI", "csis-32e50000.csi:1 > crossbar:1 EI", "mxc_isi.output:0 > crossbar:2 EI",
			"crossbar:3 > mxc_isi.0:0 EI", "crossbar:4 > mxc_isi.1:0 EI", "mxc_isi.0:1 > mxc_isi.0.capture:0 EI", "mxc_isi.1:1 > mxc_isi.1.capture:0 EI",
		},
	},
	// Documentation/admin-guide/media/rkcif-rk3568-vicap.
	"rkcif": {
		[]string{"rkcif-dvp0, v4l-subdev0, bridge, 1+1", "rkcif-dvp0-id0, video0, io, 1+0", "it6801 2-0048, v4l-subdev1, dv, 0+1"},
		[]string{"rkcif-dvp0:1 > rkcif-dvp0-id0:0 E", "it6801 2-0048:0 > rkcif-dvp0:0 EI"},
	},
	// drivers/media/platform/ti/j721e-csi2rx behind Cadence's receiver.
	"j721e-csi2rx": {
		[]string{"cdns_csi2rx.30101000.csi-bridge, v4l-subdev0, bridge, 1+4", "j721e-csi2rx, video3, io, 1+0", "tc358743 4-000f, v4l-subdev1, bridge, 0+1"},
		[]string{"tc358743 4-000f:0 > cdns_csi2rx.30101000.csi-bridge:0 EI", "cdns_csi2rx.30101000.csi-bridge:1 > j721e-csi2rx:0 EI"},
	},
	// A processor from memory to memory, as each Raspberry Pi has.
	"bcm2835-isp": {
		[]string{"bcm2835_isp0, , unknown, 1+2", "bcm2835-isp0-output0, video13, io, 0+1", "bcm2835-isp0-capture1, video14, io, 1+0", "bcm2835-isp0-capture2, video15, io, 1+0"},
		[]string{"bcm2835-isp0-output0:0 > bcm2835_isp0:0 EI", "bcm2835_isp0:1 > bcm2835-isp0-capture1:0 EI", "bcm2835_isp0:2 > bcm2835-isp0-capture2:0 EI"},
	},
	// Documentation/admin-guide/media/vimc: this one also runs, see the board
	// tests.
	"vimc": {
		[]string{
			"Sensor A, v4l-subdev0, sensor, 0+1", "Sensor B, v4l-subdev1, sensor, 0+1", "Debayer A, v4l-subdev2, converter, 1+1", "Debayer B, v4l-subdev3, converter, 1+1",
			"Raw Capture 0, video0, io, 1+0", "Raw Capture 1, video1, io, 1+0", "RGB/YUV Input, v4l-subdev4, sensor, 0+1", "Scaler, v4l-subdev5, scaler, 1+1",
			"RGB/YUV Capture, video2, io, 1+0", "Lens A, v4l-subdev6, unknown, 0+0",
		},
		[]string{
			"Sensor A:0 > Debayer A:0 EI", "Sensor A:0 > Raw Capture 0:0 EI", "Sensor B:0 > Debayer B:0 EI", "Sensor B:0 > Raw Capture 1:0 EI",
			"Debayer A:1 > Scaler:0 E", "Debayer B:1 > Scaler:0", "RGB/YUV Input:0 > Scaler:0", "Scaler:1 > RGB/YUV Capture:0 EI",
		},
	},
	// Two parts that send to each other must not be followed for ever.
	"a ring": {
		[]string{"a, v4l-subdev0, unknown, 2+2", "b, v4l-subdev1, unknown, 1+1", "sensor, v4l-subdev2, sensor, 0+1", "node, video0, io, 1+0"},
		[]string{"sensor:0 > a:0 E", "a:2 > node:0 E", "a:3 > b:0 E", "b:1 > a:1 E"},
	},
	"a receiver with nothing at its socket": {
		[]string{"csi2, v4l-subdev0, bridge, 1+1", "node, video0, io, 1+0"},
		[]string{"csi2:1 > node:0 E"},
	},
}

var functions = map[string]uint32{
	"bridge": uapi.EntityInterfaceBridge, "isp": uapi.EntityISP, "io": uapi.EntityIOV4L, "mux": uapi.EntityMux, "formatter": uapi.EntityPixelFormatter,
	"scaler": uapi.EntityScaler, "dv": uapi.EntityDigitalDecoder, "sensor": uapi.EntityCameraSensor, "converter": uapi.EntityColourConverter, "unknown": 0,
}

// build makes the tables that a kernel would tell, and the graph of them.
func (d drawing) build(t *testing.T) *graph {
	t.Helper()
	tables := &topology{}
	var nodes []string
	ids := map[string]uint32{}
	for i, line := range d.entities {
		f := strings.Split(line, ", ")
		id := uint32(i + 1)
		e := uapi.MediaEntity{ID: id, Function: functions[f[2]]}
		copy(e.Name[:], f[0])
		tables.entities = append(tables.entities, e)
		ids[f[0]] = id
		var sinks, sources int
		if _, err := fmt.Sscanf(f[3], "%d+%d", &sinks, &sources); err != nil {
			t.Fatal(err)
		}
		for n := sinks + sources - 1; n >= 0; n-- { // in an order of the kernel's choice
			flags := uint32(uapi.PadSource)
			if n < sinks {
				flags = uapi.PadSink
			}
			tables.pads = append(tables.pads, uapi.MediaPad{ID: id<<8 | uint32(n), EntityID: id, Flags: flags, Index: uint32(n)})
		}
		nodes = append(nodes, f[1])
		if f[1] != "" {
			typ := uint32(uapi.InterfaceSubdev)
			if strings.HasPrefix(f[1], "video") {
				typ = uapi.InterfaceVideo
			}
			tables.interfaces = append(tables.interfaces, uapi.MediaInterface{ID: 1<<20 | id, Type: typ, Major: 81, Minor: uint32(i)})
			tables.links = append(tables.links, uapi.MediaLink{SourceID: 1<<20 | id, SinkID: id, Flags: uapi.LinkInterface | uapi.LinkEnabled})
		}
	}
	for _, line := range d.links {
		ends, flags := line, ""
		if at := strings.LastIndex(line, " "); strings.Trim(line[at:], " EI") == "" {
			ends, flags = line[:at], line[at:]
		}
		from, to, _ := strings.Cut(ends, " > ")
		l := uapi.MediaLink{SourceID: padNumber(t, ids, from), SinkID: padNumber(t, ids, to)}
		if strings.Contains(flags, "E") {
			l.Flags |= uapi.LinkEnabled
		}
		if strings.Contains(flags, "I") {
			l.Flags |= uapi.LinkImmutable
		}
		tables.links = append(tables.links, l)
	}
	return newGraph("/dev/media0", tables, func(_, minor uint32) string { return "/dev/" + nodes[minor] })
}

func padNumber(t *testing.T, ids map[string]uint32, end string) uint32 {
	t.Helper()
	at := strings.LastIndex(end, ":")
	var n uint32
	if _, err := fmt.Sscan(end[at+1:], &n); err != nil || ids[end[:at]] == 0 {
		t.Fatalf("%s: %v", end, err)
	}
	return ids[end[:at]]<<8 | n
}

func (g *graph) videoNodes() (list []*entity) {
	for _, e := range g.entities {
		if e.video {
			list = append(list, e)
		}
	}
	return list
}

func TestEachSourceIsLedToTheNodeThatIsNext(t *testing.T) {
	tests := map[string][]string{ // the best route of each source
		"rp1-cfe": {"tc358743 10-000f → csi2 → rp1-cfe-csi2_ch0 /dev/video0"},
		"imx8-isi": {
			"tc358743 1-000f → csis-32e40000.csi → crossbar → mxc_isi.0 → mxc_isi.0.capture /dev/video1",
			"adv7611 2-004c → csis-32e50000.csi → crossbar → mxc_isi.1 → mxc_isi.1.capture /dev/video2",
		},
		"rkcif":        {"it6801 2-0048 → rkcif-dvp0 → rkcif-dvp0-id0 /dev/video0"},
		"j721e-csi2rx": {"tc358743 4-000f → cdns_csi2rx.30101000.csi-bridge → j721e-csi2rx /dev/video3"},
		"bcm2835-isp":  nil,
		"vimc": {
			"Sensor A → Raw Capture 0 /dev/video0", // the second is the one that can be used
			"Sensor B → Raw Capture 1 /dev/video1",
			"RGB/YUV Input → Scaler → RGB/YUV Capture /dev/video2",
		},
		"a ring":                                {"sensor → a → node /dev/video0"},
		"a receiver with nothing at its socket": nil,
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			g := drawings[name].build(t)
			var got []string
			for _, routes := range g.sources(g.videoNodes()) {
				got = append(got, fmt.Sprint(routes[0], " ", routes[0].node().path))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if len(tests) != len(drawings) {
		t.Errorf("%d of %d graphs", len(tests), len(drawings))
	}
}

func TestASourceHasOtherRoutesToo(t *testing.T) {
	g := drawings["vimc"].build(t)
	var got []string
	for _, r := range g.sources(g.videoNodes())[0] {
		got = append(got, r.String())
	}
	if want := []string{"Sensor A → Raw Capture 0", "Sensor A → Debayer A → Scaler → RGB/YUV Capture"}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestANodeFedByMemoryIsNoCamera(t *testing.T) {
	tests := map[string]bool{"bcm2835-isp video14": true, "bcm2835-isp video15": true, "rp1-cfe video4": false, "rp1-cfe video0": false, "imx8-isi video1": false, "vimc video2": false}
	for name, want := range tests {
		drawn, node, _ := strings.Cut(name, " ")
		if got := processes([]*graph{drawings[drawn].build(t)}, "/dev/"+node); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if processes(nil, "/dev/video0") {
		t.Error("a node without a graph is fed")
	}
}

func TestWhatIsInTheWayIsCut(t *testing.T) {
	tests := []struct {
		name, graph, source string
		route               int // of that source
		rivals, loose       []string
	}{
		{"a branch to the front end, and one of the same receiver", "rp1-cfe", "tc358743 10-000f", 0, []string{`"csi2":4 -> "pisp-fe":0`}, []string{`"csi2":6 -> "rp1-cfe-csi2_ch2":0`}},
		{"another sensor at the scaler", "vimc", "RGB/YUV Input", 0, []string{`"Debayer A":1 -> "Scaler":0`}, nil},
		{"the other debayer", "vimc", "Sensor B", 1, []string{`"Debayer A":1 -> "Scaler":0`}, nil},
		{"what hangs on a branch that cannot be cut", "vimc", "Sensor A", 0, nil, []string{`"Debayer A":1 -> "Scaler":0`}},
		{"all is fixed", "imx8-isi", "tc358743 1-000f", 0, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := drawings[tt.graph].build(t)
			list := g.sources(g.videoNodes())
			i := slices.IndexFunc(list, func(r []route) bool { return r[0].source().of.name == tt.source })
			r := g.again(list[i][tt.route])
			if r == nil {
				t.Fatal("the route is lost")
			}
			cut, err := g.rivals(r)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([][]string{tt.rivals, tt.loose}, [][]string{words(cut), words(g.loose(r))}); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func words(links []link) (list []string) {
	for _, l := range links {
		list = append(list, l.String())
	}
	return list
}

func TestASinkThatIsTakenForGoodIsTold(t *testing.T) {
	d := drawings["vimc"]
	d.links = slices.Clone(d.links)
	d.links[4] += "I"
	g := d.build(t)
	list := g.sources(g.videoNodes())
	if _, err := g.rivals(&list[2][0]); err == nil || !strings.Contains(err.Error(), `"Debayer A":1 -> "Scaler":0 cannot be cut`) {
		t.Errorf("got %v", err)
	}
}

func TestARouteIsKnownAgain(t *testing.T) {
	before := drawings["rp1-cfe"].build(t)
	r := before.sources(before.videoNodes())[0][0]
	tests := []struct {
		name   string
		change func(*drawing)
		same   bool
	}{
		{"nothing changed", func(*drawing) {}, true},
		{"links were put in and cut", func(d *drawing) { d.links[1] += " E"; d.links[2] = "csi2:4 > pisp-fe:0" }, true},
		{"another bridge", func(d *drawing) {
			d.entities[2] = strings.Replace(d.entities[2], "tc358743", "lt6911", 1)
			d.links[0] = strings.Replace(d.links[0], "tc358743", "lt6911", 1)
		}, false},
		{"another number of the video node", func(d *drawing) { d.entities[3] = strings.Replace(d.entities[3], "video0", "video9", 1) }, false},
		{"a link has gone", func(d *drawing) { d.links = slices.Delete(d.links, 1, 2) }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := drawings["rp1-cfe"]
			d.entities, d.links = slices.Clone(d.entities), slices.Clone(d.links)
			tt.change(&d)
			now := d.build(t).again(r)
			if (now != nil) != tt.same {
				t.Fatalf("got %v", now)
			}
			if tt.same && now.String() != r.String() {
				t.Errorf("got %v", now)
			}
		})
	}
}

func TestBusCodesAreTriedInOrder(t *testing.T) {
	got := preferred([]uint32{uapi.BusSBGGR8, uapi.BusRGB888, 0x2001, uapi.BusUYVY8, uapi.BusJPEG, uapi.BusYUYV8}, true)
	if want := []uint32{uapi.BusUYVY8, uapi.BusYUYV8, uapi.BusRGB888, uapi.BusJPEG, uapi.BusSBGGR8}; !slices.Equal(got, want) {
		t.Errorf("got %#x", got)
	}
	if got := preferred([]uint32{uapi.BusSBGGR8}, false); len(got) != 0 {
		t.Errorf("got %#x", got)
	}
}

func TestAFormatKeepsTheColoursOfTheBus(t *testing.T) {
	for _, f := range formats {
		var with []colour
		for _, code := range []uint32{uapi.BusUYVY8, uapi.BusRGB888, uapi.BusJPEG, uapi.BusSBGGR8} {
			if f.goesWith(code) {
				with = append(with, colourOf(code))
			}
		}
		want := ycbcr
		switch {
		case f.pixel.RGB():
			want = rgb
		case f.pixel.Coded():
			want = coder
		}
		if !slices.Equal(with, []colour{want}) {
			t.Errorf("%s goes with %v", f.code, with)
		}
	}
}
