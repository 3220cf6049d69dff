package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// target is a process under load.
type target struct {
	pid     int
	address string
	cookie  string
	metrics string // where go_memstats_mallocs_total stands
}

// sample is what one request cost the process.
type sample struct {
	cpu    float64 // microseconds
	instr  float64 // instructions, user and kernel; 0 when they cannot be counted
	allocs float64
}

func (s sample) kinstr() string {
	if s.instr == 0 {
		return "-"
	}
	return strconv.FormatFloat(s.instr/1000, 'f', 1, 64)
}

func medians(all []sample) sample {
	pick := func(f func(sample) float64) float64 {
		var v []float64
		for _, s := range all {
			v = append(v, f(s))
		}
		return median(v)
	}
	return sample{
		pick(func(s sample) float64 { return s.cpu }), pick(func(s sample) float64 { return s.instr }),
		pick(func(s sample) float64 { return s.allocs }),
	}
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

// load sends requests over keep-alive connections and measures the process
// meanwhile.
func (t target) load(conns, requests int) (sample, error) {
	counter := countInstructions(t.pid)
	allocs := scrape(t.metrics, "go_memstats_mallocs_total")
	before := cpuTime(t.pid)
	request := []byte("GET /page HTTP/1.1\r\nHost: " + t.address + "\r\nAccept: text/html\r\nUser-Agent: bench\r\n")
	if t.cookie != "" {
		request = append(request, "Cookie: "+t.cookie+"\r\n"...)
	} else {
		// As many bytes to parse for the one as for the other.
		request = append(request, "Cookie: groupgate=0123456789012345678901234567890123456789012\r\n"...)
	}
	request = append(request, "\r\n"...)
	var left atomic.Int64
	left.Store(int64(requests))
	errs := make(chan error, conns)
	var work sync.WaitGroup
	for range conns {
		work.Go(func() {
			if err := t.connection(request, &left); err != nil {
				errs <- err
			}
		})
	}
	work.Wait()
	select {
	case err := <-errs:
		return sample{}, err
	default:
	}
	cpu := cpuTime(t.pid) - before
	n := float64(requests)
	s := sample{cpu: float64(cpu.Nanoseconds()) / 1000 / n, allocs: (scrape(t.metrics, "go_memstats_mallocs_total") - allocs) / n}
	s.instr = counter() / n
	return s, nil
}

func (t target) connection(request []byte, left *atomic.Int64) error {
	conn, err := net.Dial("tcp", t.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	for left.Add(-1) >= 0 {
		if _, err := conn.Write(request); err != nil {
			return err
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil {
			return err
		}
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answered %s", t.address, res.Status)
		}
	}
	return nil
}

// cpuTime is what the kernel has on its account for all threads of a process.
func cpuTime(pid int) time.Duration {
	var total int64
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, f := range tasks {
		raw, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		run, _, _ := strings.Cut(string(raw), " ")
		n, _ := strconv.ParseInt(run, 10, 64)
		total += n
	}
	return time.Duration(total)
}

// memory reads one line of a process's status.
func memory(pid int, line string) (mib float64) {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for text := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(text, line); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb / 1024
		}
	}
	return 0
}

// countInstructions starts perf on the process. The function it answers ends
// it and says how many instructions there were; 0 where perf cannot count.
func countInstructions(pid int) func() float64 {
	path, err := exec.LookPath("perf")
	if err != nil {
		return func() float64 { return 0 }
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	cmd := exec.CommandContext(ctx, path, "stat", "-x,", "-e", "instructions:u,instructions:k", "-p", strconv.Itoa(pid))
	var out strings.Builder
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		cancel()
		return func() float64 { return 0 }
	}
	time.Sleep(50 * time.Millisecond) // until it has attached
	return func() float64 {
		defer cancel()
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait()
		var total float64
		for line := range strings.Lines(out.String()) {
			count, _, _ := strings.Cut(line, ",")
			n, err := strconv.ParseFloat(count, 64)
			if err != nil {
				return 0
			}
			total += n
		}
		return total
	}
}
