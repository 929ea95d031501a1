#!/usr/bin/env python3
"""vm.py WORK save                boot, load the test devices, take the snapshot, prove that it can be restored
vm.py WORK run SCRIPT...       restore a guest per script, run it there, report
vm.py WORK exec BINARY ARG...  restore a guest, run a test binary in it (go test -exec), exit with its code
vm.py WORK up                  restore a guest, print its ports and the console's file as JSON, keep it until Ctrl-C or end of input
vm.py WORK sh PORT             send the script on standard input to the guest of `up`

WORK is build.sh's folder. A restored guest works on its own copy of the snapshot and leaves nothing behind, however it ends.
"""
import ctypes, fcntl, io, json, os, re, shlex, shutil, signal, socket, subprocess, sys, tarfile, tempfile, time

FLAGS = ("console=ttyAMA0 panic=-1 loglevel=4 mitigations=off systemd.unit=multi-user.target systemd.show_status=0 lsm=capability audit=0 nokaslr "
         "arm64.nopauth arm64.nobti arm64.nomte arm64.nosve arm64.nosme kpti=off arm64.nolva rodata=off")
GUEST_PORTS = {"sh": 2222, "put": 2223, "rtsp": 8554, "web": 8080, "rtmp": 1935}
START = 240  # s: deadline for a guest to boot or to come back from the snapshot on a busy host


def die_with_parent():
    """In the child: QEMU must not outlive this program, even if it is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Guest:
    """A running guest. With restore it works on its own copy of the snapshot's overlay, so guests can run side by side."""

    def __init__(self, work, restore):
        self.start, self.proc, self.qmp = time.time(), None, None
        self.dir = tempfile.mkdtemp(prefix="vm.")  # short path: a unix socket's name has 107 bytes
        self.console = os.path.join(self.dir if restore else work, "console.log")
        disk, copy = os.path.join(work, "vm.qcow2"), None
        try:
            if restore:
                copy = os.path.join(work, os.path.basename(self.dir) + ".qcow2")  # beside root.ext4, its backing file
                subprocess.run(["cp", "--reflink=auto", "--sparse=always", disk, copy], check=True)
            self.spawn(work, copy or disk, restore)
            self.connect()
            self.port = self.forwarded()
        except BaseException:
            self.close()
            raise
        finally:
            if copy and os.path.exists(copy):  # QEMU has it open: no file is left over
                os.remove(copy)

    def spawn(self, work, disk, restore):
        forward = "".join(f",hostfwd=tcp:127.0.0.1:0-:{p}" for p in GUEST_PORTS.values())  # 0: QEMU takes a free one
        self.proc = subprocess.Popen(
            ["qemu-system-aarch64", "-M", "virt,gic-version=3", "-cpu", "max,pauth-impdef=on",  # without it pointer authentication is very slow
             "-accel", "tcg,thread=multi,tb-size=512", "-smp", "2", "-m", "768", "-display", "none", "-no-reboot", "-nodefaults",
             "-serial", f"file:{self.console}", "-kernel", f"{work}/vmlinuz", "-initrd", f"{work}/initrd.gz",
             "-drive", f"if=none,id=d0,file={disk},format=qcow2,cache=unsafe", "-device", "virtio-blk-pci,drive=d0",
             "-netdev", f"user,id=n0{forward}", "-device", "virtio-net-pci,netdev=n0,romfile=", "-device", "virtio-rng-pci",
             "-qmp", f"unix:{self.dir}/qmp,server=on,wait=off", "-append", FLAGS] + (["-loadvm", "ready"] if restore else []),
            stdin=subprocess.DEVNULL, stdout=sys.stderr, preexec_fn=die_with_parent)

    def connect(self):
        self.qmp = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.qmp.connect(f"{self.dir}/qmp")
                break
            except OSError:
                if self.proc.poll() is not None:
                    raise SystemExit(f"vm.py: QEMU ended with {self.proc.returncode}; if it cannot load the snapshot, remove {sys.argv[1]}/snapshot.key")
                time.sleep(0.02)
        self.lines = self.qmp.makefile("rw")
        self.lines.readline()
        self.command({"execute": "qmp_capabilities"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.proc:
            if self.proc.poll() is None:
                self.proc.kill()
            self.proc.wait()
        if self.qmp:
            self.qmp.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def stat(self):
        f = open(f"/proc/{self.proc.pid}/stat").read().rsplit(")", 1)[1].split()
        return f"wall {time.time() - self.start:.1f} s, cpu {(int(f[11]) + int(f[12])) / 100:.1f} s"

    def command(self, what):
        self.lines.write(json.dumps(what) + "\n")
        self.lines.flush()
        while line := self.lines.readline():
            answer = json.loads(line)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise SystemExit(f"vm.py: {what}: {answer['error']}")
        raise SystemExit(f"vm.py: QEMU ended during {what}")

    def monitor(self, line):
        return self.command({"execute": "human-monitor-command", "arguments": {"command-line": line}})

    def forwarded(self):
        """The host's ports by name, as QEMU has chosen them."""
        found = re.findall(r"TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+(\d+)", self.monitor("info usernet"))
        host = {int(guest): int(port) for port, guest in found}
        return {name: host[guest] for name, guest in GUEST_PORTS.items()}

    def sh(self, script, out=sys.stdout.buffer, wait=START):
        return shell(self.port["sh"], script, out, wait, self.proc)

    def set_clock(self):  # the snapshot's clock stands
        if self.sh(f"date -s @{time.time():.3f} > /dev/null") != 0:
            raise SystemExit("vm.py: no answer from the guest")

    def put(self, tar):
        with socket.create_connection(("127.0.0.1", self.port["put"])) as s:
            s.sendall(tar)
            s.shutdown(socket.SHUT_WR)
            answer = s.makefile("rb").read()
        if not answer.endswith(b"@@rc=0\n"):
            raise SystemExit(f"vm.py: the guest could not unpack the files: {answer.decode(errors='replace')}")


def shell(port, script, out, wait=0, proc=None):
    """Run a script in the guest, copy its output line by line, return its exit code. QEMU accepts before the guest listens, so retry."""
    end = time.time() + wait
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as s:
                s.settimeout(None)
                s.sendall(script.encode() + b"\n")
                s.shutdown(socket.SHUT_WR)
                buf, seen = b"", False
                while d := s.recv(65536):
                    buf, seen = buf + d, True
                    cut = buf.rfind(b"\n", 0, max(0, len(buf) - 64)) + 1
                    out.write(buf[:cut])
                    out.flush()
                    buf = buf[cut:]
            m = re.search(rb"@@rc=(\d+)\n$", buf)
            out.write(buf[:m.start()] if m else buf)
            out.flush()
            if m:
                return int(m.group(1))
            if seen:  # it ran and broke off: never run it twice
                print("vm.py: the guest broke off", file=sys.stderr)
                return 255
            raise ConnectionError("closed early")
        except OSError as e:
            if time.time() > end or (proc and proc.poll() is not None):
                print("vm.py:", e, file=sys.stderr)
                return 255
            time.sleep(0.2)


def restored(work):
    """A guest out of the snapshot with the right time. Until it answers, build.sh may not change the files under it."""
    with open(os.path.join(work, "lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        g = Guest(work, restore=True)
        try:
            g.set_clock()
        except BaseException:
            g.close()
            raise
        return g


def save(work):
    with Guest(work, restore=False) as g:
        setup = open(os.path.join(os.path.dirname(os.path.realpath(__file__)), "setup.sh")).read()
        rc = g.sh(setup)
        print(f"boot and devices: {g.stat()}, rc {rc}", flush=True)
        if rc:
            return rc
        t = time.time()
        if said := g.monitor("savevm ready"):
            raise SystemExit(f"vm.py: savevm: {said}")
        print(f"savevm: {time.time() - t:.1f} s", flush=True)
    with Guest(work, restore=True) as g:  # build.sh holds the lock
        g.set_clock()
        print(f"restored: {g.stat()}")
    return 0


def run(work, *scripts):
    bad = 0
    for name in scripts:
        with restored(work) as g:
            print(f"== {name}", flush=True)
            rc = g.sh(open(name).read())
            print(f"== {name}: rc {rc}, {g.stat()}", flush=True)
            bad |= rc != 0
    return int(bad)


def exec_(work, binary, *args):
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as t:
        t.add(binary, "t")
        if os.path.isdir("testdata"):
            t.add("testdata")
    env = " ".join(shlex.quote(f"{k}={v}") for k, v in os.environ.items() if k.startswith("VIRT_"))
    with restored(work) as g:
        g.put(tar.getvalue())
        return g.sh(f"cd /run/work; exec env {env} ./t {shlex.join(args)}")


def up(work):
    with restored(work) as g:
        print(json.dumps({"ports": g.port, "console": g.console}), flush=True)
        try:
            sys.stdin.read()
        except KeyboardInterrupt:
            pass
    return 0


def main():
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the guest ends too
    work, command, rest = os.path.abspath(sys.argv[1]), sys.argv[2], sys.argv[3:]
    if command == "sh":
        sys.exit(shell(int(rest[0]), sys.stdin.read(), sys.stdout.buffer))
    sys.exit({"save": save, "run": run, "exec": exec_, "up": up}[command](work, *rest))


main()
