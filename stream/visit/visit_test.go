package visit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"go.uber.org/goleak"

	"encoderd.example/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// door lets in who shows the password or token "open".
type door struct{}

func (door) Allow(_ string, c stream.Credentials) error {
	switch {
	case c.Empty():
		return stream.ErrLocked
	case c.Password == "open", c.Token == "open":
		return nil
	default:
		return stream.ErrDenied
	}
}

func request(peer, agent, query string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/live/index.m3u8"+query, nil)
	r.RemoteAddr = peer
	r.Header.Set("User-Agent", agent)
	return r
}

// begin runs visits in a bubble of synctest until the test ends.
func begin(t *testing.T, limits stream.Limits) (*Visits, *stream.Audience) {
	t.Helper()
	a := &stream.Audience{}
	a.SetDoor(nil, limits)
	v := &Visits{Protocol: "hls", Audience: a}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- v.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil || len(a.Viewers()) > 0 {
			t.Errorf("Run ends with %v and %d viewers", err, len(a.Viewers()))
		}
	})
	return v, a
}

func watch(t *testing.T, v *Visit, rendition string, lead bool) (done func()) {
	t.Helper()
	_, done, err := v.Watch(rendition, lead, 6*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func TestAPlayerIsOneViewerUntilItFallsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, a := begin(t, stream.Limits{})
		visit, err := v.Begin(request("10.0.0.1:5", "p", ""))
		if err != nil || len(a.Viewers()) != 0 {
			t.Fatalf("begun: %v, %d viewers", err, len(a.Viewers()))
		}
		for range 10 {
			watch(t, visit, "main", true)()
			time.Sleep(5 * time.Second)
		}
		if got := a.Viewers(); len(got) != 1 || got[0].Protocol != "hls" || got[0].Peer != "10.0.0.1:5" {
			t.Errorf("viewers %+v", got)
		}
		done := watch(t, visit, "main", true)
		time.Sleep(time.Minute)
		if len(a.Viewers()) != 1 {
			t.Error("left during a request")
		}
		done()
		time.Sleep(8 * time.Second)
		if len(a.Viewers()) != 0 {
			t.Error("still there 8 s after its last request")
		}
		watch(t, visit, "main", true)()
		if len(a.Viewers()) != 1 || v.Find(visit.ID, "") != visit {
			t.Error("it cannot come back")
		}
	})
}

func TestVisitsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, _ := begin(t, stream.Limits{})
		never, _ := v.Begin(request("10.0.0.1:5", "p", ""))
		watched, _ := v.Guess(request("10.0.0.1:5", "p", ""))
		watch(t, watched, "main", true)()
		time.Sleep(unwatched + 2*sweepEvery)
		if v.Find(never.ID, "") != nil || v.Find(watched.ID, "") != watched {
			t.Error("the one that never watched stays, or the other does not")
		}
		time.Sleep(resting)
		v.mu.Lock()
		stay := len(v.byID) + len(v.byLook)
		v.mu.Unlock()
		if stay > 0 {
			t.Errorf("%d visits stay", stay)
		}
		if _, _, err := watched.Watch("main", true, time.Second); !errors.Is(err, ErrOver) {
			t.Errorf("a forgotten visit watches: %v", err)
		}
		if again, _ := v.Guess(request("10.0.0.1:5", "p", "")); again == watched {
			t.Error("a forgotten visit goes on")
		}
	})
}

func TestPlayersWithoutIDAreKnownByTheirLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, _ := begin(t, stream.Limits{})
		seen := map[*Visit]string{}
		for _, r := range []*http.Request{
			request("10.0.0.1:5", "p", ""), request("10.0.0.2:5", "p", ""), request("10.0.0.1:5", "q", ""),
			request("10.0.0.1:5", "p", "?token=a"), request("10.0.0.1:5", "p", "?token=b"),
		} {
			visit, err := v.Guess(r)
			if err != nil || seen[visit] != "" {
				t.Errorf("%s %s is taken for %s, %v", r.RemoteAddr, r.URL, seen[visit], err)
			}
			seen[visit] = r.RemoteAddr + r.URL.String()
			r.RemoteAddr = r.RemoteAddr[:len(r.RemoteAddr)-1] + "6" // another connection
			if again, _ := v.Guess(r); again != visit {
				t.Errorf("%s %s is not known again", r.RemoteAddr, r.URL)
			}
		}
	})
}

// Behind one address there may be several players of one make. Those that come
// back to where they began are known by a connection of theirs.
func TestPlayersThatLookTheSameAreToldApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, a := begin(t, stream.Limits{})
		arrive := func(peer string) *Visit {
			t.Helper()
			visit, err := v.Arrive(request(peer, "p", ""))
			if err != nil {
				t.Fatal(err)
			}
			return visit
		}
		one, two := arrive("10.0.0.1:1"), arrive("10.0.0.1:2")
		if one == two {
			t.Fatal("two players are one")
		}
		for i, visit := range []*Visit{one, two} {
			for n := range 2 * maxPeers { // over many connections
				peer := fmt.Sprintf("10.0.0.1:%d%d", i+1, n)
				if v.Find(visit.ID, peer) != visit || arrive(peer) != visit {
					t.Errorf("not known again by %s", peer)
				}
			}
			watch(t, visit, "main", true)()
		}
		if n := len(a.Viewers()); n != 2 {
			t.Errorf("%d viewers", n)
		}
		other := request("10.0.0.1:12", "p", "")
		other.SetBasicAuth("somebody", "else")
		if visit, _ := v.Arrive(other); visit == one || visit == two {
			t.Error("one connection makes one of two that show different passwords")
		}
		time.Sleep(unwatched + resting + 2*sweepEvery)
		v.mu.Lock()
		defer v.mu.Unlock()
		if n := len(v.byID) + len(v.byPeer) + len(v.spares); n > 0 {
			t.Errorf("%d things are remembered", n)
		}
	})
}

// A player that loads its manifest anew over a new connection each time, and has
// no use for what it is told, does not pile up visits.
func TestVisitsThatComeToNothingAreHandedOutAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, a := begin(t, stream.Limits{})
		mine, _ := v.Arrive(request("10.0.0.1:1", "p", ""))
		port := 1000
		for range 300 {
			done := watch(t, v.Find(mine.ID, "10.0.0.1:1"), "main", true)
			port++
			if again, err := v.Arrive(request(fmt.Sprintf("10.0.0.1:%d", port), "p", "")); err != nil || again == mine {
				t.Fatalf("%v; it may be a newcomer", err)
			}
			time.Sleep(spareAfter / 20)
			done()
		}
		v.mu.Lock()
		n := len(v.byID)
		v.mu.Unlock()
		if n > 1+20+1 {
			t.Errorf("%d visits of one player", n)
		}
		newcomer, _ := v.Arrive(request("10.0.0.1:2", "p", ""))
		watch(t, v.Find(newcomer.ID, "10.0.0.1:2"), "main", true)()
		for range 100 {
			if again, _ := v.Arrive(request("10.0.0.1:3", "p", "")); again == newcomer {
				t.Fatal("a visit that somebody uses is handed out")
			}
			time.Sleep(spareAfter / 20)
			watch(t, mine, "main", true)()
			watch(t, newcomer, "main", true)()
		}
		if n := len(a.Viewers()); n != 2 {
			t.Errorf("%d viewers", n)
		}
	})
}

func TestGoingOverToAnotherRendition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, a := begin(t, stream.Limits{Total: 1})
		visit, _ := v.Begin(request("10.0.0.1:5", "p", ""))
		watch(t, visit, "main", true)()
		first := a.Viewers()[0]
		watch(t, visit, "sub", false)()
		if a.Viewers()[0] != first {
			t.Error("sound decides what it watches")
		}
		watch(t, visit, "sub", true)()
		if got := a.Viewers(); len(got) != 1 || got[0].Rendition != "sub" {
			t.Errorf("viewers %+v", got)
		}
		other, _ := v.Begin(request("10.0.0.2:5", "p", ""))
		if _, _, err := other.Watch("sub", true, time.Second); err == nil {
			t.Error("one more than allowed")
		}
	})
}

func TestSkippedSegmentsAreCounted(t *testing.T) {
	var v Visit
	for i, test := range []struct{ number, skipped uint64 }{{7, 0}, {7, 0}, {8, 0}, {11, 2}, {9, 0}, {12, 0}} {
		if got := v.Follow(test.number); got != test.skipped {
			t.Errorf("request %d: %d skipped, want %d", i, got, test.skipped)
		}
	}
}

func TestVisitsBeginOnlyWhileSomebodyLooksAfterThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &Visits{}
		var first *Visit
		for range 2 { // it may run again
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- v.Run(ctx) }()
			synctest.Wait()
			visit, err := v.Begin(request("10.0.0.1:5", "p", ""))
			if err != nil || visit == first {
				t.Errorf("while it runs: %v", err)
			}
			first = visit
			cancel()
			<-ended
			if _, err := v.Begin(request("10.0.0.1:5", "p", "")); !errors.Is(err, ErrOver) || v.Find(visit.ID, "") != nil {
				t.Errorf("after its end: %v", err)
			}
			if _, _, err := visit.Watch("main", true, time.Second); !errors.Is(err, ErrOver) {
				t.Errorf("a visit after the end: %v", err)
			}
		}
	})
}

func TestAFloodOfBeginningsIsBoundedAndViewersStay(t *testing.T) {
	audience := &stream.Audience{}
	v := &Visits{Audience: audience}
	begin := func(peer string) *Visit {
		t.Helper()
		got, err := v.Begin(request(peer, "p", ""))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	watch := func(who *Visit) error {
		_, done, err := who.Watch("main", true, time.Minute)
		if err == nil {
			done()
		}
		return err
	}
	viewer := begin("10.0.0.1:5")
	if err := watch(viewer); err != nil {
		t.Fatal(err)
	}
	first := begin("10.0.0.1:5")
	for range 2 * maxPerPeer {
		begin("10.0.0.1:5")
	}
	if n := len(v.byID); n != maxPerPeer {
		t.Errorf("%d visits of one address", n)
	}
	if v.Find(first.ID, "") != nil || !errors.Is(watch(first), ErrOver) {
		t.Error("who was there first and never watched is still known")
	}
	if v.Find(viewer.ID, "") != viewer || watch(viewer) != nil || len(audience.Viewers()) != 1 {
		t.Error("a viewer had to go")
	}
	for host := range 16 {
		for range maxPerPeer {
			begin(fmt.Sprintf("10.0.1.%d:5", host))
		}
	}
	if err := watch(begin("10.0.0.2:5")); err != nil || len(v.byID) > maxVisits {
		t.Errorf("others suffer: %v; %d visits", err, len(v.byID))
	}
}

func TestRefusalsSpeakHTTP(t *testing.T) {
	a := &stream.Audience{}
	a.SetDoor(door{}, stream.Limits{Total: 1})
	v := &Visits{Protocol: "hls", Audience: a}
	basic := request("10.0.0.1:5", "p", "")
	basic.SetBasicAuth("", "wrong")
	right := request("10.0.0.1:5", "p", "")
	right.SetBasicAuth("anybody", "open")
	for i, test := range []struct {
		r      *http.Request
		status int
	}{
		{request("10.0.0.1:5", "p", ""), http.StatusUnauthorized},
		{basic, http.StatusUnauthorized},
		{request("10.0.0.1:5", "p", "?token=wrong"), http.StatusForbidden},
		{right, http.StatusOK},
		{request("10.0.0.1:5", "p", "?token=open"), http.StatusServiceUnavailable},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			visit, err := v.Begin(test.r)
			if err != nil {
				t.Fatal(err)
			}
			w := httptest.NewRecorder()
			if _, _, err := visit.Watch("main", true, time.Second); err != nil {
				Refuse(w, test.r, err)
			}
			if w.Code != test.status || w.Code == 401 != (w.Header().Get("WWW-Authenticate") != "") {
				t.Errorf("status %d, want %d; header %v", w.Code, test.status, w.Header())
			}
		})
	}
}

func TestWhereOnlyALinkOpensNobodyIsAskedForAPassword(t *testing.T) {
	basic := request("10.0.0.1:5", "p", "")
	basic.SetBasicAuth("u", "p")
	for _, r := range []*http.Request{request("10.0.0.1:5", "p", ""), basic} {
		w := httptest.NewRecorder()
		Refuse(w, r, fmt.Errorf("sub: %w", stream.ErrLinkOnly))
		if w.Code != http.StatusForbidden || w.Header().Get("WWW-Authenticate") != "" || !strings.Contains(w.Body.String(), "link only") {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
	}
}

func TestPagesOfOtherSitesMayAsk(t *testing.T) {
	asked := false
	h := Preflight(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	r := request("10.0.0.1:5", "p", "")
	r.Method = http.MethodOptions
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	allowed := w.Header().Get("Access-Control-Allow-Headers")
	if w.Code != http.StatusNoContent || asked || w.Header().Get("Access-Control-Allow-Origin") != "*" ||
		!strings.Contains(allowed, "Authorization") || !strings.Contains(allowed, "Range") || w.Header().Get("Access-Control-Allow-Methods") != Methods {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	h.ServeHTTP(httptest.NewRecorder(), request("10.0.0.1:5", "p", ""))
	if !asked {
		t.Error("other requests do not come through")
	}
}

func TestVisitsKeepLittleOfWhatIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, _ := begin(t, stream.Limits{})
		long := strings.Repeat("x", 10*maxShown)
		r := request("192.0.2.1:5000", "player", "?token="+long)
		r.SetBasicAuth(long, long)
		visit, err := v.Begin(r)
		if err != nil {
			t.Fatal(err)
		}
		c := visit.credentials
		for _, kept := range []string{c.User, c.Password, c.Token} {
			if kept == "" || len(kept) > maxShown {
				t.Errorf("%d bytes are kept", len(kept))
			}
		}
		query := r.URL.RawQuery
		if cut := strings.TrimPrefix(query, "token="); unsafe.StringData(cut) == unsafe.StringData(c.Token) {
			t.Error("the token holds the whole address in memory")
		}
	})
}

func TestAVisitEndsWithItsLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, a := begin(t, stream.Limits{})
		a.SetDoor(until(time.Now().Add(time.Minute)), stream.Limits{})
		r := request("10.0.0.1:5", "p", "?token=open")
		visit, err := v.Guess(r)
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		for err == nil {
			var done func()
			if _, done, err = visit.Watch("main", true, 6*time.Second); err == nil {
				done()
				time.Sleep(time.Second)
			}
		}
		if watched := time.Since(begun); !errors.Is(err, stream.ErrDenied) || watched < time.Minute || watched > time.Minute+checkEvery {
			t.Errorf("a link of a minute opened for %v, then %v", watched, err)
		}
		if _, _, again := visit.Watch("main", true, time.Second); !errors.Is(again, stream.ErrDenied) || len(a.Viewers()) > 0 {
			t.Errorf("at once: %v, %d viewers", again, len(a.Viewers()))
		}
		if other, _ := v.Guess(r); other == visit {
			t.Error("the same player is guessed to be on the visit that ended")
		}
		time.Sleep(2 * sweepEvery)
		if v.Find(visit.ID, "") != nil {
			t.Error("the visit is remembered")
		}
	})
}

// until lets everybody in until a time.
type until time.Time

func (u until) Allow(string, stream.Credentials) error {
	if time.Now().Before(time.Time(u)) {
		return nil
	}
	return stream.ErrDenied
}

func TestOneVisitIsNoDoorForMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, a := begin(t, stream.Limits{})
		r := request("10.0.0.1:5", "p", "")
		visit, _ := v.Guess(r)
		leave := make([]func(), maxBusy)
		for i := range leave {
			if same, _ := v.Guess(r); same == visit != (i < maxBusy/2) {
				t.Errorf("with %d requests under way the next player is taken for the same: %v", i, same == visit)
			}
			leave[i] = watch(t, visit, "main", true)
		}
		if _, _, err := visit.Watch("main", true, time.Second); !errors.Is(err, stream.ErrFull) || len(a.Viewers()) != 1 {
			t.Errorf("one more: %v, %d viewers", err, len(a.Viewers()))
		}
		leave[0]()
		watch(t, visit, "main", true)()
		for _, done := range leave {
			done()
		}
	})
}

func TestOthersGuessesPutNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, a := begin(t, stream.Limits{})
		a.SetDoor(door{}, stream.Limits{})
		r := request("10.0.0.1:5", "p", "")
		r.SetBasicAuth("anybody", "open")
		visit, _ := v.Begin(r)
		watch(t, visit, "main", true)()
		for range 11 {
			time.Sleep(time.Second)
			watch(t, visit, "main", true)()
			_ = a.Allow("10.0.0.1:6", "main", stream.Credentials{Password: "wrong"})
		}
		if err := a.Allow("10.0.0.1:6", "main", stream.Credentials{Password: "open"}); !errors.Is(err, stream.ErrDenied) {
			t.Fatalf("the address is not closed: %v", err)
		}
		for range 2 {
			time.Sleep(5 * time.Second)
			watch(t, visit, "main", true)()
		}
	})
}
