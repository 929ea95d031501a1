// Command notifystub stands in for the daemon in the tests of the board: it
// opens each device that it is named in its configuration, a path a line,
// says so on standard output and becomes ready.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	flags := flag.NewFlagSet("run", flag.ExitOnError)
	state := flags.String("state", "", "folder of config.toml")
	if err := flags.Parse(os.Args[2:]); err != nil {
		os.Exit(2)
	}
	if os.Args[1] != "run" { // lamps-off: it has none
		return
	}
	if err := run(filepath.Join(*state, "config.toml")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(config string) error {
	f, err := os.Open(config)
	if err != nil {
		return err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		d, err := os.OpenFile(lines.Text(), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer d.Close()
		fmt.Printf("opened %s as uid %d\n", lines.Text(), os.Getuid())
	}
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("READY=1\nSTATUS=stub is up")); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	for tick := time.NewTicker(time.Second); ; {
		select {
		case <-tick.C:
			if _, err := c.Write([]byte("WATCHDOG=1")); err != nil {
				return err
			}
		case <-stop:
			return nil
		}
	}
}
