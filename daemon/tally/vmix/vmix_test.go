package vmix

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/daemon/tally"
	"encoderd.example/daemon/tally/tallytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A mixer is a vMix with inputs and their tally.
type mixer struct {
	t      *testing.T
	titles []string
	// answer, if set, may answer otherwise; ok is false for the right answer.
	answer func(command string) (reply string, ok bool)

	mu    sync.Mutex
	list  string
	conn  net.Conn
	asked []string
	tells bool // subscribed
}

// serve is one connection.
func (m *mixer) serve(conn net.Conn) {
	m.mu.Lock()
	m.conn = conn
	m.mu.Unlock()
	m.say("VERSION OK 27.0.0.49\r\n")
	for r := bufio.NewReader(conn); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		command, whole := strings.CutSuffix(line, "\r\n")
		if !whole {
			m.t.Errorf("asks %q", line)
		}
		m.say(m.reply(command))
	}
}

func (m *mixer) reply(command string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, command)
	if m.answer != nil {
		if reply, ok := m.answer(command); ok {
			return reply
		}
	}
	switch command {
	case "SUBSCRIBE TALLY":
		m.tells = true
		return "SUBSCRIBE OK TALLY Subscribed\r\n"
	case "TALLY":
		return "TALLY OK " + m.list + "\r\n"
	case "XML":
		body := m.xml()
		return fmt.Sprintf("XML %d\r\n%s", len(body), body)
	default:
		m.t.Errorf("asks %q", command)
		return command + " ER What?\r\n"
	}
}

func (m *mixer) xml() string {
	var b strings.Builder
	b.WriteString("<vmix><version>27.0.0.49</version><inputs>\r\n")
	for i, title := range m.titles {
		fmt.Fprintf(&b, `<input key="key-%d" number="%d" type="Xaml" title="%s" state="Paused">%s<overlay index="0" key="key-1"/><text index="0" name="Headline">input</text></input>`, i+1, i+1, title, title)
	}
	b.WriteString("</inputs><overlays><overlay number=\"1\"/></overlays><preview>1</preview></vmix>\r\n")
	return b.String()
}

func (m *mixer) say(text string) {
	m.mu.Lock()
	conn := m.conn
	m.mu.Unlock()
	_, _ = io.WriteString(conn, text) // who has gone hears nothing
}

// show changes the tally, and says so.
func (m *mixer) show(list string, titles ...string) {
	m.mu.Lock()
	m.list = list
	if titles != nil {
		m.titles = titles
	}
	tells := m.tells
	m.mu.Unlock()
	if tells {
		m.say("TALLY OK " + list + "\r\n")
	}
}

func (m *mixer) count(command string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.asked {
		if c == command {
			n++
		}
	}
	return n
}

// listens starts the mixer on a real port.
func (m *mixer) listens(t *testing.T) tally.Opener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			m.serve(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		m.mu.Lock()
		if m.conn != nil {
			m.conn.Close()
		}
		m.mu.Unlock()
		<-over
	})
	return tally.Dial("tcp", l.Addr().String())
}

// within is the mixer within the process, for tests under fake time.
func (m *mixer) within(context.Context) (io.ReadWriteCloser, error) {
	near, far := net.Pipe()
	go m.serve(far)
	return near, nil
}

// follows is a link whose sources are named like what they follow.
func follows(open tally.Opener, inputs ...string) Link {
	l := Link{Open: open, Sources: map[string]Input{}, Timeout: tallytest.Timeout}
	for _, text := range inputs {
		in, err := ParseInput(text)
		if err != nil {
			panic(err)
		}
		l.Sources[text] = in
	}
	return l
}

func TestByNumber(t *testing.T) {
	m := &mixer{t: t, list: "0121"}
	room := tallytest.New(t, "1", "2", "3", "5")
	room.Start(follows(m.listens(t), "1", "2", "3", "5"))
	room.Await("1=off 2=program 3=preview 5=unknown")
	room.Until("it says what is missing", func() bool { return room.Errors() == "vMix has no input 5, only 4" })
	m.show("10002")
	room.Await("1=program 2=off 3=off 5=preview")
	if n := m.count("XML"); n != 0 {
		t.Errorf("asked %d times for names that nobody follows", n)
	}
}

func TestByTitleAndKey(t *testing.T) {
	m := &mixer{t: t, list: "0120", titles: []string{"Slides", "Box &amp; choir", "Title", "Slides"}}
	room := tallytest.New(t, "Slides", "Box & choir", "key-3", "Tower")
	room.Start(follows(m.listens(t), "Slides", "Box & choir", "key-3", "Tower"))
	room.Await("Slides=off Box & choir=program key-3=preview Tower=unknown")
	room.Until("it says what is missing", func() bool { return room.Errors() == "vMix has no input Tower" })
	m.show("0001") // the other one of the same title
	room.Await("Slides=program Box & choir=off key-3=off Tower=unknown")
	m.show("01000", "Tower", "Slides", "Box &amp; choir", "Title", "Slides") // one more before all
	room.Await("Slides=program Box & choir=off key-3=off Tower=off")
	m.show("10000")
	room.Await("Slides=off Box & choir=off key-3=off Tower=program")
	m.show("01000", "Slides", "Tower", "Box &amp; choir", "Title", "Slides") // changed places
	room.Await("Slides=off Box & choir=off key-3=off Tower=program")
}

func TestAThousandInputs(t *testing.T) {
	m := &mixer{t: t, list: strings.Repeat("0", 999) + "1"}
	room := tallytest.New(t, "1000")
	room.Start(follows(m.listens(t), "1000"))
	room.Await("1000=program")
}

func TestVMixThatIsClosedTakesItsWordAlong(t *testing.T) {
	m := &mixer{t: t, list: "1"}
	room := tallytest.New(t, "1")
	over := room.Start(follows(m.listens(t), "1"))
	room.Await("1=program")
	m.mu.Lock()
	m.conn.Close()
	m.mu.Unlock()
	if err := <-over; err == nil {
		t.Error("ended well")
	}
	if got := room.States(); got != "1=unknown" {
		t.Errorf("at once: %s", got)
	}
}

func TestDamagedLinesAreCountedAndTheRestGoesOn(t *testing.T) {
	m := &mixer{t: t, list: "0"}
	room := tallytest.New(t, "1")
	room.Start(follows(m.listens(t), "1"))
	room.Await("1=off")
	bad := []string{"TALLY OK 1x", "TALLY OK " + strings.Repeat("1", 1001), "TALLY", "garbage", "TALLY ER Nope", "\x00\xff", "XMLTEXT 12 ?"}
	good := []string{"", "ACTS OK Input 1 1", "TALLY OK", "VERSION OK"}
	for _, line := range slices.Concat(bad, good) {
		m.say(line + "\r\n")
	}
	m.show("1")
	room.Await("1=program")
	if n := room.Bad(); n != uint64(len(bad)) {
		t.Errorf("%d bad lines, not %d", n, len(bad))
	}
}

// A vMix that is there but does not tell the tally leaves nobody on program.
func TestAVMixThatRefusesIsUnknown(t *testing.T) {
	for _, answer := range []string{"TALLY ER No such thing\r\n", "TALLY OK 1x\r\n"} {
		var refuses atomic.Bool
		m := &mixer{t: t, list: "1", answer: func(command string) (string, bool) { return answer, command == "TALLY" && refuses.Load() }}
		room := tallytest.New(t, "1")
		link := follows(m.listens(t), "1")
		link.Timeout = 3 * time.Second // it is asked every second
		room.Start(link)
		room.Await("1=program")
		refuses.Store(true)
		room.Await("1=unknown")
		refuses.Store(false)
		room.Await("1=program")
	}
}

func TestWhatEndsTheLink(t *testing.T) {
	tests := []struct{ name, reply, want string }{
		{"a line without an end", strings.Repeat("1", 2*maxLine), "longer than 4096 bytes"},
		{"XML longer than any", "XML 99999999\r\n", "is no answer of vMix"},
		{"XML of no length", "XML lots\r\n", "is no answer of vMix"},
		{"XML of negative length", "XML -1\r\n", "is no answer of vMix"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := &mixer{t: t, list: "1", answer: func(command string) (string, bool) { return tt.reply, command == "XML" }}
			room := tallytest.New(t, "Slides")
			err := <-room.Start(follows(m.listens(t), "Slides"))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ended by %v", err)
			}
		})
	}
}

func TestXMLThatIsNoneLeavesNamesUnknownAndNumbersAlone(t *testing.T) {
	for name, xml := range map[string]string{
		"refused": "XML ER Not now\r\n", "cut short": "XML 6\r\n<vmix ", "another file": "XML 7\r\n<a><b/>",
	} {
		t.Run(name, func(t *testing.T) {
			m := &mixer{t: t, list: "12", answer: func(command string) (string, bool) { return xml, command == "XML" }}
			room := tallytest.New(t, "Slides", "2")
			room.Start(follows(m.listens(t), "Slides", "2"))
			room.Await("Slides=unknown 2=preview")
		})
	}
}

func TestXMLAsDeepAsItMayBeCostsLittle(t *testing.T) {
	body := strings.Repeat("<a>", 1<<17)
	titles, err := parseTitles(strings.NewReader(body))
	if err != nil || len(titles) != 0 {
		t.Errorf("%d titles, %v", len(titles), err)
	}
	var many strings.Builder
	many.WriteString("<vmix><inputs>")
	for i := range 10 * maxInputs {
		fmt.Fprintf(&many, `<input number="1" title="t%d" key="k%d"/>`, i, i)
	}
	if titles, err = parseTitles(strings.NewReader(many.String())); len(titles) > 2*maxInputs+1 || err != nil {
		t.Errorf("%d titles, %v", len(titles), err)
	}
}

func wait(t *testing.T, room *tallytest.Room, want string) {
	t.Helper()
	synctest.Wait()
	if got := room.States(); got != want {
		t.Errorf("%s, not %s: %s", got, want, room.Errors())
	}
}

func TestAVMixThatAnswersStaysFreshWithoutEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &mixer{t: t, list: "10"}
		room := tallytest.New(t, "1")
		room.Start(follows(m.within, "1"))
		wait(t, room, "1=program")
		time.Sleep(10 * time.Minute)
		wait(t, room, "1=program")
		m.mu.Lock()
		m.list = "01" // without a word
		m.mu.Unlock()
		time.Sleep(tallytest.Timeout/3 + time.Millisecond)
		wait(t, room, "1=off")
	})
}

func TestWordsInBetweenDoNotHideAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &mixer{t: t, list: "1", titles: []string{"Slides"}}
		body := m.xml()
		m.answer = func(command string) (string, bool) {
			return fmt.Sprintf("XML %d\r\n%s%s", len(body), body, strings.Repeat("TALLY OK 1\r\n", 20)), command == "XML"
		}
		room := tallytest.New(t, "Slides")
		room.Start(follows(m.within, "Slides"))
		wait(t, room, "Slides=program")
		time.Sleep(10 * time.Minute)
		wait(t, room, "Slides=program")
	})
}

func TestAVMixThatHangsTurnsUnknownAndIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &mixer{t: t, list: "10"}
		room := tallytest.New(t, "1")
		over := room.Start(follows(m.within, "1"))
		wait(t, room, "1=program")
		m.mu.Lock()
		m.answer = func(string) (string, bool) { return "", true }
		m.mu.Unlock()
		begin := time.Now()
		err := <-over
		wait(t, room, "1=unknown")
		if took := time.Since(begin); took > tallytest.Timeout*4/3+time.Millisecond {
			t.Errorf("%v after %v", err, took)
		}
		if err == nil || !strings.Contains(err.Error(), "has not answered TALLY for 10s") {
			t.Errorf("ended by %v", err)
		}
	})
}

func TestAVMixThatTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		room := tallytest.New(t, "1")
		begin := time.Now()
		err := <-room.Start(follows(func(context.Context) (io.ReadWriteCloser, error) { return near, nil }, "1"))
		if err == nil || !strings.Contains(err.Error(), "has not answered SUBSCRIBE TALLY") || time.Since(begin) != tallytest.Timeout {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

func TestXMLThatTricklesHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &mixer{t: t, list: "10", answer: func(command string) (string, bool) { return "XML 100\r\n<vmix>", command == "XML" }}
		room := tallytest.New(t, "Slides")
		err := <-room.Start(follows(m.within, "Slides"))
		if err == nil || !strings.Contains(err.Error(), "has not answered XML") {
			t.Errorf("ended by %v", err)
		}
	})
}

func TestAPortThatDoesNotAnswer(t *testing.T) {
	refused := errors.New("connection refused")
	room := tallytest.New(t, "1")
	err := <-room.Start(follows(func(context.Context) (io.ReadWriteCloser, error) { return nil, refused }, "1"))
	if !errors.Is(err, refused) || room.Errors() != "connection refused" {
		t.Errorf("ended by %v, says %q", err, room.Errors())
	}
}

func TestParseInput(t *testing.T) {
	tests := map[string]Input{
		"1": {Number: 1}, "1000": {Number: 1000}, "Slides": {Name: "Slides"}, "name:3": {Name: "3"}, "3 Slides": {Name: "3 Slides"},
		"0": {}, "1001": {}, "-1": {}, "": {}, "name:": {},
	}
	for text, want := range tests {
		if got, err := ParseInput(text); got != want || (err != nil) != (want == Input{}) {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
}

func FuzzLine(f *testing.F) {
	f.Add([]byte("VERSION OK 27.0.0.49\r\nSUBSCRIBE OK TALLY Subscribed\r\nTALLY OK 0121\r\n"))
	f.Add([]byte("XML 75\r\n<vmix><inputs><input number=\"3\" title=\"Slides\" key=\"a\"/></inputs></vmix>\r\n\r\nTALLY OK 001\r\n"))
	f.Add([]byte("TALLY ER Nope\r\nXML ER\r\nFUNCTION OK\r\nTALLY OK 0129\n\n"))
	f.Add([]byte("XML 7\r\n<a></b>TALLY OK 1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newSession(follows(nil, "3", "Slides"), tallytest.Witness{T: t, Sources: []string{"3", "Slides"}})
		if err := s.hear(bufio.NewReaderSize(strings.NewReader(string(b)), maxLine)); err == nil {
			t.Fatal("ended well")
		}
		if len(s.list) > maxInputs || len(s.titles) > 2*maxInputs+1 {
			t.Fatalf("remembers %d inputs and %d titles", len(s.list), len(s.titles))
		}
	})
}
