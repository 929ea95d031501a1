package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// Load comes from processes of their own, so that what they take is not
// counted:
//
//	bench child read URL COUNT     RTSP readers; the first one looks closely
//	bench child drain ADDR COUNT   connections that read and forget
//	bench child capture JOB        our pipeline on a camera that plays a file
//	bench child paths FOLDER       all paths, on the virtual board, with the
//	                               pictures in a folder
//	bench child crowd JOB          readers of any protocol, who come at once
//	bench child publish JOB        a publisher of coded material by RTMP
//	bench child serve FILE         our servers with that material
//	bench child floor FILE         a server that writes the units in FILE, which
//	                               are lengths and times, to all who connect
//
// A child prints a line once it is under way, and ends when its standard input
// does; "read", "crowd" and "capture" then print what they saw, as JSON.
const childWord = "child"

var errChild = errors.New("wrong use of a child process")

func child(args []string, in io.Reader, out io.Writer) error {
	if len(args) < 2 {
		return errChild
	}
	if args[0] == "paths" { // the board gives no standard input
		return walkPaths(args[1], out)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	switch {
	case args[0] == "floor":
		return floor(ctx, args[1], out)
	case args[0] == "capture":
		return capture(ctx, args[1], out)
	case args[0] == "serve":
		return serveShow(ctx, args[1], out)
	case args[0] == "publish":
		return publish(ctx, args[1], out)
	case args[0] == "crowd":
		return runCrowd(ctx, args[1], out)
	case len(args) != 3:
		return errChild
	}
	n, err := strconv.Atoi(args[2])
	if err != nil || n < 1 {
		return errChild
	}
	switch args[0] {
	case "read":
		return read(ctx, args[1], n, out)
	case "drain":
		return drain(ctx, args[1], n, out)
	default:
		return errChild
	}
}

// settle is when a reader has what the server had in store for newcomers.
const settle = 2 * time.Second

func read(ctx context.Context, address string, n int, out io.Writer) error {
	var conns []net.Conn
	var others sync.WaitGroup
	defer others.Wait()
	defer func() { closeAll(conns) }()
	first, err := play(ctx, address)
	if err != nil {
		return err
	}
	conns = append(conns, first.conn)
	for range n - 1 {
		p, err := play(ctx, address)
		if err != nil {
			return err
		}
		conns = append(conns, p.conn)
		others.Go(func() { forget(p.conn) })
	}
	fmt.Fprintln(out, "under way")
	context.AfterFunc(ctx, func() { closeAll(conns) })
	w := &watch{began: time.Now(), settle: settle}
	buf := make([]byte, 1<<16)
	for {
		p, err := first.next(buf)
		switch {
		case ended(ctx):
			return json.NewEncoder(out).Encode(w.result)
		case err != nil:
			return err
		}
		w.see(p, time.Now())
	}
}

func drain(ctx context.Context, address string, n int, out io.Writer) error {
	var conns []net.Conn
	var readers sync.WaitGroup
	defer readers.Wait()
	defer func() { closeAll(conns) }()
	for range n {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		conns = append(conns, c)
		readers.Go(func() { forget(c) })
	}
	fmt.Fprintln(out, "under way")
	<-ctx.Done()
	return nil
}

// forget reads until the connection ends.
func forget(c net.Conn) {
	buf := make([]byte, 1<<16)
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		_ = c.Close() // may be closed already
	}
}

// floor does the least that a server can do: one goroutine writes each unit
// once to each connection, with nothing to look after.
func floor(ctx context.Context, file string, out io.Writer) error {
	doc, err := os.ReadFile(file) //nolint:gosec // G304: our parent names it
	if err != nil {
		return fmt.Errorf("read the units: %w", err)
	}
	var units []unit
	if err := json.Unmarshal(doc, &units); err != nil || len(units) < 2 {
		return fmt.Errorf("read the units: %w", errors.Join(err, errChild))
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	fmt.Fprintln(out, l.Addr())
	var mu sync.Mutex
	var conns []net.Conn
	var accepting sync.WaitGroup
	defer accepting.Wait()
	defer func() { _ = l.Close() }()
	accepting.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
		}
	})
	writeUnits(ctx, units, func(data []byte) {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			_, _ = c.Write(data) // a reader may have gone
		}
	})
	return nil
}

func ended(ctx context.Context) bool { return ctx.Err() != nil }

// writeUnits plays the units again and again in their time, until ctx ends.
func writeUnits(ctx context.Context, units []unit, write func([]byte)) {
	most := 0
	for _, u := range units {
		most = max(most, u.Bytes)
	}
	data := make([]byte, most)
	length := units[len(units)-1].At - units[0].At
	begin := time.Now()
	for ; ; begin = begin.Add(length) {
		for _, u := range units {
			if wait(ctx, time.Until(begin.Add(u.At-units[0].At))) != nil {
				return
			}
			write(data[:u.Bytes])
		}
	}
}
