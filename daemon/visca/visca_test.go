//nolint:thelper // what runs in a bubble is a test: failures belong to their own lines
package visca

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/daemon/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCommandsAreThoseOfTheStandard(t *testing.T) {
	must := func(c Command, err error) Command {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, tt := range []struct {
		name string
		c    Command
		want string
	}{
		{"recall", must(Recall(5)), "\x81\x01\x04\x3F\x02\x05\xFF"},
		{"store", must(Store(127)), "\x81\x01\x04\x3F\x01\x7F\xFF"},
		{"home", Home(), "\x81\x01\x06\x04\xFF"},
		{"left and up at full speed", must(Move(-1, 1)), "\x81\x01\x06\x01\x18\x17\x01\x01\xFF"},
		{"right, slowly", must(Move(0.01, 0)), "\x81\x01\x06\x01\x01\x01\x02\x03\xFF"},
		{"down at half speed", must(Move(0, -0.5)), "\x81\x01\x06\x01\x01\x0B\x03\x02\xFF"},
		{"stand still", must(Move(0, 0)), "\x81\x01\x06\x01\x01\x01\x03\x03\xFF"},
		{"zoom in", must(Zoom(1)), "\x81\x01\x04\x07\x27\xFF"},
		{"zoom out, slowly", must(Zoom(-0.1)), "\x81\x01\x04\x07\x30\xFF"},
		{"zoom no more", must(Zoom(0)), "\x81\x01\x04\x07\x00\xFF"},
		{"Avonic red", Models["avonic"].Program, "\x81\x01\x7E\x01\x0A\x00\x02\x03\xFF"},
		{"Avonic green", Models["avonic"].Preview, "\x81\x01\x7E\x01\x0A\x00\x03\x02\xFF"},
		{"Avonic off", Models["avonic"].Off, "\x81\x01\x7E\x01\x0A\x00\x03\x03\xFF"},
	} {
		if got := packet(1, tt.c); string(got) != tt.want {
			t.Errorf("%s: % X, want % X", tt.name, got, tt.want)
		}
	}
	for name, err := range map[string]error{
		"preset 128":  second(Recall(128)),
		"preset -1":   second(Store(-1)),
		"too quick":   second(Move(1.1, 0)),
		"no number":   second(Move(0, math.NaN())),
		"zoom by two": second(Zoom(2)),
	} {
		if !errors.Is(err, ErrRange) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, m := range Models {
		if m.Off == nil || m.Program == nil {
			t.Errorf("%s cannot be lit and darkened", name)
		}
	}
}

func second(_ Command, err error) error { return err }

func TestWhatTheCameraAnswers(t *testing.T) {
	for _, tt := range []struct {
		name, bytes string
		want        []reply
	}{
		{"acknowledged and done", "\x90\x41\xFF\x90\x51\xFF", []reply{{1, acknowledged, 0}, {1, completed, 0}}},
		{"an error", "\xF0\x60\x02\xFF", []reply{{7, refused, 2}}},
		{"noise before", "\x00\x13\xFF\x90\x41\xFF", []reply{{1, acknowledged, 0}}},
		{"an error cut short", "\x90\x60\xFF", nil},
		{"our own echo", "\x81\x01\x04\xFF", nil},
		{"from nobody", "\x80\x41\xFF", nil},
		{"nothing but ends", "\xFF\xFF\xFF", nil},
		{"no end for long, then an answer", string(bytes.Repeat([]byte{0x90, 0x41}, 500)) + "\xFF\x90\x41\xFF", []reply{{1, acknowledged, 0}}},
	} {
		var s splitter
		var got []reply
		for _, b := range []byte(tt.bytes) {
			if r, ok := s.next(b); ok {
				got = append(got, r)
			}
		}
		if len(got) != len(tt.want) || len(got) > 0 && got[0] != tt.want[0] || len(got) > 1 && got[1] != tt.want[1] {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// A camera is the other end of the line.
type camera struct {
	net.Conn
	got chan string // packets, without address and end
}

// plug runs a link with a camera that answers to each packet what it says.
func plug(t *testing.T, l *Link, says func(packet string) string) (cam *camera, unplug func() error) {
	ours, theirs := net.Pipe()
	cam = &camera{theirs, make(chan string, 100)}
	ctx, cancel := context.WithCancel(t.Context())
	ended, heard := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(heard)
		buf := make([]byte, 64)
		for {
			n, err := theirs.Read(buf)
			if err != nil {
				return
			}
			p := string(buf[1 : n-1])
			cam.got <- p
			if _, err := io.WriteString(theirs, says(p)); err != nil {
				return
			}
		}
	}()
	go func() { ended <- l.Run(ctx, ours) }()
	synctest.Wait()
	return cam, func() error {
		cancel()
		err := <-ended
		_ = theirs.Close()
		<-heard
		return err
	}
}

func (c *camera) all() (packets []string) {
	synctest.Wait()
	for {
		select {
		case p := <-c.got:
			packets = append(packets, p)
		default:
			return packets
		}
	}
}

func obeys(string) string { return "\x90\x41\xFF\x90\x51\xFF" }

func TestAnOrderIsTakenRefusedOrLost(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		want         error
		words        string
	}{
		{"taken", "\x90\x41\xFF", nil, ""},
		{"taken, after the end of the one before", "\x90\x52\xFF\x90\x41\xFF", nil, ""},
		{"refused", "\x90\x60\x41\xFF", ErrRefused, "the camera refuses: the camera cannot do this now"},
		{"refused for now", "\x90\x60\x03\xFF", ErrRefused, "the camera refuses: the camera has too much to do"},
		{"refused for an unknown reason", "\x90\x60\x77\xFF", ErrRefused, "the camera refuses with code 0x77"},
		{"silent", "", ErrSilent, ErrSilent.Error()},
		{"answered by another camera", "\xA0\x41\xFF", ErrSilent, ErrSilent.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &Link{Camera: 1}
				cam, unplug := plug(t, l, func(string) string { return tt.answer })
				c, _ := Recall(1)
				err := l.Send(t.Context(), c)
				if !errors.Is(err, tt.want) || err != nil && err.Error() != tt.words {
					t.Errorf("got %v, want %q", err, tt.words)
				}
				if got := cam.all(); len(got) != 1 || got[0] != string(c) {
					t.Errorf("the camera got %q", got)
				}
				if err := unplug(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestTheLampOfTheCameraFollowsAndGoesDarkInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := Models["avonic"]
		l := &Link{Camera: 1, Model: "avonic"}
		cam, unplug := plug(t, l, obeys)
		expect := func(when string, want ...Command) {
			t.Helper()
			got := cam.all()
			if len(got) != len(want) {
				t.Fatalf("%s: %d commands, want %d", when, len(got), len(want))
			}
			for i := range want {
				if got[i] != string(want[i]) {
					t.Errorf("%s: % X, want % X", when, got[i], want[i])
				}
			}
		}
		expect("at the start", m.Off)
		l.Tally(status.Program)
		expect("on program", m.Program)
		l.Tally(status.Preview)
		expect("on preview", m.Preview)
		l.Tally(status.Unknown)
		expect("when nobody knows", m.Off)
		l.Tally(status.Program)
		expect("on program again", m.Program)
		time.Sleep(lampEvery) // the bubble's time
		expect("a camera that was switched off and on", m.Program)
		if err := unplug(); err != nil {
			t.Error(err)
		}
		expect("in the end", m.Off)
	})
}

func TestALampThatIsNotTakenIsToldAgainSoon(t *testing.T) {
	const busy = "\x90\x60\x03\xFF"
	took := "\x90\x41\xFF"
	for _, tt := range []struct {
		name    string
		answers []string // the last of them for ever
		after   time.Duration
		want    int // commands by then
	}{
		{"taken", []string{took}, lampEvery - 1, 1},
		{"busy", []string{busy, took}, lampAgain, 2},
		{"busy, then it rests", []string{busy, took}, lampEvery + lampAgain - 1, 2},
		{"busy for long", []string{busy}, lampEvery, 21},
		{"silent once", []string{"", took}, answerTime + lampAgain, 2},
		{"silent once, then it rests", []string{"", took}, answerTime + lampAgain + lampEvery - 1, 2},
		{"silent for long", []string{""}, lampEvery, 1 + lampTries},
		{"refused for good", []string{"\x90\x60\x02\xFF"}, lampEvery - 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answers := tt.answers
				cam, unplug := plug(t, &Link{Camera: 1, Model: "sony"}, func(string) string {
					answer := answers[0]
					if len(answers) > 1 {
						answers = answers[1:]
					}
					return answer
				})
				time.Sleep(tt.after) // the bubble's time
				if got := cam.all(); len(got) != tt.want {
					t.Errorf("%d commands, want %d", len(got), tt.want)
				}
				if err := unplug(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A jammed port takes nothing until it is closed.
type jammed struct {
	closed chan struct{}
	once   sync.Once
}

func (j *jammed) wait() (int, error)          { <-j.closed; return 0, io.ErrClosedPipe }
func (j *jammed) Read([]byte) (int, error)    { return j.wait() }
func (j *jammed) Write(b []byte) (int, error) { return j.wait() }
func (j *jammed) Close() error {
	j.once.Do(func() { close(j.closed) })
	return nil
}

func TestAPortThatTakesNothingDoesNotHoldTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- (&Link{Model: "sony"}).Run(ctx, &jammed{closed: make(chan struct{})}) }()
		synctest.Wait()
		cancel()
		begin := time.Now()
		err := <-ended
		if took := time.Since(begin); !errors.Is(err, io.ErrClosedPipe) || took != goodbyeTime {
			t.Errorf("ended with %v after %v", err, took)
		}
	})
}

// A deaf line still takes what is written, but nothing comes from it any more.
type deaf struct {
	io.WriteCloser
	ended <-chan struct{}
}

func (d deaf) Read([]byte) (int, error) { <-d.ended; return 0, io.EOF }

// Where the reader fails in the moment of the end, either is seen first.
func TestTheLampGoesDarkThoughTheReaderFailsAtTheEnd(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			heard := make(chan []byte, 1)
			go func() {
				b, _ := io.ReadAll(theirs)
				heard <- b
			}()
			ctx, cancel := context.WithCancel(t.Context())
			l := &Link{Camera: 1, Model: "sony"}
			l.Tally(status.Program)
			ended := make(chan error, 1)
			go func() { ended <- l.Run(ctx, deaf{ours, ctx.Done()}) }()
			synctest.Wait()
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if got := <-heard; !bytes.HasSuffix(got, packet(1, Models["sony"].Off)) {
				t.Errorf("the last of % X is not off", got)
			}
		})
	}
}

func TestACameraWithoutLampIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Link{Camera: 1}
		cam, unplug := plug(t, l, obeys)
		l.Tally(status.Program)
		time.Sleep(3 * lampEvery)
		if got := cam.all(); len(got) > 0 {
			t.Errorf("the camera got %q", got)
		}
		if err := unplug(); err != nil {
			t.Error(err)
		}
	})
}

func TestAPortThatVanishesEndsTheRunAndTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Link{Camera: 1}
		if err := l.Send(t.Context(), Home()); !errors.Is(err, ErrAway) {
			t.Errorf("before there is a port: %v", err)
		}
		ours, theirs := net.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- l.Run(t.Context(), ours) }()
		synctest.Wait()
		go func() {
			_, _ = theirs.Read(make([]byte, 64))
			_ = theirs.Close()
		}()
		if err := l.Send(t.Context(), Home()); !errors.Is(err, io.EOF) {
			t.Errorf("while it vanishes: %v", err)
		}
		if err := <-ended; !errors.Is(err, io.EOF) {
			t.Errorf("the run ended with %v", err)
		}
		if err := l.Send(t.Context(), Home()); !errors.Is(err, ErrAway) {
			t.Errorf("after it vanished: %v", err)
		}
	})
}

func FuzzReplies(f *testing.F) {
	f.Add([]byte("\x90\x41\xFF\x90\x51\xFF"))
	f.Add([]byte("\x90\x60\x02\xFF"))
	f.Add([]byte("\xFF\xFF\x80\xFF\x90\xFF"))
	f.Add(bytes.Repeat([]byte{0x90}, 40))
	f.Fuzz(func(t *testing.T, in []byte) {
		var s splitter
		for _, b := range in {
			r, ok := s.next(b)
			if ok && (b != end || r.from < minAddress || r.from > maxAddress || r.kind == 0) {
				t.Errorf("%+v after % X", r, in)
			}
			if len(s.have) > maxPacket {
				t.Fatalf("%d bytes are kept", len(s.have))
			}
		}
		// Whatever came before, an answer that follows an end is understood.
		if _, ok := s.next(end); ok {
			return
		}
		for _, b := range []byte{0x90, 0x41} {
			s.next(b)
		}
		if r, ok := s.next(end); !ok || r.kind != acknowledged {
			t.Errorf("deaf after % X", in)
		}
	})
}

// The daemon was killed within a packet: what follows it is not understood, and
// an answer to what came before is none to this.
func TestALampIsDarkenedAfterALinkThatCouldNot(t *testing.T) {
	const took, unknown = "\x90\x41\xFF", "\x90\x60\x02\xFF"
	for _, tt := range []struct {
		name, model string
		answers     []string // the last of them for ever
		patience    time.Duration
		err         error
		want        int // commands
	}{
		{"at once", "sony", []string{took}, time.Minute, nil, 2},
		{"after half a packet", "sony", []string{unknown, took}, time.Minute, nil, 3},
		{"after an old answer and half a packet", "sony", []string{took + unknown, took}, time.Minute, nil, 3},
		{"after a silence", "avonic", []string{"", took}, time.Minute, nil, 3},
		{"never", "sony", []string{""}, 2 * time.Second, ErrSilent, 2},
		{"not at all", "", []string{took}, time.Minute, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				ctx, cancel := context.WithTimeout(t.Context(), tt.patience)
				defer cancel()
				ended := make(chan error, 1)
				go func() { ended <- Darken(ctx, ours, 1, tt.model) }()
				answers, got := tt.answers, 0
				buf := make([]byte, 64)
				for n, err := theirs.Read(buf); err == nil; n, err = theirs.Read(buf) {
					got++
					if want := packet(1, Models[tt.model].Off); !bytes.Equal(buf[:n], want) {
						t.Errorf("% X, want % X", buf[:n], want)
					}
					_, _ = io.WriteString(theirs, answers[0])
					if len(answers) > 1 {
						answers = answers[1:]
					}
				}
				if err := <-ended; !errors.Is(err, tt.err) || got != tt.want {
					t.Errorf("told %d times, then %v; want %d and %v", got, err, tt.want, tt.err)
				}
			})
		})
	}
}

func TestAPortThatTakesNothingKeepsNobodyDarkening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe() // nobody reads
		defer theirs.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if err := Darken(ctx, ours, 1, "sony"); err == nil || time.Since(begin) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}
