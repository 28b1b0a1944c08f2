package main

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// maxCores bounds the mask of cores that is asked for.
const maxCores = 1024

// cores is a set of them, as the kernel takes it.
type cores [maxCores / 64]uint64

func (c *cores) add(core int) { c[core/64] |= 1 << (core % 64) }

func (c *cores) list() []int {
	var list []int
	for core := range maxCores {
		if c[core/64]&(1<<(core%64)) != 0 {
			list = append(list, core)
		}
	}
	return list
}

// affinity of a thread; 0 is the one that asks.
func affinity(thread int) (c cores, err error) {
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, uintptr(thread), unsafe.Sizeof(c), uintptr(unsafe.Pointer(&c)))
	if errno != 0 {
		return cores{}, errno
	}
	return c, nil
}

func setAffinity(thread int, c cores) error {
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, uintptr(thread), unsafe.Sizeof(c), uintptr(unsafe.Pointer(&c)))
	if errno != 0 {
		return errno
	}
	return nil
}

// allowedCores are those that we may run on.
func allowedCores() []int {
	c, err := affinity(0)
	if err != nil {
		return nil
	}
	return c.list()
}

// startOn runs start on a thread that has only the given core. A process
// begins with the cores of the thread that started it.
func startOn(core int, start func() error) error {
	runtime.LockOSThread()
	before, err := affinity(0)
	if err != nil {
		runtime.UnlockOSThread()
		return start()
	}
	var only cores
	only.add(core)
	if err := setAffinity(0, only); err != nil {
		runtime.UnlockOSThread()
		return start()
	}
	err = start()
	if setAffinity(0, before) == nil {
		runtime.UnlockOSThread() // else the thread ends with its goroutine
	}
	return err
}

// keepOff moves this process off a core.
func keepOff(core int, all []int) {
	var rest cores
	for _, c := range all {
		if c != core {
			rest.add(c)
		}
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	runtime.GOMAXPROCS(len(all) - 1)
	for _, thread := range threads {
		if id, err := strconv.Atoi(thread.Name()); err == nil {
			_ = setAffinity(id, rest) // one may have ended
		}
	}
}

// busy is how long the machine's cores have worked so far, for anybody, and how
// long a hypervisor kept them from it.
func busy() time.Duration {
	const tick = time.Second / 100 // USER_HZ, everywhere that Go runs
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	var sum time.Duration
	for i, field := range strings.Fields(line) {
		n, err := strconv.ParseInt(field, 10, 64)
		// cpu user nice system idle iowait irq softirq steal guest guest_nice
		if err == nil && i != 4 && i != 5 && i < 9 {
			sum += time.Duration(n) * tick
		}
	}
	return sum
}

// used is how long we and the processes that we started and saw ending have
// worked so far.
func used() time.Duration {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}

// loadAverage of the last minute, or "".
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
